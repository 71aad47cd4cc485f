"""Run `pgmrl …` within a test; the fixture `place` (conftest.py) gives it a database and a folder."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pgmrl import cli
from pgmrl.errors import PgmrlError

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

__all__ = ["ROWS", "failed", "failure", "hit_names", "interruptible", "ok", "ok_json", "run", "write_rows"]

ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "gcompris", "body": "a game for children about numbers", "stars": 5},
    {"id": 2, "name": "simutrans", "body": "a game with trains and buses", "stars": 3},
    {"id": 3, "name": "postgresql", "body": "a relational database server", "stars": 9},
    {"id": 4, "name": "nginx", "body": "a small and fast web server", "stars": 7},
    {"id": 5, "name": "nobody", "body": None, "stars": 0},
]


def run(*arguments: object) -> Result:
    """Run a command within this process, to whatever exit code; an error is raised, pgmrl's own as well."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ok(*arguments: object) -> str:
    """What a command that succeeds writes to standard output."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def ok_json(*arguments: object) -> Any:
    """The one JSON document a command writes."""
    return json.loads(ok(*arguments, "--json"))


def failure(*arguments: object) -> PgmrlError:
    """The error of a command that fails."""
    with pytest.raises(PgmrlError) as caught:
        run(*arguments)
    return caught.value


def failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int = 1
) -> str:
    """The message of a command that fails as a program: its exit code, nothing on standard output, no traceback."""
    monkeypatch.setattr(sys, "argv", ["pgmrl", *map(str, arguments)])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    out, err = capsys.readouterr()
    assert exited.value.code == code
    assert out == ""
    # on a busy machine lines of progress come before it, one every ten seconds
    progress, error, message = err.partition("error: ")
    assert error
    assert re.fullmatch(r"(.+ \d+ s\n)*", progress)
    assert "Traceback" not in err
    return error + message


def write_rows(folder: Path, form: str = "jsonl", rows: list[dict[str, Any]] = ROWS) -> Path:
    """Rows as a file of a form that `pgmrl load` reads."""
    path = folder / f"rows.{form}"
    if form in {"jsonl", "ndjson"}:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    elif form == "parquet":
        import pyarrow as pa  # noqa: PLC0415 - slow to import
        from pyarrow import parquet  # noqa: PLC0415 - an extra

        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        delimiter = {"csv": ",", "tsv": "\t"}[form]
        lines = [list(rows[0]), *([("" if value is None else str(value)) for value in row.values()] for row in rows)]
        path.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    return path


def hit_names(document: Any) -> list[str]:
    """The names of the hits of a search."""
    return [hit["name"] for hit in document["hits"]]


def interruptible() -> None:
    """Hear SIGINT, also where the test run was started in the background, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
