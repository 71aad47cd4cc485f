"""Progress of a backfill or a build as lines of a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgmrl.database.index_states import BuildProgress
from pgmrl.database.job_log import log

if TYPE_CHECKING:
    from pgmrl.online.jobs import Job

__all__ = ["ProgressLog"]


class ProgressLog:
    """Progress as lines of Alembic's log, one every few seconds.

    Args:
        every: seconds between lines, at least.
    """

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.last = time.monotonic()

    def __call__(self, progress: Job | BuildProgress) -> None:
        """Log how far it is, if it is time to."""
        if time.monotonic() - self.last < self.every:
            return
        self.last = time.monotonic()
        if isinstance(progress, BuildProgress):
            part = f"{progress.done / progress.total:.0%} of " if progress.total else ""
            log.info("index %s: %s%s", progress.index, part, progress.phase)
        else:
            log.info("%s: %.0f %%, %s", progress.target_column, 100 * progress.part, progress.state)
