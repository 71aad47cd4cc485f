"""How far a long command is, on standard error: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pgmrl.cli.output import errors, escaped
from pgmrl.online.backfill import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import TaskID

    from pgmrl.database.index_states import BuildProgress

__all__ = ["ProgressReport", "job_progress", "progress_report", "say_estimate"]

LINE_SECONDS = 10.0
"""Between two lines where standard error is no terminal: a log of a quarter of an hour has ninety."""

DOING: Final = {"fill": "filling", "repair": "repairing", "compare": "comparing"}

COLUMNS: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(elapsed_when_finished=True),
)


class ProgressReport(Protocol):
    """Takes what a command is doing, how much of it is done, and how much there is; None or 0 where nobody knows."""

    def __call__(self, step: str, done: int, total: int | None = None, /) -> None:
        """Show it."""
        ...


@contextmanager
def progress_report(*, quiet: bool) -> Iterator[ProgressReport]:
    """Report progress until the end of the block.

    Args:
        quiet: report nothing, for output that a machine reads.
    """
    if quiet:
        yield _silent
    elif sys.stderr.isatty():
        with Progress(*COLUMNS, console=errors) as bars:
            yield _Bars(bars)
    else:
        lines = _Lines()
        with lines.running():
            yield lines


def say_estimate(*, quiet: bool) -> Callable[[float], None]:
    """Say how long it will take, about.

    Args:
        quiet: say nothing, for output that a machine reads.
    """

    def say(seconds: float) -> None:
        if not quiet:
            errors.print(f"this takes about {seconds:,.0f} s", soft_wrap=True)

    return say


def job_progress(report: ProgressReport) -> Callable[[Job | BuildProgress], None]:
    """Report backfills, in rows, and index builds, in what the server counts in their phase."""

    def show(state: Job | BuildProgress) -> None:
        if isinstance(state, Job):
            name, total = f"{state.table_name}.{state.target_column}", max(state.rows_estimated, state.rows_seen)
            waits = "" if state.state in {"running", "finished"} else f": {state.state}"
            report(f"{DOING.get(state.task, state.task)} {name}{waits}", state.rows_seen, total)
        else:
            report(f"index {state.index}: {state.phase}", state.done, max(state.total, state.done))

    return show


def _silent(_step: str, _done: int, _total: int | None = None, /) -> None:
    """No progress."""


class _Bars:
    """A bar for each step."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int | None = None, /) -> None:
        if step not in self.tasks:
            self.tasks[step] = self.bars.add_task(escaped(step), total=None)
        self.bars.update(self.tasks[step], completed=done, total=total or None)


class _Lines:
    """A line for the step at hand at each tick of a clock of its own: a step may be one long statement of the server's.

    A step that no tick has met leaves no line. One that had lines ends with one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.step: str | None = None
        self.done = 0
        self.total: int | None = None
        self.began = 0.0
        self.lines = 0

    def __call__(self, step: str, done: int, total: int | None = None, /) -> None:
        with self.lock:
            if step != self.step:
                self._end()
                self.step, self.began, self.lines = step, time.monotonic(), 0
            self.done, self.total = done, total

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the block."""
        clock = threading.Thread(target=self._tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            self.over.set()
            clock.join()
            with self.lock:
                self._end()

    def _tick(self) -> None:
        while not self.over.wait(LINE_SECONDS):
            with self.lock:
                self._print()

    def _end(self) -> None:
        if self.lines:
            self._print()

    def _print(self) -> None:
        if self.step is None:
            return
        if self.total:
            count = f" {self.done:,} of {self.total:,} ({self.done / self.total:.0%}),"
        else:
            count = f" {self.done:,}," if self.done else ""
        errors.print(escaped(f"{self.step}:{count} {time.monotonic() - self.began:.0f} s"), soft_wrap=True)
        self.lines += 1
