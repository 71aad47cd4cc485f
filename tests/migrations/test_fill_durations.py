"""Before a reshape: how long the backfill takes beside the old index, and what takes less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from pgmrl import Hnsw, Matryoshka, Rotation, Short
from pgmrl.database.index_states import index_states
from pgmrl.online import fill_durations as durations
from pgmrl.online.expand import plan_expand
from pgmrl.online.index_statements import Build
from pgmrl.online.reshape import reshape
from tests.databases import indexed_afterwards

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgmrl.online.preflight import Finding

ROWS, DIMS = 1_000, 32


@pytest.fixture(scope="module")
def documents(module_engine: Engine) -> Engine:
    """1,000 rows under an index with options of its own."""
    table = Table(
        "documents",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(DIMS, Short(16), index=Hnsw(8, 40))),
    )
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIMS))
    with module_engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
        connection.exec_driver_sql("ANALYZE documents")
    return module_engine


def duration(engine: Engine, **changed: Any) -> Finding:
    """What is said of it."""
    with engine.connect() as connection:
        change = reshape(connection, "documents", "embedding", **changed)
        before = connection.exec_driver_sql("SHOW enable_seqscan").scalar()
        (finding,) = durations.fill_durations(connection, change)
        assert connection.exec_driver_sql("SHOW enable_seqscan").scalar() == before
    return finding


def test_both_durations(documents: Engine) -> None:
    """A small table is a note, in the plan too, and nothing to worry about."""
    finding = duration(documents, dims=8)
    assert finding.level == "note"
    assert "filling 1,000 rows takes up to about " in finding.message
    assert "while documents_embedding_short_16_hnsw is there" in finding.message
    assert "with it dropped first" in finding.message
    with documents.connect() as connection:
        _, findings = plan_expand(connection, reshape(connection, "documents", "embedding", dims=8), Build())
    assert [other.subject for other in findings].count("duration") == 1


def test_a_cheaper_way_is_offered(documents: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes long: statements that work as they are printed; no expression for a rotation."""
    monkeypatch.setattr(durations, "INSERT", 1e6)
    finding = duration(documents, dims=8)
    assert finding.level == "warning"
    drop = "DROP INDEX CONCURRENTLY IF EXISTS documents_embedding_short_16_hnsw"
    assert f"{drop}, then this command with --m 8 --ef-construction 40" in finding.message
    start = finding.message.index("CREATE INDEX CONCURRENTLY")
    statement = finding.message[start : finding.message.index(f"; {drop}")]
    with documents.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement)
        (built,) = index_states(connection, "documents", "embedding_expression_8")
        assert (built.valid, built.index) == (True, Hnsw(8, 40))
        connection.exec_driver_sql("DROP INDEX documents_embedding_expression_8_hnsw")
    axes = np.linalg.qr(np.random.default_rng(2).normal(size=(DIMS, DIMS)))[0][:8]
    rotated = duration(documents, dims=8, by=Rotation.of(axes))
    assert drop in rotated.message
    assert "CREATE INDEX" not in rotated.message


def test_the_index_alone_fills_nothing(documents: Engine) -> None:
    """So there is no duration of a backfill."""
    with documents.connect() as connection:
        change = reshape(connection, "documents", "embedding", index=Hnsw(12, 60))
        assert list(durations.fill_durations(connection, change)) == []
