"""Rows are marked in the transaction that changes their text, and workers embed the text that a row has then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Date, Engine, Integer, MetaData, Table, Text, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Embed, Matryoshka, Short, VectorArray, add_short, matryoshka
from pgmrl.database import connect
from pgmrl.embedding_queue import (
    EmbeddedColumn,
    EmbedProgress,
    ParkedRow,
    WorkerOptions,
    embedded_column,
    embedding_status,
    install_embedding,
    parked_rows,
    remove_embedding,
    retry_parked,
    run_worker,
)
from pgmrl.errors import DefinitionError, EmbedderError, EmbedderUnavailable, MigrationError
from pgmrl.model.types import NumpyVector
from tests.letters import DIMS, Letters, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

QUICK = WorkerOptions(batch=7, lease=5, pause=0.01, attempts=3, poll=0.05)


class Base(DeclarativeBase):
    """The models."""


class Note(Base):
    """Its vector is made of its title and its body."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    body: Mapped[str | None]
    stars: Mapped[int] = mapped_column(server_default="0")
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(4), embed=Embed("{title}\n{body}", by="static"))


@pytest.fixture
def notes(engine: Engine) -> Engine:
    """An Engine on a database with the table `notes`."""
    Base.metadata.create_all(engine)
    return engine


def run(engine: Engine, statement: str, **parameters: Any) -> Any:
    """The rows of a statement in a transaction of its own; its number of rows where it has none."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else result.rowcount


def marked(engine: Engine) -> list[str]:
    """The keys in the queue, in the order in which they came."""
    return [",".join(key) for (key,) in run(engine, "SELECT key FROM pgmrl.embedding_queue ORDER BY id")]


def column_of(engine: Engine, name: str = "notes.embedding") -> EmbeddedColumn:
    """A column of vectors as the catalogue has it."""
    with engine.connect() as connection:
        return embedded_column(connection, name)


def work(
    engine: Engine, embedder: Any = None, name: str = "notes.embedding", options: WorkerOptions = QUICK
) -> EmbedProgress:
    """One worker, until no row is left."""
    return run_worker(engine, column_of(engine, name), embedder or Letters(), options)


def check_vectors(engine: Engine, table: str = "notes", sql: str = "concat(title, E'\\n', body)") -> int:
    """Every row has exactly the vector of its text; how many rows there are."""
    rows = run(engine, f"SELECT {sql}, CAST(embedding AS vector)::float4[] FROM {table}")
    for value, vector in rows:
        if value.strip():
            assert vector == vector_of(value).tolist(), value
        else:
            assert vector is None
    return len(rows)


def test_a_row_is_marked_when_its_text_changes(notes: Engine) -> None:
    """By the transaction that changes it; not by any other UPDATE, nor where the application brings the vector."""
    run(notes, "INSERT INTO notes (id, title) SELECT n, 'title ' || n FROM generate_series(1, 3) AS n")
    assert marked(notes) == ["1", "2", "3"]
    with notes.connect() as connection:
        connection.execute(text("UPDATE notes SET title = 'other'"))
        connection.rollback()
    run(notes, "UPDATE notes SET stars = 5, title = title")
    run(notes, "UPDATE notes SET title = 'own', embedding = CAST(:v AS halfvec) WHERE id = 1", v=str([1] * DIMS))
    run(notes, "INSERT INTO notes (id, title, embedding) VALUES (4, 'own', CAST(:v AS halfvec))", v=str([1] * DIMS))
    assert marked(notes) == ["1", "2", "3"]
    run(notes, "UPDATE notes SET body = 'body' WHERE id = 2")
    run(notes, "UPDATE notes SET id = 30 WHERE id = 3")
    assert marked(notes) == ["1", "2", "3", "2", "30"]


def test_a_change_of_bytes_is_a_change(engine: Engine) -> None:
    """Also one that the type's own comparison does not see; of types without a comparison as well."""
    run(
        engine,
        "CREATE TABLE odd (id numeric PRIMARY KEY, a text, b json, c char(4), d varchar, n numeric, "
        f"other int, embedding vector({DIMS}))",
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        embed = Embed("{a}{b}{c}{d}{n}", "static")
        install_embedding(connection, embedded_column(connection, "odd.embedding"), embed)
    run(engine, "INSERT INTO odd VALUES (1, 'a', '{}', 'c', 'd', 1.0, 1)")
    run(engine, "UPDATE odd SET other = 2, a = 'a', b = '{}', c = 'c ', d = 'd', n = 1.0")
    assert len(marked(engine)) == 1
    for number, change in enumerate(("a = 'A'", "b = '{ }'", "c = 'e'", "d = 'D'", "n = 1.00", "d = NULL"), 2):
        run(engine, f"UPDATE odd SET {change}")
        assert len(marked(engine)) == number, change
    assert work(engine, name="odd.embedding").written == 1
    check_vectors(engine, "odd", "concat(a, b, c, d, n)")


def test_a_worker_embeds_what_is_marked(notes: Engine) -> None:
    """Each row once, however often it was marked; a deleted row and one without a text are no trouble."""
    run(notes, "INSERT INTO notes (id, title, body) SELECT n, 'title ' || n, 'body' FROM generate_series(1, 20) AS n")
    run(notes, "INSERT INTO notes (id, title) VALUES (21, NULL), (22, E' \\n')")
    run(notes, "UPDATE notes SET body = 'other' WHERE id <= 10")
    run(notes, "DELETE FROM notes WHERE id = 5")
    letters = Letters()
    done = work(notes, letters, options=WorkerOptions(batch=1000))
    assert done == EmbedProgress(written=19, empty=2)
    assert [len(batch) for batch in letters.batches] == [19]
    assert marked(notes) == []
    assert check_vectors(notes) == 21
    run(notes, "UPDATE notes SET title = '', body = NULL WHERE id = 1")
    assert work(notes).empty == 1
    check_vectors(notes)


def test_a_text_that_changes_meanwhile_is_embedded_again(notes: Engine) -> None:
    """The old text's vector is never stored."""

    class Interrupted(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if not self.batches:
                run(notes, "UPDATE notes SET title = 'new' WHERE id = 1")
            return super().embed_documents(texts)

    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'old'), (2, 'still')")
    run(
        notes,
        "CREATE FUNCTION only_new() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO written VALUES (NEW.title, NEW.embedding::text); RETURN NULL; END $$",
    )
    run(notes, "CREATE TABLE written (title text, vector text)")
    run(notes, "CREATE TRIGGER only_new AFTER UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION only_new()")
    work(notes, Interrupted())
    check_vectors(notes)
    written = run(notes, "SELECT title, vector::vector::float4[] FROM written ORDER BY title")
    assert [(title, vector) for title, vector in written] == [
        (title, vector_of(f"{title}\n").tolist()) for title in ("new", "still")
    ]


def test_a_row_that_somebody_holds_waits_alone(notes: Engine) -> None:
    """A worker waits for no row's lock; what is held is embedded when it is free."""
    run(notes, "INSERT INTO notes (id, title) SELECT n, 'title ' || n FROM generate_series(1, 5) AS n")
    free = threading.Event()

    def release(progress: EmbedProgress) -> None:
        if progress.written == 4 and not free.is_set():
            free.set()
            holder.rollback()

    with notes.connect() as holder:
        holder.execute(text("SELECT FROM notes WHERE id = 3 FOR UPDATE"))
        done = run_worker(notes, column_of(notes), Letters(), QUICK, progress=release)
    assert (done.written, free.is_set()) == (5, True)
    check_vectors(notes)


def test_a_bad_row_is_parked_and_stops_no_other(notes: Engine) -> None:
    """With its error, for those who may read it; tried again when its text changes, or when that is asked for."""
    run(notes, "INSERT INTO notes (id, title) SELECT n, 'title ' || n FROM generate_series(1, 20) AS n")
    run(notes, "UPDATE notes SET title = 'bad' WHERE id IN (4, 5)")
    run(notes, "UPDATE notes SET title = repeat('long ', 1000) WHERE id = 6")
    options = WorkerOptions(batch=20, pause=0.01, attempts=2, max_bytes=1000)
    done = work(notes, options=options)
    assert (done.written, done.parked) == (17, 3)
    with notes.connect() as connection:
        errors = {row.key: (row.attempts, row.error) for row in parked_rows(connection, column_of(notes))}
        (status,) = embedding_status(connection)
    bad = (2, "ValueError: a bad word")
    long = (1, "expected a text of at most 1,000 bytes, got 5,001")
    assert errors == {("4",): bad, ("5",): bad, ("6",): long}
    assert (status.stale, status.parked, status.oldest_seconds) == (0, 3, None)
    run(notes, "UPDATE notes SET title = 'good' WHERE id = 4")
    work(notes, options=options)
    with notes.begin() as connection:
        assert [row.key for row in parked_rows(connection, column_of(notes))] == [("5",), ("6",)]
        assert retry_parked(connection, column_of(notes)) == 2
    run(notes, "UPDATE notes SET title = 'better' WHERE id = 5")
    assert work(notes, options=QUICK).parked == 0
    check_vectors(notes)


def test_a_row_that_the_server_refuses_is_parked(notes: Engine) -> None:
    """A CHECK of the application's, for one."""
    run(notes, "ALTER TABLE notes ADD CHECK (title <> 'no' OR embedding IS NULL)")
    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'yes'), (2, 'no'), (3, 'yes')")
    done = work(notes)
    assert (done.written, done.parked) == (2, 1)
    with notes.connect() as connection:
        (parked,) = parked_rows(connection, column_of(notes))
    assert parked.key == ("2",)
    assert "violates check constraint" in parked.error


@pytest.mark.parametrize("vectors", [np.full((2, DIMS), np.nan), np.ones((1, DIMS)), np.ones((2, 3)), None, "text"])
def test_vectors_that_cannot_be_are_never_stored(notes: Engine, vectors: Any) -> None:
    """NaN, too few, other dimensions, no numbers."""

    class Wrong(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return vectors if len(texts) == 2 else np.full((1, DIMS), np.inf)

    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'a'), (2, 'b')")
    assert work(notes, Wrong()).parked == 2
    assert run(notes, "SELECT count(*) FROM notes WHERE embedding IS NOT NULL") == [(0,)]


def test_a_model_that_does_not_answer_costs_no_row_an_attempt(notes: Engine) -> None:
    """The worker waits and tries the same rows again."""

    class Away(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.batches.append(list(texts))
            if len(self.batches) < 3:
                error = EmbedderUnavailable("503")
                error.retry_after = 0.01
                raise error
            return np.array([vector_of(value) for value in texts])

    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'a'), (2, 'b')")
    done = work(notes, Away())
    assert (done.written, done.failed) == (2, 0)
    check_vectors(notes)


def test_a_worker_that_lost_its_connection_goes_on(notes: Engine) -> None:
    """With another connection and the rows that it had."""

    class Killed(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if len(self.batches) in {1, 3}:
                run(
                    notes,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
            return super().embed_documents(texts)

    run(notes, "INSERT INTO notes (id, title) SELECT n, 'title ' || n FROM generate_series(1, 30) AS n")
    url = notes.url.render_as_string(hide_password=False)
    with connect(url, pin=True) as own:
        assert run_worker(own, column_of(notes), Killed(), QUICK).written == 30
    assert marked(notes) == []
    check_vectors(notes)


@pytest.mark.parametrize("listen", [True, False])
def test_a_watching_worker_embeds_what_comes(notes: Engine, listen: bool) -> None:
    """By NOTIFY, without the next look; by looking, where no notification comes."""
    stop, seen = threading.Event(), threading.Semaphore(0)

    def report(progress: EmbedProgress) -> None:
        if progress.written + progress.empty:
            seen.release()

    options = WorkerOptions(watch=True, listen=listen, poll=60 if listen else 0.05)
    arguments = (notes, column_of(notes), Letters(), options)
    worker = threading.Thread(target=run_worker, args=arguments, kwargs={"stop_event": stop, "progress": report})
    worker.start()
    try:
        for number in range(3):
            run(notes, "INSERT INTO notes (id, title) VALUES (:n, 'title')", n=number)
            while run(notes, "SELECT count(*) FROM notes WHERE embedding IS NULL") != [(0,)]:
                assert seen.acquire(timeout=30)
    finally:
        stop.set()
        worker.join(30)
    assert not worker.is_alive()
    check_vectors(notes)


def test_many_keys_and_hostile_names(engine: Engine) -> None:
    """Any primary key; a colon, quotes, a percent sign and braces in names and in the template."""
    table = Table(
        'no:tes "%s',
        MetaData(),
        Column("Größe:x", Text, primary_key=True),
        Column("day", Date, primary_key=True),
        Column("it's %(x)s :y", Text),
        Column("embedding", NumpyVector(DIMS, "vector")),
    )
    embed = Embed("{{a}} \\000 ü: {it's %(x)s :y} {day}", by="static")
    add_short(table.c.embedding, Short(4), embed=embed)
    table.create(engine)
    column = column_of(engine, 'no:tes "%s.embedding')
    assert column.embed == embed
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL DateStyle = 'German'")
        rows = [("a:b", "2.1.2026", "x"), ("ä", "3.1.2026", None)]
        insert = 'INSERT INTO "no:tes ""%%s" VALUES (%s, %s, %s)'
        for row in rows:
            connection.exec_driver_sql(insert, row)
    assert run_worker(engine, column, Letters(), QUICK).written == 2
    name = '"no:tes ""%s"'.replace(":", "\\:")
    (vectors,) = zip(*run(engine, f"SELECT embedding::float4[] FROM {name} ORDER BY day"), strict=True)
    texts = ["{a} \\000 ü: x 2026-01-02", "{a} \\000 ü:  2026-01-03"]
    assert list(vectors) == [vector_of(value).tolist() for value in texts]
    table.drop(engine)
    assert run(engine, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'zx%'") == [(0,)]


def test_a_partitioned_table_is_marked_as_a_whole(engine: Engine) -> None:
    """Rows written to a partition are the table's."""
    run(
        engine, f"CREATE TABLE parts (id int PRIMARY KEY, body text, embedding halfvec({DIMS})) PARTITION BY RANGE (id)"
    )
    run(engine, "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_embedding(connection, embedded_column(connection, "parts.embedding"), Embed("body", "static"))
        inside = embedded_column(connection, "parts_1.embedding")
        with pytest.raises(DBAPIError, match="is a partition"):
            install_embedding(connection, inside, Embed("body", "static"))
    run(engine, "INSERT INTO parts VALUES (1, 'a')")
    run(engine, "INSERT INTO parts_1 VALUES (2, 'b')")
    assert work(engine, name="parts.embedding").written == 2
    check_vectors(engine, "parts", "body")


def test_a_table_that_is_there(engine: Engine) -> None:
    """Its rows without a vector are marked, all on request; another model is refused; what was installed goes again."""
    run(engine, f"CREATE TABLE papers (id uuid PRIMARY KEY, body text, embedding vector({DIMS}))")
    run(engine, "INSERT INTO papers SELECT gen_random_uuid(), 'body ' || n FROM generate_series(1, 9) AS n")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def install(by: str = "static", *, everything: bool = False) -> int:
            column = embedded_column(connection, "papers.embedding")
            return install_embedding(connection, column, Embed("body", by), everything=everything)

        assert install() == 9
        assert work(engine, name="papers.embedding").written == 9
        check_vectors(engine, "papers", "body")
        assert install() == 0
        for everything in (False, True):
            with pytest.raises(DBAPIError, match="holds vectors of static, with which those of other:model"):
                install("other:model", everything=everything)
        assert embedded_column(connection, "papers.embedding").embed == Embed("body", "static")
        assert install("static?batch=8", everything=True) == 9
        run(engine, "UPDATE papers SET embedding = NULL")
        assert install("other:model") == 9
        column = embedded_column(connection, "papers.embedding")
        assert column.embed == Embed("body", "other:model")
        remove_embedding(connection, column)
        assert embedded_column(connection, "papers.embedding").embed is None
    assert marked(engine) == []
    run(engine, "UPDATE papers SET body = 'new'")
    assert marked(engine) == []
    with pytest.raises(MigrationError, match="no trigger marks the rows"):
        work(engine, name="papers.embedding")


def test_what_cannot_be_installed(engine: Engine) -> None:
    """A clear error, and nothing is left behind."""
    run(engine, f"CREATE TABLE a (id int, body text, embedding vector({DIMS}) NOT NULL)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def install(template: str, name: str = "a.embedding") -> None:
            install_embedding(connection, embedded_column(connection, name), Embed(template, "static"))

        with pytest.raises(MigrationError, match="has no primary key"):
            install("body")
        run(engine, "ALTER TABLE a ADD PRIMARY KEY (id)")
        with pytest.raises(DBAPIError, match="is NOT NULL"):
            install("body")
        run(engine, "ALTER TABLE a ALTER embedding DROP NOT NULL")
        with pytest.raises(DBAPIError, match="has no column nothing"):
            install("{body} {nothing}")
        with pytest.raises(MigrationError, match=r"expected a column of vector\(n\) or halfvec\(n\), got text"):
            install("body", "a.body")
        with pytest.raises(MigrationError, match="there is no table b"):
            install("body", "b.embedding")
        with pytest.raises(MigrationError, match="has no column c"):
            install("body", "a.c")
        install("body")
    narrow = Letters()
    narrow.dims = 7
    with pytest.raises(EmbedderError, match="expected vectors of 8 dimensions"):
        work(engine, narrow, "a.embedding")
    assert marked(engine) == []


@pytest.mark.parametrize(
    ("template", "by", "message"),
    [
        ("{title", "static", "columns in braces"),
        ("title}", "static", "columns in braces"),
        ("{{title}}}", "static", "columns in braces"),
        ("{}", "static", "columns in braces"),
        ("", "static", "without control characters"),
        ("a\0b", "static", "without control characters"),
        (3, "static", "without control characters"),
        ("title", " ", "Embed by"),
    ],
)
def test_templates_that_cannot_be(template: Any, by: str, message: str) -> None:
    """They are refused where they are declared."""
    with pytest.raises(DefinitionError, match=message):
        Embed(template, by)


def test_a_declaration_follows_its_table() -> None:
    """To a mixin's copies, to another MetaData; another kind of object is refused."""
    embed = Embed("title", "static")
    table = Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4), embed=embed))
    )
    copy = table.to_metadata(MetaData())
    assert table.c.e.info["pgmrl"].embed is copy.c.e.info["pgmrl"].embed is embed
    assert Matryoshka(8, Short(4), embed=embed).copy().embed is embed  # type: ignore[attr-defined]
    with pytest.raises(DefinitionError, match=r"expected Embed"):
        Matryoshka(8, Short(4), embed="title")  # type: ignore[arg-type]
    assert inspect(Note).columns.embedding.nullable


@pytest.fixture
def writer(notes: Engine) -> Iterator[str]:
    """A role that may write notes."""
    name = f"writer_{notes.url.database}"
    run(notes, f'CREATE ROLE "{name}"')
    run(notes, f'GRANT SELECT, INSERT, UPDATE ON notes TO "{name}"')
    yield name
    run(notes, f'DROP OWNED BY "{name}"')
    run(notes, f'DROP ROLE "{name}"')


def test_a_writer_needs_no_further_right(notes: Engine, writer: str) -> None:
    """Whoever may write the table marks its rows, reads no entry, and marks no row of another table."""
    run(notes, "CREATE TABLE secrets (id int PRIMARY KEY)")
    insert = "INSERT INTO pgmrl.embedding_queue (relation, embedding, key) VALUES (CAST(:t AS regclass), 'e', '{{1}}')"
    with notes.begin() as connection:
        connection.execute(text(f'SET LOCAL ROLE "{writer}"'))
        connection.execute(text("INSERT INTO notes (id, title) VALUES (1, 'a')"))
        connection.execute(text("UPDATE notes SET title = 'b'"))
        for statement, message in (
            ("SELECT key FROM pgmrl.embedding_queue", "permission denied"),
            ("DELETE FROM pgmrl.embedding_queue", "permission denied"),
            (insert.replace(":t", "'secrets'").replace("{{", "{").replace("}}", "}"), "row-level security"),
        ):
            with pytest.raises(DBAPIError, match=message), connection.begin_nested():
                connection.exec_driver_sql(statement)
        (status,) = embedding_status(connection)
        assert (status.stale, status.title) == (1, "public.notes.embedding")
    assert work(notes).written == 1


def test_row_level_security_hides_no_row_from_a_worker(notes: Engine, writer: str) -> None:
    """A role that does not see every row is refused: a hidden row would be taken for a deleted one."""
    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'a')")
    run(notes, "ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    run(notes, f'GRANT SELECT, UPDATE, DELETE ON pgmrl.embedding_queue TO "{writer}"')
    run(notes, f"ALTER ROLE \"{writer}\" LOGIN PASSWORD 'secret'")
    url = notes.url.set(username=writer, password="secret").render_as_string(hide_password=False)  # noqa: S106
    with connect(url, pin=True) as own, pytest.raises(MigrationError, match="row-level security may hide rows"):
        work(own)
    assert marked(notes) == ["1"]
    run(notes, "ALTER TABLE notes DISABLE ROW LEVEL SECURITY")
    with connect(url, pin=True) as own:
        assert work(own).written == 1


def test_a_worker_without_the_rights_is_told_which(notes: Engine, writer: str) -> None:
    """Before it takes anything."""
    run(notes, f"ALTER ROLE \"{writer}\" LOGIN PASSWORD 'secret'")
    url = notes.url.set(username=writer, password="secret").render_as_string(hide_password=False)  # noqa: S106
    for missing in ("SELECT, UPDATE, DELETE", "DELETE"):
        with (
            connect(url, pin=True) as own,
            pytest.raises(MigrationError, match=f"needs {missing} on .*: GRANT SELECT, "),
        ):
            work(own)
        run(notes, f'GRANT SELECT, UPDATE ON pgmrl.embedding_queue TO "{writer}"')


def test_parked_rows_are_for_who_may_read_the_table(notes: Engine, writer: str) -> None:
    """And for nobody else: what a model says of a row may quote it."""
    run(notes, "INSERT INTO notes (id, title) VALUES (1, 'bad')")
    work(notes)
    column = column_of(notes)
    with notes.begin() as connection:
        connection.execute(text(f'SET LOCAL ROLE "{writer}"'))
        assert parked_rows(connection, column) == [ParkedRow(("1",), 3, "ValueError: a bad word")]
    run(notes, f'REVOKE SELECT ON notes FROM "{writer}"')
    with notes.begin() as connection:
        connection.execute(text(f'SET LOCAL ROLE "{writer}"'))
        assert parked_rows(connection, column) == []


def test_no_operator_of_a_stranger_runs(engine: Engine) -> None:
    """One on the path fits `varchar` better than the server's own; triggers of the application see that path."""
    run(
        engine, f"CREATE TABLE odd (id varchar PRIMARY KEY, body text, embedding vector({DIMS})) PARTITION BY HASH (id)"
    )
    for part in range(2):
        run(engine, f"CREATE TABLE odd_{part} PARTITION OF odd FOR VALUES WITH (MODULUS 2, REMAINDER {part})")
    run(engine, "INSERT INTO odd SELECT n, 'body ' || n FROM generate_series(1, 20) AS n")
    run(engine, "CREATE FUNCTION strange(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'a stranger ran'; END $$")  # fmt: skip
    run(engine, "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = strange)")
    run(engine, "CREATE TABLE log (id text)")
    run(engine, "CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END $$")  # fmt: skip
    run(engine, "CREATE TRIGGER logged BEFORE UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION logged()")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_embedding(connection, column_of(engine, "odd.embedding"), Embed("body", by="static"))
    done = run_worker(engine, column_of(engine, "odd.embedding"), Letters(), QUICK)
    assert (done.written, done.failed) == (20, 0)
    rows = run(engine, "SELECT count(*), count(embedding), (SELECT count(*) FROM log) FROM odd")
    assert [tuple(row) for row in rows] == [(20, 20, 20)]
