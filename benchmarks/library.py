"""The library's own side: the stated configuration, declared, migrated and searched as an application would.

Everything here goes through pgmrl's public names; the other sides are plain SQL.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Index as SqlIndex
from sqlalchemy import Select, bindparam, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks import tables
from benchmarks.data import Dataset, Floats, K
from benchmarks.journal import HERE
from benchmarks.sides import STATED_INDEX, Effort, Index, PlanRefusedError, Search, Side
from pgmrl.database.rotations import install_rotation
from pgmrl.database.schema import upgrade
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.columns import matryoshka
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Rotation, Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine, Table

    from benchmarks.server import Server

TABLE = "pgmrl_library"


class Row(DeclarativeBase):
    """What `model` maps; its classes differ in dimensions and axes only."""

    __abstract__ = True
    id: Any
    embedding: Any


def model(dims: int, rotation: Rotation, short_dims: int, index: Index, table: str = TABLE) -> type[Row]:
    """A mapped class with one Matryoshka column: inline halfvec, rotated halfvec beside it."""
    built = Hnsw(m=index.m, ef_construction=index.ef_construction)

    class Base(DeclarativeBase):
        pass

    class Mapping(Base):
        __tablename__ = table
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        embedding: Mapped[NDArray[np.float32]] = matryoshka(dims, Short(short_dims, by=rotation), index=built)

    return Mapping  # type: ignore[return-value]


def engine_of(server: Server) -> Engine:
    """One connection, autocommit, every statement prepared at once: as the bare psycopg sides have it."""
    prepared = {"prepare_threshold": 0}
    return create_engine(server.sqlalchemy_url, isolation_level="AUTOCOMMIT", pool_size=1, connect_args=prepared)


def install(server: Server, rotation: Rotation) -> None:
    """Migrate and install the axes, on a connection that prepares nothing: scripts hold several statements."""
    engine = create_engine(server.sqlalchemy_url)
    with engine.begin() as connection:
        upgrade(connection)
        install_rotation(connection, rotation)
    engine.dispose()


class LibrarySide(Side):
    """`pgmrl.search` through a Session.

    Args:
        server: a started server.
        axes: shape (short dims, dims).
        efforts: with variant `prebuilt` the Select is built once; otherwise for each query.
        index: how the HNSW index is built.
    """

    def __init__(
        self, server: Server, axes: NDArray[np.float16], efforts: Sequence[Effort], index: Index | None = None
    ) -> None:
        super().__init__("pgmrl", "halfvec", "two stages", efforts)
        self.server = server
        self.rotation = Rotation.of(axes)
        self.parameters = index or STATED_INDEX
        self.mapped = model(axes.shape[1], self.rotation, axes.shape[0], self.parameters)
        self._engine: Engine | None = None
        self._session: Session | None = None

    @property
    def table(self) -> Table:
        """The mapped class's."""
        return self.mapped.__table__  # type: ignore[return-value]

    @property
    def hnsw(self) -> SqlIndex:
        """The index on the short column."""
        return next(iter(self.table.indexes))

    @property
    def session(self) -> Session:
        """This side's own."""
        if self._session is None:
            self._engine = engine_of(self.server)
            self._session = Session(self._engine.connect())
        return self._session

    @property
    def connection(self) -> SqlConnection:
        """The session's."""
        return self.session.connection()

    def close(self) -> None:
        """Close session and engine."""
        if self._session is not None and self._engine is not None:
            self._session.connection().close()
            self._session.close()
            self._engine.dispose()
            self._session = None

    @property
    def config(self) -> dict[str, Any]:
        """The library's own commit is part of what is measured."""
        return {"library": library_commit(), "rotation": self.rotation.id, "index": asdict(self.parameters)}

    def load(self, dataset: Dataset) -> None:
        """Migrate, create the table, load the rows."""
        wanted = (
            f"{dataset.name} {self.rotation.id} {library_commit()}"  # another commit may lay the table out otherwise
        )
        install(self.server, self.rotation)
        comment = text(f"SELECT obj_description(to_regclass('{TABLE}'), 'pg_class')")
        if self.connection.execute(comment).scalar() == wanted:
            return
        self.table.drop(self.connection, checkfirst=True)
        self.table.create(self.connection)
        self.hnsw.drop(self.connection)
        with self.server.connect() as bare:
            numbers = ({"id": number} for number in range(len(dataset.rows)))
            ingest(bare, self.mapped.embedding, numbers, vectors=dataset.rows)
        self.connection.execute(text(f"COMMENT ON TABLE {TABLE} IS '{wanted}'"))
        self.connection.execute(text(f"VACUUM (ANALYZE, FREEZE) {TABLE}"))

    def build(self, build: str) -> dict[str, Any]:
        """CREATE INDEX as the mapped class declares it."""
        name = str(self.hnsw.name)
        self.hnsw.drop(self.connection, checkfirst=True)
        self.connection.execute(text("CHECKPOINT"))
        start = time.perf_counter()
        self.hnsw.create(self.connection)
        seconds = time.perf_counter() - start
        with self.server.connect() as bare:
            tables.set_index_comment(bare, name, build)
            found = tables.sizes(bare, TABLE, name)
        self.close()  # its plans are of the old index
        return {"seconds": seconds, **found}

    def is_built(self, build: str) -> bool:
        """Whether the index carries this build's note."""
        with self.server.connect() as bare:
            return tables.index_comment(bare, str(self.hnsw.name)) == build

    def warm(self) -> None:
        """Prewarm table and index."""
        with self.server.connect() as bare:
            tables.prewarm(bare, TABLE)

    def prepare(self, effort: Effort) -> Search:
        """From the query to row numbers, the Select built inside the timing unless it is `prebuilt`."""
        session = self.session
        self._check_plan(effort)
        if effort.variant == "prebuilt":
            built = self.select(bindparam("q"), effort)
            return lambda query: [row[0] for row in session.execute(built, {"q": query}).all()]
        return lambda query: [row[0] for row in session.execute(self.select(query, effort)).all()]

    def select(self, query: Any, effort: Effort) -> Select[Any]:
        """The library's Select."""
        found = search(
            select(self.mapped.id),
            self.mapped.embedding,
            query,
            k=K,
            shortlist=effort.shortlist,
            ef_search=effort.ef_search,
        )
        return found  # noqa: RET504 - the variadic type does not pass through return

    def _check_plan(self, effort: Effort) -> None:
        dims = self.rotation.required_axes().shape[1]
        query: Floats = np.full(dims, dims**-0.5, np.float32)
        compiled = self.select(query, effort).compile(self.connection.engine)
        lines = self.connection.exec_driver_sql("EXPLAIN " + str(compiled), bound(compiled)).scalars()
        PlanRefusedError.unless(str(self.hnsw.name), list(lines))


def bound(compiled: Any) -> dict[str, Any]:
    """A compiled statement's parameters as the driver gets them."""
    processors = compiled._bind_processors
    return {
        name: processors[name](value) if name in processors else value
        for name, value in compiled.construct_params().items()
    }


@cache  # what this process has imported, whatever is committed meanwhile
def library_commit() -> str:
    """The last commit that touched the library, with `+` where the checkout differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
            ["git", *arguments],  # noqa: S607
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    return git("log", "-1", "--format=%h", "--", "pgmrl") + ("+" if git("status", "--porcelain", "--", "pgmrl") else "")
