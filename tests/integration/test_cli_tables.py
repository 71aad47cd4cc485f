"""Every command that prints a table is readable on 80 columns; a long one that is redirected says how far it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text

from pgmrl.evaluation import EXACT, SHORT_ONLY, TWO_STAGE
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.tune.plots import CHECKS, FRONT, MODELS
from tests.cli import ok, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.corpus import Corpus
else:
    Corpus = Path = Any

COLUMN = "passages.embedding"
TUNE = ("tune", COLUMN, "--recall", 0.8, "--dims", "32,64", "--sample", 200, "--finalists", 1, "--types", "halfvec")
ROWS = 2_000


@pytest.fixture(scope="module", autouse=True)
def table(module_engine: Engine, corpus: Corpus) -> None:
    """2,000 passages with seven columns beside their vectors, searched through the index."""
    names = ("name", "text", "docstring", "package", "module", "kind")
    passages = Table(
        "passages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        *(Column(name, Text) for name in names),
        Column("length", Integer),
        Column("embedding", Matryoshka(256, Short(16))),
    )
    with module_engine.connect() as connection:
        with connection.begin():
            passages.create(connection)
        rows = (
            {"id": n, **{name: value for name, value in passage.items() if name != "tags"}}
            for n, passage in enumerate(corpus.passages[:ROWS])
        )
        ingest(connection, passages.c.embedding, rows, vectors=corpus.documents[:ROWS])
        connection.exec_driver_sql(f"ALTER DATABASE {module_engine.url.database} SET enable_seqscan = off")
        connection.exec_driver_sql("ANALYZE passages")
        connection.commit()


@pytest.fixture(autouse=True)
def terminal(module_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 80 columns, on the module's database."""
    monkeypatch.setenv("DATABASE_URL", module_database_url)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def check(shown: str, *headers: str) -> None:
    """Every word of every header is there, whole."""
    words = re.split(r"\s+", shown)
    missing = [word for header in headers for word in header.split() if word not in words]
    assert not missing, shown


def test_search() -> None:
    """Cells are cut, headers are not; every line is as wide as the terminal at most."""
    shown = ok("search", COLUMN, "parse a date")
    check(shown, "distance", "id", "name", "text", "docstring", "package", "module", "kind", "length")
    *rows, _ = shown.splitlines()
    assert max(map(len, rows)) <= 80
    assert len([line for line in rows if "distance" in line]) > 1, "the table comes in blocks"
    assert not any("…" in line for line in rows if "distance" in line)


def test_explain() -> None:
    """The stages."""
    check(ok("explain", COLUMN, "parse a date"), "stage", "ms", "rows", "expected", "blocks hit", "blocks read")


def test_recall() -> None:
    """The losses and the worst queries."""
    shown = ok("recall", COLUMN, "--sample", 30, "--shortlist", 12)
    check(shown, "id", "recall", "why", "lost by truncation", "the queries that lose most")
    assert "…" not in shown


def test_fit_rotation() -> None:
    """What each size keeps."""
    shown = ok("fit-rotation", COLUMN, "--axes", 32)
    check(shown, "short dimensions", "rotation keeps", "prefix keeps")


def test_tune() -> None:
    """Five tables, the widest of nine columns."""
    shown = ok(*TUNE)
    check(shown, "today", "at ten times the rows", *FRONT, *CHECKS, *MODELS, "index size, computed", "shortlist 10")
    assert "…" not in shown
    heads = [line for line in shown.splitlines() if line.split()[:4] == ["short", "vector", "index", "shortlist"]]
    assert len(heads) == 2, "the widest table comes in two blocks, which both say which row it is"
    assert max(map(len, heads)) <= 80


def test_evaluate(tmp_path: Path, corpus: Corpus) -> None:
    """Systems by measures, dimensions, the worst queries."""
    queries = {n: corpus.passages[n]["text"][:60] for n in range(0, ROWS, 40)}
    (tmp_path / "queries.tsv").write_text("".join(f"{n}\t{words}\n" for n, words in queries.items()))
    (tmp_path / "qrels.txt").write_text("".join(f"{n} 0 {n} 1\n" for n in queries))
    shown = ok("evaluate", COLUMN, "--queries", "queries.tsv", "--qrels", "qrels.txt")
    check(shown, "nDCG@10", "RR@10", "P@10", "R@100", "AP", EXACT, TWO_STAGE, SHORT_ONLY, "shortened by", "dims")
    check(shown, "query", "text", "not found", f"of {EXACT}")
    assert shown.count("two stages") > 4, "the systems come in blocks, each with their names"


# -- redirected ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "step"),
    [
        (TUNE, "exact search: "),
        (("recall", COLUMN, "--sample", 100), "queries: "),
        (("doctor", COLUMN, "--measure", "--only", "index-missing"), "recall of public.passages.embedding: "),
    ],
)
def test_a_redirected_command_says_how_far_it_is(
    command: tuple[object, ...], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In lines on standard error, none of them among the output; with --json nothing."""
    monkeypatch.setattr("pgmrl.cli.progress_report.LINE_SECONDS", 0.01)
    result = run(*command)
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith(step)]
    assert lines
    assert all(re.fullmatch(rf"{step}[\d,]+ of [\d,]+ \(\d+%\), \d+ s", line) for line in lines)
    assert step not in result.stdout
    assert run(*command, "--json").stderr == ""
