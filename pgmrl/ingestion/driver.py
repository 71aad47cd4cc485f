"""The psycopg connection that rows are loaded through."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row

from pgmrl.database.connection import psycopg_connection, sqlalchemy_connection
from pgmrl.model.columns import base_column
from pgmrl.model.server_names import translated_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Driver", "driver_of", "give_up_if_lost", "plain_cursor", "schema_in", "transaction_kept"]

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


@contextmanager
def transaction_kept(driver: Driver) -> Iterator[None]:
    """Read without leaving a transaction open that was not."""
    with driver.transaction():
        yield
