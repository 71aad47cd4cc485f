"""The tables of `python -m benchmarks filters`: one as pgmrl has it and one for its peers, and which indexes count.

`packages` has full and short vectors, an HNSW index on the short ones, and for each filter's column a covering index.
`plain` has full vectors, an HNSW index on them, B-trees on the filters' columns, and partial HNSW indexes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine
from sqlalchemy.schema import CreateIndex

from benchmarks.data import Dataset, Truth, debian, packages, principal_axes, spread
from benchmarks.tables import prewarm
from pgmrl import FilterIndex, Hnsw, Matryoshka, Rotation, Short, SqlFunctions, database, ingest, install_functions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from benchmarks.parts import Options
    from benchmarks.server import Connection, Server

LOTS: Final = 1_000_000  # `lot` is a random number below this
SHORT_DIMS: Final = 128
WIDE: Final = 256
"""Dimensions of more rows than there are real ones."""
TENANT_ROWS: Final = 1_000
FILTER_COLUMNS: Final = ("lot", "section", "tenant")
K: Final = 10


@dataclass(frozen=True)
class Filter:
    """A filter of the searched rows.

    Attributes:
        name: as the report has it.
        column: that it asks for.
        value: compared with: `lot < value`, else equal.
        clustered: whether it goes with the meaning of the rows.
    """

    name: str
    column: str
    value: int | str
    clustered: bool = False

    @property
    def sql(self) -> str:
        """As SQL text with the value in it."""
        return f"lot <= {self.value}" if self.column == "lot" else f"{self.column} = '{self.value}'"

    @property
    def index(self) -> str:
        """The name of a partial index for it."""
        return f"plain_partial_{self.column}_{self.value}"


RANDOM: Final = tuple(
    Filter(f"{share:g} %", "lot", round(share / 100 * LOTS) - 1) for share in (50, 20, 10, 5, 2, 1, 0.1, 0.01)
)
SECTIONS: Final = tuple(Filter(f"section {name}", "section", name, clustered=True) for name in ("libdevel", "games"))


@dataclass
class FilterSet:
    """The rows, their columns to filter by, and the server's tables.

    Attributes:
        server: running.
        dataset: vectors and queries.
        columns: for each filter's column a value for each row.
        builds: for each index seconds and bytes.
    """

    server: Server
    dataset: Dataset
    columns: dict[str, NDArray[Any]]
    builds: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, server: Server, dataset: Dataset) -> FilterSet:
        """With a random lot, a random tenant of 1,000 rows, and the section of the Debian package."""
        count, random = len(dataset.rows), np.random.default_rng(8)
        sections = np.array([package["section"] for package in packages()])
        # what lies beyond the real rows is near a random one of them, and takes its section: `nearest_real`
        nearest = np.arange(count) if count <= len(sections) else nearest_real(count, len(sections))
        columns = {
            "lot": random.integers(0, LOTS, count),
            "section": sections[nearest],
            "tenant": random.permutation(count) % max(1, count // TENANT_ROWS),
        }
        return cls(server, dataset, columns)

    @cached_property
    def rotation(self) -> Rotation:
        """The leading principal axes."""
        return Rotation.of(principal_axes(self.dataset.sample(), SHORT_DIMS))

    @cached_property
    def table(self) -> Table:
        """`packages`, as a model has it; the client shortens the query."""
        short = Short(SHORT_DIMS, by=self.rotation)
        covering = [FilterIndex(name, name=f"packages_{name}") for name in FILTER_COLUMNS]
        return Table(
            "packages",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("lot", Integer),
            Column("section", Text),
            Column("tenant", Integer),
            Column("embedding", Matryoshka(self.dataset.dims, short, index=Hnsw(16, 100), filters=covering)),
        )

    @property
    def short(self) -> str:
        """The short column's name."""
        return next(column.name for column in self.table.columns if column.name.startswith("embedding_r"))

    @property
    def hnsw(self) -> str:
        """The name of the index on the short vectors."""
        return next(str(index.name) for index in self.table.indexes if str(index.name).endswith("_hnsw"))

    def passing(self, filter_: Filter) -> NDArray[np.int64]:
        """The ids of the rows that a filter leaves."""
        values = self.columns[filter_.column]
        return np.flatnonzero(values <= filter_.value if filter_.column == "lot" else values == filter_.value)

    def truth(self, filter_: Filter) -> FilteredTruth:
        """What is right under a filter."""
        passing = self.passing(filter_)
        rows = self.dataset.rows[passing].astype(np.float16)
        queries = self.dataset.queries.astype(np.float16)
        return FilteredTruth(passing, Truth(rows, queries, min(K, len(passing))))

    @property
    def filters(self) -> list[Filter]:
        """Those that leave any row."""
        return [filter_ for filter_ in (*RANDOM, *SECTIONS) if len(self.passing(filter_))]

    # -- building ----------------------------------------------------------------------------------------------

    def load(self, options: Options) -> None:
        """Create and load both tables with every index, unless they are there."""
        with self.server.connect() as connection:
            there = connection.execute("SELECT to_regclass('built')").fetchone()
            if not (there and there[0]):
                self._load(connection, options)
            for name, seconds, size in connection.execute("SELECT name, seconds, bytes FROM built").fetchall():
                self.builds[name] = {"seconds": seconds, "bytes": size}
            prewarm(connection, "packages", "plain")

    def _load(self, connection: Connection, options: Options) -> None:
        engine, count = create_engine(self.server.sqlalchemy_url), len(self.dataset.rows)
        options.say(f"loading {count:,} rows")
        with engine.begin() as made:
            database.upgrade(made)
            made.exec_driver_sql("DROP TABLE IF EXISTS packages, plain CASCADE")
            database.install_rotation(made, self.rotation)
            declared = list(self.table.indexes)
            self.table.indexes.clear()
            self.table.create(made)
            self.table.indexes.update(declared)
            values = zip(*(self.columns[name].tolist() for name in FILTER_COLUMNS), strict=True)
            records = ({"id": n, **dict(zip(FILTER_COLUMNS, row, strict=True))} for n, row in enumerate(values))
            ingest(made, self.table.c.embedding, records, vectors=self.dataset.rows)
            made.exec_driver_sql("CREATE TABLE plain AS SELECT id, lot, section, tenant, embedding FROM packages")
            made.exec_driver_sql("ALTER TABLE plain ADD PRIMARY KEY (id)")
            install_functions(made, self.table.c.embedding, SqlFunctions(filters=("lot <=", "section", "tenant")))
        own = [CreateIndex(index).compile(engine) for index in sorted(declared, key=lambda index: str(index.name))]
        engine.dispose()
        hnsw = "ON plain USING hnsw (embedding halfvec_cosine_ops)"
        statements = [str(statement) for statement in own]
        statements += [f"CREATE INDEX plain_hnsw {hnsw}"]
        statements += [f"CREATE INDEX plain_{name} ON plain ({name})" for name in FILTER_COLUMNS]
        statements += [f"CREATE INDEX {each.index} {hnsw} WHERE {each.sql}" for each in partial_filters(self)]
        built: list[tuple[str, float]] = []
        for statement in statements:
            started, name = time.perf_counter(), statement.split()[2].strip('"')
            connection.execute(statement.encode())
            built.append((name, time.perf_counter() - started))
            options.say(f"{name}: {built[-1][1]:.1f} s")
        for table in ("packages", "plain"):
            connection.execute(f"VACUUM (ANALYZE, FREEZE) {table}")
        connection.execute("CREATE TABLE built (name text, seconds float8, bytes bigint)")
        size = "(SELECT pg_relation_size(quote_ident(n)) FROM (SELECT %s::text) AS i (n))"
        for name, seconds in built:
            connection.execute(f"INSERT INTO built VALUES (%s, %s, {size})", [name, seconds, name])


@dataclass(frozen=True)
class FilteredTruth:
    """Which answers are right under a filter.

    Attributes:
        passing: ids of the rows that it leaves.
        truth: of those rows.
    """

    passing: NDArray[np.int64]
    truth: Truth

    @property
    def rows(self) -> int:
        """How many there are to find."""
        return min(K, len(self.passing))

    def recall(self, query: int, ids: Iterable[int]) -> float:
        """The share of the nearest rows that is among these."""
        numbers = np.searchsorted(self.passing, np.fromiter(ids, np.int64))
        return self.truth.hits(query, numbers) / self.rows


def partial_filters(rows: FilterSet) -> list[Filter]:
    """Those with a partial HNSW index: of many rows only where it is small."""
    limit = len(rows.dataset.rows) if len(rows.dataset.rows) < 100_000 else len(rows.dataset.rows) // 15
    return [filter_ for filter_ in rows.filters if K < len(rows.passing(filter_)) <= limit]


def nearest_real(count: int, real: int) -> NDArray[np.int64]:
    """For each row of `spread(count)` the real row that it was made from; draws the same random numbers."""
    random, made = np.random.default_rng(4), [np.arange(real)]
    for start in range(real, count, 50_000):
        size = min(start + 50_000, count) - start
        made.append(random.integers(0, real, size))
        random.integers(0, real, size)
        random.standard_normal((size, 768), np.float32)
    return np.concatenate(made)


def filter_dataset(rows: int | None, queries: int) -> Dataset:
    """The real set or a part of it; more rows are `spread`'s in their 256 leading principal axes."""
    if rows is None or rows <= 70_000:
        return debian(rows, queries)
    wide = spread(rows, queries)
    axes = principal_axes(wide.sample(), WIDE).astype(np.float32).T

    def narrowed(vectors: NDArray[Any]) -> NDArray[np.float32]:
        short = vectors.astype(np.float32) @ axes
        return np.asarray(short / np.linalg.norm(short, axis=1, keepdims=True))

    made = np.empty((rows, WIDE), np.float16)
    for start in range(0, rows, 50_000):
        made[start : start + 50_000] = narrowed(wide.rows[start : start + 50_000])
    note = f"{wide.note}; in its {WIDE} leading principal axes"
    return Dataset(f"spread-{rows}x{WIDE}", made, narrowed(wide.queries), narrowed(wide.warm_up), note)


def count_only(connection: Connection, table: str, indexes: Iterable[str]) -> None:
    """Have the planner see only these indexes of a table, and the primary key; a superuser's trick."""
    connection.execute(
        "UPDATE pg_index SET indisvalid = indexrelid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)"
        " WHERE indrelid = to_regclass(%s) AND NOT indisprimary",
        [[f'"{name}"' for name in indexes], table],
    )
