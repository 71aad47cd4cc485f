"""Another model for a column that searches use, from the command line alone: with short vectors, indexes and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, text

from pgmrl import Embed, FilterIndex, Hnsw, Matryoshka, Rotation, Short, add_side_table, database
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from tests.cli import failure, ok, ok_json, run

if TYPE_CHECKING:
    from pathlib import Path

    from pgmrl.database.table_state import ShortState

OWN = "tests.letters:Letters"
ROWS = 60
INSTALL = ("embed", "docs.embedding", "--install", "--by", OWN, "--to")


@pytest.fixture(autouse=True)
def docs(place: Path, engine: Engine) -> Engine:
    """A table that is kept in step and searched, with an index of its own kind and a filter's."""
    assert place.is_dir()
    index, filters = Hnsw(m=8, ef_construction=32), [FilterIndex("section")]
    full: Matryoshka = Matryoshka(256, Short(4), index=index, filters=filters, embed=Embed("body", "static"))
    columns = Column("id", Integer, primary_key=True), Column("section", Integer), Column("body", Text)
    Table("docs", MetaData(), *columns, Column("embedding", full)).create(engine)
    with engine.begin() as connection:
        words = "SELECT n, n % 3, 'the ' || (ARRAY['red','green','blue'])[n % 3 + 1] || ' house ' || n FROM"
        connection.execute(text(f"INSERT INTO docs (id, section, body) {words} generate_series(1, {ROWS}) AS n"))
    return engine


def short_of(engine: Engine, full: str) -> ShortState:
    """The one short column of full vectors."""
    with engine.connect() as connection:
        state = table_state(connection, None, "docs")
    assert state is not None
    (short,) = [short for short in state.shorts.values() if short.full == full]
    return short


def test_the_whole_way(docs: Engine) -> None:
    """The new column gets what the old one has; when that is dropped, the new one goes on."""
    ok("embed", "docs.embedding")
    assert ok_json(*INSTALL, "embedding_2") == {
        "column": "public.docs.embedding_2", "marked": ROWS, "short": "embedding_2_short_4",
    }  # fmt: skip
    assert not short_of(docs, "embedding_2").indexes
    assert "`pgmrl embed public.docs.embedding_2 --index` fills it" in ok(*INSTALL, "embedding_2")
    assert ok_json("embed", "docs.embedding_2", "--index", "--embedder", OWN)["written"] == ROWS
    short = short_of(docs, "embedding_2")
    (index,), (filter_index,) = short.indexes, short.filter_indexes
    assert (index.valid, index.index, short.kept_by) == (True, Hnsw(m=8, ef_construction=32), "trigger")
    assert (filter_index.valid, filter_index.index.columns) == (True, ("section",))
    recalls = ok_json("compare", "docs.embedding", "docs.embedding_2", "--sample", "20", "-k", "5")["recall"]
    assert all(recall["mean"] > 0.5 for recall in recalls)

    (step, *_, last) = ok_json("reshape", "drop", "docs.embedding", "--dry-run")[0]["steps"]
    assert step["sql"] == [f"DROP INDEX CONCURRENTLY IF EXISTS {short_of(docs, 'embedding').indexes[0].name}"]
    assert last["sql"][-1] == "ALTER TABLE docs DROP COLUMN embedding"
    dropped = ok_json("reshape", "drop", "docs.embedding", "--wait-seconds", "0")
    assert dropped == {"dropped": ["embedding_short_4", "embedding"], "kept": []}
    with docs.begin() as connection:
        connection.execute(text("UPDATE docs SET body = 'new' WHERE id = 2"))
    assert ok_json("embed", "docs.embedding_2", "--embedder", OWN)["written"] == 1
    assert [status["column"] for status in ok_json("embed", "--status")] == ["embedding_2"]


def test_a_column_that_is_filled_already(docs: Engine) -> None:
    """Gets its short vectors and its index, by the dimensions that are said; in a table without another one too."""
    with docs.begin() as connection:
        connection.execute(text("CREATE TABLE plain (id int PRIMARY KEY, body text, e vector(8))"))
        connection.execute(text("INSERT INTO plain SELECT n, 'text ' || n FROM generate_series(1, 9) AS n"))
    ok("embed", "plain.e", "--install", "--text", "body", "--by", OWN)
    assert "give --short-dims" in str(failure("embed", "plain.e", "--index", "--embedder", OWN))
    ok("embed", "plain.e", "--embedder", OWN)
    command = ("embed", "plain.e", "--index", "--embedder", OWN, "--short-dims", "2")
    for _ in range(2):  # again it finds everything done
        assert ok_json(*command)["written"] == 0
        with docs.connect() as connection:
            state = table_state(connection, None, "plain")
            filled = connection.execute(text("SELECT count(e_short_2) FROM plain")).scalar_one()
        assert state is not None
        assert [index.valid for index in state.shorts["e_short_2"].indexes] == [True]
        assert filled == 9
    assert "0 vectors stored; e_short_2 has its index" in ok(*command)
    assert run("embed", "plain.e", "--index", "--watch").exit_code == 2
    assert run("embed", "plain.e", "--short-dims", "2").exit_code == 2


def test_beside_a_rotation(docs: Engine) -> None:
    """Whose axes are of the old vectors: the new short ones are a prefix, and it is said."""
    rotation = Rotation.of(np.eye(4, 8, dtype=np.float32))
    full: Matryoshka = Matryoshka(8, Short(4, by=rotation), embed=Embed("body", OWN))
    table = Table(
        "turned", MetaData(), Column("id", Integer, primary_key=True), Column("body", Text), Column("e", full)
    )
    with docs.begin() as connection:
        database.install_rotation(connection, rotation)
        table.create(connection)
    result = run("embed", "turned.e", "--install", "--to", "f", "--by", OWN)
    assert "0 rows marked; `pgmrl embed public.turned.f --index` fills it" in result.stdout
    assert "f_short_4 is a prefix" in result.stderr


def test_what_still_reads_it(docs: Engine) -> None:
    """A view, a function that names table and column, a side table: nothing is dropped."""
    before = short_of(docs, "embedding")
    for made, dropped in (
        ("VIEW reader AS SELECT embedding FROM docs", "VIEW reader"),
        ("FUNCTION reader() RETURNS bigint LANGUAGE sql AS 'SELECT count(embedding) FROM docs'", "FUNCTION reader"),
    ):
        with docs.begin() as connection:
            connection.execute(text(f"CREATE {made}"))
        error = failure("reshape", "drop", "docs.embedding", "--force")
        assert isinstance(error, MigrationError)
        assert "reader reads embedding: change it first" in str(error).replace("()", "")
        with docs.begin() as connection:
            connection.execute(text(f"DROP {dropped}"))
            other = "FUNCTION other() RETURNS int LANGUAGE sql AS 'SELECT 1 AS embedding'"
            connection.execute(text(f"CREATE OR REPLACE {other}"))  # of another table's
    assert "no column title of full vectors" in str(failure("reshape", "drop", "docs.title", "--force"))
    assert "no column embedding_short_4 of full" in str(failure("reshape", "drop", "docs.embedding_short_4", "--force"))
    table = Table("copied", MetaData(), Column("id", Integer, primary_key=True), Column("e", VECTOR(8)))
    side = add_side_table(table.c.e, Short(4))
    table.metadata.create_all(docs, tables=[table, side])
    assert "is copied into the side table" in str(failure("reshape", "drop", "copied.e", "--force"))
    assert short_of(docs, "embedding") == before
    assert ok_json("reshape", "drop", "docs.embedding", "--force")["dropped"][-1] == "embedding"
