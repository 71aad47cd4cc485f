"""Whatever is written for an option or argument of a command ends in a result or in one error, never in a traceback.

One value of a command line that works is exchanged for a hostile text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from pgmrl import cli
from pgmrl.errors import PgmrlError
from tests.databases import connected, new_database
from tests.property.small_shop import fill
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgmrl.local import LocalServer

VECTOR = "[1, 2, 3, 4, 5, 6, 7, 8]"
COLUMN = "items.embedding"

COMMANDS: dict[str, tuple[str, ...]] = {
    "backfill": (COLUMN,),
    "check-migration": (COLUMN,),
    "chunk": ("items",),
    "columns": (),
    "compare": (COLUMN, COLUMN, "--sample", "3", "--seconds", "5"),
    "distribute": ("items", "--by", "id", "--dry-run"),
    "doctor": (COLUMN, "--seconds", "1"),
    "embed": (COLUMN, "--install", "--text", "{name}", "--by", "static"),
    "evaluate": (COLUMN, "--queries", "queries.jsonl", "--qrels", "qrels.txt"),
    "explain": (COLUMN, "--vector", VECTOR),
    "fit-rotation": (COLUMN, "--axes", "4", "--sample", "100"),
    "functions drop": (COLUMN,),
    "functions install": (COLUMN, "--sql"),
    "functions list": (),
    "load": ("rows.jsonl", "--vector-column", "vector", "--short-dims", "4"),
    "local status": (),
    "local url": (),
    "model install": ("small",),
    "model keep": (COLUMN, "--text", "{name}", "--model", "small"),
    "model list": (),
    "model remove": ("small",),
    "progress": (),
    "query add": (COLUMN, "--vector", VECTOR, "--name", "mine"),
    "query list": (),
    "query remove": (COLUMN, "mine"),
    "recall": (COLUMN, "--sample", "3", "--seconds", "5"),
    "reshape contract": (COLUMN, "--dry-run"),
    "reshape drop": (COLUMN, "--dry-run"),
    "reshape start": (COLUMN, "--short-dims", "2", "--dry-run"),
    "reshape status": (COLUMN,),
    "reshape undo": (COLUMN, "--dry-run"),
    "search": (COLUMN, "--vector", VECTOR),
    "tune": (COLUMN, "--sample", "4", "--seconds", "1"),
    "upgrade": ("head",),
}
NOT_RUN = {
    "demo": "tests/integration/test_cli_demo.py: it loads a model and ten thousand rows",
    "local start": "it starts a server wherever it is told to",
    "local stop": "it ends one",
    "query serve": "tests/integration/test_questions.py: without an end",
}
NOT_EXCHANGED = {
    "embedder",  # tests/unit/test_embedders.py: it imports the module that it is given
    "watch",  # without an end
}

TEXTS = (
    *("", " ", "-", "--", "nan", "inf", "-inf", "1e400", "-1", "0", "00", "5", "0.5", "1_0", "٣", "9" * 5_000),
    *(
        str(2**31),
        str(2**63),
        "None",
        "true",
        "[]",
        "{}",
        "[NaN]",
        "[1e999, 1]",
        "[" * 5_000,
        '["1", "2"]',
        "[[1], [2, 3]]",
    ),
    *(
        "{0.__class__}",
        "{name!r:>9999999999}",
        "%s%n",
        "$1",
        ":name",
        "'; DROP TABLE items; --",
        '"',
        "a\nb",
        "\x1b[2J\x07",
    ),
    *("\udcff", "é" * 300, "/dev/null", "/nowhere/x.npy", "x.png", "..", ".", "items", "public.items.embedding"),
    *("items.embedding.", "pg_class.oid", "items.name", "32,64", "8GB", "99999999999999PB", "prefix", "r123456789abc"),
    *("SELECT 1", "SELECT 1; SELECT 2", "id IN (SELECT 1/0)", "pg_sleep(0)", "1", "head", "x" * 100),
)


@pytest.fixture(scope="module")
def hostile_place(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database and a folder of its own, which commands may write into."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    (folder / "queries.jsonl").write_text('{"_id": "q", "vector": [1, 2, 3, 4, 5, 6, 7, 8]}\n', encoding="utf-8")
    (folder / "qrels.txt").write_text("q 0 3 1\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"id": 1, "vector": [1, 2, 3, 4, 5, 6, 7, 8]}\n', encoding="utf-8")
    write_model(folder / "small")
    with new_database(server, "commands") as url, pytest.MonkeyPatch.context() as patch:
        with connected(url) as engine:
            fill(engine)
        patch.setenv("DATABASE_URL", url)
        patch.setenv("PGMRL_DATA_DIR", str(folder / "no server"))
        patch.chdir(folder)
        yield folder


def commands(group: Any = None, before: str = "") -> dict[str, click.Command]:
    """Every command by its name."""
    found: dict[str, click.Command] = {}
    root: Any = typer.main.get_command(cli.app)
    for name, command in (group or root).commands.items():
        found |= commands(command, f"{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


def test_every_command_is_tried() -> None:
    """A new command needs a line here."""
    assert set(COMMANDS) | set(NOT_RUN) == set(commands())


def exchanged(command: str, parameter: Any, text: str) -> list[str]:
    """The command line with one value exchanged or added."""
    words = list(COMMANDS[command])
    if parameter.param_type_name == "argument":
        given_as_argument = bool(words) and not words[0].startswith("-")
        return [*command.split(), text, *words[1:]] if given_as_argument else [*command.split(), text, *words]
    option = max(parameter.opts, key=len)
    if option in words:
        words[words.index(option) + 1] = text
    else:
        words += [option, text]
    return [*command.split(), *words]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_hostile_options(command: str, hostile_place: Path) -> None:  # noqa: ARG001 - where it runs
    """Exit code 0, 1 or 2 (3 of a monitoring plugin), and what is written can be read."""
    parameters = [
        parameter
        for parameter in commands()[command].params
        if parameter.name not in NOT_EXCHANGED and not getattr(parameter, "is_flag", False)
    ]
    if not parameters:
        return

    @settings(max_examples=max(1, settings().max_examples // 3))  # each takes a tenth of a second
    @given(parameter=st.sampled_from(parameters), text=st.one_of(st.sampled_from(TEXTS), st.text(max_size=20)))
    def run(parameter: Any, text: str) -> None:
        words = exchanged(command, parameter, text.replace("\0", ""))
        result = CliRunner().invoke(cli.app, words)
        error = result.exception
        if isinstance(error, PgmrlError | DBAPIError):  # which `main` writes as one line
            message = str(error) if isinstance(error, PgmrlError) else str(error.orig)
            assert 10 < len(message) < 1_500
            assert message.encode()
        elif error is not None:
            assert isinstance(error, SystemExit), f"{words}: {error!r}"
            assert error.code in {0, 1, 2, 3}, words
        assert "Traceback" not in result.output

    run()
