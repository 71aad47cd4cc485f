"""Tuning a column that has its index: swept as it is, beside plain pgvector, within the time that there is."""

from __future__ import annotations

import itertools
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from pgmrl import Hnsw, Matryoshka, Short, compile_sql, search
from pgmrl.measure import Queries, measure_recall
from pgmrl.model.columns import attachment_of
from pgmrl.tune import short_ranks, table_passes, tune
from pgmrl.tune.index_scans import ScannedIndex
from pgmrl.tune.plain_index import PlainIndex
from pgmrl.tune.tuned_table import TunedTable
from tests.databases import indexed_afterwards

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgmrl.tune import Tuning

ROWS, DIMS = 2_500, 48


@pytest.fixture(scope="module")
def notes(module_engine: Engine) -> Table:
    """Clustered vectors whose spread falls from the first dimension to the last, under a poor graph."""
    random = np.random.default_rng(3)
    vectors = random.normal(size=(50, DIMS))[random.integers(50, size=ROWS)] + 0.7 * random.normal(size=(ROWS, DIMS))
    vectors *= np.linspace(2, 0.2, DIMS)
    short = Short(24)
    table = Table(
        "notes",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(DIMS, short, index=Hnsw(4, 12))),
    )
    with module_engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
        connection.exec_driver_sql("ANALYZE notes")
    return table


def tuned(engine: Engine, notes: Table, **options: Any) -> Tuning:
    """The column as it is, for .9."""
    numbers: dict[str, Any] = {"dims": (24,), "by": ("prefix",), "types": ("halfvec",), "queries": 400, **options}
    with engine.connect() as connection:
        return tune(connection, notes.c.embedding, 0.9, **numbers)


@pytest.fixture(scope="module")
def estimates() -> list[float]:
    """What was said of how long it takes."""
    return []


@pytest.fixture(scope="module")
def found(module_engine: Engine, notes: Table, estimates: list[float]) -> Tuning:
    """Its setting."""
    return tuned(module_engine, notes, on_estimate=estimates.append)


def test_what_is_predicted_is_what_recall_measures(found: Tuning, module_engine: Engine, notes: Table) -> None:
    """By the index itself: nothing of it is extrapolated, also where the graph is poor."""
    assert found.keeps_column
    assert found.choice is not None
    assert next(model for model in found.models if model.name == "HNSW").sizes[0] == ROWS
    numbers: dict[str, Any] = {"shortlist": found.choice.shortlist, "ef_search": found.choice.ef_search}
    with module_engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        measured = measure_recall(connection, notes.c.embedding, queries=400, seed=5, worst=0, seconds=600, **numbers)
    assert measured.index is not None
    assert found.choice.recall.low <= measured.recall.high
    assert measured.recall.low <= found.choice.recall.high
    assert found.choice.recall.mean == pytest.approx(measured.recall.mean, abs=0.03)


def test_rows_as_queries_flatter_an_index_that_holds_them(found: Tuning, module_engine: Engine, notes: Table) -> None:
    """It is said, and not of queries that are no rows."""
    caution = "the index there is holds the rows that were the queries"
    assert any(caution in note for note in found.notes)
    vectors = np.random.default_rng(8).normal(size=(200, DIMS)).astype(np.float32)
    others = tuned(module_engine, notes, queries=Queries(vectors, None, 0, "others"), finalists=1)
    assert not any(caution in note for note in others.notes)


def test_nearly_all_rows_are_all(module_engine: Engine, notes: Table) -> None:
    """A limit just below the rows, or below their estimate, does not keep the index there is from being swept."""
    limited = tuned(module_engine, notes, rows=ROWS - 100, finalists=1)
    assert limited.keeps_column
    assert limited.incomplete == []
    assert next(model for model in limited.models if model.name == "HNSW").sizes[0] == ROWS


def test_how_long_it_takes_is_said_once(found: Tuning, estimates: list[float]) -> None:
    """At the start."""
    assert found.seconds
    assert len(estimates) == 1
    assert estimates[0] > 0


def test_a_trial_is_searched_as_applications_search(module_engine: Engine, notes: Table) -> None:
    """With the exact fallback too: else times of trials would be of a cheaper statement than those of the column."""
    column: Any = notes.c.embedding
    definition = attachment_of(column).definition
    statement = compile_sql(search(select(notes.c.id), column, np.ones(DIMS), shortlist=20, ef_search=30)).text
    with module_engine.connect() as connection:
        table = TunedTable(connection, notes, "public.notes", "embedding", definition)
        trial = ScannedIndex(table, definition, "public.trial").searched(20, 30, 10)
    parts = re.compile(r"\bpgmrl_\w+(?= AS )")
    assert (
        set(parts.findall(trial)) == set(parts.findall(statement)) == {"pgmrl_reranked", "pgmrl_exact", "pgmrl_results"}
    )


def test_plain_pgvector_stands_beside_it(found: Tuning) -> None:
    """At the same recall, with the numbers, whoever is faster."""
    plain = found.plain
    assert plain is not None
    assert plain.recall >= plain.chosen_recall
    assert plain.latency_ms > 0
    assert plain.index_bytes > 0
    assert plain.message.startswith(("plain halfvec", "two stages"))
    assert found.as_json()["plain"]["ef_search"] == plain.ef_search


@pytest.mark.parametrize(
    ("plain_ms", "chosen_ms", "verdict"),
    [
        (1.0, 2.0, "plain halfvec is faster here, 2.0 times: one HNSW index"),
        (3.0, 1.0, "two stages are faster here, 3.0 times: one HNSW index"),
        (1.0, 1.02, "plain halfvec and two stages are level here: one HNSW index"),
    ],
)
def test_which_is_faster(plain_ms: float, chosen_ms: float, verdict: str) -> None:
    """In words, with both times and sizes."""
    message = PlainIndex(1_000, 40, 0.96, plain_ms, chosen_ms, 0.95, 300, 100).message
    assert message.startswith(verdict)
    assert f"takes {plain_ms:.2f} ms (ef_search 40, recall 0.960), the choice {chosen_ms:.2f} ms (0.950)" in message
    assert "its index is 3.0 times as large" in message


def test_queries_are_left_out_before_rows(module_engine: Engine, notes: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer queries widen the interval, fewer rows leave recall to a model."""
    # by this clock the first batches take so long that the time is enough for some of the queries
    clock = itertools.count(0, 20)
    slow = SimpleNamespace(perf_counter=lambda: next(clock), process_time=time.process_time)
    monkeypatch.setattr(table_passes, "time", slow)
    monkeypatch.setattr(table_passes, "FEWEST_SWEPT", 60)
    monkeypatch.setattr(table_passes, "PASSES", 0)
    few = tuned(module_engine, notes, seconds=300.0, finalists=1)
    (note,) = (note for note in few.incomplete if "queries were tried" in note)
    assert "of 400 queries" in note
    assert few.queries < 200
    assert few.rows_read == ROWS - 400
    assert not any("of the rows were read" in note for note in few.incomplete)


def test_ranks_that_no_shortlist_reaches_are_not_counted(
    module_engine: Engine, notes: Table, found: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of shorter shortlists nothing changes."""
    monkeypatch.setattr(short_ranks, "FARTHEST", 450)
    again = tuned(module_engine, notes, finalists=1)
    for before, after in zip(found.exact_shortlists, again.exact_shortlists, strict=True):
        assert before.recall == after.recall
