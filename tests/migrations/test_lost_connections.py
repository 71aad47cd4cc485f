"""Connections that the server ends during a migration or a reshape: one error, and the next run completes it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from pgmrl.database.connection import execute_plain as run
from pgmrl.database.table_state import table_state
from pgmrl.errors import PgmrlError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.contract import contract, pending_contraction
from pgmrl.online.expand import expand
from pgmrl.online.index_builds import Build, build
from pgmrl.online.reshape import reshape
from pgmrl.online.target import Target
from pgmrl.online.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENV = """
from alembic import context
import pgmrl.alembic
with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
from alembic import op
from pgmrl import Definition, Hnsw, Short
revision, down_revision = "a1", None
WHERE = ("documents", "embedding", Definition.of(8, Short(4), full="vector"))

def upgrade():
    op.add_short(*WHERE, online={online})
    if {online}:
        op.backfill_short(*WHERE)
        op.validate_short(*WHERE)
    op.create_short_index(*WHERE, index=Hnsw(4, 16), concurrently={online})

def downgrade():
    pass
"""
TARGET = Target("documents", "embedding", Definition.of(8, Short(4), full="vector"))


class Ending:
    """Ends the connection of the nth statement that an engine is about to send; counts them."""

    def __init__(self, engine: Engine, place: int | None) -> None:
        self.engine, self.place, self.sent = engine, place, 0
        self.ended: str | None = None

    def __call__(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        """Before a statement."""
        self.sent += 1
        if self.sent == self.place:
            pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
            killer = create_engine(self.engine.url)
            with killer.connect() as other:
                assert run(other, f"SELECT pg_terminate_backend({pid}, 60000)").scalar_one(), "it was alive"
            killer.dispose()
            self.ended = statement


@contextmanager
def ending(engine: Engine, place: int | None) -> Iterator[Ending]:
    """Within the block, the connection of the nth statement is ended."""
    listener = Ending(engine, place)
    event.listen(engine, "before_cursor_execute", listener)
    try:
        yield listener
    finally:
        event.remove(engine, "before_cursor_execute", listener)


def made(engine: Engine, *, short: bool) -> None:
    """A table with rows; with a short column that triggers keep, and its index."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(8))")
        if short:
            for statement in steps.add_online(TARGET):
                run(connection, statement)
        run(
            connection,
            "INSERT INTO documents SELECT n, ARRAY[n, 2, 3, 4, 5, 6, 7, sin(n)]::vector "
            "FROM generate_series(1, 500) AS n",
        )
        if short:
            build(connection, TARGET, Hnsw(4, 16))


def one_clear_error(engine: Engine, work: Callable[[], Any], place: int) -> bool:
    """Whether the connection of the nth statement was ended, and with it the work, by an error that says so."""
    with ending(engine, place) as listener:
        try:
            work()
        except (PgmrlError, OperationalError) as error:  # not PendingRollbackError, which is neither
            problem = str(error)
        else:
            return False
    assert "connection" in problem
    assert listener.ended is not None
    return True


PLACES = [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95]


@pytest.mark.parametrize("online", [True, False])
def test_a_migration(engine: Engine, tmp_path: Path, online: bool) -> None:
    """At statements from its first to its last."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions" / "a1.py").write_text(REVISION.format(online=online))
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.attributes["engine"] = engine

    def anew() -> None:
        with engine.begin() as connection:
            run(connection, "DROP TABLE IF EXISTS documents, alembic_version CASCADE")
        made(engine, short=False)

    anew()
    with ending(engine, None) as counted:
        command.upgrade(config, "head")
    ended = 0
    for share in PLACES:
        anew()
        ended += one_clear_error(engine, lambda: command.upgrade(config, "head"), max(1, int(counted.sent * share)))
        command.upgrade(config, "head")
        with engine.connect() as connection:
            validate(connection, TARGET)
    assert ended >= len(PLACES) - 1


def test_a_reshape(engine: Engine) -> None:
    """Of the full vectors, from the first statement to the last of the contraction."""

    def reshaped() -> None:
        with engine.connect() as connection:
            change = reshape(connection, "documents", "embedding", full_type="halfvec")
        assert expand(engine, change, Build())
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            contract(connection, pending_contraction(connection, "documents", "embedding_halfvec"), watch=0)

    def over() -> bool:
        with engine.connect() as connection:
            state = table_state(connection, None, "documents")
        return state is not None and "embedding" not in state.columns

    made(engine, short=True)
    with ending(engine, None) as counted:
        reshaped()
    ended = 0
    for share in PLACES:
        with engine.begin() as connection:
            run(connection, "DROP TABLE documents CASCADE")
        made(engine, short=True)
        ended += one_clear_error(engine, reshaped, max(1, int(counted.sent * share)))
        if not over():
            reshaped()
        with engine.connect() as connection:
            validate(connection, Target("documents", "embedding_halfvec", replace(TARGET.definition, full="halfvec")))
            assert run(connection, "SELECT count(embedding_halfvec) FROM documents").scalar_one() == 500
    assert ended >= len(PLACES) - 2  # what only reports progress may be ended without harm
