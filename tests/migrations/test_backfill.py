"""Backfills of tables in use: every key, every road in and out, and the database's own account of them."""

from __future__ import annotations

import json
import signal
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, create_engine

from pgmrl import database
from pgmrl.database.connection import execute_plain as run
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Definition, Short
from pgmrl.names import qualified, quoted
from pgmrl.online import backfill as backfills
from pgmrl.online import steps, worker
from pgmrl.online.backfill import Fill, Throttle, backfill, backfill_on, full_fill, jobs, short_fill, stop
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.migrations import processes
from tests.migrations.processes import until, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIMS = 16
ROWS = 1_000
DEFINITION = Definition.of(DIMS, Short(4), full="vector")
TARGET = Target("documents", "embedding", DEFINITION)
QUICK = Throttle(pause=0.05)
SLOW = Throttle(max_rows_per_second=250, pause=0.05)
VECTOR = "(SELECT array_agg(sin(n * 7.3 + d * 1.7) + 0.01)::vector FROM generate_series(1, 16) AS d WHERE n = n)"


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def rotation() -> Rotation:
    """Orthonormal axes."""
    return Rotation.of(np.linalg.qr(np.random.default_rng(2).normal(size=(DIMS, DIMS)))[0][:8])


def table(
    connection: Connection,
    target: Target = TARGET,
    rows: int = ROWS,
    key: str = "id int PRIMARY KEY",
    value: str = "n",
    tail: str = "",
) -> None:
    """A table with full vectors, and its short column added online, so that it is empty; every tenth row has none."""
    run(connection, f"CREATE TABLE {target.owner} ({key}, {quoted(target.full)} vector(16)) {tail}")
    if tail:
        for part in range(3):
            name = qualified(target.schema, f"{target.table}_{part}")
            run(
                connection,
                f"CREATE TABLE {name} PARTITION OF {target.owner} FOR VALUES WITH (MODULUS 3, REMAINDER {part})",
            )
    run(
        connection,
        f"INSERT INTO {target.owner} SELECT {value}, CASE WHEN n % 10 > 0 THEN {VECTOR} END "
        f"FROM generate_series(1, {rows}) AS n",
    )
    for statement in steps.add_online(target):
        run(connection, statement)


def assert_right(connection: Connection, target: Target = TARGET) -> None:
    """Every row's short vector is what the definition computes, in NumPy and in SQL; none has one without a full."""
    validate(connection, target)
    short, full, definition = quoted(target.short), quoted(target.full), target.definition
    rows: list[Any] = list(run(connection, f"SELECT {full}::text, {short}::text FROM {target.owner}"))
    filled = [(one, other) for one, other in rows if one is not None]
    assert all(other is None for one, other in rows if one is None)
    if not filled:
        return
    expected = definition.shorten(np.array([json.loads(one) for one, _ in filled], np.float32))
    if definition.short.type == "bit":
        assert ["".join("01"[bit] for bit in row) for row in expected.astype(int)] == [other for _, other in filled]
    else:
        np.testing.assert_allclose(np.array([json.loads(other) for _, other in filled]), expected, atol=2e-3)


def left(connection: Connection, fill: Fill) -> int:
    """The number of rows that still have no value."""
    return int(run(connection, f"SELECT count(*) FROM {fill.owner} AS t WHERE {fill.missing}").scalar_one())


class Running:
    """A backfill in a thread."""

    def __init__(self, engine: Engine, target: Target = TARGET, throttle: Throttle = SLOW, **options: Any) -> None:
        self.answer: Any = None
        self.error: BaseException | None = None
        with engine.connect() as connection:
            fill = short_fill(connection, target)

        def work() -> None:
            try:
                self.answer = backfill(engine, fill, throttle, **options)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def joined(self) -> Any:
        """Its job, when it is over."""
        self.thread.join(60)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answer


def seen(connection: Connection, rows: int = 1) -> Callable[[], bool]:
    """Whether a backfill has got so far."""
    return lambda: any(job.rows_seen >= rows for job in jobs(connection))


# -- what is filled ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "short",
    [Short(4), Short(4, rotation()), Short(16, type="bit"), Short(8, type="vector"), Short(8, rotation(), type="bit")],
    ids=["prefix", "rotation", "bit", "vector", "rotated bits"],
)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_every_kind_of_short_vector(auto: Connection, engine: Engine, short: Short, metric: Any) -> None:
    """Filled as the definition says, in SQL and in NumPy; rows without a full vector stay without a short one."""
    with engine.begin() as connection:
        database.install_rotation(connection, rotation())
    target = Target("documents", "embedding", Definition.of(DIMS, short, metric, full="vector"))
    table(auto, target)
    job = backfill(engine, short_fill(auto, target), QUICK, workers=2)
    assert (job.finished, job.rows_written, job.rows_seen, job.state) == (True, 900, 1_000, "finished")
    assert_right(auto, target)
    assert run(auto, "SELECT count(*) FROM pgmrl.backfill_ranges").scalar_one() == 0


KEYS = {
    "composite": ("a int, b text, PRIMARY KEY (b, a)", "n % 7, (n / 7)::text"),
    "text": ("id text PRIMARY KEY", "chr(32 + n % 90) || E'\\'\"\\\\%s:x ' || n || 'é漢'"),
    "collated": ('id text COLLATE "pg_c_utf8" PRIMARY KEY', "chr(65 + n % 26) || chr(97 + n % 23) || n"),
    "char": ("id char(9) PRIMARY KEY", "'x' || n"),
    "uuid": ("id uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "timestamptz": ("id timestamptz PRIMARY KEY", "'2026-03-01'::timestamptz + n * interval '7 hours 1 microsecond'"),
    "date and interval": (
        "a date, b interval, PRIMARY KEY (a, b)",
        "'2026-01-01'::date + n / 9, n * interval '1 day 3 seconds'",
    ),
    "float": ("id float8 PRIMARY KEY", "n / 3.0::float8"),
    "numeric": ("id numeric PRIMARY KEY", "n / 7.0"),
    "bytea": ("id bytea PRIMARY KEY", "decode(md5(n::text), 'hex')"),
    "domain and enum": ("a positive, b colour, PRIMARY KEY (b, a)", "n, (ARRAY['red','blue'])[1 + n % 2]::colour"),
    "with a payload": ("id int, extra text, PRIMARY KEY (id) INCLUDE (extra)", "n, NULL"),
    "without order": ("b int, a int, PRIMARY KEY (a)", "1000 - n, (n * 7919) % 100003"),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_kind_of_key(auto: Connection, engine: Engine, key: str) -> None:
    """Each row is seen once, in small batches, by sessions whose formats differ."""
    run(auto, "CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE colour AS ENUM ('red', 'blue')")
    columns, value = KEYS[key]
    table(auto, key=columns, value=value)
    formats = ["-c datestyle=SQL,DMY -c intervalstyle=iso_8601 -c extra_float_digits=-5 -c timezone=Asia/Kolkata"]
    formats += ["-c datestyle=German -c bytea_output=escape -c lc_monetary=C -c timezone=America/St_Johns"]
    for options in formats:  # the second goes on where the first one was
        other = create_engine(engine.url, connect_args={"options": options})
        over = threading.Event()
        throttle = Throttle(max_rows_per_second=97, pause=0.05)

        def progress(job: backfills.Job, over: threading.Event = over) -> None:
            if 97 <= job.rows_seen < ROWS:
                over.set()

        assert not backfill(other, short_fill(auto, TARGET), throttle, stop_event=over, progress=progress).finished
        other.dispose()
    job = backfill(engine, short_fill(auto, TARGET), QUICK)
    assert (job.finished, job.rows_seen, job.rows_written) == (True, 1_000, 900)
    assert_right(auto)


HOSTILE = {
    "quotes": Target('my "table"', "em'bed", Definition.of(DIMS, Short(4, name="sh\"o'rt"), full="vector")),
    "percent": Target("50%s %(x)s", "a%b", Definition.of(DIMS, Short(4, name="%s"), full="vector")),
    "colons": Target("a:b ::c", ":full", Definition.of(DIMS, Short(4, name=":short"), full="vector")),
    "long": Target("t" * 63, "f" * 63, Definition.of(DIMS, Short(4, name="é" * 31), full="vector")),
    "case": Target("Documents", "Embedding", Definition.of(DIMS, Short(4, name="Short"), full="vector"), "My Schema"),
    "words": Target("table", "select", Definition.of(DIMS, Short(4, name="order"), full="vector"), "user"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(auto: Connection, engine: Engine, name: str) -> None:
    """Quotes, percent signs, colons, 63 bytes, another schema, reserved words; in the key as well."""
    target = HOSTILE[name]
    if target.schema is not None:
        run(auto, f"CREATE SCHEMA {quoted(target.schema)}")
    table(auto, target, rows=300, key='"the %s key:x" int PRIMARY KEY')
    job = backfill(engine, short_fill(auto, target), QUICK)
    assert (job.finished, job.rows_written, job.table_name) == (True, 270, target.table)
    assert_right(auto, target)
    run(auto, backfills.short_fill(auto, target).statement())  # as a plan prints it


def test_a_partitioned_table(auto: Connection, engine: Engine) -> None:
    """By the whole table's key, over its partitions; rows that move between them on the way."""
    table(auto, key="id int PRIMARY KEY", tail="PARTITION BY HASH (id)")
    running = Running(engine)
    until(seen(auto, 100))
    for row in range(1, 1_000, 37):
        run(auto, f"UPDATE documents SET id = {3_000 - row} WHERE id = {row}")
    assert running.joined().finished
    assert_right(auto)


def test_an_empty_table(auto: Connection, engine: Engine) -> None:
    """Is finished at once."""
    table(auto, rows=0)
    job = backfill(engine, short_fill(auto, TARGET), QUICK, workers=2)
    assert (job.finished, job.rows_seen, job.rows_written, job.part) == (True, 0, 0, 1.0)


def test_a_large_part_of_a_table_is_never_read_for_a_batch(auto: Connection, engine: Engine) -> None:
    """By a composite key without statistics, where the planner would rather read the whole table for each batch."""
    table(auto, rows=6_000, key="a int, b int, PRIMARY KEY (a, b)", value="n % 3, n")
    run(auto, "SELECT pg_stat_reset()")
    assert backfill(engine, short_fill(auto, TARGET), Throttle(max_rows_per_second=2_000, pause=9)).finished
    run(auto, "SELECT pg_stat_force_next_flush()")
    scans = until(lambda: run(auto, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'documents'").scalar())
    assert scans <= 2  # the last look at the whole table, in parallel perhaps


# -- while others write --------------------------------------------------------------------------------------------


def test_rows_written_meanwhile(auto: Connection, engine: Engine) -> None:
    """Inserted, changed, emptied, deleted, and moved by their key into the part that is done already."""
    table(auto)
    running = Running(engine)
    until(seen(auto, 200))
    run(auto, f"INSERT INTO documents SELECT -n, {VECTOR} FROM generate_series(1, 50) AS n")
    run(auto, f"INSERT INTO documents SELECT 5000 + n, {VECTOR} FROM generate_series(1, 50) AS n")
    run(auto, "UPDATE documents SET embedding = (embedding::float4[])[2:16]::float4[] || 0.5::float4 "
                         "WHERE id % 50 = 1")  # fmt: skip
    run(auto, "UPDATE documents SET embedding = NULL WHERE id % 50 = 2")
    run(auto, "UPDATE documents SET embedding_short_4 = NULL WHERE id % 50 = 3")
    run(auto, "DELETE FROM documents WHERE id % 50 = 4")
    run(auto, "UPDATE documents SET id = -id - 100 WHERE id > 900 AND id < 1001")
    job = running.joined()
    assert job.finished
    assert job.rows_written < 900
    assert run(auto, "SELECT count(*) FROM documents").scalar_one() == 1_079
    assert_right(auto)


def test_a_key_that_moves_without_the_trigger(auto: Connection, engine: Engine) -> None:
    """The last look at the whole table finds what the ranges have missed, even where no trigger helps."""
    table(auto)
    run(auto, "ALTER TABLE documents DISABLE TRIGGER USER")
    running = Running(engine)
    until(seen(auto, 200))
    run(auto, "UPDATE documents SET id = -id WHERE id > 900")
    job = running.joined()
    assert (job.finished, job.rows_written) == (True, 900)
    assert_right(auto)


def test_rows_that_others_hold(auto: Connection, engine: Engine) -> None:
    """Are skipped, waited for at the end by one who says so, and done when they are free."""
    table(auto)
    with engine.connect() as holder:
        run(holder, "SELECT FROM documents WHERE id % 100 = 1 FOR UPDATE")
        running = Running(engine, throttle=QUICK, workers=2)
        until(lambda: any(job.state == "waiting for rows that others hold" for job in jobs(auto)))
        assert left(auto, short_fill(auto, TARGET)) == 10
        until(lambda: waiting(auto) == 0)  # of two workers one may wait a moment for the other
        run(holder, "UPDATE documents SET embedding = embedding WHERE id = 1")
        run(holder, "DELETE FROM documents WHERE id = 101")
        holder.commit()
    job = running.joined()
    assert (job.finished, job.rows_written) == (True, 898)  # one filled by the trigger, one gone
    assert_right(auto)


def test_nobody_waits_for_the_backfill(auto: Connection, engine: Engine) -> None:
    """Each row is updated with a lock_timeout no longer than a few batches; also while the last rows are waited for."""
    table(auto)
    with engine.connect() as holder, engine.connect() as writer:
        run(holder, "SELECT FROM documents WHERE id = 77 FOR UPDATE")
        running = Running(engine, throttle=Throttle(pause=0.05, max_rows_per_second=400), workers=2)
        for row in [n for n in range(1, 1_000, 7) if n != 77]:
            with writer.begin():
                run(writer, "SET LOCAL lock_timeout = '2s'")
                run(writer, f"UPDATE documents SET embedding = embedding WHERE id = {row}")
        until(lambda: any(job.state == "waiting for rows that others hold" for job in jobs(auto)))
        for row in [n for n in range(1, 1_000, 7) if n != 77]:
            with writer.begin():
                run(writer, "SET LOCAL lock_timeout = '2s'")
                run(writer, f"UPDATE documents SET embedding = embedding WHERE id = {row}")
        holder.rollback()
    assert running.joined().finished
    assert_right(auto)


def test_a_trigger_that_changes_the_full_vector(auto: Connection, engine: Engine) -> None:
    """In the backfill's own statement: the short vector is that of what is stored."""
    table(auto)
    run(
        auto,
        "CREATE FUNCTION turned() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.embedding := subvector(NEW.embedding, 9, 8) || subvector(NEW.embedding, 1, 8); RETURN NEW; END $$;"
        "CREATE TRIGGER a_first BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION turned()",
    )
    assert backfill(engine, short_fill(auto, TARGET), QUICK).rows_written == 900
    assert_right(auto)


def test_the_keeper_does_not_compute_it_a_second_time(auto: Connection, engine: Engine) -> None:
    """The trigger knows the backfill: its function is not called for the rows that are filled."""
    table(auto)
    counting = create_engine(engine.url, connect_args={"options": "-c track_functions=all"})
    with counting.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, f"INSERT INTO documents SELECT n, {VECTOR} FROM generate_series(2001, 2001) AS n")
        job = backfill_on(connection, short_fill(auto, TARGET), QUICK)
        run(connection, "SELECT pg_stat_force_next_flush()")
        query = "SELECT sum(calls) FROM pg_stat_user_functions WHERE funcname LIKE 'zz%'"
        calls = until(lambda: run(connection, query).scalar())
    counting.dispose()
    assert (job.rows_written, calls) == (900, 1)  # the one that was inserted


@pytest.mark.parametrize("without", [False, True])
def test_the_applications_triggers(auto: Connection, engine: Engine, without: bool) -> None:
    """Fire for each row, unless told not to."""
    table(auto)
    run(
        auto,
        "CREATE TABLE log (id int); CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END $$;"
        "CREATE TRIGGER logged AFTER UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION logged()",
    )
    assert backfill(engine, short_fill(auto, TARGET), Throttle(pause=0.05, without_triggers=without)).finished
    assert run(auto, "SELECT count(*) FROM log").scalar_one() == (0 if without else 900)
    assert_right(auto)


# -- more than one worker, and the end of one ----------------------------------------------------------------------


def test_two_processes_of_two_workers(auto: Connection, database_url: str) -> None:
    """Each row is written once."""
    table(auto)
    throttle = Throttle(max_rows_per_second=200, pause=0.05)
    both = [processes.start(processes.backfill_by_two, database_url, TARGET, throttle) for _ in range(2)]
    assert [processes.ended(process) for process in both] == [0, 0]
    [job] = jobs(auto)
    assert (job.finished, job.rows_written, job.rows_seen) == (True, 900, 1_000)
    assert_right(auto)


def test_killed_in_the_middle(auto: Connection, engine: Engine, database_url: str) -> None:
    """With SIGKILL, several times: nothing is lost or counted twice, and the next run goes on."""
    table(auto)
    for n in range(1, 4):
        throttle = Throttle(max_rows_per_second=100, pause=0.05)
        killed = processes.start(processes.backfill_by_two, database_url, TARGET, throttle)
        until(seen(auto, n * 150))
        killed.kill()
        assert processes.ended(killed) == -signal.SIGKILL
        assert not jobs(auto)[0].finished
    job = backfill(engine, short_fill(auto, TARGET), QUICK)
    assert (job.finished, job.rows_seen, job.rows_written) == (True, 1_000, 900)
    assert_right(auto)


def test_a_worker_that_dies_with_a_range(auto: Connection, engine: Engine) -> None:
    """A range that was handed out and not written is still there for the next one, whatever its size."""
    table(auto)
    assert not backfill(engine, short_fill(auto, TARGET), SLOW, stop_event=set_event()).finished
    run(
        auto,
        "INSERT INTO pgmrl.backfill_ranges (backfill_id, after_key, up_to_key, size) SELECT id, NULL, '{600}', 600 "
        "FROM pgmrl.backfills",
    )
    run(auto, "UPDATE pgmrl.backfills SET position = '{600}'")
    job = backfill(engine, short_fill(auto, TARGET), QUICK, workers=2)
    assert (job.rows_seen, job.rows_written) == (1_000, 900)


def set_event() -> threading.Event:
    """An event that is set."""
    event = threading.Event()
    event.set()
    return event


def test_the_connection_is_ended(auto: Connection, engine: Engine) -> None:
    """By pg_terminate_backend: a clear error, and the next run goes on."""
    table(auto)
    running = Running(engine)
    until(seen(auto, 100))
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    until(lambda: run(auto, end).scalar_one())  # between its statements there is none
    with pytest.raises(MigrationError, match=r"connection was lost while public\.documents.*run it again"):
        running.joined()
    job = backfill(engine, short_fill(auto, TARGET), QUICK)
    assert (job.finished, job.rows_seen, job.rows_written) == (True, 1_000, 900)
    assert_right(auto)


@pytest.mark.parametrize("how", ["from another connection", "by the event"])
def test_stopped(auto: Connection, engine: Engine, how: str) -> None:
    """After the batch at hand; another run goes on."""
    table(auto)
    over = threading.Event()
    running = Running(engine, workers=2, stop_event=over)
    until(seen(auto, 100))
    if how == "by the event":
        over.set()
    else:
        stop(auto, jobs(auto)[0].id)
    job = running.joined()
    assert (job.finished, job.state) == (False, "stopped")
    assert 0 < job.rows_written < 900
    assert left(auto, short_fill(auto, TARGET)) == 900 - job.rows_written
    job = backfill(engine, short_fill(auto, TARGET), QUICK)
    assert (job.finished, job.state, job.rows_written) == (True, "finished", 900)
    assert_right(auto)


def test_stopped_while_it_waits(auto: Connection, engine: Engine) -> None:
    """For others' rows, and for a rate of one row in a long while."""
    table(auto, rows=9)
    with engine.connect() as holder:
        run(holder, "SELECT FROM documents FOR UPDATE")
        running = Running(engine, throttle=QUICK)
        until(lambda: any(job.state == "waiting for rows that others hold" for job in jobs(auto)))
        stop(auto, jobs(auto)[0].id)
        assert running.joined().state == "stopped"
    running = Running(engine, throttle=Throttle(max_rows_per_second=0.01))
    until(lambda: jobs(auto)[0].rows_written == 1)
    stop(auto, jobs(auto)[0].id)
    assert running.joined().state == "stopped"


def test_a_finished_job_again(auto: Connection, engine: Engine) -> None:
    """Writes nothing; and begins anew where rows have lost their short vector."""
    table(auto)
    first = backfill(engine, short_fill(auto, TARGET), QUICK)
    assert backfill(engine, short_fill(auto, TARGET), QUICK).seconds == first.seconds
    run(auto, "ALTER TABLE documents DISABLE TRIGGER USER")
    run(auto, "UPDATE documents SET embedding_short_4 = NULL WHERE id < 100")
    again = backfill(engine, short_fill(auto, TARGET), QUICK, workers=2)
    assert (again.finished, again.rows_written) == (True, 90)
    assert again.id != first.id
    assert_right(auto)


def test_a_column_that_was_dropped_and_made_again(auto: Connection, engine: Engine) -> None:
    """Begins anew, finished or not; so does one whose key has changed."""
    table(auto)
    over = threading.Event()
    running = Running(engine, stop_event=over)
    until(seen(auto, 100))
    over.set()
    before = running.joined()
    for statement in (*steps.drop_short(None, "documents", TARGET.short), *steps.add_online(TARGET)):
        run(auto, statement)
    running = Running(engine, stop_event=(over := threading.Event()))
    # the job of before is removed first: for a moment there is none
    until(lambda: any(job.id != before.id for job in jobs(auto)) and seen(auto, 100)())
    over.set()
    assert not running.joined().finished
    run(auto, "ALTER TABLE documents DROP CONSTRAINT documents_pkey, ADD COLUMN code text")
    run(auto, "UPDATE documents SET code = 'x' || id")
    run(auto, "ALTER TABLE documents ADD PRIMARY KEY (code, id)")
    assert backfill(engine, short_fill(auto, TARGET), QUICK).rows_seen == 1_000
    assert_right(auto)


def test_a_job_that_is_removed_meanwhile(auto: Connection, engine: Engine) -> None:
    """The worker says so."""
    table(auto)
    running = Running(engine)
    until(seen(auto, 100))
    run(auto, "DELETE FROM pgmrl.backfills")
    with pytest.raises(MigrationError, match="was removed or begun anew while it ran: run it again"):
        running.joined()


# -- what cannot be done -------------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_computed(auto: Connection, engine: Engine) -> None:
    """Its row is named by its key, nothing of its batch is written, and the job says that it failed."""
    table(auto, key="a int, b text, PRIMARY KEY (a, b)", value="n, 'it''s ' || n")
    run(auto, "ALTER TABLE documents ADD COLUMN half halfvec(16)")
    run(auto, "UPDATE documents SET embedding = array_fill(1e6, ARRAY[16])::vector WHERE a = 333")
    fill = full_fill(auto, "documents", "embedding", "half", "halfvec(16)")
    with pytest.raises(MigrationError, match=r"documents\.half of row a=333, b=it's 333 cannot be computed: .*half"):
        backfill(engine, fill, QUICK, workers=2)
    [job] = jobs(auto)
    assert job.state.startswith("failed: public.documents.half of row a=333")
    written = run(auto, "SELECT count(half) FROM documents").scalar_one()
    assert written == job.rows_written
    run(auto, "UPDATE documents SET embedding = array_fill(1, ARRAY[16])::vector WHERE a = 333")
    assert backfill(engine, fill, QUICK).finished
    assert left(auto, fill) == 0


def test_a_trigger_that_refuses_the_row(auto: Connection, engine: Engine) -> None:
    """The application's own error, told with what to do."""
    table(auto)
    run(
        auto,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the books are closed'; END $$;"
        "CREATE TRIGGER no BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION no()",
    )
    with pytest.raises(MigrationError, match=r"could not be filled: the books are closed(?s:.*)run this again"):
        backfill(engine, short_fill(auto, TARGET), QUICK)


def test_what_is_not_there(auto: Connection, engine: Engine) -> None:
    """A table, a key, a column."""
    with pytest.raises(MigrationError, match="there is no table documents"):
        short_fill(auto, TARGET)
    run(auto, "CREATE TABLE documents (id int, embedding vector(16), embedding_short_4 halfvec(4))")
    with pytest.raises(MigrationError, match="no primary key, by which a backfill goes: add one"):
        short_fill(auto, TARGET)
    run(auto, "ALTER TABLE documents ADD PRIMARY KEY (id), DROP COLUMN embedding_short_4")
    with pytest.raises(MigrationError, match="no columns embedding and embedding_short_4: add the column first"):
        backfill(engine, short_fill(auto, TARGET))
    for statement in steps.add_in_place(TARGET):
        run(auto, statement)
    with pytest.raises(MigrationError, match="is a generated column, which is filled already"):
        backfill(engine, short_fill(auto, TARGET))
    with pytest.raises(MigrationError, match="workers: expected at least 1, got 0"):
        backfill(engine, short_fill(auto, TARGET), workers=0)
    assert jobs(auto) == []


KEEPS = "GRANT SELECT, INSERT, UPDATE, DELETE ON pgmrl.backfills, pgmrl.backfill_ranges TO {clerk}"
RIGHTS = {
    "no update": (
        ["GRANT SELECT, INSERT ON documents TO {clerk}", KEEPS],
        "{clerk} may not update .*GRANT SELECT, UPDATE",
    ),
    "no select": (["GRANT UPDATE ON documents TO {clerk}", KEEPS], "{clerk} may not update"),
    "row security": (
        ["GRANT SELECT, UPDATE ON documents TO {clerk}", KEEPS, "ALTER TABLE documents ENABLE ROW LEVEL SECURITY"],
        "row-level security may hide rows .*BYPASSRLS",
    ),
    "no job": (["GRANT SELECT, UPDATE ON documents TO {clerk}"], "may not keep a backfill: GRANT .* TO {clerk}"),
    "job half": (
        ["GRANT SELECT, UPDATE ON documents TO {clerk}", KEEPS.replace("UPDATE, DELETE", "UPDATE")],
        "may not keep a backfill",
    ),
}  # fmt: skip


def clerk_name(engine: Engine) -> str:
    """The role: one for each database, as roles are the server's and several of these tests run at once."""
    return f"clerk_of_{engine.url.database}"


@pytest.fixture
def clerk(auto: Connection, engine: Engine) -> Iterator[Engine]:
    """Connections of a role that owns nothing."""
    name = clerk_name(engine)
    run(auto, f"CREATE ROLE {name}")
    other = create_engine(engine.url, connect_args={"options": f"-c role={name}"})
    yield other
    other.dispose()
    run(auto, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("missing", RIGHTS)
def test_missing_rights(auto: Connection, clerk: Engine, missing: str) -> None:
    """One clear error each, before anything is written."""
    table(auto, rows=50)
    statements, message = RIGHTS[missing]
    for statement in statements:
        run(auto, statement.format(clerk=clerk_name(clerk)))
    with pytest.raises(MigrationError, match=message.format(clerk=clerk_name(clerk))):
        backfill(clerk, short_fill(auto, TARGET), QUICK)
    assert jobs(auto) == []
    assert left(auto, short_fill(auto, TARGET)) == 45


def test_no_more_rights_than_needed(auto: Connection, clerk: Engine) -> None:
    """SELECT, UPDATE of one column, and the job's tables; switching triggers off needs one more."""
    table(auto, rows=50)
    for statement in (KEEPS, "GRANT SELECT, UPDATE (embedding_short_4) ON documents TO {clerk}"):
        run(auto, statement.format(clerk=clerk_name(clerk)))
    with pytest.raises(MigrationError, match=r"may not switch triggers off: .*GRANT SET ON PARAMETER"):
        backfill(clerk, short_fill(auto, TARGET), Throttle(without_triggers=True))
    assert jobs(auto) == []
    assert backfill(clerk, short_fill(auto, TARGET), QUICK).finished
    assert_right(auto)


def test_pgmrls_schema_is_missing(auto: Connection, engine: Engine) -> None:
    """Said before anything is written."""
    with engine.begin() as connection:
        database.downgrade(connection)
    run(auto, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(16), embedding_short_4 halfvec(4))")
    with pytest.raises(NotMigrated, match="not installed in this database: run `pgmrl upgrade`"):
        backfill(engine, short_fill(auto, TARGET))


def test_limits_of_the_role(auto: Connection, engine: Engine) -> None:
    """A statement_timeout, a lock_timeout, serializable by default: none of them is in the way of a batch."""
    table(auto, rows=50)
    run(
        auto,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.id = 7 THEN PERFORM pg_sleep(0.6); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    options = "-c statement_timeout=300ms -c lock_timeout=300ms -c default_transaction_isolation=serializable"
    other = create_engine(engine.url, connect_args={"options": options})
    assert backfill(other, short_fill(auto, TARGET), QUICK).finished
    other.dispose()
    assert_right(auto)


# -- the pace ------------------------------------------------------------------------------------------------------


class Pauses(threading.Event):
    """An event that nobody sets; waiting for it takes no time, and is what moves the clock on."""

    now = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """Not at all."""
        self.now += timeout or 0
        return self.is_set()


def test_no_more_rows_in_a_second_than_asked_for(
    auto: Connection, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which the work itself takes no time; a range of filled rows costs nothing."""
    table(auto)
    clock = Pauses()
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now))
    throttle = Throttle(max_rows_per_second=450, pause=0.05)
    job = backfill(engine, short_fill(auto, TARGET), throttle, stop_event=clock)
    assert job.rows_written == 900
    assert job.rows_written / clock.now == pytest.approx(450)
    with pytest.raises(MigrationError, match="max_rows_per_second: expected a number above 0, got 0"):
        Throttle(max_rows_per_second=0)


def test_pauses_while_others_wait_for_locks(auto: Connection, engine: Engine) -> None:
    """Says so, can be stopped meanwhile, and goes on when they are through."""
    table(auto)
    run(auto, "CREATE TABLE busy (id int)")
    throttle = Throttle(max_lock_waits=0, pause=0.05)
    with engine.connect() as holder, engine.connect() as waiter:
        run(holder, "LOCK TABLE busy")
        thread = threading.Thread(target=lambda: run(waiter, "SELECT FROM busy"))
        thread.start()
        until(lambda: waiting(auto))
        running = Running(engine, throttle=throttle)
        until(lambda: any(job.state == "waiting: 1 sessions wait for locks" for job in jobs(auto)))
        stop(auto, jobs(auto)[0].id)
        assert (running.joined().state, running.joined().rows_written) == ("stopped", 0)
        running = Running(engine, throttle=throttle)
        until(lambda: any(job.state == "waiting: 1 sessions wait for locks" for job in jobs(auto)))
        holder.rollback()
        thread.join()
        job = running.joined()
    assert (job.finished, job.rows_written) == (True, 900)


# -- two full columns ----------------------------------------------------------------------------------------------

HALF = Definition.of(DIMS, Short(8), full="halfvec")
MIRRORED = Target("documents", "half", HALF)


@pytest.fixture
def mirrored(auto: Connection) -> Connection:
    """An old full column with a generated short one; a new one in half precision with one kept by a trigger."""
    from pgmrl.model import ddl  # noqa: PLC0415  # for this fixture alone

    run(auto, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(16))")
    for statement in (
        *steps.add_in_place(TARGET),
        f"INSERT INTO documents SELECT n, {VECTOR} FROM generate_series(1, 500) AS n",
        "INSERT INTO documents VALUES (501, NULL)",
        "ALTER TABLE documents ADD COLUMN half halfvec(16)",
        ddl.create_mirror_triggers(None, "documents", "embedding", "half"),
        *steps.add_online(MIRRORED),
    ):
        run(auto, statement)
    return auto


def in_step(connection: Connection) -> None:
    """Both full columns hold the same, and both short ones are what each definition says."""
    differ = "embedding::halfvec(16)::text IS DISTINCT FROM half::text"
    assert run(connection, f"SELECT count(*) FROM documents WHERE {differ}").scalar_one() == 0
    assert_right(connection, TARGET)
    assert_right(connection, MIRRORED)


def test_two_full_columns_are_filled(mirrored: Connection, engine: Engine) -> None:
    """The old one is bit for bit what it was; the triggers fill the short one in the same statement."""
    before = run(mirrored, "SELECT id, vector_send(embedding) FROM documents ORDER BY id").all()
    fill = full_fill(mirrored, "documents", "embedding", "half", "halfvec(16)")
    assert backfill(engine, fill, QUICK, workers=2).rows_written == 500
    assert left(mirrored, short_fill(mirrored, MIRRORED)) == 0
    assert run(mirrored, "SELECT id, vector_send(embedding) FROM documents ORDER BY id").all() == before
    in_step(mirrored)
    assert backfill(engine, short_fill(mirrored, MIRRORED), QUICK).rows_written == 0


def test_two_full_columns_filled_without_triggers(mirrored: Connection, engine: Engine) -> None:
    """The short vectors are a second backfill then, and the old column stays as it was."""
    before = run(mirrored, "SELECT id, vector_send(embedding) FROM documents ORDER BY id").all()
    quiet = Throttle(pause=0.05, without_triggers=True)
    fill = full_fill(mirrored, "documents", "embedding", "half", "halfvec(16)")
    assert backfill(engine, fill, quiet).rows_written == 500
    assert backfill(engine, short_fill(mirrored, MIRRORED), quiet).rows_written == 500
    assert run(mirrored, "SELECT id, vector_send(embedding) FROM documents ORDER BY id").all() == before
    in_step(mirrored)


CONFLICT = "ON CONFLICT (id) DO UPDATE SET"
OTHER = "array_fill(0.3337::float4, ARRAY[16])::vector"


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        f"INSERT INTO documents (id, embedding) VALUES (900, {OTHER})",
        f"INSERT INTO documents (id, half) VALUES (900, {OTHER}::halfvec)",
        f"INSERT INTO documents (id, embedding, half) VALUES (900, {OTHER}, ({OTHER} * {OTHER})::halfvec)",
        "INSERT INTO documents (id) VALUES (900)",
        f"UPDATE documents SET embedding = {OTHER} WHERE id = 5",
        f"UPDATE documents SET half = {OTHER}::halfvec WHERE id = 5",
        f"UPDATE documents SET embedding = {OTHER}, half = ({OTHER} * {OTHER})::halfvec WHERE id = 5",
        "UPDATE documents SET embedding = NULL WHERE id = 5",
        f"UPDATE documents SET embedding = {OTHER} WHERE id = 501",
        f"UPDATE documents SET half = {OTHER}::halfvec WHERE id = 501",
        f"INSERT INTO documents (id, half) VALUES (5, {OTHER}::halfvec) {CONFLICT} half = EXCLUDED.half",
        f"INSERT INTO documents (id, embedding) VALUES (5, {OTHER}) {CONFLICT} embedding = EXCLUDED.embedding",
    ],
)  # fmt: skip
def test_either_code_writes(mirrored: Connection, engine: Engine, write: str, filled: bool) -> None:
    """Old code and new code, before and after the row was copied: everything is in step in the same statement."""
    fill = full_fill(mirrored, "documents", "embedding", "half", "halfvec(16)")
    if filled:
        backfill(engine, fill, QUICK)
    run(mirrored, write)
    row = "SELECT half::text FROM documents WHERE id = "
    number = 900 if "900" in write else 501 if "501" in write else 5
    new = run(mirrored, row + str(number)).scalar_one()
    if "NULL" in write or write.endswith("VALUES (900)"):
        assert new is None
    else:
        assert new.startswith("[0.111" if "*" in write else "[0.333")  # both written: the new one counts
    if not filled:
        backfill(engine, fill, QUICK)
    in_step(mirrored)


@pytest.mark.parametrize("filled", [False, True])
def test_new_code_empties_a_vector(mirrored: Connection, engine: Engine, filled: bool) -> None:
    """Of a row that was copied; one that was not is empty for the new code already, and is copied."""
    fill = full_fill(mirrored, "documents", "embedding", "half", "halfvec(16)")
    if filled:
        backfill(engine, fill, QUICK)
    run(mirrored, "UPDATE documents SET half = NULL WHERE id = 5")
    there = run(mirrored, "SELECT embedding IS NOT NULL FROM documents WHERE id = 5").scalar_one()
    assert there is not filled
    backfill(engine, fill, QUICK)
    in_step(mirrored)


def test_the_old_vector_is_changed_by_a_trigger_while_it_is_copied(mirrored: Connection, engine: Engine) -> None:
    """What is copied is what is stored."""
    run(
        mirrored,
        "CREATE FUNCTION turned() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.embedding := subvector(NEW.embedding, 9, 8) || subvector(NEW.embedding, 1, 8); RETURN NEW; END $$;"
        "CREATE TRIGGER a_first BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION turned()",
    )
    fill = full_fill(mirrored, "documents", "embedding", "half", "halfvec(16)")
    assert backfill(engine, fill, QUICK).rows_written == 500
    in_step(mirrored)
