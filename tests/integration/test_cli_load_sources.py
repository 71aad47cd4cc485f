"""`pgmrl load` from a folder of files, standard input and another database; and what runs beside what."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from pgmrl import cli
from pgmrl.ingestion.read_ahead import read_ahead
from tests.cli import failed, failure, hit_names, ok_json, run, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("place")


def rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_folder_of_files(
    place: Path, engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is a row by its path; what is added later is loaded by --resume, and what is no text is named."""
    (place / "docs" / "deep").mkdir(parents=True)
    (place / "docs" / "trains.md").write_text("\ufeffA game\nwith trains\n", encoding="utf-8")
    (place / "docs" / "deep" / "bread.md").write_text("Flour and water", encoding="utf-8")
    (place / "docs" / "bread.txt").write_text("Not of the pattern", encoding="utf-8")
    command = ["load", "--files", place / "docs", "**/*.md", "--table", "pages"]
    assert ok_json(*command)["rows"] == 2
    shown = "SELECT path, text FROM pages ORDER BY path"
    assert rows(engine, shown) == [("deep/bread.md", "Flour and water"), ("trains.md", "A game\nwith trains\n")]
    (place / "docs" / "empty.md").write_text("")
    again = ok_json(*command, "--resume")
    assert (again["rows"], again["skipped"]) == (1, 2)
    assert len(ok_json("search", "pages.embedding", "a game with trains")["hits"]) >= 2
    (place / "docs" / "bad.md").write_bytes(b"\xff")
    message = "bad.md, line 1: byte 0xff is not UTF-8"
    assert message in failed(capsys, monkeypatch, "load", "--files", "docs", "*.md", "--table", "others")
    assert "there is no file *.rst in" in str(failure("load", "--files", "docs", "*.rst"))
    assert "there is no folder" in str(failure("load", "--files", "nowhere", "*"))


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_standard_input(place: Path, form: str) -> None:
    """Of each kind, and once more with the same rows."""
    content = write_rows(place, form).read_bytes()
    for more, count in (((), 5), (("--resume",), 0)):
        command = ["load", "-", "--format", form, "--table", "things", "--text", "body", "--json", *more]
        result = CliRunner().invoke(cli.app, command, input=content)
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert (report["rows"], report["skipped"]) == (count, 5 - count)
    assert "cannot be read as Parquet" in str(failure("load", "-", "--format", "parquet", "--text", "body"))
    assert hit_names(ok_json("search", "things.embedding", "a game with trains", "-k", 3))[0] == "simutrans"


def test_a_select_of_another_database(engine: Engine) -> None:
    """Its rows come from there, and the table is made here."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE posts (id int, body text)"))
        connection.execute(text("INSERT INTO posts VALUES (1, 'one'), (2, NULL), (3, 'three')"))
    name = f"{engine.url.database}_target"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    here = engine.url.set(database=name).render_as_string(hide_password=False)
    there = engine.url.render_as_string(hide_password=False)
    command = ["load", "--select", "SELECT * FROM posts", "--from", there, "--database-url", here, "--text", "body"]
    assert ok_json(*command)["rows"] == 3
    assert ok_json(*command, "--resume")["skipped"] == 3
    assert rows(engine, "SELECT to_regclass('documents') IS NULL") == [(True,)]


def test_what_does_not_go_together(place: Path) -> None:
    """Is refused before a server is looked for."""
    assert place.is_dir()
    for command in (
        ["load"],
        ["load", "-", "--select", "SELECT 1", "--text", "a"],
        ["load", "-", "--from", "x", "--text", "a"],
        ["load", "-", "--format", "xml", "--text", "a"],
        ["load", "--files", "docs", "*", "--text", "text", "--vector-column", "v"],
    ):
        assert run(*command).exit_code == 2, command


# -- what runs beside what -----------------------------------------------------------------------------------------


def test_items_are_made_ahead_in_bounds() -> None:
    """As many as fit, while nobody takes any; and no more."""
    made: list[int] = []
    third = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 3:
                third.set()
            yield number

    ahead = read_ahead(numbers())
    assert next(ahead) == 0
    assert third.wait(30)  # two that wait, and one that has no place yet
    assert made == [0, 1, 2, 3]
    assert list(ahead) == list(range(1, 100))


def test_an_error_comes_where_it_would_have_come() -> None:
    """After the items that were made before it."""

    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("three")

    ahead = read_ahead(numbers())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(ahead)


def test_what_is_left_early_is_closed() -> None:
    """The thread ends, and the source with it."""
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    before = set(threading.enumerate())
    ahead = read_ahead(numbers())
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert set(threading.enumerate()) <= before  # those of other tests may end meanwhile


def test_a_file_whose_name_is_no_text(place: Path) -> None:
    """It is named before anything is written."""
    folder = place / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("a game")
    (folder / os.fsdecode(b"bad\xff.md")).write_text("bread")
    assert "the file's name is not UTF-8" in str(failure("load", "--files", folder, "*.md", "--table", "pages"))


def test_columns_of_one_name(place: Path) -> None:
    """One of them would be lost: in a SELECT, and in a Parquet file."""
    query = "SELECT 1 AS id, 'a game' AS body, 2 AS id"
    message = "two columns 'id': name each once"
    assert message in str(failure("load", "--select", query, "--table", "pages", "--text", "body"))
    table = pa.table([[1], ["a game"], [2]], names=["id", "body", "id"])
    parquet.write_table(table, place / "twice.parquet")
    assert message in str(failure("load", place / "twice.parquet", "--table", "pages", "--text", "body"))


def test_a_blank_text_has_no_vector(place: Path, engine: Engine) -> None:
    r"""As with the workers, whatever the pattern adds; and `\n` in the pattern is a line break to both."""
    texts = ["a game", "", " \n", None]
    lines = [json.dumps({"id": number, "body": value}) for number, value in enumerate(texts)]
    (place / "texts.jsonl").write_text("\n".join(lines))
    counts = ok_json("load", place / "texts.jsonl", "--table", "pages", "--text", r"{body}\nof {body}")
    assert (counts["null_vectors"], counts["zero_vectors"]) == (3, 0)
    assert rows(engine, "SELECT id FROM pages WHERE embedding IS NOT NULL") == [(0,)]
    loaded = rows(engine, "SELECT embedding::text FROM pages ORDER BY id")
    run("upgrade")
    run("embed", "pages.embedding", "--install", "--all", "--text", r"{body}\nof {body}", "--by", "static")
    assert ok_json("embed", "pages.embedding")["written"] == 1
    assert rows(engine, "SELECT embedding::text FROM pages ORDER BY id") == loaded
