"""`pgmrl upgrade` and `pgmrl columns`: pgmrl's own schema, and what is in the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pgmrl import database
from pgmrl.cli.common import Json, Url, console, engine, escaped, write_json
from pgmrl.units import shown

__all__ = ["columns", "upgrade"]


def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision of pgmrl's schema.")] = "head",
    url: Url = None,
    json: Json = False,
) -> None:
    """Install or update pgmrl's schema: rotations, the functions that shorten with them, the view `pgmrl.columns`.

    Needs CREATE on the database, no superuser; pgvector is installed where this role may. A prefix-shortened column
    needs nothing of it.

    Example: `pgmrl upgrade --database-url postgresql://app@db/app`
    """
    with engine(url) as opened, opened.begin() as connection:
        before = database.installed_revision(connection)
        database.upgrade(connection, revision)
        after = database.installed_revision(connection)
    if json:
        write_json({"before": before, "after": after})
    else:
        console.print(f"pgmrl's schema is at revision {after}" + ("" if before == after else f" (was: {before})"))


def columns(url: Url = None, json: Json = False) -> None:
    """List the Matryoshka columns of the database, as its catalogue has them.

    Exit code 1 when an index is missing or invalid.

    Example: `pgmrl columns --json`
    """
    with engine(url) as opened, opened.connect() as connection:
        found = database.columns(connection)
    if json:
        write_json([asdict(info) for info in found])
    else:
        none = ["There are no Matryoshka columns in this database."]
        console.print("\n".join([_described(info) for info in found] or none), soft_wrap=True)
    if any(not info.index_valid for info in found):
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
