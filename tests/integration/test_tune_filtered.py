"""`pgmrl tune --where`: a shortlist for filtered searches, over a sample of the filter's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from pgmrl import Matryoshka, Short
from pgmrl.errors import DatabaseError, MeasureError, SearchError
from pgmrl.measure import measure_recall
from pgmrl.tune import tune_filtered
from tests.cli import failure, ok, ok_json, run
from tests.databases import indexed_afterwards, shared_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgmrl.local import LocalServer

ROWS, DIMS, TENANTS = 2_000, 24, 8
VALUES = "SELECT n AS t FROM generate_series(0, 3) AS n"

pytestmark = pytest.mark.usefixtures("place")


def table_of() -> Table:
    """Short vectors that lose enough to need a longer shortlist."""
    return Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Integer),
        Column("embedding", Matryoshka(DIMS, Short(8))),
    )


@pytest.fixture(scope="module")
def template(server: LocalServer) -> str:
    """2,000 random vectors of eight tenants."""
    shared_database(server, "tune_filtered", fill)
    return "tune_filtered"


def fill(engine: Engine) -> None:
    """Load and analyze."""
    table = table_of()
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIMS)) * np.linspace(2, 0.2, DIMS)
    with engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            rows = [{"id": n, "tenant_id": n % TENANTS, "embedding": vector} for n, vector in enumerate(vectors)]
            connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE docs")


def test_the_shortest_shortlist_that_reaches_it(engine: Engine) -> None:
    """Over all the filters, as searches with it are measured; a tenant's rows are a smaller table than all."""
    docs = table_of()
    statements = [select(docs.c.id).where(docs.c.tenant_id == tenant) for tenant in range(4)]
    with engine.connect() as connection:
        found = tune_filtered(connection, docs.c.embedding, statements, 0.9, queries=120)
        assert found.shortlist is not None
        assert (found.filters, found.queries) == (4, 120)
        assert found.exact[found.shortlist].low >= 0.9
        shorter = [size for size in found.exact if size < found.shortlist]
        assert all(found.exact[size].low < 0.9 for size in shorter)
        assert found.measured.mean == pytest.approx(found.exact[found.shortlist].mean, abs=0.02)
        for tenant in (0, 3):
            options: dict[str, Any] = {"queries": 40, "shortlist": found.shortlist, "worst": 0, "seconds": 600}
            measured = measure_recall(connection, docs.c.embedding, statements[tenant], **options)
            assert measured.recall.mean > 0.85


def test_what_cannot_be(engine: Engine) -> None:
    """One error each."""
    docs = table_of()
    with engine.connect() as connection:
        with pytest.raises(MeasureError, match="0 filters"):
            tune_filtered(connection, docs.c.embedding, [], queries=5)
        with pytest.raises(SearchError, match="expected a recall above 0"):
            tune_filtered(connection, docs.c.embedding, [select(docs.c.id)], 95, queries=5)


def test_from_the_command_line() -> None:
    """A parameter with values, and a filter without one."""
    where = ("tune", "docs.embedding", "--recall", 0.8, "--sample", 60, "--where")
    shown = ok(*where, "tenant_id = :t", "--values-sql", VALUES)
    assert "shortlist=" in shown
    assert "60 queries under 4 filters: tenant_id = :t" in shown
    found = ok_json(*where, "tenant_id::int = 1")
    assert found["filters"] == 1
    assert found["exact"][str(found["shortlist"])]["low"] >= 0.8


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ("SELECT 1 AS other", MeasureError, "expected rows with the columns t, got other"),
        ("SELECT 1 AS t WHERE false", MeasureError, "expected rows with the columns t, got no row"),
        ("DELETE FROM docs RETURNING id AS t", DatabaseError, "read-only transaction"),
        ("nonsense", DatabaseError, "syntax error"),
    ],
)
def test_values_that_are_none(values: str, error: type[Exception], message: str) -> None:
    """Nothing is changed by them."""
    with pytest.raises(error, match=message):
        raise failure("tune", "docs.embedding", "--where", "tenant_id = :t", "--values-sql", values)


@pytest.mark.parametrize(
    "options",
    [
        ("--where", "tenant_id = :t"),
        ("--where", "tenant_id = 1", "--values-sql", VALUES),
        ("--where", "tenant_id = 1", "--apply"),
    ],
)
def test_wrong_usage(options: tuple[str, ...]) -> None:
    """Parameters without values, values without parameters, and what is for searches without a filter."""
    assert run("tune", "docs.embedding", *options).exit_code == 2
