"""Where the statements of an operation run: in the migration's transaction, in one of their own, or printed as SQL."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from pgmrl.database.connection import in_autocommit
from pgmrl.errors import MigrationError, PgmrlError
from pgmrl.online import locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alembic.operations import Operations
    from sqlalchemy import Connection

__all__ = ["committing", "connection_of", "default_schema", "print_sql", "run_alone", "run_in_migration"]


def connection_of(operations: Operations) -> Connection | None:
    """The migration's connection; None where the migration is printed."""
    context = operations.migration_context
    return None if context.as_sql else context.connection


def default_schema(operations: Operations) -> str:
    """Where a table without a schema is; `public` where the migration is printed."""
    connection = connection_of(operations)
    return (connection.dialect.default_schema_name if connection is not None else None) or "public"


def run_in_migration(operations: Operations, statements: Sequence[str], owner: str, *, lock: bool = True) -> None:
    """Run statements in the migration's own transaction, which keeps the lock until it ends.

    Args:
        operations: Alembic's own.
        statements: plain SQL.
        owner: the table, as SQL text.
        lock: take the table's ACCESS EXCLUSIVE lock first.

    Raises:
        Locked: others hold the table.
    """
    connection = connection_of(operations)
    locked = [locks.lock_table(owner), *statements] if lock else statements
    if connection is None:
        print_sql(operations, locked)
    elif connection.in_transaction() and not in_autocommit(connection):
        locks.with_savepoints(connection, locked, owner)
    else:
        locks.in_transaction(connection, locked, owner)


def run_alone(operations: Operations, directive: str, statements: Sequence[str], owner: str) -> None:
    """Run statements in a transaction of their own, so that the lock is over in a moment.

    Args:
        operations: Alembic's own.
        directive: for the message.
        statements: plain SQL.
        owner: the table, as SQL text.

    Raises:
        MigrationError: somebody else's transaction cannot be committed from here.
        Locked: others hold the table.
    """
    with committing(operations, directive):
        connection = connection_of(operations)
        locked = [locks.lock_table(owner), *statements]
        if connection is None:
            print_sql(operations, ["BEGIN", locks.Patience().setting, *locked, "COMMIT"])
        else:
            locks.in_transaction(connection, locked, owner)


@contextmanager
def committing(operations: Operations, directive: str) -> Iterator[Connection | None]:
    """Commit what the migration has done so far, and run what follows in autocommit.

    Args:
        operations: Alembic's own.
        directive: for the message.

    Yields:
        The connection; None where the migration is printed.

    Raises:
        MigrationError: somebody else's transaction cannot be committed from here.
    """
    context, connection = operations.migration_context, connection_of(operations)
    if connection is not None and in_autocommit(connection):
        yield connection
        return
    with _first_error(), ExitStack() as stack:
        try:
            stack.enter_context(context.autocommit_block())
        except (AssertionError, AttributeError) as error:  # how Alembic says that it has no transaction to commit
            raise MigrationError(
                f"op.{directive} commits on its own, and this connection's transaction is not Alembic's: give "
                "context.configure a connection without one (engine.connect(), not engine.begin()), or for an index "
                "say concurrently=False"
            ) from error
        if connection is not None:
            # Alembic has asked for the isolation level, by which pg8000 has begun a transaction
            connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]
        yield connection_of(operations)


@contextmanager
def _first_error() -> Iterator[None]:
    """What happened, where ending the block fails too: Alembic commits there, which a lost connection refuses."""
    try:
        yield
    except InvalidRequestError as error:
        first = error.__context__
        while isinstance(first, InvalidRequestError):
            first = first.__context__
        if isinstance(first, PgmrlError | DBAPIError):
            raise first from first.__cause__
        raise


def print_sql(operations: Operations, statements: Iterable[str]) -> None:
    """Print statements into Alembic's script."""
    for statement in statements:
        operations.execute(_without_parameters(statement))


def _without_parameters(statement: str) -> Any:
    # a colon in a name is no parameter
    return text(statement.replace(":", "\\:").replace("\\:\\:", "::"))
