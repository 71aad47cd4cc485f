"""One server for a test run, one corpus of real text, and a database of its own for each test that writes."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: each worker has a core, more threads would spin
os.environ.pop("DATABASE_URL", None)  # the tests use a server of their own and nobody's data
os.environ.pop("COLUMNS", None)  # readline sets it in pytest-xdist's workers, and rich would keep that width for good

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    Computed,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from pgmrl import SqlFunctions, database, install_functions, local
from pgmrl.embedders.token_model import load_token_model
from pgmrl.functions.text_models import install_model
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.corpus import Corpus, Passage, facts, load
from tests.databases import TEMPLATE, admin, connected, indexed_afterwards, new_database, shared_database, vacuum
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SETTINGS = {
    # on, as for users, but it does not come meanwhile: it would mend what a test has broken
    "autovacuum_naptime": "24d",
    # what these three save us from is a crash of the machine
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


@pytest.fixture(scope="session")
def server() -> Iterator[local.LocalServer]:
    """A server in a folder of this test run; the workers of pytest-xdist share it.

    Or the throw-away one that PGMRL_TEST_URL names, a superuser's URL, to test with another version of PostgreSQL.
    """
    if given := os.environ.get("PGMRL_TEST_URL"):
        yield _prepared(cast("local.LocalServer", GivenServer(given)))
        return
    # not below pytest's own folder: that is closed to the unprivileged user the server runs as where we are root
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    data = Path(tempfile.gettempdir()) / f"pgmrl-tests-{run}"
    with local.start(data, database="postgres") as running:
        yield _prepared(running)
    if local.status(data) is None:  # the last worker to leave
        shutil.rmtree(data, ignore_errors=True)


class GivenServer:
    """A server that is there already.

    Args:
        url: of any of its databases.

    """

    def __init__(self, url: str) -> None:
        self._url = make_url(database.sqlalchemy_url(url))

    def url(self, name: str) -> str:
        """The URL of a database."""
        return self._url.set(database=name).render_as_string(hide_password=False)


def _prepared(server: local.LocalServer) -> local.LocalServer:
    with admin(server) as connection:
        for name, value in SETTINGS.items():
            connection.execute(text(f"ALTER SYSTEM SET {name} = '{value}'"))
        connection.execute(text("SELECT pg_reload_conf()"))
    shared_database(server, TEMPLATE, _install, template="template1")
    return server


def _install(engine: Engine) -> None:
    with engine.begin() as connection:
        database.upgrade(connection)


@pytest.fixture(scope="module")
def template() -> str:
    """What a test's own database is a copy of; a module whose tests all begin with the same rows overrides it."""
    return TEMPLATE


@pytest.fixture
def database_url(server: local.LocalServer, template: str) -> Iterator[str]:
    """A database of its own for one test, with pgvector and pgmrl's schema; a URL for SQLAlchemy with psycopg 3."""
    with new_database(server, "test", template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(server: local.LocalServer) -> Iterator[str]:
    """As `database_url`, shared by the tests of one module that only read what a fixture of theirs loaded."""
    with new_database(server, "module") as url:
        yield url


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
    with connected(database_url) as engine:
        yield engine


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
    with connected(module_database_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Real text with real embeddings, made once for all workers of the run."""
    folder = tmp_path_factory.getbasetemp()
    return load(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


class Wares(NamedTuple):
    """Real passages with 96 dimensions of their vectors, searched by SQL functions; tests only read it.

    Attributes:
        engine: on the database; the functions are `passages_…`.
        table: `passages`.
        vectors: as stored, shape (n, 96), by id.
        queries: real query vectors, shape (1500, 96).
        passages: what the rows say, by id.
    """

    engine: Engine
    table: Table
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    passages: list[Passage]

    def literal(self, number: int) -> str:
        """A query vector as a BI tool has it: text."""
        return vector_text(self.queries[number])

    def nearest(self, query: Any, k: int = 10, where: Any = None) -> list[int]:
        """The ids of the k nearest passages under cosine, by NumPy, of those that `where` lets through."""
        ids = np.array([n for n, one in enumerate(self.passages) if where is None or where(one)], np.int64)
        rows, one = self.vectors[ids].astype(np.float64), np.asarray(query, np.float16).astype(np.float64)
        distances = 1 - rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
        return [int(n) for n in ids[np.argsort(distances, kind="stable")[:k]]]


WARES = 4_000
WORDS = "to_tsvector('english'::regconfig, COALESCE(name, '') || ' ' || COALESCE(text, ''))"
FILTERS = ("package", "length >=", "length <=", "package in", "tags contains")


def vector_text(vector: Any) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"


@pytest.fixture(scope="session")
def wares(server: local.LocalServer, corpus: Corpus) -> Iterator[Wares]:
    """4,000 passages, then ten without a vector and ten with a zero one; three named queries; every SQL function."""
    table = Table(
        "passages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("name", Text),
        Column("text", Text),
        Column("package", Text),
        Column("length", Integer),
        Column("tags", ARRAY(Text)),
        Column("words", TSVECTOR, Computed(WORDS, persisted=True)),
        Column("embedding", Matryoshka(96, Short(32))),
    )
    Index("passages_words", table.c.words, postgresql_using="gin")
    url = shared_database(server, "wares", lambda engine: _fill(engine, table, corpus))
    stored = corpus.documents[:WARES, :96].astype(np.float16).astype(np.float32)
    with connected(url) as engine:
        yield Wares(engine, table, stored, corpus.queries[:, :96], corpus.passages[:WARES])


def _fill(engine: Engine, table: Table, corpus: Corpus) -> None:
    rows = [
        facts(passage, "name", "text", "package", "length", "tags") | {"id": n, "embedding": corpus.documents[n, :96]}
        for n, passage in enumerate(corpus.passages[:WARES])
    ]
    empty = [{"id": WARES + n, "name": "x", "embedding": None if n % 2 else np.zeros(96)} for n in range(20)]
    named = text("INSERT INTO pgmrl.queries VALUES ('passages', 'embedding', :name, 'a question', 'static', :vector)")
    functions = SqlFunctions(filters=FILTERS, related=5, stored=True, group_by="package", words="words")
    with engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), rows)
            connection.execute(table.insert(), empty)
        install_functions(connection, table.c.embedding, functions)
        # as if this model had embedded the passages: words find the rows nearest to their vector
        with tempfile.TemporaryDirectory() as folder:
            model = load_token_model(str(write_model(Path(folder) / "letters", dims=96)))
        install_model(connection, "letters", model)
        asked = SqlFunctions(filters=FILTERS, name="asked", words="words", model="letters")
        install_functions(connection, table.c.embedding, asked)
        for number, name in enumerate(("asyncio", "it's", "büro")):
            vector = vector_text(corpus.queries[number, :96])
            connection.execute(named, {"name": name, "vector": vector})
    vacuum(engine)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not tested here, and why: one line for each reason."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")
