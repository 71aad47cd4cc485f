"""Versions of pgvector and of pgmrl's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.finding import Severity

__all__ = ["defects", "library_version", "pgvector_outdated", "pgvector_version", "schema"]

DEFECTS: Final[tuple[tuple[tuple[int, ...], Severity, str], ...]] = (
    ((0, 8, 2), "warning", "a parallel HNSW build can overflow a buffer (pgvector#959, CVE-2026-3172)"),
    ((0, 8, 3), "critical", "vacuuming can corrupt an HNSW index"),
    ((0, 8, 4), "warning", "vacuuming HNSW can fail with `hnsw graph not repaired`, and so can concurrent inserts"),
)
"""Defects of HNSW by the version that fixed them, from pgvector's changelog, since 0.8.0."""

LOADED_MODULES_SINCE: Final = 180_000  # PostgreSQL with pg_get_loaded_modules()


def defects(version: str) -> list[tuple[Severity, str]]:
    """The known defects of a version of pgvector's library that concern HNSW, the worst first."""
    known = [(severity, what) for fixed, severity, what in DEFECTS if database.version_numbers(version) < fixed]
    return sorted(known, key=lambda defect: defect[0] != "critical")


def _versions_sql(server_version: int) -> str:
    """The statement for the versions in the database, on the server's disk, and loaded by this session."""
    loaded = "(SELECT m.version FROM pg_get_loaded_modules() AS m WHERE m.module_name = 'vector')"
    return (
        "SELECT e.extversion AS installed, a.default_version AS available, "
        f"{loaded if server_version >= LOADED_MODULES_SINCE else 'NULL::text'} AS loaded\n"
        "FROM pg_extension AS e JOIN pg_available_extensions AS a ON a.name = e.extname WHERE e.extname = 'vector'"
    )


def library_version(installed: str, available: str | None, loaded: str | None) -> str:
    """The version of the library that runs.

    The code is in the server's library, which a package replaces at once; the extension's version in the database is
    that of its SQL objects alone.
    """
    return loaded or max(installed, available or installed, key=database.version_numbers)


@database_check("pgvector-version", "critical", "a pgvector with known defects of HNSW")
def pgvector_version(context: CheckContext) -> Iterator[Problem]:
    """Known defects of the library that runs."""
    sql = _versions_sql(context.server.version)
    for row in context.rows(sql):
        version = library_version(row.installed, row.available, row.loaded)
        known = defects(version)
        if known:
            descriptions = [description for _, description in known]
            yield Problem(
                f"pgvector {version} has known defects: {'; '.join(descriptions)}",
                "Install pgvector 0.8.4 or later on the server, ALTER EXTENSION vector UPDATE; and, where rows were "
                "deleted or updated since, REINDEX INDEX CONCURRENTLY each HNSW index.",
                sql,
                {"version": version, "defects": descriptions},
                known[0][0],
            )


@database_check("pgvector-outdated", "info", "an extension older than the server's package")
def pgvector_outdated(context: CheckContext) -> Iterator[Problem]:
    """An extension older than the server's package."""
    sql = _versions_sql(context.server.version)
    for row in context.rows(sql):
        installed, available = row.installed, row.available
        if available is not None and database.version_numbers(installed) < database.version_numbers(available):
            yield Problem(
                f"the extension vector is at {installed} in this database, the server has {available}",
                "ALTER EXTENSION vector UPDATE;",
                sql,
                {"installed": installed, "available": available},
            )


@database_check("schema", "warning", "pgmrl's schema behind the library")
def schema(context: CheckContext) -> Iterator[Problem]:
    """The revision of pgmrl's schema against the library's."""
    installed, newest = context.server.schema, database.NEWEST_REVISION
    if installed is None or installed == newest:
        return
    sql = "SELECT version_num FROM pgmrl.alembic_version"
    values = {"installed": installed, "head": newest}
    if installed > newest:
        message = f"pgmrl's schema is at {installed}, this library knows {newest}: a newer library has upgraded it"
        yield Problem(message, "Update the package pgmrl here.", sql, values, "info")
    else:
        message = f"expected pgmrl's schema at {newest}, got {installed}: what is new since then does not work"
        yield Problem(message, "`pgmrl upgrade`, or op.upgrade_pgmrl.", sql, values)
