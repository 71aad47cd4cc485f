"""Rows without a vector that an index can hold, and the counts of rows that other checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.names import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["hidden_rows", "row_counts", "rows_unfindable", "sample_clause"]


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows by what is wrong with their vectors.

    Attributes:
        sql: the statement that counted them.
        examined: rows that were read.
        total: rows of the table, an estimate where not all were read.
        exact: whether all were read.
        without_full: rows without a full vector.
        zero: rows whose vector has no direction, under cosine.
        without_short: rows with a full vector and no short one.

    """

    sql: str
    examined: int
    total: int
    exact: bool
    without_full: int
    zero: int
    without_short: int

    def describe(self, count: int) -> str:
        """A count of the rows read, for people."""
        if self.exact:
            return f"{count:,} of {self.total:,} rows"
        return f"about {self._of_all(count):,} of {self.total:,} rows ({count:,} of {self.examined:,} examined)"

    def values(self, count: int) -> dict[str, int | bool]:
        """A count of the rows read, for machines."""
        return {
            "rows": self._of_all(count),
            "of": self.total,
            "found": count,
            "examined": self.examined,
            "exact": self.exact,
        }

    def _of_all(self, count: int) -> int:
        return count if self.exact else round(count / max(1, self.examined) * self.total)


def row_counts(context: CheckContext, column: CheckedColumn) -> RowCounts:
    """A column's rows, counted once for all checks: exactly in a small table, else in a sample of its pages."""
    key = (row_counts, column.owner, column.short)
    if key not in context.cache:
        context.cache[key] = _count(context, column)
    counts: RowCounts = context.cache[key]
    return counts


def _count(context: CheckContext, column: CheckedColumn) -> RowCounts:
    definition, full = column.definition, quoted(column.target.full)
    short = definition.short_sql(column.target.full)
    zero = "false"
    if definition.metric.normalise:  # else a zero vector has a distance, and its place in the index
        bit = definition.short.type == "bit"
        vector, type_ = (full, definition.full) if bit else (short, definition.short.type)
        zero = f"{definition.norm(type_)}({vector}) = 0"
    sample = sample_clause(context, column.size.rows)
    sql = (
        "SELECT count(*) AS examined,\n"
        f"    count(*) FILTER (WHERE {full} IS NULL) AS without_full,\n"
        f"    count(*) FILTER (WHERE {zero}) AS zero,\n"
        f"    count(*) FILTER (WHERE {full} IS NOT NULL AND {short} IS NULL) AS without_short\n"
        f"FROM {column.owner}{sample}"
    )
    row = context.row(sql)
    total = column.size.rows if sample else row.examined
    return RowCounts(sql, row.examined, total, not sample, row.without_full, row.zero, row.without_short)


def sample_clause(context: CheckContext, rows: int) -> str:
    """What follows a table's name to read only a sample of a large table; empty for a small one."""
    limit = context.thresholds.exact_rows
    return "" if rows <= limit else f" TABLESAMPLE SYSTEM ({100 * limit / rows:.6g}) REPEATABLE ({int(context.seed)})"


def hidden_rows(context: CheckContext, column: CheckedColumn) -> Iterator[Unchecked]:
    """That row-level security hides rows from the role, where it does."""
    if context.row(f"SELECT row_security_active({literal(column.owner)}::regclass) AS active").active:
        yield Unchecked(f"row-level security hides rows from {context.server.role}: run as the owner or with BYPASSRLS")


@column_check("rows-unfindable", "warning", "rows with NULL or zero vectors, which no search finds")
def rows_unfindable(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """NULL and zero vectors."""
    if not column.serves:
        return
    yield from hidden_rows(context, column)
    counts = row_counts(context, column)
    full = column.target.full
    if counts.without_full:
        many = counts.without_full > context.thresholds.null_share * counts.examined
        yield Problem(
            f"{counts.describe(counts.without_full)} have no vector ({full} IS NULL): no search finds them",
            f"Embed them: SELECT … FROM {column.owner} WHERE {quoted(full)} IS NULL;",
            counts.sql,
            {"kind": "null", **counts.values(counts.without_full)},
            "warning" if many else "info",
        )
    if counts.zero:
        kind = "zero"
        if column.definition.may_lose_direction:
            kind = f"zero, at least in its leading {column.definition.short.dims} dimensions"
        yield Problem(
            f"{counts.describe(counts.zero)} have a vector that is {kind}: under cosine no search finds them",
            "Embed them again, or store NULL; Matryoshka(..., forbid_zero=True) rejects zero vectors.",
            counts.sql,
            {"kind": "zero", **counts.values(counts.zero)},
        )
