"""Searches of a shape that was built before: the same rows as built from scratch, whatever is done with them."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Integer, bindparam, event, exists, literal, select, union_all
from sqlalchemy.orm import Session, load_only, selectinload, undefer, with_loader_criteria
from sqlalchemy.sql.compiler import SQLCompiler

from pgmrl import search
from pgmrl.searching.search_result import SearchResult
from pgmrl.searching.templates import CAPACITY, TEMPLATES, PendingSearch, become_built

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Shop
else:
    Shop = Any


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def pending(statement: Any, column: Any, query: Any, **options: Any) -> Any:
    """A search whose shape is known."""
    search(statement, column, query, **options)
    made = search(statement, column, query, **options)
    assert type(made) is PendingSearch
    return made


def built(statement: Any, column: Any, query: Any, **options: Any) -> Any:
    """The same from scratch."""
    made = pending(statement, column, query, **options)
    become_built(made)
    assert type(made) is SearchResult
    return made


def shape_of(shop: Shop, name: str, n: int) -> Any:
    """A Select of this name with the n-th values."""
    package, tag = shop.package, shop.tag
    number = literal(30 + n, Integer())
    return {
        "plain": select(package.id),
        "entity": select(package),
        "filter": select(package.id).where(package.part < 20 + n),
        "list": select(package.id).where(package.id.in_(range(100, 150 + 10 * n))),
        "twice": select(package.id, (package.id + n).label("more")).where(package.id > n),
        "one parameter in two places": select(package.id, number.label("n")).where(package.part < number),
        "join": select(package.id).join(package.tags).where(tag.name == f"tag {n}"),
        "exists": select(package.id).where(exists().where(tag.package_id == package.id + n)),
        "criteria": select(package.id).options(with_loader_criteria(package, package.part < 20 + n)),
        "options": select(package).options(selectinload(package.tags), load_only(package.id)),
        "vectors": select(package).options(undefer(package.embedding)),
    }[name]


SHAPES = ["plain", "entity", "filter", "list", "twice", "one parameter in two places"]
SHAPES += ["join", "exists", "criteria", "options", "vectors"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"exact": True},
    {"counts": True, "similarity": "s", "k": 3},
]


def rows_of(session: Session, statement: Any) -> list[Any]:
    """Rows that can be compared."""
    rows = session.execute(statement).unique().all()
    return [tuple(getattr(value, "id", value) for value in row) for row in rows]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rows_are_those_of_a_search_built_anew(
    session: Session, shop: Shop, shape: str, options: dict[str, Any]
) -> None:
    """Other query vectors and other values each time."""
    package, seen = shop.package, []
    for n, query in enumerate(shop.queries[:4]):
        statement = shape_of(shop, shape, n)
        found = pending(statement, package.embedding, query, **options)
        rows = rows_of(session, found)
        assert n == 0 or type(found) is PendingSearch, "an execution built it, and not to compile it"
        assert rows == rows_of(session, built(statement, package.embedding, query, **options))
        seen.append(rows)
    assert len({str(rows) for rows in seen}) == 4


def test_a_shape_is_compiled_once(shop: Shop) -> None:
    """A thousand searches with other vectors and other filters."""
    package, compiled = shop.package, []
    original = SQLCompiler.visit_select

    def counted(self: Any, element: Any, *arguments: Any, **options: Any) -> Any:
        compiled.append(element)
        return original(self, element, *arguments, **options)  # type: ignore[no-untyped-call]

    engine = shop.engine.execution_options(compiled_cache={})
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
        patch.setattr(SQLCompiler, "visit_select", counted)
        for n in range(1000):
            statement = select(package.id, package.part).where(package.part < n % 90 + 5)
            session.execute(search(statement, package.embedding, rng.normal(size=shop.queries.shape[1]), k=1)).all()
            if not n:
                first = len(compiled)
    assert len(compiled) == first


def test_the_shapes_kept_are_bounded(shop: Shop) -> None:
    """However many there are."""
    package = shop.package
    for n in range(CAPACITY + 50):
        search(select(package.id, literal(1).label(f"label_{n}")), package.embedding, shop.queries[0])
    assert len(TEMPLATES) == CAPACITY


def test_whatever_composes_it_gets_its_own_values(session: Session, shop: Shop) -> None:
    """Subqueries, unions, further columns and options, copies: two searches of one shape stay two."""
    package, queries = shop.package, shop.queries[:2]
    statement = select(package.id).where(package.part < 50)
    expected = [rows_of(session, built(statement, package.embedding, query)) for query in queries]
    assert expected[0] != expected[1]

    def searches() -> list[Any]:
        return [pending(statement, package.embedding, query) for query in queries]

    ways: dict[str, Any] = {
        "subquery": lambda made: select(made.subquery()),
        "cte": lambda made: select(made.cte()),
        "union": lambda made: union_all(select(made.subquery())),
        "columns": lambda made: made.add_columns(package.part).with_only_columns(*made.selected_columns),
        "options": lambda made: made.options(with_loader_criteria(package, package.id > 0)).execution_options(
            populate_existing=True
        ),
        "copy": copy.copy,
        "label": lambda made: made.set_label_style(made._label_style),
        "ordered": lambda made: select(made.subquery("s")).order_by("distance"),
    }
    for name, way in ways.items():
        results = [rows_of(session, way(made)) for made in searches()]
        assert results == expected, name
    both = union_all(*(select(made.subquery()) for made in searches()))
    assert rows_of(session, both) == [*expected[0], *expected[1]]


def test_what_a_search_refuses(shop: Shop) -> None:
    """Also where it is pending; and it has the columns and types of a built one."""
    package, query = shop.package, shop.queries[0]
    made = pending(select(package.id, package.part), package.embedding, query)
    assert list(made.selected_columns.keys()) == ["id", "part", "distance"]
    assert [column["name"] for column in made.column_descriptions] == ["id", "part", "distance"]
    assert str(made) == str(built(select(package.id, package.part), package.embedding, query))
    assert made.compare(built(select(package.id, package.part), package.embedding, query))
    with pytest.raises(Exception, match="a condition on a search's result"):
        pending(select(package.id), package.embedding, query).where(package.id > 3)


def test_rows_by_column(shop: Shop) -> None:
    """A row of Core is asked by the columns of the caller's Select, by those of a copy of it too."""
    table = shop.package.__table__
    with shop.engine.connect() as connection:
        for query in shop.queries[:3]:
            made = search(select(table.c.id, table.c.part), table.c.embedding, query)
            for row in connection.execute(made):
                assert row._mapping[table.c.part] == row.part
                assert row._mapping["distance"] == row[2]


def test_parameters_that_come_at_execution(session: Session, shop: Shop) -> None:
    """Of the caller's own, beside a vector that is given."""
    package = shop.package
    statement = select(package.id).where(package.part < bindparam("most"))
    for n, query in enumerate(shop.queries[:3]):
        made = pending(statement, package.embedding, query)
        values = {"most": 30 + n}
        expected = session.execute(built(statement, package.embedding, query), values).all()
        assert session.execute(made, values).all() == expected
        assert len(expected) == 10


def test_an_event_of_the_session_that_adds_to_it(shop: Shop) -> None:
    """As soft deletion is done: the statement is another one then, with its own values."""
    package = shop.package
    with Session(shop.engine) as session:

        @event.listens_for(session, "do_orm_execute")
        def few(state: Any) -> None:
            state.statement = state.statement.options(with_loader_criteria(package, package.part < 10))

        for query in shop.queries[:3]:
            rows = session.execute(pending(select(package.id, package.part), package.embedding, query)).all()
            assert rows == session.execute(built(select(package.id, package.part), package.embedding, query)).all()
            assert len(rows) == 10
            assert all(row.part < 10 for row in rows)


def test_threads(shop: Shop) -> None:
    """Many searches of one shape, and one search in many threads."""
    package = shop.package
    expected = {}
    with Session(shop.engine) as session:
        for n, query in enumerate(shop.queries[:8]):
            expected[n] = rows_of(session, built(select(package.id), package.embedding, query))
    shared = pending(select(package.id), package.embedding, shop.queries[0])

    def run(n: int) -> bool:
        with Session(shop.engine) as session:
            own = search(select(package.id), package.embedding, shop.queries[n % 8])
            same = rows_of(session, own) == expected[n % 8]
            return same and rows_of(session, select(shared.subquery()) if n % 2 else shared) == expected[0]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(64)))


def test_it_can_be_pickled(shop: Shop) -> None:
    """As any Select of a Table can."""
    table = shop.package.__table__
    made = pending(select(table.c.id), table.c.embedding, shop.queries[0])
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert type(again) is SearchResult
    assert str(again) == str(made)
