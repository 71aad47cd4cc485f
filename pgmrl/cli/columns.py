"""`pgmrl columns`: the Matryoshka columns of a database."""

from __future__ import annotations

from dataclasses import asdict

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.units import shown

__all__ = ["columns"]


def columns(url: DatabaseUrl = None, json: Json = False) -> None:
    """List the Matryoshka columns of the database, as its catalogue has them.

    Exit code 1 when an index is missing or invalid.

    Example: `pgmrl columns --json`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        infos = database.columns(connection)
    if json:
        write_json([asdict(info) for info in infos])
    else:
        none = ["There are no Matryoshka columns in this database."]
        console.print("\n".join([_described(info) for info in infos] or none), soft_wrap=True)
    if any(not info.index_valid for info in infos):
        raise typer.Exit(1)


def _described(info: database.ColumnInfo) -> str:
    if info.index_name is None:
        index = "[red]none: searches read the whole table[/]"
    else:
        state = "" if info.index_valid else ", [red]INVALID: REINDEX it[/]"
        index = f"{escaped(info.index_name)}, {_size(info.index_bytes)}{state}"
    rows = "not analyzed yet" if info.estimated_rows < 0 else f"about {info.estimated_rows:,} rows"
    return (
        f"[bold]{escaped(info.table_schema)}.{escaped(info.table_name)}.{escaped(info.full_column)}[/] "
        f"{info.full_type}({info.full_dims})\n"
        f"  short  {escaped(info.short_column)} {info.short_type}({info.short_dims}), "
        f"{info.shortening}{' ' + info.rotation if info.rotation else ''}, {info.metric or 'metric unknown'}\n"
        f"  index  {index}\n"
        f"  table  {_size(info.table_bytes)}, {rows}"
    )


def _size(count: int | None) -> str:
    return "" if count is None else shown(count)
