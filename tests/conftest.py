"""One server for a test run, one template database in it, and a clone of that for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    Computed,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from pgmrl import SqlFunctions, database, install_functions, local
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT.parent / "shared" / "data" / "debian"
TEMPLATE = "pgmrl_template"

os.environ.pop("DATABASE_URL", None)  # the tests use a server of their own and nobody's data


@pytest.fixture(scope="session")
def server() -> Iterator[local.LocalServer]:
    """A server in a folder of this test run; the workers of pytest-xdist share it."""
    # not below pytest's own folder: that is closed to the unprivileged user the server runs as where we are root
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    data = Path(tempfile.gettempdir()) / f"pgmrl-tests-{run}"
    with local.start(data, database="postgres") as running:
        with admin(running) as connection:
            _make_template(connection, running)
        yield running
    if local.status(data) is None:  # the last worker to leave
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def admin(server: local.LocalServer) -> Iterator[Connection]:
    """A connection that makes and drops databases."""
    with database.connect(server.url("postgres")) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def _make_template(connection: Connection, server: local.LocalServer) -> None:
    connection.execute(text("SELECT pg_advisory_lock(1)"))  # one worker makes it, the others wait
    try:
        made = connection.execute(text(f"SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'")).first()
        if made is not None:
            return
        # autovacuum is on, as for users, but does not come meanwhile: it would mend what a test has broken
        connection.execute(text("ALTER SYSTEM SET autovacuum_naptime = '24d'"))
        connection.execute(text("SELECT pg_reload_conf()"))
        connection.execute(text(f"CREATE DATABASE {TEMPLATE}_new"))
        with database.connect(server.url(f"{TEMPLATE}_new")) as engine, engine.begin() as inside:
            database.upgrade(inside)
        connection.execute(text(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}"))
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(1)"))


_numbers = itertools.count(1)


@pytest.fixture
def database_url(server: local.LocalServer) -> Iterator[str]:
    """A database of its own for one test, with pgvector and pgmrl's schema; a URL for SQLAlchemy with psycopg 3."""
    name = f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_numbers)}"
    yield from _clone(server, name)


@pytest.fixture(scope="module")
def module_database_url(server: local.LocalServer) -> Iterator[str]:
    """As `database_url`, shared by the tests of one module that only read what a fixture of theirs loaded."""
    name = f"module_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_numbers)}"
    yield from _clone(server, name)


def _clone(server: local.LocalServer, name: str) -> Iterator[str]:
    with admin(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    yield database.sqlalchemy_url(server.url(name))
    with admin(server) as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def place(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """For the command line: DATABASE_URL is the test's own database, and the working directory an empty one."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An Engine on the test's database."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """Every statement that the test's engine sends."""
    sent: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    yield sent
    event.remove(engine, "before_cursor_execute", record)


@pytest.fixture(scope="module")
def module_engine(module_database_url: str) -> Iterator[Engine]:
    """An Engine on the module's database."""
    engine = create_engine(module_database_url)
    yield engine
    engine.dispose()


class Debian(NamedTuple):
    """The Debian set: documents (68820, 768) and queries (1500, 768) of unit length, and the packages themselves."""

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    packages: list[dict[str, Any]]


@pytest.fixture(scope="session")
def debian() -> Debian:
    """Real text with real embeddings; skips where ../shared/data is absent."""
    if not (DEBIAN / "mpnet-768.npz").exists():
        pytest.skip(f"the Debian set is not at {DEBIAN}")
    sys.path.insert(0, str(DEBIAN))
    try:
        import load  # noqa: PLC0415  # lies beside the data
    finally:
        sys.path.remove(str(DEBIAN))
    documents, queries = load.mpnet()
    return Debian(documents, queries, load.packages())


class Wares(NamedTuple):
    """Real packages with 96 dimensions of their real vectors, searched by SQL functions; tests only read it.

    Attributes:
        engine: on the database; the functions are `packages_…`.
        table: `packages`.
        vectors: as stored, shape (n, 96), by id.
        queries: real query vectors, shape (1500, 96).
        packages: what the rows say, by id.
    """

    engine: Engine
    table: Table
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    packages: list[dict[str, Any]]

    def literal(self, number: int) -> str:
        """A query vector as a BI tool has it: text."""
        return vector_text(self.queries[number])

    def nearest(self, query: Any, k: int = 10, where: Any = None) -> list[int]:
        """The ids of the k nearest packages under cosine, by NumPy, of those that `where` lets through."""
        ids = np.array([n for n, one in enumerate(self.packages) if where is None or where(one)], np.int64)
        rows, one = self.vectors[ids].astype(np.float64), np.asarray(query, np.float16).astype(np.float64)
        distances = 1 - rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
        return [int(n) for n in ids[np.argsort(distances, kind="stable")[:k]]]


WARES = 4_000
WORDS = "to_tsvector('english'::regconfig, COALESCE(name, '') || ' ' || COALESCE(synopsis, ''))"
FILTERS = ("section", "installed_kb >=", "installed_kb <=", "section in", "tags contains")


def vector_text(vector: Any) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"


@pytest.fixture(scope="module")
def wares(module_engine: Engine, debian: Debian) -> Wares:
    """4,000 packages, then ten without a vector and ten with a zero one; three named queries; every SQL function."""
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("name", Text),
        Column("synopsis", Text),
        Column("section", Text),
        Column("installed_kb", Integer),
        Column("tags", ARRAY(Text)),
        Column("words", TSVECTOR, Computed(WORDS, persisted=True)),
        Column("embedding", Matryoshka(96, Short(32))),
    )
    Index("packages_words", table.c.words, postgresql_using="gin")
    vectors = debian.documents[:WARES, :96]
    # no two may tie: the same text occurs twice, and ties are broken by the key, which NumPy's stable order does too
    said = ("name", "synopsis", "section", "installed_kb", "tags")
    rows = [
        {name: one[name] for name in said} | {"id": n, "embedding": vectors[n]}
        for n, one in enumerate(debian.packages[:WARES])
    ]
    empty = [{"id": WARES + n, "name": "x", "embedding": None if n % 2 else np.zeros(96)} for n in range(20)]
    with module_engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows)
        connection.execute(table.insert(), empty)
        functions = SqlFunctions(filters=FILTERS, related=5, stored=True, group_by="section", words="words")
        install_functions(connection, table.c.embedding, functions)
        for number, name in enumerate(("games", "it's", "büro")):
            connection.execute(
                text(
                    "INSERT INTO pgmrl.queries VALUES ('packages', 'embedding', :name, 'a question', 'mpnet', :vector)"
                ),
                {"name": name, "vector": vector_text(debian.queries[number, :96])},
            )
    with module_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE packages")
    stored = vectors.astype(np.float16).astype(np.float32)
    return Wares(module_engine, table, stored, debian.queries[:, :96], debian.packages[:WARES])
