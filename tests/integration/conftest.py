"""What the tests on a real server share: a rotation of real vectors, binary COPY, plans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Connection, Select, event, text

from pgmrl.rotation import Rotation
from pgmrl.types import to_wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Engine

    class Vectors:
        """The fixture `debian` of tests/conftest.py."""

        documents: NDArray[np.float32]
        queries: NDArray[np.float32]
        packages: list[dict[str, Any]]


Copy = Callable[[Connection, str, "Sequence[str]", "Iterable[Sequence[Any]]"], None]
Plan = Callable[..., list[dict[str, Any]]]


def principal_axes(vectors: NDArray[np.float32], count: int) -> Rotation:
    """The leading principal axes, uncentred."""
    wide = vectors.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)
    return Rotation.of(axes[:, ::-1][:, :count].T)


@pytest.fixture(scope="session")
def rotation(debian: Vectors) -> Rotation:
    """256 axes learned from 5,000 real vectors of 768 dimensions."""
    return principal_axes(debian.documents[::14][:5000], 256)


@pytest.fixture(scope="session")
def small_rotation() -> Rotation:
    """Four axes of eight dimensions."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))
    return Rotation.of(q[:4])


@pytest.fixture(scope="session")
def copy() -> Copy:
    """Binary COPY of rows of integers, texts and vectors, by the driver alone."""

    def run(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as into:
            for row in rows:
                into.write_row([to_wire(v, "halfvec") if isinstance(v, np.ndarray) else v for v in row])

    return run


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The nodes of a Select's plan, outermost first."""

    def nodes(connection: Connection, statement: Select[Any], *, analyze: bool = False) -> list[dict[str, Any]]:
        compiled: Any = statement.compile(connection)
        options = "FORMAT JSON, ANALYZE, TIMING OFF" if analyze else "FORMAT JSON"
        params = {name: compiled._bind_processors.get(name, _same)(value) for name, value in compiled.params.items()}
        found: Any = connection.exec_driver_sql(f"EXPLAIN ({options}) {compiled}", params).scalar_one()
        return list(_walk((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))

    return nodes


def _same(value: Any) -> Any:
    return value


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from _walk(inner)


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """Every statement that the test's engine sends."""
    sent: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    yield sent
    event.remove(engine, "before_cursor_execute", record)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with engine.connect() as opened:
        yield opened


@pytest.fixture
def scalar(connection: Connection) -> Callable[..., Any]:
    """One value of a query on `connection`."""

    def ask(query: str, **parameters: Any) -> Any:
        return connection.execute(text(query), parameters).scalar_one()

    return ask
