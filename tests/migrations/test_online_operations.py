"""The online path inside an application's own Alembic history: run, killed and run again, undone, printed, refused."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine

from pgmrl import database
from pgmrl.database.connection import execute_plain as run
from pgmrl.errors import DefinitionError, MigrationError, NotMigrated, RotationError
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import backfill, index_builds, validation
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENV = """
from alembic import context
import pgmrl.alembic

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif attributes.get("connection") is not None:
    context.configure(connection=attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
else:
    with attributes["engine"].connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
"""
FIRST = """
from alembic import op
revision, down_revision = "a1", None

def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute("CREATE TABLE {table} (id int PRIMARY KEY, {column} vector(8)) {tail}")
    op.execute("INSERT INTO {table} SELECT n, ARRAY[n, 2, 3, 4, 5, 6, 7, sin(n)]::vector "
               "FROM generate_series(1, 500) AS n")
    op.upgrade_pgmrl("0001")

def downgrade():
    op.upgrade_pgmrl("base", "0001")
    op.execute("DROP TABLE {table}")
"""
SECOND = """
from alembic import op
from pgmrl import Definition, Hnsw, Rotation, Short
revision, down_revision = "a2", "a1"
SHORT = Definition.of(8, Short({short}), full="vector")
WHERE = ("{name}", "{full}", SHORT)

def upgrade():
    op.execute("CREATE TABLE earlier (id int)")
    op.add_short(*WHERE, online=True)
    op.backfill_short(*WHERE)
    op.validate_short(*WHERE)
    op.create_short_index(*WHERE, index=Hnsw(4, 16), maintenance_work_mem="8MB")
    op.execute("CREATE TABLE later (id int)")

def downgrade():
    op.execute("DROP TABLE later")
    op.drop_short_index(*WHERE, index=Hnsw(4, 16))
    op.drop_short("{name}", SHORT.short_name("{full}"))
    op.execute("DROP TABLE earlier")
"""
TARGET = Target("documents", "embedding", Definition.of(8, Short(4), full="vector"))


class Application:
    """An application's migrations in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "versions").mkdir()
        (folder / "env.py").write_text(ENV)
        self.write()

    def write(self, short: str = "4", name: str = "documents", full: str = "embedding", **first: str) -> None:
        """Its two revisions."""
        names = {"table": "documents", "column": "embedding", "tail": ""} | first
        (self.folder / "versions" / "a1.py").write_text(FIRST.format(**names))
        (self.folder / "versions" / "a2.py").write_text(SECOND.format(short=short, name=name, full=full))

    def config(self, engine: Engine | None, connection: Connection | None = None, output: Any = None) -> Config:
        """Alembic's configuration."""
        config = Config(output_buffer=output) if output else Config()
        config.set_main_option("script_location", str(self.folder))
        config.attributes.update(engine=engine, connection=connection)
        return config


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """The application."""
    return Application(tmp_path)


def state(engine: Engine) -> dict[str, Any]:
    """What a migration can change: columns, indexes, triggers, functions, tables, values."""
    questions = {
        "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attstorage::text "
        "FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace "
        "AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p') ORDER BY 1, attnum",
        "indexes": "SELECT i.relname, x.indisvalid, i.reloptions FROM pg_index x JOIN pg_class i ON i.oid = indexrelid "
        "WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        "triggers": "SELECT tgrelid::regclass::text, tgname, tgargs FROM pg_trigger WHERE NOT tgisinternal "
        "AND tgrelid::regclass::text NOT LIKE 'pgmrl.%' ORDER BY 1, 2",
        "functions": "SELECT proname FROM pg_proc WHERE proname LIKE 'zz%' ORDER BY 1",
        "rows": "SELECT * FROM documents ORDER BY 1",
        "version": "SELECT version_num FROM alembic_version",
    }
    with engine.connect() as connection:
        return {name: [tuple(row) for row in run(connection, query)] for name, query in questions.items()}


def test_all_of_it(empty: Engine, application: Application) -> None:
    """Up, down, and up again."""
    command.upgrade(application.config(empty), "a1")
    before = state(empty)
    command.upgrade(application.config(empty), "head")
    after = state(empty)
    with empty.connect() as connection:
        validation.validate(connection, TARGET)
        [info] = database.columns(connection)
        assert (info.kept_by, info.index_valid, info.metric) == ("trigger", True, "cosine")
        assert run(connection, "SHOW maintenance_work_mem").scalar_one() != "8MB"
    command.downgrade(application.config(empty), "a1")
    assert state(empty) == before
    command.upgrade(application.config(empty), "head")
    assert state(empty) == after


def test_printed(empty: Engine, application: Application, engine: Engine) -> None:
    """`alembic upgrade --sql`, executed statement by statement, gives the same."""
    output = io.StringIO()
    command.upgrade(application.config(None, output=output), "head", sql=True)
    with empty.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        part, dollar = "", False
        for line in output.getvalue().splitlines(keepends=True):
            part += line
            dollar ^= (line.count("$$") + line.count("$pgmrl$")) % 2 == 1
            if not dollar and line.rstrip().endswith(";"):
                run(connection, part)
                part = ""
    with engine.begin() as connection:
        database.downgrade(connection)
        run(connection, "DROP SCHEMA pgmrl CASCADE")
    command.upgrade(application.config(engine), "head")
    assert state(empty) == state(engine)


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize(
    ("module", "name"),
    [(backfill, "backfill_on"), (validation, "validate"), (index_builds, "build"), (index_builds, "_build_one")],
    ids=["added", "filled", "validated", "at the build"],
)
@pytest.mark.parametrize("after", [False, True])
def test_killed_in_between(
    empty: Engine, application: Application, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, after: bool
) -> None:
    """`alembic upgrade head` once more completes it; what the migration did itself before is there once."""
    # what was committed with the first step must bear a second run, which is the application's part
    path = application.folder / "versions" / "a2.py"
    path.write_text(path.read_text().replace("CREATE TABLE earlier", "CREATE TABLE IF NOT EXISTS earlier"))
    original = getattr(module, name)

    def dying(*arguments: Any, **options: Any) -> Any:
        if after:
            original(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(Killed):
            command.upgrade(application.config(empty), "head")
    assert state(empty)["version"] == [("a1",)]
    command.upgrade(application.config(empty), "head")
    after_all = state(empty)
    assert after_all["version"] == [("a2",)]
    assert [valid for name, valid, _ in after_all["indexes"] if "hnsw" in name] == [True]
    with empty.connect() as connection:
        validation.validate(connection, TARGET)


def test_partitioned(empty: Engine, application: Application) -> None:
    """The parent's index is valid; downgrade leaves nothing."""
    application.write(tail="PARTITION BY HASH (id)")
    first = application.folder / "versions" / "a1.py"
    parts = "".join(
        f'    op.execute("CREATE TABLE part_{n} PARTITION OF documents FOR VALUES WITH (MODULUS 2, REMAINDER {n})")\n'
        for n in range(2)
    )
    first.write_text(first.read_text().replace('    op.execute("INSERT', f'{parts}    op.execute("INSERT'))
    command.upgrade(application.config(empty), "a1")
    before = state(empty)
    command.upgrade(application.config(empty), "head")
    assert [valid for name, valid, _ in state(empty)["indexes"] if "hnsw" in name] == [True] * 3
    command.downgrade(application.config(empty), "a1")
    assert state(empty) == before


def test_another_schema(empty: Engine, application: Application) -> None:
    """Named by schema=."""
    second = application.folder / "versions" / "a2.py"
    changed = second.read_text().replace("(*WHERE", '(*WHERE, schema="shop"')
    changed = changed.replace('SHORT.short_name("embedding"))', 'SHORT.short_name("embedding"), schema="shop")')
    second.write_text(changed)
    command.upgrade(application.config(empty), "a1")
    with empty.begin() as connection:
        run(connection, "CREATE SCHEMA shop; CREATE TABLE shop.documents (LIKE documents INCLUDING ALL)")
        run(connection, "INSERT INTO shop.documents SELECT * FROM documents")
    before = state(empty)
    command.upgrade(application.config(empty), "head")
    with empty.connect() as connection:
        [info] = database.columns(connection)
        assert (info.table_schema, info.index_valid) == ("shop", True)
        validation.validate(connection, Target("documents", "embedding", TARGET.definition, "shop"))
    command.downgrade(application.config(empty), "a1")
    assert state(empty) == before


# -- bad input -----------------------------------------------------------------------------------------------------

ROTATION = Rotation.of(np.eye(8)[:4])
BAD: dict[str, tuple[dict[str, str], str, type[Exception], str]] = {
    "no such table": ({"name": "nothing"}, "", MigrationError, "there is no table nothing: check its name"),
    "no such column": ({"full": "nothing"}, "", MigrationError, "no column 'nothing'; its vector columns: embedding"),
    "another type": (
        {},
        "ALTER TABLE documents ADD COLUMN embedding_short_4 text",
        MigrationError,
        r"a column documents\.embedding_short_4 of type text is in the way: rename it",
    ),
    "other dimensions": (
        {},
        "ALTER TABLE documents ALTER embedding TYPE vector",
        MigrationError,
        r"documents\.embedding: expected vector\(8\) as the definition says, got vector: a column without",
    ),
    "no rotation": (
        {"short": f"4, Rotation('{ROTATION.id}')"},
        "",
        RotationError,
        "is not in this database: op.install_rotation comes first",
    ),
    "a long name": ({"short": f"4, name='{'x' * 64}'"}, "", DefinitionError, "a name of 1 to 63 bytes"),
    "a name of many bytes": ({"short": f"4, name='{'é' * 32}'"}, "", DefinitionError, "a name of 1 to 63 bytes"),
    "no primary key": (
        {},
        "ALTER TABLE documents DROP CONSTRAINT documents_pkey",
        MigrationError,
        "has no primary key, by which a backfill goes: add one",
    ),
    "a view": ({"name": "seen"}, "CREATE VIEW seen AS TABLE documents", MigrationError, "there is no table seen"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(empty: Engine, application: Application, case: str) -> None:
    """One clear error with the remedy, and nothing is changed."""
    names, prepared, kind, message = BAD[case]
    command.upgrade(application.config(empty), "a1")
    application.write(**names)
    with empty.begin() as connection:
        run(connection, prepared or "SELECT")
    before = state(empty)
    with pytest.raises(kind, match=message):
        command.upgrade(application.config(empty), "head")
    assert state(empty) == before


def test_pgmrls_schema_is_missing(empty: Engine, application: Application) -> None:
    """No trigger can be installed."""
    command.upgrade(application.config(empty), "a1")
    with empty.begin() as connection:
        database.downgrade(connection)
    before = state(empty)
    with pytest.raises(NotMigrated, match=r"not installed in this database: run .*op\.upgrade_pgmrl\('0001'\)"):
        command.upgrade(application.config(empty), "head")
    assert state(empty) == before


def test_a_transaction_that_is_not_alembics(empty: Engine, application: Application) -> None:
    """Nobody may commit it but its owner."""
    command.upgrade(application.config(empty), "a1")
    before = state(empty)
    with empty.connect() as connection:
        run(connection, "SELECT 1")
        with pytest.raises(MigrationError, match="this connection's transaction is not Alembic's: give"):
            command.upgrade(application.config(None, connection), "head")
        connection.rollback()
    assert state(empty) == before


@pytest.fixture
def clerk(empty: Engine) -> Iterator[Callable[[], Engine]]:
    """Connections of a role that owns nothing; the role is made when it is asked for."""
    engines: list[Engine] = []
    name = f"stranger_in_{empty.url.database}"

    def make() -> Engine:
        with empty.begin() as connection:
            run(connection, f"CREATE ROLE {name}")
            run(
                connection,
                f"GRANT ALL ON documents, alembic_version TO {name}; GRANT ALL ON SCHEMA public TO {name}",
            )
        engines.append(create_engine(empty.url, connect_args={"options": f"-c role={name}"}))
        return engines[0]

    yield make
    for engine in engines:
        engine.dispose()
    with empty.begin() as connection:
        run(connection, f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_not_the_owner(empty: Engine, application: Application, clerk: Callable[[], Engine]) -> None:
    """Told which role is."""
    command.upgrade(application.config(empty), "a1")
    stranger = clerk()
    before = state(empty)
    with pytest.raises(MigrationError, match=r"documents belongs to \w+: run this as \w+ \(SET ROLE\), not as"):
        command.upgrade(application.config(stranger), "head")
    assert state(empty) == before
