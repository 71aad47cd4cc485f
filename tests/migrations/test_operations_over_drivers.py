"""Every operation over every driver, as an application's env.py has it; Alembic's async template with `run_sync`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import Definition, Hnsw, Rotation, Short, SqlFunctions, database
from pgmrl.database.sql import statements
from tests.integration.test_drivers import DRIVERS, socket_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PREFIX = Definition.of(8, Short(4), full="vector")
TABLE = (
    "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(8))",
    "INSERT INTO documents SELECT n, ARRAY[n, 2, 3, 4, 5, 6, 7, 8]::vector FROM generate_series(1, 50) AS n",
    "CREATE TABLE copies (id int PRIMARY KEY REFERENCES documents ON DELETE CASCADE, embedding vector(8))",
)


@pytest.fixture(scope="module")
def template() -> str:
    """An empty database."""
    return "template1"


@pytest.fixture(params=DRIVERS)
def migrate(request: pytest.FixtureRequest, database_url: str) -> Callable[[Callable[[Any], None]], None]:
    """Runs a migration's `upgrade(op)` through a driver."""
    driver: str = request.param
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    options = {"connect_args": {"unix_sock": socket_of(database_url)}} if driver == "pg8000" else {}
    url = url.set(query={}) if driver == "pg8000" else url

    def run(upgrade: Callable[[Any], None], connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
        with context.begin_transaction(_per_migration=True), Operations.context(context) as op:
            upgrade(op)

    async def asynchronously(upgrade: Callable[[Any], None]) -> None:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: run(upgrade, sync))
        await engine.dispose()

    def directly(upgrade: Callable[[Any], None]) -> None:
        if driver in {"asyncpg", "psycopg_async"}:
            asyncio.run(asynchronously(upgrade))
            return
        engine = create_engine(url, **options)
        with engine.connect() as connection:
            run(upgrade, connection)
        engine.dispose()

    return directly


def test_there_and_back(migrate: Any, database_url: str, tmp_path: Path) -> None:
    """A prefix, a rotation added online, a side table, functions; in the end nothing is left."""
    rotation = Rotation.of(np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0][:4])
    path = rotation.save(tmp_path)
    rotated = Definition.of(8, Short(4, by=rotation), full="vector")

    def up(op: Any) -> None:
        op.execute("CREATE EXTENSION vector")
        for statement in TABLE:
            op.execute(statement)
        op.upgrade_pgmrl("0001")
        op.install_rotation(str(path))
        op.set_storage("documents", "embedding", "main")
        op.add_short("documents", "embedding", PREFIX)
        op.create_short_index("documents", "embedding", PREFIX)
        op.rebuild_short_index("documents", "embedding", PREFIX, index=Hnsw(m=8))

    def online(op: Any) -> None:
        op.add_short("documents", "embedding", rotated, online=True)
        op.backfill_short("documents", "embedding", rotated)
        op.validate_short("documents", "embedding", rotated)
        op.create_short_index("documents", "embedding", rotated)
        op.keep_side("documents", "copies", ["id"], "embedding")
        op.install_functions("documents", "embedding", PREFIX, SqlFunctions(), keys={"id": "integer"}, types={})

    def down(op: Any) -> None:
        op.drop_functions("documents")
        op.drop_side("documents", "copies", "embedding")
        op.drop_short_index("documents", "embedding", rotated)
        op.drop_short("documents", rotated.short_name("embedding"))
        op.drop_short("documents", PREFIX.short_name("embedding"))
        op.remove_rotation(str(path))
        op.upgrade_pgmrl("base")

    migrate(up)
    migrate(online)
    with database.connect(database_url) as engine, engine.connect() as connection:
        infos = {info.short_column: info for info in database.columns(connection)}
        assert set(infos) == {PREFIX.short_name("embedding"), rotated.short_name("embedding")}
        assert all(info.index_valid for info in infos.values())
        short = rotated.short_name("embedding")
        assert connection.execute(text(f"SELECT count({short}) FROM documents")).scalar_one() == 50
        assert connection.execute(text("SELECT count(embedding) FROM copies")).scalar_one() == 50
    migrate(down)
    with database.connect(database_url) as engine, engine.connect() as connection:
        assert database.installed_revision(connection) is None
        assert database.columns(connection) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';''; ' ; SELECT \"a;\"", ["SELECT ';''; '", 'SELECT "a;"']),
        ("-- one; two\nSELECT 1;\n", ["-- one; two\nSELECT 1"]),
        (
            "DO $$ BEGIN; '$' END; $$; SELECT $1; DO $a$ ;$$; $a$;",
            ["DO $$ BEGIN; '$' END; $$", "SELECT $1", "DO $a$ ;$$; $a$"],
        ),
    ],
)
def test_statements_of_a_script(script: str, expected: list[str]) -> None:
    """Semicolons in quotes, bodies and comments end nothing."""
    assert statements(script) == expected
