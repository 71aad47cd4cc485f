"""A backfill and an index build that are killed at random moments, until they are done: nothing is wrong at the end."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

from pgmrl.database.connection import execute_plain as run
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.backfill import Throttle, jobs
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.migrations import processes

if TYPE_CHECKING:
    from sqlalchemy import Engine

ROWS, KILLS, LONGEST = 10_000, 8, 0.3  # seconds to a kill, in which two workers cannot be done
TARGET = Target("documents", "embedding", Definition.of(64, Short(16), full="vector"))
THROTTLE = Throttle(batch_seconds=0.02, max_rows_per_second=4_000)
INDEX = Hnsw(6, 24)


def finish_under_kills(database_url: str, seed: int) -> int:
    """Run until it is done; the first runs are killed at random moments. How many were."""
    chance, killed = random.Random(seed), 0  # noqa: S311
    while True:
        begun, sender = processes.CONTEXT.Pipe(duplex=False)
        process = processes.start(processes.backfill_and_build, database_url, TARGET, THROTTLE, INDEX, sender)
        begun.recv()
        if killed < KILLS:
            time.sleep(chance.uniform(0, LONGEST))
            process.kill()
        exit_code = processes.ended(process)
        begun.close()
        sender.close()
        if exit_code == 0:
            return killed
        assert exit_code == -signal.SIGKILL
        killed += 1


def test_killed_at_random_moments(engine: Engine, database_url: str) -> None:
    """Every row is right and was counted once, there is one valid index, and nothing else is left."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(64))")
        run(
            connection,
            "INSERT INTO documents SELECT n, (SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, 64) "
            f"WHERE n = n) FROM generate_series(1, {ROWS}) AS n",
        )
        for statement in steps.add_online(TARGET):
            run(connection, statement)
        killed = finish_under_kills(database_url, seed=11)
        assert killed >= KILLS // 2
        [job] = jobs(connection)
        assert (job.finished, job.rows_seen, job.rows_written) == (True, ROWS, ROWS)
        wrong = f"l2_distance({TARGET.short}, {TARGET.value}) > 0.002 OR {TARGET.short} IS NULL"
        assert run(connection, f"SELECT count(*) FROM documents WHERE {wrong}").scalar_one() == 0
        assert run(connection, "SELECT count(*) FROM pgmrl.backfill_ranges").scalar_one() == 0
        built: Any = run(
            connection,
            "SELECT i.relname, x.indisvalid, x.indisready, i.reloptions FROM pg_index AS x "
            "JOIN pg_class AS i ON i.oid = x.indexrelid WHERE x.indrelid = 'documents'::regclass AND NOT indisprimary",
        )
        name = INDEX.index_name("documents", TARGET.short)
        assert [tuple(row) for row in built] == [(name, True, True, ["m=6", "ef_construction=24"])]
        validate(connection, TARGET)
