"""`pgmrl recall` as a user runs it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text

from pgmrl import database
from pgmrl.cli.recall import print_recall
from pgmrl.database.settings import Setting, store_setting
from pgmrl.errors import DatabaseError, DefinitionError, MeasureError, NotMigrated, VectorError
from pgmrl.measure import Loss, measure_recall
from pgmrl.measure import recall as recall_module
from pgmrl.measure.attribution import SearchTrial
from pgmrl.measure.recall import Clock
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.cli import failure, ok, ok_json, run
from tests.databases import indexed_afterwards, shared_database

if TYPE_CHECKING:
    from pathlib import Path

    from pgmrl.local import LocalServer
    from tests.corpus import Corpus
else:
    Corpus = LocalServer = Path = Any

pytestmark = pytest.mark.usefixtures("place")


def table_of() -> Table:
    """A short column of 16 dimensions, which loses enough."""
    return Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("package", Text),
        Column("embedding", Matryoshka(96, Short(16))),
    )


@pytest.fixture(scope="module")
def template(server: LocalServer, corpus: Corpus) -> str:
    """1,500 passages."""
    shared_database(server, "cli_recall", lambda engine: fill(engine, corpus))
    return "cli_recall"


def fill(engine: Engine, corpus: Corpus) -> None:
    """Load and analyze."""
    table = table_of()
    rows = [
        {"id": n, "package": passage["package"], "embedding": vector}
        for n, (passage, vector) in enumerate(zip(corpus.passages[:1_500], corpus.documents[:1_500, :96], strict=True))
    ]
    with engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE packages")


@pytest.fixture(autouse=True)
def packages(engine: Engine) -> Table:
    """The table; the planner walks the graph."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET enable_seqscan = off")
    engine.dispose()
    return table_of()


def test_the_page() -> None:
    """Recall, its causes, the cost, the worst queries with what would help."""
    shown = " ".join(ok("recall", "packages.embedding", "--sample", 30, "--shortlist", 12).split())
    assert "recall@10 0." in shown
    assert "30 rows of public.packages as queries" in shown
    assert "lost by truncation" in shown
    assert "shortlist 12, ef_search 12, through packages_embedding_short_16_hnsw" in shown
    assert "a shortlist of" in shown
    assert "not returned" not in shown
    assert re.search(r"a search through SQLAlchemy took [\d.]+ ms \(median\), [\d.]+ ms \(95 of 100 within\)", shown)
    assert "the queries that lose most id recall why" in shown
    assert "rows of the table are in its index" in shown


def test_json(packages: Table) -> None:
    """All numbers; they add up."""
    found = ok_json("recall", "packages.embedding", "--sample", 20, "--shortlist", 12, "-k", 5, "--worst", 2)
    loss = found["truncation"] + found["ann"] + found["shortfall"] - found["completed"]
    assert 1 - found["recall"]["mean"] == pytest.approx(loss)
    assert found["recall"]["low"] <= found["recall"]["mean"] <= found["recall"]["high"]
    assert (found["k"], found["shortlist"], len(found["losses"]), len(found["worst"])) == (5, 12, 20, 2)
    filtered = ok_json("recall", "packages.embedding", "--sample", 5, "--where", "package = 'email'")
    assert filtered["filter"] == "package = 'email'"
    assert packages.name in filtered["source"]


def test_queries_of_a_file_and_of_a_log(tmp_path: Path, corpus: Corpus) -> None:
    """Instead of rows."""
    np.save(tmp_path / "q.npy", corpus.queries[:7, :96])
    found = ok_json("recall", "packages.embedding", "--queries", tmp_path / "q.npy")
    assert found["requested"] == 7
    assert found["losses"][0]["key"] is None
    page = ok("recall", "packages.embedding", "--queries", tmp_path / "q.npy", "--shortlist", 12)
    assert "query number  recall  why" in page
    log = "SELECT embedding FROM packages WHERE id < 50"
    assert ok_json("recall", "packages.embedding", "--query-sql", log, "--sample", 9)["requested"] == 9
    assert run("recall", "packages.embedding", "--query-sql", log, "--queries", "x.npy").exit_code == 2


def test_record(engine: Engine, packages: Table) -> None:
    """A row a measurement; refused before measuring where it cannot be kept."""
    for _ in range(2):
        ok("recall", "packages.embedding", "--sample", 3, "--record")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM pgmrl.recall_history").scalar() == 2
        database.downgrade(connection)
    assert "is not installed" in str(failure("recall", f"{packages.name}.embedding", "--sample", 3, "--record"))


def test_what_is_tuned_is_measured(engine: Engine, packages: Table) -> None:
    """The numbers that searches take."""
    with engine.begin() as connection:
        store_setting(connection, packages.c.embedding, Setting(10, 17, 23))
    found = ok_json("recall", "packages.embedding", "--sample", 3)
    assert (found["shortlist"], found["ef_search"]) == (17, 23)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["nothing.embedding"], NotMigrated, "no table"),
        (["packages.nothing"], NotMigrated, "no column"),
        (["packages"], DefinitionError, "table.column"),
        (["packages.embedding", "--queries", "none.npy"], MeasureError, "cannot be read"),
        (["packages.embedding", "--query-sql", "SELECT package FROM packages"], VectorError, "no array of numbers"),
        (["packages.embedding", "--query-sql", "nonsense"], MeasureError, "syntax error"),
        (["packages.embedding", "--where", "nix = 1"], DatabaseError, "nix = 1.: column .nix. does not exist$"),
        (["packages.embedding", "--seconds", 0.001], MeasureError, "not one query"),
        (["packages.embedding", "--sample", 0], MeasureError, "at least 1"),
    ],
)
def test_what_is_wrong_is_said(options: list[Any], error: type[Exception], message: str) -> None:
    """One error each."""
    with pytest.raises(error, match=message):
        raise failure("recall", *options)


def test_time_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was tried until then is reported."""
    search, tried = SearchTrial.run, 0

    def count(*arguments: Any, **options: Any) -> Loss:
        nonlocal tried
        tried += 1
        return search(*arguments, **options)

    monkeypatch.setattr(SearchTrial, "run", count)
    monkeypatch.setattr(Clock, "left", property(lambda _: 60.0 if tried < 40 else 0.0))
    found = json.loads(ok("recall", "packages.embedding", "--sample", 300, "--json"))
    assert (len(found["losses"]), found["requested"]) == (40, 300)
    tried = 0
    shown = ok("recall", "packages.embedding", "--sample", 300, "--shortlist", 12)
    assert "stopped after 40 of 300 queries" in shown
    assert "40 of 300 rows of public.packages as queries" in shown
    assert "a longer shortlist would hold them; there was no time to find out how long" in " ".join(shown.split())


def test_losses_that_were_computed_are_said(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many searches were made, of a filter without an index."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET enable_seqscan = on")
    engine.dispose()
    monkeypatch.setattr(recall_module, "SEARCHED", 3)
    monkeypatch.setattr(recall_module, "SEARCH_SECONDS", 0)
    arguments = ["recall", "packages.embedding", "--where", "id % 20 = 3", "--sample", 8]
    shown = " ".join(ok(*arguments).split())
    assert "each search sorts these rows again: 3 were made" in shown
    assert "the losses of the other 5 are computed" in shown
    document = json.loads(ok(*arguments, "--json"))
    assert document["searched"] == 3
    assert [loss["ms"] is None for loss in document["losses"]] == [False] * 3 + [True] * 5


def test_no_loss_is_no_minus(packages: Table, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """A loss below zero that rounds to nothing."""
    with engine.connect() as connection:
        found = measure_recall(connection, packages.c.embedding, queries=3)
    print_recall(replace(found, ann=-0.0001), ["id"])
    shown = capsys.readouterr().out
    assert "0.000  lost by the HNSW scan" in shown
    assert "-0.000" not in shown
