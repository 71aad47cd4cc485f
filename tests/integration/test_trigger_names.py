"""Names of triggers where the usual one is taken: none of them is cut by the server, so that one replaces another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from pgmrl import Embed
from pgmrl.embedding_queue import embedded_column, embedding_status, install_chunks, install_embedding
from pgmrl.model.chunks import Chunks
from pgmrl.model.shortening import Definition, Short
from pgmrl.names import quoted
from pgmrl.online import steps
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from sqlalchemy import Connection

WIDE = "表" * 17
LONG = "a" * 40


def run(connection: Connection, statement: str) -> Any:
    """The rows of a statement; None where it has none."""
    result = connection.execute(text(statement))
    return [tuple(row) for row in result] if result.returns_rows else None


def stale(connection: Connection, name: str) -> dict[str, int]:
    """The rows that wait, by column."""
    return {status.column: status.stale for status in embedding_status(connection) if status.table_name == name}


@pytest.mark.parametrize("name", [WIDE, LONG])
def test_embeddings_of_a_table_that_takes_a_name_over(engine: Engine, name: str) -> None:
    """INSERT and UPDATE mark rows of both columns, in wide characters and in long names."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for moved in (True, False):
            run(
                connection, f"CREATE TABLE {quoted(name)} (id int PRIMARY KEY, body text, e_1 vector(2), e_2 vector(2))"
            )
            for column in ("e_1", "e_2"):
                install_embedding(connection, embedded_column(connection, f"{name}.{column}"), Embed("body", "static"))
            if moved:
                run(connection, f"ALTER TABLE {quoted(name)} RENAME TO earlier")
        run(connection, f"INSERT INTO {quoted(name)} VALUES (1, 'a')")
        assert stale(connection, name) == {"e_1": 1, "e_2": 1}
        run(connection, "DELETE FROM pgmrl.embedding_queue")
        run(connection, f"UPDATE {quoted(name)} SET body = 'b'")
        assert stale(connection, name) == {"e_1": 1, "e_2": 1}
        assert stale(connection, "earlier") == {"e_1": 0, "e_2": 0}


def test_chunks_of_a_name_in_two_schemas(engine: Engine) -> None:
    """Of one parent: each of them marks its rows, whether they come or change."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE SCHEMA other; CREATE TABLE docs (id int PRIMARY KEY, body text)")
        for schema in ("public", "other"):
            run(
                connection,
                f"CREATE TABLE {schema}.{quoted(WIDE)} (id serial PRIMARY KEY, doc int NOT NULL REFERENCES docs "
                "ON DELETE CASCADE, ordinal int, start int, stop int, text text)",
            )
            install_chunks(connection, f"{schema}.{WIDE}", Chunks("body", by="characters", size=5))
        for statement in ("INSERT INTO docs VALUES (1, 'a')", "UPDATE docs SET body = 'b'"):
            run(connection, f"DELETE FROM pgmrl.embedding_queue; {statement}")
            assert sorted(stale(connection, "docs").values()) == [1, 1]


def test_short_vectors_of_a_table_that_takes_a_name_over(engine: Engine) -> None:
    """They are computed of rows that come and of rows that change."""
    target = Target(WIDE, "e", Definition.of(4, Short(2), full="vector"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for moved in (True, False):
            run(connection, f"CREATE TABLE {target.owner} (id int PRIMARY KEY, e vector(4))")
            for statement in steps.add_online(target):
                run(connection, statement.replace(":", "\\:"))
            if moved:
                run(connection, f"ALTER TABLE {target.owner} RENAME TO earlier")
        for vector in ("[1,0,3,4]", "[0,1,3,4]"):
            owner = target.owner
            run(connection, f"INSERT INTO {owner} VALUES (1, '{vector}') ON CONFLICT (id) DO UPDATE SET e = excluded.e")
            assert run(connection, f"SELECT {quoted(target.short)}::text FROM {owner}") == [(f"{vector[:4]}]",)]
