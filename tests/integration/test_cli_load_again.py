"""`pgmrl load` once more: after it had finished, and after it was interrupted at any point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, inspect, text

from pgmrl import database
from pgmrl.cli import main
from pgmrl.database.connection import execute_plain
from pgmrl.ingestion.batch_copy import write_batch
from tests.cli import ROWS, failed, failure, interruptible, ok, ok_json, write_rows
from tests.migrations.processes import until, waiting

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("place")

MANY = [{"id": n, "name": f"row {n}", "v": [float(n % 7) - 3, 1.0, float(n % 11), 2.0] * 4} for n in range(1, 9_001)]
LOAD = ("--table", "things", "--vector-column", "v", "--short-dims", 4)


@pytest.fixture
def many(place: Path) -> Path:
    """9,000 rows, of which 2,000 are loaded at once."""
    file = place / "many.jsonl"
    file.write_text("\n".join(map(json.dumps, MANY)), encoding="utf-8")
    return file


def there(engine: Engine) -> int:
    """How many rows are in the table, each once."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(DISTINCT id) FROM things")).scalar_one())


def valid_index(engine: Engine) -> bool:
    """Whether a search can go by the index."""
    with engine.connect() as connection:
        [info] = [info for info in database.columns(connection) if info.table_name == "things"]
    return bool(info.index_valid)


def test_after_it_had_finished(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, with what --resume would do, and that does nothing."""
    arguments = ["load", write_rows(place), "--table", "things", "--text", "body"]
    ok(*arguments)
    said = failed(capsys, monkeypatch, *arguments)
    assert "all of the first 5 rows are in things already, by their id" in said
    assert "--resume" in said
    report = ok_json(*arguments, "--resume")
    assert (report["rows"], report["skipped"], report["made"]) == (0, 5, False)


def test_some_rows_are_new(place: Path, engine: Engine) -> None:
    """Only these are loaded."""
    ok("load", write_rows(place), "--table", "things", "--text", "body")
    more = write_rows(place, rows=[*ROWS, {"id": 6, "name": "openttd", "body": "trains", "stars": 1}])
    assert "5 of the first 6 rows" in str(failure("load", more, "--table", "things", "--text", "body"))
    report = ok_json("load", more, "--table", "things", "--text", "body", "--resume")
    assert (report["rows"], report["skipped"]) == (1, 5)
    assert there(engine) == 6


def test_rows_without_a_key_cannot_be_known_again(place: Path) -> None:
    """Numbered rows would be loaded twice."""
    rows = [{"body": row["body"]} for row in ROWS]
    ok("load", write_rows(place, rows=rows), "--table", "things", "--text", "body")
    said = str(failure("load", place / "rows.jsonl", "--table", "things", "--text", "body", "--resume"))
    assert "these have no 'id'" in said


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_an_error_in_the_middle(
    many: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    """What was written is said; --resume loads the rest, and makes the rotation and the index."""
    arguments = ["load", many, *LOAD, "--by", by]
    batches = []

    def interrupted(*of: object) -> None:
        batches.append(of)
        if len(batches) == 3:
            raise KeyboardInterrupt
        write_batch(*of)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("pgmrl.ingestion.ingest.write_batch", interrupted)
        patched.setattr(sys, "argv", ["pgmrl", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()
    assert "the load has ended early: 4,000 rows are in things now" in capsys.readouterr().err
    report = ok_json(*arguments, "--resume")
    assert (report["rows"], report["skipped"]) == (5_000, 4_000)
    assert there(engine) == 9_000
    assert valid_index(engine)
    assert (report["rotation"] is None) == (by == "prefix")


def test_a_server_that_ends_the_connection(
    many: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One error, with what was written."""
    batches = []

    def ended(*of: object) -> None:
        batches.append(of)
        if len(batches) == 2:
            query = (
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with engine.connect() as connection:
                execute_plain(connection, query)
        write_batch(*of)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("pgmrl.ingestion.ingest.write_batch", ended)
        said = failed(capsys, monkeypatch, "load", many, *LOAD)
    assert "2,000 rows before it were" in said
    assert "2,000 rows are in things now" in said
    assert there(engine) == 2_000
    assert ok_json("load", many, *LOAD, "--resume")["rows"] == 7_000
    assert valid_index(engine)


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_load_that_is_killed(many: Path, engine: Engine, signal_: int) -> None:
    """Whole batches are there, the next load says so, and --resume does the rest."""
    program = [sys.executable, "-m", "pgmrl.cli", "load", str(many), *map(str, LOAD)]
    load = subprocess.Popen(  # noqa: S603
        program,
        env={**os.environ},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509 - no threads here
    )

    def begun() -> bool:
        with engine.connect() as connection:
            made = connection.execute(text("SELECT to_regclass('things') IS NOT NULL")).scalar_one()
        return bool(made) and there(engine) > 0

    until(begun)
    with engine.connect() as connection:  # the next batch, or the index, waits: it is alive when the signal comes
        connection.execute(text("LOCK TABLE things IN SHARE MODE"))
        with engine.connect() as other:
            until(lambda: waiting(other))
        load.send_signal(signal_)
        _, said = load.communicate(timeout=60)
    assert load.returncode != 0
    if signal_ == signal.SIGINT:
        assert "--resume" in said
    left = there(engine)
    assert "--resume" in str(failure("load", many, *LOAD)) or left == 0
    assert ok_json("load", many, *LOAD, "--resume")["skipped"] == left
    assert there(engine) == len(MANY)
    assert valid_index(engine)


def test_the_index_of_a_table_that_is_there(place: Path, engine: Engine) -> None:
    """Made with the rows that are added, where there is none."""
    ok("load", write_rows(place), "--table", "things", "--text", "body")
    with engine.begin() as connection:
        execute_plain(connection, "DROP INDEX things_embedding_short_64_hnsw")
    more = write_rows(place, rows=[{"id": 6, "name": "openttd", "body": "trains", "stars": 1}])
    ok("load", more, "--table", "things", "--text", "body")
    assert valid_index(engine)


@pytest.mark.parametrize(
    ("type_", "key"),
    [
        ("timestamptz", "2026-01-01T00:00:00+05:00"),
        ("numeric(9,3)", 1.5),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
    ],
)
def test_keys_that_the_server_writes_otherwise(place: Path, engine: Engine, type_: str, key: object) -> None:
    """They are known again by their value."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE things (id {type_} PRIMARY KEY, name text, embedding halfvec(256))"))
    (place / "keys.jsonl").write_text(json.dumps({"id": key, "name": "a game"}))
    load = ("load", "keys.jsonl", "--table", "things", "--text", "name")
    assert ok_json(*load)["rows"] == 1
    again = ok_json(*load, "--resume")
    assert (again["rows"], again["skipped"]) == (0, 1)


@pytest.mark.parametrize("name", ["", "ü" * 32])
def test_names_that_no_table_may_have(place: Path, engine: Engine, name: str) -> None:
    """Of the table or a column: the server would cut a long one; nothing is made."""
    (place / "a.jsonl").write_text(json.dumps({"id": 1, "name": "a game"}))
    (place / "b.jsonl").write_text(json.dumps({"id": 1, name: "a game", "name": ""}))
    message = "expected a name of 1 to 63 bytes"
    assert message in str(failure("load", "a.jsonl", "--table", name, "--text", "name"))
    assert message in str(failure("load", "a.jsonl", "--table", "t", "--text", "name", "--column", name))
    assert message in str(failure("load", "b.jsonl", "--table", "t", "--text", "name"))
    assert not inspect(engine).get_table_names()
