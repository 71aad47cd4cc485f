"""Texts, models and keys that are not as they should be: a parked row or a clear error, never a stuck queue."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl.doctor import doctor
from pgmrl.embedding_queue import (
    WorkerOptions,
    embedded_column,
    install_embedding,
    parked_rows,
    run_worker,
)
from pgmrl.model.embed import Embed
from tests.cli import ok, run
from tests.letters import DIMS, Letters, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pgmrl.embedding_queue import EmbeddedColumn, EmbedProgress, ParkedRow

QUICK = WorkerOptions(batch=7, lease=5, pause=0.01, attempts=2, poll=0.05)
KEY = "sk-very-secret-0123456789"


def query(engine: Engine, statement: str, **parameters: Any) -> Any:
    """The rows of a statement in a transaction of its own."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else None


@pytest.fixture
def docs(engine: Engine) -> Engine:
    """An Engine on a database with the table `docs`, kept in step by `by` or the static model."""
    query(engine, f"CREATE TABLE docs (id int PRIMARY KEY, title text, body text, embedding vector({DIMS}))")
    install(engine)
    return engine


def install(engine: Engine, by: str = "static") -> EmbeddedColumn:
    """The triggers; the column with them."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        column = embedded_column(connection, "docs.embedding")
        install_embedding(connection, column, Embed("{title} {body}", by), everything=True)
        return embedded_column(connection, "docs.embedding")


def work(engine: Engine, model: Letters) -> tuple[EmbedProgress, list[ParkedRow]]:
    """What a worker did, and the rows that it parked."""
    with engine.connect() as connection:
        column = embedded_column(connection, "docs.embedding")
    done = run_worker(engine, column, model, QUICK)
    with engine.connect() as connection:
        return done, parked_rows(connection, column)


def test_an_error_that_no_text_of_the_server_can_hold(docs: Engine) -> None:
    """Half a surrogate pair, a NUL, a megabyte: the row is parked with what can be said of it."""

    class Odd(Letters):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if "odd " in texts:
                raise ValueError("no \0 vector of \ud83d " + "x" * 1_000_000)
            return super().embed_documents(texts)

    query(docs, "INSERT INTO docs (id, title) VALUES (1, 'odd'), (2, 'even')")
    done, (parked,) = work(docs, Odd())
    assert (done.written, parked.key) == (1, ("1",))
    assert parked.error.startswith("ValueError: no ")
    assert len(parked.error) <= 1_000


def test_ten_megabytes_of_text(docs: Engine) -> None:
    """It is parked without being sent to the worker, and holds up no other; the limit may be raised."""
    query(docs, "INSERT INTO docs (id, title) VALUES (1, repeat('long text ', 1000000)), (2, 'short')")
    done, (parked,) = work(docs, Letters())
    assert (done.written, parked.key) == (1, ("1",))
    assert parked.error == "expected a text of at most 1,000,000 bytes, got 10,000,001"


def test_any_character_of_a_text(docs: Engine) -> None:
    """What the server takes is embedded as it is: emoji, control characters, a byte order mark, percent signs."""
    texts = ["😀 \x01\x7f\ufeff", "%s %(x)s :y \\ \"'", "\u202e\u0301 é", "{title}"]
    for number, value in enumerate(texts):
        query(docs, "INSERT INTO docs (id, title, body) VALUES (:id, :title, 'b')", id=number, title=value)
    letters = Letters()
    assert work(docs, letters)[0].written == len(texts)
    rows = query(docs, "SELECT title, embedding::float4[] FROM docs ORDER BY id")
    assert [(title, vector) for title, vector in rows] == [(t, vector_of(f"{t} b").tolist()) for t in texts]
    with docs.connect() as connection, pytest.raises((DBAPIError, ValueError)):  # psycopg's own, or the server's
        connection.execute(text("INSERT INTO docs (id, title) VALUES (9, :title)"), {"title": "a\0b"})


def test_a_column_of_the_text_that_is_dropped(docs: Engine) -> None:
    """The server refuses it; with CASCADE it takes the trigger along, and the doctor says so."""
    with pytest.raises(DBAPIError, match="other objects depend on it"):
        query(docs, "ALTER TABLE docs DROP COLUMN body")
    query(docs, "ALTER TABLE docs DROP COLUMN body CASCADE")
    assert said(docs) == ["no trigger marks the rows whose text an UPDATE changes"]


def test_triggers_that_are_disabled(docs: Engine) -> None:
    """Nothing marks a row; the doctor says so."""
    assert said(docs) == []
    query(docs, "ALTER TABLE docs DISABLE TRIGGER ALL")
    assert said(docs) == ["the triggers that mark rows are disabled"]


def said(engine: Engine) -> list[str]:
    """What the doctor says of embeddings, without the numbers behind a colon."""
    with engine.connect() as connection:
        return [finding.message.partition(":")[0] for finding in doctor(connection, only=["embeddings"]).findings]


@contextmanager
def telltale() -> Iterator[str]:
    """A server that refuses every text but one and says with which key it was asked; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            answer: dict[str, Any] = {"data": [{"index": 0, "embedding": vector_of("a").tolist()}]}
            if texts != ["a"]:
                answer = {"error": {"message": f"{self.headers['Authorization']} may not embed this"}}
            content = json.dumps(answer).encode()
            self.send_response(200 if texts == ["a"] else 400)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_key_is_nowhere(
    place: Path, docs: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In no row of the queue, no output and no log, also where the server repeats it."""
    assert place.is_dir()
    caplog.set_level(logging.DEBUG)
    query(docs, "INSERT INTO docs (id, title) VALUES (1, 'b')")
    install(docs, "openai:m")
    with telltale() as url:
        for name, value in (("OPENAI_BASE_URL", url), ("OPENAI_API_KEY", KEY), ("NO_PROXY", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        results = [run("embed", "docs.embedding", "--attempts", "1", *more) for more in ([], ["--json", "--retry"])]
    shown = [ok("embed", "docs.embedding", "--parked"), ok("embed", "docs.embedding", "--parked", "--json")]
    assert all("***" in page for page in shown)
    ((rows,),) = query(docs, "SELECT json_agg(q)::text FROM pgmrl.embedding_queue AS q")
    everything = [*(result.output for result in results), *shown, rows, caplog.text]
    assert [KEY in page for page in everything] == [False] * len(everything)


def test_a_key_of_no_row(docs: Engine) -> None:
    """Whoever may write the table may mark what he likes: the worker goes on, and another shape is refused."""
    mark = "INSERT INTO pgmrl.embedding_queue (relation, embedding, key) VALUES ('docs', 'embedding', {})"
    for key in ("'{}'", "ARRAY[ARRAY['1']]"):
        with pytest.raises(DBAPIError, match="violates check constraint"):
            query(docs, mark.format(key))
    query(docs, "INSERT INTO docs (id, title) VALUES (1, 'a')")
    query(docs, mark.format("ARRAY['1', '1']"))
    query(docs, mark.format("ARRAY['no number']"))
    query(docs, "DELETE FROM pgmrl.embedding_queue WHERE key = ARRAY['1']")
    done, (parked,) = work(docs, Letters())
    assert (done.written, parked.key) == (0, ("no number",))
    assert query(docs, "SELECT count(*) FROM pgmrl.embedding_queue WHERE NOT parked") == [(0,)]
