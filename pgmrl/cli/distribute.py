"""`pgmrl distribute`: a table with Matryoshka columns over the nodes of Citus."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.online.distributing import distribution_statements

__all__ = ["distribute"]

LONG: Final = 2_000  # characters


def distribute(
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    by: Annotated[str, typer.Option("--by", help="The distribution column, part of the primary key; a tenant's id.")],
    shards: Annotated[int | None, typer.Option(min=1, help="How many shards; default citus.shard_count, 32.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements, and run none.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Distribute a table with Matryoshka columns by Citus; run it on the coordinator.

    First it looks at every node, and brings what is missing there: pgvector, and pgmrl's schema and rotations for
    triggers. Run it once more after a node was added: of a table that is distributed by that column already it does
    that alone.

    Example: `pgmrl distribute documents --by tenant_id --dry-run`
    """
    schema, _, name = table.rpartition(".")
    with open_engine(url, writes=not dry_run) as engine, engine.begin() as connection:
        statements = distribution_statements(connection, schema or None, name, by, shards)
        if not dry_run:
            for statement in statements:
                database.execute_plain(connection, statement)
    if json:
        write_json({"table": table, "by": by, "statements": statements, "dry_run": dry_run})
    elif not statements:
        console.print(f"{escaped(table)} is distributed by {escaped(by)} already, and no node lacks anything")
    elif dry_run:
        console.print("\n".join(map(_printed, statements)), soft_wrap=True)
    else:
        console.print(f"{escaped(table)} is distributed by {escaped(by)}: `pgmrl doctor` looks at its shards")


def _printed(statement: str) -> str:
    """A statement for people: not the axes of a rotation."""
    if len(statement) > LONG:
        return f"-- what the workers lack, a statement of {len(statement):,} characters: --json prints it"
    return f"{escaped(statement)};"
