"""A server whose pgvector is older than 0.8 is refused before anything is written; the wheel `pgserver` brings one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, NullPool, Table, create_engine, text

from pgmrl import Matryoshka, Short, check_schema, database
from pgmrl.errors import PgvectorMissing
from tests.cli import failure
from tests.servers import SERVERS, programs_of, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHEEL = SERVERS["pgvector 0.6"]
REFUSAL = r"pgvector: expected 0\.8\.0 or later, got 0\.6\.\d: run ALTER EXTENSION vector UPDATE"
documents = Table(
    "documents", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4)))
)


@pytest.fixture(scope="module")
def old_url() -> Iterator[str]:
    """The URL of a server with pgvector 0.6."""
    folder = programs_of(WHEEL)
    if folder is None:
        pytest.skip(f"no server with pgvector before 0.8: pip install {WHEEL.wheel}")
    with started(folder) as url:
        yield url


@pytest.mark.parametrize(
    "call",
    [
        database.upgrade,
        database.check_pgvector,
        lambda connection: check_schema(connection, documents.c.e),
    ],
    ids=["upgrade", "check_pgvector", "check_schema"],
)
def test_it_is_refused(old_url: str, call: Callable[[Connection], object]) -> None:
    """By one sentence that says what is there and what is needed; the database stays as it was."""
    engine = create_engine(database.sqlalchemy_url(old_url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    with engine.begin() as connection, pytest.raises(PgvectorMissing, match=REFUSAL):
        call(connection)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgmrl'")).scalar_one() == 0


def test_the_command_says_so(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pgmrl upgrade`: the same sentence."""
    monkeypatch.setenv("DATABASE_URL", old_url)
    assert "expected 0.8.0 or later, got 0.6." in str(failure("upgrade"))
