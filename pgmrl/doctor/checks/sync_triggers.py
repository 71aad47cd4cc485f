"""The triggers that keep short columns and side tables in step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checked_columns import partitions_sql
from pgmrl.doctor.checks.registry import column_check, database_check
from pgmrl.doctor.finding import Problem
from pgmrl.model import ddl
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["sync_function_orphan", "sync_trigger"]


@column_check("sync-trigger", "critical", "triggers that keep short vectors in step: missing or disabled")
def sync_trigger(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The triggers of a short column, and those that fill its side table."""
    if column.sync_trigger is not None:
        task = f"{column.short} in step with {column.target.full}"
        yield from _triggers(context, column.owner, column.sync_trigger.name, task, "op.add_short")
    if column.source is not None:
        task = f"side table {column.owner} in step with {column.source.owner}"
        yield from _triggers(context, column.source.owner, column.source.sync_function, task, "op.add_side_table")


def _triggers(context: CheckContext, owner: str, name: str, task: str, operation: str) -> Iterator[Problem]:
    sql = (
        "SELECT p.relid::regclass::text AS table, n.name AS trigger, t.tgenabled::text AS enabled\n"
        f"FROM {partitions_sql(literal(owner) + '::regclass')} AS p\n"
        f"CROSS JOIN (VALUES ({literal(name)}), ({literal(name + '_u')})) AS n (name)\n"
        "LEFT JOIN pg_trigger AS t ON t.tgrelid = p.relid AND t.tgname = n.name\n"
        "WHERE t.tgenabled IS NULL OR t.tgenabled NOT IN ('O', 'A')"
    )
    for row in context.rows(sql):
        missing = row.enabled is None
        state = "is missing" if missing else "is disabled" if row.enabled == "D" else "fires on replicas only"
        remedy = f"ALTER TABLE {row.table} ENABLE TRIGGER {quoted(row.trigger)};"
        if missing:
            remedy = f"Run {operation} of its migration again."
        yield Problem(
            f"trigger {row.trigger} on {row.table} {state}: nothing keeps {task}",
            f"{remedy}  Then see the checks `short-missing` and `short-differs`.",
            sql,
            {"table": row.table, "trigger": row.trigger, "enabled": row.enabled},
        )


ORPHANS_SQL: Final = """SELECT n.nspname, p.proname, obj_description(p.oid, 'pg_proc') AS comment,
    ARRAY(SELECT ARRAY[c.relname::text, a.attname::text] FROM pg_class AS c
          JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('vector', 'halfvec', 'bit')
          WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')) AS vectors
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname LIKE 'zz\\_pgmrl\\_%' AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgfoid = p.oid)"""


@database_check("sync-function-orphan", "critical", "trigger functions of short columns whose triggers are gone")
def sync_function_orphan(context: CheckContext) -> Iterator[Problem]:
    """Functions that kept a column in step, whose triggers are gone."""
    for row in context.rows(ORPHANS_SQL) if context.all_columns else ():
        name = qualified(row.nspname, row.proname)
        tables = [table for table, column in row.vectors if ddl.sync_trigger_name(table, column) == row.proname]
        values = {"function": name, "table": tables[0] if tables else None}
        if tables:
            yield Problem(
                f"the triggers of function {name} ({row.comment}) are gone from {qualified(row.nspname, tables[0])}: "
                "new rows get no short vector, and no search finds them",
                "Run op.add_short (or op.add_side_table) of its migration again, then `pgmrl backfill`.",
                ORPHANS_SQL,
                values,
            )
        else:
            message = f"function {name} belongs to a table or column that was dropped"
            yield Problem(message, f"DROP FUNCTION {name}();", ORPHANS_SQL, values, "info")
