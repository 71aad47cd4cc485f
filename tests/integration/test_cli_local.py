"""`pgmrl local` as a user runs it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgmrl import database
from tests.cli import failed, ok, ok_json, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder the server's unprivileged user can reach too."""
    folder = Path(tempfile.mkdtemp(prefix="pgmrl-cli-"))
    yield folder / "data"
    run("local", "stop", "--data-dir", folder / "data")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_embedded_server(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started, found, used without DATABASE_URL, stopped."""
    data_dir.parent.chmod(0o755)
    status = run("local", "status", "--data-dir", data_dir)
    assert (status.exit_code, status.stdout.strip()) == (1, "not running")
    assert "pgmrl local start" in failed(capsys, monkeypatch, "local", "url", "--data-dir", data_dir)
    started = ok_json("local", "start", "--data-dir", data_dir)
    assert started["pid"] > 0
    assert ok("local", "url", "--data-dir", data_dir).strip() == started["url"]
    assert ok_json("local", "status", "--data-dir", data_dir)["url"] == started["url"]
    assert "running since" in ok("local", "status", "--data-dir", data_dir)
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("PGMRL_DATA_DIR", str(data_dir))
    assert ok_json("upgrade")["after"] == database.NEWEST_REVISION
    assert ok_json("local", "status")["pid"] == started["pid"]
    assert ok("local", "stop", "--data-dir", data_dir).strip() == "stopped"
    assert run("local", "status", "--data-dir", data_dir, "--json").stdout.strip() == "null"
