"""Rows whose text has no vector yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.embedding_queue.queue_status import REWRITERS_SQL, STATUS_SQL, embedding_status, rewriting_triggers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext

__all__ = ["embeddings"]


@database_check("embeddings", "warning", "rows whose text waits long to be embedded, or cannot be")
def embeddings(context: CheckContext) -> Iterator[Problem]:
    """Stale rows, the age of the oldest, parked ones; and texts that a trigger may change unseen."""
    if context.server.schema is None:
        return
    for status in embedding_status(context.connection):
        if not context.includes(status.table_schema, status.table_name):
            continue
        values = {"stale": status.stale, "oldest_seconds": status.oldest_seconds, "parked": status.parked}
        oldest = status.oldest_seconds or 0.0
        if status.stale:
            late = oldest > context.thresholds.stale_seconds
            yield Problem(
                f"{status.stale:,} rows wait for the vector of their text, the oldest for {oldest:,.0f} s",
                f"Let a worker run: `pgmrl embed {status.title} --watch`." if late else "Wait: `pgmrl embed --status`.",
                STATUS_SQL,
                values,
                "warning" if late else "info",
                status.title,
            )
        if status.parked:
            yield Problem(
                f"{status.parked:,} rows could not be embedded and are not tried again",
                f"Read why (pgmrl.parked_embeddings), mend it, then `pgmrl embed {status.title} --retry`.",
                STATUS_SQL,
                values,
                "warning",
                status.title,
            )
    for title, schema, table, triggers in rewriting_triggers(context.connection):
        if context.includes(schema, table):
            yield Problem(
                f"the trigger {', '.join(triggers)} may change the text in an UPDATE that does not name it: such a row "
                "is not marked, for the trigger came after those of pgmrl",
                f"Install again, which looks at every UPDATE then: `pgmrl embed {title} --install …`; --all marks what "
                "was changed before.",
                REWRITERS_SQL.strip(),
                {"triggers": triggers},
                "warning",
                title,
            )
