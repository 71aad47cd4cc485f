"""What is said before a migration runs: plans, findings, `pgmrl check-migration`, `reshape`, `backfill`, `progress`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine

from pgmrl import Definition, Hnsw, Short
from pgmrl.database.connection import execute_plain
from pgmrl.database.index_states import index_states
from pgmrl.online import index_builds, locks, plan, preflight, steps
from pgmrl.online.backfill import short_fill
from pgmrl.online.index_statements import Build, create_statement
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.cli import failure, ok, ok_json, run
from tests.migrations.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("place")

DEFINITION = Definition.of(64, Short(16), full="vector")
TARGET = Target("documents", "embedding", DEFINITION)
ROWS = 3_000


TOUCH = (
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER touched BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION touch()"
)


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit, on a database with the table."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE TABLE documents (id int PRIMARY KEY, embedding vector(64), title text)")
        vector = "(SELECT array_agg(random() - 0.5) FROM generate_series(1, 64) WHERE n = n)::vector"
        rows = f"generate_series(1, {ROWS}) AS n"
        connection.exec_driver_sql(f"INSERT INTO documents SELECT n, {vector}, 'a' FROM {rows}")
        connection.exec_driver_sql("VACUUM ANALYZE documents")
        yield connection


def findings(connection: Connection, **options: Any) -> dict[str, preflight.Finding]:
    """The findings for the online path, by subject."""
    size = plan.size_of(connection, TARGET.owner)
    planned = [plan.add(TARGET, online=True, size=size), plan.fill(TARGET, size, "UPDATE …")]
    planned.append(plan.index(TARGET, Hnsw(), Build(), size))
    listed = preflight.check(connection, TARGET, planned, by_trigger=True, index=Hnsw(), build=Build(), **options)
    return {finding.subject: finding for finding in listed}


def add_online(connection: Connection, target: Target = TARGET) -> None:
    """The short column, empty, with its trigger."""
    locks.in_transaction(connection, [locks.lock_table(target.owner), *steps.add_online(target)], target.owner)


# -- findings ------------------------------------------------------------------------------------------------------


def test_nothing_in_the_way(auto: Connection) -> None:
    """On a quiet database there are notes: the disk, the memory."""
    listed = findings(auto)
    assert {name: one.level for name, one in listed.items()} == dict.fromkeys(
        ("table", "disk", "maintenance_work_mem"), "note"
    )
    assert re.match(
        rf"documents has about {ROWS:,} rows, .* [kM]B, .* [kM]B with its indexes; nothing is rewritten",
        listed["table"].message,
    )


@pytest.mark.parametrize(
    ("statement", "subject", "level", "message"),
    [
        (
            TOUCH,
            "triggers",
            "warning",
            r"for every row that is backfilled: touched\..*--without-triggers",
        ),
        (
            "CREATE INDEX old ON documents USING hnsw (embedding vector_cosine_ops) WITH (m = 4, ef_construction = 8)",
            "vector indexes",
            "warning",
            r"vector indexes already \(old\)",
        ),
        ("ALTER TABLE documents DROP CONSTRAINT documents_pkey", "primary key", "error", "no primary key.*add one"),
        (
            "ALTER TABLE documents ADD COLUMN embedding_short_16 text",
            "definition",
            "error",
            "of type text is in the way",
        ),
        (
            "ALTER TABLE documents RENAME COLUMN embedding TO other",
            "definition",
            "error",
            "no column 'embedding'.*other",
        ),
        ("SET maintenance_work_mem = '1MB'", "maintenance_work_mem", "warning", "is 1MB: past it.*give it more"),
    ],
)
def test_what_is_in_the_way(auto: Connection, statement: str, subject: str, level: str, message: str) -> None:
    """Each with its remedy."""
    auto.exec_driver_sql(statement)
    finding = findings(auto)[subject]
    assert finding.level == level
    assert re.search(message, finding.message)


def test_disk(auto: Connection) -> None:
    """Too little room is an error, before anything is written."""
    assert findings(auto, free_space=1000)["disk"].level == "error"
    assert findings(auto, free_space=10**12)["disk"].level == "note"
    with pytest.raises(ValueError, match="expected a size such as 50GB or 800MB, got 'lots'"):
        preflight.parse_size("lots")
    assert preflight.parse_size("1.5 GB") == 1.5 * 1024**3


def test_a_long_transaction(auto: Connection, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A concurrent build waits for it; whoever holds the table is told apart."""
    monkeypatch.setattr(preflight, "LONG", 0)
    with engine.connect() as other:
        other.exec_driver_sql("LOCK TABLE documents IN ACCESS SHARE MODE")
        time.sleep(0.05)
        finding = findings(auto)["transaction"]
    assert finding.level == "warning"
    assert "holds the table: let it end, or SELECT pg_terminate_backend(" in finding.message


def test_an_older_pgvector(auto: Connection) -> None:
    """By the catalogue's number: vacuuming HNSW was broken before 0.8.4."""
    auto.exec_driver_sql("UPDATE pg_extension SET extversion = '0.8.2' WHERE extname = 'vector'")
    with pytest.warns(match=r"pgvector 0\.8\.2"):
        assert findings(auto)["pgvector"].level == "warning"
    auto.exec_driver_sql("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    assert findings(auto)["pgvector"].level == "error"


def test_a_rewrite_is_named(auto: Connection) -> None:
    """The generated column; how large, and what it stops."""
    size = plan.size_of(auto, TARGET.owner)
    planned = [plan.add(TARGET, online=False, size=size)]
    [note] = [
        finding for finding in preflight.check(auto, TARGET, planned, by_trigger=False) if finding.subject == "rewrite"
    ]
    assert f"all {ROWS:,} rows" in note.message
    assert "nobody reads or writes until it is done" in note.message
    assert planned[0].lock == "ACCESS EXCLUSIVE"


@pytest.mark.parametrize("short", [Short(16), Short(64), Short(64, type="bit"), Short(8, type="vector")])
@pytest.mark.parametrize("index", [Hnsw(4, 8), Hnsw(16, 40)])
def test_the_index_is_as_large_as_expected(auto: Connection, short: Short, index: Hnsw) -> None:
    """Within a quarter: the formula follows pgvector's page layout."""
    target = Target("documents", "embedding", Definition.of(64, short, full="vector"))
    add_online(auto, target)
    auto.exec_driver_sql(f"UPDATE documents SET {target.short} = {target.value}")
    index_builds.build(auto, target, index)
    [state] = index_states(auto, "documents", target.short)
    assert state.bytes == pytest.approx(plan.index_bytes(target, index, ROWS), rel=0.25)


def test_a_table_that_was_never_analyzed(engine: Engine) -> None:
    """Its rows are counted from a sample, not taken for none."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            "CREATE TABLE fresh WITH (autovacuum_enabled = off) AS SELECT * FROM generate_series(1, 5000)"
        )
        assert plan.size_of(connection, "fresh").rows == 5000


# -- check-migration -----------------------------------------------------------------------------------------------


def test_check_migration_changes_nothing(auto: Connection) -> None:
    """It prints steps, SQL, locks and room; a second run says the same."""
    before = auto.exec_driver_sql("SELECT count(*) FROM pg_attribute WHERE attrelid = 'documents'::regclass").scalar()
    # what is free on the disk, which others use, would be another number each time
    command = ("check-migration", "documents.embedding", "--short-dims", 16, "--free-space", "50GB")
    first = ok(*command)
    for part in (
        "ALTER TABLE documents ADD COLUMN",
        "ACCESS EXCLUSIVE, a moment",
        "CREATE INDEX CONCURRENTLY",
        "of disk",
    ):
        assert part in first
    assert ok(*command) == first
    assert (
        auto.exec_driver_sql("SELECT count(*) FROM pg_attribute WHERE attrelid = 'documents'::regclass").scalar()
        == before
    )


def test_check_migration_for_machines(auto: Connection) -> None:
    """--json, and exit code 1 where it would fail."""
    auto.exec_driver_sql("ALTER TABLE documents DROP CONSTRAINT documents_pkey")
    result = run("check-migration", "documents.embedding", "--short-dims", 16, "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)[0]["findings"][0]["subject"] == "primary key"
    [checked] = ok_json("check-migration", "documents.embedding", "--short-dims", 16, "--in-place")
    assert [step["rewrites"] for step in checked["steps"]] == [True, False]
    assert checked["room_bytes"] == sum(step["room_bytes"] for step in checked["steps"])


ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, pool
import pgmrl.alembic

url = os.environ["DATABASE_URL"]
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
MIGRATION = """
from alembic import op
from pgmrl import Definition, Hnsw, Short
revision, down_revision = "a1", None
DEFINITION = Definition.of(64, Short(16), full="vector")

def upgrade():
    op.execute("SELECT 1")
    op.upgrade_pgmrl("0001")
    op.add_short("documents", "embedding", DEFINITION, online=True)
    op.backfill_short("documents", "embedding", DEFINITION)
    op.create_short_index("documents", "embedding", DEFINITION, index=Hnsw(8, 40))
    op.validate_short("documents", "embedding", DEFINITION)

def downgrade():
    op.drop_short("documents", "embedding_short_16")
"""


@pytest.fixture
def application(place: Path) -> Path:
    """An application's migrations, one of them pending."""
    (place / "versions").mkdir()
    (place / "env.py").write_text(ENV)
    (place / "versions" / "a1.py").write_text(MIGRATION)
    config = place / "alembic.ini"
    config.write_text(f"[alembic]\nscript_location = {place}\n")
    return config


def test_pending_migrations(auto: Connection, application: Path) -> None:
    """Their operations are listed with their plan, and none is done."""
    [checked] = ok_json("check-migration", "--config", application)
    assert checked["title"] == "documents.embedding_short_16"
    titles = [step["title"] for step in checked["steps"]]
    assert titles == [
        "add documents.embedding_short_16, empty, and its trigger",
        "backfill documents.embedding_short_16",
        "build the HNSW index on documents.embedding_short_16",
        "check documents.embedding_short_16",
    ]
    assert auto.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is None
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=application.parent, check=True)
    assert "nothing of pgmrl's in these migrations" in ok("check-migration", "--config", application)


def test_pending_migrations_that_would_fail(auto: Connection, application: Path) -> None:
    """Exit code 1, with the reason."""
    auto.exec_driver_sql("ALTER TABLE documents ADD COLUMN embedding_short_16 text")
    result = run("check-migration", "--config", application)
    assert result.exit_code == 1
    assert "of type text is in the way" in result.output
    assert "there is no nothing.ini" in str(failure("check-migration", "--config", "nothing.ini"))
    assert run("check-migration").exit_code == 2


# -- backfill and progress -----------------------------------------------------------------------------------------


def test_backfill(auto: Connection) -> None:
    """From nothing to every row; then there is nothing to do, and it says so at once."""
    add_online(auto)
    assert "never started" in ok("backfill", "documents.embedding", "--status")
    [job] = ok_json("backfill", "documents.embedding", "--workers", 2)
    assert (job["finished"], job["rows_written"]) == (True, ROWS)
    assert "finished, 3,000 rows filled" in ok("backfill", "documents.embedding", "--status")
    assert "finished" in ok("progress")
    assert ok_json("progress")["backfills"][0]["finished"]
    validate(auto, TARGET)


def test_backfill_of_what_needs_none(auto: Connection) -> None:
    """A generated column, an unknown one, an unknown table."""
    for statement in steps.add_in_place(TARGET):
        auto.exec_driver_sql(statement)
    message = str(failure("backfill", "documents.embedding"))
    assert "embedding_short_16 (kept by generated)); a generated column needs no" in message
    assert "has no column 'nothing'" in str(failure("backfill", "documents.nothing"))
    assert "there is no table nothing" in str(failure("backfill", "nothing.embedding"))
    assert run("backfill", "documents.embedding", "--max-lag", "much").exit_code == 2


def test_stopped_from_another_terminal_and_by_a_signal(auto: Connection, engine: Engine) -> None:
    """`--stop`, then Ctrl-C; both finish the batch at hand, exit with 1, and lose nothing."""
    add_online(auto)
    command = [sys.executable, "-m", "pgmrl.cli", "backfill", "documents.embedding", "--max-rows-per-second", "300"]
    for stop in ("--stop", "signal"):
        process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603
        _until(engine, "SELECT count(*) > 0 FROM pgmrl.backfills WHERE state = 'running' AND rows_seen > 0", process)
        if stop == "--stop":
            ok("backfill", "documents.embedding", "--stop")
        else:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 1
        assert "%" in ok("backfill", "documents.embedding", "--status")
    ok("backfill", "documents.embedding")
    validate(auto, TARGET)


def _until(engine: Engine, question: str, process: subprocess.Popen[bytes]) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(600):
            if connection.exec_driver_sql(question).scalar():
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    raise AssertionError(question)


def test_progress_of_an_index_from_another_terminal(auto: Connection) -> None:
    """`pgmrl progress` shows the server's own words for a build that another session runs."""
    add_online(auto)
    more = "SELECT id + 10000 * g, embedding, title FROM documents, generate_series(1, 2) AS g"
    auto.exec_driver_sql(f"INSERT INTO documents {more}")
    build = threading.Thread(target=index_builds.build, args=(auto, TARGET, Hnsw(16, 200)))
    build.start()
    shown = []
    while build.is_alive():
        shown.append(ok("progress"))
    build.join()
    assert any(re.search(r"documents_embedding_short_16_hnsw on documents: .*building index", lines) for lines in shown)


def test_progress_where_nothing_was_ever_done() -> None:
    """A sentence, not an empty screen."""
    assert "No backfill was ever started here" in ok("progress")


# -- reshape -------------------------------------------------------------------------------------------------------


def test_reshape_from_the_command_line(auto: Connection) -> None:
    """Dry run, expand, status, contract; the model to deploy is printed."""
    for statement in [
        *steps.add_in_place(TARGET),
        create_statement(TARGET, Hnsw(8, 40), concurrently=False),
    ]:
        auto.exec_driver_sql(statement)
    dry = ok("reshape", "start", "documents.embedding", "--short-dims", 8, "--dry-run")
    assert "CREATE INDEX CONCURRENTLY documents_embedding_short_8_hnsw" in dry
    assert auto.exec_driver_sql("SELECT count(*) FROM pg_attribute WHERE attname = 'embedding_short_8'").scalar() == 0
    done = ok("reshape", "start", "documents.embedding", "--short-dims", 8)
    model = "matryoshka(64, Short(8, by=Prefix()), metric='cosine', full='vector', index=Hnsw(m=8, ef_construction=40))"
    assert model in done
    status = ok("reshape", "status", "documents.embedding")
    assert "embedding_short_16 (in use" in status
    assert "embedding_short_8 (arriving" in status
    planned = ok("reshape", "contract", "documents.embedding", "--dry-run")
    assert "DROP INDEX CONCURRENTLY IF EXISTS documents_embedding_short_16_hnsw" in planned
    assert "dropped embedding_short_16" in ok("reshape", "contract", "documents.embedding", "--wait-seconds", 0.1)
    assert ok_json("reshape", "start", "documents.embedding", "--m", 12)["complete"]
    [state] = index_states(auto, "documents", "embedding_short_8")
    assert (state.index, state.valid) == (Hnsw(12, 40), True)
    ok("reshape", "start", "documents.embedding", "--full", "halfvec")
    assert "dropped embedding_halfvec_short_8" in ok("reshape", "undo", "documents.embedding")
    assert run("reshape", "start", "documents.embedding", "--by", "rotation").exit_code == 2


def test_reshape_without_room(auto: Connection) -> None:
    """It says so and does nothing."""
    for statement in steps.add_in_place(TARGET):
        auto.exec_driver_sql(statement)
    result = run("reshape", "start", "documents.embedding", "--short-dims", 8, "--free-space", "1MB")
    assert result.exit_code == 1
    assert "of disk are needed and 1.0 MB are free: make room" in result.output
    assert auto.exec_driver_sql("SELECT count(*) FROM pg_attribute WHERE attname = 'embedding_short_8'").scalar() == 0


# -- locks ---------------------------------------------------------------------------------------------------------

STRENGTH = ["AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock"]
STRENGTH += ["ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]


def strongest(connection: Connection, sql: tuple[str, ...]) -> str:
    """The strongest lock on the table that statements take, as pg_locks has it; they are rolled back."""
    execute_plain(connection, "BEGIN")
    try:
        for statement in sql:
            execute_plain(connection, statement)
        held = execute_plain(
            connection,
            "SELECT mode FROM pg_locks WHERE relation = 'documents'::regclass AND pid = pg_backend_pid() AND granted",
        )
        return str(max(held.scalars(), key=STRENGTH.index))
    finally:
        execute_plain(connection, "ROLLBACK")


def test_the_locks_are_those_that_are_said(auto: Connection) -> None:
    """Of each step that can run inside a transaction, read from pg_locks."""
    size = plan.size_of(auto, TARGET.owner)
    before = [plan.add(TARGET, online=True, size=size), plan.add(TARGET, online=False, size=size)]
    for step in before:
        assert strongest(auto, step.sql).lower() == f"{step.lock.replace(' ', '').lower()}lock"
    add_online(auto)
    fill = short_fill(auto, TARGET)
    plain = Build(concurrently=False)
    after = [
        plan.fill(TARGET, size, fill.statement()),
        plan.validate(TARGET),
        plan.index(TARGET, Hnsw(4, 8), plain, size),
        plan.drop(None, "documents", "embedding_short_16", "documents"),
    ]
    for step in after:
        assert strongest(auto, step.sql).lower() == f"{step.lock.replace(' ', '').lower()}lock", step.title


def test_the_lock_of_a_concurrent_build(auto: Connection, engine: Engine) -> None:
    """It holds SHARE UPDATE EXCLUSIVE, which neither reading nor writing notices."""
    add_online(auto)
    auto.exec_driver_sql(f"UPDATE documents SET {TARGET.short} = {TARGET.value}")
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            while not over.is_set():
                modes = execute_plain(
                    other,
                    "SELECT l.mode FROM pg_locks AS l JOIN pg_stat_progress_create_index AS p USING (pid) "
                    "WHERE l.relation = 'documents'::regclass",
                )
                seen.update(modes.scalars())

    def free_the_table() -> None:
        until(lambda: seen)  # the build waits for a writer until it has been looked at
        writer.rollback()

    threads = [threading.Thread(target=look), threading.Thread(target=free_the_table)]
    with engine.connect() as writer:
        writer.exec_driver_sql("LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        for thread in threads:
            thread.start()
        try:
            index_builds.build(auto, TARGET, Hnsw(16, 200))
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert "ShareUpdateExclusiveLock" in seen
    assert max(seen, key=STRENGTH.index) == "ShareUpdateExclusiveLock"
