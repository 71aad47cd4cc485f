"""Processes of their own for a test to kill, and waiting until something is so."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import execute_plain
from pgmrl.online.backfill import backfill, short_fill
from pgmrl.online.index_builds import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe
    from multiprocessing.process import BaseProcess

    from sqlalchemy import Connection, Engine

    from pgmrl.model.hnsw import Hnsw
    from pgmrl.online.backfill import Throttle
    from pgmrl.online.target import Target

# forked from a process that has imported these, so that one starts in a moment
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "pgmrl.cli", "pgmrl.online.backfill", "pgmrl.online.index_builds"])


def start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that does this work; its exit code is not 0 where it fails."""
    process = CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    """The exit code, when it has ended."""
    process.join(60)
    return process.exitcode


def backfill_by_two(url: str, target: Target, throttle: Throttle, begun: Pipe | None = None) -> None:
    """Fill a short column by two workers, to the end."""
    engine = create_engine(url)
    with engine.connect() as connection:
        fill = short_fill(connection, target)
    if begun is not None:
        begun.send("begun")
    assert backfill(engine, fill, throttle, workers=2).finished


def build_index(url: str, target: Target, index: Hnsw) -> None:
    """Build an index."""
    with create_engine(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        build(connection, target, index)


def backfill_and_build(url: str, target: Target, throttle: Throttle, index: Hnsw, begun: Pipe) -> None:
    """Fill a short column by two workers, then build its index."""
    backfill_by_two(url, target, throttle, begun)
    build_index(url, target, index)


def until(question: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until something is so; on a busy machine that takes its time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError("it never came to be so")


def waiting(connection: Connection) -> int:
    """How many sessions of this database wait for a lock; the server has other databases."""
    query = (
        "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
        "WHERE NOT l.granted AND a.datname = current_database()"
    )
    return int(execute_plain(connection, query).scalar_one())


def interrupt_build(engine: Engine, owner: str, statement: str) -> None:
    """Leave an invalid index: CREATE INDEX CONCURRENTLY is cancelled while it waits for one who writes the table.

    A time limit would end it at another place on a busy machine, before there is an index.
    """
    errors: list[DBAPIError] = []
    autocommit = {"isolation_level": "AUTOCOMMIT"}
    with engine.connect() as writer, engine.connect().execution_options(**autocommit) as builder:
        execute_plain(writer, f"LOCK TABLE {owner} IN ROW EXCLUSIVE MODE")
        pid = execute_plain(builder, "SELECT pg_backend_pid()").scalar_one()

        def build_it() -> None:
            try:
                execute_plain(builder, statement)
            except DBAPIError as error:
                errors.append(error)

        thread = threading.Thread(target=build_it)
        thread.start()
        with engine.connect().execution_options(**autocommit) as other:
            waits = text("SELECT phase LIKE 'waiting for writers%' FROM pg_stat_progress_create_index WHERE pid = :pid")
            until(lambda: other.execute(waits, {"pid": pid}).scalar())
            other.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": pid})
        thread.join()
    assert "user request" in str(errors[0])
