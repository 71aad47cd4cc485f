"""`pgmrl functions` and `pgmrl query` as a user runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, text

from pgmrl.errors import DefinitionError, MigrationError, NotMigrated, PgmrlError, VectorError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.cli import failure, ok, ok_json, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(autouse=True)
def documents(engine: Engine) -> Table:
    """Fifty documents with vectors of eight dimensions."""
    table = Table(
        "documents",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("section", Text),
        Column("embedding", Matryoshka(8, Short(4))),
    )
    vectors = np.random.default_rng(1).normal(size=(50, 8))
    with engine.begin() as connection:
        table.create(connection)
        rows = [{"id": n, "section": "ab"[n % 2], "embedding": vector} for n, vector in enumerate(vectors)]
        connection.execute(table.insert(), rows)
    return table


def asked(engine: Engine, statement: str) -> list[Any]:
    """Rows of a statement."""
    with engine.connect() as connection:
        return list(connection.execute(text(statement)))


NAMES = ["documents_search", "documents_search_diverse", "documents_search_named", "documents_similar"]


def test_install_list_drop(engine: Engine) -> None:
    """What is installed works, is listed, and leaves nothing behind."""
    before = asked(engine, "SELECT proname FROM pg_proc ORDER BY 1")
    assert "no functions of pgmrl" in ok("functions", "list")
    made = ok_json("functions", "install", "documents.embedding", "--filter", "section", "--related", 3)
    assert [one["function_name"] for one in made] == [*NAMES, "documents_vector"]
    assert made[0]["filters"] == ["section"]
    assert ok_json("functions", "list") == made
    shown = ok("functions", "install", "documents.embedding", "--filter", "section", "--related", 3)
    assert "public.documents_search(query halfvec, k integer DEFAULT 10" in shown
    assert "public.documents_related  a view" in shown
    rows = asked(engine, "SELECT id FROM documents_similar(3, 5, section => 'b')")
    assert len(rows) == 5
    assert all(row.id % 2 == 1 for row in rows)
    assert ok_json("functions", "drop", "documents.embedding") == ["public.documents"]
    assert "there were none" in ok("functions", "drop", "documents.embedding")
    assert asked(engine, "SELECT proname FROM pg_proc ORDER BY 1") == before


def test_the_statements_can_be_printed_and_run(engine: Engine) -> None:
    """`--sql` runs nothing; what it prints does the same."""
    printed = ok("functions", "install", "documents.embedding", "--group-by", "section", "--name", "docs", "--sql")
    assert ok_json("functions", "list") == []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(printed, execution_options={"no_parameters": True})
    assert len(asked(engine, "SELECT * FROM docs_search_groups(docs_vector(1), 2)")) == 2


def test_grants_and_another_schema(engine: Engine) -> None:
    """Only those who are named may call them."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA bi")
        connection.exec_driver_sql("DROP ROLE IF EXISTS cli_reader")
        connection.exec_driver_sql("CREATE ROLE cli_reader")
    try:
        ok("functions", "install", "documents.embedding", "--schema", "bi", "--grant", "cli_reader")
        rows = asked(
            engine,
            "SELECT has_function_privilege('cli_reader', p.oid, 'EXECUTE') AS theirs, "
            "EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0) AS everybodys "
            "FROM pg_proc AS p WHERE pronamespace = 'bi'::regnamespace",
        )
        assert rows
        assert {(row.theirs, row.everybodys) for row in rows} == {(True, False)}
        ok("functions", "drop", "documents.embedding")
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP ROLE cli_reader")


def test_wrong_declarations() -> None:
    """Each says what is wrong, and nothing is installed."""
    install = ("functions", "install", "documents.embedding")
    assert isinstance(failure(*install, "--filter", "nothing"), DefinitionError)
    tests = "one of the tests =, >=, <=, in, contains"
    assert f"filter on 'id': expected {tests}, got '<'" in str(failure(*install, "--filter", "id <"))
    assert f"no column 'id<'; expected a column, or a column, a space and {tests}" in str(
        failure(*install, "--filter", "id<")
    )
    assert f"no column 'id like'; expected a column, or a column, a space and {tests}" in str(
        failure(*install, "--filter", "id like")
    )
    assert isinstance(failure(*install, "--filter", "section", "--filter", "section"), DefinitionError)
    assert isinstance(failure(*install, "--stored"), DefinitionError)
    assert isinstance(failure(*install, "--related", 0), DefinitionError)
    assert isinstance(failure(*install, "--words", "section"), DefinitionError)
    assert isinstance(failure(*install, "--schema", "nowhere"), MigrationError)
    assert isinstance(failure("functions", "install", "documents.nothing"), NotMigrated)
    assert ok_json("functions", "list") == []


def test_functions_need_pgmrls_schema(engine: Engine) -> None:
    """And say how to get it."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA pgmrl CASCADE")
    for command in (("functions", "install", "documents.embedding"), ("functions", "list"), ("query", "list")):
        assert "run `pgmrl upgrade`" in str(failure(*command))


def test_a_column_without_short_vectors(engine: Engine) -> None:
    """There is nothing to search by yet."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE plain (id int PRIMARY KEY, embedding vector(8))")
    assert "has no short vectors yet" in str(failure("functions", "install", "plain.embedding"))


# -- queries -------------------------------------------------------------------------------------------------------


def test_named_queries(engine: Engine, tmp_path: Path) -> None:
    """Added, replaced, listed, asked, removed."""
    ok("functions", "install", "documents.embedding")
    assert "no named queries" in ok("query", "list")
    ones = json.dumps([1.0] * 8)
    added = ok_json("query", "add", "documents.embedding", "--vector", ones, "--name", "it's")
    assert added == {"name": "it's", "new": True}
    (tmp_path / "twos.json").write_text(json.dumps([2.0, 1] * 4))
    assert "replaced it's" in ok("query", "add", "documents.embedding", "--vector", "twos.json", "--name", "it's")
    listed = ok_json("query", "list")
    assert [(one["table"], one["column"], one["name"], one["dims"]) for one in listed] == [
        ("documents", "embedding", "it's", 8)
    ]
    named = asked(engine, "SELECT id FROM documents_search_named('it''s', 4)")
    assert named == asked(engine, "SELECT id FROM documents_search('[2,1,2,1,2,1,2,1]', 4)")
    assert "removed it's" in ok("query", "remove", "documents.embedding", "it's")
    assert run("query", "remove", "documents.embedding", "it's").exit_code == 1


def test_a_question_in_words(engine: Engine) -> None:
    """Embedded by the static model, and named by itself."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE texts (id int PRIMARY KEY, embedding vector(256), "
                                   "s halfvec(64) GENERATED ALWAYS AS "
                                   "(l2_normalize(subvector(embedding, 1, 64))::halfvec(64)) STORED)")  # fmt: skip
    assert "added a game with trains" in ok("query", "add", "texts.embedding", "a game with trains")
    (one,) = ok_json("query", "list")
    assert (one["question"], one["name"], one["embedder"]) == ("a game with trains", "a game with trains", "static")


def test_queries_that_cannot_be() -> None:
    """Wrong dimensions, zeros, no name, neither words nor vector."""
    add = ("query", "add", "documents.embedding")
    assert isinstance(failure(*add, "--vector", "[1, 2]", "--name", "x"), VectorError)
    assert isinstance(failure(*add, "--vector", json.dumps([0.0] * 8), "--name", "x"), VectorError)
    assert isinstance(failure(*add, "--vector", json.dumps([1.0] * 8), "--name", " "), PgmrlError)
    assert run(*add, "--vector", json.dumps([1.0] * 8)).exit_code == 2
    assert run(*add).exit_code == 2
    assert ok_json("query", "list") == []
