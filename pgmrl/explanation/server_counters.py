"""What a server counts and has set while a statement runs: a place that leaves nothing behind, TOAST, settings."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from pgmrl.database.catalogue import row_estimates
from pgmrl.database.connection import snapshot
from pgmrl.names import qualified
from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from pgmrl.searching.plans import Node

__all__ = ["Detoasted", "Toast", "block_size", "in_force", "row_counts", "session_settings", "untouched"]

_SET: Final = re.compile(r"set_config\('(hnsw\.\w+)'::text, '(\w+)'::text, true\)")
_SHOWN: Final = (
    "hnsw.ef_search",
    "hnsw.iterative_scan",
    "hnsw.max_scan_tuples",
    "hnsw.scan_mem_multiplier",
    "work_mem",
    "jit",
    "plan_cache_mode",
)

_COUNTS: Final = text("""
SELECT c.oid, pg_stat_get_xact_numscans(x.indexrelid) AS "values",
    pg_stat_get_xact_tuples_returned(x.indexrelid) AS chunks,
    pg_stat_get_xact_blocks_fetched(t.oid) + pg_stat_get_xact_blocks_fetched(x.indexrelid) AS blocks,
    pg_stat_get_xact_blocks_hit(t.oid) + pg_stat_get_xact_blocks_hit(x.indexrelid) AS hit
FROM pg_class AS c
JOIN pg_class AS t ON t.oid = c.reltoastrelid
JOIN pg_index AS x ON x.indrelid = t.oid AND x.indisvalid
WHERE c.oid = ANY (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
""")

_VECTORS: Final = text("""
SELECT a.attrelid, 4 + a.atttypmod * CASE t.typname WHEN 'halfvec' THEN 2 ELSE 4 END AS bytes
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('vector', 'halfvec')
WHERE a.attrelid = ANY (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
    AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypmod > 0
""")


@contextmanager
def untouched(connection: Connection) -> Iterator[None]:
    """A read-only place whose settings end with it: a savepoint, or a transaction where the connection has none."""
    with snapshot(connection):
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield


# -- TOAST ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detoasted:
    """What was read out of TOAST, as PostgreSQL's counters of the transaction have it; EXPLAIN does not say it.

    Attributes:
        values: how many values, such as full vectors; each is one scan of the TOAST table's index.
        chunks: the rows of the TOAST table that hold them.
        bytes: their size, as it is stored.
        at_most: whether `bytes` is an upper bound: chunks times the largest chunk. It is exact where all values can be
            vectors of one size.
        hit: blocks of the TOAST table and its index that were in shared buffers. They are among the stages' blocks.
        read: blocks that were not.
        partial: whether parallel workers read too, whose counters another process cannot see.

    """

    values: int
    chunks: int
    bytes: int
    at_most: bool
    hit: int
    read: int
    partial: bool = False


class _Counted(NamedTuple):
    values: int
    chunks: int
    blocks: int
    hit: int


class Toast:
    """Counts what a statement reads out of TOAST, from before it to after it.

    Args:
        connection: in a transaction.
        plan: of the statement, of EXPLAIN with VERBOSE.

    """

    def __init__(self, connection: Connection, plan: Node) -> None:
        read = {(node["Schema"], node["Relation Name"]) for node in nodes(plan) if "Relation Name" in node}
        self._names = [qualified(schema, name) for schema, name in sorted(read)]
        self._connection = connection
        self._before = self._counted()

    def read(self, plan: Node) -> Detoasted | None:
        """What was read since; None where the server does not count (`track_counts` is off).

        Args:
            plan: of the execution.

        """
        if self._connection.execute(text("SELECT current_setting('track_counts')")).scalar_one() != "on":
            return None
        sizes = self._vector_bytes()
        values = chunks = size = blocks = hit = 0
        at_most = False
        for oid, after in self._counted().items():
            before = self._before.get(oid, _Counted(0, 0, 0, 0))
            own = _Counted(*(now - then for now, then in zip(after, before, strict=True)))
            fits = {one for one in sizes.get(oid, ()) if own.values * -(-one // self._chunk) == own.chunks}
            at_most |= own.values > 0 and len(fits) != 1
            size += own.values * fits.pop() if len(fits) == 1 else own.chunks * self._chunk
            values, chunks = values + own.values, chunks + own.chunks
            blocks, hit = blocks + own.blocks, hit + own.hit
        workers = any(node.get("Workers Launched", 0) for node in nodes(plan))
        return Detoasted(values, chunks, size, at_most, hit, blocks - hit, workers)

    def _counted(self) -> dict[int, _Counted]:
        rows = self._connection.execute(_COUNTS, {"names": self._names})
        return {row.oid: _Counted(*row[1:]) for row in rows}

    def _vector_bytes(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for oid, size in self._connection.execute(_VECTORS, {"names": self._names}):
            found.setdefault(oid, set()).add(size)
        return found

    @property
    def _chunk(self) -> int:
        """Bytes of the largest chunk: four rows of the TOAST table fill a block (TOAST_MAX_CHUNK_SIZE)."""
        return (block_size(self._connection) - 40) // 4 // 8 * 8 - 36


# -- settings ------------------------------------------------------------------------------------------------------


def session_settings(connection: Connection) -> dict[str, str]:
    """What a search depends on as the session has it, before a gate changes it."""
    query = text("SELECT name, current_setting(name, true) FROM unnest(CAST(:names AS text[])) AS name")
    found = connection.execute(query, {"names": list(_SHOWN)})
    return {name: value for name, value in found if value is not None}


def in_force(session: Mapping[str, str], plan: Node) -> dict[str, str]:
    """The settings in force for a statement: those that its gates set, the session's for the rest.

    Args:
        session: as `session_settings` returned it before the execution.
        plan: of the statement, of EXPLAIN with VERBOSE; of several gates that differ all values are given.

    """
    found: dict[str, list[str]] = {}
    for node in nodes(plan):
        gate = dict(_SET.findall(" ".join(node.get("Output", ()))))
        if gate:
            for name, value in {**session, **gate}.items():
                found.setdefault(name, []).append(value)
    return dict(session) | {name: ", ".join(dict.fromkeys(values)) for name, values in found.items()}


def block_size(connection: Connection) -> int:
    """Bytes of a block."""
    return int(connection.execute(text("SELECT current_setting('block_size')")).scalar_one())


def row_counts(connection: Connection, plan: Node) -> dict[str, int]:
    """Rows of the tables and indexes that a plan reads, by `schema.name`, by their statistics and their size now.

    Args:
        connection: of the database.
        plan: of the statement, of EXPLAIN with VERBOSE.

    Returns:
        -1 for one without statistics.

    """
    read = {
        (node["Schema"], one[key])
        for node in nodes(plan)
        if "Schema" in node and "Relation Name" in node
        for one in nodes(node)
        for key in ("Relation Name", "Index Name")
        if key in one
    }
    names = {qualified(schema, name): f"{schema}.{name}" for schema, name in read}
    found = row_estimates(connection, list(names))
    return {names[name]: -1 if count is None or count < 0 else round(count) for name, count in found.items()}
