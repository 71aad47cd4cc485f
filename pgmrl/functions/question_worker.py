"""A worker that answers questions asked in SQL, where their model is outside the database.

`pgmrl.ask_v1` spells a question in advisory locks, which this worker reads in pg_locks, and waits for the vector in
`pgmrl.questions`: one statement of any client, also in a transaction that is read-only. See sql/questions.sql.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from pgmrl import database
from pgmrl.database.function_sets import installed_markers
from pgmrl.database.job_log import log
from pgmrl.database.search_path import PINNED
from pgmrl.embedders import check_vectors
from pgmrl.errors import EmbedderError, MigrationError, PgmrlError
from pgmrl.functions.install import searched_column_in
from pgmrl.model.columns import attachment_of
from pgmrl.model.types import NumpyVector
from pgmrl.names import qualified
from pgmrl.reprs import printable, safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Column, Connection, Engine
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.embedders import Embedder
    from pgmrl.functions.searched_column import SearchedColumn
    from pgmrl.model.shortening import Definition

__all__ = ["QuestionProgress", "answer_questions"]

FIRST_LOCK: Final = 1_346_830_336  # as in sql/questions.sql
LONGEST_QUESTION: Final = 1000  # bytes
AGAIN: Final = 1.0  # seconds in which a question that was answered is not asked again: its asker is about to see it
TRIM_EVERY: Final = 100  # answers
LONGEST_PAUSE: Final = 60.0  # seconds between two attempts to connect
LOCK_PAUSE: Final = 1.0  # seconds between two attempts at the lock by which askers see a worker
ERROR_CHARACTERS: Final = 500
SHORT_WORD: Final = 3  # characters, which are in many a reason

_PRESENCE: Final = text(
    f"SELECT pg_try_advisory_lock_shared({FIRST_LOCK - 1}, "
    "pgmrl.question_channel_v1(to_regclass(:relation), :column, :model))"
)
# a lock tells its process, and a process whose it is: that role, or one that it may take, may read the vectors.
# One of a prepared transaction tells none.
_ASKED: Final = text(f"""
WITH asked AS MATERIALIZED (
    SELECT l.pid, array_agg(l.classid::bigint - {FIRST_LOCK} ORDER BY l.classid) AS places,
        array_agg(l.objid::bigint ORDER BY l.classid) AS pieces
    FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.pid IS NOT NULL
        AND l.classid::bigint BETWEEN {FIRST_LOCK} AND {FIRST_LOCK + 2 + LONGEST_QUESTION // 4}
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    GROUP BY l.pid
)
SELECT asked.places, asked.pieces
FROM asked CROSS JOIN LATERAL pg_stat_get_activity(asked.pid) AS s
WHERE asked.pieces[1]::bit(32) = pgmrl.question_channel_v1(to_regclass(:relation), :column, :model)::bit(32)
    AND EXISTS (
        SELECT FROM pg_attribute AS a CROSS JOIN pg_roles AS r
        WHERE a.attrelid = to_regclass(:relation) AND a.attname = :column
            AND pg_has_role(s.usesysid, r.oid, 'MEMBER')
            AND has_column_privilege(r.oid, a.attrelid, a.attnum, 'SELECT'))
""")
_STORE: Final = text("""
INSERT INTO pgmrl.questions (relation, full_column, model, digest, vector, error)
VALUES (to_regclass(:relation), :column, :model, :digest, :vector, :error)
ON CONFLICT (relation, full_column, model, digest) DO UPDATE
SET vector = EXCLUDED.vector, error = EXCLUDED.error, answered_at = clock_timestamp()
""")
_TRIM: Final = text("""
DELETE FROM pgmrl.questions
WHERE relation = to_regclass(:relation) AND full_column = :column AND model = :model AND answered_at < (
    SELECT q.answered_at FROM pgmrl.questions AS q
    WHERE q.relation = to_regclass(:relation) AND q.full_column = :column AND q.model = :model
    ORDER BY q.answered_at DESC OFFSET :keep - 1 LIMIT 1)
""")


@dataclass(frozen=True, slots=True)
class QuestionProgress:
    """What a worker has done so far.

    Attributes:
        answered: questions whose vector was stored.
        failed: questions to which the model gave none.
    """

    answered: int = 0
    failed: int = 0


def answer_questions(
    engine: Engine,
    column: InstrumentedAttribute[Any] | Column[Any],
    embedder: Embedder,
    *,
    model: str | None = None,
    poll: float = 0.05,
    keep: int = 10_000,
    stop_event: threading.Event | None = None,
    progress: Callable[[QuestionProgress], None] | None = None,
) -> QuestionProgress:
    """Answer the questions that `…_search_text` asks of a column, for ever.

    Several workers may do so for one column. A connection that is lost is made again.

    Args:
        engine: of the database, not through a pooler in transaction mode; its role reads the column and writes
            pgmrl.questions.
        column: a Matryoshka column, whose functions were installed with `model`.
        embedder: the column's model.
        model: what the functions call it; by default the embedder's name.
        poll: seconds between two looks.
        keep: the latest answers that are kept for the next time, at least.
        stop_event: set it to stop.
        progress: called after each answer.

    Returns:
        What was done.

    Raises:
        NotMigrated: as `database.require_schema`.
        EmbedderError: the model's vectors have other dimensions than the column.
        MigrationError: no functions of the column ask this model, or a number out of range.
    """
    if not 0 < poll <= 60 or keep < 1:
        raise MigrationError(f"expected a poll of at most 60 seconds and a keep of 1 or more, got {poll} and {keep}")
    definition = attachment_of(column).definition
    if embedder.dims != definition.dims:
        raise EmbedderError(
            f"expected vectors of {definition.dims} dimensions from {embedder.name}, got {embedder.dims}"
        )
    with engine.connect() as connection:
        database.require_schema(connection)
        searched = searched_column_in(connection, column)
        _check_functions(connection, searched, model or embedder.name)
    worker = _Worker(searched, definition, embedder, model or embedder.name, keep, progress)
    stop_event, failures = stop_event or threading.Event(), 0
    while not stop_event.is_set():
        before = worker.progress
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.detach()  # closed afterwards, with its lock and its path
                worker.run(connection, stop_event, poll)
        except DBAPIError as error:
            if not (isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated):
                raise
            failures = 1 if worker.progress != before else failures + 1
            log.warning("questions to %s: the connection was lost", searched.table)
            stop_event.wait(min(LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10)))
    return worker.progress


def _check_functions(connection: Connection, searched: SearchedColumn, model: str) -> None:
    """Whoever asks another model waits for nothing, and this worker would answer nobody."""
    place = (searched.schema, searched.table, searched.full_column)
    asked = {
        str(marker["model"])
        for _, marker in installed_markers(connection)
        if (marker["schema"], marker["table"], marker["column"]) == place and ":" in (marker["model"] or "")
    }
    if model not in asked:
        title = ".".join(place)
        got = f"those that ask {', '.join(sorted(asked))}" if asked else "none"
        raise MigrationError(
            f"expected functions of {title} that ask the model {safe_repr(model)}, got {got}: "
            f"`pgmrl functions install {title} --model {model}`"
        )


class _Worker:
    """See `answer_questions`."""

    def __init__(
        self,
        searched: SearchedColumn,
        definition: Definition,
        embedder: Embedder,
        model: str,
        keep: int,
        report: Callable[[QuestionProgress], None] | None,
    ) -> None:
        self.definition, self.embedder, self.keep, self.report = definition, embedder, keep, report
        self.place = {
            "relation": qualified(searched.schema, searched.table), "column": searched.full_column, "model": model,
        }  # fmt: skip
        vector = NumpyVector(definition.dims, "vector", searched.vector_schema)
        self.store = _STORE.bindparams(bindparam("vector", type_=vector))
        self.progress = QuestionProgress()
        self.untrimmed = TRIM_EVERY  # what an earlier worker left
        self.latest: dict[str, float] = {}  # when each question was answered

    def run(self, connection: Connection, stop_event: threading.Event, poll: float) -> None:
        """Answer what is asked, until told to stop."""
        database.execute_plain(connection, f"SET search_path = {PINNED}")
        while not connection.execute(_PRESENCE, self.place).scalar():
            log.warning("questions to %s: another session holds the worker's advisory lock", self.place["relation"])
            if stop_event.wait(LOCK_PAUSE):
                return
        while not stop_event.wait(poll):
            questions = self._new_questions(connection)
            if questions:
                self._answer(connection, questions)

    def _new_questions(self, connection: Connection) -> list[str]:
        now = time.monotonic()
        self.latest = {question: moment for question, moment in self.latest.items() if now - moment < AGAIN}
        rows = connection.execute(_ASKED, self.place).all()
        spelled = {_spelled(row.places, row.pieces) for row in rows}
        return sorted(question for question in spelled if question is not None and question not in self.latest)

    def _answer(self, connection: Connection, questions: Sequence[str]) -> None:
        values: list[dict[str, Any]] = []
        for question, answer in zip(questions, self._vectors(questions), strict=True):
            is_error = isinstance(answer, str)
            values.append({
                **self.place, "digest": hashlib.sha256(question.encode()).digest(),
                "vector": None if is_error else answer, "error": answer if is_error else None,
            })  # fmt: skip
        failed = sum(value["error"] is not None for value in values)
        connection.execute(self.store, values)
        self.latest |= dict.fromkeys(questions, time.monotonic())
        self.progress = QuestionProgress(self.progress.answered + len(values) - failed, self.progress.failed + failed)
        self.untrimmed += len(values)
        if self.untrimmed >= TRIM_EVERY:
            connection.execute(_TRIM, {**self.place, "keep": self.keep})
            self.untrimmed = 0
        if self.report is not None:
            self.report(self.progress)

    def _vectors(self, questions: Sequence[str]) -> list[Any]:
        """The vector of each question, or what is wrong with it."""
        try:
            vectors = check_vectors(self.embedder, self.embedder.embed_queries(questions), len(questions))
        except Exception as error:  # whatever a model raises
            if len(questions) > 1:  # which one, each alone says
                return [answer for question in questions for answer in self._vectors([question])]
            return [_reason(error, questions[0])]
        return [self._checked(*pair) for pair in zip(vectors, questions, strict=True)]

    def _checked(self, vector: Any, question: str) -> Any:
        try:
            return self.definition.query(vector, "the question's vector")
        except PgmrlError as error:
            return _reason(error, question)


def _reason(error: Exception, question: str) -> str:
    """Without the question, which whoever reads the vectors would see; and as the server takes it."""
    kind = "" if isinstance(error, PgmrlError) else f"{type(error).__name__}: "
    words = f"{kind}{error}"
    for quotation in (question, repr(question)[1:-1], json.dumps(question)[1:-1]):
        if len(quotation) > SHORT_WORD:
            words = words.replace(quotation, "…")
    return printable(words[:ERROR_CHARACTERS], keep="\n\t")[:ERROR_CHARACTERS] or "no reason was given"


def _spelled(places: Sequence[int], pieces: Sequence[int]) -> str | None:
    """The question that locks spell; None while there are only some of them, or where they are somebody else's.

    Args:
        places: their order, from 0.
        pieces: channel, bytes, begin of the digest, then four bytes each.
    """
    if list(places) != list(range(len(places))) or len(pieces) < 4:
        return None
    message = b"".join(piece.to_bytes(4, "big") for piece in pieces[3:])
    if not 0 <= len(message) - pieces[1] < 4:
        return None
    message = message[: pieces[1]]
    if hashlib.sha256(message).digest()[:4] != pieces[2].to_bytes(4, "big"):
        return None
    return message.decode("utf-8", "replace")
