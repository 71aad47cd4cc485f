"""The command line as a user runs it, against a real server: help, errors, search."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from pgmrl import cli
from tests.cli import failed, failure, hit_names, ok, ok_json, run, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("place")

QUESTION = "a game with trains"
REFERENCE = Path(__file__).parent.parent.parent / "docs" / "cli.md"


def commands() -> Iterator[str]:
    """Every command by its name, those of groups with the group's."""
    pending = [("", typer.main.get_command(cli.app))]
    while pending:
        name, command = pending.pop()
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            yield name
        else:
            pending += [(f"{name} {word}".strip(), subcommand) for word, subcommand in subcommands.items()]


COMMANDS = sorted(commands())


@pytest.fixture
def loaded(place: Path) -> str:
    """The rows in a table `things`; the column's name."""
    ok("load", write_rows(place), "--table", "things", "--text", "{name}: {body}")
    return "things.embedding"


# -- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """In its help: what it does, an example of its own, every option; and in the reference."""
    shown = " ".join(ok(*command.split(), "--help").split())
    assert "Example" in shown
    assert f"pgmrl {command}" in shown.split("Example", 1)[1]
    assert f"\n### pgmrl {command}\n" in REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("group", ["", "functions", "local", "model", "query", "reshape"])
def test_the_help_names_every_command(group: str) -> None:
    """Of the program and of each group."""
    shown = ok(*group.split(), "--help")
    below = [command.removeprefix(group).split()[0] for command in COMMANDS if command.startswith(group)]
    assert below
    assert all(f" {word} " in shown for word in below)


def test_there_are_modules_of_the_commands_names() -> None:
    """Whoever looks for a command finds it."""
    folder = Path(cli.__file__).parent
    missing = [word for word in (command.split()[0].replace("-", "_") for command in COMMANDS)
               if not (folder / f"{word}.py").is_file()]  # fmt: skip
    assert len(COMMANDS) > 25
    assert not missing


def test_the_module_runs() -> None:
    """`python -m pgmrl.cli` in a process of its own."""
    command = [sys.executable, "-m", "pgmrl.cli"]
    found = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)  # noqa: S603
    assert "pgmrl" in found.stdout
    wrong = subprocess.run([*command, "search"], capture_output=True, text=True, check=False)  # noqa: S603
    assert wrong.returncode == 2
    environment = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    unreachable = subprocess.run(  # noqa: S603
        [*command, "columns"], capture_output=True, text=True, check=False, env=environment
    )
    assert unreachable.returncode == 1
    assert unreachable.stderr.startswith("error: cannot reach")
    assert "Traceback" not in unreachable.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["search"],
        ["search", "things.embedding"],
        ["search", "things.embedding", "a question", "--vector", "[1]"],
        ["search", "things.embedding", "x", "-k", "many"],
        ["load"],
        ["load", "a.jsonl"],
        ["load", "a.jsonl", "--select", "SELECT 1", "--text", "x"],
        ["load", "a.jsonl", "--text", "x", "--vector-column", "y"],
        ["load", "a.jsonl", "--text", "x", "--by", "magic"],
        ["fit-rotation"],
        ["reshape", "start"],
        ["reshape", "documents.embedding", "--contract"],
        ["progress", "--watch", "--json"],
        ["load", "a.jsonl", "--text", "x", "--type", "rank"],
        ["load", "a.jsonl", "--text", "x", "--type", "rank=money"],
        ["load", "a.jsonl", "--text", "x", "--max-chars", "0"],
        ["demo", "--no-such-option"],
        ["search", "a.b", "x", "--metric", "manhattan"],
        ["load", "a.jsonl", "--text", "x", "--metric", "manhattan"],
        ["doctor", "--plot", "history.jpg"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    """Exit code 2, and what is wrong on standard error."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error" in result.stderr


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["columns", "--database-url", "postgresql://nobody@127.0.0.1:1/nothing"], "cannot reach"),
        (["columns", "--database-url", "not a url"], "does not begin with postgresql://"),
        (["columns", "--database-url", "mysql://host/db"], "does not begin with postgresql://"),
        (["search", "missing.embedding", "x"], "no table public.missing"),
        (["search", "missing", "x"], "expected table.column"),
        (["search", "a.b.c.d", "x"], "expected table.column"),
        (["fit-rotation", "missing.embedding"], "no table public.missing"),
        (["load", "missing.jsonl", "--text", "x"], "no file missing.jsonl"),
        (["load", "missing.xml", "--text", "x"], "ends with none of"),
        (["load", "missing.jsonl", "--text", "x", "--embedder", "no.such:model"], "no module"),
        (["load", "--select", "SELECT nonsense", "--text", "x"], "nonsense"),
        (["load", "--select", "SELECT 1 AS id, '' AS x WHERE false", "--text", "x"], "no rows to load"),
        (["search", "missing.embedding", "--vector", "[1, 2"], "no array of numbers"),
        (
            ["search", "missing.embedding", "--vector", "nowhere.npy"],
            "nowhere.npy cannot be read: No such file or directory",
        ),
        (["search", "missing.embedding", "--vector", "nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["explain", "missing.embedding", "--vector", "nowhere.npy"], "nowhere.npy cannot be read: No such file"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Exit code 1 and one message that says what is wrong."""
    assert message in failed(capsys, monkeypatch, *arguments)


def test_a_password_is_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors end up in logs."""
    said = failed(capsys, monkeypatch, "columns", "--database-url", "postgresql://app:secret@127.0.0.1:1/app")
    assert "127.0.0.1" in said
    assert "secret" not in said


def test_errors_within_tests_are_pgmrls_own() -> None:
    """The application itself raises; only `main` prints."""
    assert "no table public.missing" in str(failure("search", "missing.embedding", "x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "nonsense = 1"], "nonsense"),
        (["--where", "(("], "syntax error"),
        (["--show", "nonsense"], "the table has id"),
    ],
)
def test_errors_of_a_search(
    loaded: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    """What the user wrote, in the words of whoever refused it, and nothing of the statement it becomes a part of."""
    said = failed(capsys, monkeypatch, "search", loaded, QUESTION, *arguments)
    assert message in said
    assert "pgmrl_" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "0"], "k=0: expected at least 1"),
        (["--shortlist", "5"], "shortlist=5 is smaller than k=10"),
        (
            ["-k", "200000"],
            "k=200,000: expected at most 100,000, the longest shortlist; for more use exact=True (`--exact`)",
        ),
        (["--ef-search", "5000"], "ef_search=5000"),
    ],
)
def test_numbers_that_make_no_search(
    loaded: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    """Are a wrong use of the options: exit code 2."""
    for command in ("search", "explain"):
        assert message in failed(capsys, monkeypatch, command, loaded, QUESTION, *arguments, code=2)


def test_more_rows_than_the_table_has(loaded: str) -> None:
    """All of them come, by a shortlist as by an exact search."""
    rows = len(ok_json("search", loaded, QUESTION, "-k", 20_000)["hits"])
    assert 0 < rows < 20_000
    assert len(ok_json("search", loaded, QUESTION, "-k", 20_000, "--exact")["hits"]) == rows


def test_a_vector_of_other_dimensions(
    loaded: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another model than the table's."""
    assert "256 dimensions" in failed(capsys, monkeypatch, "search", loaded, "--vector", "[1, 2, 3]")


def test_a_column_that_is_no_vector(
    loaded: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or that is not there."""
    assert loaded
    message = failed(capsys, monkeypatch, "search", "things.name", QUESTION)
    assert "expected a column of type vector or halfvec" in message
    assert "no column 'nmae'" in failed(capsys, monkeypatch, "search", "things.nmae", QUESTION)


# -- search ---------------------------------------------------------------------------------------------------------


def test_where_show_and_exact(loaded: str) -> None:
    """A filter with percent signs and colons, chosen columns, and the truth beside the answer."""
    found = ok_json("search", loaded, QUESTION, "--where", "stars > 4", "--show", "name", "--show", "stars")
    assert set(hit_names(found)) == {"gcompris", "postgresql", "nginx"}
    assert [list(hit)[:2] for hit in found["hits"]] == [["name", "stars"]] * 3
    like = ok_json("search", loaded, QUESTION, "--where", "name LIKE '%trans' AND name::text <> ':x'", "--show", "name")
    assert hit_names(like) == ["simutrans"]
    exact = ok_json("search", loaded, QUESTION, "--exact")
    assert exact["shortlist_ms"] is None
    compared = ok_json("search", loaded, QUESTION, "--compare")
    assert compared["recall"] == 1
    assert compared["exact_ms"] > 0
    assert hit_names(compared) == hit_names(exact)


def test_search_for_people(loaded: str) -> None:
    """A table with the distance first, no vectors, and a line on what it cost."""
    said = ok("search", loaded, QUESTION, "--compare", "-k", 2)
    header, first = said.splitlines()[:2]
    assert header.split() == ["distance", "id", "name", "body", "stars"]
    assert "simutrans" in first
    assert re.fullmatch(r"0\.\d{4}", first.split()[0])
    assert re.search(r"\d ms; shortlist .* ms .*rerank .* ms; exact search .* ms; recall@2 1\.00", said)
    assert ok("search", loaded, QUESTION, "--where", "false").strip() == "no rows"


def test_markup_in_the_data_is_shown_as_it_is(place: Path) -> None:
    """Square brackets are somebody's text."""
    ok("load", write_rows(place, rows=[{"id": 1, "body": "[bold]list[int][/bold]"}]), "--text", "body")
    assert "[bold]list[int][/bold]" in ok("search", "documents.embedding", "list")
