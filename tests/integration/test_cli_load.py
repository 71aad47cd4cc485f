"""`pgmrl load` as a user runs it: files of every kind, a SELECT, tables that are there, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine, text

from pgmrl import database
from pgmrl.errors import ExactSearchWarning
from tests.cli import ROWS, failed, failure, hit_names, ok, ok_json, run, write_rows

pytestmark = pytest.mark.usefixtures("place")

QUESTION = "a game with trains"


@pytest.fixture
def loaded(place: Path) -> str:
    """The rows in a table `things`; the column's name."""
    ok("load", write_rows(place), "--table", "things", "--text", "{name}: {body}")
    return "things.embedding"


def column_types(engine: Engine, table: str = "documents") -> dict[str, str]:
    """The type of each column but the vectors'."""
    query = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attname !~ '^embedding'"
    )
    with engine.connect() as connection:
        return {row.attname: row.format_type for row in connection.execute(text(query))}


def stored(engine: Engine, columns: str, table: str = "documents") -> list[tuple[Any, ...]]:
    """The rows of a table in the order of their keys."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY id"))]


def tables(engine: Engine) -> list[str]:
    """The tables of the schema public."""
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars())


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "csv", "tsv", "parquet"])
def test_load_a_file_and_search(place: Path, engine: Engine, form: str) -> None:
    """From a file of any kind to an answer; the texts are in the table as they were."""
    report = ok_json("load", write_rows(place, form), "--table", "things", "--text", "body")
    assert (report["rows"], report["null_vectors"], report["made"], report["rotation"]) == (5, 1, True, None)
    found = ok_json("search", "things.embedding", QUESTION, "-k", 3)
    assert hit_names(found)[0] == "simutrans"
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
    said = ok("load", write_rows(place), "--text", "body")
    assert "5 rows" in said
    assert "1 row without a vector and 0 with a zero short one" in said
    assert "pgmrl search documents.embedding" in said


def test_a_pattern_of_several_columns(place: Path) -> None:
    """A part that is NULL is empty; only where all are is there no text."""
    assert ok_json("load", write_rows(place), "--text", "{name}: {body}")["null_vectors"] == 0
    assert hit_names(ok_json("search", "documents.embedding", "postgresql database"))[0] == "postgresql"


@pytest.mark.parametrize("pattern", ["nmae", "{nmae}", "{name}: {nmae}"])
def test_a_pattern_of_a_column_that_is_not_there(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Before the table is made."""
    said = failed(capsys, monkeypatch, "load", write_rows(place), "--text", pattern)
    assert "--text names 'nmae'; the rows have id, name, body, stars" in said
    assert "no table" in failed(capsys, monkeypatch, "search", "documents.embedding", "x")


@pytest.mark.parametrize("pattern", ["{name", "name}", "{}", "{0}", "{name!x}", "{stars:zz}", "{name.upper}"])
def test_a_pattern_that_is_none(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """One message, not Python's own traceback."""
    assert "--text" in failed(capsys, monkeypatch, "load", write_rows(place), "--text", pattern)


def test_rows_without_a_key_are_numbered(place: Path, engine: Engine) -> None:
    """From 1, and on from there the next time."""
    path = write_rows(place, rows=[{"name": row["name"]} for row in ROWS])
    assert ok_json("load", path, "--text", "name")["made"] is True
    assert ok_json("load", path, "--text", "name")["made"] is False
    with engine.connect() as connection:
        assert connection.execute(text("SELECT array_agg(id ORDER BY id) FROM documents")).scalar_one() == [
            *range(1, 11)
        ]


def test_load_into_a_table_that_is_there(place: Path, loaded: str) -> None:
    """Rows are added and found at once."""
    more = write_rows(place, rows=[{"id": 6, "name": "openttd", "body": "trains and nothing but trains", "stars": 1}])
    report = ok_json("load", more, "--table", "things", "--text", "{name}: {body}")
    assert (report["rows"], report["made"]) == (1, False)
    assert "openttd" in hit_names(ok_json("search", loaded, "trains", "-k", 2))


def test_the_same_rows_again(
    place: Path, loaded: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is named and nothing is doubled."""
    arguments = ["load", place / "rows.jsonl", "--table", "things", "--text", "{name}: {body}"]
    assert "all of the first 5 rows are in things already, by their id" in failed(capsys, monkeypatch, *arguments)
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
        "load", "--select", "SELECT k, words FROM old WHERE k LIKE '%'", "--table", "New Table", "--key", "k",
        "--text", "words", "--by", by, "--short-dims", 32,
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
    said = failed(capsys, monkeypatch, "load", write_rows(place), "--text", "body", "--by", "rotation")
    assert "too few" in said
    with pytest.warns(ExactSearchWarning):
        assert hit_names(ok_json("search", "documents.embedding", QUESTION))[0] == "simutrans"


def test_vectors_that_are_there_already(place: Path) -> None:
    """`--vector-column` names it; search takes one as text, as .json and as .npy."""
    vectors = np.eye(8).tolist()
    path = write_rows(place, rows=[{"id": n, "v": vector} for n, vector in enumerate(vectors)] + [{"id": 8, "v": None}])
    arguments = ["load", path, "--vector-column", "v", "--short-dims", 4, "--metric", "l2"]
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
    path = write_rows(place, rows=[{"id": 1, "v": [1, 2, 3, 4]}, {"id": 7, "v": [1, 2, 3]}])
    assert "id=7" in failed(capsys, monkeypatch, "load", path, "--vector-column", "v", "--short-dims", 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": 1, "body": "a"}\n{"id": 2,\n', "line 2"),
        ('{"id": 1, "body": "a"}\n[1, 2]\n', "line 2 is no JSON object"),
        (
            '{"id": 1, "body": "a"}\n{"id": 1, "body": 7}\n',
            "different types: text (line 1), whole number (line 2)",
        ),
        ("", "no rows to load"),
        ('{"id": 1, "body": "a\\u0000b"}\n', "line 1: column 'body' has \\u0000, which no text in PostgreSQL"),
        ('{"id": 1, "body": "a"}\n{"id": 2, "body": "b", "more": {"\\\\\\u0000": 1}}\n', "line 2: column 'more' has"),
        ('{"id": 1, "body": "a\0b"}\n', "bad.jsonl, line 1: a zero byte, which no text"),
        (b'{"id": 1, "body": "a"}\n{"id": 2, "body": "\xff"}\n', "bad.jsonl, line 2: byte 0xff is not UTF-8"),
        (
            '{"id": 1, "body": "a"}\n{"id": 2, "body": "\\ud83d"}\n',
            "line 2: column 'body' has \\ud83d, half of a surrogate",
        ),
        ('{"id": 1, "body": "a"}\n\n{"id": 2}\n', "bad.jsonl, line 3: --text names 'body'; the rows have id"),
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


def test_an_escaped_backslash_is_no_zero(place: Path, engine: Engine) -> None:
    r"""`\\u0000` in JSON is a backslash with a word behind it."""
    (place / "rows.jsonl").write_text('{"id": 1, "body": "a \\\\u0000 b"}\n', encoding="utf-8")
    assert ok_json("load", place / "rows.jsonl", "--text", "body")["rows"] == 1
    assert stored(engine, "body") == [("a \\u0000 b",)]


def test_nothing_is_written_where_a_line_is_wrong(place: Path, engine: Engine) -> None:
    """Not the table either: the file is read to its end first."""
    lines = [json.dumps({"id": n, "body": f"text {n}"}) for n in range(5_000)]
    (place / "bad.jsonl").write_text("\n".join([*lines, '{"id": 5000}']))
    assert "line 5001: --text names 'body'" in str(failure("load", "bad.jsonl", "--text", "body"))
    assert tables(engine) == []


# -- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_data(place: Path, engine: Engine, form: str) -> None:
    """As Excel writes it: the key is found, and the rows are not numbered."""
    path = write_rows(place, form, [{"id": 40 + n, "body": f"text {n}"} for n in range(3)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ok("load", path, "--text", "body")
    assert list(column_types(engine)) == ["id", "body"]
    assert stored(engine, "id") == [(40,), (41,), (42,)]


def test_types_of_a_csv_follow_from_all_values(place: Path, engine: Engine) -> None:
    """Also from one behind the first thousands; what a number would not keep stays text."""
    header = "id,body,rank,price,open,code,phone,large,mixed,late,empty"
    row = "{n},text {n},{n},{n}.5,true,00{n},+49{n},12345678901234567890,1,{n},"
    lines = [header, *(row.format(n=n) for n in range(3_000)), "3000,last,-7,1e3,FALSE,1,2,3,x,2.5,"]
    (place / "rows.csv").write_text("\n".join(lines))
    ok("load", "rows.csv", "--text", "body")
    assert column_types(engine) == {
        "id": "bigint",
        "body": "text",
        "rank": "bigint",
        "price": "double precision",
        "open": "boolean",
        "code": "text",
        "phone": "text",
        "large": "text",
        "mixed": "text",
        "late": "double precision",
        "empty": "text",
    }
    assert stored(engine, "rank, price, open, code, late, empty")[-2:] == [
        (2999, 2999.5, True, "002999", 2999.0, None),
        (-7, 1000.0, False, "1", 2.5, None),
    ]
    assert len(ok_json("search", "documents.embedding", "text", "--where", "rank < 5", "-k", 50)["hits"]) == 6


def test_a_json_column_that_is_null_for_long(place: Path, engine: Engine) -> None:
    """Or is not there at all: its type is that of its first value, wherever that is."""
    rows: list[dict[str, Any]] = [{"id": n, "body": "a", "rank": None} for n in range(2_500)]
    rows.append({"id": 2_500, "body": "b", "rank": 7, "more": {"tags": ["x"]}, "huge": 2**70})
    ok("load", write_rows(place, rows=rows), "--text", "body")
    assert column_types(engine) == {
        "id": "bigint",
        "body": "text",
        "rank": "bigint",
        "more": "jsonb",
        "huge": "numeric",
    }
    assert stored(engine, "rank, more, huge::text")[-1] == (7, {"tags": ["x"]}, str(2**70))


GIVEN_TYPES = {
    "zip": ("text", "00501", "00501"),
    "day": ("date", "2024-02-29", dt.date(2024, 2, 29)),
    "at": ("timestamptz", "2024-02-29T12:00:00+02:00", dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)),
    "local": ("timestamp", "2024-02-29 12:00:00", dt.datetime(2024, 2, 29, 12)),
    "price": ("numeric", "12.50", "12.50"),
    "key": ("uuid", "6f7a9c64-0000-4000-8000-000000000001", UUID("6f7a9c64-0000-4000-8000-000000000001")),
    "small": ("smallint", "7", 7),
    "flag": ("bool", "yes", True),
    "meta": ("jsonb", '"[1, 2]"', [1, 2]),
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_types_that_are_given(place: Path, engine: Engine, form: str) -> None:
    """Values are read as their type has them."""
    row = {"id": "1", "body": "a"} | {name: value for name, (_, value, _) in GIVEN_TYPES.items()}
    if form == "jsonl":
        row["meta"] = "[1, 2]"
    else:
        row["meta"] = '"[1, 2]"'
    options = [part for name, (kind, _, _) in GIVEN_TYPES.items() for part in ("--type", f"{name}={kind}")]
    ok("load", write_rows(place, form, [row]), "--text", "body", "--type", "id=int", *options)
    (found,) = stored(engine, "id, zip, day, at, local, price::text, key, small, flag, meta")
    assert found == (1, *(value for _, _, value in GIVEN_TYPES.values()))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rank=integer", "rows.csv, line 3: column 'rank': expected integer, got 'many'"),
        ("rnak=integer", "--type names 'rnak'; the rows have id, body, rank"),
    ],
)
def test_types_that_do_not_fit(place: Path, engine: Engine, option: str, message: str) -> None:
    """The line is named, and nothing is written."""
    (place / "rows.csv").write_text("id,body,rank\n1,a,7\n2,b,many\n")
    assert message in str(failure("load", "rows.csv", "--text", "body", "--type", option))
    assert tables(engine) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("id,body\n1,a\n2\n", "line 3: expected 2 fields, got 1"),
        ("id,body,id\n1,a,2\n", "line 1: the header has two columns 'id'"),
        ("id,,body\n1,a,2\n", "line 1: the header has a column without a name"),
        ('id,body\n1,"two\nlines"\n2,"x\n', "line 4: unexpected end of data"),
        ("id,text\n1,a\n", "line 1: --text names 'body'; the rows have id, text"),
    ],
)
def test_csv_files_that_cannot_be_read(place: Path, lines: str, message: str) -> None:
    """The line on which the record begins."""
    (place / "bad.csv").write_text(lines)
    assert message in str(failure("load", "bad.csv", "--text", "body"))


def test_a_table_that_is_there_keeps_its_types(place: Path, engine: Engine) -> None:
    """Numbers of a CSV are texts where the table says so."""
    with engine.begin() as connection:
        connection.execute(text(
            "CREATE TABLE documents (id int PRIMARY KEY, body text, code varchar(9), day date, embedding halfvec(256), "
            "embedding_short_64 halfvec(64) GENERATED ALWAYS AS "
            "(l2_normalize(subvector(embedding, 1, 64))::halfvec(64)) STORED)"
        ))  # fmt: skip
    (place / "rows.csv").write_text("id,body,code,day\n1,a,7,2024-02-29\n2,b,8,\n")
    ok("load", "rows.csv", "--text", "body")
    assert stored(engine, "code, day") == [("7", dt.date(2024, 2, 29)), ("8", None)]
    assert "leave out --type" in str(failure("load", "rows.csv", "--text", "body", "--type", "code=text"))


def test_a_select_has_the_types_of_its_columns(engine: Engine) -> None:
    """Whatever they are, and its vectors can be taken."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TYPE mood AS ENUM ('sad', 'glad')"))
        connection.execute(text(
            "CREATE TABLE old AS SELECT n AS id, 'text ' || n AS body, 'glad'::mood AS mood, n::numeric / 2 AS half, "
            "DATE '2024-01-01' + n AS day, inet '10.0.0.1' AS host, ARRAY[n] AS listed, "
            "array_fill(n, ARRAY[8])::vector AS v FROM generate_series(1, 20) AS n"
        ))  # fmt: skip
    ok("load", "--select", "SELECT * FROM old", "--vector-column", "v", "--short-dims", 4)
    assert column_types(engine) == {
        "id": "integer", "body": "text", "mood": "mood", "half": "numeric", "day": "date", "host": "inet",
        "listed": "integer[]",
    }  # fmt: skip
    assert stored(engine, "body, mood, half::float, day, host::text, listed")[2] == (
        "text 3", "glad", 1.5, dt.date(2024, 1, 4), "10.0.0.1/32", [3],
    )  # fmt: skip


def test_parquet_has_types_of_its_own(place: Path, engine: Engine) -> None:
    """Dates and decimals among them."""
    rows = [{"id": 1, "body": "a", "day": dt.date(2024, 2, 29), "tags": ["x"], "none": None}]
    ok("load", write_rows(place, "parquet", rows), "--text", "body")
    assert column_types(engine) == {"id": "bigint", "body": "text", "day": "date", "tags": "jsonb", "none": "text"}
    assert stored(engine, "day, tags") == [(dt.date(2024, 2, 29), ["x"])]


# -- long texts, and what is reported ------------------------------------------------------------------------------


def test_of_a_long_text_the_beginning_is_embedded(place: Path, engine: Engine) -> None:
    """It is stored whole, and the command says so."""
    body = "a game with trains " * 10_000
    path = place / "rows.csv"
    path.write_text(f"id,body\n1,{body}\n2,{body[:100_000]}\n3,short\n")
    report = ok_json("load", path, "--text", "body")
    assert (report["rows"], report["truncated_texts"]) == (3, 1)
    first, second, _ = stored(engine, "length(body), embedding = (SELECT embedding FROM documents WHERE id = 2)")
    assert first == (len(body), True)
    assert second == (100_000, True)
    said = ok("load", path, "--text", "body", "--table", "again", "--max-chars", 50)
    assert "of 2 texts only the first 50 characters were embedded (--max-chars)" in said


def test_the_time_of_every_step_is_said(place: Path) -> None:
    """What is said first is the whole; its parts are named."""
    seconds = ok_json("load", write_rows(place), "--text", "body", "--table", "a")["seconds"]
    assert list(seconds) == ["read", "embed and load", "index", "recall", "total"]
    assert sum(seconds.values()) - seconds["total"] <= seconds["total"]
    assert min(seconds.values()) > 0
    said = ok("load", write_rows(place), "--text", "body", "--table", "b")
    times = r"read [\d.]+ s, embed and load [\d.]+ s, index [\d.]+ s, recall [\d.]+ s\n"
    assert re.match(rf"5 rows in [\d.]+ s into b: {times}", said)
    assert re.search(r"recall@10 1\.00 \([\d.]+ to 1\.00\) with the usual shortlist of 100", said)
    assert "pgmrl tune b.embedding" in said


def test_a_redirected_load_reports_its_steps(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build of the index among them, in what the server counts; with --json nothing but the document."""
    monkeypatch.setattr("pgmrl.cli.progress_report.LINE_SECONDS", 0.02)
    monkeypatch.setattr("pgmrl.online.build_session.POLL", 0.01)  # the build takes less than a second
    rows = [{"id": n, "body": f"text of number {n}, {n % 7} and {n % 11}"} for n in range(6_000)]
    result = run("load", write_rows(place, rows=rows), "--text", "body")
    assert result.exit_code == 0
    assert re.search(r"^embedding and loading: [\d,]+ of 6,000 \(\d+%\), \d+ s$", result.stderr, re.MULTILINE)
    assert re.search(
        r"^index documents_embedding_short_64_hnsw: building index.*: [\d,]+ of [\d,]+ ", result.stderr, re.MULTILINE
    )
    quiet = run("load", write_rows(place, rows=rows), "--text", "body", "--table", "quiet", "--json")
    assert quiet.stderr == ""


def test_low_recall_is_said(place: Path) -> None:
    """Two of 32 random dimensions order nothing: the report begins with what searches miss."""
    vectors = np.random.default_rng(4).normal(size=(800, 32))
    rows = [{"id": n, "v": vector.round(4).tolist()} for n, vector in enumerate(vectors)]
    said = ok("load", write_rows(place, rows=rows), "--vector-column", "v", "--short-dims", 2)
    assert re.search(r"^searches miss \d\d% of the true neighbours: recall@10 0\.\d\d ", said, re.MULTILINE)
    assert "pgmrl tune documents.embedding" in said


def test_recall_that_takes_too_long_is_not_measured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the report says with which command it is."""
    monkeypatch.setattr("pgmrl.cli.table_load.RECALL_SECONDS", 1e-4)
    monkeypatch.setattr("pgmrl.cli.table_load.RECALL_SHARE", 0.0)
    said = ok("load", write_rows(place), "--text", "body")
    assert re.search(r"^recall could not be measured in \d+ s: pgmrl recall documents\.embedding ", said, re.MULTILINE)
