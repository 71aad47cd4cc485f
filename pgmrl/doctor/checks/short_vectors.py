"""Short vectors: whether each row has one, computed from its full vector, in a column that is still needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.checks.rows import hidden_rows, row_counts
from pgmrl.doctor.finding import Problem
from pgmrl.names import literal, quoted
from pgmrl.online.validation import differs, sample_statement
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.doctor.finding import Severity, Unchecked

__all__ = ["short_differs", "short_missing", "short_retired"]


@column_check("short-missing", "critical", "rows with a full vector and no short one")
def short_missing(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """A full vector without its short one."""
    yield from hidden_rows(context, column)
    counts = row_counts(context, column)
    if counts.without_short:
        yield Problem(
            f"{counts.describe(counts.without_short)} have a full vector and no short one ({column.short} IS NULL): no "
            "search finds them. They were written while the trigger was disabled (session_replication_role, DISABLE "
            "TRIGGER), or a backfill is not finished",
            f"`pgmrl backfill {column.name}`, or UPDATE {column.owner} SET {quoted(column.short)} = "
            f"{column.target.value} WHERE {column.target.missing};",
            counts.sql,
            counts.values(counts.without_short),
            _severity(column),
        )


@column_check("short-differs", "critical", "short vectors that are not computed from their full one")
def short_differs(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Short vectors computed anew and compared, on a sample."""
    if column.sync_trigger is None:  # the server itself computes a generated column
        return
    sql = sample_statement(column.target)
    compared, differ = tuple[int, ...](context.row(sql))
    if differ:
        target = column.target
        yield Problem(
            f"{differ:,} of {compared:,} rows examined have a {column.short} that is not computed from their "
            f"{target.full}: searches rank them wrongly. They were written without the trigger",
            # not IS DISTINCT FROM, which looks for `=` on the search_path
            f"UPDATE {target.owner} SET {quoted(target.short)} = {target.value} WHERE {differs(target)};  on a large "
            f"table in batches: `pgmrl backfill {column.name} --repair`",
            sql,
            {"differ": differ, "compared": compared},
            _severity(column),
        )


def _severity(column: CheckedColumn) -> Severity:
    """No search uses a column that a reshape is still filling."""
    return "info" if column.stage == "arriving" else "critical"


@column_check("short-retired", "info", "short columns that a reshape has replaced")
def short_retired(_context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """A short column that a reshape has replaced and not dropped."""
    if column.stage != "retired":
        return
    size = sum(index.bytes for index in column.indexes)
    yield Problem(
        f"{column.short} is retired and still written with every row, with an index of {shown(size)}",
        "When no application reads it any more: `pgmrl reshape contract`, or op.drop_short.",
        f"SELECT * FROM pgmrl.columns WHERE short_column = {literal(column.short)}",
        {"bytes": size},
    )
