"""The applications in examples/ gain Matryoshka search, change it and leave it again, by their users' commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(name: str, url: str) -> str:
    """What `python examples/<name>/run.py` says."""
    ran = subprocess.run(  # noqa: S603 - this interpreter, our own file
        [sys.executable, ROOT / "examples" / name / "run.py"],
        env={**os.environ, "DATABASE_URL": url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_shelf_by_autogenerate(database_url: str) -> None:
    """Two revisions written by Alembic, each followed by an empty comparison; all the way back leaves nothing."""
    output = run("shelf", database_url)
    assert output.count("No new upgrade operations detected.") == 2
    assert "op.add_short('entries', 'embedding', Definition.of(256, Short(64), 'cosine', 'halfvec'))" in output
    assert "op.add_short('entries', 'embedding', Definition.of(256, Short(32), 'cosine', 'halfvec'))" in output
    assert output.count("rmtree") + output.count("unlink") + output.count("rmdir") >= 2  # what was asked for
    assert "There and back again." in output


def test_the_archive_online(database_url: str) -> None:
    """The table is read and written from beginning to end, and nobody fails."""
    output = run("archive", database_url)
    assert output.count("No new upgrade operations detected.") == 3
    for line in ("online=True)", "op.backfill_short(", "dropped embedding_short_64"):
        assert line in output
    recalls = [float(recall) for recall in re.findall(r"recall@10: (\S+)", output)]
    assert len(recalls) == 3
    assert min(recalls) >= 0.85
    assert re.search(r"[\d,]+ transactions, none failed", output)


@pytest.mark.parametrize("name", ["shelf", "archive"])
def test_the_history_is_as_it_was(name: str) -> None:
    """Nothing of pgmrl stands in the migrations that were there before."""
    versions = sorted((ROOT / "examples" / name / "migrations" / "versions").glob("*.py"))
    assert len(versions) == 3
    assert not any("pgmrl" in version.read_text(encoding="utf-8") for version in versions)
