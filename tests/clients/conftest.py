"""Ways to the test's server for clients that cannot take its socket: a TCP port, and PgBouncer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import psycopg.conninfo
import pytest

from pgmrl.local.programs import Programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.local import LocalServer
    from tests.conftest import Wares


class Answer(NamedTuple):
    """A call that every client makes, and what psycopg gets for it without anything between it and the server.

    Attributes:
        statement: the call, with ? where a parameter stands.
        given: the parameters.
        columns: their names.
        rows: numbers and None.

    """

    statement: str
    given: tuple[Any, ...]
    columns: list[str]
    rows: list[tuple[Any, ...]]

    def with_numbers(self) -> str:
        """The statement with $1, $2 and so on."""
        first, *parts = self.statement.split("?")
        return first + "".join(f"${number}{part}" for number, part in enumerate(parts, 1))


WORDS = "it's about \\ $1 %s 'a game' \"with trains\"; -- é"
CALLS = [  # with casts: some drivers send every number as a bigint, and every text as a varchar
    (
        "passages_search_diverse(?::halfvec, ?::integer, ?::float8, package_any => ?::text[])",
        (8, 0.3, "{email,asyncio,typing}"),
    ),
    ("passages_search_groups(?::halfvec, ?::integer, ?::integer, shortlist => ?::integer)", (4, 2, 400)),
    (
        "passages_hybrid(?::halfvec, ?, ?::integer, match => ?, words_weight => ?::float8)",
        ("strategy game", 9, "any", 1.5),
    ),
    ("asked_search_text(?, ?::integer, package => ?)", (WORDS, 7, "email")),
    ("asked_hybrid_text(?, ?::integer, match => ?)", (WORDS, 5, "any")),
]


@pytest.fixture(scope="module")
def answers(wares: Wares) -> list[Answer]:
    """Rows that differ, groups, words beside the vector, and words alone, of one query each."""
    found = []
    with wares.engine.connect() as connection:
        for number, (call, given) in enumerate(CALLS):
            statement = f"SELECT * FROM {call} ORDER BY rank, id"
            sent = (wares.literal(number), *given) if "::halfvec" in call else given
            result = connection.exec_driver_sql(statement.replace("?", "%s"), sent)
            found.append(Answer(statement, sent, list(result.keys()), [tuple(row) for row in result]))
    assert [len(one.rows) for one in found] == [8, 8, 9, 7, 5]
    assert any(None in row for row in found[2].rows)  # a client has to tell NULL from a number
    return found


def as_number(written: str) -> float | None:
    """A value as a client printed it: nothing, or "null", is NULL."""
    return None if written in {"", "null"} else float(written)


@pytest.fixture(scope="session")
def socket_path(server: LocalServer) -> Path:
    """The server's Unix socket: it listens on nothing else."""
    said = psycopg.conninfo.conninfo_to_dict(server.dsn)
    return Path(str(said["host"])) / f".s.PGSQL.{said['port']}"


@pytest.fixture(scope="session")
def tcp_port(socket_path: Path) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to the server, for drivers that know no Unix sockets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(socket_path))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
    listener.close()
    thread.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    source.close()


@pytest.fixture(scope="session")
def psql() -> str:
    """The embedded server's psql, or the system's."""
    inside = Programs.installed().folder / "psql"
    found = str(inside) if inside.exists() else shutil.which("psql")
    if found is None:
        pytest.skip("psql is not installed")
    return found


@pytest.fixture(scope="session")
def pgbouncer(socket_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a PgBouncer in transaction mode with two connections to the server, as an unprivileged user."""
    with pgbouncer_as("postgres", socket_path, tmp_path_factory.mktemp("pgbouncer") / "log") as port:
        yield port


@contextmanager
def pgbouncer_as(role: str, socket_path: Path, log: Path) -> Iterator[int]:
    """The port of a PgBouncer in transaction mode, which logs in as this role whoever connects to it."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    account = Programs.installed().account
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # beside the socket: a folder of pytest is closed to that user
    config = socket_path.parent / f"pgbouncer-{port}.ini"
    config.write_text(
        f"[databases]\n* = host={socket_path.parent} port={socket_path.suffix[1:]} user={role}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 50\n"
        "server_check_delay = 0\nlogfile =\npidfile =\n"
    )
    config.chmod(0o644)
    options: dict[str, Any] = {} if account is None else account.popen
    with log.open("w") as output:
        process = subprocess.Popen([program, str(config)], stdout=output, stderr=output, cwd="/", **options)  # noqa: S603
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait(20)
        config.unlink()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail(f"pgbouncer ended: {log.read_text()}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"pgbouncer does not listen: {log.read_text()}")
