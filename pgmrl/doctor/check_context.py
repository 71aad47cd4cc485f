"""What every check is given: the connection, the server, the columns, thresholds."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgmrl import database
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Row

    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.doctor.finding import Problem
    from pgmrl.doctor.thresholds import Thresholds
    from pgmrl.measure import Recall

__all__ = ["CheckContext", "Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the role that runs the checks.

    Attributes:
        version: as `server_version_num`, such as 180006.
        standby: whether it is a hot standby.
        role: the current role.
        monitors: whether the role sees other roles' sessions (pg_monitor, or a superuser).
        schema: revision of pgmrl's schema in this database; None where it is not installed.

    """

    version: int
    standby: bool
    role: str
    monitors: bool
    schema: str | None

    @classmethod
    def of(cls, connection: Connection) -> Server:
        """The server behind a connection.

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


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What every check is given.

    Attributes:
        connection: a connection to the database.
        server: the server behind it.
        columns: the short columns to check.
        thresholds: the numbers from which on a problem is reported.
        seed: seed of samples.
        mismatches: columns that the database does not have as they are declared.
        recalls: measured just now and not in the history, by the column's name.
        all_columns: whether all columns of the database are checked.
        cache: what one check has computed and others use, too.

    """

    connection: Connection
    server: Server
    columns: Sequence[CheckedColumn]
    thresholds: Thresholds
    seed: int = 0
    mismatches: Sequence[Problem] = ()
    recalls: Mapping[str, Recall] = field(default_factory=dict)
    all_columns: bool = True
    cache: dict[Any, Any] = field(default_factory=dict)

    def includes(self, schema: str, table: str) -> bool:
        """Whether a table is among those to check."""
        tables = {column.owner for column in self.columns}
        tables |= {column.source.owner for column in self.columns if column.source is not None}
        return self.all_columns or qualified(schema, table) in tables

    def path_of(self, column: CheckedColumn) -> AbstractContextManager[None]:
        """For searches: a model's names mean what they mean to the application; a reflected column's have a schema."""
        return nullcontext() if column.reflected else database.caller_path(self.connection)

    def rows(self, statement: str) -> Sequence[Row[Any]]:
        """The rows of a statement that is plain text, as it can be run again in psql."""
        return database.execute_plain(self.connection, statement).all()

    def row(self, statement: str) -> Row[Any]:
        """The only row of a statement that is plain text."""
        return database.execute_plain(self.connection, statement).one()
