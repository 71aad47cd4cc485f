"""Strong locks taken for a moment or not at all: a short wait, a retreat, another try.

A statement that waits for ACCESS EXCLUSIVE makes everybody who comes after it wait too, readers included. Behind one
long transaction that is an outage. So each try gives up after a third of a second and lets the queue through.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.job_log import log
from pgmrl.database.search_path import catalogue_result
from pgmrl.errors import Locked
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

__all__ = ["Patience", "in_transaction", "lock_table", "with_savepoints"]

RETRIED: Final = {"55P03", "40P01"}  # lock_not_available, deadlock_detected


@dataclass(frozen=True, slots=True)
class Patience:
    """How a strong lock is waited for.

    Attributes:
        lock_timeout: seconds of one try, for which others may have to wait as well.
        attempts: tries before it is an error.
        pause: seconds between tries, in which others get through.
    """

    lock_timeout: float = 0.3
    attempts: int = 60
    pause: float = 0.7

    @property
    def setting(self) -> str:
        """The statement that sets it for the current transaction."""
        return f"SELECT pg_catalog.set_config('lock_timeout', '{round(self.lock_timeout * 1000)}ms', true)"


def lock_table(owner: str) -> str:
    """The statement that takes a table for this transaction alone."""
    return f"LOCK TABLE {owner} IN ACCESS EXCLUSIVE MODE"


def in_transaction(
    connection: Connection, statements: Sequence[str], owner: str | None, patience: Patience | None = None
) -> None:
    """Run statements in one transaction of their own, again and again until their locks are free.

    Args:
        connection: in autocommit.
        statements: plain SQL.
        owner: the table they lock, as SQL text; for the message.
        patience: how long to wait.

    Raises:
        Locked: the locks were not free in any of the tries; nothing was changed.
    """
    patience = patience or Patience()
    for tries_left in _tries(connection, owner, patience):
        execute_plain(connection, "BEGIN")
        try:
            for statement in (patience.setting, *statements):
                execute_plain(connection, statement)
            execute_plain(connection, "COMMIT")
        except BaseException as error:
            with _ignored():  # a dropped connection has rolled back already
                execute_plain(connection, "ROLLBACK")
            if not (tries_left and is_locked(error)):
                raise
        else:
            return


def with_savepoints(
    connection: Connection, statements: Sequence[str], owner: str | None, patience: Patience | None = None
) -> None:
    """Run statements inside a transaction that somebody else ends; each try is a savepoint.

    Arguments as of `in_transaction`, on a connection that is in a transaction.

    Raises:
        Locked: the locks were not free in any of the tries; the transaction can go on.
    """
    patience = patience or Patience()
    before = connection.execute(text("SELECT pg_catalog.current_setting('lock_timeout')")).scalar_one()
    for tries_left in _tries(connection, owner, patience):
        try:
            with connection.begin_nested():
                for statement in (patience.setting, *statements):
                    execute_plain(connection, statement)
                execute_plain(connection, f"SELECT pg_catalog.set_config('lock_timeout', {literal(before)}, true)")
        except DBAPIError as error:
            if not (tries_left and is_locked(error)):
                raise
        else:
            return


def is_locked(error: BaseException) -> bool:
    """Whether a statement gave up because of somebody else's lock."""
    return isinstance(error, DBAPIError) and sqlstate(error) in RETRIED


def _tries(connection: Connection, owner: str | None, patience: Patience) -> Iterator[int]:
    for tries_left in range(patience.attempts, 0, -1):
        yield tries_left  # the body that gets through returns, and does not come back
        if tries_left == patience.attempts:
            log.info("waiting for a lock on %s: %s", owner, _holders(connection, owner))
        if tries_left > 1:
            time.sleep(patience.pause)
    raise Locked(
        f"{owner} is held by others: {patience.attempts} tries of {patience.lock_timeout:g} s were in vain.\n"
        f"{_holders(connection, owner)}\nEnd these transactions, or run this again when they are over."
    )


def _holders(connection: Connection, owner: str | None) -> str:
    query = text(
        "SELECT DISTINCT a.pid, a.usename, a.state, round(extract(epoch FROM now() - a.xact_start)) AS seconds, "
        "left(a.query, 80) AS query FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
        "WHERE l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) "
        "AND (l.relation = to_regclass(:owner) OR l.relation IN "  # a partition's lock is in the way as well
        "(SELECT p.relid FROM pg_partition_tree(to_regclass(:owner)) AS p)) "
        "AND l.granted AND a.pid <> pg_backend_pid() ORDER BY 4 DESC NULLS LAST"
    )
    rows = catalogue_result(connection, query, {"owner": owner}).all()
    holders = [f"process {row.pid} ({row.usename}, {row.state}, {row.seconds} s): {row.query}" for row in rows[:5]]
    return "\n".join(holders) or "it is free again now"


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError:
        log.debug("the connection is gone", exc_info=True)
