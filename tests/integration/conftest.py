"""What the tests on a real server share: a rotation of real vectors, a shop of 20,000 packages, plans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from psycopg.types.numeric import Int4
from sqlalchemy import Column, CompoundSelect, Connection, Engine, ForeignKey, Integer, MetaData, Select, Table, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pgmrl import database
from pgmrl.model.binary import encode
from pgmrl.model.columns import Matryoshka, matryoshka
from pgmrl.model.parameters import binary_value
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.compile_sql import compile_sql
from tests.databases import Scratch, connected, indexed_afterwards, new_database, shared_database, vacuum
from tests.standbys import primary_server, streaming_standby

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.local import LocalServer
    from tests.corpus import Corpus

Plan = Callable[..., list[dict[str, Any]]]
ROWS = 20_000


def principal_axes(vectors: NDArray[np.float32], count: int) -> Rotation:
    """The leading principal axes, uncentred."""
    wide = vectors.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)
    return Rotation.of(axes[:, ::-1][:, :count].T)


@pytest.fixture(scope="session")
def rotation(corpus: Corpus) -> Rotation:
    """128 axes learned from 5,000 real vectors of 256 dimensions."""
    return principal_axes(corpus.documents[::4][:5000], 128)


@pytest.fixture(scope="session")
def small_rotation() -> Rotation:
    """Four axes of eight dimensions."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))
    return Rotation.of(q[:4])


Principal = Callable[["NDArray[np.float32]", int], Rotation]


@pytest.fixture(scope="session")
def principal() -> Principal:
    """`principal_axes`."""
    return principal_axes


@pytest.fixture
def elsewhere(server: LocalServer) -> Iterator[Engine]:
    """An Engine on a database whose pgvector is in the schema `extensions`, with pgmrl's schema."""
    with new_database(server, "elsewhere", template="template0") as url, connected(url) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA extensions")
            connection.exec_driver_sql("CREATE EXTENSION vector SCHEMA extensions")
            database.upgrade(connection)
        yield engine


class Replicas(NamedTuple):
    """A primary and its streaming standby, with `packages`: 4,000 real vectors of 96 dimensions under an index.

    Attributes:
        primary: an Engine on it; tests write to tables of their own.
        standby: an Engine on it.
    """

    primary: Engine
    standby: Engine


@pytest.fixture(scope="session")
def replicas(corpus: Corpus) -> Iterator[Replicas]:
    """Two servers of their own."""
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("embedding", Matryoshka(96, Short(32))),
    )
    with primary_server("shop") as server, database.connect(server.url()) as primary:
        with primary.begin() as connection:
            database.upgrade(connection)
            table.create(connection)
            rows = [{"id": n, "embedding": vector} for n, vector in enumerate(corpus.documents[:4000, :96])]
            with indexed_afterwards(connection, table):
                connection.execute(table.insert(), rows)
        vacuum(primary)
        with streaming_standby(server, "shop") as streaming, database.connect(streaming.url()) as standby:
            yield Replicas(primary, standby)


@pytest.fixture
def standby(replicas: Replicas) -> Engine:
    """The Engine on the standby."""
    return replicas.standby


class Base(DeclarativeBase):
    """The models of the shop."""


class Maker(Base):
    """One for many packages."""

    __tablename__ = "makers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Package(Base):
    """Searched under cosine by a prefix; `part` is the number modulo 100."""

    __tablename__ = "packages"
    id: Mapped[int] = mapped_column(primary_key=True)
    maker_id: Mapped[int] = mapped_column(ForeignKey("makers.id"))
    part: Mapped[int]
    embedding: Mapped[VectorArray | None] = matryoshka(256, Short(64))
    maker: Mapped[Maker] = relationship()
    tags: Mapped[list[Tag]] = relationship(order_by="Tag.id")


class Tag(Base):
    """Thirty for every fourth package."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    package_id: Mapped[int] = mapped_column(ForeignKey("packages.id"), index=True)
    name: Mapped[str]


class Shop(NamedTuple):
    """A database that tests only read, and its models.

    Attributes:
        engine: on the database.
        documents: the vector of each package by number, as stored.
        queries: real query vectors.
    """

    engine: Engine
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    package: type[Package] = Package
    maker: type[Maker] = Maker
    tag: type[Tag] = Tag


@pytest.fixture(scope="session")
def shop(server: LocalServer, corpus: Corpus, rotation: Rotation) -> Iterator[Shop]:
    """The 20,000 vectors of the corpus, then 100 rows without a vector and 100 with a zero one."""
    url = shared_database(server, "shop", lambda engine: _fill(engine, corpus.documents, rotation))
    with connected(url) as engine:
        yield Shop(engine, corpus.documents.astype(np.float16).astype(np.float32), corpus.queries)


def _fill(engine: Engine, documents: NDArray[np.float32], rotation: Rotation) -> None:
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        database.install_rotation(connection, rotation)
        with indexed_afterwards(connection, Base.metadata.tables["packages"]):
            _load(connection, documents)
    vacuum(engine)


def _load(connection: Connection, documents: NDArray[np.float32]) -> None:
    connection.exec_driver_sql("INSERT INTO makers SELECT n, 'maker ' || n FROM generate_series(0, 99) AS n")
    cursor: Any = connection.connection.cursor()
    with cursor.copy("COPY packages (id, maker_id, part, embedding) FROM STDIN (FORMAT BINARY)") as into:
        for n in range(ROWS + 200):
            zero = None if n % 2 else binary_value(encode(np.zeros(256, np.float32), "halfvec"), "halfvec")
            vector = binary_value(encode(documents[n], "halfvec"), "halfvec") if n < ROWS else zero
            into.write_row((Int4(n), Int4(n % 100), Int4(n % 100), vector))
    connection.exec_driver_sql(
        "INSERT INTO tags SELECT p * 30 + t, p, 'tag ' || t "
        "FROM generate_series(0, 19996, 4) AS p, generate_series(0, 29) AS t"
    )


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The nodes of a Select's plan, outermost first."""

    def nodes(connection: Connection, statement: Select[Any] | CompoundSelect[Any]) -> list[dict[str, Any]]:
        sent, params = compile_sql(statement)
        found: Any = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sent}", params).scalar_one()
        return list(_walk((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))

    return nodes


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from _walk(inner)


@pytest.fixture(scope="session")
def scratch(server: LocalServer) -> Iterator[Scratch]:
    """For `connection`."""
    database = Scratch(server)
    yield database
    database.drop()


@pytest.fixture
def connection(request: pytest.FixtureRequest, scratch: Scratch) -> Iterator[Connection]:
    """A connection whose transaction is rolled back; in the test's own database where it asks for that as well."""
    own = "database_url" in request.fixturenames
    with request.getfixturevalue("engine").connect() if own else scratch.connection() as opened:
        yield opened


@pytest.fixture
def scalar(connection: Connection) -> Callable[..., Any]:
    """One value of a query on `connection`."""

    def ask(query: str, **parameters: Any) -> Any:
        return connection.execute(text(query), parameters).scalar_one()

    return ask
