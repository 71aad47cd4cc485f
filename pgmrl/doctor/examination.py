"""An examination: the connection, its limits in time, what is examined, and what could not be looked at."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.doctor.finding import Finding, NotChecked
from pgmrl.errors import DatabaseError, ExactSearchWarning, Locked, PgmrlError, PgvectorVersionWarning
from pgmrl.measure.session import CANCELLED
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from pgmrl.doctor.examined_columns import Subject
    from pgmrl.doctor.finding import Severity
    from pgmrl.measure import Recall

__all__ = ["Check", "Exam", "Server", "Skipped", "Thresholds", "quietly", "reading", "surveying"]

PRIMARY = "a standby does not know: ask the primary"
LOCK_SECONDS = 2.0
"""How long to wait for a table that somebody holds in ACCESS EXCLUSIVE mode."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is found.

    Attributes:
        small_rows: a table of fewer rows may be read whole: an index would win nothing.
        exact_rows: rows are counted exactly up to so many, and above on a sample of about so many.
        null_share: share of rows without a vector that is a warning; fewer are told as info.
        dead_share: share of dead rows, which take places in a shortlist until VACUUM.
        modified_share: share of rows changed since the last ANALYZE.
        held_seconds: age of a transaction that holds VACUUM back.
        unused_seconds: age of the statistics before an index without a scan is told.
        unused_reads: sequential reads of its table in that time that make it a warning.
        rotation_rows: rows of the sample on which a rotation is compared with a newly learned one.
        rotation_gain: recall@10 that a newly learned rotation must keep more of, for the old one to be stale.
        idle_seconds: time without a report after which a backfill that is not finished counts as stopped.
        grown: growth of a table since its setting was chosen, or its recall measured.
        recall_days: age of the last recall measurement.
        recall_drop: smallest loss of recall that is told.

    """

    small_rows: int = 10_000
    exact_rows: int = 50_000
    null_share: float = 0.1
    dead_share: float = 0.2
    modified_share: float = 0.3
    held_seconds: float = 3_600
    unused_seconds: float = 86_400
    unused_reads: int = 100
    rotation_rows: int = 4_000
    rotation_gain: float = 0.02
    idle_seconds: float = 600
    grown: float = 2.0
    recall_days: float = 30
    recall_drop: float = 0.01


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: as in `--only`.
        severity: the worst it gives.
        about: what it looks for, one line.
        each: looks at one column; or None.
        once: looks at the database; or None.

    """

    name: str
    severity: Severity
    about: str
    each: Callable[[Exam, Subject], Iterable[Finding]] | None = None
    once: Callable[[Exam], Iterable[Finding]] | None = None


class Skipped(PgmrlError):
    """A check cannot be made here. The message says why, and what would let it."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the role that asks.

    Attributes:
        version: as `server_version_num`, such as 180006.
        standby: whether it is a hot standby.
        role: the current role.
        monitors: whether the role sees other roles' sessions (pg_monitor, or a superuser).
        schema: pgmrl's revision in this database; None where it is not installed.

    """

    version: int
    standby: bool
    role: str
    monitors: bool
    schema: str | None

    @classmethod
    def of(cls, connection: Connection) -> Server:
        """Ask.

        Raises:
            PgvectorMissing: pgvector is not installed or too old.

        """
        # a vector that is computed loads pgvector's library, and with it its settings
        schema = quoted(database.check_pgvector(connection))
        query = (
            "SELECT current_setting('server_version_num')::integer AS version, pg_is_in_recovery() AS standby, "
            "current_user::text AS role, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS monitors, "
            f"'[1]'::{schema}.vector IS NOT NULL"
        )
        row = database.execute_plain(connection, query).one()
        return cls(row.version, row.standby, row.role, row.monitors, database.installed_revision(connection))


@dataclass(slots=True)
class Exam:
    """What the checks are given.

    Attributes:
        connection: of the database.
        server: what it is.
        subjects: the short columns.
        thresholds: from where on something is found.
        seed: of samples.
        deadline: on the monotonic clock.
        not_checked: what could not be looked at.
        known: what one check found out for another.
        recalls: measured just now and not in the history, by the column's name.
        whole: whether all columns of the database are examined.

    """

    connection: Connection
    server: Server
    subjects: Sequence[Subject]
    thresholds: Thresholds
    seed: int
    deadline: float
    not_checked: list[NotChecked] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)
    recalls: Mapping[str, Recall] = field(default_factory=dict)
    whole: bool = True

    def concerns(self, schema: str, table: str) -> bool:
        """Whether a table is among those that were asked for."""
        owners = {subject.owner for subject in self.subjects}
        owners |= {subject.side.owner for subject in self.subjects if subject.side is not None}
        return self.whole or qualified(schema, table) in owners

    def ask(self, statement: str) -> Sequence[Row[Any]]:
        """The rows of a statement that is plain text, as it can be run again in psql."""
        return database.execute_plain(self.connection, statement).all()

    def one(self, statement: str) -> Row[Any]:
        """Its only row."""
        return database.execute_plain(self.connection, statement).one()

    def run(self, check: Check) -> list[Finding]:
        """Make a check on everything it looks at; what goes wrong is noted, and the next one goes on."""
        found: list[Finding] = []
        if check.once is not None:
            found += self._guarded(check, "database", lambda: check.once(self) if check.once else ())
        for subject in self.subjects if check.each is not None else ():
            found += self._guarded(check, subject.name, lambda one=subject: check.each(self, one))  # type: ignore[misc]
        return found

    def skip(self, check: str, subject: str, reason: str) -> None:
        """Note that something could not be looked at."""
        self.not_checked.append(NotChecked(check, subject, reason))

    def _guarded(self, check: Check, subject: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.skip(check.name, subject, "the time was up: give it more with --seconds")
            return []
        try:
            with reading(self.connection, left):
                return list(look())
        except PgmrlError as error:
            self.skip(check.name, subject, str(error))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            self.skip(check.name, subject, _reason(error, self.server.role))
        return []


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of what checks find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgvectorVersionWarning)
        warnings.simplefilter("ignore", ExactSearchWarning)
        yield


@contextmanager
def surveying(connection: Connection, seconds: float) -> Iterator[None]:
    """As `reading`, for what has to be known before anything can be examined; quietly.

    Raises:
        Locked: somebody holds a table, so that not even its size can be read.
        DatabaseError: it took too long, or the role may not look at what was asked for.

    """
    try:
        with quietly(), reading(connection, seconds):
            yield
    except DBAPIError as error:
        raise _unread(error, seconds) or error from None


@contextmanager
def reading(connection: Connection, seconds: float) -> Iterator[None]:
    """Read only, within so many seconds, waiting for no lock for long; leaves nothing behind."""
    with database.snapshot(connection):
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * min(seconds, LOCK_SECONDS)) or 1}")
        yield


def _unread(error: DBAPIError, seconds: float) -> DatabaseError | None:
    """Why there is nothing to examine yet, in words; None for any other error."""
    state = sqlstate(error)
    if state == "55P03":
        return Locked(
            "another transaction, such as a migration, holds a table whose size is asked: end it, or try later"
        )
    if state == CANCELLED:
        return DatabaseError(f"the catalogue was not read in {seconds:g} s: give it more with --seconds")
    if state == "42501":
        return DatabaseError(f"{str(error.orig).strip().splitlines()[0]}: grant it, or run as the table's owner")
    return None


def _reason(error: DBAPIError, role: str) -> str:
    """What the server said, in one line with what would help."""
    state = sqlstate(error)
    said = str(error.orig).strip().splitlines()[0]
    if state == "42501":
        return f"{said}: grant it to {role}, or run as the table's owner"
    if state == CANCELLED:
        return "the time was up: give it more with --seconds"
    if state == "55P03":
        return "a migration or another transaction holds the table: try again when it is over"
    return said
