"""`pgmrl tune` as a user runs it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, text

from pgmrl.errors import DefinitionError, MeasureError, NotMigrated, RotationError, SearchError
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
SUFFIXES = (["--plot", "t.pdf"], ["--plot", "t.html", "--plot", "t"])
ANOTHER = ("--recall", 0.8, "--max-shortlist", 15, "--dims", "48", "--by", "rotation", "--m", 12)
"""What the column there is cannot reach, and another one can."""

QUICK = ("--sample", 200, "--finalists", 1, "--types", "halfvec")


def table_of() -> Table:
    """A short column of 32 dimensions."""
    return Table(
        "packages", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", Matryoshka(96, Short(32)))
    )


@pytest.fixture(scope="module")
def template(server: LocalServer, corpus: Corpus) -> str:
    """2,000 passages with leading dimensions of their vectors."""
    shared_database(server, "cli_tune", lambda engine: fill(engine, corpus))
    return "cli_tune"


def fill(engine: Engine, corpus: Corpus) -> None:
    """Load and analyze."""
    table = table_of()
    with engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            rows = [{"id": n, "embedding": vector} for n, vector in enumerate(corpus.documents[:2_000, :96])]
            connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE packages")


def test_the_page(place: Path) -> None:
    """The answer, what it costs, what it was chosen of, how far to trust it; and pictures."""
    given = ("--recall", 0.9, "--dims", "32,64", "--plot", "t.html", "--plot", "t.png", *QUICK)
    shown = " ".join(ok("tune", "packages.embedding", *given).split())
    for part in (
        "recall@10 0.9",
        "today at ten times the rows",
        "20,000",
        "maintenance_work_mem",
        "what no other setting beats",
        "recall@10 of an exact shortlist",
        "checked with queries that were not used",
        "models, checked by predicting",
        "100 of 200 rows of public.packages chose",
    ):
        assert part in shown
    assert "drawn into t.png" in shown
    assert "drawn into t.html" in shown
    assert "incomplete" not in shown
    assert (place / "t.html").stat().st_size > 10_000
    assert (place / "t.png").read_bytes()[1:4] == b"PNG"


def test_the_choice_is_stored(engine: Engine, place: Path) -> None:
    """With --apply; the rotation that was learned is saved, and the migration says what it is for."""
    found = ok_json("tune", "packages.embedding", *ANOTHER, "--apply", *QUICK)
    with engine.connect() as connection:
        [row] = connection.execute(text("SELECT short_column, shortlist, ef_search, target FROM pgmrl.settings")).all()
    assert row == (found["applied_to"], found["choice"]["shortlist"], found["choice"]["ef_search"], 0.8)
    rotation = found["choice"]["rotation"]
    assert found["applied_to"] == f"embedding_{rotation}_48"
    assert (place / "rotations" / f"{rotation}.npy").exists()
    assert f"op.install_rotation('rotations/{rotation}.npy')" in found["migration"]
    assert f"Rotation.load('rotations/{rotation}.npy')" in found["model"]
    shown = " ".join(ok("tune", "packages.embedding", "--dims", "32", "--by", "prefix", "--apply", *QUICK).split())
    assert "stored for embedding_short_32: SQL functions take it from now on" in shown


def test_the_command_that_is_printed_is_taken() -> None:
    """Of a column that is not there yet; until it is, nothing changes, and the page says so."""
    lines = ok("tune", "packages.embedding", *ANOTHER, "--apply", *QUICK).splitlines()
    [stored] = [line for line in lines if line.startswith("stored")]
    assert "takes effect when embedding_r" in stored
    assert "until then searches stay as they are" in stored
    assert "from now on" not in stored
    expand, contract = [shlex.split(line) for line in lines if line.startswith("    pgmrl reshape ")]
    for option, value in (("--short-dims", "48"), ("--type", "halfvec"), ("--m", "12")):
        assert expand[expand.index(option) + 1] == value
    assert expand[expand.index("--by") + 1].startswith("rotations/r")
    planned = ok(*expand[1:], "--dry-run")
    assert expand[expand.index("--name") + 1] in planned
    assert expand[1:3] == ["reshape", "start"]
    assert contract[1:] == ["reshape", "contract", expand[3]]


def test_what_was_left_out_stands_first() -> None:
    """Under the headline, and before the choice is stored."""
    given = ("--recall", 0.8, "--dims", "32,64", "--by", "prefix", "--rows", 1_000, "--apply", *QUICK)
    result = run("tune", "packages.embedding", *given)
    headline, *below = result.stdout.splitlines()
    assert headline.startswith("prefix")
    assert below[0].startswith("incomplete: a random ")
    assert "The choice is stored all the same" in result.stderr


def test_the_index_there_is() -> None:
    """In a line of its own."""
    shown = ok("tune", "packages.embedding", "--recall", 0.8, "--dims", "64", "--by", "prefix", *QUICK)
    assert "today: prefix 32, shortlist 100, ef_search 100: recall 0." in shown


def test_what_is_not_given_is_as_in_the_index_there_is(engine: Engine) -> None:
    """Its links, with other candidates while building."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX packages_embedding_short_32_hnsw")
        connection.exec_driver_sql(
            "CREATE INDEX packages_embedding_short_32_hnsw ON packages USING hnsw "
            "(embedding_short_32 halfvec_cosine_ops) WITH (m = 20, ef_construction = 80)"
        )
    given = ("--recall", 0.8, "--dims", "64", "--by", "prefix", "--ef-construction", 120, *QUICK)
    tried = ok_json("tune", "packages.embedding", *given)["tried"]
    assert {(one["dims"], one["m"], one["ef_construction"]) for one in tried} == {(32, 20, 80), (64, 20, 120)}
    assert isinstance(failure("reshape", "start", "packages.embedding", "--m", 0), DefinitionError)


def test_unreachable() -> None:
    """Exit code 1, and why; nothing is stored."""
    result = run("tune", "packages.embedding", "--recall", 0.999, "--max-shortlist", 12, "--apply", *QUICK)
    shown = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "No setting reaches recall@10 of 0.999" in shown
    assert "Remedy:" in shown
    assert "stored for" not in shown


def test_queries_of_a_file(place: Path, corpus: Corpus) -> None:
    """And of a statement."""
    np.save(place / "asked.npy", corpus.queries[:100, :96])
    given = ("--recall", 0.8, "--dims", 64, *QUICK)
    assert ok_json("tune", "packages.embedding", "--queries", "asked.npy", *given)["queries"] == 50
    few = ("--queries", "asked.npy", *given, "--sample", 60)
    assert ok_json("tune", "packages.embedding", *few)["queries"] == 30
    select = "SELECT embedding FROM packages -- all of them"
    assert ok_json("tune", "packages.embedding", "--query-sql", select, *given, "--sample", 60)["queries"] == 30


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (("--recall", 1.5), SearchError, "for 95 % write 0.95"),
        (("--recall", 95), SearchError, "expected a number above 0 and at most 1"),
        (("--dims", 97), DefinitionError, "1 to 96"),
        (("--by", "magic"), DefinitionError, "magic"),
        (("--m", 1), DefinitionError, "m=1"),
        (("--m", 0), DefinitionError, "m=0"),
        (("--optimize-for", "money"), DefinitionError, "money"),
        (("--plot", "no/such/t.html"), MeasureError, "no folder"),
        (("--rotation", "r0.npy"), RotationError, "r0.npy"),
    ],
)
def test_bad_options(given: tuple[Any, ...], error: type[Exception], said: str) -> None:
    """One clear message."""
    found = failure("tune", "packages.embedding", *given)
    assert isinstance(found, error)
    assert said in str(found)


def test_wrong_usage() -> None:
    """Of what the command line itself can tell."""
    for given in (
        ["--dims", "many"],
        ["--queries", "a.npy", "--query-sql", "SELECT 1"],
        ["--recall", "much"],
        *SUFFIXES,
    ):
        assert run("tune", "packages.embedding", *given).exit_code == 2
    assert isinstance(failure("tune", "gone.embedding"), NotMigrated)
