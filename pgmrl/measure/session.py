"""A transaction to measure in: one snapshot, nothing written, bounded in time, nothing left behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.errors import MeasureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["CONFLICT", "ended_by_standby", "measuring"]

CONFLICT: Final = "40001"  # on a standby: the primary has vacuumed a row that the snapshot still sees


def ended_by_standby() -> MeasureError:
    """What a `CONFLICT` means to somebody who measures."""
    return MeasureError(
        "the standby ended the snapshot, for it has to replay what the primary has vacuumed: set "
        "max_standby_streaming_delay or hot_standby_feedback there, or measure again in less time"
    )


@contextmanager
def measuring(connection: Connection, *, seconds: float, parallel: int = 0) -> Iterator[None]:
    """Read in one snapshot and within so many seconds, and leave no setting behind.

    A transaction of its own is REPEATABLE READ and READ ONLY, which a hot standby allows too. Within a transaction of
    the caller's it is a savepoint, and the caller's isolation holds.

    Args:
        connection: of the database.
        seconds: after which the server cancels a statement.
        parallel: processes that help with a scan of the table.

    """
    with database.snapshot(connection):
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
        connection.exec_driver_sql(f"SET LOCAL max_parallel_workers_per_gather = {int(parallel)}")
        yield
