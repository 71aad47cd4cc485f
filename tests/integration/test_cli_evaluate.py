"""`pgmrl evaluate` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text

from pgmrl import FullText, Matryoshka, Rotation, Short, database
from pgmrl.errors import DefinitionError, MeasureError, PgmrlError, RotationError
from tests.cli import failure, ok, ok_json, run
from tests.databases import shared_database

if TYPE_CHECKING:
    from pgmrl.local import LocalServer
    from tests.corpus import Corpus
else:
    Corpus = LocalServer = Any


ROWS = 400


@pytest.fixture(scope="module")
def template(server: LocalServer, corpus: Corpus) -> str:
    """400 passages with the leading 64 dimensions."""
    shared_database(server, "cli_evaluate", lambda engine: fill(engine, corpus))
    return "cli_evaluate"


def fill(engine: Engine, corpus: Corpus) -> None:
    """Load."""
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("name", Text, unique=True),
        Column("package", Text),
        Column("words", FullText("name", config="english")),
        Column("embedding", Matryoshka(64, Short(16))),
    )
    rows = [
        {"id": n, "name": passage["name"], "package": passage["package"], "embedding": vector}
        for n, (passage, vector) in enumerate(zip(corpus.passages[:ROWS], corpus.documents[:ROWS, :64], strict=True))
    ]
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows)


@pytest.fixture(autouse=True)
def files(place: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty of the passages are queries, relevant to those of their package."""
    assert place == Path.cwd()
    monkeypatch.setenv("COLUMNS", "160")
    passages, vectors = corpus.passages[:ROWS], corpus.documents[:ROWS, :64]
    asked = range(0, ROWS, 20)
    Path("queries.tsv").write_text("".join(f"{passages[n]['name']}\t{passages[n]['text']}\n" for n in asked))
    np.save("vectors.npy", vectors[list(asked)])
    Path("qrels.txt").write_text(
        "".join(
            f"{passages[n]['name']} 0 {one['name']} 1\n"
            for n in asked
            for one in passages
            if one["package"] == passages[n]["package"]
        )
    )


GIVEN = ("evaluate", "packages.embedding", "--queries", "queries.tsv", "--qrels", "qrels.txt", "--document-id", "name")
VECTORS = ("--vectors", "vectors.npy")


def test_tables_for_people(engine: Engine) -> None:
    """Every system and dimension, intervals, what two stages keep, and the plot; nothing is written to the database."""
    with engine.begin() as connection:
        rotation = Rotation.of(np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0][:32])
        database.install_rotation(connection, rotation)
    shown = ok(*GIVEN, *VECTORS, "--words", "words", "--match", "any", "--rotation", rotation.id, "--plot", "q.png")
    for part in ("exact full", "two stages", "short only", "words", "hybrid", "nDCG@10", "drawn into q.png"):
        assert part in shown
    assert "20 queries" in shown
    assert "note: 20 queries say little" in shown
    assert "400 documents" in shown
    assert "two stages against exact full, nDCG@10:" in shown
    assert shown.count(str(rotation.id)) == 2  # at 16 and 32 dimensions
    assert Path("q.png").read_bytes().startswith(b"\x89PNG")


def test_one_document_for_machines() -> None:
    """With the values of each query."""
    named = ("--measure", "P@3", "--measure", "MRR@10", "--dims", "8,32", "--without-itself")
    found = ok_json(*GIVEN, *VECTORS, *named)
    assert found["measures"] == ["P@3", "RR@10"]
    assert [one["name"] for one in found["systems"]] == ["exact full", "two stages", "short only"]
    exact, two_stage, _ = found["systems"]
    assert len(exact["values"]["P@3"]) == found["queries"] == 20
    assert exact["means"]["P@3"]["mean"] == pytest.approx(np.mean(list(exact["values"]["P@3"].values())))
    assert two_stage["differences"]["P@3"]["mean"] == pytest.approx(
        two_stage["means"]["P@3"]["mean"] - exact["means"]["P@3"]["mean"]
    )
    assert [(one["by"], one["dims"]) for one in found["dims"]] == [("prefix", 8), ("prefix", 16), ("prefix", 32)]
    assert found["rows"] == ROWS


def test_where_judgements_come_from(tmp_path: Path) -> None:
    """A folder as BEIR has it, and a statement, give what the files give."""
    plain = ok_json(*GIVEN, *VECTORS, "--dims", "32")["systems"]
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    vectors = np.load("vectors.npy")
    lines = [line.split("\t") for line in Path("queries.tsv").read_text().splitlines()]
    (folder / "queries.jsonl").write_text(
        "\n".join(
            json.dumps({"_id": name, "text": text, "vector": vector.tolist()})
            for (name, text), vector in zip(lines, vectors, strict=True)
        )
    )
    judged = [line.split() for line in Path("qrels.txt").read_text().splitlines()]
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{query}\t{name}\t{grade}\n" for query, _, name, grade in judged)
    )
    named = ("--document-id", "name", "--dims", "32")
    assert ok_json("evaluate", "packages.embedding", "--beir", folder, *named)["systems"] == plain
    statement = "SELECT q.name, p.name, 1 FROM packages AS q JOIN packages AS p USING (package) WHERE q.id % 20 = 0"
    given = ("--judgements", statement, "--queries", "queries.tsv", *VECTORS)
    assert ok_json("evaluate", "packages.embedding", *given, *named)["systems"] == plain


def test_a_rotation_is_learned_or_read_from_a_file() -> None:
    """For the comparison alone: nothing is installed."""
    axes = Rotation.of(np.eye(64)[:16]).save("axes")
    found = ok_json(*GIVEN, *VECTORS, "--dims", "16", "--rotation", axes)
    by_prefix, by_file = found["dims"]
    assert by_file["by"] == axes.stem
    assert by_file["two_stage"] == by_prefix["two_stage"]  # the leading dimensions are the leading axes
    learned = ok_json(*GIVEN, *VECTORS, "--dims", "16", "--rotation", "fit")["dims"][1]
    assert learned["by"] not in {"prefix", axes.stem}
    assert "is not installed here" in str(failure(*GIVEN, *VECTORS, "--rotation", learned["by"]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--dims", "8,100"), MeasureError, "100 dimensions to try: the column has 64"),
        (("--plot", "no/where.png"), MeasureError, "there is no folder no"),
        (("--rotation", "r0"), RotationError, "rotation r0 is not installed here"),
        (("--words", "package"), DefinitionError, "not tsvector"),
    ],
)
def test_errors(arguments: tuple[str, ...], error: type[PgmrlError], message: str) -> None:
    """One message each."""
    found = failure(*GIVEN, *VECTORS, *arguments)
    assert isinstance(found, error)
    assert message in str(found)


def test_the_primary_key_names_documents_unless_said_otherwise() -> None:
    """With names for a key of numbers, all are unknown."""
    said = str(failure(*GIVEN[:-2], *VECTORS))
    assert "the table has 0" in said
    assert "a unique index (`--document-id`" in said


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--queries", "queries.tsv"),
        ("--qrels", "qrels.txt"),
        ("--qrels", "qrels.txt", "--queries", "queries.tsv", "--beir", "x"),
        ("--beir", "x", "--queries", "queries.tsv"),
        ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--dims", "a"),
        ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--plot", "quality.jpg"),
        ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--measure", "best"),
        ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--metric", "best"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...]) -> None:
    """Are a wrong use, not a failure."""
    result = run("evaluate", "packages.embedding", *arguments)
    assert result.exit_code == 2
    assert "--" in result.output


def test_a_statement_cannot_write() -> None:
    """The whole command runs in a read-only transaction."""
    with pytest.raises(MeasureError, match="read-only transaction"):
        run("evaluate", "packages.embedding", "--judgements", "DELETE FROM packages RETURNING name, name, 1")
