"""HAProxy before a primary and its standby: 1,000 searches, and the primary dies in the middle of them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from pgmrl import database, search
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.databases import vacuum
from tests.migrations.processes import until
from tests.standbys import catch_up, primary_server, streaming_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.corpus import Corpus

SEARCHES, QUERIES = 1_000, 40
ITEMS = Table(
    "items",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("embedding", Matryoshka(96, Short(32))),
)
# docs/replicas.md shows these lines; the ports and sockets are the test's
CONFIGURATION = """\
global
    maxconn 100
defaults
    mode tcp
    retries 3
    option redispatch
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout check 2s
    default-server inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions

listen writes
    bind 127.0.0.1:{writes}
    option tcp-check
    tcp-check connect
    tcp-check send-binary 00000017000300007573657200706f7374677265730000 # log in as postgres
    tcp-check expect binary 5a0000000549 # ready
    tcp-check send-binary 510000001f73656c6563742070675f69735f696e5f7265636f76657279282900 # pg_is_in_recovery()
    tcp-check expect binary 440000000b00010000000166 # f: a primary
    server one {one}
    server two {two}

listen reads
    bind 127.0.0.1:{reads}
    balance roundrobin
    option pgsql-check user postgres
    server one {one}
    server two {two}
"""


class Proxy(NamedTuple):
    """Engines on the proxy's two ports, and on the servers behind it.

    Attributes:
        writes: leads to the one that takes writes.
        reads: leads to each in turn.
        kill: ends the primary, as a crash does.
        promote: makes the standby a primary.
    """

    writes: Engine
    reads: Engine
    kill: Callable[[], None]
    promote: Callable[[], None]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def program() -> str:
    """Where HAProxy is."""
    path = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    return path


@contextmanager
def haproxy(program: str, one: str, two: str, folder: Path) -> Iterator[tuple[int, int]]:
    """The ports for writes and reads of a HAProxy before two sockets."""
    writes, reads = free_port(), free_port()
    file, log = folder / "haproxy.cfg", folder / "haproxy.log"
    file.write_text(CONFIGURATION.format(writes=writes, reads=reads, one=f"unix@{one} check", two=f"unix@{two} check"))
    with log.open("w") as output:
        process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=output, stderr=output)  # noqa: S603
    try:
        for _ in range(400):
            if process.poll() is not None:
                pytest.fail(f"haproxy ended: {log.read_text()}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", reads), 1):
                break
            time.sleep(0.05)
        yield writes, reads
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def proxy(program: str, corpus: Corpus, tmp_path: Path) -> Iterator[Proxy]:
    """Two servers of their own, as one of them does not live to the end."""
    with primary_server("test") as primary, database.connect(primary.url()) as engine:
        with engine.begin() as connection:
            database.upgrade(connection)
            ITEMS.create(connection)
            connection.execute(
                ITEMS.insert(), [{"id": n, "embedding": row} for n, row in enumerate(corpus.documents[:1_000, :96])]
            )
        vacuum(engine)
        with streaming_standby(primary, "test") as standby, database.connect(standby.url()) as other:
            catch_up(engine, other)
            one, two = (f"{server.data_dir}/run/.s.PGSQL.5432" for server in (primary, standby))
            with haproxy(program, one, two, tmp_path) as ports:
                address = "postgresql+psycopg://postgres@127.0.0.1:{}/test"
                writes, reads = (create_engine(address.format(port), pool_size=4) for port in ports)
                process = primary.pid
                assert process is not None

                def promote() -> None:
                    with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                        assert connection.scalar(text("SELECT pg_promote()"))

                yield Proxy(writes, reads, lambda: os.kill(process, signal.SIGQUIT), promote)
                writes.dispose()
                reads.dispose()


def recovering(engine: Engine) -> set[bool]:
    """Whether the servers are standbys that new connections, which stay in the pool, lead to."""
    engine.dispose()
    # before the first check any server is used, and one that the check turns down is cut off: also while it is closed
    with suppress(OperationalError), ExitStack() as stack:
        connections = [stack.enter_context(engine.connect()) for _ in range(4)]
        return {bool(connection.scalar(select(func.pg_is_in_recovery()))) for connection in connections}
    return set()


def works(engine: Engine, use: Callable[[Connection], Any]) -> Callable[[], bool]:
    """Whether it can be done, asked again and again."""

    def attempt() -> bool:
        with suppress(DBAPIError), engine.begin() as connection:
            use(connection)
            return True
        return False

    return attempt


def test_a_failover_in_the_middle_of_searches(proxy: Proxy, corpus: Corpus) -> None:
    """Connections to the one that died fail and are made anew; no answer is wrong, and writes go on at the other."""
    statements = [search(select(ITEMS.c.id), ITEMS.c.embedding, query) for query in corpus.queries[:QUERIES, :96]]
    row = {"embedding": corpus.queries[0, :96]}
    # a proxy that has just started takes every server for one that can be used
    until(lambda: recovering(proxy.writes) == {False} and recovering(proxy.reads) == {True, False})
    with proxy.reads.connect() as connection:
        expected = [connection.execute(statement).all() for statement in statements]
    errors = wrong = 0
    for number in range(SEARCHES):
        if number == SEARCHES // 2:
            proxy.kill()
        answer, end = None, time.monotonic() + 60
        while answer is None:
            try:
                with proxy.reads.connect() as connection:
                    answer = connection.execute(statements[number % QUERIES]).all()
            except OperationalError:
                errors += 1
                assert time.monotonic() < end
        wrong += answer != expected[number % QUERIES]
    assert wrong == 0
    assert errors > 0
    with pytest.raises(DBAPIError), proxy.writes.begin() as connection:  # nobody takes writes yet
        connection.execute(insert(ITEMS), {"id": 5_000, **row})
    proxy.promote()
    until(works(proxy.writes, lambda connection: connection.execute(insert(ITEMS), {"id": 5_000, **row})))
    with proxy.reads.connect() as connection:
        nearest = search(select(ITEMS.c.id), ITEMS.c.embedding, row["embedding"], k=1)
        assert connection.execute(nearest).scalars().all() == [5_000]


def test_the_page_shows_the_same_checks() -> None:
    """docs/replicas.md has them with addresses instead of sockets."""
    page = (Path(__file__).parent.parent.parent / "docs" / "replicas.md").read_text(encoding="utf-8")
    shown = [line for line in CONFIGURATION.splitlines() if line.strip().startswith(("tcp-check", "option", "default"))]
    assert len(shown) >= 8
    assert not [line for line in shown if line not in page]
