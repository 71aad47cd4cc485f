"""Questions asked in one statement of SQL and answered by a worker that has the model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from pgmrl import Matryoshka, Short, SqlFunctions, database, local
from pgmrl.embedders import embed_query, load_embedder
from pgmrl.errors import EmbedderError, MigrationError, NotMigrated
from pgmrl.functions.install import install_functions
from pgmrl.functions.named_queries import add_query
from pgmrl.functions.question_worker import QuestionProgress, answer_questions
from tests.databases import connected
from tests.standbys import primary_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODEL = "static:l2_supercat_256"
TEXTS = ["a game with trains", "a database server", "a web server", "numbers for children", "a mail reader"]
SEARCH = "SELECT id FROM docs_search_text(:words, 3) ORDER BY rank"
HERE = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
LOCKS = f"SELECT count(*) FROM pg_locks WHERE {HERE} AND classid::bigint BETWEEN 1346830336 AND 1346840000"
SERVED = f"SELECT EXISTS (SELECT FROM pg_locks WHERE {HERE} AND classid = 1346830335 AND granted)"
END_WORKER = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {HERE} AND classid = 1346830335"


class Moody:
    """The bundled model, which refuses some questions and counts all."""

    name, dims, trained_dims = MODEL, 256, ()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """As the model."""
        return load_embedder("static").embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> Any:
        """As the model, or none."""
        self.asked.extend(texts)
        if "refused" in texts:
            raise RuntimeError("no such luck")
        if "secret words" in texts:
            raise RuntimeError("cannot read 'secret words' \ud83d\0")
        vectors = load_embedder("static").embed_queries(texts)
        return np.where([[words != "nothing"] for words in texts], vectors, 0)


@pytest.fixture
def docs(engine: Engine) -> Table:
    """A table of the bundled model, whose functions ask it as one outside the database."""
    return docs_in(engine)


def docs_in(engine: Engine) -> Table:
    """That table in a database with pgmrl's schema."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("body", Text),
        Column("embedding", Matryoshka(256, Short(64))),
    )
    vectors = load_embedder("static").embed_documents(TEXTS)
    with engine.begin() as connection:
        table.create(connection)
        rows = [{"id": n, "body": words, "embedding": vectors[n]} for n, words in enumerate(TEXTS)]
        connection.execute(table.insert(), rows)
        install_functions(connection, table.c.embedding, SqlFunctions(model=MODEL))
        # a machine may be busy
        connection.exec_driver_sql(f'ALTER DATABASE "{engine.url.database}" SET pgmrl.question_seconds = 60')
    engine.dispose()  # the setting is for new connections
    return table


def ask(connection: Any, words: str | None, statement: str = SEARCH) -> list[Any]:
    """The rows of a search."""
    return list(connection.execute(text(statement), {"words": words}).scalars())


def refusal(engine: Engine, words: str | None, *settings: str) -> tuple[str, str]:
    """SQLSTATE and message with which the server refuses a search."""
    with engine.connect() as connection:
        for setting in settings:
            connection.exec_driver_sql(setting)
        with pytest.raises(DBAPIError) as caught:
            ask(connection, words)
    error: Any = caught.value.orig
    return error.sqlstate, str(error)


@contextmanager
def worker(engine: Engine, docs: Table, embedder: Any = None, **options: Any) -> Iterator[threading.Thread]:
    """A worker in a thread, which answers from here on and has ended afterwards."""
    stop, errors = threading.Event(), []

    def work() -> None:
        try:
            model = embedder or load_embedder("static")
            answer_questions(engine, docs.c.embedding, model, model=MODEL, stop_event=stop, **options)
        except BaseException as error:  # which the test's own thread looks at
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(engine, SERVED)
        yield thread
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
        assert errors == []


def until(engine: Engine, condition: str) -> None:
    """Wait for a condition of the database's."""
    for _ in range(3000):
        with engine.connect() as connection:
            if connection.exec_driver_sql(condition).scalar():
                return
        time.sleep(0.02)
    pytest.fail(f"never true: {condition}")


def test_one_statement(engine: Engine, docs: Table) -> None:
    """A new question finds what its vector finds, in a read-only transaction; asked again, nobody is needed."""
    hostile = "it's $1 %s \\ \"日本\" 'trains'; --"
    longest = "train " * 166
    found = {}
    with worker(engine, docs), engine.connect() as connection:
        for words in ("game", hostile, longest, "né"):
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            found[words] = ask(connection, words)
            assert connection.exec_driver_sql(LOCKS).scalar() == 0  # although the transaction goes on
            vector = "[" + ",".join(map(str, embed_query(load_embedder("static"), words))) + "]"
            assert found[words] == ask(
                connection, vector, "SELECT id FROM docs_search((:words)::vector, 3) ORDER BY rank"
            )
            connection.rollback()
    with engine.connect() as connection:
        assert {words: ask(connection, words) for words in found} == found


def test_the_command(engine: Engine, docs: Table) -> None:
    """`pgmrl query serve` until SIGTERM."""
    assert docs is not None
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "pgmrl.cli", "query", "serve", "docs.embedding", "--embedder", MODEL, "--json"]
    environment = {**os.environ, "DATABASE_URL": url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        until(engine, SERVED)
        with engine.connect() as connection:
            assert len(ask(connection, "game")) == 3
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.communicate(timeout=60)[0]) == {"answered": 1, "failed": 0}


def test_many_askers(engine: Engine, docs: Table) -> None:
    """Each gets the answer to the own question, the same one the same."""
    embedder, answers = Moody(), {}
    questions = [f"number {n}" for n in range(6)] * 2

    def work(place: int) -> None:
        with engine.connect() as connection:
            answers[place] = ask(
                connection, questions[place], "SELECT distance FROM docs_search_text(:words, 3) ORDER BY rank"
            )

    with worker(engine, docs, embedder):
        threads = [threading.Thread(target=work, args=(place,)) for place in range(len(questions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(answers) == len(questions)
    assert all(answers[place] == answers[place + 6] for place in range(6))
    assert len({tuple(distances) for distances in answers.values()}) == 6
    assert set(embedder.asked) == set(questions)


def test_a_question_that_was_stored(engine: Engine, docs: Table) -> None:
    """By `pgmrl query add`, of the same model: no worker is needed."""
    with engine.begin() as connection:
        vector = embed_query(load_embedder("static"), "railway game")
        add_query(connection, docs.c.embedding, "r", vector, question="railway game", embedder=MODEL)
        add_query(connection, docs.c.embedding, "o", vector, question="other", embedder="static")
        assert ask(connection, "railway game", SEARCH)[0] == 0
    assert refusal(engine, "other")[0] == "55000"


def test_nobody_answers(engine: Engine, docs: Table) -> None:
    """At once, with the command that would; and bad questions."""
    assert docs is not None
    state, message = refusal(engine, "game")
    assert (state, "pgmrl query serve public.docs.embedding --embedder static:l2_supercat_256" in message) == (
        "55000",
        True,
    )
    assert refusal(engine, None)[0] == "22004"
    assert refusal(engine, " \n")[0] == "22023"
    assert refusal(engine, "é" * 501)[0] == "54000"


def test_a_model_that_gives_no_vector(engine: Engine, docs: Table) -> None:
    """Its reason arrives, others are answered, and the same question is asked again."""
    embedder = Moody()
    with worker(engine, docs, embedder):
        state, message = refusal(engine, "refused")
        assert (state, "RuntimeError: no such luck" in message) == ("38000", True)
        assert "zero" in refusal(engine, "nothing")[1]
        with engine.connect() as connection:
            assert len(ask(connection, "game")) == 3
        refusal(engine, "refused")
    assert embedder.asked.count("refused") >= 2


def test_an_answer_that_does_not_come(engine: Engine, docs: Table) -> None:
    """The time is bounded; a cancelled question leaves no lock; a snapshot that would not see it is refused."""
    with worker(engine, docs, poll=60):
        state, message = refusal(engine, "game", "SET pgmrl.question_seconds = 0.1")
        assert (state, "no answer within 0.1 seconds" in message) == ("57014", True)
        assert refusal(engine, "game", "SET statement_timeout = 100")[0] == "57014"
        assert refusal(engine, "game", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")[0] == "55000"
        with engine.connect() as connection:
            assert connection.exec_driver_sql(LOCKS).scalar() == 0


def test_who_may_ask(engine: Engine, docs: Table) -> None:
    """Whoever may read the vectors; of others the worker reads nothing, and they see no answer.

    The worker has the rights that docs/security.md says, and no more.
    """
    roles = {role: f"{role}_{engine.url.database}" for role in ("asker", "stranger", "answerer")}
    engines = {role: create_engine(engine.url.set(username=name), poolclass=NullPool) for role, name in roles.items()}
    with engine.begin() as connection:
        for name in roles.values():
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {roles['asker']}, {roles['answerer']}")
        connection.exec_driver_sql(f"GRANT INSERT, UPDATE, DELETE ON pgmrl.questions TO {roles['answerer']}")
    embedder = Moody()
    try:
        with worker(engines["answerer"], docs, embedder):
            with engines["asker"].connect() as connection:
                assert ask(connection, "game")[0] == 0
            assert refusal(engines["stranger"], "secret", "SET pgmrl.question_seconds = 0.3")[0] == "57014"
            with engines["stranger"].connect() as connection:
                assert connection.exec_driver_sql("SELECT count(*) FROM pgmrl.questions").scalar() == 0
        assert embedder.asked == ["game"]
    finally:
        with engine.begin() as connection:
            for name in roles.values():
                connection.exec_driver_sql(f"DROP OWNED BY {name}")
                connection.exec_driver_sql(f"DROP ROLE {name}")


def test_a_worker_whose_connection_is_lost(engine: Engine, docs: Table) -> None:
    """Takes another and goes on."""
    with worker(engine, docs), engine.connect() as connection:
        pid = connection.exec_driver_sql(SERVED.replace("EXISTS (SELECT", "(SELECT pid")).scalar()
        assert connection.exec_driver_sql(END_WORKER).scalar() is True
        until(engine, SERVED.replace("granted", f"pid <> {pid}"))
        assert len(ask(connection, "game")) == 3


def test_only_the_latest_are_kept(engine: Engine, docs: Table) -> None:
    """The first answer of a worker leaves of an earlier one's so many."""
    with worker(engine, docs), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for n in range(5):
            ask(connection, f"question {n}")
    with worker(engine, docs, keep=2), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        ask(connection, "the last")
        until(engine, "SELECT count(*) = 2 FROM pgmrl.questions")
        assert len(ask(connection, "the last")) == 3


def test_what_cannot_be_answered(engine: Engine, docs: Table) -> None:
    """Functions of another model, other dimensions, no schema: before anything is embedded."""
    model = load_embedder("static")
    with pytest.raises(MigrationError, match=r"ask the model 'static', got those that ask static:l2_supercat_256"):
        answer_questions(engine, docs.c.embedding, model, model="static")
    with pytest.raises(MigrationError, match="keep of 1 or more"):
        answer_questions(engine, docs.c.embedding, model, keep=0)
    narrow = Table("n", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with pytest.raises(EmbedderError, match="expected vectors of 8 dimensions"):
        answer_questions(engine, narrow.c.e, model)
    stopped = threading.Event()
    stopped.set()
    assert answer_questions(engine, docs.c.embedding, model, model=MODEL, stop_event=stopped) == QuestionProgress()
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA pgmrl CASCADE")
    with pytest.raises(NotMigrated):
        answer_questions(engine, docs.c.embedding, model, model=MODEL)


def test_a_reason_that_quotes_the_question(engine: Engine, docs: Table) -> None:
    """Others may read it: without the words; and what no text of the server can hold is written out."""
    with worker(engine, docs, Moody()):
        message = refusal(engine, "secret words")[1]
        assert "RuntimeError: cannot read '…' \\ud83d\\x00" in message
        assert refusal(engine, "refused")[0] == "38000"  # it goes on
    with engine.connect() as connection:
        errors = connection.exec_driver_sql("SELECT error FROM pgmrl.questions WHERE error IS NOT NULL").scalars().all()
    assert len(errors) == 2
    assert not [error for error in errors if "secret" in error]


def test_a_session_that_holds_the_workers_lock(engine: Engine, docs: Table) -> None:
    """Whoever can log in can: the worker tries again, and can be stopped meanwhile."""
    tries = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND strpos(query, 'advisory_lock_shared(1346830335') > 0"
    )
    stop = threading.Event()
    options: dict[str, Any] = {"model": MODEL, "stop_event": stop}
    thread = threading.Thread(
        target=answer_questions, args=(engine, docs.c.embedding, load_embedder("static")), kwargs=options, daemon=True
    )
    with engine.connect() as connection:
        channel = f"pgmrl.question_channel_v1('docs', 'embedding', '{MODEL}')"
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(1346830335, {channel})")
        thread.start()
        try:
            until(engine, tries)
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
    with worker(engine, docs), engine.connect() as connection:
        assert len(ask(connection, "game")) == 3


def test_a_prepared_transaction_is_not_answered() -> None:
    """It has no session, so that nobody knows who asks; and it would be asked for ever."""
    spelled = (
        "SELECT pg_advisory_xact_lock_shared(1346830336 + v.n, v.value) FROM (VALUES "
        f"(0, pgmrl.question_channel_v1('docs', 'embedding', '{MODEL}')), (1, 4), "
        "(2, ('x' || substr(encode(sha256('mine'), 'hex'), 1, 8))::bit(32)::integer), "
        "(3, ('x' || encode('mine', 'hex'))::bit(32)::integer)) AS v (n, value)"
    )
    with primary_server("prepared") as server:
        with connected(server.url("prepared")) as engine:
            with engine.begin() as connection:
                database.upgrade(connection)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("ALTER SYSTEM SET max_prepared_transactions = 2")
        folder = server.data_dir
        local.stop(folder)
        with local.start(folder, database="prepared") as again, connected(again.url("prepared")) as engine:
            docs, embedder = docs_in(engine), Moody()
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("CREATE ROLE stranger LOGIN")
                # the pool keeps a session's role, and the worker shares the pool
                for statement in ("SET ROLE stranger", "BEGIN", spelled, "PREPARE TRANSACTION 'asked'", "RESET ROLE"):
                    connection.exec_driver_sql(statement)
            with worker(engine, docs, embedder), engine.connect() as connection:
                for words in ("game", "trains"):  # each is seen in a look at all that is asked
                    assert len(ask(connection, words)) == 3
            assert embedder.asked == ["game", "trains"]
