"""pgmrl's own schema in a database: brought to a revision, and which one it is at.

Without Alembic, which is for applications that migrate by it; the version is kept where Alembic keeps it, so that both
can be used on one database.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.connection import execute_plain, sqlalchemy_connection
from pgmrl.database.extension import check_pgvector, create_pgvector
from pgmrl.database.revisions import NEWEST_REVISION, Step, check_revision, revision_statements, revision_steps
from pgmrl.database.search_path import pinned
from pgmrl.database.shards import on_this_node
from pgmrl.database.sql import load as load_sql
from pgmrl.database.sql import statements
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.names import quoted

if TYPE_CHECKING:
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = [
    "LOCK",
    "SCHEMA",
    "VERSION_TABLE",
    "check_schema_rights",
    "create_schema",
    "create_version_table",
    "downgrade",
    "installed_revision",
    "migrations_path",
    "require_schema",
    "set_version",
    "upgrade",
    "vector_schema_of",
]

SCHEMA: Final = "pgmrl"
VERSION_TABLE: Final = "alembic_version"
LOCK: Final = 0x70676D726C  # "pgmrl": one installation at a time
_WAIT: Final = text("SELECT pg_catalog.pg_advisory_xact_lock(CAST(:key AS bigint))")


def migrations_path() -> Path:
    """The folder of pgmrl's migrations: in the wheel within the package, in a checkout at the top."""
    here = Path(__file__).parents[1]
    packed = here / "migrations"
    return packed if packed.is_dir() else here.parent / "migrations"


def upgrade(connection: Connection | Session, revision: str = "head") -> None:
    """Install or update pgmrl's schema; does nothing where it is at that revision or past it.

    Runs in the connection's transaction, which the caller commits. Needs CREATE on the database, no superuser.

    Raises:
        PgvectorMissing: see `check_pgvector`.
        DefinitionError: there is no such revision.
        NotMigrated: the one installed is a newer pgmrl's.

    """
    connection = sqlalchemy_connection(connection)
    check_revision(revision, "head")
    connection.execute(_WAIT, {"key": LOCK})
    create_pgvector(connection)
    check_pgvector(connection)
    current = installed_revision(connection)
    if current is not None and current > NEWEST_REVISION:
        require_schema(connection)
    steps = revision_steps(current, NEWEST_REVISION if revision == "head" else revision)
    with pinned(connection), on_this_node(connection):
        if steps:
            check_schema_rights(connection)
        if current is None:
            for statement in (*create_schema(), create_version_table()):
                execute_plain(connection, statement)
        if all(step.up for step in steps):
            _run(connection, steps)


def downgrade(connection: Connection | Session, revision: str = "base") -> None:
    """Remove pgmrl's schema down to a revision; refused by the server while a column or a function needs it.

    Raises:
        DefinitionError: there is no such revision.

    """
    connection = sqlalchemy_connection(connection)
    check_revision(revision, "base")
    connection.execute(_WAIT, {"key": LOCK})
    current = installed_revision(connection)
    if current is not None:
        with pinned(connection), on_this_node(connection):
            _run(connection, revision_steps(current, None if revision == "base" else revision))


def _run(connection: Connection, steps: list[Step]) -> None:
    vector_schema = check_pgvector(connection)
    for step in steps:
        statements_of_step = revision_statements(step.revision, step.up, vector_schema)
        for statement in (*statements_of_step, *set_version(step.reached)):
            execute_plain(connection, statement)


def check_schema_rights(connection: Connection) -> None:
    """Check that this role may make pgmrl's schema, or change the one that is there.

    Raises:
        MigrationError: it may not, with the role that may.

    """
    row = connection.execute(
        text(
            "SELECT current_user AS who, current_database() AS name, "
            "has_database_privilege(current_database(), 'CREATE') AS creates, "
            "(SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = :schema) AS owner, "
            "(SELECT pg_has_role(current_user, n.nspowner, 'USAGE') FROM pg_namespace AS n WHERE n.nspname = :schema) "
            "AS may"
        ),
        {"schema": SCHEMA},
    ).one()
    if row.owner is None and not row.creates:
        raise MigrationError(
            f"{row.who} may not create the schema {SCHEMA} in the database {row.name}: GRANT CREATE ON DATABASE "
            f"{quoted(row.name)} TO {quoted(row.who)}, or run `pgmrl upgrade` once as a role that may"
        )
    if row.may is False:
        raise MigrationError(
            f"the schema {SCHEMA} belongs to {row.owner}: run this as {row.owner} (SET ROLE), not as {row.who}"
        )


def installed_revision(connection: Connection | Session) -> str | None:
    """The revision of pgmrl's schema in this database; None where it is not installed."""
    connection = sqlalchemy_connection(connection)
    # safe under any path: read before nearly everything, mostly without a pinned one
    exists = connection.execute(text("SELECT pg_catalog.to_regclass('pgmrl.alembic_version') IS NOT NULL")).scalar_one()
    if not exists:
        return None
    query = text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")  # noqa: S608 - constants
    revision: str | None = connection.execute(query).scalar_one_or_none()
    return revision


def require_schema(connection: Connection | Session) -> None:
    """Check that pgmrl's schema is installed, at this version's revision.

    Raises:
        NotMigrated: it is missing, or at another revision.

    """
    installed = installed_revision(connection)
    remedy = f"run `pgmrl upgrade`, or op.upgrade_pgmrl({NEWEST_REVISION!r}) in a migration"
    if installed is None:
        raise NotMigrated(f"pgmrl's schema is not installed in this database: {remedy}")
    if installed > NEWEST_REVISION:
        remedy = "install the version of pgmrl that brought it"
    if installed != NEWEST_REVISION:
        raise NotMigrated(f"pgmrl's schema: expected revision {NEWEST_REVISION}, got {installed}: {remedy}")


def create_schema() -> list[str]:
    """The statements that make pgmrl's schema."""
    return statements(load_sql("schema"))


def create_version_table() -> str:
    """The statement that makes the table in which Alembic keeps pgmrl's revision."""
    name = f"{SCHEMA}.{VERSION_TABLE}"
    key = f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"  # as Alembic names it
    return f"CREATE TABLE IF NOT EXISTS {name} (version_num varchar(32) NOT NULL, {key})"


def set_version(revision: str | None) -> list[str]:
    """The statements that record pgmrl's revision; None for none."""
    name = f"{SCHEMA}.{VERSION_TABLE}"
    forget = f"DELETE FROM {name}"  # noqa: S608
    # the revisions are pgmrl's own
    return [forget] if revision is None else [forget, f"INSERT INTO {name} (version_num) VALUES ('{revision}')"]  # noqa: S608


def vector_schema_of(context: MigrationContext) -> str:
    """The schema pgvector lives in, for a migration that runs now or is printed for later."""
    if context.as_sql or context.connection is None:
        return str(context.opts.get("vector_schema") or "public")
    return check_pgvector(context.connection)
