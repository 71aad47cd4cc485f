"""The table that is tuned: its full vectors in batches, by the places that its rows lie at."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import bindparam, select, tuple_
from sqlalchemy import literal_column as literal

from pgmrl.database.vector_reader import VectorType, batch_rows, binary_sql, read_vectors
from pgmrl.measure.exact_neighbours import CELLS, RowBatch
from pgmrl.model.binary import decode_many
from pgmrl.names import quoted
from pgmrl.tune.tuning_transaction import driver_of, savepoint

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection, Table

    from pgmrl.model.shortening import Definition

__all__ = ["TunedTable"]

KEYS: Final = 500
"""Keys in one statement."""


@dataclass(slots=True)
class TunedTable:
    """The rows of one table that have a vector.

    A row's place is its partition, block and offset as one number: unique, and the same in every pass of a snapshot.

    Attributes:
        connection: in a snapshot.
        table: the table.
        name: of it, as SQL text.
        full: its vector column.
        definition: of that.
        percent: of the rows to read; below 100 a Bernoulli sample.
        seed: of the sample.
        left_out: places that are no part of the table, such as those of the queries.

    """

    connection: Connection
    table: Table
    name: str
    full: str
    definition: Definition
    percent: float = 100.0
    seed: int = 0
    left_out: NDArray[np.int64] | None = None
    _partitions: dict[int, int] | None = None

    def batches(self, queries: int = 1) -> Generator[RowBatch]:
        """All rows that can be found, in the order they lie in, by their places; read only, also by the server's word.

        To be closed, also where an error ends the reading: it holds a savepoint.

        Args:
            queries: queries that the rows are compared with: of many queries fewer rows come at a time.

        """
        sample = f" TABLESAMPLE BERNOULLI ({self.percent}) REPEATABLE ({int(self.seed)})" if self.percent < 100 else ""
        query = f"SELECT {self._columns} FROM {self.name}{sample} WHERE {quoted(self.full)} IS NOT NULL"  # noqa: S608
        rows = batch_rows(self.definition.dims, queries, CELLS)
        with (
            savepoint(self.connection, undo=True, read_only=True),
            closing(read_vectors(self.connection, query, [VectorType.full(self.definition)], rows=rows)) as batches,
        ):
            for (tableoids, ctids), (vectors,), _ in batches:
                yield self._findable(RowBatch(self.numbered(tableoids, ctids), vectors))

    def at(self, places: NDArray[np.int64]) -> RowBatch:
        """The rows that lie there, in any order."""
        partitions = {number: oid for oid, number in (self._partitions or {}).items()}
        rows: list[Any] = []
        with psycopg.Cursor(driver_of(self.connection), row_factory=tuple_row) as cursor:
            for partition in np.unique(places >> 48):
                here = places[places >> 48 == partition]
                tids = [f"({place >> 16 & 0xFFFFFFFF},{place & 0xFFFF})" for place in here.tolist()]
                plain = f"SELECT {self._columns} FROM {self.name}".replace("%", "%%")  # noqa: S608
                query = f"{plain} WHERE ctid = ANY(%s::tid[])"
                parameters: list[Any] = [tids]
                if len(partitions) > 1:
                    query, parameters = f"{query} AND tableoid = %s", [tids, partitions[int(partition)]]
                rows += cursor.execute(query.encode(), parameters, binary=True).fetchall()
        vectors = decode_many([row[2] for row in rows], self.definition.full, self.definition.dims)
        return RowBatch(self.numbered([row[0] for row in rows], [row[1] for row in rows]), vectors)

    def places_of(self, keys: Sequence[tuple[Any, ...]]) -> NDArray[np.int64]:
        """Where the rows with these primary keys lie."""
        columns = [self.table.c[key.name] for key in self.table.primary_key]
        ctid: ColumnElement[Any] = literal("ctid::text")
        tableoid: ColumnElement[Any] = literal("tableoid::bigint")
        places: list[int] = []
        for start in range(0, len(keys), KEYS):
            among = tuple_(*columns).in_(bindparam("keys", list(keys[start : start + KEYS]), expanding=True))
            for oid, place in self.connection.execute(select(tableoid, ctid).where(among)):
                block, offset = str(place).strip("()").split(",")
                places.append(self._partition(int(oid)) << 48 | int(block) << 16 | int(offset))
        return np.array(places, np.int64)

    def numbered(self, tableoids: Sequence[int], ctids: Sequence[bytes]) -> NDArray[np.int64]:
        """Places as numbers, shape (n,), of rows whose ctid is in binary form."""
        tids = np.frombuffer(b"".join(ctids), np.dtype([("block", ">u4"), ("offset", ">u2")]))
        oids, which = np.unique(np.array(tableoids, np.int64), return_inverse=True)
        partitions = np.array([self._partition(oid) for oid in oids.tolist()], np.int64)[which]
        return np.asarray(partitions << 48 | tids["block"].astype(np.int64) << 16 | tids["offset"])

    @property
    def _columns(self) -> str:
        vector = binary_sql(self.definition.full, quoted(self.full), self.definition.vector_schema)
        return f"tableoid, pg_catalog.tidsend(ctid), {vector}"

    def _findable(self, batch: RowBatch) -> RowBatch:
        """Without the rows that are left out, and without those that no search can find."""
        keep = np.ones(len(batch), np.bool_)
        if self.left_out is not None and len(self.left_out):
            keep &= ~np.isin(batch.ids, self.left_out)
        if self.definition.metric.normalise:
            keep &= batch.vectors.any(axis=1)
        return batch if keep.all() else RowBatch(batch.ids[keep], batch.vectors[keep])

    def _partition(self, oid: int) -> int:
        """A small number for a partition: its oid, a block and an offset do not fit 64 bits."""
        if self._partitions is None:
            self._partitions = {}
        return self._partitions.setdefault(oid, len(self._partitions))
