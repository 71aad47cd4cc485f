"""One worker: takes marked rows, embeds their texts, stores the vectors; once, or for ever."""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from pgmrl.database.connection import execute_plain, psycopg_connection, sqlstate
from pgmrl.database.job_log import log
from pgmrl.embedders import check_vectors
from pgmrl.embedding_queue.embedded_column import check_model
from pgmrl.embedding_queue.queue_entries import Entry, QueueEntries, Reinstalled, RowText
from pgmrl.errors import EmbedderError, EmbedderUnavailable, MigrationError, PgmrlError
from pgmrl.model.argument_types import whole_number
from pgmrl.online.jobs import is_retryable, transaction
from pgmrl.online.preconditions import check_sees_all_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, Engine

    from pgmrl.embedders import Embedder
    from pgmrl.embedding_queue.embedded_column import EmbeddedColumn

__all__ = ["EmbedProgress", "QueueWorker", "WorkerOptions", "run_worker"]

Answer = TypeVar("Answer")
Item = TypeVar("Item", bound="Entry | RowText")

CHANNEL: Final = "pgmrl_embed"
LOOK: Final = 0.5  # seconds after which a worker that waits looks whether it is to stop
LONGEST_WAIT: Final = 60.0  # seconds between two attempts at a model or a server that does not answer
ATTEMPTS_ONCE: Final = 6  # at a model or a server that does not answer, unless the worker is to watch
MARGIN: Final = 10  # times the seconds of the last batch: a lease


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker goes about it.

    Attributes:
        batch: rows that are taken, embedded and stored together.
        watch: whether it goes on when no row is left.
        poll: seconds between two looks, where no notification comes.
        listen: whether it is woken by NOTIFY; not through a pooler in transaction mode.
        lease: seconds after which the rows of a worker that died are taken by others; more where a batch takes long.
        attempts: after which a row is parked.
        pause: seconds before a row's second attempt; twice as long before each later one, an hour at most.
        max_bytes: a longer text is parked.

    Raises:
        MigrationError: a number out of range.
    """

    batch: int = 128
    watch: bool = False
    poll: float = 5.0
    listen: bool = True
    lease: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        for name, most in (("batch", 10_000), ("attempts", 1_000), ("max_bytes", 100_000_000)):
            if whole_number(name, getattr(self, name), MigrationError, 1) > most:
                raise MigrationError(f"{name}: expected at most {most:,}, got {getattr(self, name):,}")
        for name in ("poll", "lease", "pause"):
            if not 0 < getattr(self, name) <= 86_400:
                raise MigrationError(f"{name}: expected seconds above 0, at most a day, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class EmbedProgress:
    """What a worker has done so far.

    Attributes:
        written: vectors stored.
        empty: rows without a text, whose vector is NULL now.
        failed: attempts at a row that failed.
        parked: rows that are not tried again.
        waiting: entries of the queue that are left, of all workers; rows may have several.
    """

    written: int = 0
    empty: int = 0
    failed: int = 0
    parked: int = 0
    waiting: int = 0


class _RowsError(Exception):
    """Some of these rows cannot be embedded or stored; which one, a smaller batch says."""


def run_worker(
    engine: Engine,
    column: EmbeddedColumn,
    embedder: Embedder,
    options: WorkerOptions | None = None,
    *,
    stop_event: threading.Event | None = None,
    progress: Callable[[EmbedProgress], None] | None = None,
) -> EmbedProgress:
    """Embed the rows that are marked: until none is left, or for ever.

    A row whose text cannot be embedded is tried again, later and later, and then parked with its error. A model or a
    server that does not answer costs no row an attempt: the worker waits.

    Args:
        engine: of the database, with psycopg; one connection is used, and another after that is lost.
        column: with its text.
        embedder: the column's model.
        options: how to go about it.
        stop_event: set it to stop after the batch at hand.
        progress: called after each batch.

    Returns:
        What was done; rows that were marked before are embedded, or parked, unless it was stopped.

    Raises:
        EmbedderError: another model than the one that the triggers name, as far as its name says; vectors of other
            dimensions than the column's; or, unless it watches, a server that does not answer.
        MigrationError: no trigger marks the rows, they name another text or model than `column` does, also when that
            is installed meanwhile, or row-level security hides rows from this role.
    """
    check_model(column.title, None if column.embed is None else column.embed.by, embedder.name)
    if embedder.dims != column.dims:
        raise EmbedderError(
            f"expected vectors of {column.dims} dimensions, as {column.title} has, from {embedder.name}, "
            f"got {embedder.dims}"
        )
    options = options or WorkerOptions()
    queue = QueueEntries(column, options.attempts, options.pause)

    def vectors(texts: list[str]) -> Iterable[Any]:
        return check_vectors(embedder, embedder.embed_documents(texts), len(texts))

    return QueueWorker(queue, vectors, options, stop_event or threading.Event(), progress).run_on(engine)


class QueueWorker:
    """What takes marked rows, makes something of their texts and stores it.

    Args:
        queue: reads the texts, and stores what is made of them.
        make: something of each text, such as its vector.
        options: as of `run_worker`, and so the others.
        stop_event: set it to stop after the batch at hand.
        report: called after each batch.
    """

    def __init__(
        self,
        queue: QueueEntries,
        make: Callable[[list[str]], Iterable[Any]],
        options: WorkerOptions,
        stop_event: threading.Event,
        report: Callable[[EmbedProgress], None] | None,
    ) -> None:
        self.queue = queue
        self.make = make
        self.options = options
        self.stop_event = stop_event
        self.report = report
        self.progress = EmbedProgress()
        self.seconds = 0.0  # of the last batch
        self.notified = False
        self.connection: Connection

    def run_on(self, engine: Engine) -> EmbedProgress:
        """Work on a connection, and on another after that is lost; what was done in the end."""
        failures = 0
        while True:
            before = self.progress
            try:
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    self.run(connection)
                return self.progress
            except (DBAPIError, psycopg.OperationalError) as error:
                lost = isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError)
                if not (lost or (isinstance(error, DBAPIError) and error.connection_invalidated)):
                    raise
                failures = 1 if self.progress != before else failures + 1
                if failures >= ATTEMPTS_ONCE and not self.options.watch:
                    raise
                log.warning("%s: the connection was lost", self.queue.column.title)
                if self.stop_event.wait(min(LONGEST_WAIT, 0.1 * 2**failures)):
                    return self.progress

    def run(self, connection: Connection) -> None:
        """Work until there is nothing left to do, or until told to stop."""
        self.connection, self.notified = connection, False
        check_sees_all_rows(connection, self.queue.column.owner)  # a hidden row would be taken for a deleted one
        self.queue.check_rights(connection)
        if self.options.listen:
            driver = psycopg_connection(connection, "a worker")
            driver.add_notify_handler(self._notify)
            execute_plain(connection, f"LISTEN {CHANNEL}")
        self._in_transaction(self._prepare)
        try:
            self._work()
        finally:
            with suppress(SQLAlchemyError, psycopg.Error):
                self._in_transaction(lambda: self.queue.release(connection))
                if self.options.listen:
                    driver.remove_notify_handler(self._notify)
                    execute_plain(connection, f"UNLISTEN {CHANNEL}")

    def _prepare(self) -> None:
        self.queue.check_installed(self.connection)
        self.queue.forget_dropped(self.connection)
        self.queue.release(self.connection)  # what it had when a connection was lost

    def _work(self) -> None:
        unavailable = 0
        while not self.stop_event.is_set():
            self.notified = False
            entries = self._in_transaction(self._take)
            if not entries:
                if self._is_over():
                    return
                continue
            began = time.monotonic()
            try:
                self._by_halves(self._without_lost(entries), self._embed_entries)
                unavailable, self.seconds = 0, time.monotonic() - began
            except EmbedderUnavailable as error:
                unavailable += 1
                self._in_transaction(lambda: self.queue.release(self.connection))
                if unavailable >= ATTEMPTS_ONCE and not self.options.watch:
                    raise
                pause = min(LONGEST_WAIT, max(error.retry_after or 0, 0.5 * 2 ** min(unavailable, 10)))
                log.warning("%s: %s; again in %.1f s", self.queue.column.title, error, pause)
                self.stop_event.wait(pause)
            self._count()

    def _is_over(self) -> bool:
        """Whether no row is left; one that waits for another attempt is, and one that another worker has."""
        waiting, seconds = self._in_transaction(lambda: self.queue.waiting(self.connection))
        self._count(waiting=waiting)
        if not (self.options.watch or waiting):
            return True
        self._wait(min(self.options.poll, max(seconds, 0.05)) if waiting else self.options.poll)
        return False

    def _take(self) -> list[Entry]:
        lease = max(self.options.lease, MARGIN * self.seconds)
        return self.queue.take(self.connection, self.options.batch, lease)

    # -- a batch ---------------------------------------------------------------------------------------------------

    def _without_lost(self, entries: list[Entry]) -> list[Entry]:
        """Park what was taken too often by workers that came to no end with it: it may be what ends them."""
        lost = [entry for entry in entries if entry.attempts > self.options.attempts]
        for entry in lost:
            error = entry.error or f"taken {entry.attempts - 1} times by workers that came to no end with it"
            self._fail(entry, error, park=True)
        return [entry for entry in entries if entry not in lost]

    def _embed_entries(self, entries: Sequence[Entry]) -> None:
        rows, gone = self._of_rows(lambda: self.queue.read(self.connection, entries, self.options.max_bytes))
        self._in_transaction(lambda: self.queue.finish(self.connection, gone))
        for row in rows:
            if row.size > self.options.max_bytes:
                error = f"expected a text of at most {self.options.max_bytes:,} bytes, got {row.size:,}"
                self._fail(row.entry, error, park=True)
        self._by_halves([row for row in rows if row.size <= self.options.max_bytes], self._embed_rows)

    def _embed_rows(self, rows: Sequence[RowText]) -> None:
        vectors = self._vectors(rows)

        def store() -> list[Entry]:
            stored = self.queue.store(self.connection, rows, vectors)
            self.queue.finish(self.connection, stored)
            self.queue.postpone(self.connection, [row.entry for row in rows if row.entry not in stored])
            return stored

        stored = {entry.key for entry in self._of_rows(store)}
        empty = sum(row.text is None for row in rows if row.entry.key in stored)
        self._count(written=len(stored) - empty, empty=empty)

    def _by_halves(self, items: Sequence[Item], step: Callable[[Sequence[Item]], None]) -> None:
        """A step for entries or rows; where one of them makes it fail, for each half, down to the one to blame."""
        if not items or self.stop_event.is_set():
            return
        try:
            step(items)
        except _RowsError as error:
            if len(items) == 1:
                item = items[0]
                self._fail(item if isinstance(item, Entry) else item.entry, str(error))
                return
            middle = len(items) // 2
            self._by_halves(items[:middle], step)
            self._by_halves(items[middle:], step)

    def _vectors(self, rows: Sequence[RowText]) -> list[Any]:
        """What is made of the rows' texts, None of a row without one."""
        texts = [row.text for row in rows if row.text is not None]
        if not texts:
            return [None] * len(rows)
        try:
            vectors = iter(self.make(texts))
        except EmbedderUnavailable:
            raise
        except Exception as error:  # whatever a model raises
            kind = "" if isinstance(error, PgmrlError) else f"{type(error).__name__}: "
            raise _RowsError(f"{kind}{error}") from error
        return [None if row.text is None else next(vectors) for row in rows]

    def _of_rows(self, step: Callable[[], Answer]) -> Answer:
        """A step that the server may refuse because of a row: a CHECK, a trigger, a value out of range."""
        try:
            return self._in_transaction(step)
        except Reinstalled:
            raise
        except PgmrlError as error:
            raise _RowsError(str(error)) from error
        except DBAPIError as error:
            if error.connection_invalidated or (sqlstate(error) or "")[:2] not in {"22", "23", "54", "P0"}:
                raise
            raise _RowsError(str(error.orig).strip()) from error

    def _fail(self, entry: Entry, error: str, *, park: bool = False) -> None:
        parked = self._in_transaction(lambda: self.queue.fail(self.connection, entry, error, park=park))
        self._count(failed=1, parked=int(parked))

    def _count(self, waiting: int | None = None, **more: int) -> None:
        before = self.progress
        changes = {name: getattr(before, name) + number for name, number in more.items()}
        self.progress = replace(before, **changes, waiting=before.waiting if waiting is None else waiting)
        if self.report is not None:
            self.report(self.progress)

    # -- transactions and waiting ----------------------------------------------------------------------------------

    def _in_transaction(self, step: Callable[[], Answer]) -> Answer:
        """A step in a short transaction, once more where it met another one."""
        for remaining in range(9, -1, -1):
            try:
                with transaction(self.connection):
                    return step()
            except DBAPIError as error:
                if not remaining or not is_retryable(error):
                    raise
                time.sleep(0.05)
        raise AssertionError("the last attempt returns or raises")

    def _notify(self, _notification: psycopg.Notify) -> None:
        self.notified = True

    def _wait(self, seconds: float) -> None:
        """Until a row is marked, as far as the server says so, or it is to stop."""
        if not self.options.listen:
            self.stop_event.wait(seconds)
            return
        connection = psycopg_connection(self.connection, "a worker").pgconn
        end = time.monotonic() + seconds
        while not (self.notified or self.stop_event.is_set()) and (remaining := end - time.monotonic()) > 0:
            select.select([connection.socket], [], [], min(LOOK, remaining))
            connection.consume_input()
            while connection.notifies():
                self.notified = True
