"""What a change of tables left behind: columns that nothing keeps in step, rows of pgmrl's own about what is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext

__all__ = ["leftover_rows", "unkept_column"]

# A short column is known by what computes it. One that nothing computes looks like one that something does: a partition
# that was detached and a table made by LIKE ... INCLUDING ALL have the column and its index without the triggers.
UNKEPT_SQL: Final = """SELECT n.nspname, c.relname, s.attname AS short, f.attname AS "full", k.kept
FROM (
    SELECT g.tgrelid, substring(g.tgqual::text FROM 'varattno (\\d+)')::int2 AS number,
        encode(g.tgargs, 'escape') AS arguments, min(g.tgrelid::regclass::text) AS kept
    FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
    WHERE p.proname LIKE 'zz\\_pgmrl\\_%' AND g.tgnargs = 4 AND g.tgparentid = 0 GROUP BY 1, 2, 3
) AS k
JOIN pg_attribute AS ks ON ks.attrelid = k.tgrelid AND ks.attnum = k.number
JOIN pg_attribute AS s ON s.attname = ks.attname AND s.atttypid = ks.atttypid AND s.atttypmod = ks.atttypmod
    AND s.attrelid <> k.tgrelid AND s.attgenerated = '' AND NOT s.attisdropped
JOIN pg_class AS c ON c.oid = s.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
JOIN pg_namespace AS n ON n.oid = c.relnamespace AND has_schema_privilege(n.oid, 'USAGE')
JOIN pg_attribute AS f ON f.attrelid = c.oid AND NOT f.attisdropped
    AND encode(convert_to(f.attname, 'UTF8'), 'escape') = split_part(k.arguments, '\\000', 1)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
    WHERE g.tgrelid = c.oid AND p.proname LIKE 'zz\\_pgmrl\\_%'
      AND substring(g.tgqual::text FROM 'varattno (\\d+)')::int2 = s.attnum
)
ORDER BY 1, 2, 3"""


@database_check("unkept-column", "critical", "short columns without triggers: of detached partitions, of copied tables")
def unkept_column(context: CheckContext) -> Iterator[Problem]:
    """A column like a short one that a trigger keeps elsewhere, which nothing keeps here."""
    for row in context.rows(UNKEPT_SQL) if context.all_columns else ():
        table = qualified(row.nspname, row.relname)
        yield Problem(
            f"{table}.{row.short} is like the short column of {row.kept}, and nothing keeps it in step with "
            f"{row.full}: new and changed rows of this table have none or a wrong one. A detached partition or a "
            "copied table (LIKE ... INCLUDING ALL) loses the triggers",
            f"op.add_short(..., online=True) as for {row.kept}, on {table}, then "
            f"`pgmrl backfill {row.nspname}.{row.relname}.{row.full} --repair`; or "
            f"ALTER TABLE {table} DROP COLUMN {quoted(row.short)};",
            UNKEPT_SQL,
            {"table": table, "column": row.short, "like": row.kept},
            subject=f"{row.nspname}.{row.relname}.{row.full}",
        )


# (table, what it says about a row, the condition that what a row is about is gone)
_COLUMN_GONE: Final = (
    "NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = o.relation AND a.attname = o.full_column "
    "AND NOT a.attisdropped)"
)
LEFTOVERS: Final = (
    ("settings", "o.relation::text || '.' || o.full_column", _COLUMN_GONE),
    ("queries", "o.relation::text || '.' || o.full_column", _COLUMN_GONE),
    ("recall_history", "o.relation::text || '.' || o.full_column", _COLUMN_GONE),
    (
        "backfills",
        "o.table_schema || '.' || o.table_name || '.' || o.target_column",
        (
            "NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped "
            "WHERE (n.nspname, c.relname, a.attname) = (o.table_schema, o.table_name, o.target_column))"
        ),
    ),
)


@database_check("leftover-rows", "info", "rows of pgmrl's own tables about tables and columns that are gone")
def leftover_rows(context: CheckContext) -> Iterator[Problem]:
    """Settings, named queries, recall and backfills of what was dropped or renamed."""
    if context.server.schema is None or not context.all_columns:
        return
    for table, name, gone in LEFTOVERS:
        if not context.row(f"SELECT has_table_privilege('pgmrl.{table}', 'SELECT') AS reads").reads:
            continue  # others keep backfills
        sql = f"SELECT count(*) AS rows, min({name}) AS example FROM pgmrl.{table} AS o WHERE {gone}"
        row = context.row(sql)
        if row.rows:
            yield Problem(
                f"{row.rows:,} rows of pgmrl.{table} are about a table or column that is not there, such as "
                f"{row.example}: it was dropped or renamed, and no search or command finds them",
                f"Renamed: UPDATE their names. Dropped: DELETE FROM pgmrl.{table} AS o WHERE {gone};",
                sql,
                {"table": table, "rows": row.rows},
            )
