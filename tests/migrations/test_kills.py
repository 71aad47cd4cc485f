"""Commands that are killed at random moments and run again: nothing is wrong at the end.

PGMRL_KILLS=100 kills a hundred times instead of once each: `PGMRL_KILLS=100 pytest tests/migrations/test_kills.py -s`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from pgmrl.database.connection import execute_plain as run
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.backfill import Throttle, jobs
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.databases import connected, new_database
from tests.migrations import processes
from tests.migrations.killed_commands import KILLED, again, arguments_of, database_of, run_commands

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from pgmrl.local import LocalServer
    from tests.migrations.killed_commands import Killed

EACH = -(-int(os.environ.get("PGMRL_KILLS", "1")) // len(KILLED))
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


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in KILLED for number in range(EACH)], ids=str)
def test_a_command_is_killed(server: LocalServer, tmp_path: Path, name: str, number: int) -> None:
    """A living process, wherever it is; the same command does the rest, and everything is right."""
    killed, chance = KILLED[name], random.Random(f"{name} {number}")  # noqa: S311
    longest = killed.longest
    while True:
        with new_database(server, "kills") as url:
            with connected(url) as engine, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as auto:
                database_of(auto, name, tmp_path / "rows.jsonl")
            commands = arguments_of(killed, tmp_path / "rows.jsonl")
            moment = chance.uniform(0, longest)
            if killed_alive(url, killed, commands, moment):
                print(f"{name}: killed after {moment:.2f} s")
                again(url, killed, commands)
                return
        longest *= 0.6  # it had ended before: another one, earlier


def killed_alive(url: str, killed: Killed, commands: list[list[str]], moment: float) -> bool:
    """Whether the first of the processes was alive when it was killed; the others end by themselves."""
    pipes = [processes.CONTEXT.Pipe(duplex=False) for _ in range(killed.at_once)]
    running = [processes.start(run_commands, url, commands, sender) for _, sender in pipes]
    for receiver, _ in pipes:
        receiver.recv()
    until = time.monotonic() + moment
    with connected(url) as engine, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in killed.ddl:
            run(connection, statement)
    time.sleep(max(0.0, until - time.monotonic()))
    running[0].kill()
    exit_codes = [processes.ended(process) for process in running]
    for receiver, sender in pipes:
        receiver.close()
        sender.close()
    assert None not in exit_codes
    return exit_codes[0] == -signal.SIGKILL
