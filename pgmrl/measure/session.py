"""A transaction to measure in: one snapshot, nothing written, bounded in time, nothing left behind."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgmrl import database
from pgmrl.errors import MeasureError
from pgmrl.model.columns import attachment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["CANCELLED", "CONFLICT", "check_one_server", "ended_by_standby", "measuring", "until"]

CANCELLED: Final = "57014"  # by statement_timeout
CONFLICT: Final = "40001"  # on a standby: the primary has vacuumed a row that the snapshot still sees


def ended_by_standby() -> MeasureError:
    """What a `CONFLICT` means to somebody who measures."""
    return MeasureError(
        "the standby ended the snapshot, for it has to replay what the primary has vacuumed: set "
        "max_standby_streaming_delay or hot_standby_feedback there, or measure again in less time"
    )


def check_one_server(column: Any) -> None:
    """Check that a column's rows are on one server, where their places tell them apart.

    Raises:
        MeasureError: its table is distributed.

    """
    if attachment_of(column).distributed:
        raise MeasureError(
            f"{column}: expected a table of one server, got a distributed one: for other dimensions tune a sample of "
            "its rows in an ordinary table; `pgmrl recall --shortlist … --ef-search …` measures numbers over its shards"
        )


@contextmanager
def measuring(connection: Connection, *, seconds: float | None, parallel: int | None = 0) -> Iterator[None]:
    """Read in one snapshot and within so many seconds, and leave no setting behind.

    A transaction of its own is REPEATABLE READ and READ ONLY, which a hot standby allows too. Within a transaction of
    the caller's it is a savepoint, and the caller's isolation holds.

    Args:
        connection: of the database.
        seconds: after which the server cancels the first statement; those that follow get as much again, unless
            `until` is called before them. None for the session's own limit.
        parallel: processes that help with a scan of the table; None for as many as the session allows.

    """
    with database.snapshot(connection):
        if seconds is not None:
            until(connection, time.monotonic() + seconds)
        if parallel is not None:
            connection.exec_driver_sql(f"SET LOCAL max_parallel_workers_per_gather = {int(parallel)}")
        yield


def until(connection: Connection, end: float) -> None:
    """Have the server cancel the statement that follows at this time.

    Args:
        connection: in a transaction or savepoint, with which it ends.
        end: by `time.monotonic`.

    """
    left = max(1, round(1000 * (end - time.monotonic())))  # milliseconds; 0 would be no limit
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {left}")
