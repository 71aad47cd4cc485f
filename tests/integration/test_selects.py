"""The Selects that applications write: joins, aliases, loader options, column subsets, composite keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Select, Table, Text, exists, select
from sqlalchemy.orm import Session, aliased, joinedload, load_only, selectinload, undefer, with_loader_criteria

from pgmrl.errors import SearchError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.integration.conftest import Plan, Shop
else:
    Plan = Shop = Any


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def numbers(session: Session, statement: Select[*tuple[Any, ...]]) -> list[Any]:
    """The packages' numbers that a search finds."""
    return [row[0] for row in session.execute(statement)]


def test_a_join_to_many_takes_one_place_each(session: Session, shop: Shop, plan: Plan) -> None:
    """Thirty tags a package: a shortlist of 40 rows of the join would hold two packages."""
    package, tag, query = shop.package, shop.tag, shop.queries[0]
    statement = select(package.id, tag.name).join(tag, tag.package_id == package.id)
    rows = session.execute(search(statement, package.embedding, query, k=10, shortlist=40)).all()
    plain = select(package.id).where(exists().where(tag.package_id == package.id))
    expected = numbers(session, search(plain, package.embedding, query, k=10, shortlist=40))
    assert list(dict.fromkeys(row.id for row in rows)) == expected
    assert len(expected) == 10
    assert len(rows) == 300
    nodes = plan(session.connection(), search(statement, package.embedding, query, k=10, shortlist=40))
    assert any("hnsw" in node.get("Index Name", "") for node in nodes)


def test_a_filter_on_the_joined_table(session: Session, shop: Shop) -> None:
    """One row for each package again; the truth agrees."""
    package, tag, query = shop.package, shop.tag, shop.queries[1]
    statement = select(package.id).join(package.tags).where(tag.name == "tag 3")
    found = numbers(session, search(statement, package.embedding, query, k=10, shortlist=500))
    assert found == numbers(session, search(statement, package.embedding, query, k=10, exact=True))
    assert all(number % 4 == 0 for number in found)


def test_a_join_to_one(session: Session, shop: Shop) -> None:
    """Columns of both sides come back."""
    package, maker = shop.package, shop.maker
    statement = select(package, maker.name).join(package.maker).where(maker.name == "maker 7")
    rows = session.execute(search(statement, package.embedding, shop.queries[0], k=5)).all()
    assert len(rows) == 5
    assert {(row[0].maker_id, row[1]) for row in rows} == {(7, "maker 7")}


def test_an_old_style_join(session: Session, shop: Shop) -> None:
    """Two entities and a WHERE."""
    package, maker = shop.package, shop.maker
    statement = select(package.id, maker.name).where(package.maker_id == maker.id, maker.id == 7)
    assert [row[1] for row in session.execute(search(statement, package.embedding, shop.queries[0], k=5))] == (
        ["maker 7"] * 5
    )


def test_an_alias(session: Session, shop: Shop) -> None:
    """And the class itself beside it, as another row."""
    package, query = shop.package, shop.queries[0]
    other = aliased(package)
    expected = numbers(session, search(select(package.id), package.embedding, query))
    assert numbers(session, search(select(other.id), other.embedding, query)) == expected
    pairs = select(other.id, package.id).join(package, package.id == other.id + 1)
    rows = session.execute(search(pairs, other.embedding, query)).all()
    assert [row[0] + 1 for row in rows] == [row[1] for row in rows]
    assert [row[0] for row in rows] == expected


def test_eager_loading(session: Session, shop: Shop) -> None:
    """A joined collection multiplies neither results nor places of the shortlist."""
    package, query = shop.package, shop.queries[0]
    found = numbers(session, search(select(package.id), package.embedding, query))
    joined = select(package).options(joinedload(package.tags), joinedload(package.maker))
    rows = session.execute(search(joined, package.embedding, query)).unique().all()
    assert [row[0].id for row in rows] == found
    assert all(len(row[0].tags) == (30 if row[0].id % 4 == 0 else 0) for row in rows)
    session.expunge_all()
    later = session.execute(search(select(package).options(selectinload(package.tags)), package.embedding, query)).all()
    assert [row[0].id for row in later] == found
    assert all(len(row[0].tags) == (30 if row[0].id % 4 == 0 else 0) for row in later)


@pytest.mark.parametrize("exact", [False, True])
def test_a_criterion_for_every_use_of_a_class(session: Session, shop: Shop, exact: bool) -> None:
    """`with_loader_criteria`, as for soft deletion or tenants: it must hold inside the shortlist too."""
    package = shop.package
    limited = select(package).options(with_loader_criteria(package, package.part == 3))
    rows = session.execute(search(limited, package.embedding, shop.queries[0], k=20, exact=exact)).all()
    assert len(rows) == 20
    assert {row[0].part for row in rows} == {3}
    joined = select(package).join(package.tags).options(with_loader_criteria(package, package.part == 4))
    found = session.execute(search(joined, package.embedding, shop.queries[0], k=20, exact=exact)).unique().all()
    assert {row[0].part for row in found} == {4}
    assert len({row[0].id for row in found}) == 20


def test_a_part_of_the_columns(session: Session, shop: Shop) -> None:
    """Not even the key; an expression; no column of the table at all."""
    package, query = shop.package, shop.queries[0]
    found = numbers(session, search(select(package.id), package.embedding, query))
    assert [n % 100 for n in found] == numbers(session, search(select(package.part), package.embedding, query))
    assert [n + 1 for n in found] == numbers(session, search(select(package.id + 1), package.embedding, query))
    one = select(shop.maker.name).join_from(package, shop.maker)
    assert [f"maker {n % 100}" for n in found] == numbers(session, search(one, package.embedding, query))


def test_loading_options_of_the_entity(session: Session, shop: Shop) -> None:
    """The vector comes when it is asked for."""
    package, query = shop.package, shop.queries[0]
    rows = session.execute(search(select(package).options(undefer(package.embedding)), package.embedding, query)).all()
    for row in rows:
        assert "embedding" in row[0].__dict__
        assert np.array_equal(np.asarray(row[0].embedding), shop.documents[row[0].id])
    session.expunge_all()
    few = session.execute(search(select(package).options(load_only(package.part)), package.embedding, query)).all()
    assert "maker_id" not in few[0][0].__dict__


def test_a_label_of_ones_own(session: Session, shop: Shop) -> None:
    """Where the model has a `distance` already."""
    package = shop.package
    row = session.execute(search(select(package.id), package.embedding, shop.queries[0], label="how_far")).first()
    assert row is not None
    assert 0 < row.how_far < 1


def test_a_search_inside_another_statement(session: Session, shop: Shop) -> None:
    """Its subquery is ordinary SQL: a threshold goes outside."""
    package = shop.package
    inner = search(select(package.id), package.embedding, shop.queries[0], k=50).subquery()
    rows = session.execute(select(inner).where(inner.c.distance < 0.6).order_by(inner.c.distance)).all()
    assert all(row.distance < 0.6 for row in rows)


def test_a_subclass_of_the_filter_by_subquery(session: Session, shop: Shop) -> None:
    """IN (SELECT …) in the caller's filters."""
    package, maker = shop.package, shop.maker
    wanted = select(maker.id).where(maker.name.in_(["maker 1", "maker 2"]))
    statement = select(package.id).where(package.maker_id.in_(wanted))
    found = numbers(session, search(statement, package.embedding, shop.queries[0], k=30))
    assert len(found) == 30
    assert {n % 100 for n in found} == {1, 2}


# -- ties, composite keys ------------------------------------------------------------------------------------------


@pytest.fixture
def table(connection: Connection) -> Table:
    """A composite key, two vectors only: all rows are ties."""
    docs = Table(
        "docs",
        MetaData(),
        Column("place", Text, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("e", Matryoshka(4, Short(2))),
    )
    docs.create(connection)
    connection.exec_driver_sql(
        "INSERT INTO docs (place, number, e) "
        "SELECT p, n, (CASE p WHEN 'far' THEN '[1,-1,0,1]' ELSE '[1,1,0,1]' END)::halfvec "
        "FROM unnest('{b,a,far}'::text[]) AS p, generate_series(9, 0, -1) AS n"
    )
    return docs


@pytest.mark.parametrize("exact", [False, True])
def test_ties_are_ordered_by_the_whole_key(connection: Connection, table: Table, exact: bool) -> None:
    """So that a page of results is the same each time."""
    expected = [("a", n) for n in range(10)] + [("b", n) for n in range(10)] + [("far", 0), ("far", 1)]
    statement = search(table.select(), table.c.e, [1, 1, 0, 1], k=22, exact=exact)
    assert [(row.place, row.number) for row in connection.execute(statement)] == expected
    many = search_many(table.select(), table.c.e, [[1, 1, 0, 1]] * 2, k=22, exact=exact)
    assert [(row.place, row.number) for row in connection.execute(many)] == expected * 2
    few = search(table.select(), table.c.e, [1, 1, 0, 1], k=3, exact=exact)
    assert [(row.place, row.number) for row in connection.execute(few)] == expected[:3]


def test_a_core_table_and_its_alias(connection: Connection, table: Table) -> None:
    """Without a mapped class."""
    other = table.alias("o")
    statement = search(select(other.c.number).where(other.c.place == "far"), other.c.e, [1, -1, 0, 1], k=3)
    assert connection.execute(statement).scalars().all() == [0, 1, 2]


def test_the_truth_does_not_read_an_index_on_the_full_column(connection: Connection, table: Table, plan: Plan) -> None:
    """Such an index would make it approximate; sequential scans are made dear here to tempt the planner."""
    connection.exec_driver_sql("CREATE INDEX tempting ON docs USING hnsw (e halfvec_cosine_ops)")
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    plain = select(table.c.number).order_by(table.c.e.cosine_distance([1, 1, 0, 1])).limit(3)
    assert any(node.get("Index Name") == "tempting" for node in plan(connection, plain))
    for statement in (
        search(table.select(), table.c.e, [1, 1, 0, 1], exact=True),
        search_many(table.select(), table.c.e, [[1, 1, 0, 1]], exact=True),
    ):
        assert not any(node.get("Index Name") == "tempting" for node in plan(connection, statement))


@pytest.mark.parametrize("kind", ["subquery", "CTE", "alias"])
def test_a_column_of_a_subquery_has_no_index(shop: Shop, kind: str) -> None:
    """It is said before anything runs, with what to write instead."""
    package = shop.package
    games = select(package.id, package.embedding).where(package.part < 50)
    source = games.cte() if kind == "CTE" else games.subquery()
    if kind == "alias":
        other = aliased(package, select(package).where(package.part < 50).subquery())
        statement, column = select(other.id), other.embedding
    else:
        statement, column = select(source.c.id), source.c.embedding  # type: ignore[assignment]
    with pytest.raises(SearchError, match=r"which has no index: expected one of the model or table itself; put the"):
        search(statement, column, shop.queries[0])
    with pytest.raises(SearchError, match="which has no index"):
        search_many(statement, column, shop.queries[:2])


def test_a_subquery_that_is_joined_filters(session: Session, shop: Shop) -> None:
    """In one search and in many; the linter has nothing to say of a cartesian product."""
    package, queries = shop.package, shop.queries[:2]
    part = select(package.id.label("number")).where(package.id.between(100, 104)).subquery()
    statement = select(package.id).join(part, part.c.number == package.id)
    filtered = select(package.id).where(package.id.in_(select(part.c.number)))
    for own in (statement, filtered):
        assert sorted(numbers(session, search(own, package.embedding, queries[0]))) == list(range(100, 105))
        assert len(session.execute(search_many(own, package.embedding, queries)).all()) == 10
