"""The table as it is read: binary batches of full vectors, in bounded memory, some of them as smaller tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import bindparam, select, tuple_
from sqlalchemy import literal_column as literal

from pgmrl.names import quoted
from pgmrl.tune.tuning_transaction import driver_of, savepoint

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection, Table

    from pgmrl.model.shortening import Definition

__all__ = ["Batch", "Levels", "Source"]

BATCH: Final = 8_000
"""Rows at a time. With 2,000 queries their products take 64 MB; of many dimensions fewer rows come at a time."""

BATCH_VALUES: Final = 8_000_000
KEYS: Final = 500  # keys in one statement


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        places: where they lie, shape (n,), int64; unique, and the same in every pass of a snapshot.
        vectors: as stored, shape (n, dims), float32.

    """

    places: NDArray[np.int64]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Levels:
    """Nested random parts of the table, as tables of other sizes.

    A row belongs to those whose fraction is above a number that only depends on its place and the seed, so that each
    pass sees the same parts without keeping who belongs where (Vitter, "Random sampling with a reservoir", 1985, needs
    to keep them).

    Attributes:
        fractions: of the rows read; falling, the first is 1.
        seed: of the choice.
        graph: the largest part that an index is tried on.

    """

    fractions: tuple[float, ...]
    seed: int
    graph: int = 0

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The highest level each row belongs to, shape (n,); it belongs to all below it too."""
        draw = _uniform(places, self.seed)
        return np.asarray((draw[:, np.newaxis] < np.asarray(self.fractions)).sum(axis=1) - 1)


@dataclass(slots=True)
class Source:
    """The rows of one table that have a vector.

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
    _parts: dict[int, int] | None = None

    @property
    def batch(self) -> int:
        """Rows that come at a time."""
        return max(500, min(BATCH, BATCH_VALUES // self.definition.dims))

    def batches(self) -> Generator[Batch]:
        """All rows that can be found, in the order they lie in; read only, also by the server's word.

        To be closed, also where an error ends the reading: it holds a savepoint.
        """
        sample = f" TABLESAMPLE BERNOULLI ({self.percent}) REPEATABLE ({int(self.seed)})" if self.percent < 100 else ""
        query = f"SELECT {self._columns} FROM {self.name}{sample} WHERE {quoted(self.full)} IS NOT NULL"  # noqa: S608
        with savepoint(self.connection, undo=True, read_only=True):
            cursor = psycopg.ServerCursor(driver_of(self.connection), "pgmrl_tune", row_factory=tuple_row)
            with cursor:
                cursor.execute(query.encode(), binary=True)
                while rows := cursor.fetchmany(self.batch):
                    yield self._usable(self._decoded(rows))

    def at(self, places: NDArray[np.int64]) -> Batch:
        """The rows that lie there, in any order."""
        parts = {number: oid for oid, number in (self._parts or {}).items()}
        found: list[Any] = []
        with psycopg.Cursor(driver_of(self.connection), row_factory=tuple_row) as cursor:
            for part in np.unique(places >> 48):
                here = places[places >> 48 == part]
                tids = [f"({place >> 16 & 0xFFFFFFFF},{place & 0xFFFF})" for place in here.tolist()]
                plain = f"SELECT {self._columns} FROM {self.name}".replace("%", "%%")  # noqa: S608
                query = f"{plain} WHERE ctid = ANY(%s::tid[])"
                given: list[Any] = [tids]
                if len(parts) > 1:
                    query, given = f"{query} AND tableoid = %s", [tids, parts[int(part)]]
                found += cursor.execute(query.encode(), given, binary=True).fetchall()
        return self._decoded(found)

    def places_of(self, keys: Sequence[tuple[Any, ...]]) -> NDArray[np.int64]:
        """Where the rows with these primary keys lie."""
        columns = [self.table.c[key.name] for key in self.table.primary_key]
        place: ColumnElement[Any] = literal("ctid::text")
        part: ColumnElement[Any] = literal("tableoid::bigint")
        found: list[int] = []
        for start in range(0, len(keys), KEYS):
            among = tuple_(*columns).in_(bindparam("keys", list(keys[start : start + KEYS]), expanding=True))
            for oid, tid in self.connection.execute(select(part, place).where(among)):
                block, offset = str(tid).strip("()").split(",")
                found.append(self._part(int(oid)) << 48 | int(block) << 16 | int(offset))
        return np.array(found, np.int64)

    @property
    def _columns(self) -> str:
        return f"tableoid, ctid, {self.definition.qualified(f'{self.definition.full}_send')}({quoted(self.full)})"

    def _decoded(self, rows: Sequence[Any]) -> Batch:
        dims = self.definition.dims
        if not rows:
            return Batch(np.empty(0, np.int64), np.empty((0, dims), np.float32))
        item = ">f2" if self.definition.full == "halfvec" else ">f4"
        kind = np.dtype([("head", "V4"), ("values", item, (dims,))])
        vectors = np.frombuffer(b"".join([row[2] for row in rows]), kind)["values"].astype(np.float32)
        return Batch(self.numbered(rows), vectors)

    def numbered(self, rows: Sequence[Any]) -> NDArray[np.int64]:
        """Places as numbers, of rows that begin with `tableoid, ctid` in binary form."""
        tids = np.frombuffer(b"".join([row[1] for row in rows]), np.dtype([("block", ">u4"), ("offset", ">u2")]))
        part = np.array([self._part(row[0]) for row in rows], np.int64)
        return np.asarray(part << 48 | tids["block"].astype(np.int64) << 16 | tids["offset"])

    def _usable(self, batch: Batch) -> Batch:
        """Without the rows that are left out, and without those that no search can find."""
        keep = np.ones(len(batch.places), np.bool_)
        if self.left_out is not None and len(self.left_out):
            keep &= ~np.isin(batch.places, self.left_out)
        if self.definition.metric.normalise:
            keep &= batch.vectors.any(axis=1)
        return batch if keep.all() else Batch(batch.places[keep], batch.vectors[keep])

    def _part(self, oid: int) -> int:
        """A small number for a partition: its oid, a block and an offset do not fit 64 bits."""
        if self._parts is None:
            self._parts = {}
        return self._parts.setdefault(oid, len(self._parts))


def _uniform(places: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number from 0 to 1 for each place (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = places.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed.astype(np.float64) / 2.0**64
