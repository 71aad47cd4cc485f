"""Another model for a column in use: a column beside it, filled while the old one serves, compared, and alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from pgmrl.errors import MeasureError, MigrationError
from tests.cli import failure, ok, ok_json, run

if TYPE_CHECKING:
    from pathlib import Path

OWN = "tests.letters:Letters"
ROWS = 60


@pytest.fixture(autouse=True)
def docs(place: Path, engine: Engine) -> Engine:
    """A table that is kept in step by the static model, filled."""
    assert place.is_dir()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE docs (id int PRIMARY KEY, body text, embedding halfvec(256))"))
        words = "SELECT n, 'the ' || (ARRAY['red','green','blue'])[n % 3 + 1] || ' house ' || n FROM"
        connection.execute(text(f"INSERT INTO docs {words} generate_series(1, {ROWS}) AS n"))
    ok("embed", "docs.embedding", "--install", "--text", "body", "--by", "static")
    ok("embed", "docs.embedding")
    return engine


def test_the_whole_way(docs: Engine, place: Path) -> None:
    """Both columns follow their text while both are there; the old one goes without the new one noticing."""
    assert run("embed", "docs.embedding", "--to", "embedding_2", "--by", OWN).exit_code == 2
    install = ["embed", "docs.embedding", "--install", "--to", "embedding_2", "--by", OWN]
    assert ok_json(*install) == {"column": "public.docs.embedding_2", "marked": ROWS}
    compare = ["compare", "docs.embedding", "docs.embedding_2"]
    error = failure(*compare)
    assert isinstance(error, MeasureError)
    assert "none has a vector in embedding_2" in str(error)
    assert ok_json("embed", "docs.embedding_2", "--embedder", OWN)["written"] == ROWS
    with docs.begin() as connection:
        connection.execute(text("UPDATE docs SET body = body || '!' WHERE id = 1"))
    assert {(s["column"], s["stale"]) for s in ok_json("embed", "--status")} == {("embedding", 1), ("embedding_2", 1)}
    for name in ("embedding", "embedding_2"):
        ok("embed", f"docs.{name}", "--embedder", "static" if name == "embedding" else OWN)

    same = ok_json("compare", "docs.embedding", "docs.embedding", "--sample", "20")
    assert (same["overlap"]["mean"], same["same_best"], same["queries"]) == (1, 1, 20)
    other = ok_json(*compare, "--sample", "20", "-k", "5")
    assert 0 < other["overlap"]["mean"] < 1
    assert other["recall"] == [None, None]
    (place / "questions.txt").write_text("a red house\n\na blue one\n")
    asked = [*compare, "--questions", "questions.txt"]
    assert f"give --embedder {OWN}" in str(failure(*asked))
    assert ok_json(*asked, "--embedder", OWN)["queries"] == 2
    assert "docs.embedding: exact" in ok(*asked, "--embedder", OWN)

    ok("embed", "docs.embedding", "--drop")
    with docs.begin() as connection:
        connection.execute(text("ALTER TABLE docs DROP COLUMN embedding"))
        connection.execute(text("UPDATE docs SET body = 'new' WHERE id = 2"))
    assert ok_json("embed", "docs.embedding_2", "--embedder", OWN)["written"] == 1


def test_a_column_of_that_name_with_another_type(docs: Engine) -> None:
    """It is left alone; one that an earlier attempt made is taken."""
    with docs.begin() as connection:
        connection.execute(text("ALTER TABLE docs ADD embedding_2 halfvec(3), ADD embedding_3 halfvec(8)"))
    install = ["embed", "docs.embedding", "--install", "--by", OWN, "--to"]
    error = failure(*install, "embedding_2")
    assert isinstance(error, MigrationError)
    assert "expected halfvec(8), got halfvec(3)" in str(error)
    assert ok_json(*install, "embedding_3")["marked"] == ROWS


@pytest.mark.parametrize("name", ["", "a.b", "embedding", "e" * 64, "title"])
def test_a_name_that_is_none_leaves_the_table_as_it_is(docs: Engine, name: str) -> None:
    """It is refused before anything is altered."""
    state = text(
        "SELECT array_agg(attname || attstorage::text ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = 'docs'::regclass"
    )
    with docs.begin() as connection:
        connection.execute(text("ALTER TABLE docs ADD COLUMN title text"))
        before = connection.execute(state).scalar_one()
    error = failure("embed", "docs.embedding", "--install", "--to", name, "--by", OWN)
    assert "expected a" in str(error)
    with docs.begin() as connection:
        assert connection.execute(state).scalar_one() == before


def test_columns_of_two_tables_are_not_compared(docs: Engine) -> None:
    """Which is said, and not that workers are to fill one of them."""
    with docs.begin() as connection:
        connection.execute(text("CREATE TABLE others (id int PRIMARY KEY, embedding halfvec(256))"))
    assert "expected two columns of one table" in str(failure("compare", "docs.embedding", "others.embedding"))
