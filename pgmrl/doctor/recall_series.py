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

    from pgmrl.doctor.checks.search_settings import SearchNumbers
    from pgmrl.measure.history import Measured

__all__ = ["SUFFIXES", "RecallSeries", "draw_series", "recall_series", "sparkline"]

SUFFIXES: Final = (".png", ".svg", ".pdf")
BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class RecallSeries:
    """The measurements of one column that can be compared: of the same searches, with the same numbers.

    Attributes:
        name: the column's.
        numbers: k, shortlist and ef_search.
        filter: the conditions of the searches; None for none.
        target: the recall that the column's setting was chosen for, where the numbers are the setting's; else None.
        measured: the measurements, the oldest first.

    """

    name: str
    numbers: SearchNumbers
    filter: str | None
    target: float | None
    measured: tuple[Measured, ...]

    @property
    def title(self) -> str:
        """For people."""
        k, shortlist, ef_search = self.numbers
        searches = f"{self.name}  recall@{k}, shortlist {shortlist:,}, ef_search {ef_search:,}"
        return searches if self.filter is None else f"{searches}, where {self.filter}"


def recall_series(connection: Connection | Session, column: Any, name: str) -> list[RecallSeries]:
    """A column's recorded measurements of its short column, grouped by what can be compared: the latest hundred of all.

    Args:
        connection: a connection to the database.
        column: the Matryoshka attribute or column.
        name: the name of the series.

    Raises:
        NotMigrated: pgmrl's schema is missing or too old.

    """
    connection = database.sqlalchemy_connection(connection)
    setting = stored_setting(connection, column)
    groups: dict[tuple[SearchNumbers, str | None], list[Measured]] = {}
    short = attachment_of(column).short
    for measurement in recall_history(connection, column):
        if measurement.short_column == short:
            groups.setdefault((numbers_of(measurement), measurement.filter), []).append(measurement)
    listed = []
    for (numbers, condition), measured in groups.items():
        current = setting is not None and condition is None and numbers == numbers_of(setting)
        target = setting.target if setting and current else None
        listed.append(RecallSeries(name, numbers, condition, target, tuple(measured)))
    return listed


def sparkline(values: Sequence[float]) -> str:
    """Values between 0 and 1 as characters, the lowest of them at the bottom."""
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return "".join(BLOCKS[round((value - low) / width * (len(BLOCKS) - 1))] for value in values)


def draw_series(listed: Sequence[RecallSeries], path: Path) -> None:
    """Write a picture of recall over time, with intervals and targets; its format by the file's suffix.

    Raises:
        MeasureError: there is nothing to draw, another suffix, the extra `plot` is not installed, or the file cannot be
            written.

    """
    if not listed:
        raise MeasureError("no recall has been recorded: `pgmrl recall --record` measures and records it")
    check_path(path, SUFFIXES)
    drawing = figure(figsize=(9, 4.5))
    axes = drawing.subplots()
    for number, series in enumerate(listed):
        color = f"C{number}"
        times: Any = [point.measured_at for point in series.measured]
        recalls = [point.recall for point in series.measured]
        below = [point.recall - point.recall_low for point in series.measured]
        above = [point.recall_high - point.recall for point in series.measured]
        axes.errorbar(times, recalls, [below, above], fmt="o-", color=color, capsize=3, label=series.title)
        if series.target is not None:
            axes.axhline(series.target, color=color, linestyle="--", linewidth=1)
    axes.set_ylabel("recall, with its 95 % interval; dashed: target")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    drawing.autofmt_xdate()
    write(path, saved(drawing, path.suffix.lower()[1:]))
