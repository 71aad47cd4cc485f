"""Recall as it was recorded: against its target, and against earlier measurements."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.database.settings import stored_setting
from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.checks.search_settings import SearchNumbers
from pgmrl.doctor.finding import Problem
from pgmrl.measure.history import Measured, kept_of
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgmrl.database.settings import Setting
    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["numbers_of", "recall_drift", "recall_low", "recall_target", "recall_unmeasured"]

HALF_WIDTHS: Final = 1.5
"""Half-widths of 95 % intervals that two means must be apart to count as different: about three standard errors, so
that a monitor which measures every hour raises a false alarm once in a month."""


def _history_sql(column: CheckedColumn) -> str:
    """The statement that reads the measurements of a column without a filter, oldest first."""
    names = list(Measured.__dataclass_fields__)
    return (
        f"SELECT {', '.join(names[:8])},\n    {', '.join(names[8:])}\nFROM pgmrl.recall_history\n"
        f"WHERE relation = {literal(column.owner)}::regclass AND full_column = {literal(column.target.full)}\n"
        f"  AND short_column = {literal(column.short)} AND filter IS NULL ORDER BY measured_at, id"
    )


def _history(context: CheckContext, column: CheckedColumn) -> list[Measured]:
    """The measurements of a column, oldest first, with the one that was made just now.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    database.require_schema(context.connection)
    recorded = [Measured(*tuple(row)) for row in context.rows(_history_sql(column))]
    recall = context.recalls.get(column.name)
    if recall is None:
        return recorded
    # as it would have been recorded
    return [*recorded, Measured(measured_at=datetime.now(UTC), measured_by=context.server.role, **kept_of(recall))]


def numbers_of(measurement: Measured | Setting) -> SearchNumbers:
    """The numbers of the searches of a measurement or setting."""
    return SearchNumbers(measurement.k, measurement.shortlist, measurement.ef_search)


def _comparable(measurements: Sequence[Measured], setting: Setting | None) -> list[Measured]:
    """Those made with the numbers that searches take now: one with another shortlist says nothing about them."""
    if setting is None:
        return list(measurements)
    return [measurement for measurement in measurements if numbers_of(measurement) == numbers_of(setting)]


def _on(measurement: Measured) -> str:
    return f"{measurement.measured_at:%Y-%m-%d %H:%M}"


def _largest_loss(measurement: Measured) -> str:
    losses = {
        "the short vectors": measurement.truncation_loss,
        "the HNSW scan": measurement.ann_loss,
        "results with too few rows": measurement.shortfall,
    }
    cause = max(losses, key=lambda name: losses[name])
    return f"The largest loss is that of {cause}: {losses[cause]:.3f}"


@column_check("recall-target", "critical", "recall below the target that its setting was chosen for")
def recall_target(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The last measurement with the stored setting against the target that it was chosen for."""
    if not column.serves:
        return
    history = _history(context, column)
    setting = stored_setting(context.connection, column.searched)
    if setting is None or setting.target is None:
        return
    measurements = _comparable(history, setting)
    if not measurements or measurements[-1].recall_high >= setting.target:
        return
    last = measurements[-1]
    yield Problem(
        f"expected recall@{last.k} {setting.target:.3f}, got {last.recall:.3f} ({last.recall_low:.3f} to "
        f"{last.recall_high:.3f}) on {_on(last)}. {_largest_loss(last)}",
        f"`pgmrl tune {column.name} --recall {setting.target:g} --apply` chooses shortlist and ef_search again.",
        _history_sql(column),
        {"recall": last.recall, "low": last.recall_low, "high": last.recall_high, "target": setting.target},
    )


@column_check("recall-low", "warning", "recall below .9, where nobody has set a target")
def recall_low(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The last measurement of a column without a target: a loss that nobody has chosen."""
    if not column.serves:
        return
    setting = stored_setting(context.connection, column.searched)
    if setting is not None and setting.target is not None:
        return
    measurements = _comparable(_history(context, column), setting)
    least = context.thresholds.recall_least
    if not measurements or measurements[-1].recall_high >= least:
        return
    last = measurements[-1]
    yield Problem(
        f"recall@{last.k} was {last.recall:.3f} ({last.recall_low:.3f} to {last.recall_high:.3f}) on {_on(last)} with "
        f"shortlist {last.shortlist:,} and ef_search {last.ef_search:,}, and no target was set. {_largest_loss(last)}",
        f"`pgmrl tune {column.name} --recall 0.95 --apply` finds what brings more, and sets a target.",
        _history_sql(column),
        {"recall": last.recall, "low": last.recall_low, "high": last.recall_high, "least": least},
    )


@column_check("recall-drift", "warning", "recall significantly lower than in earlier measurements")
def recall_drift(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The last measurement against those before it with the same numbers."""
    if not column.serves:
        return
    setting = stored_setting(context.connection, column.searched)
    measurements = _comparable(_history(context, column), setting)
    if not measurements:
        return
    last = measurements[-1]
    before = [earlier for earlier in measurements[:-1] if numbers_of(earlier) == numbers_of(last)]
    if not before:
        return
    queries = sum(earlier.queries for earlier in before)
    mean = sum(earlier.recall * earlier.queries for earlier in before) / queries
    # of a mean over all their queries the interval is as much narrower as there are more of them
    squares = sum(((earlier.recall - earlier.recall_low) * earlier.queries) ** 2 for earlier in before)
    half_width = squares**0.5 / queries
    drop = mean - last.recall
    noise = HALF_WIDTHS * (half_width**2 + (last.recall_high - last.recall) ** 2) ** 0.5
    if drop <= max(noise, context.thresholds.recall_drop):
        return
    yield Problem(
        f"recall@{last.k} was {last.recall:.3f} on {_on(last)} and {mean:.3f} in the {len(before):,} measurements "
        f"before, with shortlist {last.shortlist:,} and ef_search {last.ef_search:,}: {drop:.3f} less, of which "
        f"{noise:.3f} could be chance",
        "See what grew or changed: the checks `rotation-stale`, `dead-rows`, `stored-setting`; then `pgmrl tune`.",
        _history_sql(column),
        {"recall": last.recall, "before": mean, "drop": drop, "noise": noise, "measurements": len(before)},
    )


@column_check("recall-unmeasured", "info", "recall not recorded with today's setting, or long ago")
def recall_unmeasured(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Whether there is a measurement, of today's setting and of today's table."""
    if not column.serves:
        return
    sql, remedy = (
        _history_sql(column),
        f"`pgmrl recall {column.name} --record`, or `pgmrl doctor --measure` once a day.",
    )
    history = _history(context, column)
    setting = stored_setting(context.connection, column.searched)
    measurements = _comparable(history, setting)
    if setting is not None and history and not measurements:
        numbers = f"recall@{setting.k} with shortlist {setting.shortlist:,} and ef_search {setting.ef_search:,}"
        yield Problem(f"recall has not been measured since the setting changed ({numbers})", remedy, sql)
        return
    if not measurements:
        yield Problem("recall has not been measured", remedy, sql)
        return
    last, rows = measurements[-1], column.size.rows
    days = (datetime.now(UTC) - last.measured_at).total_seconds() / 86_400
    values = {"days": days, "row_count": last.row_count, "rows": rows}
    if days > context.thresholds.recall_days:
        yield Problem(f"recall was last measured {days:,.0f} days ago", remedy, sql, values)
    elif last.row_count and rows > context.thresholds.grown * last.row_count:
        message = f"recall was last measured with {last.row_count:,} rows, the table has {rows:,} now"
        yield Problem(message, remedy, sql, values)
