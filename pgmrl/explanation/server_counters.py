"""What the server has set and counted for a statement, read in a place that leaves nothing behind."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.catalogue import row_estimates
from pgmrl.database.connection import snapshot
from pgmrl.database.search_path import catalogue_result
from pgmrl.names import qualified
from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from pgmrl.searching.plans import Node

__all__ = [
    "block_size",
    "read_only",
    "row_counts",
    "session_settings",
    "settings_in_force",
    "without_sorting",
]

_SET: Final = re.compile(r"set_config\('(hnsw\.\w+)'::text, '(\w+)'::text, true\)")
_REPORTED: Final = (
    "hnsw.ef_search",
    "hnsw.iterative_scan",
    "hnsw.max_scan_tuples",
    "hnsw.scan_mem_multiplier",
    "work_mem",
    "jit",
    "plan_cache_mode",
)


@contextmanager
def read_only(connection: Connection) -> Iterator[None]:
    """A savepoint that is read-only and rolled back; a transaction where the connection is in autocommit."""
    with snapshot(connection):
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield


def without_sorting(connection: Connection, *, shards: bool = False) -> None:
    """Have the planner sort only where nothing else is left, until the transaction or savepoint ends.

    Args:
        connection: in a transaction.
        shards: whether the planners of Citus' shards have to, too.

    """
    if shards:
        connection.execute(text("SELECT pg_catalog.set_config('citus.propagate_set_commands', 'local', true)"))
    connection.exec_driver_sql("SET LOCAL enable_sort = off")


def session_settings(connection: Connection) -> dict[str, str]:
    """The settings a search depends on as the session has them, before a search's own gate changes them."""
    query = text("SELECT name, current_setting(name, true) FROM unnest(CAST(:names AS text[])) AS name")
    rows = catalogue_result(connection, query, {"names": list(_REPORTED)})
    return {name: value for name, value in rows if value is not None}


def settings_in_force(session: Mapping[str, str], plan: Node) -> dict[str, str]:
    """The settings in force for a statement: those that its gates make, the session's for the rest.

    Args:
        session: as `session_settings` returned it before the execution.
        plan: top node of the statement's plan, of EXPLAIN with VERBOSE; where several gates differ, all values are
            given.

    """
    values: dict[str, list[str]] = {}
    for node in nodes(plan):
        gate = dict(_SET.findall(str(node.get("One-Time Filter", ""))))
        if gate:
            for name, value in {**session, **gate}.items():
                values.setdefault(name, []).append(value)
    return dict(session) | {name: ", ".join(dict.fromkeys(own)) for name, own in values.items()}


def block_size(connection: Connection) -> int:
    """Bytes of a block."""
    return int(connection.execute(text("SELECT pg_catalog.current_setting('block_size')")).scalar_one())


def row_counts(connection: Connection, plan: Node) -> dict[str, int]:
    """Rows of the tables and indexes that a plan reads, by `schema.name`, from their statistics and their size now.

    Args:
        connection: a connection to the database.
        plan: top node of the statement's plan, of EXPLAIN with VERBOSE.

    Returns:
        -1 for one without statistics.

    """
    relations = {
        (node["Schema"], inner[key])
        for node in nodes(plan)
        if "Schema" in node and "Relation Name" in node
        for inner in nodes(node)
        for key in ("Relation Name", "Index Name")
        if key in inner
    }
    names = {qualified(schema, name): f"{schema}.{name}" for schema, name in relations}
    estimates = row_estimates(connection, list(names))
    return {names[name]: -1 if count is None or count < 0 else round(count) for name, count in estimates.items()}
