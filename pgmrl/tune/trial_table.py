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
from pgmrl.model.binary import encode_many, value_dtype
from pgmrl.model.hnsw import create_index
from pgmrl.names import qualified
from pgmrl.tune.tuning_transaction import driver_of, savepoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from pgmrl.model.shortening import Definition
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.tuned_table import TunedTable

__all__ = ["BuiltIndex", "ShortVectors", "TrialTable", "build_trial", "trial_table_for"]

TEMP_BUFFERS: Final = 1 << 30
"""Memory of the session that an index of a temporary table may take, so that it is not read from files."""


class TrialTable(NamedTuple):
    """Where and how a table for trials may be made.

    Attributes:
        kind: `UNLOGGED`, which is as fast as the index it stands for; else `TEMPORARY`.
        schema: of an unlogged one.

    """

    kind: str
    schema: str | None


@dataclass(frozen=True, slots=True)
class ShortVectors:
    """The computed short vectors of some rows.

    Attributes:
        places: of the rows, shape (n,).
        samples: the smallest part of the table that each belongs to, shape (n,); see `NestedSamples`.
        vectors: shape (n, short dims), as `Definition.shorten` gives them.

    """

    places: NDArray[np.int64]
    samples: NDArray[np.int64]
    vectors: NDArray[Any]

    def part(self, number: int) -> ShortVectors:
        """Those of one part of the table."""
        return self.of_rows(self.samples >= number)

    def of_rows(self, chosen: NDArray[np.bool_]) -> ShortVectors:
        """Those of some rows."""
        return ShortVectors(self.places[chosen], self.samples[chosen], self.vectors[chosen])


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """A trial table with its index.

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


def trial_table_for(connection: Connection, tuned: TunedTable) -> tuple[TrialTable | None, str]:
    """Where trials may be made, and if nowhere, or not in the best place, why.

    In the transaction that reads. An unlogged table beside the application's own is like the real one: its index is
    built by parallel workers, and lies in shared buffers. A temporary one is neither; its times are lower bounds of
    the search's, and upper bounds of the build's.
    """
    row = database.catalogue_result(
        connection,
        text(
            "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'TEMPORARY'), "
            "current_setting('transaction_read_only') = 'on', c.relkind = 'p', n.nspname, "
            "has_schema_privilege(n.oid, 'CREATE') "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:name)"
        ),
        {"name": tuned.name},
    ).one()
    standby, temporary, read_only, partitioned, schema, create = row
    if standby:
        return None, "this is a standby, where no index can be tried"
    if read_only:
        return None, "the transaction is read-only, so no index can be tried"
    if partitioned:
        return None, "each partition has an index of its own, so one index of all rows says nothing"
    if create:
        return TrialTable("UNLOGGED", schema), ""
    if not temporary:
        return None, "this role may create neither tables nor temporary ones here, so no index can be tried"
    return TrialTable("TEMPORARY", None), (
        f"without CREATE on schema {schema} indexes were tried on temporary tables: searches are somewhat slower "
        "than measured, builds faster"
    )


@contextmanager
def build_trial(
    connection: Connection, table: TrialTable, candidate: Candidate, shorts: ShortVectors, seconds: float | None
) -> Iterator[BuiltIndex | None]:
    """A table of short vectors with its index; gone at the end.

    Args:
        connection: in a snapshot.
        table: where to make it, and how.
        candidate: what the short vectors are, and how the index is built.
        shorts: the short vectors.
        seconds: after which the build is given up, and there is None.

    """
    with savepoint(connection, undo=True):
        if table.kind == "TEMPORARY":
            _give_memory(connection, candidate.index_bytes(len(shorts.places)))
        name = f"pgmrl_tune_{token_hex(6)}"
        trial = qualified(table.schema, name)
        columns = f"id bigint, place tid, short {candidate.definition.short_type}"
        database.execute_plain(connection, f"CREATE {table.kind} TABLE {trial} ({columns})")
        _copy(connection, trial, candidate.definition, shorts)
        built = _built(connection, candidate, table.schema, name, seconds)
        yield None if built is None else BuiltIndex(trial, len(shorts.places), *built)


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
    size = database.catalogue_result(
        connection, text("SELECT pg_relation_size(CAST(:name AS regclass))"), {"name": qualified(schema, index)}
    ).scalar_one()
    return int(size), took


def _give_memory(connection: Connection, needed: int) -> None:
    kilobytes = min(TEMP_BUFFERS, 2 * needed) // 1024 + 8192
    try:
        with savepoint(connection):
            connection.exec_driver_sql(f"SET LOCAL temp_buffers = '{kilobytes}kB'")
    except DBAPIError:  # the session has used a temporary table before
        return


def _copy(connection: Connection, table: str, definition: Definition, shorts: ShortVectors) -> None:
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


def _records(definition: Definition, shorts: ShortVectors) -> NDArray[np.void]:
    """The rows as COPY takes them: each field behind its length in bytes."""
    value = value_dtype(definition.short.type, definition.short.dims)
    record = np.dtype(
        [
            ("fields", ">i2"),
            ("size_1", ">i4"),
            ("id", ">i8"),
            ("size_2", ">i4"),
            ("block", ">u4"),
            ("offset", ">u2"),
            ("size_3", ">i4"),
            ("short", value),
        ]
    )
    records = np.zeros(len(shorts.places), record)
    records["fields"], records["size_1"], records["size_2"], records["size_3"] = 3, 8, 6, value.itemsize
    records["id"] = shorts.places
    records["block"], records["offset"] = shorts.places >> 16 & 0xFFFFFFFF, shorts.places & 0xFFFF
    records["short"] = encode_many(shorts.vectors, definition.short.type)
    return records
