"""HNSW indexes built while others write: valid in the end, whatever happened on the way."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine, text

from pgmrl.database.connection import execute_plain as run
from pgmrl.database.index_states import BuildProgress, build_progress, index_states
from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.names import literal, qualified, quoted
from pgmrl.online import build_session, index_builds, index_leftovers, locks, steps
from pgmrl.online.index_builds import build, drop, rebuild
from pgmrl.online.index_statements import Build, create_statement
from pgmrl.online.target import Target
from tests.migrations import processes
from tests.migrations.processes import interrupt_build, until, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFINITION = Definition.of(16, Short(8), full="vector")
TARGET = Target("documents", "embedding", DEFINITION)
SMALL, LARGE = Hnsw(4, 16), Hnsw(8, 32)
NAME = SMALL.index_name("documents", TARGET.short)
VECTOR = "(SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, 16) AS d WHERE n = n)"


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at builds more often than for people."""
    monkeypatch.setattr(build_session, "POLL", 0.02)


def table(connection: Connection, target: Target = TARGET, rows: int = 500, parts: int = 0, levels: int = 1) -> None:
    """A table with short vectors; partitioned, on one or two levels."""
    tail = "PARTITION BY HASH (id)" if parts else ""
    run(connection, f"CREATE TABLE {target.owner} (id int PRIMARY KEY, {quoted(target.full)} vector(16)) {tail}")
    for n in range(parts):
        name = qualified(target.schema, f"{target.table}_{n}")
        below = "PARTITION BY HASH (id)" if levels == 2 and n == 0 else ""
        values = f"FOR VALUES WITH (MODULUS {parts}, REMAINDER {n})"
        run(connection, f"CREATE TABLE {name} PARTITION OF {target.owner} {values} {below}")
        if below:
            for m in range(2):
                leaf = qualified(target.schema, f"{target.table}_{n}_{m}")
                values = f"FOR VALUES WITH (MODULUS 2, REMAINDER {m})"
                run(connection, f"CREATE TABLE {leaf} PARTITION OF {name} {values}")
    for statement in steps.add_in_place(target):
        run(connection, statement)
    run(connection, f"INSERT INTO {target.owner} SELECT n, {VECTOR} FROM generate_series(1, {rows}) AS n")


def all_indexes(connection: Connection) -> dict[str, tuple[bool, list[str]]]:
    """Every HNSW index of the database by name: whether it is valid, and its parameters."""
    rows: Any = run(
        connection,
        "SELECT i.relname, x.indisvalid AND x.indisready, i.reloptions FROM pg_index AS x "
        "JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS a ON a.oid = i.relam WHERE a.amname = 'hnsw'",
    )
    return {name: (valid, options) for name, valid, options in rows}


def as_built(index: Hnsw) -> tuple[bool, list[str]]:
    """A valid index with these parameters."""
    return True, [f"m={index.m}", f"ef_construction={index.ef_construction}"]


def invalid(connection: Connection, name: str = NAME, index: Hnsw = SMALL, target: Target = TARGET) -> None:
    """A real INVALID leftover, of a concurrent build that was interrupted."""
    statement = create_statement(target, index, concurrently=True, name=name)
    interrupt_build(connection.engine, target.owner, statement)
    assert all_indexes(connection)[name][0] is False


# -- one index -----------------------------------------------------------------------------------------------------


def test_while_others_write(auto: Connection, engine: Engine) -> None:
    """Rows written during the build are found by a search through the index."""
    table(auto, rows=3_000)
    over = threading.Event()
    written = []

    def write() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as writer:
            for n in range(10_001, 20_000):
                if over.is_set():
                    return
                run(writer, f"INSERT INTO documents SELECT n, {VECTOR} FROM generate_series({n}, {n}) AS n")
                written.append(n)

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: len(written) > 5)
    build(auto, TARGET, SMALL)
    over.set()
    thread.join()
    assert all_indexes(auto) == {NAME: as_built(SMALL)}
    run(auto, "SET enable_seqscan = off; SET hnsw.ef_search = 100")
    for n in (written[0], written[len(written) // 2], written[-1]):
        query = (
            f"SELECT id FROM documents ORDER BY embedding_short_8 <=> "
            f"(SELECT embedding_short_8 FROM documents WHERE id = {n}) LIMIT 1"
        )
        plan = "\n".join(run(auto, f"EXPLAIN {query}").scalars())
        assert NAME in plan
        assert run(auto, query).scalar_one() == n
    build(auto, TARGET, SMALL)  # is there


@pytest.mark.parametrize("run_again", [build, rebuild])
def test_an_invalid_leftover(auto: Connection, run_again: Any) -> None:
    """Is removed, and the index built; the one of other parameters as well."""
    table(auto)
    invalid(auto, index=LARGE)
    run_again(auto, TARGET, SMALL)
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_cancelled(auto: Connection, engine: Engine) -> None:
    """By pg_cancel_backend: an error that says so, and nothing of it is left."""
    table(auto)
    with engine.connect() as holder, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as builder:
        run(holder, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        pid = run(builder, "SELECT pg_backend_pid()").scalar_one()
        failed: list[BaseException] = []

        def doomed() -> None:
            try:
                build(builder, TARGET, SMALL)
            except MigrationError as error:
                failed.append(error)

        thread = threading.Thread(target=doomed)
        thread.start()
        # before its index is in the catalogue there is nothing that it would have to drop, and wait for
        until(lambda: all_indexes(auto))
        run(auto, f"SELECT pg_cancel_backend({pid})")
        until(
            lambda: run(
                auto,
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP INDEX%' AND datname = current_database()",
            ).scalar()
        )
        holder.rollback()
        thread.join(60)
    assert "canceling statement due to user request" in str(failed[0])
    assert all_indexes(auto) == {}
    build(auto, TARGET, SMALL)
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_the_connection_is_ended(auto: Connection, engine: Engine) -> None:
    """By pg_terminate_backend: a clear error; the next run removes what is left and builds."""
    table(auto)
    with engine.connect() as holder, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as builder:
        run(holder, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        pid = run(builder, "SELECT pg_backend_pid()").scalar_one()

        def end() -> None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as killer:
                until(lambda: any(progress.pid == pid for progress in build_progress(killer)))
                run(killer, f"SELECT pg_terminate_backend({pid})")

        kill = threading.Thread(target=end)
        kill.start()
        with pytest.raises(MigrationError, match=r"connection was lost while index .*: run this again"):
            build(builder, TARGET, SMALL)
        kill.join()
        holder.rollback()
    build(auto, TARGET, SMALL)
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_a_build_whose_client_was_killed(auto: Connection, engine: Engine, database_url: str) -> None:
    """Goes on in the server; another run waits for it instead of beginning anew."""
    table(auto)
    with engine.connect() as holder:
        run(holder, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        killed = processes.start(processes.build_index, database_url, TARGET, SMALL)
        [orphan] = until(lambda: [progress for progress in build_progress(auto) if progress.index.endswith("hnsw")])
        killed.kill()
        assert processes.ended(killed) == -signal.SIGKILL
        oid = index_states(auto, "documents", TARGET.short)[0].oid
        phases = []

        def progress(now: BuildProgress) -> None:
            phases.append(now)
            if len(phases) == 2:
                holder.rollback()

        build(auto, TARGET, SMALL, progress=progress)
    assert {phase.pid for phase in phases} >= {orphan.pid}
    [state] = index_states(auto, "documents", TARGET.short)
    assert (state.oid, state.valid, state.builder) == (oid, True, None)


def test_a_build_that_is_about_to_end(auto: Connection, engine: Engine) -> None:
    """It looks like a leftover: the server reports no build any more, and what makes it valid is not committed."""
    table(auto)
    build(auto, TARGET, SMALL)
    [there] = index_states(auto, "documents", TARGET.short)
    valid = f"UPDATE pg_index SET indisvalid = %s WHERE indexrelid = {there.oid}"  # as a superuser may
    run(auto, valid % "false")
    done: list[Any] = []

    def again() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as second:
            build(second, TARGET, SMALL)
            done.append(True)

    with engine.connect() as holder, engine.connect() as ending:
        run(holder, "LOCK TABLE documents IN SHARE UPDATE EXCLUSIVE MODE")
        thread = threading.Thread(target=again)
        thread.start()
        until(lambda: waiting(auto))
        run(ending, valid % "true")
        holder.rollback()
        until(lambda: not waiting(auto))
        assert not done
        ending.commit()
        thread.join(60)
    assert done
    [state] = index_states(auto, "documents", TARGET.short)
    assert (state.oid, state.valid) == (there.oid, True)


def test_two_at_once(auto: Connection, database_url: str) -> None:
    """The second one waits for the first, or finds it there; neither removes the other's."""
    table(auto, rows=3_000)
    builds = [processes.start(processes.build_index, database_url, TARGET, SMALL) for _ in range(3)]
    assert [processes.ended(process) for process in builds] == [0, 0, 0]
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_another_one_removes_the_leftover_first(
    auto: Connection, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And builds anew; the two wait for each other, the server ends the DROP of this one, and it goes on."""
    table(auto)
    invalid(auto)
    original, threads = index_leftovers.drop, list[threading.Thread]()
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'documents'::regclass"
    building = (
        "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%' "
        "AND datname = current_database()"
    )
    autocommit: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    with (
        engine.connect() as writer,
        engine.connect().execution_options(**autocommit) as other,
        engine.connect().execution_options(**autocommit) as looking,
    ):
        run(auto, "SET deadlock_timeout = '3s'")
        run(other, "SET deadlock_timeout = '1min'")  # so that it is not this one that the server ends

        def release() -> None:
            until(lambda: run(looking, blocked).scalar())
            writer.rollback()

        def overtaken(connection: Connection, schema: str | None, name: str) -> None:
            if not threads:
                original(other, schema, name)
                run(writer, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")
                statement = create_statement(TARGET, SMALL, concurrently=True, name=NAME)
                threads.append(threading.Thread(target=run, args=(other, statement)))
                threads[0].start()
                until(lambda: run(looking, building).scalar())
                threads.append(threading.Thread(target=release))
                threads[1].start()
            original(connection, schema, name)

        monkeypatch.setattr(index_leftovers, "drop", overtaken)
        build(auto, TARGET, SMALL)
        for thread in threads:
            thread.join()
    assert len(threads) == 2
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_the_name_appears_while_the_statement_waits(auto: Connection, engine: Engine) -> None:
    """Somebody else's valid index of the same name is left alone."""
    table(auto)
    done: list[Any] = []
    with engine.connect() as holder:
        # as CREATE INDEX CONCURRENTLY of another session does, which lets nobody build beside it
        run(holder, "LOCK TABLE documents IN SHARE UPDATE EXCLUSIVE MODE")

        def other() -> None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as second:
                build(second, TARGET, SMALL)
                done.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        until(lambda: waiting(auto))
        run(holder, create_statement(TARGET, SMALL, concurrently=False))
        oid = run(holder, f"SELECT {literal(NAME)}::regclass::oid").scalar_one()
        holder.commit()
        thread.join(60)
    assert done
    assert index_states(auto, "documents", TARGET.short)[0].oid == oid
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_a_name_that_is_taken(auto: Connection) -> None:
    """By a table, by an index on something else, by one with other parameters."""
    table(auto)
    run(auto, f"CREATE TABLE {NAME} (id int)")
    with pytest.raises(MigrationError, match=r"is there already and is no index of documents.*rename or drop it"):
        build(auto, TARGET, SMALL)
    run(auto, f"DROP TABLE {NAME}; CREATE INDEX {NAME} ON documents (id)")
    with pytest.raises(MigrationError, match="is there already and is no index of"):
        rebuild(auto, TARGET, SMALL)
    run(auto, f"DROP INDEX {NAME}")
    build(auto, TARGET, LARGE)
    with pytest.raises(MigrationError, match=r"is there with halfvec_cosine_ops, m=8, ef_construction=32: rebuild it"):
        build(auto, TARGET, SMALL)
    assert all_indexes(auto) == {NAME: as_built(LARGE)}
    run(auto, f"CREATE TABLE {NAME}_old (id int)")
    with pytest.raises(MigrationError, match="_old is there already"):
        rebuild(auto, TARGET, SMALL)
    assert all_indexes(auto)[NAME] == as_built(LARGE)


def test_what_is_not_there(auto: Connection) -> None:
    """A table; a column."""
    with pytest.raises(MigrationError, match="there is no table documents"):
        build(auto, TARGET, SMALL)
    run(auto, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(16))")
    with pytest.raises(MigrationError, match=r'could not be built: column "embedding_short_8" does not exist'):
        build(auto, TARGET, SMALL)


def test_settings_of_the_build(auto: Connection, engine: Engine) -> None:
    """In force while it is built, for it alone; time limits of the session do not end it, and come back."""
    table(auto)
    run(auto, "SET statement_timeout = '400ms'; SET lock_timeout = '300ms'; SET maintenance_work_mem = '9MB'")
    names = ["statement_timeout", "lock_timeout", "maintenance_work_mem", "max_parallel_maintenance_workers"]
    before = [run(auto, f"SHOW {name}").scalar_one() for name in names]
    inside = {}
    run(auto, "CREATE TABLE seen (name text, value text)")
    run(auto, "CREATE FUNCTION note(e halfvec) RETURNS halfvec IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN e; END $$")
    original = index_builds._build_one

    def spy(connection: Connection, *rest: Any) -> None:
        inside.update({name: run(connection, f"SHOW {name}").scalar_one() for name in names})
        original(connection, *rest)

    with pytest.MonkeyPatch.context() as patch, engine.connect() as holder:
        patch.setattr(index_builds, "_build_one", spy)
        run(holder, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        threading.Timer(1.0, holder.rollback).start()  # longer than both limits
        build(auto, TARGET, SMALL, Build(maintenance_work_mem="77MB", parallel_workers=1))
    assert inside == dict(zip(names, ["0", "0", "77MB", "1"], strict=True))
    assert [run(auto, f"SHOW {name}").scalar_one() for name in names] == before
    with pytest.raises(MigrationError, match=r"settings of the build were refused: .*maintenance_work_mem"):
        rebuild(auto, TARGET, LARGE, Build(maintenance_work_mem="much", parallel_workers=1))
    assert [run(auto, f"SHOW {name}").scalar_one() for name in names] == before
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_progress_is_seen_from_a_second_connection(auto: Connection, engine: Engine) -> None:
    """While the build waits for a writer it says so; what is told cannot end it."""
    table(auto)
    phases: list[BuildProgress] = []
    with engine.connect() as holder:
        run(holder, "LOCK TABLE documents IN ROW EXCLUSIVE MODE")

        def progress(now: BuildProgress) -> None:
            phases.append(now)
            if len(phases) == 2:
                holder.rollback()
                raise BrokenPipeError

        build(auto, TARGET, SMALL, progress=progress)
    assert phases[0].phase == "waiting for writers before build"
    assert (phases[0].table, phases[0].index, phases[0].waiting_for) == ("documents", NAME, 1)
    assert all_indexes(auto) == {NAME: as_built(SMALL)}


def test_another_schema(auto: Connection) -> None:
    """Where a table and an index of the same names come first in the search_path."""
    run(auto, 'CREATE SCHEMA "My Schema"')
    table(auto)
    build(auto, TARGET, LARGE)
    there = Target("documents", "embedding", DEFINITION, "My Schema")
    table(auto, there)
    build(auto, there, SMALL)
    rebuild(auto, there, LARGE)
    drop(auto, "My Schema", NAME)
    assert index_states(auto, '"My Schema".documents', TARGET.short) == []
    assert all_indexes(auto) == {NAME: as_built(LARGE)}


def test_the_table_is_not_in_the_first_schema(auto: Connection) -> None:
    """An index of the same name in the first schema of the search_path is somebody else's."""
    run(auto, "CREATE SCHEMA first")
    table(auto)
    run(auto, f"CREATE TABLE first.other (id int); CREATE INDEX {NAME} ON first.other (id)")
    run(auto, "SET search_path = first, public")
    build(auto, TARGET, SMALL)
    rebuild(auto, TARGET, LARGE)
    assert all_indexes(auto) == {NAME: as_built(LARGE)}
    assert run(auto, f"SELECT to_regclass('first.{NAME}') IS NOT NULL").scalar_one()


# -- rebuilding ----------------------------------------------------------------------------------------------------


def test_the_old_one_serves_until_the_end(auto: Connection, engine: Engine) -> None:
    """A search uses an index at every moment of the rebuild."""
    table(auto, rows=2_000)
    build(auto, TARGET, SMALL)
    over = threading.Event()
    plans = []

    def look() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as reader:
            run(reader, "SET enable_seqscan = off")
            while not over.is_set():
                query = "EXPLAIN SELECT id FROM documents ORDER BY embedding_short_8 <=> '[1,2,3,4,5,6,7,8]' LIMIT 5"
                plans.append("\n".join(run(reader, query).scalars()))

    thread = threading.Thread(target=look)
    thread.start()
    rebuild(auto, TARGET, LARGE)
    over.set()
    thread.join()
    assert plans
    assert all("Index Scan using documents_embedding_short_8_hnsw" in plan for plan in plans)
    assert all_indexes(auto) == {NAME: as_built(LARGE)}
    rebuild(auto, TARGET, LARGE)  # is so already
    assert all_indexes(auto) == {NAME: as_built(LARGE)}


class Killed(BaseException):
    """The end of the process, as far as a test in it can."""


@pytest.mark.parametrize("parts", [0, 2])
@pytest.mark.parametrize("then", [LARGE, Hnsw(12, 48), SMALL])
def test_killed_between_any_two_statements(
    auto: Connection, monkeypatch: pytest.MonkeyPatch, parts: int, then: Hnsw
) -> None:
    """Then run again, to the same parameters, to others, or back to the old: one valid index and no leftovers."""
    table(auto, rows=50, parts=parts)
    build(auto, TARGET, SMALL)
    names = set(all_indexes(auto))
    original = run
    changing = ("CREATE", "DROP", "ALTER", "BEGIN", "COMMIT")
    stage = 0
    while True:
        count = 0

        def counted(connection: Connection, statement: str, stop: int = stage) -> Any:
            nonlocal count
            if statement.startswith(changing):
                count += 1
                if count > stop:
                    raise Killed
            return original(connection, statement)

        with monkeypatch.context() as patch:
            for module in (index_builds, index_leftovers, locks):
                patch.setattr(module, "execute_plain", counted)
            try:
                rebuild(auto, TARGET, LARGE)
            except Killed:
                run(auto, "ROLLBACK")
            else:
                break
        assert all_indexes(auto)[NAME][0]
        rebuild(auto, TARGET, then)
        assert all_indexes(auto) == {name: as_built(then) for name in names}, stage
        rebuild(auto, TARGET, SMALL)
        stage += 1
    assert stage > 5


def test_an_invalid_leftover_of_a_rebuild(auto: Connection) -> None:
    """A real one, under the new index's name."""
    table(auto)
    build(auto, TARGET, SMALL)
    invalid(auto, f"{NAME}_new", LARGE)
    rebuild(auto, TARGET, LARGE)
    assert all_indexes(auto) == {NAME: as_built(LARGE)}


# -- partitions ----------------------------------------------------------------------------------------------------


def attached(connection: Connection, name: str = NAME) -> list[tuple[str, bool]]:
    """The tables below a partitioned index and whether each one's index is valid."""
    query = text(
        "SELECT x.indrelid::regclass::text, x.indisvalid FROM pg_partition_tree(CAST(:n AS regclass)) AS t "
        "JOIN pg_index AS x ON x.indexrelid = t.relid WHERE t.isleaf ORDER BY 1"
    )
    return [(row[0], row[1]) for row in connection.execute(query, {"n": name})]


@pytest.mark.parametrize("levels", [1, 2])
def test_partitions(auto: Connection, levels: int) -> None:
    """Each has its index, attached; a rebuild gives each a new one under the old name."""
    table(auto, parts=3, levels=levels)
    leaves = ["documents_0_0", "documents_0_1"] if levels == 2 else ["documents_0"]
    leaves += ["documents_1", "documents_2"]
    build(auto, TARGET, SMALL)
    assert attached(auto) == [(leaf, True) for leaf in leaves]
    names = set(all_indexes(auto))
    rebuild(auto, TARGET, LARGE)
    assert attached(auto) == [(leaf, True) for leaf in leaves]
    assert all_indexes(auto) == {name: as_built(LARGE) for name in names}
    drop(auto, None, NAME)
    assert all_indexes(auto) == {}


def test_partitions_that_come_later(auto: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a run that was killed and the next; by CREATE TABLE and by ATTACH PARTITION."""
    run(auto, "CREATE TABLE documents (id int PRIMARY KEY, embedding vector(16)) PARTITION BY RANGE (id)")
    for n in range(2):
        run(auto, f"CREATE TABLE p{n} PARTITION OF documents FOR VALUES FROM ({100 * n}) TO ({100 * n + 100})")
    for statement in steps.add_online(TARGET):
        run(auto, statement)
    original = index_builds._build_one

    def one_only(connection: Connection, target: Target, *rest: Any) -> None:
        if target.table == "p1":
            raise Killed
        original(connection, target, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(index_builds, "_build_one", one_only)
        with pytest.raises(Killed):
            build(auto, TARGET, SMALL)
    assert not index_states(auto, "documents", TARGET.short)[0].valid
    run(auto, "CREATE TABLE p2 PARTITION OF documents FOR VALUES FROM (200) TO (300)")
    run(auto, "CREATE TABLE p3 (LIKE documents INCLUDING ALL)")
    run(auto, "ALTER TABLE documents ATTACH PARTITION p3 FOR VALUES FROM (300) TO (400)")
    invalid(auto, f"p1_{TARGET.short}_hnsw", SMALL, Target("p1", "embedding", DEFINITION))
    build(auto, TARGET, SMALL)
    assert attached(auto) == [("p0", True), ("p1", True), ("p2", True), ("p3", True)]
    assert all(valid for valid, _ in all_indexes(auto).values())
