"""What a statement reads out of TOAST, by the server's counters of the transaction; EXPLAIN does not report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result
from pgmrl.explanation.server_counters import block_size
from pgmrl.names import qualified
from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.searching.plans import Node

__all__ = ["ToastCounters", "ToastReads"]

_COUNTERS: Final = text("""
SELECT c.oid, pg_stat_get_xact_numscans(x.indexrelid) AS "values",
    pg_stat_get_xact_tuples_returned(x.indexrelid) AS chunks,
    pg_stat_get_xact_blocks_fetched(t.oid) + pg_stat_get_xact_blocks_fetched(x.indexrelid) AS blocks,
    pg_stat_get_xact_blocks_hit(t.oid) + pg_stat_get_xact_blocks_hit(x.indexrelid) AS hit
FROM pg_class AS c
JOIN pg_class AS t ON t.oid = c.reltoastrelid
JOIN pg_index AS x ON x.indrelid = t.oid AND x.indisvalid
WHERE c.oid = ANY (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
""")

_VECTOR_SIZES: Final = text("""
SELECT a.attrelid, 4 + a.atttypmod * CASE t.typname WHEN 'halfvec' THEN 2 ELSE 4 END AS bytes
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('vector', 'halfvec')
WHERE a.attrelid = ANY (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
    AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypmod > 0
""")


@dataclass(frozen=True, slots=True)
class ToastReads:
    """What was read out of TOAST, as PostgreSQL's counters of the transaction have it.

    Attributes:
        values: number of values, such as full vectors; each is one scan of the TOAST table's index.
        chunks: rows of the TOAST table that hold them.
        bytes: size of the values as stored.
        at_most: whether `bytes` is an upper bound: chunks times the largest chunk. It is exact where all values can be
            vectors of one size.
        hit: blocks of the TOAST table and its index found in shared buffers; included in the stages' blocks.
        read: blocks read from outside of shared buffers.
        partial: whether parallel workers read too, whose counters another process cannot see.

    """

    values: int
    chunks: int
    bytes: int
    at_most: bool
    hit: int
    read: int
    partial: bool = False


class _Counts(NamedTuple):
    values: int
    chunks: int
    blocks: int
    hit: int


class ToastCounters:
    """The counters of the tables that a statement reads; made before it is executed.

    Args:
        connection: in a transaction.
        plan: top node of the statement's plan, of EXPLAIN with VERBOSE.

    """

    def __init__(self, connection: Connection, plan: Node) -> None:
        tables = {(node["Schema"], node["Relation Name"]) for node in nodes(plan) if "Relation Name" in node}
        self._names = [qualified(schema, name) for schema, name in sorted(tables)]
        self._connection = connection
        self._start = self._counts()

    def since_start(self, plan: Node) -> ToastReads | None:
        """What was read since; None where the server does not count (`track_counts` is off).

        Args:
            plan: top node of the executed plan.

        """
        if self._connection.execute(text("SELECT pg_catalog.current_setting('track_counts')")).scalar_one() != "on":
            return None
        vector_sizes = self._vector_sizes()
        values = chunks = size = blocks = hit = 0
        at_most = False
        for oid, end in self._counts().items():
            start = self._start.get(oid, _Counts(0, 0, 0, 0))
            reads = _Counts(*(after - before for after, before in zip(end, start, strict=True)))
            vectors = vector_sizes.get(oid, ())
            possible = {bytes_ for bytes_ in vectors if reads.values * -(-bytes_ // self._chunk) == reads.chunks}
            at_most |= reads.values > 0 and len(possible) != 1
            size += reads.values * possible.pop() if len(possible) == 1 else reads.chunks * self._chunk
            values, chunks = values + reads.values, chunks + reads.chunks
            blocks, hit = blocks + reads.blocks, hit + reads.hit
        workers = any(node.get("Workers Launched", 0) for node in nodes(plan))
        return ToastReads(values, chunks, size, at_most, hit, blocks - hit, workers)

    def _counts(self) -> dict[int, _Counts]:
        rows = catalogue_result(self._connection, _COUNTERS, {"names": self._names})
        return {row.oid: _Counts(*row[1:]) for row in rows}

    def _vector_sizes(self) -> dict[int, set[int]]:
        """Bytes of each table's vectors, by the table's oid."""
        sizes: dict[int, set[int]] = {}
        for oid, size in catalogue_result(self._connection, _VECTOR_SIZES, {"names": self._names}):
            sizes.setdefault(oid, set()).add(size)
        return sizes

    @property
    def _chunk(self) -> int:
        """Bytes of the largest chunk: four rows of the TOAST table fill a block (TOAST_MAX_CHUNK_SIZE)."""
        return (block_size(self._connection) - 40) // 4 // 8 * 8 - 36
