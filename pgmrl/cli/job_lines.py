"""A line on a backfill, and a line on an index build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.cli.output import escaped

if TYPE_CHECKING:
    from pgmrl.database.index_states import BuildProgress
    from pgmrl.online.backfill import Job

__all__ = ["build_line", "job_line"]

SILENT_SECONDS: Final = 30
"""Without a word from its workers, after which a backfill is said to be silent: they report with each batch."""


def job_line(job: Job) -> str:
    """How far a backfill is; with rich's markup."""
    name = escaped(f"{job.table_schema}.{job.table_name}.{job.target_column}")
    if job.finished:
        done = {"repair": "repaired", "compare": "that differ"}.get(job.task, "filled")
        return f"{name}: finished, {job.rows_written:,} rows {done} in {job.seconds:,.0f} s"
    silent = f", silent for {job.idle_seconds:,.0f} s" if job.idle_seconds > SILENT_SECONDS else ""
    return (
        f"{name}: {job.part:.0%}, {job.rows_seen:,} of about {job.rows_estimated:,} rows, "
        f"{escaped(job.state)}{silent}{_remaining(job)}"
    )


def build_line(build: BuildProgress) -> str:
    """How far an index build is; with rich's markup."""
    part = f"{build.done / build.total:.0%} of " if build.total else ""
    waits = f", waits for {build.waiting_for} older transactions" if build.waiting_for > 0 else ""
    return (
        f"{escaped(build.index)} on {escaped(build.table)}: {part}{escaped(build.phase)}{waits} (process {build.pid})"
    )


def _remaining(job: Job) -> str:
    if job.rows_seen == 0 or job.seconds <= 0:
        return ""
    rate = job.rows_seen / job.seconds
    return f", about {max(0, job.rows_estimated - job.rows_seen) / rate:,.0f} s left at the pace so far"
