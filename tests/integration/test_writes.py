"""Searching while others write, and after most rows were deleted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, select

from pgmrl import database
from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from tests.corpus import Corpus


@pytest.fixture
def docs(engine: Engine, corpus: Corpus, rotation: Rotation) -> Table:
    """2,000 real vectors with a rotated short column."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    table.append_column(Column("e", Matryoshka(256, Short(32, rotation))))
    with engine.begin() as connection:
        database.install_rotation(connection, rotation)
        table.create(connection)
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(corpus.documents[:2000])])
        connection.exec_driver_sql("ANALYZE docs")
    return table


def test_deleted_rows_do_not_eat_the_shortlist(engine: Engine, docs: Table, corpus: Corpus) -> None:
    """75 % deleted and not vacuumed: their index entries are still there."""
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs SET (autovacuum_enabled = off)")
        connection.execute(docs.delete().where(docs.c.id % 4 != 0))
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the question is what the index returns
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        for query in corpus.queries[:20]:
            found = connection.execute(search(select(docs.c.id), docs.c.e, query, k=40, shortlist=40)).scalars().all()
            assert len(found) == 40
            assert all(n % 4 == 0 for n in found)


def write(engine: Engine, docs: Table, vectors: Any, stop: threading.Event, first: int) -> int:
    """Delete, change and insert rows, one transaction each, until told to stop."""
    random, number = np.random.default_rng(first), first
    while not stop.is_set():
        number += 1
        # each writer has every second row: two that take the same two rows in turn would be a deadlock
        changed, deleted = (int(n) * 2 + first // 10_000 % 2 for n in random.integers(1000, size=2))
        other, new = vectors[random.integers(len(vectors), size=2)]
        with engine.begin() as connection:
            connection.execute(docs.delete().where(docs.c.id == deleted))
            connection.execute(docs.update().where(docs.c.id == changed).values(e=other))
            connection.execute(docs.insert(), {"id": number, "e": new})
    return number - first


def read(engine: Engine, docs: Table, queries: Any, seed: int) -> None:
    """Forty searches, each checked against the vectors it returned."""
    for query in np.random.default_rng(seed).choice(queries, 40):
        with engine.connect() as connection:
            rows = connection.execute(search(select(docs), docs.c.e, query)).all()
        vectors = np.stack([row.e for row in rows])
        expected = METRICS["cosine"].distances(vectors, query.astype(np.float16).astype(np.float32))
        assert [row.distance for row in rows] == pytest.approx(expected, abs=1e-5)
        assert [row.distance for row in rows] == sorted(row.distance for row in rows)
        assert len(rows) == 10


def test_writes_while_searching(engine: Engine, docs: Table, corpus: Corpus) -> None:
    """One statement, one snapshot: a distance is always that of the vector in the same row."""
    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, engine, docs, corpus.documents, stop, first) for first in (10_000, 20_000)]
        readers = [pool.submit(read, engine, docs, corpus.queries, seed) for seed in (1, 2)]
        try:
            for reader in readers:
                reader.result(60)
        finally:
            stop.set()
        assert all(writer.result(60) > 10 for writer in writers)
    definition = docs.c.e.info["pgmrl"].definition
    with engine.connect() as connection:
        short = definition.short_name("e")
        wrong = f"SELECT count(*) FROM docs WHERE {short} IS DISTINCT FROM {definition.sql('e')}"
        assert connection.exec_driver_sql(wrong).scalar_one() == 0
