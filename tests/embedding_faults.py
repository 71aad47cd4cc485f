"""Workers of `pgmrl embed` in a world of faults: killed, cut off from the database, with a model that answers badly.

A short run is a test; `python -m benchmarks.embed_faults` makes one of minutes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl import cli
from pgmrl.embedders.openai_http import OpenAIEmbedder
from pgmrl.embedding_queue import WorkerOptions, embedded_column, install_embedding, retry_parked, run_worker
from pgmrl.errors import PgmrlError
from pgmrl.model.embed import Embed
from tests.letters import DIMS, vector_of
from tests.migrations.processes import CONTEXT, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.process import BaseProcess

    from sqlalchemy import Engine

__all__ = ["FAULTS", "Outcome", "faulty_endpoint", "impatient", "under_faults"]

MODEL = "tests.embedding_faults:impatient"
ENDPOINT_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "NO_PROXY")
TIMEOUT = 2.0  # seconds that a worker waits for an answer; a good one takes longer than usual on a busy machine
FAULTS = ("late", "429", "503", "garbage", "cut", "not finite", "too few", "too many", "too short", "gone", "doubled")
"""What becomes of an answer; every other one has its vectors in another order than the texts."""

CHANGES = ("UPDATE letters SET body = :body WHERE id = :id", "DELETE FROM letters WHERE id = :id")


def impatient() -> OpenAIEmbedder:
    """The model of the server in the environment, with a short timeout."""
    return OpenAIEmbedder("letters", timeout=TIMEOUT, attempts=2)


@dataclass
class Endpoint:
    """A server of vectors.

    Attributes:
        share: of the answers that have a fault.
        answers: how many there were so far, by fault; None of those without.
    """

    share: float = 0.0
    answers: Counter[str | None] = field(default_factory=Counter)


def _content(fault: str | None, data: list[dict[str, Any]]) -> bytes:
    """An answer with a fault."""
    if fault == "garbage":
        return b"<html>\xff\x00</html>"
    extra = {"too many": len(data), "doubled": 0}.get(str(fault))  # of two vectors of a text, which is right?
    if extra is not None:
        data = [*data, {"index": extra, "embedding": vector_of("").tolist()}]
    elif fault == "not finite":
        data[0]["embedding"][3] = float("nan")
    elif fault == "too few":
        data = data[1:]
    elif fault == "too short":
        data = [item | {"embedding": item["embedding"][:3]} for item in data]
    content = json.dumps({"data": data}).encode()
    return content[: len(content) // 2] if fault == "cut" else content


@contextmanager
def faulty_endpoint(seed: int) -> Iterator[Endpoint]:
    """A server that speaks OpenAI's protocol, named in the environment of this process and its children."""
    state, random = Endpoint(), Random(seed)  # noqa: S311 - no secret

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            fault = random.choice(FAULTS) if random.random() < state.share else None
            state.answers[fault] += 1
            data = [{"index": n, "embedding": vector_of(value).tolist()} for n, value in enumerate(texts)]
            random.shuffle(data)
            if fault == "gone":
                return
            if fault == "late":
                time.sleep(TIMEOUT * 2)
            content = _content(fault, data)
            self.send_response(int(fault) if fault in {"429", "503"} else 200)
            if fault == "429":
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that did not wait for its answer."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    before = {name: os.environ.get(name) for name in ENDPOINT_VARIABLES}
    url = f"http://127.0.0.1:{server.server_port}/v1"
    os.environ.update({"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-secret", "NO_PROXY": "127.0.0.1"})
    try:
        yield state
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Outcome:
    """What happened, and whether anything is wrong.

    Attributes:
        seconds: that writers, workers and faults met for.
        kills: workers that were killed.
        kills_with_rows: of them, those that had rows in their hands.
        cut: connections to the server that were ended by it.
        commits: of the writers.
        answers: of the model's server, by fault.
        stored: vectors that were stored meanwhile, as a trigger of the table saw them.
        stored_wrong: of them, those of another text than the row had at that moment.
        parked: rows that were given up meanwhile, and tried again at the end.
        rows: at the end.
        rows_wrong: of them, those without the vector of their text.
        entries_left: in the queue.
    """

    seconds: float = 0.0
    kills: int = 0
    kills_with_rows: int = 0
    cut: int = 0
    commits: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    stored: int = 0
    stored_wrong: int = 0
    parked: int = 0
    rows: int = 0
    rows_wrong: int = 0
    entries_left: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def watch(url: str, lease: float, environment: Mapping[str, str]) -> None:
    """The command of a worker in a process of its own, for ever; one that ends with an error is started again.

    The environment is that of the server of processes, which an earlier test may have started.
    """
    os.environ.update(environment)
    options = ["--watch", "--lease", str(lease), "--batch", "20", "--poll", "0.5", "--embedder", MODEL]
    while True:
        with suppress(SystemExit, PgmrlError, DBAPIError):  # as at a start without a connection or a model
            cli.app(["embed", "letters.embedding", *options, "--database-url", url])


class _World:
    """See `under_faults`."""

    def __init__(self, engine: Engine, rows: int, seed: int) -> None:
        self.engine, self.rows, self.seed = engine, rows, seed
        self.url = engine.url.render_as_string(hide_password=False)
        self.over, self.lock, self.outcome = threading.Event(), threading.Lock(), Outcome()
        self.errors: list[BaseException] = []

    def query(self, statement: str, **parameters: Any) -> Any:
        """The rows of a statement in a transaction of its own, once more where its connection was ended."""
        for remaining in range(20, -1, -1):
            try:
                with self.engine.begin() as connection:
                    result = connection.execute(text(statement), parameters)
                    return result.all() if result.returns_rows else None
            except DBAPIError as error:
                if not (remaining and error.connection_invalidated):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def prepare(self) -> None:
        self.query(f"CREATE TABLE letters (id int PRIMARY KEY, body text, embedding vector({DIMS}))")
        self.query("CREATE TABLE stored (body text, embedding real[])")
        self.query(
            "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO stored VALUES (NEW.body, NEW.embedding::real[]); RETURN NULL; END $$"
        )
        self.query("CREATE TRIGGER seen AFTER UPDATE OF embedding ON letters FOR EACH ROW EXECUTE FUNCTION seen()")
        self.query("INSERT INTO letters SELECT n, 'row ' || n FROM generate_series(1, :rows) AS n", rows=self.rows)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            install_embedding(connection, embedded_column(connection, "letters.embedding"), Embed("body", MODEL))

    def write(self, seed: int) -> None:
        """An application: texts change, rows come and go, some have no text, some transactions are rolled back."""
        random, number = Random(f"{self.seed} {seed}"), 0  # noqa: S311
        insert = "INSERT INTO letters (id, body) VALUES (:id, :body) ON CONFLICT (id) DO UPDATE SET body = :body"
        try:
            while not self.over.wait(0.01 * random.random()):
                number += 1
                body = random.choice([f"{seed} {number}"] * 9 + [" ", None])
                statement = random.choice(
                    ["UPDATE letters SET body = :body WHERE id = :id", "DELETE FROM letters WHERE id = :id"]
                    + [insert] * 2
                )
                with suppress(DBAPIError), self.engine.connect() as connection:
                    connection.execute(text(statement), {"id": random.randrange(self.rows), "body": body})
                    if random.random() < 0.1:
                        connection.rollback()
                        continue
                    connection.commit()
                    with self.lock:
                        self.outcome.commits += 1
        except BaseException as error:
            self.errors.append(error)
            raise

    def cut(self, seconds: float) -> None:
        """End a connection of anybody's, again and again."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS a"
        )
        while not self.over.wait(seconds):
            with suppress(DBAPIError):
                self.outcome.cut += self.query(query)[0][0]

    def holds(self, pid: int | None) -> bool:
        names = self.query("SELECT DISTINCT worker FROM pgmrl.embedding_queue WHERE worker IS NOT NULL")
        return any(f":{pid}:" in name for (name,) in names)

    def stopped_with_rows(self, workers: list[BaseProcess]) -> int | None:
        """The place of a worker that has rows in its hands, stopped, so that it still has them when it is killed."""
        for place, worker in enumerate(workers):
            os.kill(int(worker.pid or 0), signal.SIGSTOP)
            if self.holds(worker.pid):
                return place + 1
            os.kill(int(worker.pid or 0), signal.SIGCONT)
        return None

    def kill(self, workers: list[BaseProcess], kills: int, seconds: float, lease: float) -> None:
        """Kill workers at random, each time with another in its place; every second one with rows in its hands."""
        random, began = Random(self.seed), time.monotonic()  # noqa: S311
        for number in range(kills):
            time.sleep(max(0.0, began + seconds * (number + random.random()) / kills - time.monotonic()))
            with_rows = number % 2 == 0
            place = until(partial(self.stopped_with_rows, workers), 300) - 1 if with_rows else number % len(workers)
            victim = workers[place]
            victim.kill()
            victim.join()
            self.outcome.kills += 1
            self.outcome.kills_with_rows += with_rows or self.holds(victim.pid)
            workers[place] = self.worker(lease)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        self.outcome.seconds = time.monotonic() - began

    def worker(self, lease: float) -> BaseProcess:
        environment = {name: os.environ[name] for name in ENDPOINT_VARIABLES}
        process = CONTEXT.Process(target=watch, args=(self.url, lease, environment), daemon=True)
        process.start()
        return process

    def finish(self) -> None:
        """What is left is embedded in peace; then every vector is compared with that of its row's text."""
        with self.engine.begin() as connection:
            column = embedded_column(connection, "letters.embedding")
            self.outcome.parked = retry_parked(connection, column)
        self.query("UPDATE pgmrl.embedding_queue SET due_at = now()")  # what the killed ones had is not waited for
        run_worker(self.engine, column, impatient(), WorkerOptions(lease=1))
        stored = self.query("SELECT body, embedding FROM stored")
        rows = self.query("SELECT body, embedding::real[] FROM letters")
        self.outcome.stored, self.outcome.rows = len(stored), len(rows)
        self.outcome.stored_wrong = sum(not _right(body, vector) for body, vector in stored)
        self.outcome.rows_wrong = sum(not _right(body, vector) for body, vector in rows)
        ((self.outcome.entries_left,),) = self.query("SELECT count(*) FROM pgmrl.embedding_queue")


def _right(body: str | None, vector: list[float] | None) -> bool:
    if not (body or "").strip() or vector is None:
        return vector is None and not (body or "").strip()
    expected = vector_of(str(body))
    return bool(np.allclose(vector, expected / np.linalg.norm(expected), rtol=1e-6))


def under_faults(
    url: str, seconds: float, kills: int, *, workers: int = 2, rows: int = 300, share: float = 0.3, seed: int = 1
) -> Outcome:
    """Workers beside two writers for some time, and every fault meanwhile.

    Args:
        url: of an empty database with pgmrl's schema.
        seconds: at least; kills that wait for a worker with rows may take longer.
        kills: how many workers are killed.
        workers: at once.
        rows: of the table at first.
        share: of the model's answers that have a fault.
        seed: of all that is random but the server's and the machine's pace.
    """
    engine, lease = create_engine(url), 1.0
    world = _World(engine, rows, seed)
    world.prepare()
    with faulty_endpoint(seed) as endpoint:
        endpoint.share = share
        processes = [world.worker(lease) for _ in range(workers)]
        threads = [threading.Thread(target=world.write, args=(number,)) for number in (1, 2)]
        threads.append(threading.Thread(target=world.cut, args=(min(2.0, seconds / 4),)))
        try:
            for thread in threads:
                thread.start()
            world.kill(processes, kills, seconds, lease)
        finally:
            world.over.set()
            for thread in threads:
                thread.join()
            for process in processes:
                process.kill()
                process.join()
            engine.dispose()
        endpoint.share = 0.0
        world.finish()
        world.outcome.answers = {str(fault): count for fault, count in sorted(endpoint.answers.items(), key=str)}
    engine.dispose()
    if world.errors:
        raise world.errors[0]
    return world.outcome
