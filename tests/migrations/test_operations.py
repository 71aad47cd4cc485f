"""The operations inside an application's own linear Alembic history, run and printed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine

from pgmrl import database
from pgmrl.errors import DefinitionError
from pgmrl.model.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENV = """
from alembic import context
import pgmrl.alembic

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
"""
FIRST = """
from alembic import op
revision, down_revision = "a1", None

def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute("CREATE TABLE documents (id int PRIMARY KEY, embedding vector(8))")
    op.execute("INSERT INTO documents SELECT n, ARRAY[n, 2, 3, 4, 5, 6, 7, 8]::vector FROM generate_series(1, 20) AS n")

def downgrade():
    op.execute("DROP TABLE documents")
"""
SECOND = """
from alembic import op
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Definition, Short
revision, down_revision = "a2", "a1"
PREFIX = Definition.of(8, Short(4), full="vector")
ROTATED = Definition.of(8, Short(4, Rotation("{id}")), full="vector")

def upgrade():
    op.upgrade_pgmrl("0001")
    op.install_rotation("rotations/{id}.npy")
    op.add_short("documents", "embedding", PREFIX)
    op.create_short_index("documents", "embedding", PREFIX, concurrently=False)
    op.add_short("documents", "embedding", ROTATED)
    op.create_short_index("documents", "embedding", ROTATED, concurrently=False)

def downgrade():
    op.drop_short("documents", ROTATED.short_name("embedding"))
    op.drop_short("documents", PREFIX.short_name("embedding"))
    op.upgrade_pgmrl("base")
"""


@pytest.fixture
def application(tmp_path: Path) -> Callable[..., Config]:
    """An application's migrations: its table, then pgmrl's part."""
    rotation = Rotation.of(np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0][:4])
    rotation.save(tmp_path / "rotations")
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions" / "a1.py").write_text(FIRST)
    (tmp_path / "versions" / "a2.py").write_text(SECOND.replace("{id}", str(rotation.id)))

    def config(connection: Connection | None = None, output: io.StringIO | None = None) -> Config:
        config = Config(output_buffer=output) if output else Config()
        config.set_main_option("script_location", str(tmp_path))
        config.attributes["connection"] = connection
        return config

    return config


def state(connection: Connection) -> tuple[Any, ...]:
    """What the migrations made: columns, values, pgmrl's revision, the application's."""
    infos = [
        (info.short_column, info.shortening, info.metric, info.index_name, info.index_valid)
        for info in database.columns(connection)
    ]
    rows = [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM documents ORDER BY id")]
    versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    return infos, rows, versions, database.installed_revision(connection)


def test_up_and_down_in_one_history(empty: Engine, application: Callable[..., Config]) -> None:
    """`alembic upgrade head` with a single head, and all the way back."""
    with empty.begin() as connection:
        command.upgrade(application(connection), "head")
    with empty.begin() as connection:
        infos, rows, versions, current = state(connection)
        assert [info[1] for info in infos] == ["rotation", "prefix"]
        assert all(info[2] == "cosine" and info[4] for info in infos)
        assert all(None not in row for row in rows)
        assert len(rows) == 20
        assert (versions, current) == (["a2"], "0001")
    with empty.begin() as connection:
        command.downgrade(application(connection), "a1")
        assert database.columns(connection) == []
        assert database.installed_revision(connection) is None
        left = connection.exec_driver_sql(r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'zz\_pgmrl\_%%'")
        assert left.scalar_one() == 0
    with empty.begin() as connection:
        command.upgrade(application(connection), "head")
        assert state(connection)[1] == rows


def test_the_triggers_work_afterwards(empty: Engine, application: Callable[..., Config]) -> None:
    """A row written later has both short vectors, and the backfill's bypass is over."""
    with empty.begin() as connection:
        command.upgrade(application(connection), "head")
        connection.exec_driver_sql("INSERT INTO documents SELECT 100, embedding FROM documents WHERE id = 5")
        first, second = connection.exec_driver_sql("SELECT * FROM documents WHERE id IN (5, 100) ORDER BY id").all()
    assert first[1:] == second[1:]
    assert None not in second


def test_the_printed_history_gives_the_same(empty: Engine, application: Callable[..., Config], engine: Engine) -> None:
    """`alembic upgrade head --sql`."""
    printed = io.StringIO()
    command.upgrade(application(output=printed), "head", sql=True)
    with empty.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor: Any = connection.connection.cursor()
        cursor.execute(printed.getvalue())
        offline = state(connection)
    with engine.begin() as connection:
        database.downgrade(connection)
        command.upgrade(application(connection), "head")
        assert state(connection) == offline


def test_where_pgmrl_is_installed_already(engine: Engine, application: Callable[..., Config]) -> None:
    """By `pgmrl upgrade` or `pgmrl fit-rotation`, before the migration that says it."""
    with engine.begin() as connection:
        command.upgrade(application(connection), "head")
        assert len(database.columns(connection)) == 2
        assert database.installed_revision(connection) == database.NEWEST_REVISION


def test_a_revision_that_does_not_exist(empty: Engine, application: Callable[..., Config], tmp_path: Path) -> None:
    """Named with those there are."""
    path = tmp_path / "versions" / "a2.py"
    path.write_text(path.read_text().replace('op.upgrade_pgmrl("0001")', 'op.upgrade_pgmrl("9999")'))
    with (
        empty.begin() as connection,
        pytest.raises(DefinitionError, match=r"expected one of the revisions 0001, got '9999'"),
    ):
        command.upgrade(application(connection), "head")
