"""What ends the scan under a rare filter: `pgmrl recall` names the limit, and a remedy that works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from pgmrl import Matryoshka, Short
from pgmrl.measure import measure_recall
from pgmrl.searching.scan_ends import scan_end
from tests.databases import indexed_afterwards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

ROWS, DIMS = 3_000, 16


@pytest.fixture(scope="module")
def docs(module_engine: Engine) -> Table:
    """3,000 random vectors, a hundredth of them of each tenant."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Integer),
        Column("embedding", Matryoshka(DIMS, Short(8))),
    )
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIMS))
    with module_engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            rows = [{"id": n, "tenant_id": n % 100, "embedding": vector} for n, vector in enumerate(vectors)]
            connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE docs")
    return table


@pytest.fixture
def walking(module_engine: Engine) -> Iterator[Connection]:
    """A connection on which the planner walks the graph."""
    with module_engine.connect() as connection:
        for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            connection.exec_driver_sql(f"SET {name} = off")
        yield connection


def measured(connection: Connection, docs: Table, **options: Any) -> Any:
    """Searches of one tenant."""
    statement = select(docs.c.id).where(docs.c.tenant_id == 7)
    return measure_recall(connection, docs.c.embedding, statement, queries=12, shortlist=20, **options)


@pytest.mark.parametrize("complete", [True, False])
def test_the_limit_on_rows(walking: Connection, docs: Table, complete: bool) -> None:
    """With its value, and not a larger ef_search; whether or not the fallback made up for it."""
    walking.exec_driver_sql("SET hnsw.max_scan_tuples = 200")
    found = measured(walking, docs, complete=complete)
    limit = found.scan_limit
    assert limit is not None
    assert limit.end == "max_scan_tuples"
    assert limit.limit == "hnsw.max_scan_tuples (200 rows)"
    assert 0 < limit.ended <= limit.scans
    assert limit.candidates < limit.requested
    assert "FilterIndex" in limit.remedy
    assert "raise hnsw.max_scan_tuples" in limit.remedy
    if not complete:
        assert any(limit.limit in query.why for query in found.worst)
    for query in found.worst:
        assert "with ef_search" not in query.why


def test_the_remedy_works(walking: Connection, docs: Table) -> None:
    """With the limit raised the scan comes to its end."""
    walking.exec_driver_sql("SET hnsw.max_scan_tuples = 200")
    before = measured(walking, docs, complete=False).recall.mean
    walking.exec_driver_sql("SET hnsw.max_scan_tuples = 100000")
    found = measured(walking, docs, complete=False)
    assert found.scan_limit is None
    assert found.recall.mean > before


def test_nobody_looks_without_a_filter(walking: Connection, docs: Table) -> None:
    """Nor has anything to say."""
    assert measure_recall(walking, docs.c.embedding, queries=5, shortlist=20).scan_limit is None


def test_it_is_said_at_the_start_how_long_it_takes(walking: Connection, docs: Table) -> None:
    """Once, and not more than the time there is."""
    estimates: list[float] = []
    measured(walking, docs, on_estimate=estimates.append, seconds=50.0)
    assert len(estimates) == 1
    assert 0 < estimates[0] <= 50


@pytest.mark.parametrize(
    ("rows", "examined", "limit", "indexed", "end"),
    [
        (20, [25.0], 100, 1_000.0, "full"),
        (3, [100.0], 100, 1_000.0, "max_scan_tuples"),
        (3, [50.0, 60.0], 100, 1_000.0, "scan_mem"),
        (3, [950.0], 2_000, 1_000.0, "exhausted"),
        (3, [50.0], None, 1_000.0, None),
        (3, [50.0], 100, None, None),
    ],
)
def test_why_a_scan_ended(
    rows: float, examined: list[float], limit: int | None, indexed: float | None, end: str | None
) -> None:
    """Of 20 rows that were requested."""
    assert scan_end(rows, 20, examined, limit, indexed) == end
