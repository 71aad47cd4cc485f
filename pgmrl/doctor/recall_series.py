"""Recall over time: as a line of characters for a terminal, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgmrl import database
from pgmrl.database.settings import stored_setting
from pgmrl.doctor.checks.recorded_recall import numbers_of
from pgmrl.errors import MeasureError
from pgmrl.measure.drawing import check_path, figure, saved, write
from pgmrl.measure.history import recall_history
from pgmrl.model.columns import attachment_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.measure.history import Measured

__all__ = ["SUFFIXES", "Series", "plotted", "series", "sparkline"]

SUFFIXES: Final = (".png", ".svg", ".pdf")
BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Series:
    """The measurements of one column that can be compared: of the same searches, with the same numbers.

    Attributes:
        name: the column's.
        numbers: k, shortlist and ef_search.
        filter: the conditions of the searches; None for none.
        target: the recall that the column's setting was chosen for, where the numbers are the setting's; else None.
        measured: the oldest first.

    """

    name: str
    numbers: tuple[int, int, int]
    filter: str | None
    target: float | None
    measured: tuple[Measured, ...]

    @property
    def title(self) -> str:
        """For people."""
        k, shortlist, ef_search = self.numbers
        said = f"{self.name}  recall@{k}, shortlist {shortlist:,}, ef_search {ef_search:,}"
        return said if self.filter is None else f"{said}, where {self.filter}"


def series(connection: Connection | Session, column: Any, name: str) -> list[Series]:
    """A column's recorded measurements of its short column, by what can be compared: the latest hundred of all.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        name: what to call it.

    Raises:
        NotMigrated: pgmrl's schema is missing or too old.

    """
    connection = database.sqlalchemy_connection(connection)
    setting = stored_setting(connection, column)
    found: dict[tuple[tuple[int, int, int], str | None], list[Measured]] = {}
    short = attachment_of(column).short
    for one in recall_history(connection, column):
        if one.short_column == short:
            found.setdefault((numbers_of(one), one.filter), []).append(one)
    every = []
    for (numbers, where), measured in found.items():
        aimed = setting is not None and where is None and numbers == numbers_of(setting)
        every.append(Series(name, numbers, where, setting.target if setting and aimed else None, tuple(measured)))
    return every


def sparkline(values: Sequence[float]) -> str:
    """Values between 0 and 1 as characters, the lowest of them at the bottom."""
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return "".join(BLOCKS[round((value - low) / width * (len(BLOCKS) - 1))] for value in values)


def plotted(every: Sequence[Series], path: Path) -> None:
    """Write a picture of recall over time, with intervals and targets; its form by the file's name.

    Raises:
        MeasureError: there is nothing to plot, another suffix, the extra `plot` is not installed, or the file cannot be
            written.

    """
    if not every:
        raise MeasureError("there is nothing to plot: `pgmrl recall --record` measures, and keeps it")
    check_path(path, SUFFIXES)
    drawn = figure(figsize=(9, 4.5))
    axes = drawn.subplots()
    for number, one in enumerate(every):
        color = f"C{number}"
        times: Any = [point.measured_at for point in one.measured]
        recalls = [point.recall for point in one.measured]
        below = [point.recall - point.recall_low for point in one.measured]
        above = [point.recall_high - point.recall for point in one.measured]
        axes.errorbar(times, recalls, [below, above], fmt="o-", color=color, capsize=3, label=one.title)
        if one.target is not None:
            axes.axhline(one.target, color=color, linestyle="--", linewidth=1)
    axes.set_ylabel("recall, with its 95 % interval; dashed: target")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    drawn.autofmt_xdate()
    write(path, saved(drawn, path.suffix.lower()[1:]))
