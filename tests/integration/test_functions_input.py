"""Bad arguments: each names the argument, has its SQLSTATE, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from pgmrl import SqlFunctions, install_functions
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation
else:
    Rotation = Any

GOOD = "'[1,2,3,4,5,6,7,8]'"
CASES: list[tuple[str, str, str, str]] = [
    ("docs_search(NULL)", "22004", "query", "8 dimensions"),
    ("docs_search('[1,2,3]')", "22000", "query", "8 dimensions"),
    ("docs_search('[1,2,3,4,5,6,7,8,9]')", "22000", "query", "8 dimensions"),
    ("docs_search('[0,0,0,0,0,0,0,0]')", "22023", "query", "not zero"),
    ("docs_search('[0,0,0,0,0,0,0,0]', exact => true)", "22023", "query", "not zero"),
    ("docs_search('[0,0,0,0,1,1,1,1]')", "22023", "query", "exact => true"),
    (f"docs_search({GOOD}, NULL)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, 0)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, -1)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, 100001)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, 2147483647)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, -2147483648)", "22023", "k", "Give 1 to"),
    (f"docs_search({GOOD}, 10, 9)", "22023", "shortlist", "NULL"),
    (f"docs_search({GOOD}, 10, 0)", "22023", "shortlist", "NULL"),
    (f"docs_search({GOOD}, 10, -5)", "22023", "shortlist", "NULL"),
    (f"docs_search({GOOD}, 10, 100001)", "22023", "shortlist", "100000"),
    (f"docs_search({GOOD}, exact => NULL)", "22004", "exact", "true or false"),
    ("docs_similar(NULL)", "22004", "id", "key"),
    ("docs_similar(77)", "P0002", "77", "key"),
    ("docs_similar(3)", "22004", "docs", "NULL"),
    ("docs_similar(4)", "22023", "zero vector", "not zero"),
    ("docs_similar(1, 0)", "22023", "k", "Give 1 to"),
    ("docs_similar(1, 10, 9)", "22023", "shortlist", "NULL"),
    ("docs_similar(1, exact => NULL)", "22004", "exact", "true or false"),
    ("docs_vector(77)", "P0002", "77", "key"),
    ("docs_search_named('nobody')", "P0002", "nobody", "pgmrl.queries"),
    ("docs_search_named('')", "P0002", "''", "pgmrl.queries"),
    ("docs_search_named(NULL)", "22004", "name", "name of a query"),
    ("docs_search_named('short')", "22000", "query has 3 dimensions", "8 dimensions"),
    ("docs_search_named('zero')", "22023", "query", "not zero"),
    ("docs_search_named('good', 0)", "22023", "k", "Give 1 to"),
    (f"docs_search_diverse({GOOD}, relevance => 1.1)", "22023", "relevance", "Give 1"),
    (f"docs_search_diverse({GOOD}, relevance => 'NaN')", "22023", "relevance", "Give 1"),
    (f"docs_search_diverse({GOOD}, relevance => NULL)", "22023", "relevance", "Give 1"),
    (f"docs_search_groups({GOOD}, per_group => 0)", "22023", "per_group", "Give 1 to"),
    (f"docs_search_groups({GOOD}, per_group => NULL)", "22023", "per_group", "Give 1 to"),
]
PGVECTORS: list[tuple[str, str, str]] = [
    ("docs_search('[NaN,2,3,4,5,6,7,8]')", "22000", "NaN"),
    ("docs_search('[Infinity,2,3,4,5,6,7,8]')", "22000", "infinite"),
    ("docs_search('[70000,2,3,4,5,6,7,8]')", "22003", "out of range"),
    ("docs_search('[70000,2,3,4,5,6,7,8]'::vector)", "22003", "out of range"),
    ("docs_search('no vector')", "22P02", "invalid input syntax"),
    ("docs_search('')", "22P02", "invalid input syntax"),
    ("docs_search_named('huge')", "22003", "out of range"),
]


@pytest.fixture
def docs(connection: Connection) -> Connection:
    """A table with rows 1 and 2, one without a vector, a zero one; four named queries."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("part", Integer),
        Column("e", Matryoshka(8, Short(4))),
    )
    docs.create(connection)
    vectors = [[1] * 8, [2] * 7 + [1], None, [0] * 8]
    connection.execute(docs.insert(), [{"id": n, "part": n, "e": vector} for n, vector in enumerate(vectors, 1)])
    install_functions(connection, docs.c.e, SqlFunctions(group_by="part", related=3))
    for name, vector in (
        ("good", GOOD),
        ("short", "'[1,2,3]'"),
        ("zero", "'[0,0,0,0,0,0,0,0]'"),
        ("huge", "'[70000]'"),
    ):
        connection.exec_driver_sql(f"INSERT INTO pgmrl.queries VALUES ('docs', 'e', '{name}', NULL, NULL, {vector})")
    return connection


@pytest.mark.parametrize(("call", "state", "named", "hint"), CASES, ids=[case[0] for case in CASES])
def test_bad_arguments(docs: Connection, call: str, state: str, named: str, hint: str) -> None:
    """SQLSTATE, the argument's name first, the remedy in the hint."""
    error = refused(docs, call)
    assert error.sqlstate == state
    assert named in error.diag.message_primary
    assert hint in error.diag.message_hint


@pytest.mark.parametrize(("call", "state", "said"), PGVECTORS, ids=[case[0] for case in PGVECTORS])
def test_what_is_no_vector(docs: Connection, call: str, state: str, said: str) -> None:
    """Pgvector's own words."""
    error = refused(docs, call)
    assert error.sqlstate == state
    assert said in error.diag.message_primary


def refused(connection: Connection, call: str) -> Any:
    """The driver's error."""
    with pytest.raises(DBAPIError) as caught:
        connection.execute(text(f"SELECT * FROM {call.replace(':', chr(92) + ':')}")).all()
    return caught.value.orig


@pytest.mark.parametrize("call", [
    f"docs_search({GOOD}, 100000)", f"docs_search({GOOD}, 100000, 100000)", f"docs_search({GOOD}, 20000)",
    f"docs_search({GOOD}, 100000, exact => true)", "docs_similar(1, 100000)", "docs_search_named('good', 30000)",
    "docs_search('[0,0,0,0,1,1,1,1]', exact => true)", "docs_search('[1e-7,0,0,0,0,0,0,0]')",
    "docs_search('[65504,65504,65504,65504,65504,65504,65504,65504]')",
])  # fmt: skip
def test_good_arguments_at_their_limits(docs: Connection, call: str) -> None:
    """They find the rows that can be found."""
    found = docs.execute(text(f"SELECT id FROM {call}")).scalars().all()
    assert sorted(found) == ([2] if "similar" in call else [1, 2])


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_a_zero_vector_is_a_query_under_other_metrics(connection: Connection, metric: Any) -> None:
    """It has distances to all rows."""
    docs = Table(
        "docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4), metric))
    )
    docs.create(connection)
    connection.execute(docs.insert(), [{"id": 1, "e": [1] * 8}, {"id": 2, "e": [0] * 8}])
    install_functions(connection, docs.c.e, SqlFunctions(related=3))
    found = connection.execute(text("SELECT id FROM docs_search('[0,0,0,0,0,0,0,0]')")).scalars().all()
    assert found == ([2, 1] if metric == "l2" else [1, 2])
    assert connection.execute(text("SELECT count(*) FROM docs_related")).scalar_one() == 2


def test_a_rotation_needs_no_leading_dimensions(connection: Connection, small_rotation: Rotation) -> None:
    """A query that is zero in front has a direction after the rotation."""
    from pgmrl import database  # noqa: PLC0415

    database.install_rotation(connection, small_rotation)
    type_ = Matryoshka(8, Short(4, small_rotation))
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", type_))
    docs.create(connection)
    connection.execute(docs.insert(), [{"id": 1, "e": [1] * 8}, {"id": 2, "e": [0] * 4 + [1] * 4}])
    install_functions(connection, docs.c.e)
    assert connection.execute(text("SELECT id FROM docs_search('[0,0,0,0,1,1,1,1]')")).scalars().all() == [2, 1]
    assert refused(connection, "docs_search('[0,0,0,0,0,0,0,0]')").sqlstate == "22023"
