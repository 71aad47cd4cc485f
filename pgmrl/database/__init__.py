"""What is in the server: connections, pgvector, pgmrl's own schema, rotations and the catalogue."""

from pgmrl.database.catalogue import ColumnInfo, columns, row_estimate, row_estimates, table_schema
from pgmrl.database.connection import (
    connect,
    execute_plain,
    in_autocommit,
    psycopg_connection,
    snapshot,
    sqlalchemy_connection,
    sqlstate,
)
from pgmrl.database.extension import check_pgvector, create_pgvector, hidden_schema, version_numbers
from pgmrl.database.rotations import (
    install_rotation,
    installed_rotation,
    installed_rotations,
    rotation_statements,
    with_axes,
)
from pgmrl.database.schema import (
    NEWEST_REVISION,
    SCHEMA,
    VERSION_TABLE,
    create_schema,
    create_version_table,
    downgrade,
    installed_revision,
    migrations_path,
    require_schema,
    script,
    set_version,
    upgrade,
    vector_schema_of,
)
from pgmrl.urls import sqlalchemy_url

__all__ = [
    "NEWEST_REVISION",
    "SCHEMA",
    "VERSION_TABLE",
    "ColumnInfo",
    "check_pgvector",
    "columns",
    "connect",
    "create_pgvector",
    "create_schema",
    "create_version_table",
    "downgrade",
    "execute_plain",
    "hidden_schema",
    "in_autocommit",
    "install_rotation",
    "installed_revision",
    "installed_rotation",
    "installed_rotations",
    "migrations_path",
    "psycopg_connection",
    "require_schema",
    "rotation_statements",
    "row_estimate",
    "row_estimates",
    "script",
    "set_version",
    "snapshot",
    "sqlalchemy_connection",
    "sqlalchemy_url",
    "sqlstate",
    "table_schema",
    "upgrade",
    "vector_schema_of",
    "version_numbers",
    "with_axes",
]
