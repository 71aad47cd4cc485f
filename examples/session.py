"""What the examples of migrations share: a database of their own, a copy of the application, commands shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, make_url

from pgmrl.local import server_url
from pgmrl.urls import sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import Iterator


class Application:
    """A copy of an example's folder, in which its commands run as in a terminal.

    Args:
        folder: the copy.
        url: of its database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def run(self, *command: str) -> str:
        """Run a command, show it with what it says, and return that."""
        print(f"\n$ {' '.join(command)}", flush=True)
        program = [sys.executable, *_PROGRAMS[command[0]], *command[1:]]
        ran = subprocess.run(  # noqa: S603 - its own commands
            program, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        output = ran.stdout + ran.stderr
        print(output, end="", flush=True)
        if ran.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed with {ran.returncode}")
        return output

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its commands see."""
        return {**os.environ, "DATABASE_URL": self.url}

    def edit_models(self, version: str) -> None:
        """What a developer does in an editor: models.py becomes another version of itself."""
        print(f"\n(models.py is now {version})")
        shutil.copy(self.folder / version, self.folder / "models.py")

    def newest_migration(self) -> Path:
        """The file that `alembic revision` wrote last."""
        return max((self.folder / "migrations" / "versions").glob("*.py"), key=lambda path: path.stat().st_mtime_ns)


_PROGRAMS = {"alembic": ["-m", "alembic"], "pgmrl": ["-m", "pgmrl.cli"], "python": []}


@contextmanager
def application(name: str) -> Iterator[Application]:
    """A copy of examples/<name>, with an empty database `pgmrl_example_<name>` beside the one in DATABASE_URL.

    Without DATABASE_URL it is in the embedded PostgreSQL. Database and copy are removed at the end.
    """
    with server_url() as server_address, tempfile.TemporaryDirectory() as temporary:
        server = make_url(sqlalchemy_url(server_address))
        database = f"pgmrl_example_{name}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            connection.exec_driver_sql(f"CREATE DATABASE {database}")
        try:
            source = Path(__file__).parent / name
            folder = Path(temporary) / name
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(folder / "models.py", folder / "models_before.py")
            url = server.set(database=database)
            yield Application(folder, url.render_as_string(hide_password=False))
        finally:
            with admin.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            admin.dispose()
