"""`pgmrl demo`, and the demo's own work on a part of the docstrings."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from pgmrl.cli.demo import IN_SQL
from pgmrl.demo.corpus import docstrings
from pgmrl.demo.docstring_table import DOCSTRINGS, loaded_rows, prepare
from pgmrl.demo.questions import QUESTIONS, answer
from pgmrl.embedders import load_embedder
from pgmrl.errors import EmbedderError
from tests.cli import ok_json, run


def prepared(engine: Engine, rows: int) -> list[tuple[str, int, int]]:
    """Prepare the table with some docstrings; the progress that was reported."""
    calls: list[tuple[str, int, int]] = []
    with engine.connect() as connection:
        seconds = prepare(connection, docstrings()[:rows], load_embedder(), lambda *call: calls.append(call))
        assert loaded_rows(connection) == rows
    assert list(seconds) == ["embed and load", "index"]
    return calls


def test_prepare_and_answer(engine: Engine) -> None:
    """From an empty database to an answer; what is there is seen, and made anew."""
    with engine.connect() as connection:
        assert loaded_rows(connection) == 0
    assert ("embedding and loading", 1_500, 1_500) in prepared(engine, 1_500)
    with engine.connect() as connection:
        found = answer(
            connection, DOCSTRINGS.c.embedding, load_embedder(), "compare two syntax trees", k=3, shortlist=50
        )
        assert [row._fields for row in found.search.rows] == [("name", "kind", "summary", "distance")] * 3
        assert found.embedding_ms > 0
        assert found.search.recall is not None
        assert found.search.recall > 0.6
        with pytest.raises(EmbedderError, match="zero vector"):
            answer(connection, DOCSTRINGS.c.embedding, load_embedder(), "")
        named = connection.execute(text("SELECT name FROM pgmrl.queries ORDER BY name")).scalars()
        assert list(named) == sorted(QUESTIONS)
    prepared(engine, 200)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX pgmrl_demo.docstrings_embedding_short_64_hnsw"))
        assert loaded_rows(connection) == 0, "an interrupted run is no earlier run"


@pytest.mark.usefixtures("place")
def test_demo(engine: Engine) -> None:
    """From nothing to answers with their recall; the second run finds the data, --fresh loads again."""
    first = ok_json("demo")
    assert {"embed and load", "index"} <= set(first["seconds"])
    assert len(first["answers"]) == 4
    for found in first["answers"].values():
        assert len(found["hits"]) == 5
        assert 0.5 <= found["recall"] <= 1
        assert min(found[part] for part in ("total_ms", "shortlist_ms", "rerank_ms", "exact_ms")) > 0
        assert found["index"]
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
