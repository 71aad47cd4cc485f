"""`pgmrl upgrade`: pgmrl's own schema."""

from __future__ import annotations

from typing import Annotated

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import console, write_json

__all__ = ["upgrade"]


def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision of pgmrl's schema.")] = "head",
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Install or update pgmrl's schema: rotations, the functions that shorten with them, the view `pgmrl.columns`.

    Needs CREATE on the database, no superuser; pgvector is installed where this role may. A prefix-shortened column
    needs nothing of it.

    Example: `pgmrl upgrade --database-url postgresql://app@db/app`
    """
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        before = database.installed_revision(connection)
        database.upgrade(connection, revision)
        after = database.installed_revision(connection)
    if json:
        write_json({"before": before, "after": after})
    else:
        console.print(f"pgmrl's schema is at revision {after}" + ("" if before == after else f" (was: {before})"))
