"""The psycopg connection that rows are loaded through."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import tuple_row

from pgmrl.database.connection import psycopg_connection, sqlalchemy_connection
from pgmrl.database.search_path import PINNED
from pgmrl.model.columns import base_column
from pgmrl.model.server_names import translated_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Driver", "catalogue_rows", "driver_of", "give_up_if_lost", "plain_cursor", "schema_in", "transaction_kept"]

_PIN: Final = (  # safe under any path
    "SELECT CAST(pg_catalog.to_regclass(%s) AS pg_catalog.oid), pg_catalog.current_setting('search_path'), "
    "pg_catalog.set_config('search_path', %s, true)"
)
_UNPIN: Final = "SELECT pg_catalog.set_config('search_path', %s, true)"

Driver = psycopg.Connection[Any]


def driver_of(connection: Connection | Session | Driver) -> Driver:
    """The psycopg connection behind another one.

    Raises:
        WrongConnection: there is none, since it goes through another driver.
    """
    if isinstance(connection, psycopg.Connection):
        return connection
    driver, through = psycopg_connection(connection, "ingest"), sqlalchemy_connection(connection)
    if through.in_transaction():
        through.exec_driver_sql("SELECT 1")  # SQLAlchemy begins late; a batch must find the caller's transaction begun
    return driver


def schema_in(connection: Connection | Session | Driver, column: Any) -> str | None:
    """The schema of a column's table in this connection, which may translate schemas; None for the search_path's."""
    schema: str | None = base_column(column).table.schema
    return (
        schema
        if isinstance(connection, psycopg.Connection)
        else translated_schema(sqlalchemy_connection(connection), schema)
    )


def give_up_if_lost(connection: Connection | Session | Driver, driver: Driver) -> None:
    """Tell SQLAlchemy that its connection was lost: it would try to roll it back, and report that as another error."""
    if driver.closed and not isinstance(connection, psycopg.Connection):
        sqlalchemy_connection(connection).invalidate()


def plain_cursor(driver: Driver) -> psycopg.Cursor[tuple[Any, ...]]:
    """A cursor that does not depend on the factories of the caller's connection."""
    return psycopg.Cursor(driver, row_factory=tuple_row)


def catalogue_rows(driver: Driver, query: str, table: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a query on the catalogue, in which names mean the server's own objects: see `database.pinned`.

    Args:
        driver: the connection.
        query: its first parameter is the table, as an oid.
        table: SQL text; without a schema the caller's search_path decides.
        *parameters: the others.
    """
    with transaction_kept(driver):
        cursor = plain_cursor(driver)
        cursor.execute(_PIN, [table, PINNED])
        oid, path, _ = cursor.fetchone() or (None, "", "")
        rows = cursor.execute(query, [oid, *parameters]).fetchall()
        cursor.execute(_UNPIN, [path])
    return rows


@contextmanager
def transaction_kept(driver: Driver) -> Iterator[None]:
    """Read without leaving a transaction open that was not."""
    with driver.transaction():
        yield
