"""`reflect`: Matryoshka columns of a database whose models are not at hand, such as for the command line."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sqlalchemy import Column, MetaData, Table, text
from sqlalchemy.exc import NoSuchTableError, SAWarning
from sqlalchemy.types import NullType

from pgmrl.database.catalogue import columns, table_schema
from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.extension import hidden_schema
from pgmrl.database.rotations import with_axes
from pgmrl.database.search_path import catalogue_result, pinned
from pgmrl.database.settings import load_settings
from pgmrl.database.shards import distributed_table
from pgmrl.errors import DefinitionError, NotMigrated
from pgmrl.model.argument_types import name_argument, optional_name
from pgmrl.model.columns import INFO_KEY, Attachment
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.metrics import metric_named
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.model.types import NumpyVector
from pgmrl.names import column_parts, qualified
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.database.catalogue import ColumnInfo
    from pgmrl.model.metrics import FullType, MetricName, ShortType

__all__ = ["reflect", "reflect_place"]


def reflect(connection: Connection | Session, name: str, *, metric: MetricName | None = None) -> Column[Any]:
    """The column of this name, ready to be given to `search`, `fit_rotation` and `ingest`.

        packages = reflect(connection, "packages.embedding").table
        search(select(packages.c.name), packages.c.embedding, query)

    Args:
        connection: of the database; only its catalogue is read.
        name: `table.column` or `schema.table.column`; without a schema the search_path decides.
        metric: for columns whose catalogue does not say it (bits, or no index yet); default cosine.

    Returns:
        A column of a Table with all columns of the table. A vector column without a short one is searched exactly.

    Raises:
        NotMigrated: there is no such table or column.
        DefinitionError: the name has another form, or the column is no vector of known dimensions.
    """
    return reflect_place(connection, *column_parts(name), metric=metric)


def reflect_place(
    connection: Connection | Session,
    schema: str | None,
    table_name: str,
    column_name: str,
    *,
    metric: MetricName | None = None,
    infos: Iterable[ColumnInfo] | None = None,
) -> Column[Any]:
    """As `reflect`, with the name in its parts, each of which may have dots of its own.

    Args:
        connection: of the database.
        schema: of the table; None where the search_path decides.
        table_name: the table.
        column_name: of the full vectors.
        metric: for columns whose catalogue does not say it.
        infos: of `database.columns`, where they have been read already: each reading sizes every table and index.
    """
    connection = sqlalchemy_connection(connection)
    if metric is not None:
        metric_named(metric)
    for part, value in (("table", table_name), ("column", column_name)):
        name_argument(part, value, DefinitionError)
    optional_name("schema", schema, DefinitionError)
    table = _table(connection, schema, table_name)
    if column_name not in table.c:
        raise NotMigrated(_no_column(table, column_name))
    column = table.c[column_name]
    full, dims = _vector_type(connection, table, column)
    vector_schema = hidden_schema(connection)
    column.type = NumpyVector(dims, full, vector_schema)
    info = _best(columns(connection) if infos is None else infos, table, column_name)
    definition, short = _definition(info, dims, full, metric, vector_schema)
    distributed = distributed_table(connection, qualified(table.schema, table.name))
    by = False if distributed is None or distributed.column is None else distributed.column
    rule = definition.short.by
    if by and short is not None and isinstance(rule, Rotation):  # the client shortens for the shards
        definition = replace(definition, short=replace(definition.short, by=with_axes(connection, rule)))
    column.info[INFO_KEY] = Attachment(definition, column_name, short, (Hnsw(),), distributed=by)
    load_settings(connection, column)
    return column


def _table(connection: Connection, schema: str | None, name: str) -> Table:
    if schema is None:
        schema = table_schema(connection, name) or "public"
    try:
        with warnings.catch_warnings():
            # pgvector's types in a schema that is not on the search_path: `reflect` says what the searched one is
            warnings.filterwarnings("ignore", "Did not recognize type", SAWarning)
            with pinned(connection):
                table = Table(name, MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
                _name_types(connection, table)
            return table
    except NoSuchTableError:
        raise NotMigrated(_no_table(connection, schema, name)) from None


def _name_types(connection: Connection, table: Table) -> None:
    """Types of extensions that SQLAlchemy knows by their bare name, not with the schema that a pinned path shows."""
    unknown = [column for column in table.columns if isinstance(column.type, NullType)]
    if not unknown:
        return
    query = text(
        "SELECT a.attname, t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
        "WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped"
    )
    rows = catalogue_result(connection, query, {"name": qualified(table.schema, table.name)})
    names = dict(tuple(row) for row in rows)
    known = connection.dialect.ischema_names  # type: ignore[attr-defined]
    for column in unknown:
        type_ = known.get(names.get(column.name))
        if type_ is not None:
            column.type = type_()


def _no_column(table: Table, name: str) -> str:
    close = difflib.get_close_matches(name, table.c.keys(), n=1)
    suggestion = f"did you mean {safe_repr(close[0])}? Else " if close else ""
    names = ", ".join(table.c.keys())
    return f"table {table.name} has no column {safe_repr(name)} (it has {names}): {suggestion}run its migrations"


def _no_table(connection: Connection, schema: str, name: str) -> str:
    query = text(
        "SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relname = :name AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_temp_' ORDER BY 1"
    )
    schemas = catalogue_result(connection, query, {"name": name}).scalars()
    elsewhere = ", ".join(f"{other}.{name}" for other in schemas)
    suggestion = f"there is {elsewhere}: write the schema. Else " if elsewhere else ""
    return f"there is no table {schema}.{name} in this database: {suggestion}run its migrations"


def _vector_type(connection: Connection, table: Table, column: Column[Any]) -> tuple[FullType, int]:
    query = text(
        "SELECT t.typname, a.atttypmod FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
        "JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = :schema AND c.relname = :table AND a.attname = :column"
    )
    place = {"schema": table.schema, "table": table.name, "column": column.name}
    kind, dims = catalogue_result(connection, query, place).one()
    if kind not in {"vector", "halfvec"}:
        raise DefinitionError(f"{table.name}.{column.name}: expected a column of type vector or halfvec, got {kind}")
    if dims < 1:
        raise DefinitionError(
            f"{table.name}.{column.name} has no dimensions: ALTER TABLE … ALTER COLUMN … TYPE {kind}(768), say"
        )
    return cast("FullType", kind), int(dims)


def _best(infos: Iterable[ColumnInfo], table: Table, column: str) -> ColumnInfo | None:
    """The short column to search through: one with a valid index, and of a reshape's two the one that stays."""
    candidates = [
        info
        for info in infos
        if (info.table_schema, info.table_name, info.full_column) == (table.schema, table.name, column)
    ]
    stages = ("retired", None, "arriving")
    return max(
        candidates,
        key=lambda info: (
            bool(info.index_valid),
            info.index_predicate is None,
            stages.index(info.stage),
            info.kept_by != "index",
            info.short_column,
        ),
        default=None,
    )


def _definition(
    info: ColumnInfo | None, dims: int, full: FullType, metric: MetricName | None, vector_schema: str | None
) -> tuple[Definition, str | None]:
    if info is None:
        # a rotation that has not been learned is how a column without short vectors is described
        short = Short(1, by=Rotation())
        return Definition.of(dims, short, metric or "cosine", full, vector_schema), None
    stored = info.kept_by != "index"
    short = Short(
        info.short_dims or dims,
        by=Rotation(info.rotation) if info.rotation else Prefix(),
        type=cast("ShortType", info.short_type.rsplit(".", 1)[-1]),
        name=info.short_column if stored else None,
    )
    chosen = metric or cast("MetricName | None", info.metric) or "cosine"
    return Definition.of(dims, short, chosen, full, vector_schema, stored=stored), info.short_column
