"""The extension pgvector: where it lives, whether its version will do, and how it is installed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.search_path import caller_path, catalogue_result
from pgmrl.errors import PgvectorMissing, PgvectorVersionWarning

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["PGVECTOR_NEEDED", "PGVECTOR_SOUND", "check_pgvector", "create_pgvector", "hidden_schema", "version_numbers"]

PGVECTOR_NEEDED: Final = (0, 8, 0)  # iterative index scans
PGVECTOR_SOUND: Final = (0, 8, 4)  # vacuuming HNSW


def create_pgvector(connection: Connection | Session) -> None:
    """Install the extension where it is not; needs no rights where somebody else has.

    Raises:
        PgvectorMissing: the server does not have it, or this role may not install it.

    """
    connection = sqlalchemy_connection(connection)
    if _extension(connection) is not None:
        return
    try:
        with connection.begin_nested(), caller_path(connection):  # it goes into the first schema of that
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        raise PgvectorMissing(
            f"pgvector cannot be installed: {error.orig}\n"
            "Ask for `CREATE EXTENSION vector` in this database; where the server lacks it, install its package first."
        ) from error


def check_pgvector(connection: Connection | Session) -> str:
    """The schema pgvector lives in, after a look at its version.

    Raises:
        PgvectorMissing: it is not installed, or is older than 0.8.0.

    Warns:
        PgvectorVersionWarning: it is older than 0.8.4.

    """
    extension = _extension(sqlalchemy_connection(connection))
    if extension is None:
        raise PgvectorMissing("pgvector is not installed in this database: run CREATE EXTENSION vector")
    schema, version = extension
    numbers = version_numbers(version)
    if numbers < PGVECTOR_NEEDED:
        raise PgvectorMissing(f"pgvector: expected 0.8.0 or later, got {version}: run ALTER EXTENSION vector UPDATE")
    if numbers < PGVECTOR_SOUND:
        warnings.warn(f"pgvector {version}: {PgvectorVersionWarning.__doc__}", PgvectorVersionWarning, stacklevel=2)
    return schema


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version of pgvector's, to compare."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def hidden_schema(connection: Connection) -> str | None:
    """Pgvector's schema where the search_path does not reach it; None where it does.

    Raises:
        PgvectorMissing: see `check_pgvector`.

    """
    schema = check_pgvector(connection)
    query = text(  # of the path as it is, and safe under any
        "SELECT pg_catalog.bool_or(pg_catalog.pg_type_is_visible(t.oid)) FROM pg_catalog.pg_type AS t "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace "
        "WHERE t.typname OPERATOR(pg_catalog.=) CAST('vector' AS pg_catalog.name) "
        "AND n.nspname OPERATOR(pg_catalog.=) CAST(:schema AS pg_catalog.name)"
    )
    visible = connection.execute(query, {"schema": schema}).scalar()
    return None if visible else schema


def _extension(connection: Connection) -> tuple[str, str] | None:
    """Schema and version of pgvector; None where it is not installed."""
    row = catalogue_result(
        connection,
        "SELECT n.nspname, e.extversion FROM pg_extension AS e "
        "JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
    ).first()
    return None if row is None else (row[0], row[1])
