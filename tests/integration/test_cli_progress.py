"""`pgmrl progress --watch`: the same again until interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from tests.cli import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator

Process = subprocess.Popen[str]


@pytest.fixture
def watching(place: object) -> Iterator[Process]:
    """A process that shows the progress to a pipe."""
    assert place
    command = [sys.executable, "-m", "pgmrl.cli", "progress", "--watch"]
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509 - no threads here
    ) as process:
        yield process
        process.kill()


def test_it_goes_on_until_interrupted(watching: Process, engine: Engine) -> None:
    """Nothing runs at first, then something does; where there is no terminal only what has changed is printed."""
    assert watching.stdout is not None
    assert watching.stdout.readline() == "No backfill was ever started here, and no index is being built.\n"
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO pgmrl.backfills (table_schema, table_name, source_column, target_column, rule, "
                "key_columns, table_oid, target_number, rows_estimated, rows_seen, finished_at) "
                "VALUES ('public', 'documents', 'embedding', 'embedding_8', 'prefix', '{id}', 1, 1, 10, 10, now())"
            )
        )
    assert watching.stdout.readline().startswith("public.documents.embedding_8: finished, 0 rows filled in ")
    watching.send_signal(signal.SIGINT)
    rest, errors = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "Traceback" not in errors
    assert rest == ""
