"""Workers that are killed, beside others and beside writers: no row is lost, none has the vector of an older text."""

from __future__ import annotations

import threading
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, text

from pgmrl import cli
from pgmrl.embedding_queue import WorkerOptions, embedded_column, install_embedding, run_worker
from pgmrl.model.embed import Embed
from tests.letters import DIMS, SlowLetters, vector_of
from tests.migrations.processes import CONTEXT, until

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

ROWS, WRITES, KILLS = 300, 300, 4
MODEL = "tests.letters:SlowLetters"
HOLDERS = "SELECT worker, count(*) FROM pgmrl.embedding_queue WHERE worker IS NOT NULL GROUP BY 1"


def query(engine: Engine, statement: str, **parameters: Any) -> Any:
    """The rows of a statement in a transaction of its own."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else None


def watch(url: str) -> None:
    """The command of a worker in a process of its own, for ever."""
    options = ["--watch", "--lease", "1", "--batch", "20", "--embedder", MODEL, "--database-url", url]
    cli.app(["embed", "notes.embedding", *options])


def worker(url: str) -> BaseProcess:
    """A worker's process; it begins with everything imported."""
    process = CONTEXT.Process(target=watch, args=(url,), daemon=True)
    process.start()
    return process


def holds(engine: Engine, pid: int | None) -> bool:
    """Whether a process has rows of the queue."""
    return any(f":{pid}:" in name for name, _ in query(engine, HOLDERS))


def touched_until_held(engine: Engine, pid: int | None) -> bool:
    """Whether it has rows; more than the other worker can embed meanwhile are marked before."""
    query(engine, "UPDATE notes SET body = body || '!' WHERE id < 40")
    return holds(engine, pid)


def write(engine: Engine, seed: int) -> None:
    """An application: texts change, rows come and go, and some transactions are rolled back."""
    random = Random(seed)  # noqa: S311
    for number in range(WRITES):
        key = random.randrange(ROWS)
        with engine.connect() as connection:
            statement = random.choice(
                ["UPDATE notes SET body = :body WHERE id = :id", "DELETE FROM notes WHERE id = :id"]
                + ["INSERT INTO notes (id, body) VALUES (:id, :body) ON CONFLICT (id) DO UPDATE SET body = :body"] * 3
            )
            connection.execute(text(statement), {"id": key, "body": f"{seed} {number}"})
            if random.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()


def test_killed_workers_beside_writers(engine: Engine) -> None:
    """Two workers, one of which is killed again and again with rows in its hands, while two writers change texts."""
    query(engine, f"CREATE TABLE notes (id int PRIMARY KEY, body text, embedding halfvec({DIMS}))")
    query(engine, f"INSERT INTO notes SELECT n, 'row ' || n FROM generate_series(0, {ROWS - 1}) AS n")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        column = embedded_column(connection, "notes.embedding")
        assert install_embedding(connection, column, Embed("body", MODEL)) == ROWS
        column = embedded_column(connection, "notes.embedding")
    url = engine.url.render_as_string(hide_password=False)
    stop = threading.Event()
    steady = threading.Thread(
        target=run_worker,
        args=(engine, column, SlowLetters(), WorkerOptions(watch=True, batch=20, lease=1)),
        kwargs={"stop_event": stop},
    )
    writers = [threading.Thread(target=write, args=(engine, seed)) for seed in (1, 2)]
    killed = 0
    steady.start()
    try:
        for number in range(KILLS):
            process = worker(url)
            until(partial(touched_until_held, engine, process.pid))
            if number == 0:
                for writer in writers:
                    writer.start()
            process.kill()
            process.join()
            killed += holds(engine, process.pid)
    finally:
        stop.set()
        for thread in (steady, *writers):
            thread.join(60)
    assert killed  # or no row was in the hands of a worker that died, and nothing was tested
    run_worker(engine, column, SlowLetters(), WorkerOptions(lease=1))
    rows = query(engine, "SELECT body, embedding::vector::float4[] FROM notes")
    assert len(rows) > ROWS / 2
    assert [vector for _, vector in rows] == [vector_of(body).tolist() for body, _ in rows]
    assert query(engine, "SELECT count(*) FROM pgmrl.embedding_queue") == [(0,)]


def test_two_workers_do_not_do_the_same(engine: Engine) -> None:
    """Rows that one has are left to it: each text is embedded once."""
    query(engine, f"CREATE TABLE notes (id int PRIMARY KEY, body text, embedding halfvec({DIMS}))")
    query(engine, "INSERT INTO notes SELECT n, 'row ' || n FROM generate_series(1, 200) AS n")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        column = embedded_column(connection, "notes.embedding")
        install_embedding(connection, column, Embed("body", "static"))
        column = embedded_column(connection, "notes.embedding")
    models = [SlowLetters(), SlowLetters()]
    threads = [
        threading.Thread(target=run_worker, args=(engine, column, model, WorkerOptions(batch=10, lease=60)))
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    embedded = [value for model in models for batch in model.batches for value in batch]
    assert sorted(embedded) == sorted(f"row {n}" for n in range(1, 201))


def test_a_worker_that_is_told_to_stop_gives_its_rows_back(engine: Engine) -> None:
    """By SIGTERM: at once another one may take them."""
    query(engine, f"CREATE TABLE notes (id int PRIMARY KEY, body text, embedding halfvec({DIMS}))")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_embedding(connection, embedded_column(connection, "notes.embedding"), Embed("body", MODEL))
    process = worker(engine.url.render_as_string(hide_password=False))
    query(engine, "INSERT INTO notes SELECT n, 'row ' || n FROM generate_series(1, 2000) AS n")
    until(lambda: query(engine, HOLDERS))
    process.terminate()
    process.join(60)
    assert process.exitcode == 0
    assert query(engine, HOLDERS) == []
    ((left, tried),) = query(engine, "SELECT count(*), max(attempts) FROM pgmrl.embedding_queue")
    assert left > 0
    assert tried == 0
