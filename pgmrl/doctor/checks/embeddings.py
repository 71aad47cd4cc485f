"""Rows whose text has no vector yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.embedding_queue.queue_status import STATUS_SQL, TRIGGERS_SQL, embedding_status, marking_triggers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.embedding_queue.queue_status import MarkingTriggers

__all__ = ["embeddings"]

GONE_SQL: Final = """SELECT table_schema, table_name, embedding, function::text AS function
FROM pgmrl.chunk_tables WHERE chunks IS NULL ORDER BY 1, 2, 3"""


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
                f"{status.stale:,} rows wait for the vector (or chunks) of their text, the oldest for {oldest:,.0f} s",
                f"Let a worker run: `{status.worker} --watch`." if late else "Wait: `pgmrl embed --status`.",
                STATUS_SQL,
                values,
                "warning" if late else "info",
                status.title,
            )
        if status.parked:
            yield Problem(
                f"{status.parked:,} rows could not be embedded and are not tried again",
                f"Read why (pgmrl.parked_embeddings), mend it, then `{status.worker} --retry`.",
                STATUS_SQL,
                values,
                "warning",
                status.title,
            )
    for row in context.rows(GONE_SQL):
        if context.includes(row.table_schema, row.table_name):
            yield Problem(
                "rows are marked for chunks in a table that is not there any more: renamed, or dropped",
                "Of a table that was renamed, install again: `pgmrl chunk … --install …`; of one that was dropped: "
                f"DROP FUNCTION {row.function} CASCADE;",
                GONE_SQL,
                {"function": row.function},
                "warning",
                f"{row.table_schema}.{row.table_name}.{row.embedding}",
            )
    for triggers in marking_triggers(context.connection):
        if context.includes(triggers.table_schema, triggers.table_name):
            yield from _unmarked(triggers)


def _unmarked(triggers: MarkingTriggers) -> Iterator[Problem]:
    """How a text can change without its row being marked."""
    problems = {
        "no trigger marks the rows whose text an UPDATE changes: it went with a column": not triggers.marks_updates,
        "the triggers that mark rows are disabled: those whose text changes are missed": not triggers.enabled,
        f"the trigger {', '.join(triggers.rewriters or [])} may change the text in an UPDATE that does not name it, "
        "which is missed: it came after the triggers that mark rows": triggers.rewriters is not None,
    }
    for message, is_so in problems.items():
        if is_so:
            values = {"rewriters": triggers.rewriters or []}
            remedy = "ALTER TABLE … ENABLE TRIGGER, then install" if "disabled" in message else "Install"
            yield Problem(
                message, f"{remedy} again: {triggers.install}", TRIGGERS_SQL.strip(), values, "warning", triggers.title
            )
