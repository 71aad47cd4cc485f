"""Run `pgmrl …` within a test; the fixture `place` (conftest.py) gives it a database and a folder."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pgmrl import cli
from pgmrl.errors import PgmrlError

if TYPE_CHECKING:
    from typer.testing import Result

__all__ = ["failed", "failure", "ok", "ok_json", "run"]


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
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err
