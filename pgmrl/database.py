"""The database's side: pgvector, pgmrl's own schema, rotations, and what the catalogue says of Matryoshka columns."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, CursorResult, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from pgmrl.errors import (
    DatabaseError,
    NotMigrated,
    PgvectorMissing,
    PgvectorVersionWarning,
    RotationError,
    Unreachable,
)
from pgmrl.names import qualified, quoted
from pgmrl.rotation import Rotation
from pgmrl.sql import load as load_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.migration import MigrationContext
    from numpy.typing import NDArray

__all__ = [
    "ColumnInfo",
    "check_pgvector",
    "columns",
    "connect",
    "create_pgvector",
    "current",
    "downgrade",
    "head",
    "install_rotation",
    "installed_rotation",
    "migrations_path",
    "row_estimate",
    "row_estimates",
    "script",
    "snapshot",
    "sqlalchemy_url",
    "sqlstate",
    "table_schema",
    "upgrade",
    "version_numbers",
    "with_axes",
]

SCHEMA: Final = "pgmrl"
VERSION_TABLE: Final = "alembic_version"
PGVECTOR_NEEDED: Final = (0, 8, 0)  # iterative index scans
PGVECTOR_SOUND: Final = (0, 8, 4)  # vacuuming HNSW
LOCK: Final = 0x70676D726C  # "pgmrl": one installation at a time


# -- connections ---------------------------------------------------------------------------------------------------


def sqlalchemy_url(url: str) -> str:
    """A URL for SQLAlchemy with psycopg 3, from a URL of libpq's or SQLAlchemy's form.

    Raises:
        Unreachable: it is no PostgreSQL URL.

    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Unreachable(f"{url!r} is no database URL: write postgresql://user@host/database") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise Unreachable(f"{parsed.get_backend_name()} is not PostgreSQL: write postgresql://user@host/database")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@contextmanager
def connect(url: str) -> Iterator[Engine]:
    """An Engine on this database, tried once and disposed of at the end.

    Raises:
        Unreachable: the server does not answer, or refuses the login.

    """
    engine = create_engine(sqlalchemy_url(url), connect_args={"connect_timeout": 10})
    try:
        try:
            engine.connect().close()
        except OperationalError as error:
            shown = engine.url.render_as_string(hide_password=True)
            raise Unreachable(f"cannot reach {shown}: {error.orig}\nCheck the URL and that the server runs.") from error
        yield engine
    finally:
        engine.dispose()


def execute_plain(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run text as it is: a colon or a percent sign in a name is no parameter."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def sqlalchemy_connection(connection: Connection | Session) -> Connection:
    """The Connection behind a Session, or itself."""
    return connection.connection() if isinstance(connection, Session) else connection


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that leaves nothing behind, for reading: a cursor on the server needs one.

    All statements see the same rows and none can write; within a transaction of the caller's, that one's rules hold.
    """
    how = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        connection.exec_driver_sql(f"BEGIN {how}")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
    elif connection.in_transaction():
        savepoint = connection.begin_nested()
        try:
            yield
        finally:
            savepoint.rollback()
    else:
        transaction = connection.begin()
        try:
            connection.exec_driver_sql(f"SET TRANSACTION {how}")
            yield
        finally:
            transaction.rollback()


# -- pgvector ------------------------------------------------------------------------------------------------------


def create_pgvector(connection: Connection) -> None:
    """Install the extension where it is not; needs no rights where somebody else has.

    Raises:
        PgvectorMissing: the server does not have it, or this role may not install it.

    """
    if _extension(connection) is not None:
        return
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        raise PgvectorMissing(
            f"pgvector cannot be installed: {error.orig}\n"
            "Ask for `CREATE EXTENSION vector` in this database; where the server lacks it, install its package first."
        ) from error


def check_pgvector(connection: Connection) -> str:
    """The schema pgvector lives in, after a look at its version.

    Raises:
        PgvectorMissing: it is not installed, or is older than 0.8.0.

    Warns:
        PgvectorVersionWarning: it is older than 0.8.4.

    """
    found = _extension(connection)
    if found is None:
        raise PgvectorMissing("pgvector is not installed in this database: run CREATE EXTENSION vector")
    schema, version = found
    numbers = version_numbers(version)
    if numbers < PGVECTOR_NEEDED:
        raise PgvectorMissing(f"pgvector {version} is too old, 0.8.0 is needed: run ALTER EXTENSION vector UPDATE")
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
    visible = connection.execute(
        text(
            "SELECT bool_or(pg_type_is_visible(t.oid)) FROM pg_type AS t "
            "JOIN pg_namespace AS n ON n.oid = t.typnamespace WHERE t.typname = 'vector' AND n.nspname = :schema"
        ),
        {"schema": schema},
    ).scalar()
    return None if visible else schema


def _extension(connection: Connection) -> tuple[str, str] | None:
    row = connection.execute(
        text(
            "SELECT n.nspname, e.extversion FROM pg_extension AS e "
            "JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        )
    ).first()
    return None if row is None else (row[0], row[1])


# -- pgmrl's own schema --------------------------------------------------------------------------------------------


def migrations_path() -> Path:
    """The folder of pgmrl's migrations: in the wheel beside this module, in a checkout at the top."""
    here = Path(__file__).parent
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
    if current(connection) != (head() if revision == "head" else revision):
        command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str = "base") -> None:
    """Remove pgmrl's schema down to a revision; refused by the server while a short column needs it."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
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
    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


# -- rotations -----------------------------------------------------------------------------------------------------


def install_rotation(connection: Connection | Session, rotation: Rotation) -> bool:
    """Put the axes of a rotation into the database, which checks them against the id.

    Returns:
        Whether they were not there before.

    Raises:
        RotationError: the rotation holds no axes.
        NotMigrated: pgmrl's schema is not installed.

    """
    rotation.required_axes()
    connection = sqlalchemy_connection(connection)
    require_schema(connection)
    if rotation.id in installed_rotations(connection):
        return False
    for statement in rotation_statements(rotation):
        connection.exec_driver_sql(statement)
    return True


def rotation_statements(rotation: Rotation) -> list[str]:
    """The statements that install a rotation, as plain SQL that a migration can also print."""
    axes = rotation.required_axes()
    rows = ",\n".join(f"('{rotation.id}', {n}, '{_as_text(axis)}')" for n, axis in enumerate(axes, 1))
    sizes = f"('{rotation.id}', {axes.shape[1]}, {axes.shape[0]})"
    insert_axes = f"INSERT INTO pgmrl.axes (rotation_id, n, axis) VALUES\n{rows}\nON CONFLICT DO NOTHING"
    seal = f"INSERT INTO pgmrl.rotations (id, dims, axes) VALUES {sizes} ON CONFLICT DO NOTHING"  # noqa: S608
    return [insert_axes, seal]  # the id is of a checked form and the rest are numbers


def installed_rotations(connection: Connection | Session) -> list[str]:
    """The ids of the rotations in this database, oldest first."""
    connection = sqlalchemy_connection(connection)
    if current(connection) is None:
        return []
    return list(connection.execute(text("SELECT id FROM pgmrl.rotations ORDER BY installed_at, id")).scalars())


def installed_rotation(connection: Connection | Session, rotation_id: str) -> Rotation:
    """A rotation with its axes, read from the database.

    Raises:
        RotationError: it is not installed there.

    """
    connection = sqlalchemy_connection(connection)
    require_schema(connection)
    schema = quoted(check_pgvector(connection))
    query = text(f"SELECT {schema}.halfvec_send(axis) FROM pgmrl.axes WHERE rotation_id = :id ORDER BY n")  # noqa: S608
    rows = connection.execute(query, {"id": rotation_id}).scalars().all()
    if not rows:
        there = ", ".join(installed_rotations(connection)) or "none"
        raise RotationError(f"rotation {rotation_id} is not installed here (installed: {there}): run `pgmrl fit`")
    axes: NDArray[np.float16] = np.stack([np.frombuffer(row, ">f2", offset=4) for row in rows]).astype(np.float16)
    rotation = Rotation.of(axes)
    if rotation.id != rotation_id:
        raise RotationError(f"the axes stored as {rotation_id} are {rotation.id}: restore pgmrl.axes from a backup")
    return rotation


def with_axes(connection: Connection | Session, rotation: Rotation) -> Rotation:
    """A rotation with its axes, from the database where it holds none.

    Raises:
        RotationError: it is not installed there, or has no id either, as before it is learned.

    """
    if rotation.axes is not None:
        return rotation
    if rotation.id is None:
        raise RotationError("this rotation has neither axes nor an id: learn one by `pgmrl fit`, or load its file")
    return installed_rotation(connection, rotation.id)


def _as_text(axis: NDArray[np.float16]) -> str:
    return "[" + ",".join(f"{value:.9g}" for value in axis.astype(float)) + "]"


# -- the catalogue -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """One Matryoshka column, as the catalogue has it; the view pgmrl.columns has the same.

    Attributes:
        table_schema: schema of the table.
        table_name: the table.
        full_column: the full vector's column.
        full_type: `vector` or `halfvec`.
        full_dims: its dimensions.
        short_column: the short vector's column.
        short_type: `halfvec`, `vector` or `bit`.
        short_dims: its dimensions.
        metric: from the operator class or the trigger; None for bits of a prefix, whose catalogue does not say.
        shortening: `prefix` or `rotation`.
        rotation: its id.
        index_name: the HNSW index on the short column; None where there is none.
        operator_class: of that index.
        index_valid: False after an interrupted concurrent build.
        index_bytes: its size.
        table_bytes: the table's size with TOAST, without indexes.
        estimated_rows: as of the last ANALYZE; -1 before the first.
        kept_by: `generated` (a generated column) or `trigger`.
        stage: `arriving` or `retired` while a reshape has two short columns side by side; else None.

    """

    table_schema: str
    table_name: str
    full_column: str
    full_type: str
    full_dims: int | None
    short_column: str
    short_type: str
    short_dims: int | None
    metric: str | None
    shortening: str
    rotation: str | None
    index_name: str | None
    operator_class: str | None
    index_valid: bool | None
    index_bytes: int | None
    table_bytes: int
    estimated_rows: int
    kept_by: str
    stage: str | None


def sqlstate(error: DBAPIError) -> str | None:
    """The server's code for an error; None where the server did not raise it."""
    found: str | None = getattr(error.orig, "sqlstate", None)
    return found


def row_estimate(connection: Connection, name: str) -> float | None:
    """A table's rows by its statistics and its size now, as the planner does, with its partitions.

    Args:
        connection: of the database.
        name: of the table, quoted.

    Returns:
        None where the table has pages and no statistics yet; 0 where there is no such table.

    """
    return row_estimates(connection, [name])[name]


def row_estimates(connection: Connection, names: Sequence[str]) -> dict[str, float | None]:
    """As `row_estimate`, of several tables or indexes by one statement."""
    query = text(
        "SELECT given.name, coalesce(found.rows, 0)::float8, found.unknown FROM unnest(CAST(:names AS text[])) "
        "AS given(name) CROSS JOIN LATERAL (SELECT "
        "sum(p.reltuples / p.relpages * (pg_relation_size(p.oid) / current_setting('block_size')::integer)) "
        "FILTER (WHERE p.relpages > 0) AS rows, "
        "coalesce(bool_or(p.relpages = 0 AND pg_relation_size(p.oid) > 0), false) AS unknown "
        "FROM (SELECT to_regclass(given.name)::oid AS oid UNION "
        "SELECT t.relid::oid FROM pg_partition_tree(to_regclass(given.name)) AS t WHERE t.isleaf) AS leaf "
        "JOIN pg_class AS p ON p.oid = leaf.oid AND p.relkind NOT IN ('p', 'I')) AS found"
    )
    found = connection.execute(query, {"names": list(names)})
    return {name: None if unknown else rows for name, rows, unknown in found}


def table_schema(connection: Connection, table: str) -> str | None:
    """The schema in which a table of this name is found by the search_path; None where there is none."""
    query = text(
        "SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.oid = to_regclass(:name)"
    )
    found: str | None = connection.execute(query, {"name": qualified(None, table)}).scalar()
    return found


def columns(connection: Connection | Session) -> list[ColumnInfo]:
    """All Matryoshka columns of the database; needs nothing of pgmrl's in it."""
    names = ", ".join(field.name + ("::text" if field.name == "index_name" else "") for field in fields(ColumnInfo))
    query = f"SELECT {names} FROM ({load_sql('columns')}) AS c ORDER BY 1, 2, 3, 6"  # noqa: S608
    rows = sqlalchemy_connection(connection).execute(text(query))
    return [ColumnInfo(*row) for row in rows]
