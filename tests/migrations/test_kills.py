"""A backfill and an index build that are killed at random moments, until they are done: nothing is wrong at the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from pgmrl.database.connection import execute_plain as run
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.backfill import jobs
from pgmrl.online.target import Target
from pgmrl.online.validation import validate

if TYPE_CHECKING:
    from sqlalchemy import Engine

ROWS, DIMS, KILLS = 20_000, 64, 8
TARGET = Target("documents", "embedding", Definition.of(DIMS, Short(16), full="vector"))
INDEX = Hnsw(6, 24)
SCRIPT = """
import sys
from sqlalchemy import create_engine
from pgmrl.model.hnsw import Hnsw
from pgmrl.online.backfill import Throttle, backfill, short_fill
from pgmrl.online.index_builds import build
from pgmrl.online.target import Target
from pgmrl.model.shortening import Definition, Short
engine = create_engine(sys.argv[1])
target = Target("documents", "embedding", Definition.of(64, Short(16), full="vector"))
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    fill = short_fill(connection, target)
print("begun", flush=True)
assert backfill(engine, fill, Throttle(batch_seconds=0.02, max_rows_per_second=4_000), workers=2).finished
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    build(connection, target, Hnsw(6, 24))
"""


def finish_under_kills(database_url: str, kills: int, seed: int, longest: float) -> int:
    """Run until it is done; the first runs are killed at random moments. How many were."""
    chance, killed = random.Random(seed), 0  # noqa: S311
    while True:
        process: Any = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SCRIPT, database_url],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.readline()
        if killed < kills:
            time.sleep(chance.uniform(0, longest))
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL, said.decode()
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
        killed = finish_under_kills(database_url, KILLS, seed=11, longest=0.6)
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
