"""The sides of a comparison: each can load, build, and answer one query at a given search effort.

A side's `prepare` returns the timed call: from the query as the application holds it (float32) to row numbers, with
everything between included: shortening, conversion, the round trip, fetching.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.data import Dataset, Floats, K, Kind, stored
from benchmarks.tables import Layout, Shortened, Storage
from pgmrl.model.compat import Bit, HalfVector, Vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.server import Connection, Server

Search = Callable[[Floats], "list[int]"]
EF_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to search.

    Attributes:
        ef_search: candidates HNSW keeps; None for an exact side.
        shortlist: rows to rerank; None for a side of one stage.
        variant: another way to ask the same index: `iterate` switches iterative scans on, `prebuilt` builds the
            library's Select once.
    """

    ef_search: int | None = None
    shortlist: int | None = None
    variant: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """As it is kept: only what was set."""
        return {name: value for name, value in asdict(self).items() if value}


def plain_efforts(*sizes: int) -> tuple[Effort, ...]:
    """One effort for each ef_search."""
    return tuple(Effort(ef_search=size) for size in sizes)


def shortlists(*sizes: int, variant: str = "") -> tuple[Effort, ...]:
    """One effort for each size of shortlist, with ef_search equal to it."""
    return tuple(Effort(min(size, EF_LIMIT), size, variant) for size in sizes)


class PlanRefusedError(Exception):
    """The planner does not use the index: at this size or effort it finds reading every row cheaper."""

    @classmethod
    def unless(cls, index: str, plan: list[str]) -> None:
        """Raise where a plan does not name the index.

        Raises:
            PlanRefusedError: it does not.
        """
        if not any(index in line for line in plan):
            raise cls("\n".join(line if len(line) < 120 else f"{line[:117]}..." for line in plan))


class Side(ABC):
    """One way to search.

    Attributes:
        name: unique within a part.
        kind: the type whose values it ranks by, which is what its answers are judged by.
        family: `two stages`, `plain`, `exact` or `in process`.
        efforts: what to sweep.
        queries: at most so many, for a side too slow for all of them.
    """

    in_database: ClassVar[bool] = True

    def __init__(
        self, name: str, kind: Kind, family: str, efforts: Sequence[Effort], queries: int | None = None
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.family = family
        self.efforts = tuple(efforts)
        self.queries = queries

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that decides what is measured, for the record and to know a result again."""

    @property
    def fingerprint(self) -> str:
        """A hash of the configuration."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:12]

    @abstractmethod
    def load(self, dataset: Dataset) -> None:
        """Make the data available; costs nothing where it is already."""

    @abstractmethod
    def build(self, build: str) -> dict[str, Any]:
        """Build the index anew under this name; seconds and bytes."""

    @abstractmethod
    def is_built(self, build: str) -> bool:
        """Whether the index in place is this build."""

    @abstractmethod
    def warm(self) -> None:
        """Bring it into memory."""

    @abstractmethod
    def prepare(self, effort: Effort) -> Search:
        """Make ready to search with this effort."""

    def close(self) -> None:  # noqa: B027 - not every side has something to close
        """Let go of connections."""


# -- in PostgreSQL ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """How an HNSW index is built."""

    m: int = 16
    ef_construction: int = 64

    @property
    def suffix(self) -> str:
        """What a side's name says of it: nothing for pgvector's default."""
        return "" if self == Index() else f"-m{self.m}-{self.ef_construction}"


STATED_INDEX: Final = Index(16, 100)
"""pgmrl's default, and of the one stated configuration."""


class PostgresSide(Side):
    """A table in PostgreSQL with an HNSW index, or with none.

    Args:
        server: a started server.
        layout: the table.
        index: on the short column where there is one, otherwise on the full column; None to search exactly.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        layout: Layout,
        index: Index | None,
        family: str,
        efforts: Sequence[Effort],
        queries: int | None = None,
    ) -> None:
        super().__init__(name, layout.full, family, efforts, queries)
        self.server = server
        self.layout = layout
        self.index = index
        self._connection: Connection | None = None
        self._checked: set[str] = set()

    @property
    def connection(self) -> Connection:
        """This side's own, opened on first use: no other side's settings or plans are in it."""
        if self._connection is None or self._connection.closed:
            self._connection = self.server.connect()
            self._connection.execute("SELECT '[1]'::vector")  # loads the library: its settings are checked from here
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def config(self) -> dict[str, Any]:
        """Table, index, statement."""
        return {
            "table": str(self.layout),
            "index": asdict(self.index) if self.index else None,
            "statement": self.statement(Effort(40, 40)),
        }

    @property
    def index_name(self) -> str:
        """The vector index."""
        return f"{self.layout.name}_hnsw"

    def load(self, dataset: Dataset) -> None:
        """Load the table."""
        self.layout.ensure(self.connection, dataset)

    def build(self, build: str) -> dict[str, Any]:
        """Build the index; for an exact side there is only the table."""
        name = self.layout.name
        if self.index is None:
            return {"seconds": 0.0, **tables.sizes(self.connection, name, None)}
        self.close()  # its plans are of the old index
        self._checked.clear()
        self.connection.execute(f'DROP INDEX IF EXISTS "{self.index_name}"')
        self.connection.execute("CHECKPOINT")  # not another side's dirty pages in this one's time
        start = time.perf_counter()
        self.connection.execute(self._create_index())
        seconds = time.perf_counter() - start
        tables.set_index_comment(self.connection, self.index_name, build)
        return {"seconds": seconds, **tables.sizes(self.connection, name, self.index_name)}

    def is_built(self, build: str) -> bool:
        """Whether the index carries this build's note."""
        return self.index is None or tables.index_comment(self.connection, self.index_name) == build

    def warm(self) -> None:
        """Prewarm table and index."""
        tables.prewarm(self.connection, self.layout.name)

    def prepare(self, effort: Effort) -> Search:
        """One prepared statement for each effort.

        Raises:
            PlanRefusedError: its plan does not use this side's index.
        """
        if self.layout.short is None and effort.ef_search is not None:
            self.connection.execute(f"SET hnsw.ef_search = {effort.ef_search}")
        statement, parameters = self.statement(effort), self._parameters()
        if statement not in self._checked:
            self._check_plan(statement, parameters)
            self._checked.add(statement)
        cursor = self.connection.cursor(binary=True)

        def search(query: Floats) -> list[int]:
            cursor.execute(statement, parameters(query), prepare=True)
            return [row[0] for row in cursor.fetchall()]

        return search

    def statement(self, effort: Effort) -> str:
        """The statement; its text differs for each effort, since a generic plan keeps older settings."""
        table = f'"{self.layout.name}"'
        if self.layout.short is None:
            order = "embedding <=> %(query)b" if self.index else "(embedding <=> %(query)b) + 0"  # 0: no index fits
            return (
                f"/* {effort.ef_search} */ SELECT id, embedding <=> %(query)b AS distance FROM {table}"
                f" ORDER BY {order} LIMIT {K}"
            )
        operator = "<~>" if self.layout.short.rule == "bits" else "<=>"
        return (
            "SELECT d.id, s.distance FROM (SELECT id, embedding <=> %(query)b AS distance FROM ("
            f"SELECT d.id, d.embedding FROM {table} AS d"
            f" ORDER BY d.short {operator} {gated('%(short)b', effort)} LIMIT {effort.shortlist}"
            f") AS shortlist ORDER BY distance, id LIMIT {K}"
            f") AS s JOIN {table} AS d USING (id) ORDER BY s.distance, d.id"
        )

    def _create_index(self) -> str:
        assert self.index is not None
        column, ops = "embedding", f"{self.layout.full}_cosine_ops"
        if self.layout.short is not None:
            column = "short"
            ops = "bit_hamming_ops" if self.layout.short.rule == "bits" else "halfvec_cosine_ops"
        options = f"m = {self.index.m}, ef_construction = {self.index.ef_construction}"
        return f'CREATE INDEX "{self.index_name}" ON "{self.layout.name}" USING hnsw ({column} {ops}) WITH ({options})'

    def _parameters(self) -> Callable[[Floats], dict[str, Any]]:
        full: Callable[[Any], Any] = HalfVector if self.layout.full == "halfvec" else Vector
        short = self.layout.short
        if short is None:
            return lambda query: {"query": full(query)}
        shorten = query_shortener(short)
        wrap: Callable[[Any], Any] = Bit if short.rule == "bits" else HalfVector
        return lambda query: {"query": full(query), "short": wrap(shorten(query))}

    def _check_plan(self, statement: str, parameters: Callable[[Floats], dict[str, Any]]) -> None:
        dims = self.connection.execute(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'",
            [f'"{self.layout.name}"'],
        ).fetchone()
        assert dims is not None
        given = parameters(np.full(dims[0], dims[0] ** -0.5, np.float32))
        lines = self.connection.execute("EXPLAIN " + statement, given).fetchall()
        if self.index is not None:
            PlanRefusedError.unless(self.index_name, [line[0] for line in lines])


def gated(vector: str, effort: Effort) -> str:
    """A query's short vector as a subquery that sets the scan's parameters, as the library's statement has it."""
    call = f"set_config('hnsw.ef_search', '{effort.ef_search}', true)"
    if effort.variant == "iterate":
        call += " || set_config('hnsw.iterative_scan', 'relaxed_order', true)"
    return f"(SELECT {vector} WHERE ({call}) IS NOT NULL)"


def query_shortener(short: Shortened) -> Callable[[Floats], NDArray[Any]]:
    """As `Shortened.of` for one query, with the axes converted once and not once a query."""
    if short.axes is None:
        return short.of
    axes = short.axes.astype(np.float32)

    def rotate(query: Floats) -> NDArray[Any]:
        turned = axes @ query
        return np.asarray(turned / np.sqrt(turned @ turned)).astype(np.float16)

    return rotate


def two_stages(
    server: Server,
    short: Shortened,
    efforts: Sequence[Effort],
    *,
    full: Kind = "halfvec",
    storage: Storage = "main",
    index: Index | None = None,
) -> PostgresSide:
    """Short index, exact rerank, in bare SQL."""
    index = index or Index()
    name = f"{short.rule}-{short.dims}"
    if (full, storage) != ("halfvec", "main"):
        name += f"-{full}-toast"
    name += index.suffix
    layout = Layout(name, full, storage, short)
    return PostgresSide(server, name, layout, index, "two stages", efforts)


def plain(server: Server, full: Kind, efforts: Sequence[Effort], index: Index | None = None) -> PostgresSide:
    """Plain pgvector: HNSW on the full column: `vector` as it comes (in TOAST), `halfvec` inline."""
    index = index or Index()
    name = f"plain-{full}{index.suffix}"
    layout = Layout(name, full, "main" if full == "halfvec" else "external")
    return PostgresSide(server, name, layout, index, "plain", efforts)


def exact_postgres(server: Server, full: Kind, queries: int) -> PostgresSide:
    """Every row, in PostgreSQL; reads the plain side's table."""
    layout = Layout(f"plain-{full}", full, "main" if full == "halfvec" else "external")
    return PostgresSide(server, f"exact-{full}", layout, None, "exact", [Effort()], queries)


# -- in this process -------------------------------------------------------------------------------------------------


class InProcess(Side):
    """A search without a server."""

    in_database = False

    def __init__(self, name: str, family: str, efforts: Sequence[Effort], queries: int | None = None) -> None:
        super().__init__(name, "vector", family, efforts, queries)
        self.rows: Floats = np.empty((0, 0), np.float32)
        self._build: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The library's name is all there is to say."""
        return {"library": self.name}

    def load(self, dataset: Dataset) -> None:
        """Hold the rows in single precision."""
        self.rows = np.ascontiguousarray(stored(dataset.rows, "vector"))

    def build(self, build: str) -> dict[str, Any]:
        """Build in memory."""
        start = time.perf_counter()
        size = self._make()
        self._build = build
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "index_bytes": size, "table_bytes": 0, "total_bytes": size}

    def is_built(self, build: str) -> bool:
        """Nothing outlives the process."""
        return self._build == build

    def warm(self) -> None:
        """It is in memory."""

    def _make(self) -> int:
        return self.rows.nbytes


class NumpyExact(InProcess):
    """One matrix product."""

    def __init__(self, queries: int) -> None:
        super().__init__("exact-numpy", "exact", [Effort()], queries)

    def prepare(self, effort: Effort) -> Search:  # noqa: ARG002
        """Nothing to make ready."""
        rows = self.rows

        def search(query: Floats) -> list[int]:
            products = rows @ query
            best = np.argpartition(products, -K)[-K:]
            return [int(row) for row in best[np.argsort(-products[best])]]

        return search


class FaissFlat(InProcess):
    """FAISS, exact."""

    def __init__(self, queries: int) -> None:
        super().__init__("exact-faiss", "exact", [Effort()], queries)
        self._index: Any = None

    def _make(self) -> int:
        import faiss  # noqa: PLC0415 - only where this side runs

        self._index = faiss.IndexFlatIP(self.rows.shape[1])
        self._index.add(self.rows)
        return self.rows.nbytes

    def prepare(self, effort: Effort) -> Search:  # noqa: ARG002
        """Nothing to make ready."""
        index = self._index

        def search(query: Floats) -> list[int]:
            _, ids = index.search(query[None], K)
            return [int(row) for row in ids[0]]

        return search


class Hnswlib(InProcess):
    """hnswlib in this process: what a graph costs without a database around it."""

    def __init__(self, efforts: Sequence[Effort], index: Index | None = None) -> None:
        super().__init__("hnswlib", "in process", efforts)
        self._params = index or Index()
        self._index: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The graph's parameters."""
        return {"library": self.name, "index": asdict(self._params)}

    def _make(self) -> int:
        import hnswlib  # noqa: PLC0415 - only where this side runs

        index = hnswlib.Index(space="ip", dim=self.rows.shape[1])
        index.init_index(len(self.rows), M=self._params.m, ef_construction=self._params.ef_construction)
        index.add_items(self.rows)
        index.set_num_threads(1)
        self._index = index
        return int(index.index_file_size())

    def prepare(self, effort: Effort) -> Search:
        """Set ef."""
        index = self._index
        index.set_ef(effort.ef_search)

        def search(query: Floats) -> list[int]:
            ids, _ = index.knn_query(query, K)
            return [int(row) for row in ids[0]]

        return search
