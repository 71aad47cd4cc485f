"""Which objects a statement's names mean: the server's own, whatever stands on the search_path.

An operator or a function of somebody else's that fits the arguments better than the server's own is taken in its
place, also from a schema far behind: `public.=(oid, integer)` runs with the rights of whoever asks the catalogue. So
what pgmrl asks of the catalogue and of its own schema runs under `PINNED`, and pgmrl's own connections keep that
throughout. Rows of the application's tables are read and written under the caller's own path, as the application does:
a condition of the caller's, a trigger or a policy means what it means there.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Executable, Result
    from sqlalchemy.engine.interfaces import DBAPIConnection

__all__ = [
    "PINNED",
    "caller_path",
    "catalogue_result",
    "in_autocommit",
    "leave_pinned",
    "pin_engine",
    "pinned",
    "pinned_block",
    "relation_name",
]

PINNED: Final = "pg_catalog, pg_temp"
"""Temporary tables last: left out, they would come first."""

UNPINNED: Final = ("pgmrl_unpinned", False)
_CALLER: Final = "pgmrl_caller_path"  # in Connection.info while the path is pinned: the caller's

# safe under any path: each name with its schema
_READ_AND_SET: Final = text(
    "SELECT pg_catalog.current_setting('search_path'), pg_catalog.set_config('search_path', :path, true)"
)
_SET: Final = text("SELECT pg_catalog.set_config('search_path', :path, true)")
_READ: Final = text("SELECT pg_catalog.current_setting('search_path')")
_NAME: Final = text(
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c "
    "JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
    "WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass(:name) AS pg_catalog.oid)"
)


_RELATIONS: Final = re.compile(r"to_regclass\((?:CAST\()?:(\w+)")


@contextmanager
def pinned(connection: Connection) -> Iterator[None]:
    """Have names mean the server's own objects, and afterwards the caller's again.

    The setting is the transaction's, so that nothing leaks through a pooler. In autocommit, where a setting ends with
    its statement, the block is a transaction of its own, unless one was begun by hand.

    Args:
        connection: of the database, also within a transaction or savepoint of the caller's.
    """
    if _CALLER in connection.info:
        yield
        return
    path = connection.execute(_READ_AND_SET, {"path": PINNED}).scalar_one()
    own_transaction = in_autocommit(connection) and connection.execute(_READ).scalar_one() != PINNED
    if own_transaction:
        connection.exec_driver_sql("BEGIN")
        try:
            connection.execute(_SET, {"path": PINNED})
        except BaseException:
            with suppress(SQLAlchemyError):  # a lost connection has rolled back
                connection.exec_driver_sql("ROLLBACK")
            raise
    connection.info[_CALLER] = path
    try:
        yield
    except BaseException:
        # in a failed transaction the server takes nothing, the end of it restores; a lost connection has no `info`
        with suppress(SQLAlchemyError):
            connection.info.pop(_CALLER, None)
            _leave(connection, path, "ROLLBACK" if own_transaction else None)
        raise
    connection.info.pop(_CALLER, None)
    _leave(connection, path, "COMMIT" if own_transaction else None)


def _leave(connection: Connection, path: str, end: str | None) -> None:
    if end is None:
        connection.execute(_SET, {"path": path})
    else:
        connection.exec_driver_sql(end)


@contextmanager
def pinned_block(connection: Connection) -> Iterator[None]:
    """As `pinned`, to the end of a transaction that was begun by hand just now."""
    connection.info[_CALLER] = connection.execute(_READ_AND_SET, {"path": PINNED}).scalar_one()
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # of a lost connection there is none
            connection.info.pop(_CALLER, None)


@contextmanager
def caller_path(connection: Connection) -> Iterator[None]:
    """Within `pinned`, have names mean what they mean to the caller: for conditions, triggers and tables of theirs."""
    path = connection.info.pop(_CALLER, None)
    if path is None:
        yield
        return
    try:
        connection.execute(_SET, {"path": path})
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # a lost connection has no `info`
            connection.info[_CALLER] = path
            connection.execute(_SET, {"path": PINNED})  # a failed transaction, or savepoint: its end restores
        raise
    connection.execute(_SET, {"path": PINNED})
    connection.info[_CALLER] = path


def leave_pinned(connection: Connection) -> None:
    """Have a connection of pgmrl's own keep the role's path from its next transaction on: for the user's conditions."""
    connection.rollback()
    connection.execution_options(**{UNPINNED[0]: True})


def relation_name(connection: Connection, name: str) -> str:
    """A table's or index's name with the schema in which the caller's search_path finds it; as it is where it does not.

    Args:
        connection: of the database.
        name: SQL text, quoted, with a schema or without.
    """
    with caller_path(connection):
        qualified_name: str | None = connection.execute(_NAME, {"name": name}).scalar()
    return name if qualified_name is None else qualified_name


def catalogue_result(
    connection: Connection,
    statement: Executable | str,
    parameters: Mapping[str, Any] | None = None,
) -> Result[*tuple[Any, ...]]:
    """What a statement on the catalogue, or on pgmrl's own schema, gives under the pinned path.

    Args:
        connection: of the database.
        statement: text is sent as it is, without parameters.
        parameters: of the statement; those that it gives to `to_regclass` are names that the caller's path explains.
    """
    values = dict(parameters or {})
    for name in {name for name in _RELATIONS.findall(str(statement)) if values.get(name) is not None}:
        values[name] = relation_name(connection, values[name])
    with pinned(connection):
        if isinstance(statement, str):
            result: Any = connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        else:
            result = connection.execute(statement, values)
        frozen: Result[*tuple[Any, ...]] = result.freeze()()
        return frozen


def pin_engine(engine: Engine) -> None:
    """Pin the path in every transaction of an engine of pgmrl's own; what runs in autocommit pins for itself.

    Connections with the execution option `UNPINNED` keep the role's own path, for what the user writes.
    """

    @event.listens_for(engine, "connect", insert=True, once=True)
    def pin_first(connection: DBAPIConnection, _record: Any) -> None:
        """SQLAlchemy looks for hstore in the catalogue, in the first connection's first transaction."""
        cursor = connection.cursor()
        cursor.execute(f"SET LOCAL search_path = {PINNED}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def pin(connection: Connection) -> None:
        if not (in_autocommit(connection) or connection.get_execution_options().get(*UNPINNED)):
            # no SELECT, after which the isolation level could not be set any more
            connection.info[_CALLER] = connection.exec_driver_sql("SHOW search_path").scalar_one()
            connection.exec_driver_sql(f"SET LOCAL search_path = {PINNED}")

    @event.listens_for(engine, "commit")
    @event.listens_for(engine, "rollback")
    def unpin(connection: Connection) -> None:
        with suppress(SQLAlchemyError):  # a lost connection has no `info`
            connection.info.pop(_CALLER, None)


def in_autocommit(connection: Connection) -> bool:
    """Whether each statement is a transaction of its own, whatever the driver."""
    # asyncpg's own connection does not know, SQLAlchemy's around it does
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))
