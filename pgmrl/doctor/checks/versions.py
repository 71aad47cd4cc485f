"""pgvector's and pgmrl's own versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.doctor.examination import Check
from pgmrl.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.finding import Severity

__all__ = ["CHECKS", "defects", "library"]

DEFECTS: Final[tuple[tuple[tuple[int, ...], Severity, str], ...]] = (
    ((0, 8, 2), "warning", "a parallel HNSW build can overflow a buffer (pgvector#959, CVE-2026-3172)"),
    ((0, 8, 3), "critical", "vacuuming can corrupt an HNSW index"),
    ((0, 8, 4), "warning", "vacuuming HNSW can fail with `hnsw graph not repaired`, and inserts beside it"),
)
"""What pgvector's changelog says was mended, by the version that mended it, from 0.8.0 on. What does not touch HNSW is
left out."""

LOADED_FROM: Final = 180_000  # PostgreSQL that says which library a session has loaded


def defects(version: str) -> list[tuple[Severity, str]]:
    """The known defects of a version of pgvector's library that matter here, the worst first."""
    found = [(severity, what) for mended, severity, what in DEFECTS if database.version_numbers(version) < mended]
    return sorted(found, key=lambda one: one[0] != "critical")


def versions_sql(server_version: int) -> str:
    """The statement that asks: in the database, on the server's disk, and what this session has loaded."""
    loaded = "(SELECT m.version FROM pg_get_loaded_modules() AS m WHERE m.module_name = 'vector')"
    return (
        "SELECT e.extversion AS installed, a.default_version AS available, "
        f"{loaded if server_version >= LOADED_FROM else 'NULL::text'} AS loaded\n"
        "FROM pg_extension AS e JOIN pg_available_extensions AS a ON a.name = e.extname WHERE e.extname = 'vector'"
    )


def library(installed: str, available: str | None, loaded: str | None) -> str:
    """The version of the library that runs.

    The code is in the server's library, which a package replaces at once; the extension's version in the database is
    that of its SQL objects alone.
    """
    return loaded or max(installed, available or installed, key=database.version_numbers)


def pgvector(exam: Exam) -> Iterator[Finding]:
    """Defects of the library that runs."""
    sql = versions_sql(exam.server.version)
    for row in exam.ask(sql):
        runs = library(row.installed, row.available, row.loaded)
        found = defects(runs)
        if found:
            listed = "; ".join(what for _, what in found)
            yield Finding(
                "pgvector-version",
                found[0][0],
                "database",
                f"pgvector {runs} has known defects: {listed}",
                "Install pgvector 0.8.4 or later on the server, ALTER EXTENSION vector UPDATE; and, where rows were "
                "deleted or updated since, REINDEX INDEX CONCURRENTLY each HNSW index.",
                sql,
                {"version": runs, "defects": [what for _, what in found]},
            )


def outdated(exam: Exam) -> Iterator[Finding]:
    """An extension older than the server's package."""
    sql = versions_sql(exam.server.version)
    for row in exam.ask(sql):
        there, newest = row.installed, row.available
        if newest is not None and database.version_numbers(there) < database.version_numbers(newest):
            yield Finding(
                "pgvector-outdated",
                "info",
                "database",
                f"the extension is at {there} in this database, the server has {newest}",
                "ALTER EXTENSION vector UPDATE;",
                sql,
                {"installed": there, "available": newest},
            )


def schema(exam: Exam) -> Iterator[Finding]:
    """Pgmrl's schema against what this library knows."""
    there, newest = exam.server.schema, database.NEWEST_REVISION
    if there is None or there == newest:
        return
    sql = "SELECT version_num FROM pgmrl.alembic_version"
    values = {"installed": there, "head": newest}
    if there > newest:
        message = f"pgmrl's schema is at {there}, this library knows {newest}: another one is newer"
        yield Finding("schema", "info", "database", message, "Update the package pgmrl here.", sql, values)
        return
    message = f"pgmrl's schema is at {there}, this library brings {newest}: what is new since does not work"
    yield Finding("schema", "warning", "database", message, "`pgmrl upgrade`, or op.upgrade_pgmrl.", sql, values)


CHECKS = (
    Check("pgvector-version", "critical", "a pgvector with known defects of HNSW", once=pgvector),
    Check("pgvector-outdated", "info", "an extension older than the server's package", once=outdated),
    Check("schema", "warning", "pgmrl's schema behind the library", once=schema),
)
