"""A session that writes to the primary, searches on its standbys, and reads what it wrote.

PRIMARY_URL=postgresql+psycopg://… STANDBY_URLS=postgresql+psycopg://…,… python examples/replicas.py
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CompoundSelect, Engine, Select, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

CAUGHT_UP = text(
    "SELECT pg_is_in_recovery() "  # not promoted meanwhile: what it holds is then another history
    "AND coalesce(pg_last_wal_replay_lsn() >= CAST(CAST(:position AS text) AS pg_lsn), true)"
)
NEVER = "FFFFFFFF/FFFFFFFF"  # a position that no standby reaches


class ReplicaSession(Session):
    """A Session whose transactions read from one standby until they write.

    A Select goes to a standby that has replayed what this session wrote, or that it is told others wrote; everything
    else, and what follows it in the transaction, goes to the primary. A standby that is behind for longer than
    `wait_seconds`, does not answer or was promoted is passed over; where none is left, the primary answers.

    Args:
        primary: the primary's Engine, of an asynchronous one its `sync_engine`.
        standbys: likewise.
        position: of the primary's log, which reads must include: `position` of the user's session before this one.
        wait_seconds: for a standby that is behind.
        **options: of Session.

    Attributes:
        position: of the primary's log, behind everything that this session has committed; text, to be kept where the
            user's next request finds it, in a cookie for instance. None where it has written nothing.
    """

    def __init__(
        self,
        primary: Engine,
        standbys: Sequence[Engine],
        *,
        position: str | None = None,
        wait_seconds: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**{**options, "bind": primary})
        self.primary, self.standbys, self.position, self.wait_seconds = primary, standbys, position, wait_seconds
        self._chosen: Engine | None = None
        self._writes = self._committed = False

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **options: Any) -> Any:
        """The Engine for a statement."""
        if bind is not None:  # session.execute(…, bind_arguments={"bind": engine})
            return super().get_bind(mapper, clause=clause, bind=bind, **options)
        reads = isinstance(clause, Select | CompoundSelect) and clause._for_update_arg is None
        if self._flushing or not reads:
            self._chosen, self._writes = self.primary, True
        elif self._chosen is None:
            self._chosen = self._caught_up() or self.primary
        return self._chosen

    def _caught_up(self) -> Engine | None:
        """A standby that has replayed what is to be read."""
        deadline = time.monotonic() + self.wait_seconds
        for standby in random.sample(self.standbys, len(self.standbys)):
            try:
                with standby.connect() as connection:
                    while not connection.execute(CAUGHT_UP, {"position": self.position}).scalar_one():
                        if time.monotonic() > deadline or not connection.scalar(select(func.pg_is_in_recovery())):
                            break
                        connection.execute(select(func.pg_sleep(0.005)))  # on the server: an event loop goes on
                    else:
                        return standby
            except DBAPIError:  # it does not answer
                continue
        return None


@event.listens_for(ReplicaSession, "after_commit")
def _note_commit(session: ReplicaSession) -> None:
    session._committed = session._writes


@event.listens_for(ReplicaSession, "after_transaction_end")
def _end(session: ReplicaSession, transaction: SessionTransaction) -> None:
    """Take the position when the connections are back in the pool; the next transaction chooses anew."""
    if transaction.parent is not None:
        return
    if session._committed:
        try:
            with session.primary.connect() as connection:
                session.position = str(connection.scalar(text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")))
        except DBAPIError:  # committed, and where is not known: the primary has it
            session.position = NEVER
    session._chosen, session._writes, session._committed = None, False, False


def main() -> None:
    """Say which server answers a read before and after a write."""
    primary = create_engine(os.environ["PRIMARY_URL"])
    standbys = [create_engine(url) for url in os.environ["STANDBY_URLS"].split(",")]
    where = select(func.pg_is_in_recovery())
    with ReplicaSession(primary, standbys) as session:
        print("a read goes to", "a standby" if session.scalar(where) else "the primary")
        session.execute(text("CREATE TEMPORARY TABLE written ON COMMIT DROP AS SELECT 1 AS id"))
        print("after a write, to", "a standby" if session.scalar(where) else "the primary")
        session.commit()
        print("after its commit, to", "a standby" if session.scalar(where) else "the primary")
    for engine in (primary, *standbys):
        engine.dispose()


if __name__ == "__main__":
    main()
