"""Every shape for every kind of column, with a shortlist of everything: what the exact search gives."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, bindparam, select

from pgmrl.errors import ExactSearchWarning
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from tests.integration.test_more_like_this import table_of, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from pgmrl.model.rotation import Rotation

KINDS = ["prefix", "rotation", "pinned", "bit", "side", "unlearned"]
QUERY = vectors()[10] + vectors()[20]


@pytest.fixture(params=KINDS)
def docs(connection: Connection, small_rotation: Rotation, request: pytest.FixtureRequest) -> Iterator[Table]:
    """Sixty rows; that a rotation has not been learned is no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExactSearchWarning)
        yield table_of(connection, request.param, "l2", small_rotation)


def rows(connection: Connection, statement: Any, **values: Any) -> list[Any]:
    """What a statement gives."""
    return [tuple(row) for row in connection.execute(statement, values)]


@pytest.mark.parametrize("own", [False, True])
def test_pages_thresholds_and_the_exact_branch(connection: Connection, docs: Table, own: bool) -> None:
    """Through a shortlist of 40, and what lies behind it; the query as a vector, or as the caller's parameter."""
    filtered = select(docs.c.place, docs.c.number).where(docs.c.number > 3)
    query, values = (bindparam("mine"), {"mine": QUERY}) if own else (QUERY, {})
    whole = rows(connection, search(filtered, docs.c.e, QUERY, k=60, exact=True))
    assert len(whole) == 56
    seen: list[Any] = []
    while True:
        after = (seen[-1][2], *seen[-1][:2]) if seen else None
        page = rows(connection, search(filtered, docs.c.e, query, k=9, shortlist=60, after=after), **values)
        if not page:
            break
        seen += page
    assert seen == whole
    assert rows(connection, search(filtered, docs.c.e, query, k=60), **values) == whole
    limited = search(filtered, docs.c.e, query, k=60, max_distance=whole[4][2], similarity="score", counts=True)
    assert [row[:3] for row in rows(connection, limited, **values)] == whole[:5]
    if not own:
        many = search_many(filtered, docs.c.e, [QUERY, QUERY], k=60)
        assert [(*row[:2], row[3]) for row in rows(connection, many)] == whole * 2


@pytest.mark.parametrize("own", [False, True])
def test_groups_diverse_results_and_funnels(connection: Connection, docs: Table, own: bool) -> None:
    """Plain and filtered; the query as a vector, or as the caller's parameter."""
    query, values = (bindparam("mine"), {"mine": QUERY}) if own else (QUERY, {})
    plain = select(docs.c.place, docs.c.number)
    for statement in (plain, plain.where(docs.c.number < 7)):
        by_place: dict[str, Any] = {"by": docs.c.place, "k": 2, "per_group": 3, "shortlist": 60}
        made = search_groups(statement, docs.c.e, query, **by_place)
        expected = rows(connection, search_groups(statement, docs.c.e, QUERY, exact=True, **by_place))
        assert rows(connection, made, **values) == expected
        assert len(expected) == 6
        made_diverse = search_diverse(statement, docs.c.e, query, k=6, shortlist=60)
        expected = rows(connection, search_diverse(statement, docs.c.e, QUERY, k=6, shortlist=60, exact=True))
        assert rows(connection, made_diverse, **values) == expected
        assert len(expected) == 6


def test_funnels_of_prefixes(connection: Connection, docs: Table, request: pytest.FixtureRequest) -> None:
    """A stage that cuts nothing away leaves the exact answer."""
    if "rotation" in request.node.name or "pinned" in request.node.name or "unlearned" in request.node.name:
        pytest.skip("refused, see tests/unit/test_shapes_sql.py")
    statement = select(docs.c.place, docs.c.number)
    expected = rows(connection, search(statement, docs.c.e, QUERY, k=6, exact=True))
    made = search_funnel(statement, docs.c.e, bindparam("mine"), [(6, 60), (7, 59)], k=6, shortlist=100)
    assert rows(connection, made, mine=QUERY) == expected
