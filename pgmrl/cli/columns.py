"""`pgmrl columns`: the Matryoshka columns of a database."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.database.index_states import filter_index_states
from pgmrl.database.shards import citus_version, distributed_table, shard_faults, shards
from pgmrl.names import qualified
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from pgmrl.database.index_states import FilterIndexState
    from pgmrl.database.shards import DistributedTable

__all__ = ["columns"]


def columns(url: DatabaseUrl = None, json: Json = False) -> None:
    """List the Matryoshka columns of the database, as its catalogue has them.

    Exit code 1 when an index is missing or invalid.

    Example: `pgmrl columns --json`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        infos = database.columns(connection)
        filters = filter_index_states(connection, None)
        distributions = _distributions(connection, infos)
    if json:
        write_json([_document(info, _of(info, filters), distributions.get(_place(info))) for info in infos])
    else:
        none = ["There are no Matryoshka columns in this database."]
        console.print(
            "\n".join(
                [_described(info, _of(info, filters), distributions.get(_place(info))) for info in infos] or none
            ),
            soft_wrap=True,
        )
    broken = any(distribution.faults for distribution in distributions.values())
    if broken or any(not info.index_valid or not all(state.valid for state in _of(info, filters)) for info in infos):
        raise typer.Exit(1)


class _Distribution(NamedTuple):
    """What Citus makes of a table.

    Attributes:
        table: in its catalogue.
        faults: what is wrong with the shards.

    """

    table: DistributedTable
    faults: list[str]


def _place(info: database.ColumnInfo) -> tuple[str, str, str]:
    return info.table_schema, info.table_name, info.short_column


def _distributions(
    connection: Connection, infos: Sequence[database.ColumnInfo]
) -> dict[tuple[str, str, str], _Distribution]:
    """Of the columns of distributed tables, by their place."""
    made: dict[tuple[str, str, str], _Distribution] = {}
    if citus_version(connection) is None:
        return made
    for info in infos:
        owner = qualified(info.table_schema, info.table_name)
        table = distributed_table(connection, owner)
        if table is not None and info.operator_class is not None:
            short = None if info.kept_by == "index" else info.short_column
            partial = {other.index_predicate is not None for other in infos if _place(other) == _place(info)}
            faults = shard_faults(shards(connection, owner), short, info.operator_class, partial)
            made[_place(info)] = _Distribution(table, faults)
    return made


def _document(
    info: database.ColumnInfo, filters: Iterable[FilterIndexState], distribution: _Distribution | None
) -> dict[str, Any]:
    document = asdict(info) | {"filter_indexes": [_as_json(state) for state in filters], "citus": None}
    if distribution is not None:
        document["citus"] = distribution.table._asdict() | {"faults": distribution.faults}
    return document


def _of(info: database.ColumnInfo, filters: Iterable[FilterIndexState]) -> list[FilterIndexState]:
    column = (info.table_schema, info.table_name, info.short_column)
    return [state for state in filters if (state.schema, state.table, state.short) == column]


def _as_json(state: FilterIndexState) -> dict[str, Any]:
    index = {"columns": list(state.index.columns), "include": list(state.index.include)}
    return {"index_name": state.name, **index, "index_valid": state.valid, "index_bytes": state.bytes}


def _described(
    info: database.ColumnInfo, filters: Iterable[FilterIndexState], distribution: _Distribution | None
) -> str:
    if info.index_name is None:
        index = "[red]none: searches read the whole table[/]"
    else:
        state = "" if info.index_valid else ", [red]INVALID: REINDEX it[/]"
        index = f"{escaped(info.index_name)}, {_size(info.index_bytes)}{state}"
        index += "" if info.index_predicate is None else f", only of rows with {escaped(info.index_predicate)}"
    rows = "not analyzed yet" if info.estimated_rows < 0 else f"about {info.estimated_rows:,} rows"
    return (
        f"[bold]{escaped(info.table_schema)}.{escaped(info.table_name)}.{escaped(info.full_column)}[/] "
        f"{info.full_type}({info.full_dims})\n"
        f"  short  {escaped(info.short_column)} {info.short_type}({info.short_dims}), "
        f"{info.shortening}{' ' + info.rotation if info.rotation else ''}, {info.metric or 'metric unknown'}\n"
        f"  index  {index}\n{''.join(map(_filter_line, filters))}{_shards_line(distribution)}"
        f"  table  {_size(info.table_bytes)}, {rows}"
    )


def _shards_line(distribution: _Distribution | None) -> str:
    if distribution is None:
        return ""
    faults = "".join(f", [red]{escaped(fault)}[/]" for fault in distribution.faults)
    return f"  Citus  {escaped(distribution.table.describe())}, {distribution.table.shards} shards{faults}\n"


def _filter_line(state: FilterIndexState) -> str:
    valid = "" if state.valid else ", [red]INVALID: REINDEX it[/]"
    columns = escaped(", ".join(state.index.columns))
    return f"  filter {escaped(state.schema)}.{escaped(state.name)} on {columns}, {_size(state.bytes)}{valid}\n"


def _size(count: int | None) -> str:
    return "" if count is None else shown(count)
