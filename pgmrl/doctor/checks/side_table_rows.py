"""The rows of a side table against those of the table they are copied from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.checks.rows import sample_clause
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.names import literal, quoted
from pgmrl.online.plan import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["side_table"]


@column_check("side-table", "critical", "rows that are missing in a side table or have another vector there")
def side_table(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """Rows that are missing in the side table or differ there, on a sample."""
    source = column.source
    if source is None:
        return
    primary_key = context.rows(
        "SELECT a.attname FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid "
        f"AND a.attnum = ANY (x.indkey) WHERE x.indisprimary AND x.indrelid = {literal(column.owner)}::regclass"
    )
    if not primary_key:
        yield Unchecked(f"{column.owner} has no primary key to compare its rows with those of {source.owner} by")
        return
    keys = [quoted(row.attname) for row in primary_key]
    same_key = " AND ".join(f"s.{key} = t.{key}" for key in keys)
    full, definition = quoted(source.full), column.definition
    copied = f"t.{full}::{definition.full_type}"
    sample = sample_clause(context, size_of(context.connection, source.owner).rows)
    not_equal = definition.operator("<>")
    sql = (
        "SELECT count(*) AS examined,\n"
        f"    count(*) FILTER (WHERE s.{keys[0]} IS NULL) AS missing,\n"
        f"    count(*) FILTER (WHERE s.{full} {not_equal} {copied}\n"
        f"        OR (s.{full} IS NULL) <> (t.{full} IS NULL) AND s.{keys[0]} IS NOT NULL) AS different\n"
        f"FROM {source.owner} AS t{sample} LEFT JOIN {column.owner} AS s ON {same_key}"
    )
    yield from _orphans(context, column, source.owner, keys)
    row = context.row(sql)
    if row.missing or row.different:
        names = ", ".join(keys)
        yield Problem(
            f"of {row.examined:,} rows of {source.owner} examined, {row.missing:,} are missing in its side table and "
            f"{row.different:,} have another vector there: searches do not find them, or rank them by a wrong distance",
            # without its WHERE it would write every row anew
            f"INSERT INTO {column.owner} AS s ({names}, {full}) SELECT {names}, {full} FROM {source.owner} "
            f"ON CONFLICT ({names}) DO UPDATE SET {full} = EXCLUDED.{full} "
            f"WHERE s.{full} {not_equal} EXCLUDED.{full} OR (s.{full} IS NULL) <> (EXCLUDED.{full} IS NULL);",
            sql,
            {"missing": row.missing, "different": row.different, "examined": row.examined},
        )


def _orphans(context: CheckContext, column: CheckedColumn, owner: str, keys: list[str]) -> Iterator[Problem]:
    """Rows whose row in the application's table is gone: the foreign key was dropped, or did not fire."""
    sample = sample_clause(context, size_of(context.connection, column.owner).rows)
    gone = f"NOT EXISTS (SELECT FROM {owner} AS t WHERE ({', '.join(f's.{key}' for key in keys)}) = "
    gone += f"({', '.join(f't.{key}' for key in keys)}))"
    sql = f"SELECT count(*) AS orphans FROM {column.owner} AS s{sample} WHERE {gone}"
    orphans = context.row(sql).orphans
    if orphans:
        yield Problem(
            f"{orphans:,} rows examined of side table {column.owner} have no row in {owner} any more: they take places "
            "of shortlists. They were deleted while foreign keys did not fire (session_replication_role), or without "
            "one",
            f"DELETE FROM {column.owner} AS s WHERE {gone};",
            sql,
            {"orphans": orphans},
            "warning",
        )
