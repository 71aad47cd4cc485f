"""Start, join, leave and stop the embedded server.

Each process that uses it holds a lock on a file of its own in the data directory for as long as it lives. The
system releases that lock when the process ends, so that a process ended by kill -9 is not counted any more.
"""

from __future__ import annotations

import atexit
import os
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql

from pgmrl.errors import LocalServerError
from pgmrl.local.cluster import Cluster
from pgmrl.local.postmaster import Postmaster
from pgmrl.local.programs import Programs, file_lock, import_extra
from pgmrl.urls import connection_options, libpq_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LocalServer", "LocalStatus", "database_url", "server_url", "start", "status", "stop"]


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """A running embedded server.

    Attributes:
        data_dir: the data directory.
        pid: the server's process id.
        url: libpq URI of its database `pgmrl`.
        started: when it was started.
        users: ids of the processes that use it.
        kept: whether it keeps running when the last of them has ended.

    """

    data_dir: Path
    pid: int
    url: str
    started: datetime
    users: tuple[int, ...]
    kept: bool


class LocalServer:
    """A use of the embedded server, made by `start`; the server stops when its last use ends.

    A use ends with `stop()`, with the `with` block or with the process. Sockets are private to the account that
    runs the server, so every process of that account may connect and nobody else.
    """

    def __init__(self, cluster: Cluster, programs: Programs, postmaster: Postmaster, database: str, use: Any) -> None:
        self._cluster = cluster
        self._programs = programs
        self._postmaster = postmaster
        self._database = database
        self._owner = os.getpid()
        self._use = use
        atexit.register(self._stop_at_exit)

    def url(self, database: str | None = None) -> str:
        """A libpq URI, as psycopg takes it; for SQLAlchemy write `postgresql+psycopg` in front.

        Args:
            database: by default the one passed to `start`.

        """
        return self._postmaster.url(database or self._database)

    @property
    def dsn(self) -> str:
        """The same as libpq's keywords and values."""
        return self._postmaster.dsn(self._database)

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self._cluster.root

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it no longer runs."""
        postmaster = Postmaster.read(self._cluster.data)
        return postmaster.pid if postmaster and postmaster.is_alive(self._cluster.data) else None

    def stop(self) -> None:
        """End this use; the server stops if it was the last one and `keep` was not set."""
        # A forked child has a copy of this object, but the use is its parent's.
        if self._use is None or self._owner != os.getpid():
            return
        use, self._use = self._use, None
        atexit.unregister(self._stop_at_exit)
        if not self._cluster.exists():  # the folder was deleted under the server, which notices by itself
            use.release()
            return
        with self._cluster.start_stop_lock():
            _leave(self._cluster, self._programs, use)

    def _stop_at_exit(self) -> None:
        # Nobody could act on an error now; a server left running is found and joined by the next start.
        with suppress(LocalServerError, OSError):
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"LocalServer({str(self.data_dir)!r})"


def start(data_dir: Path | None = None, *, database: str = "pgmrl", keep: bool = False) -> LocalServer:
    """Join the embedded server of a data directory; start it, and create directory and database, when needed.

    Args:
        data_dir: a new, empty or earlier data directory; by default PGMRL_DATA_DIR, else
            `/var/lib/pgmrl/postgres-18` for root and the user's data folder for others.
        database: created when missing.
        keep: leave the server running when the last process using it has ended, until `stop`.

    Returns:
        This use of the server. Keep it: `stop()` or the end of the process ends the use.

    Raises:
        LocalServerError: the extra `local` is not installed or the server cannot run there.

    """
    programs = Programs.installed()
    cluster = Cluster.at(data_dir)
    cluster.prepare(programs)
    with cluster.start_stop_lock():
        postmaster = cluster.ready_server() or cluster.start(programs)
        use = _join(cluster)
        try:
            _ensure_database(postmaster, database)
            if keep:
                cluster.keep.touch()
        except BaseException:
            _leave(cluster, programs, use)
            raise
    return LocalServer(cluster, programs, postmaster, database, use)


def status(data_dir: Path | None = None) -> LocalStatus | None:
    """The server of this data directory (the default one when None); None when it does not run."""
    cluster = Cluster.at(data_dir)
    postmaster = cluster.ready_server(seconds=5) if cluster.exists() else None
    if postmaster is None:
        return None
    with cluster.start_stop_lock():
        users = _users(cluster)
    return LocalStatus(
        data_dir=cluster.root,
        pid=postmaster.pid,
        url=postmaster.url("pgmrl"),
        started=datetime.fromtimestamp(postmaster.started, UTC),
        users=users,
        kept=cluster.keep.exists(),
    )


def stop(data_dir: Path | None = None) -> bool:
    """Stop the server of this data directory (the default one when None) now, even if processes use it.

    Returns:
        Whether one was running.

    """
    cluster = Cluster.at(data_dir)
    if not cluster.exists():
        return False
    programs = Programs.installed()
    with cluster.start_stop_lock():
        if cluster.ready_server() is None:
            return False
        cluster.stop(programs)
        return True


def database_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """DATABASE_URL as a plain libpq URI: SQLAlchemy's `postgresql+driver://` is understood; None when not set.

    Raises:
        Unreachable: it is not a PostgreSQL URI.

    """
    url = environ.get("DATABASE_URL", "").strip()
    return libpq_url(connection_options(url, "DATABASE_URL")) if url else None


@contextmanager
def server_url(data_dir: Path | None = None) -> Iterator[str]:
    """The URL of the database to use: DATABASE_URL when it is set, else one of the embedded server.

    Args:
        data_dir: where the embedded server keeps its data; see `start`.

    Yields:
        A libpq URI. The embedded server stops afterwards if nobody else uses it.

    """
    if url := database_url():
        yield url
        return
    with start(data_dir) as server:
        yield server.url()


def _ensure_database(postmaster: Postmaster, name: str) -> None:
    try:
        with postmaster.connect() as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise LocalServerError(f"the database {name!r} of the embedded server cannot be used: {error}") from error


def _join(cluster: Cluster) -> Any:
    """A locked file that marks this process as a user of the server; the caller holds the start-stop lock."""
    cluster.users.mkdir(mode=0o700, exist_ok=True)
    use = file_lock(cluster.users / f"{os.getpid()}-{uuid.uuid4().hex}", 10)
    use.acquire()
    return use


def _leave(cluster: Cluster, programs: Programs, use: Any) -> None:
    use.release()
    Path(use.lock_file).unlink(missing_ok=True)
    if not _users(cluster) and not cluster.keep.exists() and cluster.ready_server():
        cluster.stop(programs)


def _users(cluster: Cluster) -> tuple[int, ...]:
    """Ids of the processes whose lock is held; the files of ended ones are removed.

    The caller holds the start-stop lock.
    """
    pids = []
    for path in sorted(cluster.users.glob("*-*")):
        try:
            with file_lock(path, 0):
                path.unlink(missing_ok=True)
        except import_extra("filelock").Timeout:
            pids.append(int(path.name.partition("-")[0]))
    return tuple(pids)
