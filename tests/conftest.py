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
from sqlalchemy import Connection, Engine, create_engine, event, text

from pgmrl import database, local

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
        with _admin(running) as connection:
            _make_template(connection, running)
        yield running
    if local.status(data) is None:  # the last worker to leave
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def _admin(server: local.LocalServer) -> Iterator[Connection]:
    with database.connect(server.url("postgres")) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def _make_template(connection: Connection, server: local.LocalServer) -> None:
    connection.execute(text("SELECT pg_advisory_lock(1)"))  # one worker makes it, the others wait
    try:
        made = connection.execute(text(f"SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'")).first()
        if made is not None:
            return
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
    with _admin(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    yield database.sqlalchemy_url(server.url(name))
    with _admin(server) as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


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
