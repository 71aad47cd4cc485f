"""Strong locks: taken for a moment or not at all, with a queue behind them that is never long."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import execute_plain as run
from pgmrl.errors import Locked
from pgmrl.online.locks import Patience, in_transaction, lock_table, with_savepoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

SHORT = Patience(lock_timeout=0.1, attempts=3, pause=0.05)
CHANGE = [lock_table("documents"), "ALTER TABLE documents ADD COLUMN title text"]


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit, on a database with a table."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE TABLE documents (id int PRIMARY KEY)")
        yield connection


def titled(engine: Engine) -> bool:
    """Whether the change was made."""
    query = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'documents'::regclass AND attname = 'title'"
    with engine.connect() as connection:
        return bool(run(connection, query).scalar_one())


def test_it_gets_through_when_the_reader_is_done(auto: Connection, engine: Engine) -> None:
    """After tries that were in vain; the session's own settings are as before."""
    run(auto, "SET lock_timeout = '7s'")
    with engine.connect() as reader:
        run(reader, "SELECT FROM documents")
        timer = threading.Timer(0.7, reader.rollback)
        timer.start()
        in_transaction(auto, CHANGE, "documents", Patience(lock_timeout=0.1, attempts=100, pause=0.05))
        timer.join()
    assert titled(engine)
    assert run(auto, "SHOW lock_timeout").scalar_one() == "7s"


def test_who_is_in_the_way(auto: Connection, engine: Engine) -> None:
    """Named with process, query and role; nothing was changed, and the connection can go on."""
    with engine.connect() as reader:
        pid = run(reader, "SELECT pg_backend_pid()").scalar_one()
        run(reader, "SELECT 'the monthly report' FROM documents")
        with pytest.raises(Locked, match=rf"3 tries of 0\.1 s(?s:.*)process {pid} .*idle in tr.*the monthly report"):
            in_transaction(auto, CHANGE, "documents", SHORT)
    assert not titled(engine)
    in_transaction(auto, CHANGE, "documents", SHORT)
    assert titled(engine)


def test_who_is_in_the_way_of_a_partition(auto: Connection, engine: Engine) -> None:
    """The one who reads a partition alone is named too."""
    run(auto, "CREATE TABLE whole (id int) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF whole DEFAULT")
    with engine.connect() as reader:
        run(reader, "SELECT 'only a part' FROM part")
        with pytest.raises(Locked, match="only a part"):
            in_transaction(auto, [lock_table("whole")], "whole", SHORT)


def test_nobody_is_queued_for_long(auto: Connection, engine: Engine) -> None:
    """Others read while it is in vain: each of them is served before the reader that is in the way ends."""
    patience = Patience(lock_timeout=0.1, attempts=8, pause=0.1)
    refused: list[BaseException] = []

    def change() -> None:
        try:
            in_transaction(auto, CHANGE, "documents", patience)
        except Locked as error:
            refused.append(error)

    with engine.connect() as reader, engine.connect() as other:
        run(reader, "SELECT FROM documents")
        thread = threading.Thread(target=change)
        thread.start()
        served = 0
        while thread.is_alive():
            with other.begin():
                run(other, "SET LOCAL lock_timeout = '5s'")  # many times the tries' own, for a busy machine
                run(other, "SELECT FROM documents")
            served += 1
            time.sleep(0.01)
        thread.join()
    assert refused
    assert served > 5


def test_an_error_of_another_kind(auto: Connection, engine: Engine) -> None:
    """Is told at once, and everything before it is rolled back."""
    tries: list[str] = []
    event.listen(auto, "before_cursor_execute", lambda _, __, statement, *___: tries.append(statement))
    with pytest.raises(DBAPIError, match='relation "nothing" does not exist'):
        in_transaction(auto, [*CHANGE, "SELECT FROM nothing"], "documents", Patience(attempts=1_000))
    assert tries.count("SELECT FROM nothing") == 1
    assert not titled(engine)


def test_the_connection_is_lost_meanwhile(auto: Connection, engine: Engine) -> None:
    """The server's own error is told, not one of the driver's about the ROLLBACK."""
    killing = [*CHANGE, "SELECT pg_terminate_backend(pg_backend_pid())"]
    with pytest.raises(DBAPIError, match="terminating connection"):
        in_transaction(auto, killing, "documents", SHORT)
    assert not titled(engine)


def test_savepoints_keep_what_came_before(auto: Connection, engine: Engine) -> None:
    """The migration's own work and its lock_timeout are as they were, whether it got through or not."""
    del auto
    with engine.connect() as migration, engine.connect() as reader:
        run(migration, "SET lock_timeout = '3s'")
        run(migration, "CREATE TABLE earlier (id int)")
        run(reader, "SELECT FROM documents")
        with pytest.raises(Locked, match="documents is held by others"):
            with_savepoints(migration, CHANGE, "documents", SHORT)
        assert run(migration, "SHOW lock_timeout").scalar_one() == "3s"
        reader.rollback()
        with_savepoints(migration, CHANGE, "documents", SHORT)
        assert run(migration, "SHOW lock_timeout").scalar_one() == "3s"
        migration.commit()
        assert run(migration, "SHOW lock_timeout").scalar_one() == "3s"
        assert run(migration, "SELECT to_regclass('earlier') IS NOT NULL").scalar_one()
    assert titled(engine)


def test_a_lock_that_failed_holds_nothing(auto: Connection, engine: Engine) -> None:
    """Between two tries neither the table nor anything else of that try is locked."""
    del auto
    with engine.connect() as migration, engine.connect() as reader:
        run(reader, "SELECT FROM documents")
        with pytest.raises(Locked):
            with_savepoints(migration, CHANGE, "documents", SHORT)
        query = text("SELECT count(*) FROM pg_locks WHERE relation = 'documents'::regclass AND pid = :pid")
        pid = run(migration, "SELECT pg_backend_pid()").scalar_one()
        assert reader.execute(query, {"pid": pid}).scalar_one() == 0
