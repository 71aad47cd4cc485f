"""The time that tuning may take, and where it went."""

from __future__ import annotations

import time
from typing import Final

from pgmrl.searching.arguments import check_seconds

__all__ = ["TimeBudget"]

CHECK: Final = 0.1
"""Of the time, so much is for the check of the choice."""


class TimeBudget:
    """A time limit, and the seconds that each part took.

    Args:
        seconds: the limit, from now on; None for none.

    Attributes:
        spent: seconds by the part's name.

    Raises:
        SearchError: a limit that is not above 0.

    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            check_seconds(seconds)
        self.seconds = seconds
        self.spent: dict[str, float] = {}
        self._started = self._part_started = time.monotonic()

    @property
    def left(self) -> float | None:
        """Seconds until the check has to begin; None where there is no limit."""
        return None if self.seconds is None else self._started + (1 - CHECK) * self.seconds - time.monotonic()

    @property
    def left_to_check(self) -> float | None:
        """Seconds until the limit; None where there is none."""
        return None if self.seconds is None else self._started + self.seconds - time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def exhausted(self) -> bool:
        """Whether there is no time left."""
        return self.left is not None and self.left <= 0

    def record(self, part: str) -> None:
        """Count the time since the last part ended for this one."""
        now = time.monotonic()
        self.spent[part] = self.spent.get(part, 0.0) + now - self._part_started
        self._part_started = now
