"""What tuning starts from: the table, its queries, the column as it is, and how much of it all there is time for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import select, text

from pgmrl import database
from pgmrl.errors import DefinitionError, MeasureError, MigrationError, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.fit_rotation import table_rows
from pgmrl.measure.queries import Queries, sampled_queries
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.names import qualified, quoted
from pgmrl.online.reshape import current_index
from pgmrl.searching.options import SearchParameters
from pgmrl.tune.candidates import Candidate
from pgmrl.tune.table_reader import Levels, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from pgmrl.model.metrics import ShortType
    from pgmrl.model.shortening import Definition
    from pgmrl.searching.scan import Scan
    from pgmrl.tune.candidates import Rule
    from pgmrl.tune.choice import Minimise

__all__ = ["SMALLEST", "Clock", "Current", "Ground", "Wanted", "ground_of", "levels_for"]

SHARE: Final = 5
"""Of the rows one in so many may be a query: the others are the table."""

STEP: Final = 4
"""Each smaller table that is measured has a fourth of the rows of the one before."""

COUNTED: Final = 200_000  # rows that are counted; of more the estimate is good enough
SMALLEST: Final = 20  # times k rows, below which a table says nothing


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for; see `tune`.

    Raises:
        SearchError: a number out of range.
        DefinitionError: an unknown shortening or type.

    """

    recall: float
    k: int
    dims: tuple[int, ...] | None
    by: tuple[Rule, ...]
    types: tuple[ShortType, ...]
    index: Hnsw | None
    graph: bool
    max_shortlist: int
    minimise: Minimise
    finalists: int
    rows: int
    graph_rows: int
    maintenance_work_mem: str | None
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise SearchError(f"recall={self.recall!r}: recall is above 0 and at most 1: for 95 % write 0.95")
        if not 1 <= self.k <= self.max_shortlist <= EF_SEARCH_LIMIT:
            raise SearchError(
                f"k={self.k} and max_shortlist={self.max_shortlist}: a shortlist holds the k results, and at most "
                f"{EF_SEARCH_LIMIT:,} rows, which is pgvector's limit of ef_search"
            )
        for name in ("finalists", "rows", "graph_rows"):
            if getattr(self, name) < 1:
                raise SearchError(f"{name}={getattr(self, name)}: give at least 1")
        for what, given, known in (
            ("by", self.by, ("prefix", "rotation")),
            ("type", self.types, ("halfvec", "vector", "bit")),
            ("minimise", (self.minimise,), ("latency", "size", "build")),
        ):
            wrong = [str(one) for one in given if one not in known] or ([] if given else ["nothing"])
            if wrong:
                raise DefinitionError(f"{what}={wrong[0]!r}: choose of {', '.join(known)}")


class Clock:
    """The time there is, and where it went."""

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise SearchError(f"seconds={seconds}: give more than 0")
        self.seconds = seconds
        self.begun = time.monotonic()
        self.spent: dict[str, float] = {}
        self._last = self.begun

    @property
    def left(self) -> float | None:
        """Seconds; None where there is no limit."""
        return None if self.seconds is None else self.begun + self.seconds - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether there is none left."""
        return self.left is not None and self.left <= 0

    def part(self, name: str) -> None:
        """What was done since the last part was called so."""
        now = time.monotonic()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._last
        self._last = now


class Memory(NamedTuple):
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
class Current:
    """The short column there is.

    Attributes:
        candidate: how it shortens, with its axes, and how its index is built.
        short: the column's name.
        index_bytes: its index's size; None where it has no valid one.
        scan: the numbers that a search takes where nobody says any: those that are stored, or the defaults.

    """

    candidate: Candidate
    short: str
    index_bytes: int | None
    scan: Scan


@dataclass(slots=True)
class Ground:
    """What tuning starts from.

    Attributes:
        column: as it was given.
        source: of the rows, without those that are queries.
        definition: of the column.
        rows: of the table today, those without a vector and the queries included.
        memory: settings of the server.
        queries: as stored, shape (n, dims), float32; the first `tuned` choose, the others check.
        tuned: how many.
        asked: where they come from.
        current: the short column there is; None where there is none.
        index: build parameters of candidates.
        notes: what to tell.
        incomplete: what was left out, which more time or rows would mend.

    """

    column: Any
    source: Source
    definition: Definition
    rows: int
    memory: Memory
    queries: NDArray[np.float32]
    tuned: int
    asked: Queries
    current: Current | None
    index: Hnsw
    notes: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def read(self) -> float:
        """Rows that are read, about."""
        return self.rows * self.source.percent / 100

    @property
    def tuning(self) -> NDArray[np.float32]:
        """The queries that choose."""
        return self.queries[: self.tuned]

    @property
    def checking(self) -> NDArray[np.float32]:
        """The others."""
        return self.queries[self.tuned :]


def ground_of(connection: Connection, column: Any, wanted: Wanted, queries: Queries | int) -> Ground:
    """Look at the table, and choose queries.

    Raises:
        MeasureError: too few rows.
        NotMigrated: the table or the column is not in the database.

    """
    attachment, table = attachment_of(column), vectors_table(column)
    definition = attachment.definition
    name = qualified(table.schema, table.name)
    if not table.primary_key.columns:
        raise DefinitionError(f"table {table.fullname} has no primary key: a search returns rows by their key")
    rows = _rows(connection, name, attachment.full)
    if isinstance(queries, int):
        if queries < 1:
            raise MeasureError(f"{queries} queries: ask for at least 1")
        count = max(1, min(queries, rows // SHARE))
        queries = sampled_queries(connection, column, count, seed=wanted.seed)
    source = Source(connection, table, name, attachment.full, definition, seed=wanted.seed)
    held = 0
    if queries.keys is not None:
        source.left_out = source.places_of(queries.keys)
        held = len(queries)
    if rows - held < wanted.k:
        raise MeasureError(
            f"{table.fullname} has {rows:,} rows with a vector, too few for k={wanted.k} beside {held:,} queries: "
            "ask for fewer results, or load more rows"
        )
    current = _current(connection, column, wanted.k)
    index = wanted.index or (None if current is None else current.candidate.index) or Hnsw()
    stored = definition.stored(queries.vectors)
    half = (len(stored) + 1) // 2
    found = Ground(column, source, definition, rows, _memory(connection), stored, half, queries, current, index)
    if len(queries) < 2:
        found.notes.append("with one query nothing is left to check with")
    return found


def levels_for(rows: float, wanted: Wanted, memory: int) -> Levels:
    """Sizes to measure at: what is read, what an index is tried on, and a fourth and a sixteenth of that.

    Args:
        rows: that are read.
        wanted: for the most rows of an index.
        memory: rows whose graph fits into `maintenance_work_mem`.

    """
    smallest = SMALLEST * wanted.k
    largest = min(rows, wanted.graph_rows, max(memory, smallest))
    parts = largest < 0.8 * rows
    sizes = [rows, largest] if parts else [rows]
    for step in (STEP, STEP * STEP):
        if sizes[0] / step >= smallest and sizes[-1] / STEP >= smallest:
            sizes.append((largest if parts else rows) / step)
    return Levels(tuple(size / rows for size in sizes), wanted.seed, int(parts))


def _rows(connection: Connection, name: str, column: str) -> int:
    """Rows with a vector: counted where that is quick, else all rows by the server's estimate."""
    estimate = table_rows(connection, name, column)
    if estimate > COUNTED:
        return round(estimate)
    query = f"SELECT count(*) FROM {name} WHERE {quoted(column)} IS NOT NULL"  # noqa: S608 - quoted
    return int(database.execute_plain(connection, query).scalar_one())


def _memory(connection: Connection) -> Memory:
    names = ("shared_buffers", "effective_cache_size", "maintenance_work_mem")
    values = ", ".join(f"pg_size_bytes(current_setting('{name}'))" for name in names)
    return Memory(*connection.execute(text(f"SELECT {values}")).one())


def _current(connection: Connection, column: Any, k: int) -> Current | None:
    attachment, schema, table = attachment_of(column), vectors_table(column).schema, vectors_table(column).name
    definition = attachment.definition
    if attachment.short is None or not definition.learned:
        return None
    # tables of the same name may be in many schemas, such as one for each tenant
    place = (schema or database.table_schema(connection, table), table, attachment.full, attachment.short)
    info = next(
        (
            one
            for one in database.columns(connection)
            if (one.table_schema, one.table_name, one.full_column, one.short_column) == place
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
    return Current(candidate, attachment.short, info.index_bytes if valid else None, scan)
