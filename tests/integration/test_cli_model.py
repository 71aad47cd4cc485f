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


def test_wrong_use(tmp_path: Path) -> None:
    """One error each."""
    assert isinstance(failure("model", "install", tmp_path), EmbedderError)
    assert run("model", "keep", "notes.embedding").exit_code == 2
    assert run("model", "keep", "notes.embedding", "--text", "{a}", "--stop").exit_code == 2
    ok("model", "install", write_model(tmp_path / "small"))
    other = write_model(tmp_path / "other", seed=1)
    assert isinstance(failure("model", "install", other, "--name", "small"), MigrationError)
