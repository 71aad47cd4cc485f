"""`pgmrl fit-rotation`, `pgmrl upgrade` and `pgmrl columns` as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from pgmrl import database
from pgmrl.errors import PgmrlError
from tests.cli import failed, ok, ok_json, run, write_rows

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def loaded(place: Path) -> str:
    """The rows in a table `things`; the column's name."""
    ok("load", write_rows(place), "--table", "things", "--text", "{name}: {body}")
    return "things.embedding"


@pytest.fixture
def many(place: Path) -> str:
    """A thousand vectors of 32 dimensions whose spectrum falls in a basis of its own."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    vectors = (rng.normal(size=(1_000, 32)) * 0.8 ** np.arange(32)) @ basis.T
    rows: list[dict[str, Any]] = [{"id": n, "v": v.tolist()} for n, v in enumerate(vectors)]
    ok(
        "load",
        write_rows(place, rows=[*rows, {"id": 1_000, "v": [0.0] * 32}]),
        "--vector-column",
        "v",
        "--short-dims",
        8,
    )
    return "documents.embedding"


def test_fit_rotation(place: Path, engine: Engine, many: str) -> None:
    """What each size keeps, and a file by the name of its hash; the database is as before."""
    found = ok_json("fit-rotation", many, "--rotation-dir", "here")
    assert found["rows"] == 1_000
    assert found["skipped"] == 1
    assert (place / found["path"]).name == f"{found['rotation']}.npy"
    assert (place / found["path"]).is_file()
    assert found["recall_by_dims"]["16"] > found["recall_by_dims_prefix"]["16"]
    assert found["recall_by_dims"]["32"] == 1
    with engine.connect() as connection, pytest.raises(PgmrlError, match="not installed"):
        database.installed_rotation(connection, found["rotation"])
    said = ok("fit-rotation", many, "--rotation-dir", "here", "--axes", 16)
    assert "1,000 rows (1 without a usable vector left out)" in said
    assert "Rotation.load(" in said
    assert "rotation keeps" in said


def test_fit_and_install(engine: Engine, many: str) -> None:
    """The axes are in the database as well, the same ones."""
    found = ok_json("fit-rotation", many, "--install", "--axes", 8)
    with engine.connect() as connection:
        installed = database.installed_rotation(connection, found["rotation"])
    np.testing.assert_array_equal(installed.required_axes(), np.load(found["path"]))


def test_fit_with_numbers_that_make_no_sense(
    many: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message, and no file."""
    for arguments in (["--axes", 33], ["--axes", 0], ["--sample", 0], ["--sample", 5]):
        failed(capsys, monkeypatch, "fit-rotation", many, *arguments)
    assert not Path("rotations").exists()


def test_upgrade(engine: Engine) -> None:
    """From nothing to the newest, and then nothing to do."""
    with engine.begin() as connection:
        database.downgrade(connection)
        connection.execute(text("DROP SCHEMA IF EXISTS pgmrl CASCADE"))
    first = ok_json("upgrade")
    assert first == {"before": None, "after": database.NEWEST_REVISION}
    assert ok_json("upgrade") == {"before": database.NEWEST_REVISION, "after": database.NEWEST_REVISION}
    assert f"revision {database.NEWEST_REVISION}" in ok("upgrade")


def test_columns(engine: Engine, loaded: str) -> None:
    """All is well; then the index is gone, and the exit code says so."""
    assert loaded
    (info,) = ok_json("columns")
    assert (info["table_name"], info["full_column"], info["index_valid"]) == ("things", "embedding", True)
    said = ok("columns")
    assert "public.things.embedding" in said
    assert "halfvec(256)" in said
    with engine.begin() as connection:
        connection.execute(text(f"DROP INDEX {info['index_name']}"))
    result = run("columns")
    assert result.exit_code == 1
    assert "none: searches read the whole table" in result.stdout


def test_columns_of_an_empty_database() -> None:
    """There is nothing wrong with it."""
    assert ok_json("columns") == []
    assert "no Matryoshka columns" in ok("columns")
