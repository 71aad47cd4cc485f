"""`pgmrl embed`: from a table of texts to vectors that stay in step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl.doctor import doctor
from pgmrl.errors import EmbedderError, MigrationError
from tests.cli import failure, ok, ok_json, run

if TYPE_CHECKING:
    from pathlib import Path

COLUMN = "packages.embedding"


@pytest.fixture(autouse=True)
def packages(place: Path, engine: Engine) -> Engine:
    """A table of texts with a column for their vectors, and DATABASE_URL."""
    assert place.is_dir()
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE packages (id int PRIMARY KEY, name text, summary text, embedding halfvec(256))")
        )
        connection.execute(text("INSERT INTO packages VALUES (1, 'gcompris', 'a game with numbers'), (2, NULL, '')"))
    return engine


def install(*more: str) -> list[str]:
    """The arguments that install it."""
    return ["embed", COLUMN, "--install", "--text", "{name}: {summary}", "--by", "static", *more]


def test_from_texts_to_vectors(packages: Engine) -> None:
    """Installed, embedded, in step; and removed again."""
    assert ok(*install()) == "public.packages.embedding: 2 rows marked\n"
    (status,) = ok_json("embed", "--status")
    assert (status["stale"], status["parked"], status["column"]) == (2, 0, "embedding")
    assert ok("embed", COLUMN) == "public.packages.embedding: 1 vector stored, 1 without a text\n"
    assert ok_json("embed", COLUMN) == {
        "column": "public.packages.embedding", "written": 0, "empty": 0, "failed": 0, "parked": 0, "waiting": 0,
    }  # fmt: skip
    with packages.begin() as connection:
        connection.execute(text("UPDATE packages SET summary = 'trains' WHERE id = 2"))
    assert "1 vector stored" in ok("embed", COLUMN)
    assert ok_json(*install("--all"))["marked"] == 2
    assert "packages.embedding" in ok("embed", COLUMN, "--status")
    ok("embed", COLUMN, "--drop")
    assert ok_json("embed", "--status") == []
    assert "no trigger marks" in str(failure("embed", COLUMN))


def test_for_a_monitor() -> None:
    """The numbers of --status as metrics, with those of the doctor, too; nothing where nothing is kept in step."""

    def metrics(text: str) -> dict[str, float]:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        labels = {"schema": "public", "table": "packages", "column": "embedding"}
        return {sample.name: sample.value for sample in samples if sample.labels == labels}

    assert ok("embed", "--status", "--prometheus") == ""
    ok(*install())
    found = metrics(ok("embed", "--status", "--prometheus"))
    assert found.pop("pgmrl_embedding_oldest_seconds") > 0
    assert found == {
        "pgmrl_embedding_stale_rows": 2, "pgmrl_embedding_taken_rows": 0, "pgmrl_embedding_failed_rows": 0,
        "pgmrl_embedding_parked_rows": 0,
    }  # fmt: skip
    run("embed", COLUMN, "--max-bytes", "5")
    found = metrics(run("doctor", "--prometheus").stdout)
    assert found["pgmrl_embedding_parked_rows"] == 1
    assert found["pgmrl_embedding_oldest_seconds"] == 0
    assert metrics(run("doctor", COLUMN, "--prometheus").stdout) == {}  # it has no short column to be checked
    assert run("embed", COLUMN, "--prometheus").exit_code == 2


def test_a_load_by_another_model_is_refused(place: Path) -> None:
    """Vectors of two models never meet in a column; nothing is written."""
    (place / "rows.jsonl").write_text('{"id": 7, "name": "a", "summary": "b"}\n')
    ok("embed", COLUMN, "--install", "--text", "name", "--by", "openai:large")
    load = ["load", "rows.jsonl", "--table", "packages", "--text", "{name}", "--column", "embedding"]
    error = failure(*load)
    assert isinstance(error, EmbedderError)
    assert "expected the model openai:large, by which packages.embedding is kept in step" in str(error).replace(
        "public.", ""
    )
    ok("embed", COLUMN, "--install", "--text", "name", "--by", "static", "--all")
    assert ok_json(*load)["rows"] == 1
    with pytest.raises(DBAPIError, match="holds vectors of static, with which those of openai:large cannot be"):
        run("embed", COLUMN, "--install", "--text", "name", "--by", "openai:large", "--all")
    ok("embed", COLUMN, "--drop")
    ok("embed", COLUMN, "--install", "--text", "name", "--by", "openai:large")


def test_parked_rows(packages: Engine) -> None:
    """Said at the end, shown with their reason, tried again."""
    ok(*install())
    result = run("embed", COLUMN, "--max-bytes", "5", "--attempts", "1")
    assert result.exit_code == 1
    parked = "1 parked (`pgmrl embed public.packages.embedding --parked`)"
    assert f"0 vectors stored, 1 without a text, {parked}" in result.stdout
    assert "expected a text of at most 5 bytes, got 29" in ok("embed", COLUMN, "--parked")
    assert ok_json("embed", COLUMN, "--parked")[0]["key"] == ["1"]
    with packages.connect() as connection:
        findings = [finding for finding in doctor(connection).findings if finding.check == "embeddings"]
    assert [(finding.severity, finding.message.partition(" ")[0]) for finding in findings] == [("warning", "1")]
    assert "1 vector stored" in ok("embed", COLUMN, "--retry")


def test_no_code_is_run_because_a_database_names_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the user's own is named on the command line as well, and is the one that the triggers name."""
    (place / "own_model_of_embed.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(place)
    by = "own_model_of_embed:model"
    ok("embed", COLUMN, "--install", "--text", "name", "--by", by)
    error = failure("embed", COLUMN)
    assert isinstance(error, EmbedderError)
    assert f"give --embedder {by}" in str(error)
    assert "own_model_of_embed" not in sys.modules
    assert "imported" in str(failure("embed", COLUMN, "--embedder", by))
    assert "is kept by the model own_model_of_embed:model" in str(failure("embed", COLUMN, "--embedder", "static"))


def test_what_cannot_be(packages: Engine) -> None:
    """Options that do not go together are a wrong use; a model of other dimensions is refused."""
    for arguments in (
        ["embed"],
        ["embed", COLUMN, "--install"],
        ["embed", COLUMN, "--text", "name"],
        ["embed", COLUMN, "--watch", "--drop"],
    ):
        assert run(*arguments).exit_code == 2, arguments
    assert isinstance(failure("embed", "packages.nothing"), MigrationError)
    ok(*install())
    assert "expected at most 10,000" in str(failure("embed", COLUMN, "--batch", "100000"))
    with packages.begin() as connection:
        connection.execute(text("ALTER TABLE packages ADD small halfvec(8)"))
    ok("embed", "packages.small", "--install", "--text", "name", "--by", "static")
    assert "expected vectors of 8 dimensions" in str(failure("embed", "packages.small"))
