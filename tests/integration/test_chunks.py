"""Chunks are in step with the texts they are cut out of: what stays keeps its row and its vector."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, ForeignKey, MetaData, Table, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Chunks, Embed, Short, VectorArray, add_chunks, database, matryoshka, search_groups
from pgmrl.doctor import doctor
from pgmrl.embedders import load_embedder
from pgmrl.embedders.chunker import Chunker
from pgmrl.embedding_queue import (
    ChunkTable,
    EmbedProgress,
    WorkerOptions,
    chunk_table,
    embedded_column,
    embedding_status,
    install_chunks,
    parked_rows,
    remove_chunks,
    run_chunk_worker,
    run_worker,
)
from pgmrl.errors import DefinitionError, EmbedderError, MigrationError
from tests.letters import DIMS, Letters, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUICK = WorkerOptions(batch=3, lease=5, pause=0.01, attempts=2, poll=0.05)


class Base(DeclarativeBase):
    """The models."""


class Essay(Base):
    """Long texts."""

    __tablename__ = "essays"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    body: Mapped[str | None]
    stars: Mapped[int] = mapped_column(server_default="0")


class Passage(Base):
    """What is searched."""

    __tablename__ = "passages"
    id: Mapped[int] = mapped_column(primary_key=True)
    essay_id: Mapped[int] = mapped_column(ForeignKey("essays.id", ondelete="CASCADE"), index=True)
    ordinal: Mapped[int]
    start: Mapped[int]
    stop: Mapped[int]
    text: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(4), embed=Embed("text", by="static"))


add_chunks(Passage, Chunks("{title}\n\n{body}", by="characters", size=20))


@pytest.fixture
def essays(engine: Engine) -> Engine:
    """An Engine on a database with essays and passages."""
    Base.metadata.create_all(engine)
    return engine


def run(engine: Engine, statement: str, **parameters: Any) -> Any:
    """The rows of a statement in a transaction of its own; its number of rows where it has none."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else result.rowcount


def table_of(engine: Engine, name: str = "passages") -> ChunkTable:
    """A table of chunks as the catalogue has it."""
    with engine.connect() as connection:
        table = chunk_table(connection, name)
    assert table is not None
    return table


def cut(engine: Engine, name: str = "passages", embedder: Any = None) -> EmbedProgress:
    """One worker, until no row is left."""
    return run_chunk_worker(engine, table_of(engine, name), embedder, QUICK)


def embed(engine: Engine) -> int:
    """Embed what is marked; how many chunks."""
    with engine.connect() as connection:
        column = embedded_column(connection, "passages.embedding")
    return run_worker(engine, column, Letters(), QUICK).written


def check_chunks(engine: Engine, *, vectors: bool = True) -> int:
    """Every chunk is its part of the text, in order, and no word is lost; how many chunks there are."""
    count = 0
    for key, value in run(engine, "SELECT id, concat(title, E'\\n\\n', body) FROM essays"):
        rows = run(
            engine,
            "SELECT ordinal, start, stop, text, CAST(embedding AS vector)::float4[] FROM passages "
            "WHERE essay_id = :key ORDER BY ordinal",
            key=key,
        )
        assert [row.ordinal for row in rows] == list(range(len(rows)))
        assert [row.text for row in rows] == [value[row.start : row.stop] for row in rows]
        assert "".join("".join(row.text for row in rows).split()) == "".join(value.split())
        assert all(0 < len(row.text) <= 20 for row in rows)
        for row in rows:
            assert not vectors or row.embedding == vector_of(row.text).tolist()
        count += len(rows)
    assert count == run(engine, "SELECT count(*) FROM passages")[0][0]
    return count


def test_texts_are_cut_and_kept(essays: Engine) -> None:
    """Only what changes is cut and embedded again; what goes leaves nothing behind."""
    body = "One sentence. Another one.\n\nA paragraph.\n\nTöne 🎈 and more."
    run(
        essays,
        "INSERT INTO essays (id, title, body) SELECT n, 'Title ' || n, :body FROM generate_series(1, 7) n",
        body=body,
    )
    run(essays, "INSERT INTO essays (id, title, body) VALUES (8, NULL, E' \\n'), (9, '', NULL)")
    assert (done := cut(essays)).written == 7
    assert done.empty == 2
    assert done.waiting == 0
    count = check_chunks(essays, vectors=False)
    assert embed(essays) == count == check_chunks(essays)
    run(essays, "UPDATE essays SET stars = 5, title = title")
    assert cut(essays).written == 0
    before = dict(run(essays, "SELECT text, id FROM passages WHERE essay_id = 3"))
    run(essays, "UPDATE essays SET body = 'Put before the rest.\n\n' || body WHERE id = 3")
    assert cut(essays).written == 1
    after = dict(run(essays, "SELECT text, id FROM passages WHERE essay_id = 3"))
    assert before.items() <= after.items()
    assert embed(essays) == 1  # of a paragraph that was put before the others, that one alone
    check_chunks(essays)
    run(essays, "UPDATE essays SET body = NULL, title = ' ' WHERE id = 4; DELETE FROM essays WHERE id = 5")
    assert cut(essays).empty == 1
    assert run(essays, "SELECT count(*) FROM passages WHERE essay_id IN (4, 5)") == [(0,)]
    check_chunks(essays)
    run(
        essays,
        "UPDATE essays SET body = CASE id WHEN 6 THEN 'x x x' ELSE repeat('same words\n\n', 9) END WHERE id > 5",
    )
    assert cut(essays).written == 4
    run(essays, "UPDATE essays SET body = repeat('same words\n\n', 4) WHERE id = 7")
    assert cut(essays).written == 1
    embed(essays)
    check_chunks(essays)


def test_a_text_that_changes_while_it_is_cut(essays: Engine) -> None:
    """Is cut again: what was made of the text of before is never stored."""

    class Racing(Letters):
        """Counts characters, and has the text changed meanwhile."""

        changes = 3

        def count_tokens(self, value: str) -> int:
            if self.changes and value:
                self.changes -= 1
                run(essays, "UPDATE essays SET body = 'change ' || :n WHERE id = 1", n=self.changes)
            return len(value)

    run(essays, "INSERT INTO essays (id, title, body) VALUES (1, 'a', 'b'), (2, 'c', 'd')")
    assert cut(essays, embedder=Racing()).written == 2
    assert check_chunks(essays, vectors=False) == 2
    assert run(essays, "SELECT text FROM passages WHERE essay_id = 1") == [("a\n\nchange 0",)]


def test_workers_race_writers(essays: Engine) -> None:
    """Two that cut and one that embeds, while texts change, come and go."""
    run(
        essays,
        "INSERT INTO essays (id, title, body) SELECT n, 'T' || n, 'one two. three' FROM generate_series(1, 12) n",
    )
    with essays.connect() as connection:
        column = embedded_column(connection, "passages.embedding")
    table, over, failures = table_of(essays), threading.Event(), list[BaseException]()
    options = WorkerOptions(batch=3, watch=True, lease=5, pause=0.01, poll=0.05)

    def watch(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    workers = [lambda: run_chunk_worker(essays, table, None, options, stop_event=over)] * 2
    workers.append(lambda: run_worker(essays, column, Letters(), options, stop_event=over))
    threads = [threading.Thread(target=watch, args=(work,)) for work in workers]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(3)
    for step in range(120):
        key = int(rng.integers(1, 13))
        value = " ".join(rng.choice(["alpha", "beta.", "gamma\n\n", "delta"], int(rng.integers(0, 12))))
        if step % 9 == 0:
            run(essays, "DELETE FROM essays WHERE id = :key", key=key)
        run(
            essays,
            "INSERT INTO essays (id, title, body) VALUES (:key, 'T', :value) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            key=key,
            value=value,
        )
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    cut(essays)
    embed(essays)
    check_chunks(essays)


def test_the_best_passage_of_each_document(essays: Engine) -> None:
    """A search groups by document, and says where in its text the passage stands."""
    run(
        essays,
        "INSERT INTO essays (id, body) VALUES (1, E'first words here\n\nsecond words go'), (2, 'third words here')",
    )
    cut(essays)
    embed(essays)
    statement = search_groups(
        select(Passage), Passage.embedding, vector_of("second words go"), by=Passage.essay_id, k=2
    )
    with Session(essays) as session:
        rows = session.execute(statement).all()
    assert [passage.essay_id for passage, _ in rows] == [1, 2]
    best = rows[0][0]
    assert (best.text, rows[0].distance) == ("second words go", pytest.approx(0, abs=1e-3))
    shown = "SELECT substr(concat(title, E'\\n\\n', body), :start + 1, :stop - :start) FROM essays WHERE id = 1"
    assert run(essays, shown, start=best.start, stop=best.stop) == [("second words go",)]


def test_names_as_they_come(engine: Engine) -> None:
    """Quotes, colons, percent signs and dots; a composite key, of types that are not text."""
    run(
        engine,
        'CREATE SCHEMA "a.b\'%s"; CREATE TABLE "a.b\'%s"."doc:um" ("k:1" date, "k""2" int, "te:xt}" text, '
        'PRIMARY KEY ("k:1", "k""2"));'
        'CREATE TABLE "a.b\'%s"."pas:sa%s" (id bigserial PRIMARY KEY, "o%s" int NOT NULL, "p:p" date NOT NULL, '
        "ordinal int NOT NULL, start int NOT NULL, stop int NOT NULL, text varchar NOT NULL, extra int DEFAULT 3, "
        'FOREIGN KEY ("p:p", "o%s") REFERENCES "a.b\'%s"."doc:um" ("k:1", "k""2") ON DELETE CASCADE ON UPDATE CASCADE, '
        'UNIQUE ("p:p", "o%s", ordinal) DEFERRABLE)'.replace(":", "\\:"),
    )
    chunks, others = (
        Table("pas:sa%s", MetaData(), *map(Column, ("ordinal", "start", "stop", "text")), schema="a.b'%s")
        for _ in range(2)
    )
    add_chunks(chunks, Chunks("te:xt", by="characters", size=9))
    with engine.connect() as connection, pytest.raises(DBAPIError, match='has no column "te:xt"'):
        chunks.dispatch.after_create(chunks, connection)
    chunks = others
    name = '"a.b\'%s"."doc:um"'.replace(":", "\\:")
    run(engine, f"""ALTER TABLE {name} RENAME "te\\:xt}}" TO "te\\:xt'%s" """)
    add_chunks(chunks, Chunks("te:xt'%s", by="characters", size=9))
    with engine.begin() as connection:
        chunks.dispatch.after_create(chunks, connection)
        table = connection.execute(text("SELECT chunks, embedding FROM pgmrl.chunk_tables")).one()
    run(engine, f"INSERT INTO {name} VALUES ('2020-02-01', 7, 'words and words')")
    # the name cannot be given on the command line, for it has a dot: the catalogue's rows say what it is
    assert (table.chunks, table.embedding) == ('"a.b\'%s"."pas:sa%s"', 'chunks in "a.b\'%s"."pas:sa%s"')
    run(engine, 'ALTER SCHEMA "a.b\'%s" RENAME TO "ab\'%s"')
    with engine.begin() as connection:
        chunks.schema = "ab'%s"
        chunks.dispatch.after_create(chunks, connection)
    assert cut(engine, "ab'%s.pas:sa%s").written == 1
    rows = run(engine, 'SELECT "o%s", ordinal, start, stop, text, extra FROM "ab\'%s"."pas\\:sa%s" ORDER BY id')
    assert rows == [(7, 0, 0, 9, "words and", 3), (7, 1, 10, 15, "words", 3)]
    run(engine, f'UPDATE {name} SET "te\\:xt\'%s" = \'more and words\', "k""2" = 8'.replace("a.b", "ab"))
    assert cut(engine, "ab'%s.pas:sa%s").written == 1
    rows = run(engine, 'SELECT "o%s", ordinal, start, text FROM "ab\'%s"."pas\\:sa%s" ORDER BY ordinal')
    assert rows == [(8, 0, 0, "more and"), (8, 1, 9, "words")]


DOCUMENTS = "CREATE TABLE documents (id int PRIMARY KEY, body text)"
COLUMNS = "ordinal int, start int, stop int, text text"
KEY = "document int NOT NULL REFERENCES documents ON DELETE CASCADE"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (f"id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {COLUMNS}", "refers to 0 tables as chunks"),
        (f"id serial PRIMARY KEY, {KEY.replace('NOT NULL', '')}, {COLUMNS}", "refers to 0 tables as chunks"),
        (f"id serial PRIMARY KEY, {KEY.replace('ON DELETE CASCADE', '')}, {COLUMNS}", "refers to 0 tables as chunks"),
        (f"id serial PRIMARY KEY, {KEY}, {KEY.replace('document ', 'other ')}, {COLUMNS}", "refers to 2 tables"),
        (
            f"id serial PRIMARY KEY, {KEY}, ordinal int, start real, stop int",
            "lacks the columns start integer, text text",
        ),
        (f"id serial PRIMARY KEY, {KEY}, {COLUMNS}, kind text NOT NULL", r"columns kind of \S+ are NOT NULL"),
        (f"{KEY}, {COLUMNS}, PRIMARY KEY (document, ordinal)", r"unique index \S+pieces_pkey of \S+ has a column"),
    ],
)
def test_what_cannot_hold_chunks_is_refused(engine: Engine, columns: str, message: str) -> None:
    """Before a trigger is installed, with the remedy."""
    run(engine, f"{DOCUMENTS}; CREATE TABLE pieces ({columns})")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(DBAPIError, match=message):
            install_chunks(connection, "pieces", Chunks("body", by="characters"))
        assert chunk_table(connection, "pieces") is None


def test_installed_removed_and_renamed(engine: Engine) -> None:
    """Existing rows are marked; the status counts them; removing the triggers forgets them, and the chunks stay."""
    run(engine, f"{DOCUMENTS}; CREATE TABLE pieces (id serial PRIMARY KEY, {KEY}, {COLUMNS})")
    run(engine, "INSERT INTO documents SELECT n, 'some words' FROM generate_series(1, 5) n")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert install_chunks(connection, "pieces", Chunks("body", by="characters", size=5)) == 5
        assert [(s.title, s.stale) for s in embedding_status(connection)] == [
            ("public.documents.chunks in public.pieces", 5)
        ]
        assert cut(engine, "pieces").written == 5
        assert install_chunks(connection, "pieces", Chunks("{body}!", by="characters", size=6, notify=False)) == 5
        assert cut(engine, "pieces").written == 5
        assert run(engine, "SELECT count(*) FROM pieces WHERE text = 'words!'") == [(5,)]
        with pytest.raises(DBAPIError, match=r"in use by the chunks of public\.documents"):
            database.downgrade(connection)
        run(engine, "UPDATE documents SET body = 'other'")
        run(engine, "ALTER TABLE pieces RENAME TO parts")
        assert chunk_table(connection, "parts") is None
        assert install_chunks(connection, "parts", Chunks("body", by="characters", size=5)) == 5
        assert [status.title for status in embedding_status(connection)] == ["public.documents.chunks in public.parts"]
        assert run(engine, "SELECT count(*) FROM pgmrl.embedding_queue") == [(5,)]
        table = table_of(engine, "parts")
        remove_chunks(connection, table)
        assert chunk_table(connection, "parts") is None
        assert run(engine, "SELECT count(*) FROM pgmrl.embedding_queue") == [(0,)]
        assert run(engine, "SELECT count(*) FROM parts") == [(10,)]
        with pytest.raises(MigrationError, match="there is no table"):
            chunk_table(connection, "nowhere")


def test_a_text_that_cannot_be_cut_is_parked(essays: Engine) -> None:
    """And holds up no other."""

    class Choosy(Letters):
        """Refuses a word."""

        def count_tokens(self, value: str) -> int:
            if "bad" in value:
                raise ValueError("a bad word")
            return len(value)

    run(
        essays, "INSERT INTO essays (id, body) VALUES (1, 'good'), (2, 'bad'), (3, :long), (4, 'fine')", long="x" * 3000
    )
    options = WorkerOptions(batch=4, lease=5, pause=0.01, attempts=2, max_bytes=2000)
    done = run_chunk_worker(essays, table_of(essays), Choosy(), options)
    assert (done.written, done.parked) == (2, 2)
    with essays.connect() as connection:
        errors = {row.key: row.error for row in parked_rows(connection, table_of(essays).parent)}
    assert errors == {("2",): "ValueError: a bad word", ("3",): "expected a text of at most 2,000 bytes, got 3,002"}


@pytest.fixture
def cutter(essays: Engine) -> Iterator[str]:
    """A role that has what a worker needs."""
    name = f"cutter_{essays.url.database}"
    run(essays, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'")
    run(essays, f'GRANT SELECT, UPDATE ON essays TO "{name}"')
    run(essays, f'GRANT SELECT, INSERT, UPDATE, DELETE ON passages TO "{name}"')
    run(essays, f'GRANT USAGE ON SEQUENCE passages_id_seq TO "{name}"')
    run(essays, f'GRANT SELECT, UPDATE, DELETE ON pgmrl.embedding_queue TO "{name}"')
    yield name
    run(essays, f'DROP OWNED BY "{name}"')
    run(essays, f'DROP ROLE "{name}"')


def test_hidden_chunks_are_refused(essays: Engine, cutter: str) -> None:
    """A worker that does not see all chunks would store them once more; another needs no further right."""
    run(essays, "INSERT INTO essays (id, body) VALUES (1, 'a text')")
    run(essays, "ALTER TABLE passages ENABLE ROW LEVEL SECURITY")
    url = essays.url.set(username=cutter, password="secret").render_as_string(hide_password=False)  # noqa: S106
    with (
        database.connect(url, pin=True) as own,
        pytest.raises(MigrationError, match="row-level security may hide rows"),
    ):
        cut(own)
    run(essays, "ALTER TABLE passages DISABLE ROW LEVEL SECURITY")
    with database.connect(url, pin=True) as own:
        assert cut(own).written == 1
    assert check_chunks(essays, vectors=False) == 1


def test_declared_anew_while_a_worker_runs(essays: Engine) -> None:
    """A worker that was started before does not cut by what was declared then."""
    table = table_of(essays)
    run(essays, "INSERT INTO essays (id, body) VALUES (1, 'some words')")
    with essays.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_chunks(connection, "passages", Chunks("body", by="characters", size=5))
        with pytest.raises(MigrationError, match="are cut by another declaration"):
            run_chunk_worker(essays, table, None, QUICK)
        assert cut(essays).written == 1
        assert run(essays, "SELECT text FROM passages ORDER BY ordinal") == [("some",), ("words",)]
        remove_chunks(connection, table)
        with pytest.raises(MigrationError, match="are cut by no declaration"):
            run_chunk_worker(essays, table, None, QUICK)


def test_declarations_that_cannot_be() -> None:
    """Named before anything is created."""
    for arguments in ({"size": 0}, {"overlap": 256}, {"overlap": -1}, {"by": ""}, {"template": "{"}, {"size": 10**7}):
        with pytest.raises(DefinitionError):
            Chunks(**({"template": "{title}", "by": "static"} | arguments))
    with pytest.raises(DefinitionError, match="expected the columns ordinal"):
        add_chunks(Essay, Chunks("title", by="static"))
    with pytest.raises(DefinitionError, match="declared already"):
        add_chunks(Passage, Chunks("title", by="static"))
    with pytest.raises(DefinitionError, match="expected a mapped class"):
        add_chunks("passages", Chunks("title", by="static"))  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"expected Chunks"):
        add_chunks(Passage, "title")  # type: ignore[arg-type]


def test_a_model_without_tokens_is_refused(essays: Engine) -> None:
    """Characters are the remedy."""
    with pytest.raises(EmbedderError, match="letters does not count its tokens"):
        cut(essays, embedder=Letters())


def _tokens(values: Sequence[str]) -> list[int]:
    count: Any = load_embedder("static")
    return [count.count_tokens(value) for value in values]


def test_sizes_are_the_models_tokens() -> None:
    """At most the size, and an overlap of at most its own."""
    value = "\n\n".join(f"Sentence {n} here. And another one, {n}!" for n in range(30))
    chunks = Chunker(40, 15, load_embedder("static")).chunks(value)
    assert all(value[chunk.start : chunk.stop] == chunk.text for chunk in chunks)
    assert max(_tokens([chunk.text for chunk in chunks])) <= 40
    shared = [value[b.start : a.stop] for a, b in pairwise(chunks) if b.start < a.stop]
    assert shared
    assert max(_tokens(shared)) <= 15
    assert Chunker(9).chunks(" \n") == []


def test_a_text_that_another_trigger_changes_is_marked(essays: Engine) -> None:
    """UPDATEs that name the text are looked at; every one where a BEFORE trigger may change it besides."""
    named = text(
        "SELECT a.attname FROM pg_trigger AS g JOIN pg_attribute AS a ON a.attrelid = g.tgrelid "
        "AND a.attnum = ANY (g.tgattr::int2[]) "
        "WHERE g.tgrelid = 'essays'::regclass AND g.tgname LIKE 'zw%\\_u' ORDER BY 1"
    )
    with essays.connect() as connection:
        assert connection.execute(named).scalars().all() == ["body", "id", "title"]
    run(essays, "INSERT INTO essays (id, body) VALUES (1, 'First. Second.')")
    run_chunk_worker(essays, table_of(essays), None, QUICK)
    run(essays, "CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN NEW.body := 'rewritten ' || NEW.stars; RETURN NEW; END $$")  # fmt: skip
    run(essays, "CREATE TRIGGER rewrite BEFORE UPDATE ON essays FOR EACH ROW EXECUTE FUNCTION rewrite()")
    with essays.connect() as connection:
        messages = {finding.message: finding.remedy for finding in doctor(connection, only=["embeddings"]).findings}
    (remedy,) = [remedy for message, remedy in messages.items() if "the trigger rewrite may change the text" in message]
    assert "`pgmrl chunk public.passages --install …`, which marks every row" in remedy
    with essays.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_chunks(connection, "passages", Chunks("{title}\n\n{body}", by="characters", size=20))
    with essays.connect() as connection:
        assert connection.execute(named).scalars().all() == []
    run_chunk_worker(essays, table_of(essays), None, QUICK)
    run(essays, "UPDATE essays SET stars = 7")
    run_chunk_worker(essays, table_of(essays), None, QUICK)
    assert run(essays, "SELECT text FROM passages") == [("rewritten 7",)]


def test_what_a_strangers_trigger_says(essays: Engine) -> None:
    """It names what it likes, and calls the function of others: theirs stays; and a closed schema closes no view."""
    stranger = f"stranger_{essays.url.database}"
    cut_again = Chunks("{title}\n\n{body}", by="characters", size=20)
    run(essays, "CREATE TABLE more (id bigserial PRIMARY KEY, essay_id int NOT NULL REFERENCES essays "
                "ON DELETE CASCADE, ordinal int, start int, stop int, text text)")  # fmt: skip
    run(essays, f"CREATE ROLE {stranger}")
    try:
        run(essays, f"CREATE SCHEMA closed AUTHORIZATION {stranger}")
        with essays.begin() as connection:
            function = connection.exec_driver_sql("SELECT function FROM pgmrl.chunk_tables").scalar()
            connection.exec_driver_sql(f"SET LOCAL ROLE {stranger}")
            connection.exec_driver_sql("CREATE TABLE closed.evil (id int)")
            connection.exec_driver_sql(
                f"CREATE TRIGGER evil AFTER INSERT ON closed.evil FOR EACH ROW EXECUTE FUNCTION {function}".replace(
                    "()", "('public', 'more', '{id}', 'characters', '9', '0', '')"
                )
            )
        with essays.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            install_chunks(connection, "more", cut_again)
        kept = "SELECT chunk_schema, chunk_table FROM pgmrl.chunk_tables ORDER BY 2"
        assert run(essays, kept) == [("public", "more"), ("public", "passages")]
        with essays.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            remove_chunks(connection, table_of(essays, "more"))
        assert run(essays, kept) == [("public", "passages")]
        run(essays, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        with essays.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {stranger}")
            assert connection.exec_driver_sql(
                "SELECT chunk_table FROM pgmrl.chunk_tables WHERE chunks IS NOT NULL"
            ).scalars().all() == ["passages"]
    finally:
        run(essays, f"DROP OWNED BY {stranger}")
        run(essays, f"DROP ROLE {stranger}")
