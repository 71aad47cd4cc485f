"""`pgmrl upgrade` and `pgmrl columns`: pgmrl's own schema, and what is in the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from pgmrl import database
from pgmrl.cli.common import Json, Url, console, engine, write_json

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
        before = database.current(connection)
        database.upgrade(connection, revision)
        after = database.current(connection)
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
        console.print(_table(found) if found else "There are no Matryoshka columns in this database.")
    if any(not info.index_valid for info in found):
        raise typer.Exit(1)


def _table(found: list[database.ColumnInfo]) -> Table:
    table = Table("table", "full", "short", "shortening", "metric", "index", "index size", "table size", "rows")
    for info in found:
        state = "none" if info.index_name is None else info.index_name + ("" if info.index_valid else " INVALID")
        table.add_row(
            f"{info.table_schema}.{info.table_name}",
            f"{info.full_column} {info.full_type}({info.full_dims})",
            f"{info.short_column} {info.short_type}({info.short_dims})",
            info.rotation or info.shortening,
            info.metric or "?",
            state,
            _size(info.index_bytes),
            _size(info.table_bytes),
            "not analyzed" if info.estimated_rows < 0 else f"~{info.estimated_rows:,}",
        )
    return table


def _size(count: Any) -> str:
    return "" if count is None else f"{count / 1e6:,.1f} MB"
