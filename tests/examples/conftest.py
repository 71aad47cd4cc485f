"""Applications in examples/ as their users run them: their commands in the shell, their modules in this process."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from tests.clients.conftest import socket_path  # noqa: F401 - a fixture
from tests.databases import connected, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.local import LocalServer

ROOT = Path(__file__).parent.parent.parent


class Application:
    """An example with an empty database of its own, without pgmrl's schema.

    Args:
        name: its folder in examples/.
        url: of the database, as its owner, for SQLAlchemy with psycopg 3.

    """

    def __init__(self, name: str, url: str) -> None:
        self.folder, self.owner_url = ROOT / "examples" / name, url
        self.environment: dict[str, str] = {}

    def run(self, *command: str) -> str:
        """What `python -m …` or `python ….py` says in its folder."""
        program = command if command[0].endswith(".py") else ("-m", *command)
        ran = subprocess.run(  # noqa: S603 - this interpreter, our own file
            [sys.executable, *program],
            cwd=self.folder,
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def rows(self, statement: str) -> list[Any]:
        """What the owner sees."""
        with connected(self.owner_url) as engine, engine.connect() as connection:
            return list(connection.execute(text(statement)))

    @contextmanager
    def imported(self) -> Iterator[Any]:
        """Its module `main`; other examples have modules of the same names."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(self.folder))
            for name, value in self.environment.items():
                patch.setenv(name, value)
            before = set(sys.modules)
            try:
                yield importlib.import_module("main")
            finally:
                for name in set(sys.modules) - before:
                    if self.folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
                        del sys.modules[name]


@contextmanager
def application(server: LocalServer, name: str) -> Iterator[Application]:
    """An example with its database."""
    with new_database(server, "example", "template1") as url:
        yield Application(name, url)
