"""The session of an index build: its settings, its errors, and a second connection that reports its progress."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgmrl.database.index_states import build_progress
from pgmrl.database.job_log import log
from pgmrl.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from pgmrl.database.index_states import BuildProgress
    from pgmrl.online.index_statements import Build

    Progress = Callable[[BuildProgress], None]

__all__ = ["POLL", "clear_errors", "progress_reported", "settings"]

POLL: Final = 1.0  # seconds between looks at a build's progress


@contextmanager
def settings(connection: Connection, options: Build) -> Iterator[None]:
    """Parameters for one build; and no time limits: a build that was nearly done is lost whole."""
    values = [*options.settings(), ("lock_timeout", "0"), ("statement_timeout", "0")]
    before = {
        name: connection.execute(text("SELECT pg_catalog.current_setting(:n)"), {"n": name}).scalar_one()
        for name, _ in values
    }
    try:
        with clear_errors("the settings of the build were refused"):
            for name, value in values:
                connection.execute(text("SELECT pg_catalog.set_config(:n, :v, false)"), {"n": name, "v": value})
        yield
    finally:
        if not connection.invalidated and not connection.closed:
            for name, value in before.items():
                connection.execute(text("SELECT pg_catalog.set_config(:n, :v, false)"), {"n": name, "v": value})


@contextmanager
def clear_errors(problem: str) -> Iterator[None]:
    """What the server refuses, as an error with a remedy.

    Raises:
        MigrationError: this problem, and what the server says of it.
    """
    try:
        yield
    except DBAPIError as error:
        raise MigrationError(f"{problem}: {str(error.orig).strip()}\nCorrect this and run it again.") from error


@contextmanager
def progress_reported(connection: Connection, progress: Progress | None) -> Iterator[None]:
    """Report how the server gets on, from a second connection; without one the build runs all the same."""
    if progress is None or connection.dialect.is_async:  # a thread of its own cannot use an asynchronous engine
        yield
        return
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    finished = threading.Event()
    thread = threading.Thread(target=_report, args=(connection.engine, pid, progress, finished), daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(5 * POLL)


def _report(engine: Engine, pid: int, progress: Progress, finished: threading.Event) -> None:
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not finished.wait(POLL):
                for build in build_progress(connection):
                    if build.pid == pid:
                        progress(build)
    except SQLAlchemyError:
        log.info("no progress to show: a second connection was refused", exc_info=True)
    except Exception:  # whoever shows it cannot end the build
        log.warning("progress is not shown any more", exc_info=True)
