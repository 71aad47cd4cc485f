"""Recall as it was recorded: against its target, and against what it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.database.settings import stored_setting
from pgmrl.doctor.examination import Check
from pgmrl.doctor.finding import Finding
from pgmrl.measure.history import Measured, kept_of
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.database.settings import Setting
    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject

__all__ = ["CHECKS", "numbers_of"]

SURE: Final = 1.5
"""Half-widths of 95 % intervals that two means must be apart to count as different: about three standard errors, so
that a monitor which measures every hour raises a false alarm once in a month."""


def history_sql(subject: Subject) -> str:
    """The statement that reads the measurements of a column without a filter, oldest first."""
    names = list(Measured.__dataclass_fields__)
    return (
        f"SELECT {', '.join(names[:8])},\n    {', '.join(names[8:])}\nFROM pgmrl.recall_history\n"
        f"WHERE relation = {literal(subject.owner)}::regclass AND full_column = {literal(subject.target.full)}\n"
        f"  AND short_column = {literal(subject.short)} AND filter IS NULL ORDER BY measured_at, id"
    )


def history(exam: Exam, subject: Subject) -> list[Measured]:
    """The measurements of a column, oldest first, with the one that was made just now.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    database.require_schema(exam.connection)
    points = [Measured(*tuple(row)) for row in exam.ask(history_sql(subject))]
    fresh = exam.recalls.get(subject.name)
    if fresh is None:
        return points
    # as it would have been recorded
    return [*points, Measured(measured_at=datetime.now(UTC), measured_by=exam.server.role, **kept_of(fresh))]


def numbers_of(one: Measured | Setting) -> tuple[int, int, int]:
    """What recall depends on, besides the rows: k, shortlist and ef_search."""
    return one.k, one.shortlist, one.ef_search


def judged(rows: list[Measured], setting: Setting | None) -> list[Measured]:
    """Those made with the numbers that searches take now: another shortlist says nothing of them."""
    return rows if setting is None else [row for row in rows if numbers_of(row) == numbers_of(setting)]


def target(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """The last measurement with the stored setting against the target that it was chosen for."""
    if not subject.serves:
        return
    rows = history(exam, subject)
    setting = stored_setting(exam.connection, subject.column)
    if setting is None or setting.target is None:
        return
    rows = judged(rows, setting)
    if not rows:
        return
    last = rows[-1]
    if last.recall_high >= setting.target:
        return
    losses = {
        "the short vectors lose": last.truncation_loss,
        "the HNSW scan loses": last.ann_loss,
        "too few rows come back:": last.shortfall,
    }
    most = max(losses, key=lambda name: losses[name])
    yield Finding(
        "recall-target",
        "critical",
        subject.name,
        f"recall@{last.k} was {last.recall:.3f} ({last.recall_low:.3f} to {last.recall_high:.3f}) on "
        f"{last.measured_at:%Y-%m-%d %H:%M}, its target is {setting.target:.3f}. Most of it: {most} {losses[most]:.3f}",
        f"`pgmrl tune {subject.name} --recall {setting.target:g} --apply` chooses shortlist and ef_search again.",
        history_sql(subject),
        {"recall": last.recall, "low": last.recall_low, "high": last.recall_high, "target": setting.target},
    )


def drift(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """The last measurement against those before it with the same numbers."""
    if not subject.serves:
        return
    rows = judged(history(exam, subject), stored_setting(exam.connection, subject.column))
    if not rows:
        return
    last = rows[-1]
    before = [row for row in rows[:-1] if numbers_of(row) == numbers_of(last)]
    if not before:
        return
    asked = sum(row.queries for row in before)
    mean = sum(row.recall * row.queries for row in before) / asked
    # of a mean over all their queries the interval is as much narrower as there are more of them
    widths = sum((row.recall - row.recall_low) ** 2 * row.queries**2 for row in before) ** 0.5 / asked
    drop = mean - last.recall
    noise = SURE * (widths**2 + (last.recall_high - last.recall) ** 2) ** 0.5
    if drop <= max(noise, exam.thresholds.recall_drop):
        return
    yield Finding(
        "recall-drift",
        "warning",
        subject.name,
        f"recall@{last.k} was {last.recall:.3f} on {last.measured_at:%Y-%m-%d %H:%M} and {mean:.3f} in "
        f"{len(before):,} measurements before, with shortlist {last.shortlist:,} and ef_search {last.ef_search:,}: "
        f"{drop:.3f} less, where {noise:.3f} would be chance",
        "See what grew or changed: the checks `rotation-stale`, `dead-rows`, `stored-setting`; then `pgmrl tune`.",
        history_sql(subject),
        {"recall": last.recall, "before": mean, "drop": drop, "noise": noise, "measurements": len(before)},
    )


def measured(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Whether there is a measurement, of today's setting and of today's table."""
    if not subject.serves:
        return
    every = history(exam, subject)
    setting = stored_setting(exam.connection, subject.column)
    rows = judged(every, setting)
    remedy = f"`pgmrl recall {subject.name} --record`, or `pgmrl doctor --measure` once a day."
    if setting is not None and every and not rows:
        message = (
            f"not measured since the setting changed (recall@{setting.k} with shortlist {setting.shortlist:,} and "
            f"ef_search {setting.ef_search:,}): `pgmrl doctor --measure`"
        )
        yield Finding("recall-measured", "info", subject.name, message, remedy, history_sql(subject))
        return
    if not rows:
        message = "its recall was never recorded: nobody knows what searches miss"
        yield Finding("recall-measured", "info", subject.name, message, remedy, history_sql(subject))
        return
    last = rows[-1]
    days = (datetime.now(UTC) - last.measured_at).total_seconds() / 86_400
    values = {"days": days, "row_count": last.row_count, "rows": subject.size.rows}
    if days > exam.thresholds.recall_days:
        message = f"its recall was last recorded {days:,.0f} days ago"
        yield Finding("recall-measured", "info", subject.name, message, remedy, history_sql(subject), values)
    elif last.row_count and subject.size.rows > exam.thresholds.grown * last.row_count:
        message = f"its recall was recorded with {last.row_count:,} rows, there are {subject.size.rows:,} now"
        yield Finding("recall-measured", "info", subject.name, message, remedy, history_sql(subject), values)


CHECKS = (
    Check("recall-target", "critical", "recall below the target its setting was chosen for", each=target),
    Check("recall-drift", "warning", "recall lower than it was, beyond chance", each=drift),
    Check("recall-measured", "info", "recall not recorded with today's setting, or long ago", each=measured),
)
