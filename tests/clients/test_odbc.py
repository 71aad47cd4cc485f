"""The functions over ODBC, as Excel and many BI tools call them, with and without statements prepared on the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.conftest import Answer
    from tests.conftest import Wares
else:
    Answer = Wares = Any

DRIVERS = sorted(Path("/usr/lib").glob("**/odbc/psqlodbcw.so"))


@pytest.fixture(params=[0, 1], ids=["client", "server"])
def cursor(wares: Wares, tcp_port: int, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A cursor of pyodbc; the number says whether statements are prepared on the server."""
    try:
        import pyodbc  # noqa: PLC0415 - of the extra `test`
    except ImportError as error:  # also where libodbc is missing
        pytest.skip(f"pyodbc cannot be imported: {error}")
    if not DRIVERS:
        pytest.skip("PostgreSQL's ODBC driver is not installed: apt-get install odbc-postgresql")
    said = f"Driver={DRIVERS[0]};Server=127.0.0.1;Port={tcp_port};Uid=postgres;Database={wares.engine.url.database};"
    connection = pyodbc.connect(f"{said}UseServerSidePrepare={request.param};SSLmode=disable", autocommit=True)
    yield connection.cursor()
    connection.close()


def test_parameters(wares: Wares, cursor: Any) -> None:
    """A vector as text, a number, a text, NULL; the same statement again and again."""
    statement = "SELECT id FROM passages_search(CAST(? AS vector), CAST(? AS integer), exact => true, package => ?)"
    for number in range(8):
        found = cursor.execute(statement, wares.literal(number), number + 1, "email").fetchall()
        expected = wares.nearest(wares.queries[number], number + 1, lambda p: p["package"] == "email")
        assert [row.id for row in found] == expected
        found = cursor.execute(statement, wares.literal(number), 3, None).fetchall()
        assert [row.id for row in found] == wares.nearest(wares.queries[number], 3)


def test_types_and_values(wares: Wares, cursor: Any) -> None:
    """As Python's types, from the driver's description."""
    cursor.execute("SELECT * FROM passages_search(?::halfvec, 4, exact => true)", wares.literal(2))
    described = [(name, kind) for name, kind, *_ in cursor.description]
    assert described == [
        ("id", int),
        ("distance", float),
        ("similarity", float),
        ("rank", int),
        ("requested", int),
        ("returned", int),
    ]
    rows = cursor.fetchall()
    assert [row.id for row in rows] == wares.nearest(wares.queries[2], 4)
    assert [(row.rank, row.requested, row.returned) for row in rows] == [(n, 4, 4) for n in (1, 2, 3, 4)]
    assert [row.distance + row.similarity for row in rows] == pytest.approx([1] * 4)


def test_every_shape(cursor: Any, answers: list[Answer]) -> None:
    """Rows that differ, groups, words: what psycopg gets, with NULL and the names of the columns."""
    for one in answers * 3:
        found = cursor.execute(one.statement, *one.given).fetchall()
        assert [name for name, *_ in cursor.description] == one.columns
        assert [tuple(row) for row in found] == one.rows


def test_named_queries_and_hostile_text(wares: Wares, cursor: Any) -> None:
    """Quotes and umlauts in names, and a filter that is no SQL."""
    for number, name in ((1, "it's"), (2, "büro")):
        found = cursor.execute("SELECT id FROM passages_search_named(?, exact => true)", name).fetchall()
        assert [row.id for row in found] == wares.nearest(wares.queries[number])
    statement = "SELECT id FROM passages_search(?::halfvec, package => ?)"
    assert cursor.execute(statement, wares.literal(0), "' OR true; DROP TABLE passages; --").fetchall() == []
    statement = "SELECT id FROM passages_search(?::halfvec, 5, 4000, package_any => CAST(? AS text[]))"
    found = cursor.execute(statement, wares.literal(0), "{asyncio,logging}").fetchall()
    expected = wares.nearest(wares.queries[0], 5, lambda p: p["package"] in {"asyncio", "logging"})
    assert [row.id for row in found] == expected


def test_a_view_and_an_error(cursor: Any) -> None:
    """Related rows as a table; PostgreSQL's message arrives, and the connection goes on."""
    assert len(cursor.execute("SELECT * FROM passages_related WHERE id = ?", 7).fetchall()) == 5
    for _ in range(3):
        with pytest.raises(Exception, match=r"22000.*query has 2 dimensions"):
            cursor.execute("SELECT * FROM passages_search(?::halfvec)", "[1,2]").fetchall()
        assert len(cursor.execute("SELECT * FROM passages_similar(?, 3)", 7).fetchall()) == 3
    assert cursor.execute("SELECT current_setting('hnsw.ef_search')").fetchone()[0] == "40"
