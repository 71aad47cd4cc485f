"""Tables of chunks beside those of other roles: in schemas that a worker may not use, or named by a stranger."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from pgmrl.embedding_queue import chunk_table, install_chunks, remove_chunks, run_chunk_worker
from pgmrl.model.chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNKS = Chunks("body", by="characters", size=5)


def run(engine: Engine, statement: str) -> Any:
    """The rows of a statement in a transaction of its own; None where it has none."""
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else None


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """A role that may make schemas, and owns nothing yet."""
    name = f"someone_{secrets.token_hex(4)}"
    run(engine, f"CREATE ROLE {name}; GRANT CREATE ON DATABASE {engine.url.database} TO {name}")
    yield name
    run(engine, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def made(engine: Engine, schema: str) -> None:
    """Texts and a table for their chunks in a schema, kept in step."""
    run(engine, f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.docs (id int PRIMARY KEY, body text)")
    run(
        engine,
        f"CREATE TABLE {schema}.parts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doc int NOT NULL "
        f"REFERENCES {schema}.docs ON DELETE CASCADE, ordinal int, start int, stop int, text text)",
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_chunks(connection, f"{schema}.parts", CHUNKS)


def test_chunks_in_a_schema_that_a_role_may_not_use(engine: Engine, role: str) -> None:
    """It sees those that it may, and cuts them."""
    made(engine, "hidden")
    made(engine, "open")
    run(engine, f"GRANT USAGE ON SCHEMA open TO {role}")
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        names = connection.execute(
            text("SELECT chunk_schema FROM pgmrl.chunk_tables WHERE chunks IS NOT NULL")
        ).scalars()
        assert sorted(names) == ["hidden", "open"]
        table = chunk_table(connection, "open.parts")
        assert table is not None
        assert table.title == "open.parts"


def test_triggers_of_strangers_that_name_chunks(engine: Engine, role: str) -> None:
    """They neither say how they are cut, nor have functions of others dropped with theirs."""
    made(engine, "own")
    made(engine, "other")
    run(engine, "GRANT USAGE ON SCHEMA other TO PUBLIC")
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        connection.execute(text("CREATE SCHEMA strange"))
        connection.execute(text("CREATE TABLE strange.docs (id int PRIMARY KEY, body text)"))
        for name, arguments in (("a", "'own', 'parts'"), ("b", "'', ''")):
            connection.execute(
                text(
                    f"CREATE TRIGGER {name} AFTER INSERT ON strange.docs FOR EACH ROW "
                    f"EXECUTE FUNCTION other.zw_pgmrl_parts({arguments}, 'id', 'characters', '9', '0', '')"
                )
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        declared = connection.execute(
            text("SELECT template FROM pgmrl.chunk_tables WHERE chunks = 'own.parts'::regclass")
        )
        assert declared.scalars().all() == ["body"]
        assert install_chunks(connection, "own.parts", CHUNKS) == 0
        run(engine, "INSERT INTO own.docs VALUES (1, 'some words')")
        table = chunk_table(connection, "own.parts")
        assert table is not None
        assert run_chunk_worker(engine, table).written == 1
        remove_chunks(connection, table)
        assert chunk_table(connection, "own.parts") is None
        assert chunk_table(connection, "other.parts") is not None
