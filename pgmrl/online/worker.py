"""One worker of a backfill.

It takes the next range of keys in a short transaction, then writes its rows and forgets the range in a second one.
Whatever kills it in between, the range is still there, unlocked, and the next worker takes it. Rows that somebody else
holds are skipped and come back later: a backfill that waits for no row can be part of no deadlock. At the end the whole
table is asked whether a row is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.job_log import log
from pgmrl.database.search_path import caller_path, catalogue_result, pinned
from pgmrl.errors import MigrationError
from pgmrl.names import literal, quoted
from pgmrl.online.jobs import is_retryable, job_of, removed_error, transaction

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from pgmrl.online.jobs import Fill, Job, Throttle

__all__ = ["Worker"]

Answer = TypeVar("Answer")

BATCH_FIRST: Final = 200
BATCH_LEAST: Final = 10
BATCH_LARGEST: Final = 20_000
MISSED_AT_ONCE: Final = 5_000
ATTEMPTS: Final = 10
LOOK: Final = 1.0  # seconds after which a worker that waits looks whether it is to stop

# Without statistics the planner takes a batch for a large part of the table, and would read the whole of it each time.
BY_KEY: Final = "SELECT " + ", ".join(
    f"pg_catalog.set_config('{name}', 'off', true)"
    for name in ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit")
)


class Worker:
    """One connection's part of a job.

    Args:
        connection: in autocommit.
        fill: what is filled.
        job_id: of the job.
        throttle: how much of the server it takes.
        stop_event: set when it is to stop.
        progress: called after each batch.
    """

    def __init__(
        self,
        connection: Connection,
        fill: Fill,
        job_id: int,
        throttle: Throttle,
        stop_event: threading.Event,
        progress: Callable[[Job], None] | None,
    ) -> None:
        self.connection = connection
        self.fill = fill
        self.job_id = job_id
        self.throttle = throttle
        self.stop_event = stop_event
        self.progress = progress
        self.batch = self._within_rate(BATCH_FIRST)
        self.last_look = float("-inf")

    def run(self) -> None:
        """Work until the job is finished or is to stop.

        Raises:
            MigrationError: a value cannot be computed, or the job was removed.
        """
        while not self._stops():
            if self._waits_while_busy():
                continue
            began = time.perf_counter()
            done = self._attempt(self._write_next)
            if done is not None:
                self._report_progress()
                self._pace(*done, time.perf_counter() - began)
            elif not self._attempt(self._hand_out) and self._finish():
                return

    def report(self, state: str) -> None:
        """Say in the database what this worker does; what failed is not hidden by the others, who stop for it."""
        log.info("%s: %s", self.fill.title, state)
        self._execute(
            f"UPDATE pgmrl.backfills SET state = {literal(state)}, updated_at = clock_timestamp() "
            f"WHERE id = {self.job_id} AND NOT ({literal(state)} = 'stopped' AND state LIKE 'failed:%')"
        )
        self._report_progress()

    def _stops(self) -> bool:
        requested = self._scalar(f"SELECT stop_requested FROM pgmrl.backfills WHERE id = {self.job_id}")
        if requested is None:
            raise removed_error(self.fill)
        if requested or self.stop_event.is_set():
            self.report("stopped")
            return True
        return False

    def _report_progress(self) -> None:
        if self.progress is not None:
            self.progress(job_of(self.connection, self.fill, self.job_id))

    # -- ranges ----------------------------------------------------------------------------------------------------

    def _hand_out(self) -> bool:
        """Take the next range of keys from the table and leave it for whichever worker is free."""
        row = self._row(f"SELECT position, exhausted FROM pgmrl.backfills WHERE id = {self.job_id} FOR UPDATE")
        if row is None or row.exhausted:
            return False
        page = self._page(row.position)
        last = page is None or page.size < self.batch
        self.connection.execute(
            text(
                "INSERT INTO pgmrl.backfill_ranges (backfill_id, after_key, up_to_key, size) "
                "VALUES (:id, :after, :up_to, :size)"
            ),
            {
                "id": self.job_id,
                "after": row.position,
                "up_to": None if page is None or last else page.key,  # the last is open: rows may be added
                "size": 0 if page is None else page.size,
            },
        )
        self.connection.execute(
            text("UPDATE pgmrl.backfills SET position = :key, exhausted = :last WHERE id = :id"),
            {"key": row.position if page is None else page.key, "last": last, "id": self.job_id},
        )
        return True

    def _page(self, after: Sequence[str] | None) -> Any:
        self._execute(BY_KEY)
        listed = ", ".join(f"t.{quoted(name)} AS k{n}" for n, (name, _) in enumerate(self.fill.keys))
        texts = ", ".join(f"p.k{n}::text" for n, _ in enumerate(self.fill.keys))
        backwards = ", ".join(f"p.k{n} DESC" for n, _ in enumerate(self.fill.keys))
        return self._of_rows(
            f"WITH page AS MATERIALIZED (SELECT {listed} FROM {self.fill.owner} AS t WHERE {self.fill.after(after)} "
            f"ORDER BY {self.fill.key_names} LIMIT {self.batch}) "
            f"SELECT ARRAY[{texts}] AS key, (SELECT count(*) FROM page) AS size FROM page AS p "
            f"ORDER BY {backwards} LIMIT 1"
        ).first()

    # -- rows ------------------------------------------------------------------------------------------------------

    def _write_next(self) -> tuple[int, int] | None:
        """Write the rows of a range that was handed out: how many it has, how many were written; None: no range."""
        taken = self._row(
            f"SELECT id, after_key, up_to_key, size FROM pgmrl.backfill_ranges WHERE backfill_id = {self.job_id} "
            "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
        if taken is None:
            return None
        written = self._write(f"{self.fill.after(taken.after_key)} AND {self.fill.up_to(taken.up_to_key)}")
        self._execute(f"DELETE FROM pgmrl.backfill_ranges WHERE id = {taken.id}")
        self._count(taken.size, written)
        return int(taken.size), written

    def _write(self, where: str) -> int:
        if self.fill.task == "compare":
            self._execute(BY_KEY)
            query = f"SELECT count(*) FROM {self.fill.owner} AS t WHERE {where} AND ({self.fill.missing})"
            return int(self._of_rows(query).scalar_one())
        if self.throttle.without_triggers:
            self._execute("SET LOCAL session_replication_role = replica")
        self._execute(f"{BY_KEY}, pg_catalog.set_config('pgmrl.computed_by', {literal(computed_by(self.fill))}, true)")
        try:
            return int(self._of_rows(self.fill.statement(where)).rowcount)
        except DBAPIError as error:
            if not error.connection_invalidated and (sqlstate(error) or "").startswith("22"):
                raise self._explained(error, where) from error
            raise

    def _count(self, seen: int, written: int) -> None:
        self._execute(
            f"UPDATE pgmrl.backfills SET rows_seen = rows_seen + {seen}, rows_written = rows_written + {written}, "
            f"updated_at = clock_timestamp(), state = 'running' WHERE id = {self.job_id}"
        )

    def _explained(self, error: DBAPIError, where: str) -> MigrationError:
        """Which row it was; the transaction has failed and another one asks."""
        self._execute("ROLLBACK")
        fill, reason = self.fill, str(error.orig).strip()
        with transaction(self.connection):
            rows = self._of_rows(f"SELECT {fill.key_texts} FROM {fill.owner} AS t WHERE {where} AND ({fill.missing})")
            keys = list(rows.scalars())
        for key in keys:
            try:
                with transaction(self.connection):
                    self._of_rows(f"SELECT {fill.value} FROM {fill.owner} AS t WHERE {fill.among([key])}")
            except DBAPIError:
                return MigrationError(
                    f"{fill.title} of row {fill.key_title(key)} cannot be computed: {reason}\n"
                    f"Nothing of its batch was written. Correct {fill.source} there and run this again."
                )
        return MigrationError(f"{fill.title} cannot be computed: {reason}\nNothing of this batch was written.")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> bool:
        """Rows that were held, or whose key moved: the whole table is asked until none is left."""
        if self._scalar(f"SELECT count(*) FROM pgmrl.backfill_ranges WHERE backfill_id = {self.job_id}"):
            self.stop_event.wait(0.1)  # another worker is at the last ranges
            return False
        missed = (
            [] if self.fill.task == "compare" else self._missing("true")
        )  # a plain read: no row is locked while the table is read
        if missed:
            self._write_missed(missed)
            return False
        self._execute(
            "UPDATE pgmrl.backfills SET finished_at = coalesce(finished_at, clock_timestamp()), state = 'finished', "
            f"updated_at = clock_timestamp(), rows_estimated = rows_seen WHERE id = {self.job_id}"
        )
        self._report_progress()
        return True

    def _write_missed(self, missed: list[list[str]]) -> None:
        """Write these rows, and wait for those that others hold; only they are looked at again."""
        while missed and not self.stop_event.is_set():
            for start in range(0, len(missed), self.batch):
                if self.stop_event.is_set() or self._stop_requested():
                    return
                began = time.perf_counter()
                chunk = missed[start : start + self.batch]
                written = self._attempt(lambda chunk=chunk: self._write_keys(chunk))  # type: ignore[misc]
                self._pace(len(chunk), written, time.perf_counter() - began)
            missed = self._missing(self.fill.among(missed))
            if missed:
                self.report("waiting for rows that others hold")
                self.stop_event.wait(self.throttle.pause)
                if self._stop_requested():
                    return

    def _write_keys(self, keys: list[list[str]]) -> int:
        written = self._write(self.fill.among(keys))
        self._count(0, written)
        return written

    def _missing(self, where: str) -> list[list[str]]:
        fill = self.fill
        query = (
            f"SELECT {fill.key_texts} FROM {fill.owner} AS t WHERE {where} AND ({fill.missing}) LIMIT {MISSED_AT_ONCE}"
        )
        with transaction(self.connection):
            return list(self._of_rows(query).scalars())

    # -- pace ------------------------------------------------------------------------------------------------------

    def _pace(self, rows: int, written: int, seconds: float) -> None:
        """The next batch lasts as long as it should, and no more is written in a second than the throttle allows."""
        throttle = self.throttle
        if rows >= self.batch or seconds > throttle.batch_seconds:  # a small range says little
            factor = min(2.0, max(0.5, throttle.batch_seconds / max(seconds, 1e-4)))
            self.batch = self._within_rate(int(min(BATCH_LARGEST, max(BATCH_LEAST, self.batch * factor))))
        if throttle.max_rows_per_second is not None:
            self._rest(written / throttle.max_rows_per_second - seconds)

    def _within_rate(self, rows: int) -> int:
        rate = self.throttle.max_rows_per_second
        return rows if rate is None else max(1, min(rows, int(rate)))

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0 and not self.stop_event.wait(min(LOOK, remaining)):
            if remaining > LOOK and self._stop_requested():
                return

    def _stop_requested(self) -> bool:
        return self._scalar(f"SELECT stop_requested FROM pgmrl.backfills WHERE id = {self.job_id}") is not False

    def _waits_while_busy(self) -> bool:
        if time.monotonic() - self.last_look < self.throttle.pause:
            return False
        reason = self._busy()
        if reason is None:
            self.last_look = time.monotonic()
            return False
        self.report(reason)
        self.stop_event.wait(self.throttle.pause)
        return True

    def _busy(self) -> str | None:
        throttle = self.throttle
        if throttle.max_lag_bytes is not None:
            lag = self._scalar(
                "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication "
                "WHERE NOT pg_is_in_recovery()"
            )
            if lag is not None and lag > throttle.max_lag_bytes:
                return f"waiting: a standby is {int(lag) / 1e6:,.0f} MB behind"
        if throttle.max_lock_waits is not None:
            # pg_stat_activity hides from most roles what others wait for
            waits = self._scalar(
                "SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
                "WHERE NOT l.granted AND a.datname = current_database()"
            )
            if waits > throttle.max_lock_waits:
                return f"waiting: {waits} sessions wait for locks"
        return None

    # -- asking ----------------------------------------------------------------------------------------------------

    def _attempt(self, step: Callable[[], Answer]) -> Answer:
        """A step in a transaction of its own, once more where it met another one."""
        for remaining in range(ATTEMPTS - 1, -1, -1):
            try:
                with transaction(self.connection):
                    return step()
            except DBAPIError as error:
                if not remaining or not is_retryable(error):
                    raise
                self.stop_event.wait(0.05)
        raise AssertionError("the last attempt returns or raises")

    def _execute(self, statement: str) -> Any:
        """A statement on pgmrl's own tables."""
        with pinned(self.connection):
            return execute_plain(self.connection, statement)

    def _of_rows(self, statement: str) -> Any:
        """A statement on the application's table, whose triggers and types mean there what they mean to the role."""
        with caller_path(self.connection):
            return execute_plain(self.connection, statement)

    def _row(self, statement: str) -> Any:
        return self._execute(statement).first()

    def _scalar(self, statement: str) -> Any:
        return catalogue_result(self.connection, statement).scalar()


def computed_by(fill: Fill) -> str:
    """How the triggers know the backfill: unlike a loader it answers for the short vector alone."""
    return f"backfill {fill.rule}"
