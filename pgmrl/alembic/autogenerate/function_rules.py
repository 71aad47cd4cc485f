"""The rules for SQL functions: what the models declare against what the database has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pgmrl.alembic.operations import DropFunctions, InstallFunctions
from pgmrl.functions.searched_column import SearchedColumn
from pgmrl.model.columns import INFO_KEY, Attachment
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.model.sql_functions import SqlFunctions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alembic.operations import MigrateOperation
    from sqlalchemy import Table

    from pgmrl.alembic.autogenerate.compared_tables import ComparedTable
    from pgmrl.model.metrics import FullType, MetricName, ShortType

__all__ = ["function_changes"]

Marker = dict[str, Any]
REPLACED_APART = ("full", "keys", "side")
"""What changes a column or key that a view reads: the functions go first and come back last."""


def function_changes(
    tables: Iterable[ComparedTable], markers: Sequence[tuple[str, Marker]], default_schema: str
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """The operations to run before all others, and those after.

    Functions that no model ever declared, such as those of `pgmrl functions install`, are left alone.

    Args:
        tables: that are compared.
        markers: schema and declaration of the sets of functions that are there.
        default_schema: of the connection.

    """
    first: list[MigrateOperation] = []
    last: list[MigrateOperation] = []
    installed = {(schema, marker["name"]): marker for schema, marker in markers}
    for table in tables:
        schema = table.declared_schema or default_schema
        undeclared = {
            key: _as_operation(key[0], marker, table.declared_schema)
            for key, marker in installed.items()
            if (marker["schema"], marker["table"]) == (schema, table.name)
        }
        for key, operation, marker in _declared_sets(table, schema):
            previous = undeclared.pop(key, None)
            if previous is not None and installed[key] == marker:
                continue
            if previous is not None and any(installed[key][name] != marker[name] for name in REPLACED_APART):
                first.append(DropFunctions(key[1], key[0], previous))
                previous = None
            last.append(replace(operation, previous=previous))
        first += [
            DropFunctions(key[1], key[0], operation)
            for key, operation in undeclared.items()
            if installed[key]["managed"]
        ]
    return first, last


def _declared_sets(table: ComparedTable, schema: str) -> Iterator[tuple[tuple[str, str], InstallFunctions, Marker]]:
    """Schema and name, operation and marker of each set of functions that the model declares."""
    if table.model is None:
        return
    for column, attachment, functions in declared_functions(table.model):
        # pgvector's schema is not part of what is compared
        searched = SearchedColumn.of(column, attachment, functions, schema, "public", managed=True)
        operation = InstallFunctions(
            table.name,
            searched.full_column,
            searched.definition,
            table.declared_schema,
            searched.functions,
            searched.key_columns,
            searched.other_columns,
            searched.side_table,
            searched.distributed,
        )
        yield (searched.functions_schema, searched.prefix), operation, dict(searched.marker())


def declared_functions(table: Table) -> Iterator[tuple[Any, Attachment, SqlFunctions]]:
    """The columns of a model whose functions it declares."""
    for column in table.columns:
        attachment = column.info.get(INFO_KEY)
        if isinstance(attachment, Attachment) and attachment.functions is not None and attachment.full == column.name:
            yield column, attachment, attachment.functions


def _as_operation(functions_schema: str, marker: Marker, schema: str | None) -> InstallFunctions:
    """What installed a set of functions, from what its worker says."""
    return InstallFunctions(
        marker["table"],
        marker["column"],
        _definition(marker),
        schema,
        SqlFunctions(
            filters=tuple(marker["filters"]),
            name=None if marker["name"] == marker["table"] else marker["name"],
            related=marker["related"],
            stored=marker["stored"],
            group_by=marker["group_by"],
            words=marker["words"],
            config=marker["config"],
            model=marker["model"],
            grant_to=tuple(marker["grant_to"]),
            schema=None if functions_schema == marker["schema"] else functions_schema,
        ),
        tuple((name, type_) for name, type_ in marker["keys"]),
        tuple((name, type_) for name, type_ in marker["types"]),
        marker["side"],
        marker.get("distributed"),
    )


def _definition(marker: Marker) -> Definition:
    full, _, dims = marker["full"].rstrip(")").partition("(")
    by = Prefix() if marker["rule"] == "prefix" else Rotation(marker["rule"])

    def named(name: str | None) -> Definition:
        short = Short(marker["dims"], by=by, type=cast("ShortType", marker["type"]), name=name)
        metric, stored = cast("MetricName", marker["metric"]), marker["has_column"]
        return Definition.of(int(dims), short, metric, cast("FullType", full), stored=stored)

    usual = named(None)
    return usual if usual.short_name(marker["column"]) == marker["short"] else named(marker["short"])
