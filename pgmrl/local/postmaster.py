"""The server process of a data directory: where it listens, and whether it is still the directory's server."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg

from pgmrl.local.programs import import_extra

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Postmaster"]


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server process as postmaster.pid describes it; the file may be stale.

    Attributes:
        pid: its process id.
        started: seconds since 1970.
        host: the socket's folder, or an address on Windows.
        port: part of the socket's name, or a TCP port.
        state: `starting`, `ready` or `stopping`.

    """

    pid: int
    started: int
    host: str
    port: int
    state: str

    @classmethod
    def read(cls, data: Path) -> Postmaster | None:
        """From postmaster.pid in this folder, as far as a starting server has written it; None without one."""
        try:
            lines = os.fsdecode((data / "postmaster.pid").read_bytes()).splitlines()
            lines += [""] * (8 - len(lines))
            pid, _, started, port, folder, address, _, state = (line.strip() for line in lines[:8])
            return cls(int(pid), int(started or 0), folder or address, int(port or 0), state)
        except (FileNotFoundError, ValueError):
            return None

    def dsn(self, database: str) -> str:
        """The keywords and values of libpq for a database of this server."""
        return psycopg.conninfo.make_conninfo(host=self.host, port=self.port, user="postgres", dbname=database)

    def url(self, database: str) -> str:
        """The same as a libpq URI. The port is in it because PGPORT would otherwise change it."""
        name = quote(database, safe="")
        if sys.platform == "win32":
            return f"postgresql://postgres@{self.host}:{self.port}/{name}"
        return f"postgresql://postgres@/{name}?host={quote(self.host)}&port={self.port}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection outside transactions."""
        return psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=5)

    def is_alive(self, data: Path) -> bool:
        """Whether the process is this folder's server: after a container starts again, small numbers are reused."""
        psutil = import_extra("psutil")
        try:
            process = psutil.Process(self.pid)
            # Its command line, not its working directory: that is hidden from root in a container.
            arguments = process.cmdline()
            folder = arguments[arguments.index("-D") + 1]
            return process.name().startswith("postgres") and data.samefile(folder)
        except (psutil.Error, OSError, ValueError, IndexError):
            return False

    def answers_for(self, data: Path) -> bool:
        """Whether a server answers there and is this folder's; a copied folder names the original's socket.

        This is how the server of another container on the same volume is found: its process is not visible.
        """
        if not self.port:
            return False
        try:
            with self.connect() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
            return row is not None and data.samefile(row[0])
        except (psycopg.OperationalError, OSError):
            return False
