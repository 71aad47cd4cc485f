"""The command line as a user runs it, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from sqlalchemy import Engine, text

from pgmrl import cli, database
from pgmrl.cli.demo import IN_SQL
from pgmrl.errors import ExactSearchWarning, PgmrlError
from tests.cli import failed, failure, ok, ok_json, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("place")

COMMANDS = [
    "demo",
    "load",
    "fit",
    "search",
    "explain",
    "recall",
    "evaluate",
    "doctor",
    "tune",
    "upgrade",
    "columns",
    "check-migration",
    "backfill",
    "progress",
    "reshape",
    "functions install",
    "functions list",
    "functions drop",
    "query add",
    "query list",
    "query remove",
    "local start",
    "local stop",
    "local status",
    "local url",
]
ROWS = [
    {"id": 1, "name": "gcompris", "body": "a game for children about numbers", "stars": 5},
    {"id": 2, "name": "simutrans", "body": "a game with trains and buses", "stars": 3},
    {"id": 3, "name": "postgresql", "body": "a relational database server", "stars": 9},
    {"id": 4, "name": "nginx", "body": "a small and fast web server", "stars": 7},
    {"id": 5, "name": "nobody", "body": None, "stars": 0},
]
QUESTION = "a game with trains"


def written(place: Path, form: str = "jsonl", rows: list[dict[str, Any]] = ROWS) -> Path:
    """The rows as a file."""
    path = place / f"rows.{form}"
    if form in {"jsonl", "ndjson"}:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    elif form == "parquet":
        import pyarrow as pa  # noqa: PLC0415 - slow to import
        from pyarrow import parquet  # noqa: PLC0415 - an extra

        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        between = {"csv": ",", "tsv": "\t"}[form]
        lines = [list(rows[0]), *([("" if v is None else str(v)) for v in row.values()] for row in rows)]
        path.write_text("\n".join(between.join(line) for line in lines), encoding="utf-8")
    return path


def names(found: Any) -> list[str]:
    """The names of the hits of a search."""
    return [hit["name"] for hit in found["hits"]]


@pytest.fixture
def loaded(place: Path) -> str:
    """The rows in a table `things`; the column's name."""
    ok("load", written(place), "--table", "things", "--text", "{name}: {body}")
    return "things.embedding"


# -- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    """And it is the command's own."""
    shown = " ".join(ok(*command.split(), "--help").split())
    assert "Example" in shown
    assert f"pgmrl {command}" in shown


def test_the_help_names_every_command() -> None:
    """None is forgotten in COMMANDS either."""
    shown = ok("--help")
    assert "DATABASE_URL" in shown
    found = typer.main.get_command(cli.app)
    assert set(found.commands) == {command.split()[0] for command in COMMANDS}  # type: ignore[attr-defined]
    assert all(command in shown for command in found.commands)  # type: ignore[attr-defined]


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
        ["load", "a.jsonl", "--query", "SELECT 1", "--text", "x"],
        ["load", "a.jsonl", "--text", "x", "--vector", "y"],
        ["load", "a.jsonl", "--text", "x", "--by", "magic"],
        ["fit"],
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
        (["columns", "--database-url", "not a url"], "no database URL"),
        (["columns", "--database-url", "mysql://host/db"], "mysql is not PostgreSQL"),
        (["search", "missing.embedding", "x"], "no table public.missing"),
        (["search", "missing", "x"], "write table.column"),
        (["search", "a.b.c.d", "x"], "write table.column"),
        (["fit", "missing.embedding"], "no table public.missing"),
        (["load", "missing.jsonl", "--text", "x"], "no file missing.jsonl"),
        (["load", "missing.xml", "--text", "x"], "ends with none of"),
        (["load", "missing.jsonl", "--text", "x", "--embedder", "no.such:model"], "no module"),
        (["load", "--query", "SELECT nonsense", "--text", "x"], "nonsense"),
        (["load", "--query", "SELECT 1 AS id WHERE false", "--text", "x"], "no rows to load"),
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
    assert "only vector and halfvec" in failed(capsys, monkeypatch, "search", "things.name", QUESTION)
    assert "no column 'nmae'" in failed(capsys, monkeypatch, "search", "things.nmae", QUESTION)


# -- load and search -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "csv", "tsv", "parquet"])
def test_load_a_file_and_search(place: Path, engine: Engine, form: str) -> None:
    """From a file of any kind to an answer; the texts are in the table as they were."""
    report = ok_json("load", written(place, form), "--table", "things", "--text", "body")
    assert (report["rows"], report["null_vectors"], report["made"], report["rotation"]) == (5, 1, True, None)
    found = ok_json("search", "things.embedding", QUESTION, "-k", 3)
    assert names(found)[0] == "simutrans"
    assert len(found["hits"]) == 3
    distances = [list(hit.values())[-1] for hit in found["hits"]]
    assert distances == sorted(distances)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT id::text, name, body FROM things ORDER BY id")).all()
        assert [tuple(row) for row in stored] == [(str(row["id"]), row["name"], row["body"]) for row in ROWS]
        (info,) = database.columns(connection)
        assert (info.full_dims, info.short_dims, info.metric, info.index_valid) == (256, 64, "cosine", True)
        assert info.estimated_rows == 5


def test_rows_without_a_text_are_reported(place: Path) -> None:
    """To people, in words."""
    said = ok("load", written(place), "--text", "body")
    assert "5 rows" in said
    assert re.search(r"\b1 rows? ha", said)
    assert "pgmrl search documents.embedding" in said


def test_a_pattern_of_several_columns(place: Path) -> None:
    """A part that is NULL is empty; only where all are is there no text."""
    assert ok_json("load", written(place), "--text", "{name}: {body}")["null_vectors"] == 0
    assert names(ok_json("search", "documents.embedding", "postgresql database"))[0] == "postgresql"


@pytest.mark.parametrize("pattern", ["nmae", "{nmae}", "{name}: {nmae}"])
def test_a_pattern_of_a_column_that_is_not_there(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Before the table is made."""
    said = failed(capsys, monkeypatch, "load", written(place), "--text", pattern)
    assert "--text names 'nmae'; the rows have id, name, body, stars" in said
    assert "no table" in failed(capsys, monkeypatch, "search", "documents.embedding", "x")


@pytest.mark.parametrize("pattern", ["{name", "name}", "{}", "{0}", "{name!x}", "{stars:zz}", "{name.upper}"])
def test_a_pattern_that_is_none(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """One message, not Python's own traceback."""
    assert "--text" in failed(capsys, monkeypatch, "load", written(place), "--text", pattern)


def test_rows_without_a_key_are_numbered(place: Path, engine: Engine) -> None:
    """From 1, and on from there the next time."""
    path = written(place, rows=[{"name": row["name"]} for row in ROWS])
    assert ok_json("load", path, "--text", "name")["made"] is True
    assert ok_json("load", path, "--text", "name")["made"] is False
    with engine.connect() as connection:
        assert connection.execute(text("SELECT array_agg(id ORDER BY id) FROM documents")).scalar_one() == [
            *range(1, 11)
        ]


def test_load_into_a_table_that_is_there(place: Path, loaded: str) -> None:
    """Rows are added and found at once."""
    more = written(place, rows=[{"id": 6, "name": "openttd", "body": "trains and nothing but trains", "stars": 1}])
    report = ok_json("load", more, "--table", "things", "--text", "{name}: {body}")
    assert (report["rows"], report["made"]) == (1, False)
    assert "openttd" in names(ok_json("search", loaded, "trains", "-k", 2))


def test_the_same_rows_again(
    place: Path, loaded: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is named and nothing is doubled."""
    arguments = ["load", place / "rows.jsonl", "--table", "things", "--text", "{name}: {body}"]
    assert "Key (id)=(1) already exists" in failed(capsys, monkeypatch, *arguments)
    assert len(ok_json("search", loaded, QUESTION)["hits"]) == 5


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_a_query_instead_of_a_file(engine: Engine, place: Path, by: str) -> None:
    """Another table of the same database; with a rotation enough rows to learn from."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE old (k text, words text)"))
        connection.execute(
            text("INSERT INTO old SELECT 'k' || n, 'number ' || n || md5(n::text) FROM generate_series(1, 400) n")
        )
    report = ok_json(
        "load", "--query", "SELECT k, words FROM old WHERE k LIKE '%'", "--table", "New Table", "--key", "k",
        "--text", "words", "--by", by, "--short", 32,
    )  # fmt: skip
    assert report["rows"] == 400
    found = ok_json("search", "New Table.embedding", "number 17", "--compare")
    assert found["recall"] >= 0.5
    (info,) = ok_json("columns")
    assert (info["table_name"], info["shortening"], info["short_dims"]) == ("New Table", by, 32)
    assert info["rotation"] == report["rotation"]
    if by == "rotation":
        assert (place / "rotations" / f"{report['rotation']}.npy").exists()


def test_a_rotation_of_too_few_rows(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said so; the rows are there and can be searched exactly."""
    said = failed(capsys, monkeypatch, "load", written(place), "--text", "body", "--by", "rotation")
    assert "too few" in said
    with pytest.warns(ExactSearchWarning):
        assert names(ok_json("search", "documents.embedding", QUESTION))[0] == "simutrans"


def test_vectors_that_are_there_already(place: Path) -> None:
    """`--vector` names their column; search takes one as text, as .json and as .npy."""
    vectors = np.eye(8).tolist()
    path = written(place, rows=[{"id": n, "v": vector} for n, vector in enumerate(vectors)] + [{"id": 8, "v": None}])
    arguments = ["load", path, "--vector", "v", "--short", 4, "--metric", "l2"]
    assert ok_json(*arguments)["null_vectors"] == 1
    np.save(place / "q.npy", np.eye(8)[3])
    (place / "q.json").write_text(json.dumps(vectors[3]))
    for given in (json.dumps(vectors[3]), place / "q.npy", place / "q.json"):
        found = ok_json("search", "documents.embedding", "--vector", given, "-k", 1)
        assert [hit["id"] for hit in found["hits"]] == [3]


def test_bad_vectors_in_a_file(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is named."""
    path = written(place, rows=[{"id": 1, "v": [1, 2, 3, 4]}, {"id": 7, "v": [1, 2, 3]}])
    assert "id=7" in failed(capsys, monkeypatch, "load", path, "--vector", "v", "--short", 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": 1, "body": "a"}\n{"id": 2,\n', "line 2"),
        ('{"id": 1, "body": "a"}\n[1, 2]\n', "line 2 is no JSON object"),
        ('{"id": 1, "body": "a"}\n{"id": 1, "body": 7}\n', "different or unknown types"),
        ("", "no rows to load"),
        ('{"id": 1, "body": "a\\u0000b"}\n', "id=1"),
        (b'{"id": 1, "body": "\xff"}\n', "bad.jsonl"),
    ],
)
def test_files_that_cannot_be_read(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    lines: str | bytes,
    message: str,
) -> None:
    """The line is named where there is one."""
    (place / "bad.jsonl").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    assert message in failed(capsys, monkeypatch, "load", "bad.jsonl", "--text", "body")


def test_where_show_and_exact(loaded: str) -> None:
    """A filter with percent signs and colons, chosen columns, and the truth beside the answer."""
    found = ok_json("search", loaded, QUESTION, "--where", "stars > 4", "--show", "name", "--show", "stars")
    assert set(names(found)) == {"gcompris", "postgresql", "nginx"}
    assert [list(hit)[:2] for hit in found["hits"]] == [["name", "stars"]] * 3
    like = ok_json("search", loaded, QUESTION, "--where", "name LIKE '%trans' AND name::text <> ':x'", "--show", "name")
    assert names(like) == ["simutrans"]
    exact = ok_json("search", loaded, QUESTION, "--exact")
    assert exact["shortlist_ms"] is None
    compared = ok_json("search", loaded, QUESTION, "--compare")
    assert compared["recall"] == 1
    assert compared["exact_ms"] > 0
    assert names(compared) == names(exact)


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
    ok("load", written(place, rows=[{"id": 1, "body": "[bold]list[int][/bold]"}]), "--text", "body")
    assert "[bold]list[int][/bold]" in ok("search", "documents.embedding", "list")


# -- fit, upgrade, columns -----------------------------------------------------------------------------------------


@pytest.fixture
def many(place: Path) -> str:
    """A thousand vectors of 32 dimensions whose spectrum falls in a basis of its own."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    vectors = (rng.normal(size=(1_000, 32)) * 0.8 ** np.arange(32)) @ basis.T
    rows: list[dict[str, Any]] = [{"id": n, "v": v.tolist()} for n, v in enumerate(vectors)]
    ok("load", written(place, rows=[*rows, {"id": 1_000, "v": [0.0] * 32}]), "--vector", "v", "--short", 8)
    return "documents.embedding"


def test_fit(place: Path, engine: Engine, many: str) -> None:
    """What each size keeps, and a file by the name of its hash; the database is as before."""
    found = ok_json("fit", many, "--directory", "here")
    assert found["rows"] == 1_000
    assert found["skipped"] == 1
    assert (place / found["path"]).name == f"{found['rotation']}.npy"
    assert (place / found["path"]).is_file()
    assert found["kept"]["16"] > found["kept_prefix"]["16"]
    assert found["kept"]["32"] == 1
    with engine.connect() as connection, pytest.raises(PgmrlError, match="not installed"):
        database.installed_rotation(connection, found["rotation"])
    said = ok("fit", many, "--directory", "here", "--axes", 16)
    assert "1,000 rows (1 without a usable vector left out)" in said
    assert "Rotation.load(" in said
    assert "rotation keeps" in said


def test_fit_and_install(engine: Engine, many: str) -> None:
    """The axes are in the database as well, the same ones."""
    found = ok_json("fit", many, "--install", "--axes", 8)
    with engine.connect() as connection:
        installed = database.installed_rotation(connection, found["rotation"])
    np.testing.assert_array_equal(installed.required_axes(), np.load(found["path"]))


def test_fit_with_numbers_that_make_no_sense(
    many: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message, and no file."""
    for arguments in (["--axes", 33], ["--axes", 0], ["--sample", 0], ["--sample", 5]):
        failed(capsys, monkeypatch, "fit", many, *arguments)
    assert not Path("rotations").exists()


def test_upgrade(engine: Engine) -> None:
    """From nothing to the newest, and then nothing to do."""
    with engine.begin() as connection:
        database.downgrade(connection)
        connection.execute(text("DROP SCHEMA IF EXISTS pgmrl CASCADE"))
    first = ok_json("upgrade")
    assert first == {"before": None, "after": database.head()}
    assert ok_json("upgrade") == {"before": database.head(), "after": database.head()}
    assert f"revision {database.head()}" in ok("upgrade")


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


# -- demo ----------------------------------------------------------------------------------------------------------


def test_demo(engine: Engine) -> None:
    """From nothing to answers with their recall; the second run finds the data, --fresh loads again."""
    first = ok_json("demo")
    assert {"embed and load", "index"} <= set(first["seconds"])
    assert len(first["answers"]) == 4
    for answer in first["answers"].values():
        assert len(answer["hits"]) == 5
        assert 0.5 <= answer["recall"] <= 1
        assert min(answer[part] for part in ("total_ms", "shortlist_ms", "rerank_ms", "exact_ms")) > 0
        assert answer["index"]
    with engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM pgmrl_demo.docstrings")).scalar_one()
        named = connection.exec_driver_sql(IN_SQL).all()
    assert count > 3_000
    assert len(named) == 5
    assert named[0].similarity >= named[-1].similarity
    result = run("demo", "--question", "parse command line options", "-k", 3)
    assert result.exit_code == 0, result.output
    assert f"{count:,} docstrings are there from an earlier run" in result.stderr
    assert "parse command line options" in result.stdout
    assert "recall@3" in result.stdout
    assert "password" not in result.stdout
    assert ok_json("search", "pgmrl_demo.docstrings.embedding", "sort a list", "--show", "name")["hits"]


# -- the embedded server -------------------------------------------------------------------------------------------


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
    assert ok_json("upgrade")["after"] == database.head()
    assert ok_json("local", "status")["pid"] == started["pid"]
    assert ok("local", "stop", "--data-dir", data_dir).strip() == "stopped"
    assert run("local", "status", "--data-dir", data_dir, "--json").stdout.strip() == "null"
