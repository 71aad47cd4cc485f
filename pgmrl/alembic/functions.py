"""SQL functions in migrations: what the models declare against what the database has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pgmrl.alembic.function_operations import DropFunctions, InstallFunctions
from pgmrl.functions.searched_column import SearchedColumn
from pgmrl.model.columns import INFO_KEY, Attachment
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.model.sql_functions import SqlFunctions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alembic.operations import MigrateOperation
    from sqlalchemy import Table

    from pgmrl.alembic.modify import Seen
    from pgmrl.model.metrics import FullType, MetricName, ShortType

__all__ = ["function_changes"]

Marker = dict[str, Any]
REPLACED_APART = ("full", "keys", "side")
"""What changes a column or key that a view reads: the functions go first and come back last."""


def function_changes(
    seen: Iterable[Seen], markers: Sequence[tuple[str, Marker]], default_schema: str
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """The operations to run before all others, and those after.

    Functions that no model ever declared, such as those of `pgmrl functions install`, are left alone.

    Args:
        seen: the tables that are compared.
        markers: schema and declaration of the sets of functions that are there.
        default_schema: of the connection.

    """
    first: list[MigrateOperation] = []
    last: list[MigrateOperation] = []
    for one in seen:
        schema = one.said_schema or default_schema
        there = {
            (place, marker["name"]): _as_operation(place, marker, one.said_schema)
            for place, marker in markers
            if (marker["schema"], marker["table"]) == (schema, one.name)
        }
        said = {(place, marker["name"]): marker for place, marker in markers}
        for key, operation, marker in _wanted(one, schema):
            old = there.pop(key, None)
            if old is not None and said[key] == marker:
                continue
            if old is not None and any(said[key][name] != marker[name] for name in REPLACED_APART):
                first.append(DropFunctions(key[1], key[0], old))
                old = None
            last.append(operation if old is None else operation.instead_of(old))
        first += [DropFunctions(key[1], key[0], old) for key, old in there.items() if said[key]["managed"]]
    return first, last


def _wanted(one: Seen, schema: str) -> Iterator[tuple[tuple[str, str], InstallFunctions, Marker]]:
    for column, attachment, functions in [] if one.model is None else declared(one.model):
        # pgvector's schema is not part of what is compared
        searched = SearchedColumn.of(column, attachment, functions, schema, "public", managed=True)
        operation = InstallFunctions(
            one.name,
            searched.full_column,
            searched.definition,
            one.said_schema,
            searched.functions,
            searched.key_columns,
            searched.other_columns,
            searched.side_table,
        )
        yield (searched.functions_schema, searched.prefix), operation, dict(searched.marker())


def declared(table: Table) -> Iterator[tuple[Any, Attachment, SqlFunctions]]:
    """The columns of a model whose functions it declares."""
    for column in table.columns:
        found = column.info.get(INFO_KEY)
        if isinstance(found, Attachment) and found.functions is not None and found.full == column.name:
            yield column, found, found.functions


def _as_operation(place: str, marker: Marker, schema: str | None) -> InstallFunctions:
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
            grant_to=tuple(marker["grant_to"]),
            schema=None if place == marker["schema"] else place,
        ),
        tuple((name, type_) for name, type_ in marker["keys"]),
        tuple((name, type_) for name, type_ in marker["types"]),
        marker["side"],
    )


def _definition(marker: Marker) -> Definition:
    full, _, dims = marker["full"].rstrip(")").partition("(")
    by = Prefix() if marker["rule"] == "prefix" else Rotation(marker["rule"])

    def named(name: str | None) -> Definition:
        short = Short(marker["dims"], by=by, type=cast("ShortType", marker["type"]), name=name)
        return Definition.of(int(dims), short, cast("MetricName", marker["metric"]), cast("FullType", full))

    usual = named(None)
    return usual if usual.short_name(marker["column"]) == marker["short"] else named(marker["short"])
