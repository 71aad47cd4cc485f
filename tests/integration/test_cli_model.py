"""`pgmrl model` as a user runs it, from an empty table to a search by words without Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from pgmrl.errors import EmbedderError, MigrationError
from tests.cli import failure, ok, ok_json, run
from tests.small_model import DIMS, write_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("place")


def test_from_nothing_to_a_search_by_words(engine: Engine, tmp_path: Path) -> None:
    """Install, keep, search by SQL alone; what is in use stays."""
    folder = write_model(tmp_path / "small")
    assert "There are no models here" in ok("model", "list")
    made = ok_json("model", "install", folder)
    assert (made["name"], made["dims"], made["new"]) == ("small", DIMS, True)
    assert "there already: small" in ok("model", "install", folder)
    assert [(model["name"], model["hash"]) for model in ok_json("model", "list")] == [("small", made["hash"])]
    assert f"{DIMS} dimensions" in ok("model", "list")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE notes (id integer PRIMARY KEY, title text, embedding vector({DIMS}), "
            "embedding_short vector(4) GENERATED ALWAYS AS (l2_normalize(subvector(embedding, 1, 4))) STORED)"
        )
        connection.exec_driver_sql("CREATE INDEX ON notes USING hnsw (embedding_short vector_cosine_ops)")
    assert "embeds its text into embedding" in ok(
        "model", "keep", "notes.embedding", "--text", "{title}", "--model", "small"
    )
    ok("functions", "install", "notes.embedding", "--model", "small")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO notes (id, title) VALUES (1, 'trains'), (2, 'game'), (3, 'x')")
        found = connection.exec_driver_sql("SELECT id FROM notes_search_text('game', 1)").scalar_one()
    assert found == 2
    assert "in use by the functions" in str(failure("model", "remove", "small"))
    ok("functions", "drop", "notes.embedding")
    assert "in use by the trigger" in str(failure("model", "remove", "small"))
    assert ok_json("model", "keep", "notes.embedding", "--stop")["text"] is None
    assert ok_json("model", "remove", "small") == {"name": "small", "removed": True}
    assert run("model", "remove", "small").exit_code == 1


@pytest.mark.parametrize("partitioned", [False, True])
def test_rows_that_were_there_before(engine: Engine, tmp_path: Path, partitioned: bool) -> None:
    """Those without a vector are embedded, on all pages; run again, there is nothing to do."""
    ok("model", "install", write_model(tmp_path / "small"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f'CREATE TABLE "it\'s: 1" (id integer, title text, embedding vector({DIMS}))'
            + (" PARTITION BY RANGE (id)" if partitioned else "")
        )
        if partitioned:
            connection.exec_driver_sql('CREATE TABLE low PARTITION OF "it\'s: 1" FOR VALUES FROM (0) TO (700)')
            connection.exec_driver_sql('CREATE TABLE high PARTITION OF "it\'s: 1" FOR VALUES FROM (700) TO (9999)')
        connection.exec_driver_sql(
            "INSERT INTO \"it's: 1\" SELECT n, CASE WHEN mod(n, 100) > 0 THEN repeat('x', 50) || ' trains' END, "
            f"CASE WHEN mod(n, 100) = 1 THEN CAST('[1{',0' * (DIMS - 1)}]' AS vector) END "
            "FROM generate_series(1, 1500) AS n"
        )
    keep = ("model", "keep", "it's: 1.embedding", "--text", "{title}", "--model", "small", "--fill")
    made = ok_json(*keep)
    assert (made["embedded"], ok_json(*keep)["embedded"]) == (1500 - 2 * 15, 0)
    assert "; 0 rows embedded" in ok(*keep)
    with engine.connect() as connection:
        kept = connection.exec_driver_sql(
            "SELECT count(*) FILTER (WHERE embedding IS NULL AND title IS NULL), "
            f"count(*) FILTER (WHERE embedding = CAST('[1{',0' * (DIMS - 1)}]' AS vector)), "
            'count(DISTINCT CAST(embedding AS text)) FROM "it\'s: 1"'
        ).one()
    assert tuple(kept) == (15, 15, 2)


def test_wrong_use(tmp_path: Path) -> None:
    """One error each."""
    assert isinstance(failure("model", "install", tmp_path), EmbedderError)
    assert run("model", "keep", "notes.embedding").exit_code == 2
    assert run("model", "keep", "notes.embedding", "--text", "{a}", "--stop").exit_code == 2
    assert run("model", "keep", "notes.embedding", "--fill", "--stop").exit_code == 2
    ok("model", "install", write_model(tmp_path / "small"))
    other = write_model(tmp_path / "other", seed=1)
    assert isinstance(failure("model", "install", other, "--name", "small"), MigrationError)
