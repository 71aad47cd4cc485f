"""What marks a row, whatever changes its text; and what may write its vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from pgmrl.doctor import doctor
from pgmrl.embedding_queue import WorkerOptions, embedded_column, install_embedding, run_worker
from pgmrl.embedding_queue.queue_status import marking_triggers
from pgmrl.errors import EmbedderError, MigrationError
from pgmrl.model.embed import Embed, drop_embedding_triggers
from tests.letters import DIMS, Letters, vector_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection

QUICK = WorkerOptions(batch=7, lease=5, pause=0.01, attempts=3, poll=0.05)


def run(engine: Engine, statement: str, **parameters: Any) -> Any:
    """The rows of a statement in a transaction of its own."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else result.rowcount


def install(engine: Engine, table: str, embed: Embed, *, everything: bool = False) -> None:
    """The triggers of a table's column `embedding`."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_embedding(connection, embedded_column(connection, f"{table}.embedding"), embed, everything=everything)


def work(engine: Engine, table: str) -> int:
    """The vectors that a worker stored until nothing was left."""
    with engine.connect() as connection:
        column = embedded_column(connection, f"{table}.embedding")
    return run_worker(engine, column, Letters(), QUICK).written


def waiting(engine: Engine) -> int:
    """Entries in the queue."""
    return int(run(engine, "SELECT count(*) FROM pgmrl.embedding_queue")[0][0])


def named(engine: Engine, table: str) -> list[str]:
    """The columns that the trigger on UPDATE wants to be named; none where it looks at every UPDATE."""
    query = (
        "SELECT a.attname FROM pg_trigger AS g JOIN pg_attribute AS a ON a.attrelid = g.tgrelid "
        "AND a.attnum = ANY (g.tgattr::int2[]) "
        "WHERE g.tgrelid = CAST(:t AS regclass) AND g.tgname LIKE 'zx%\\_u' ORDER BY 1"
    )
    return [name for (name,) in run(engine, query, t=table)]


def before(engine: Engine, name: str, body: str) -> None:
    """A BEFORE UPDATE trigger of the application's."""
    run(engine, f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    run(engine, f"CREATE TRIGGER {name} BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION {name}()")


def only_finding(connection: Connection) -> str:
    """What the doctor says of the column, where it says one thing."""
    (finding,) = doctor(connection, only=["embeddings"]).findings
    return finding.message


@pytest.fixture
def docs(engine: Engine) -> Engine:
    """An Engine on a database with the table `docs`."""
    run(engine, f"CREATE TABLE docs (id int PRIMARY KEY, body text, at timestamptz, stars int, "
                f"fts tsvector, upper text GENERATED ALWAYS AS (upper(body)) STORED, "
                f"embedding halfvec({DIMS}))")  # fmt: skip
    run(engine, "INSERT INTO docs (id, body) VALUES (1, 'a'), (2, 'b')")
    return engine


@pytest.mark.parametrize(
    ("body", "harmless"),
    [
        ("BEGIN NEW.at := now(); RETURN NEW; END", True),
        ("BEGIN IF new.stars < 0 THEN RETURN OLD; END IF; new.\"at\" = now(); return new ; END", True),
        ("BEGIN NEW.body := lower(NEW.body); RETURN NEW; END", False),
        ("BEGIN SELECT 'x' INTO NEW.Body; RETURN NEW; END", False),
        ("BEGIN NEW := jsonb_populate_record(NEW, '{\"body\": \"x\"}'); RETURN NEW; END", False),
        ("BEGIN SELECT 1, 'x' INTO NEW; RETURN NEW; END", False),
        ("DECLARE r docs; BEGIN r.id := 1; RETURN r; END", False),
        ("DECLARE r ALIAS FOR NEW; BEGIN RETURN NEW; END", False),
        ("BEGIN NEW.U&\"b\\006fdy\" := 'x'; RETURN NEW; END", False),
    ],
)  # fmt: skip
def test_a_trigger_that_may_change_the_text(docs: Engine, body: str, harmless: bool) -> None:
    """Every UPDATE is looked at then; where none may, only those that name a column of the text or the key."""
    before(docs, "touch", body)
    install(docs, "docs", Embed("body", "static"))
    assert named(docs, "docs") == (["body", "id"] if harmless else [])


def test_a_text_that_another_trigger_changes_is_marked(docs: Engine) -> None:
    """In an UPDATE that does not name it; by the server's own trigger functions in another column it is not."""
    run(docs, "CREATE TRIGGER fts BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION "
              "tsvector_update_trigger(fts, 'pg_catalog.english', body)")  # fmt: skip
    install(docs, "docs", Embed("body", "static"))
    assert named(docs, "docs") == ["body", "id"]
    assert work(docs, "docs") == 2
    before(docs, "rewrite", "BEGIN NEW.body := 'rewritten ' || NEW.stars; RETURN NEW; END")
    with docs.connect() as connection:
        assert [triggers.rewriters for triggers in marking_triggers(connection)] == [["rewrite"]]
        assert "the trigger rewrite may change the text" in only_finding(connection)
    install(docs, "docs", Embed("body", "static"))
    assert named(docs, "docs") == []
    with docs.connect() as connection:
        assert [triggers.rewriters for triggers in marking_triggers(connection)] == [None]
    run(docs, "UPDATE docs SET stars = id")
    assert work(docs, "docs") == 2
    rows = run(docs, "SELECT body, CAST(embedding AS vector)::float4[] FROM docs ORDER BY id")
    assert [tuple(row) for row in rows] == [(body, vector_of(body).tolist()) for body in ("rewritten 1", "rewritten 2")]


def test_a_generated_column_is_named_by_what_it_is_made_of(docs: Engine) -> None:
    """An UPDATE of its source marks the row; with another BEFORE trigger every UPDATE is looked at."""
    install(docs, "docs", Embed("upper", "static"))
    assert named(docs, "docs") == ["id", "upper"]
    assert work(docs, "docs") == 2
    run(docs, "UPDATE docs SET body = 'c' WHERE id = 1")
    run(docs, "UPDATE docs SET stars = 3")
    assert waiting(docs) == 1
    before(docs, "touch", "BEGIN NEW.at := now(); RETURN NEW; END")
    install(docs, "docs", Embed("upper", "static"))
    assert named(docs, "docs") == []


def test_a_row_that_moves_to_another_partition_is_marked(engine: Engine) -> None:
    """With a text that changed in the same UPDATE, or before it; for the server it is a DELETE and an INSERT."""
    run(engine, f"CREATE TABLE parts (id int, year int, body text, embedding halfvec({DIMS}), "
                "PRIMARY KEY (id, year)) PARTITION BY LIST (year)")  # fmt: skip
    for year in (1, 2):
        run(engine, f"CREATE TABLE parts_{year} PARTITION OF parts FOR VALUES IN ({year})")
    install(engine, "parts", Embed("body", "static"))
    run(engine, "INSERT INTO parts VALUES (1, 1, 'a'), (2, 1, 'b')")
    assert work(engine, "parts") == 2
    run(engine, "UPDATE parts SET year = 2, body = 'changed' WHERE id = 1")
    run(engine, "UPDATE parts SET body = 'changed too' WHERE id = 2")
    run(engine, "UPDATE parts SET year = 2 WHERE id = 2")
    assert work(engine, "parts") == 2
    rows = run(engine, "SELECT body, CAST(embedding AS vector)::float4[] FROM parts ORDER BY id")
    assert [tuple(row) for row in rows] == [(body, vector_of(body).tolist()) for body in ("changed", "changed too")]


def test_a_worker_of_the_model_of_before_writes_nothing(docs: Engine) -> None:
    """The column is given to another model while it embeds: it ends with an error, and its vectors are not stored."""

    class Overtaken(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            install(docs, "docs", Embed("body", "other:model"), everything=True)
            return super().embed_documents(texts)

    install(docs, "docs", Embed("body", "static"))
    with docs.connect() as connection:
        column = embedded_column(connection, "docs.embedding")
    with pytest.raises(MigrationError, match="by other:model now, expected 'body' by static"):
        run_worker(docs, column, Overtaken(), QUICK)
    assert run(docs, "SELECT count(embedding) FROM docs") == [(0,)]
    with pytest.raises(MigrationError, match="by other:model now"):
        run_worker(docs, column, Letters(), QUICK)
    with docs.begin() as connection:
        connection.exec_driver_sql(drop_embedding_triggers(None, "docs", "embedding"))
    with pytest.raises(MigrationError, match="by no trigger any more"):
        run_worker(docs, column, Letters(), QUICK)


def test_a_worker_of_another_model_is_refused(docs: Engine) -> None:
    """As far as a model's name says what it is."""
    install(docs, "docs", Embed("body", "openai:large?dimensions=8"))
    with docs.connect() as connection:
        column = embedded_column(connection, "docs.embedding")
    letters = Letters()
    for name in ("openai:small", "static:l2_supercat_256"):
        letters.name = name
        with pytest.raises(EmbedderError, match="expected the model openai:large"):
            run_worker(docs, column, letters, QUICK)
    letters.name = "openai:large"
    assert run_worker(docs, column, letters, QUICK).written == 2


def test_a_dropped_table_leaves_no_entry_behind(docs: Engine) -> None:
    """A worker of another column removes it; nothing counts it meanwhile."""
    run(docs, f"CREATE TABLE gone (id int PRIMARY KEY, body text, embedding halfvec({DIMS}))")
    run(docs, "INSERT INTO gone VALUES (7, 'c')")
    for table in ("gone", "docs"):
        install(docs, table, Embed("body", "static"))
    run(docs, "DROP TABLE gone")
    assert run(docs, "SELECT table_name, stale FROM pgmrl.embedding_status") == [("docs", 2)]
    assert waiting(docs) == 3
    assert work(docs, "docs") == 2
    assert waiting(docs) == 0
