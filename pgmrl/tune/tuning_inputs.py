"""What tuning starts from: the table, its queries, and the column as it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import select, text

from pgmrl import database
from pgmrl.errors import DefinitionError, MeasureError, MigrationError
from pgmrl.measure.fit_rotation import table_rows
from pgmrl.measure.queries import Queries, sampled_queries
from pgmrl.measure.session import check_one_server
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.model.server_names import server_name
from pgmrl.names import quoted
from pgmrl.online.reshape import current_index
from pgmrl.searching.options import SearchParameters
from pgmrl.tune.candidates import Candidate
from pgmrl.tune.tuned_table import TunedTable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.scan import Scan
    from pgmrl.tune.request import TuneRequest

__all__ = ["CurrentColumn", "TuningInputs", "gather_inputs"]

SHARE: Final = 5
"""Of the rows one in so many may be a query: the others are the table."""

COUNTED: Final = 200_000
"""Rows that are counted; of more the estimate is good enough."""


class ServerMemory(NamedTuple):
    """Settings of the server, in bytes.

    Attributes:
        buffers: `shared_buffers`.
        cache: `effective_cache_size`.
        build: `maintenance_work_mem`, as it is for the builds here.

    """

    buffers: int
    cache: int
    build: int


@dataclass(frozen=True, slots=True)
class CurrentColumn:
    """The short column there is.

    Attributes:
        candidate: how it shortens, with its axes, and how its index is built.
        short: the column's name.
        index_bytes: its index's size; None where it has no valid one.
        scan: the numbers that a search takes by default: those that are stored, else pgmrl's own.

    """

    candidate: Candidate
    short: str
    index_bytes: int | None
    scan: Scan


@dataclass(slots=True)
class TuningInputs:
    """What tuning starts from.

    Attributes:
        column: as it was given.
        table: the rows, without those that are queries.
        definition: of the column.
        rows: of the table today, those without a vector and the queries included.
        memory: settings of the server.
        queries: as stored, shape (n, dims), float32; the first `tuned` choose, the others check.
        tuned: how many.
        source: where they come from.
        current: the short column there is; None where there is none.
        index: build parameters of candidates.
        notes: what to tell.
        incomplete: what was left out, which more time or rows would mend.

    """

    column: Any
    table: TunedTable
    definition: Definition
    rows: int
    memory: ServerMemory
    queries: NDArray[np.float32]
    tuned: int
    source: Queries
    current: CurrentColumn | None
    index: Hnsw
    notes: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def read(self) -> float:
        """Rows that are read, about."""
        return self.rows * self.table.percent / 100

    @property
    def tuning(self) -> NDArray[np.float32]:
        """The queries that choose."""
        return self.queries[: self.tuned]

    @property
    def checking(self) -> NDArray[np.float32]:
        """The others."""
        return self.queries[self.tuned :]

    def keep_queries(self, count: int) -> None:
        """Go on with so many, of which half choose and half check."""
        half = (count + 1) // 2
        self.queries = np.concatenate([self.tuning[:half], self.checking[: count - half]])
        self.tuned = half


def gather_inputs(connection: Connection, column: Any, request: TuneRequest, queries: Queries | int) -> TuningInputs:
    """Look at the table, and choose queries.

    Raises:
        MeasureError: too few rows.
        NotMigrated: the table or the column is not in the database.

    """
    check_one_server(column)
    attachment, table = attachment_of(column), vectors_table(column)
    definition = attachment.definition
    name = server_name(connection, table)
    if not table.primary_key.columns:
        raise DefinitionError(f"table {table.fullname} has no primary key: a search returns rows by their key")
    rows = _rows(connection, name, attachment.full)
    if isinstance(queries, int):
        if queries < 1:
            raise MeasureError(f"queries={queries}: expected at least 1")
        count = max(1, min(queries, rows // SHARE))
        queries = sampled_queries(connection, column, count, seed=request.seed)
    tuned = TunedTable(connection, table, name, attachment.full, definition, seed=request.seed)
    left_out = 0
    if queries.keys is not None:
        tuned.left_out = tuned.places_of(queries.keys)
        left_out = len(queries)
    if rows - left_out < request.k:
        raise MeasureError(
            f"{table.fullname} has {rows:,} rows with a vector, too few for k={request.k} beside {left_out:,} queries: "
            "ask for fewer results, or load more rows"
        )
    current = _current(connection, column, request.k)
    index = request.index or (None if current is None else current.candidate.index) or Hnsw()
    _check_all_rows(index, current)
    stored = definition.stored(queries.vectors)
    half = (len(stored) + 1) // 2
    memory = _memory(connection)
    inputs = TuningInputs(column, tuned, definition, rows, memory, stored, half, queries, current, index)
    if len(queries) < 2:
        inputs.notes.append("with one query nothing is left to check with")
    return inputs


def _check_all_rows(index: Hnsw, current: CurrentColumn | None) -> None:
    """Trials are of all rows, which a partial index does not have."""
    for each in (index, *(() if current is None else (current.candidate.index,))):
        if each.predicate is not None:
            raise MeasureError(
                f"expected an index of all rows, which is what tune measures, got a partial one (WHERE "
                f"{each.predicate}): build one beside it first, index=[Hnsw(), Hnsw(where=...)] in the model"
            )


def _rows(connection: Connection, name: str, column: str) -> int:
    """Rows with a vector: counted where that is quick, else all rows by the server's estimate."""
    estimate = table_rows(connection, name, column)
    if estimate > COUNTED:
        return round(estimate)
    query = f"SELECT count(*) FROM {name} WHERE {quoted(column)} IS NOT NULL"  # noqa: S608 - quoted
    return int(database.execute_plain(connection, query).scalar_one())


def _memory(connection: Connection) -> ServerMemory:
    names = ("shared_buffers", "effective_cache_size", "maintenance_work_mem")
    values = ", ".join(f"pg_size_bytes(current_setting('{name}'))" for name in names)
    return ServerMemory(*database.catalogue_result(connection, text(f"SELECT {values}")).one())


def _current(connection: Connection, column: Any, k: int) -> CurrentColumn | None:
    attachment, schema, table = attachment_of(column), vectors_table(column).schema, vectors_table(column).name
    definition = attachment.definition
    if attachment.short is None or not definition.learned:
        return None
    # tables of the same name may be in many schemas, such as one for each tenant
    place = (schema or database.table_schema(connection, table), table, attachment.full, attachment.short)
    info = next(
        (
            info
            for info in database.columns(connection)
            if (info.table_schema, info.table_name, info.full_column, info.short_column) == place
        ),
        None,
    )
    if info is None:
        return None
    by = definition.short.by
    if isinstance(by, Rotation):
        by = database.with_axes(connection, by)
    try:
        built = current_index(connection, table, attachment.full, schema=schema)
    except MigrationError:
        built = None
    candidate = Candidate(replace(definition, short=replace(definition.short, by=by)), built or attachment.index)
    valid = info.index_name is not None and bool(info.index_valid)
    keys = select(*base_column(column).table.primary_key.columns)
    scan = SearchParameters.of(keys, column, k, {}).scan
    return CurrentColumn(candidate, attachment.short, info.index_bytes if valid else None, scan)
