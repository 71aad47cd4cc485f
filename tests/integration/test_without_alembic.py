"""pgmrl where Alembic is not installed: everything but the application's own migrations."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from pgmrl import database
from tests.databases import connected, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl import local

HIDDEN = "import sys; sys.modules['alembic'] = None\n"  # an import of it fails as where it is not installed
COMMAND = f"{HIDDEN}from pgmrl import cli\nsys.argv[0] = 'pgmrl'\ncli.main()\n"


@pytest.fixture
def empty(server: local.LocalServer) -> Iterator[Engine]:
    """A database without pgmrl's schema."""
    with new_database(server, "without", template="template0") as url, connected(url) as engine:
        yield engine


def python(code: str, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """A program in an interpreter of its own."""
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments, *(["--database-url", url] if url else [])],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_commands_work(empty: Engine) -> None:
    """`pgmrl upgrade` brings the schema; the other commands load none of Alembic either."""
    url = empty.url.render_as_string(hide_password=False)
    done = python(COMMAND, "upgrade", url=url)
    assert done.returncode == 0, done.stderr
    with empty.connect() as connection:
        assert database.installed_revision(connection) == database.NEWEST_REVISION
    assert "pgmrl's schema is at revision" in python(COMMAND, "upgrade", url=url).stdout
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id int PRIMARY KEY, e vector(8))")
    checked = python(COMMAND, "check-migration", "docs.e", "--short-dims", "4", url=url)
    assert "docs.e_short_4" in checked.stdout, checked.stderr


def test_an_applications_migrations_are_refused(empty: Engine) -> None:
    """By one sentence that says what to install."""
    url = empty.url.render_as_string(hide_password=False)
    sentence = "migrations by Alembic need it installed: pip install 'pgmrl[alembic]'"
    done = python(COMMAND, "check-migration", "--config", "alembic.ini", url=url)
    assert (done.returncode, done.stdout, " ".join(done.stderr.split())) == (1, "", f"error: {sentence}")
    imported = python(f"{HIDDEN}import pgmrl.alembic")
    assert imported.stderr.splitlines()[-1] == f"pgmrl.errors.MigrationError: {sentence}"


def test_both_keep_one_version(empty: Engine) -> None:
    """What pgmrl brought, Alembic finds at its revision, and the other way round."""
    from alembic import command  # noqa: PLC0415 - the module is about doing without
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(database.migrations_path()))
    with empty.begin() as connection:
        database.upgrade(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")  # nothing to do: a second installation would fail
        command.downgrade(config, "base")
        assert database.installed_revision(connection) is None
        command.upgrade(config, "head")
        assert database.installed_revision(connection) == database.NEWEST_REVISION
        database.downgrade(connection)
        assert database.installed_revision(connection) is None
