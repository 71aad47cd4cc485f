"""Backfills that are not finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.online.jobs import jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.finding import Severity
    from pgmrl.online.jobs import Job

__all__ = ["backfill"]

BACKFILLS_SQL: Final = (
    "SELECT table_schema, table_name, target_column, rows_seen, rows_estimated, state,\n"
    "    now() - updated_at AS silent_for\n"
    "FROM pgmrl.backfill_progress WHERE finished_at IS NULL"
)


@database_check("backfill", "warning", "backfills that stopped or failed")
def backfill(context: CheckContext) -> Iterator[Problem]:
    """Backfills that are not finished: running, stopped or failed."""
    if context.server.schema is None:
        return
    for job in jobs(context.connection):
        if job.finished or not context.includes(job.table_schema, job.table_name):
            continue
        severity, state = _state(job, context.thresholds.idle_seconds)
        source = f"{job.table_schema}.{job.table_name}.{job.source_column}"
        remedy = f"`pgmrl backfill {source}` continues where it stopped."
        yield Problem(
            f"the backfill of {job.target_column} is at {job.part:.0%}: {state}",
            "Wait: `pgmrl progress`." if severity == "info" else remedy,
            BACKFILLS_SQL,
            {"part": job.part, "state": job.state, "idle_seconds": job.idle_seconds},
            severity,
            f"{job.table_schema}.{job.table_name}.{job.target_column}",
        )


def _state(job: Job, idle_seconds: float) -> tuple[Severity, str]:
    if job.state.startswith("failed") or job.state == "stopped":
        return "warning", job.state
    if job.idle_seconds > idle_seconds:
        return "warning", f"no worker has reported for {job.idle_seconds / 60:,.0f} min"
    return "info", job.state
