"""Indexes that do not exist yet: built on computed short vectors in a table that nobody else sees, and searched.

The table and its index are made in a transaction that is rolled back, or die with the session: whatever happens to the
client, nothing is left.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.measure.session import CANCELLED
from pgmrl.model.hnsw import create_index
from pgmrl.names import qualified
from pgmrl.tune.tuning_transaction import driver_of, savepoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from pgmrl.model.metrics import ShortType
    from pgmrl.model.shortening import Definition
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.table_reader import Source

__all__ = ["Built", "Place", "Shorts", "place_for", "short_wire", "stand_in"]

TEMP_BUFFERS: Final = 1 << 30
"""Memory of the session that an index of a temporary table may take, so that it is not read from files."""


class Place(NamedTuple):
    """Where a table for trials may be made.

    Attributes:
        kind: `UNLOGGED`, which is as fast as the index it stands for; else `TEMPORARY`.
        schema: of an unlogged one.

    """

    kind: str
    schema: str | None


@dataclass(frozen=True, slots=True)
class Shorts:
    """The computed short vectors of some rows.

    Attributes:
        places: of the rows, shape (n,).
        levels: the highest level of each, shape (n,).
        vectors: shape (n, short dims), as `Definition.shorten` gives them.

    """

    places: NDArray[np.int64]
    levels: NDArray[np.int64]
    vectors: NDArray[Any]

    def part(self, level: int) -> Shorts:
        """Those of a smaller table."""
        among = self.levels >= level
        return Shorts(self.places[among], self.levels[among], self.vectors[among])


@dataclass(frozen=True, slots=True)
class Built:
    """A table of short vectors with its index.

    Attributes:
        name: the table, as SQL text; it has `id` (the place as one number), `place` (ctid) and `short`.
        rows: in it.
        index_bytes: the index's size.
        seconds: that it took to build.

    """

    name: str
    rows: int
    index_bytes: int
    seconds: float = field(compare=False)


def place_for(connection: Connection, source: Source) -> tuple[Place | None, str]:
    """Where trials may be made, and if nowhere, or not in the best place, why.

    In the transaction that reads. An unlogged table beside the application's own is like the real one: its index is
    built by parallel workers, and lies in shared buffers. A temporary one is neither; its times are lower bounds of
    the search's, and upper bounds of the build's.
    """
    row = connection.execute(
        text(
            "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'TEMPORARY'), "
            "current_setting('transaction_read_only') = 'on', c.relkind = 'p', n.nspname, "
            "has_schema_privilege(n.oid, 'CREATE') "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:name)"
        ),
        {"name": source.name},
    ).one()
    standby, temporary, read_only, partitioned, schema, create = row
    if standby:
        return None, "this is a standby, where no index can be tried"
    if read_only:
        return None, "the transaction is read-only, so no index can be tried"
    if partitioned:
        return None, "each partition has an index of its own, so one index of all rows says nothing"
    if create:
        return Place("UNLOGGED", schema), ""
    if not temporary:
        return None, "this role may create neither tables nor temporary ones here, so no index can be tried"
    return Place("TEMPORARY", None), (
        f"without CREATE on schema {schema} indexes were tried on temporary tables: searches are somewhat slower "
        "than measured, builds faster"
    )


@contextmanager
def stand_in(
    connection: Connection, place: Place, candidate: Candidate, shorts: Shorts, seconds: float | None
) -> Iterator[Built | None]:
    """A table of short vectors with its index; gone at the end.

    Args:
        connection: in a snapshot.
        place: where to make it.
        candidate: what the short vectors are, and how the index is built.
        shorts: the short vectors.
        seconds: after which the build is given up, and there is None.

    """
    with savepoint(connection, undo=True):
        if place.kind == "TEMPORARY":
            _give_memory(connection, candidate.index_bytes(len(shorts.places)))
        name = f"pgmrl_tune_{token_hex(6)}"
        table = qualified(place.schema, name)
        kind = candidate.definition.short_type
        made = f"CREATE {place.kind} TABLE {table} (id bigint, place tid, short {kind})"
        database.execute_plain(connection, made)
        _copy(connection, table, candidate.definition, shorts)
        built = _built(connection, candidate, place.schema, name, seconds)
        yield None if built is None else Built(table, len(shorts.places), *built)


def _built(
    connection: Connection, candidate: Candidate, schema: str | None, table: str, seconds: float | None
) -> tuple[int, float] | None:
    index = f"{table}_hnsw"
    statement = create_index(candidate.definition, schema, table, "short", candidate.index, name=index)
    started = time.perf_counter()
    try:
        with savepoint(connection):
            if seconds is not None:
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
            database.execute_plain(connection, statement)
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    except DBAPIError as error:
        if sqlstate(error) != CANCELLED or seconds is None:
            raise
        return None
    took = time.perf_counter() - started
    database.execute_plain(connection, f"ANALYZE {qualified(schema, table)}")
    size = connection.execute(
        text("SELECT pg_relation_size(CAST(:name AS regclass))"), {"name": qualified(schema, index)}
    ).scalar_one()
    return int(size), took


def _give_memory(connection: Connection, needed: int) -> None:
    kilobytes = min(TEMP_BUFFERS, 2 * needed) // 1024 + 8192
    try:
        with savepoint(connection):
            connection.exec_driver_sql(f"SET LOCAL temp_buffers = '{kilobytes}kB'")
    except DBAPIError:  # the session has used a temporary table before
        return


def _copy(connection: Connection, table: str, definition: Definition, shorts: Shorts) -> None:
    """All rows by one binary COPY; they are of one length, so that NumPy writes them."""
    records = _records(definition, shorts)
    with driver_of(connection).cursor() as cursor:
        statement = f"COPY {table} (id, place, short) FROM STDIN (FORMAT BINARY)"
        with cursor.copy(statement.encode()) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\x00" + bytes(8))
            step = max(1, (1 << 20) // records.itemsize)
            for start in range(0, len(records), step):
                copy.write(records[start : start + step].tobytes())
            copy.write(b"\xff\xff")


def _records(definition: Definition, shorts: Shorts) -> NDArray[Any]:
    """The rows as COPY takes them: each field behind its length in bytes."""
    head, item, values = _wire(definition.short.type, shorts.vectors, definition.short.dims)
    width = values.shape[1]
    kind = np.dtype(
        [
            ("fields", ">i2"),
            ("size_1", ">i4"),
            ("id", ">i8"),
            ("size_2", ">i4"),
            ("block", ">u4"),
            ("offset", ">u2"),
            ("size_3", ">i4"),
            ("head", "V4"),
            ("short", item, (width,)),
        ]
    )
    records = np.zeros(len(shorts.places), kind)
    records["fields"], records["size_1"], records["size_2"] = 3, 8, 6
    records["size_3"] = 4 + width * np.dtype(item).itemsize
    records["id"] = shorts.places
    records["block"], records["offset"] = shorts.places >> 16 & 0xFFFFFFFF, shorts.places & 0xFFFF
    records["head"] = np.void(head)
    records["short"] = values
    return records


def _wire(kind: ShortType, vectors: NDArray[Any], dims: int) -> tuple[bytes, str, NDArray[Any]]:
    """The binary form of short vectors: what each begins with, the type of its items, and the items."""
    if kind == "bit":
        return dims.to_bytes(4, "big"), "u1", np.packbits(vectors, axis=1)
    return dims.to_bytes(2, "big") + bytes(2), ">f2" if kind == "halfvec" else ">f4", vectors


def short_wire(definition: Definition, vector: NDArray[Any]) -> bytes:
    """One short vector in its type's binary form."""
    head, item, values = _wire(definition.short.type, vector[np.newaxis], definition.short.dims)
    return head + values.astype(item).tobytes()
