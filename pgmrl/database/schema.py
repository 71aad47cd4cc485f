"""pgmrl's own schema: its migrations, its revision, and the SQL they run.

Alembic is imported where a migration runs: an application that searches does not load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, text

from pgmrl.database.extension import check_pgvector, create_pgvector
from pgmrl.database.sql import load as load_sql
from pgmrl.errors import (
    DatabaseError,
    NotMigrated,
)

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.migration import MigrationContext

__all__ = [
    "LOCK",
    "SCHEMA",
    "VERSION_TABLE",
    "create_schema",
    "create_version_table",
    "current",
    "downgrade",
    "head",
    "migrations_path",
    "require_schema",
    "script",
    "set_version",
    "upgrade",
    "vector_schema_of",
]

SCHEMA: Final = "pgmrl"
VERSION_TABLE: Final = "alembic_version"
LOCK: Final = 0x70676D726C  # "pgmrl": one installation at a time


def migrations_path() -> Path:
    """The folder of pgmrl's migrations: in the wheel within the package, in a checkout at the top."""
    here = Path(__file__).parents[1]
    packed = here / "migrations"
    return packed if packed.is_dir() else here.parent / "migrations"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Install or update pgmrl's schema; does nothing where it is up to date.

    Runs in the connection's transaction, which the caller commits. Needs CREATE on the database, no superuser.

    Raises:
        PgvectorMissing: see `check_pgvector`.

    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    create_pgvector(connection)
    check_pgvector(connection)
    from alembic import command  # noqa: PLC0415 - see the top

    if current(connection) != (head() if revision == "head" else revision):
        command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str = "base") -> None:
    """Remove pgmrl's schema down to a revision; refused by the server while a short column needs it."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    from alembic import command  # noqa: PLC0415 - see the top

    if current(connection) is not None:
        command.downgrade(_config(connection), revision)


def current(connection: Connection) -> str | None:
    """The revision that is installed; None where there is none."""
    there = connection.execute(text("SELECT to_regclass('pgmrl.alembic_version') IS NOT NULL")).scalar_one()
    if not there:
        return None
    query = text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")  # noqa: S608 - constants
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def head() -> str:
    """The newest revision this version of pgmrl carries."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see the top

    newest = ScriptDirectory(str(migrations_path())).get_current_head()
    if newest is None:
        raise DatabaseError(f"there are no migrations in {migrations_path()}: install pgmrl again")
    return newest


def require_schema(connection: Connection, revision: str = "0001", what: str = "this") -> None:
    """Check that pgmrl's schema is there.

    Args:
        connection: of the database.
        revision: what it has to be at, or behind.
        what: what needs that, in words.

    Raises:
        NotMigrated: it is missing, or older.

    """
    found = current(connection)
    if found is None:
        raise NotMigrated("pgmrl's schema is not installed in this database: run `pgmrl upgrade`")
    if found < revision:
        raise NotMigrated(f"pgmrl's schema is at {found}, and {what} needs {revision}: run `pgmrl upgrade`")


def create_schema() -> str:
    """The statement that makes pgmrl's schema."""
    return load_sql("schema")


def create_version_table() -> str:
    """The statement that makes the table in which Alembic keeps pgmrl's revision."""
    name = f"{SCHEMA}.{VERSION_TABLE}"
    return f"CREATE TABLE IF NOT EXISTS {name} (version_num varchar(32) NOT NULL PRIMARY KEY)"


def set_version(revision: str | None) -> str:
    """The statement that records pgmrl's revision; None for none."""
    name = f"{SCHEMA}.{VERSION_TABLE}"
    if revision is None:
        return f"DELETE FROM {name}"  # noqa: S608
    # the revisions are pgmrl's own
    return f"DELETE FROM {name}; INSERT INTO {name} (version_num) VALUES ('{revision}')"  # noqa: S608


def script(name: str, vector_schema: str = "public") -> str:
    """A file of pgmrl's SQL with pgvector's schema put in; the view's text is the query's."""
    if name in {"columns_view", "columns_view_1"}:  # the first as of 0001: a migration's text does not change
        body = load_sql(name.replace("_view", ""), vector_schema)
        comment = "Every Matryoshka column of this database, as the catalogue has it"
        return (
            f"CREATE VIEW pgmrl.columns AS\n{body};\n"
            f"COMMENT ON VIEW pgmrl.columns IS '{comment}';\nGRANT SELECT ON pgmrl.columns TO PUBLIC;"
        )
    return load_sql(name, vector_schema)


def vector_schema_of(context: MigrationContext) -> str:
    """The schema pgvector lives in, for a migration that runs now or is printed for later."""
    if context.as_sql or context.connection is None:
        return str(context.opts.get("vector_schema") or "public")
    return check_pgvector(context.connection)


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see the top

    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
