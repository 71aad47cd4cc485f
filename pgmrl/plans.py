"""What the server says of a statement: its plan, and whether the short index serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgmrl.plain import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Select

__all__ = ["explained", "indexes", "nodes", "subplan"]

Node = dict[str, Any]


def explained(connection: Connection, statement: Select[*tuple[Any, ...]], options: str = "") -> Node:
    """The server's account of a statement as EXPLAIN (FORMAT JSON) has it: `Plan`, and times where it was executed.

    Args:
        connection: of the database, with psycopg 3.
        statement: as `search` returns it.
        options: more of EXPLAIN's, such as `ANALYZE, BUFFERS`.

    """
    plain = sql(statement)
    cursor = connection.connection.cursor()
    try:
        more = f", {options}" if options else ""
        cursor.execute(f"EXPLAIN (FORMAT JSON{more}) {plain.text}", plain.params)
        row: Any = cursor.fetchone()
    finally:
        cursor.close()
    found: Node = row[0][0]
    return found


def nodes(plan: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def subplan(plan: Node, name: str) -> Node | None:
    """The part of a plan that makes a CTE; None where there is none of this name."""
    return next((node for node in nodes(plan) if node.get("Subplan Name") == f"CTE {name}"), None)


def indexes(plan: Node) -> list[str]:
    """The indexes that a plan scans, in its order."""
    return [node["Index Name"] for node in nodes(plan) if "Index Name" in node]
