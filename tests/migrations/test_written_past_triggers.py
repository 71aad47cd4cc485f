"""Rows that were written past the triggers: found before anything is dropped, and repaired by a command."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine

from pgmrl.database.connection import execute_plain as run
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import repair, steps
from pgmrl.online.backfill import Throttle, backfill_on, jobs
from pgmrl.online.contract import contract, pending_contraction, undo
from pgmrl.online.expand import expand
from pgmrl.online.index_builds import Build, build
from pgmrl.online.reshape import reshape
from pgmrl.online.target import Target
from tests.cli import failure, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("place")  # commands run on the test's database

ROWS, DIMS = 500, 16
OLD = Target("documents", "embedding", Definition.of(DIMS, Short(8), full="vector"))
REPLICA = "SET session_replication_role = replica"
VECTOR = f"(SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, {DIMS}) WHERE n = n)"


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A table as the old code made it, kept by triggers, with rows; a connection in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, f"CREATE TABLE documents (id int PRIMARY KEY, embedding vector({DIMS}))")
        for statement in steps.add_online(OLD):
            run(connection, statement)
        run(connection, f"INSERT INTO documents SELECT n, {VECTOR} FROM generate_series(1, {ROWS}) AS n")
        build(connection, OLD, Hnsw(6, 24))
        yield connection


def expanded(engine: Engine, **changed: Any) -> None:
    """A reshape to its end."""
    with engine.connect() as connection:
        change = reshape(connection, "documents", "embedding", **changed)
    assert expand(engine, change, Build())


def written_past(connection: Connection, *statements: str) -> None:
    """Write as a replica does."""
    for statement in (REPLICA, *statements, "RESET session_replication_role"):
        run(connection, statement)


def contracted(connection: Connection, full: str = "embedding", **options: Any) -> None:
    """Contract, without waiting for searches."""
    contract(connection, pending_contraction(connection, "documents", full), watch=0, **options)


def columns(connection: Connection) -> set[str]:
    """The table's columns."""
    state = table_state(connection, None, "documents")
    assert state is not None
    return set(state.columns)


@pytest.mark.parametrize("force", [False, True])
def test_vectors_that_only_the_old_column_has(auto: Connection, engine: Engine, force: bool) -> None:
    """Inserted and changed past the triggers: refused with their number, repaired, then dropped; none is lost."""
    expanded(engine, full_type="halfvec")
    written_past(
        auto,
        f"INSERT INTO documents (id, embedding) SELECT n, {VECTOR} FROM generate_series(1001, 1040) AS n",
        "UPDATE documents SET embedding = (SELECT embedding FROM documents WHERE id = 7) WHERE id IN (1, 2)",
    )
    before = run(auto, "SELECT id, embedding::halfvec::text FROM documents ORDER BY id").all()
    with pytest.raises(
        MigrationError, match=rf"42 of {ROWS + 40} rows of .*another vector in embedding_halfvec than in"
    ):
        contracted(auto, force=force)
    assert {"embedding", "embedding_halfvec"} <= columns(auto)
    ok("backfill", "documents.embedding_halfvec", "--repair", "--take", "old")
    assert [job.rows_written for job in jobs(auto) if job.target_column == "embedding_halfvec"] == [42]
    contracted(auto, force=force)
    assert "embedding" not in columns(auto)
    assert run(auto, "SELECT id, embedding_halfvec::text FROM documents ORDER BY id").all() == before


def test_vectors_that_new_code_wrote_past_the_triggers(auto: Connection, engine: Engine) -> None:
    """Which of two is right nobody but the user knows: --take new keeps them, and the rows only old code wrote."""
    expanded(engine, full_type="halfvec")
    new = "(SELECT embedding_halfvec FROM documents WHERE id = 7)"
    written_past(
        auto,
        f"UPDATE documents SET embedding_halfvec = {new} WHERE id = 1",
        f"INSERT INTO documents (id, embedding) SELECT n, {VECTOR} FROM generate_series(1001, 1003) AS n",
    )
    with pytest.raises(MigrationError, match="4 of 503 rows"):
        contracted(auto)
    assert "--take old or --take new" in str(failure("backfill", "documents.embedding_halfvec", "--repair"))
    ok("backfill", "documents.embedding_halfvec", "--repair", "--take", "new")
    same = "SELECT count(*) FROM documents WHERE embedding::halfvec = embedding_halfvec"
    assert run(auto, same).scalar_one() == ROWS + 3
    assert run(auto, f"SELECT embedding_halfvec = {new} FROM documents WHERE id = 1").scalar_one()
    contracted(auto)


def test_taking_the_new_vectors_does_not_round_them(auto: Connection, engine: Engine) -> None:
    """From half to full precision: what goes back to the old column is rounded, the new one is not written again."""
    run(auto, f"CREATE TABLE halves (id int PRIMARY KEY, e halfvec({DIMS}))")
    target = Target("halves", "e", Definition.of(DIMS, Short(8), full="halfvec"))
    for statement in steps.add_online(target):
        run(auto, statement)
    run(auto, f"INSERT INTO halves SELECT n, {VECTOR}::halfvec FROM generate_series(1, 20) AS n")
    build(auto, target, Hnsw(6, 24))
    with engine.connect() as connection:
        change = reshape(connection, "halves", "e", full_type="vector")
    assert expand(engine, change, Build())
    run(auto, f"UPDATE halves SET e_vector = (SELECT {VECTOR} FROM generate_series(1, 1) AS n) WHERE id = 5")
    written_past(auto, f"UPDATE halves SET e_vector = (SELECT {VECTOR} FROM generate_series(1, 1) AS n) WHERE id = 6")
    before = run(auto, "SELECT id, e_vector::text FROM halves ORDER BY id").all()
    ok("backfill", "halves.e_vector", "--repair", "--take", "new")
    [job] = [job for job in jobs(auto) if job.target_column == "e"]
    assert job.rows_written == 1  # not row 5, which was only rounded
    assert run(auto, "SELECT id, e_vector::text FROM halves ORDER BY id").all() == before
    contract(auto, pending_contraction(auto, "halves", "e_vector"), watch=0)


def test_undo_loses_nothing_either(auto: Connection, engine: Engine) -> None:
    """What new code wrote past the triggers is only in the column that would go."""
    expanded(engine, full_type="halfvec")
    new = "(SELECT embedding_halfvec FROM documents WHERE id = 7)"
    written_past(auto, f"UPDATE documents SET embedding_halfvec = {new} WHERE id IN (1, 2, 3)")
    with pytest.raises(MigrationError, match="3 of 500 rows"):
        undo(auto, pending_contraction(auto, "documents", "embedding"))
    assert "embedding_halfvec" in columns(auto)
    ok("backfill", "documents.embedding_halfvec", "--repair", "--take", "new")
    undo(auto, pending_contraction(auto, "documents", "embedding"))
    assert run(auto, "SELECT count(DISTINCT embedding) FROM documents WHERE id IN (1, 2, 3)").scalar_one() == 1


def test_short_vectors_that_are_wrong(auto: Connection, engine: Engine) -> None:
    """Missing, of another vector, of no vector: refused with their number; exactly these are written anew."""
    expanded(engine, dims=4)
    written_past(
        auto,
        "UPDATE documents SET embedding = (SELECT embedding FROM documents WHERE id = 7) WHERE id IN (1, 2)",
        "UPDATE documents SET embedding = NULL WHERE id = 3",
        f"INSERT INTO documents (id, embedding) SELECT n, {VECTOR} FROM generate_series(1001, 1010) AS n",
    )
    run(auto, "ALTER TABLE documents DISABLE TRIGGER USER")
    run(auto, "UPDATE documents SET embedding = (SELECT embedding FROM documents WHERE id = 7) WHERE id = 4")
    run(auto, "ALTER TABLE documents ENABLE TRIGGER USER")
    with pytest.raises(
        MigrationError, match=r"14 of 510 rows of .* embedding_short_4 that is not computed from embedding"
    ):
        contracted(auto, force=True)
    assert "embedding_short_8" in columns(auto)
    ok("backfill", "documents.embedding", "--repair", "--short", "embedding_short_4")
    [job] = [job for job in jobs(auto) if job.target_column == "embedding_short_4"]
    assert (job.task, job.rows_written) == ("repair", 14)
    contracted(auto)
    assert "embedding_short_8" not in columns(auto)


def test_a_comparison_goes_on_where_it_was_stopped(auto: Connection, engine: Engine) -> None:
    """What was compared is not compared again, and what was found is remembered; one that is over begins anew."""
    expanded(engine, dims=4)
    written_past(auto, "UPDATE documents SET embedding = (SELECT embedding FROM documents WHERE id = 7) WHERE id < 5")
    target = pending_contraction(auto, "documents", "embedding").new
    comparison = repair.short_comparison(auto, Target("documents", "embedding", target.definition))
    stop = threading.Event()
    pace = Throttle(max_rows_per_second=100)  # so that its first batch is a part of the table
    stopped = backfill_on(auto, comparison, pace, progress=lambda _: stop.set(), stop_event=stop)
    assert (stopped.finished, stopped.rows_written) == (False, 4)
    assert 0 < stopped.rows_seen < ROWS
    with pytest.raises(MigrationError, match="4 of 500 rows"):
        contracted(auto)
    [job] = [job for job in jobs(auto) if job.target_column == "embedding_short_4"]
    assert job.id == stopped.id
    with pytest.raises(MigrationError, match="4 of 500 rows"):
        contracted(auto)
    assert [job.id for job in jobs(auto) if job.target_column == "embedding_short_4"] != [stopped.id]


def test_the_command_says_that_it_compares(auto: Connection, engine: Engine) -> None:
    """Nothing differs: all rows were looked at, and the old column is dropped."""
    expanded(engine, dims=4)
    said = ok("reshape", "contract", "documents.embedding", "--force")
    assert "dropped embedding_short_8" in said
    [job] = [job for job in jobs(auto) if job.target_column == "embedding_short_4"]
    assert (job.task, job.rows_seen, job.rows_written, job.finished) == ("compare", ROWS, 0, True)
