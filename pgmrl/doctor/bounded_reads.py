"""Reading within limits: a read-only savepoint with a time limit, which waits for no lock for long."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.errors import DatabaseError, ExactSearchWarning, Locked, PgvectorVersionWarning, SearchError
from pgmrl.measure.session import CANCELLED
from pgmrl.searching.arguments import MOST_SECONDS, finite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = [
    "OUT_OF_TIME",
    "bounded_read",
    "failure_reason",
    "first_line",
    "read_catalogue",
    "time_limit",
    "without_warnings",
]

LOCK_SECONDS: Final = 2.0
"""How long to wait for a table that another transaction holds in ACCESS EXCLUSIVE mode."""

OUT_OF_TIME: Final = "the time limit was reached: raise it with --seconds"
LOCK_NOT_AVAILABLE: Final = "55P03"
INSUFFICIENT_PRIVILEGE: Final = "42501"


def time_limit(seconds: float) -> float:
    """The argument `seconds`, as a limit of time that a server can be given.

    Raises:
        SearchError: it is no finite number, or below 0.

    """
    number = finite("seconds", seconds)
    if number < 0:
        raise SearchError(f"seconds={number:g}: expected at least 0")
    return min(number, MOST_SECONDS)


@contextmanager
def bounded_read(connection: Connection, seconds: float) -> Iterator[None]:
    """A read-only savepoint with a time limit, rolled back at the end; its locks are waited for two seconds at most.

    Names mean the server's own objects within it: see `database.pinned`.
    """
    with database.snapshot(connection):
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * min(seconds, LOCK_SECONDS)) or 1}")
        with database.pinned(connection):
            yield


@contextmanager
def read_catalogue(connection: Connection, seconds: float) -> Iterator[None]:
    """A `bounded_read` for what must be known before the first check, without warnings and with clear errors.

    Raises:
        Locked: another transaction holds a table, so that not even its size can be read.
        DatabaseError: it took too long, or the role lacks a privilege.

    """
    try:
        with without_warnings(), bounded_read(connection, seconds):
            yield
    except DBAPIError as error:
        raise _catalogue_error(error, seconds) or error from None


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without the warnings about what checks report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgvectorVersionWarning)
        warnings.simplefilter("ignore", ExactSearchWarning)
        yield


def failure_reason(error: DBAPIError, role: str) -> str:
    """Why a check failed, in one line, with the remedy."""
    state = sqlstate(error)
    if state == INSUFFICIENT_PRIVILEGE:
        return f"{first_line(error)}: grant it to {role}, or run as the table's owner"
    if state == CANCELLED:
        return OUT_OF_TIME
    if state == LOCK_NOT_AVAILABLE:
        return "a migration or another transaction holds the table: run the check again when it has ended"
    return first_line(error)


def first_line(error: DBAPIError) -> str:
    """The server's message without its details."""
    return str(error.orig).strip().splitlines()[0]


def _catalogue_error(error: DBAPIError, seconds: float) -> DatabaseError | None:
    """The error for people; None for any other."""
    state = sqlstate(error)
    if state == LOCK_NOT_AVAILABLE:
        return Locked(
            "another transaction, such as a migration, holds a table whose size is needed: end it, or try again later"
        )
    if state == CANCELLED:
        return DatabaseError(f"the catalogue was not read within {seconds:g} s: raise the limit with --seconds")
    if state == INSUFFICIENT_PRIVILEGE:
        return DatabaseError(f"{first_line(error)}: grant it, or run as the table's owner")
    return None
