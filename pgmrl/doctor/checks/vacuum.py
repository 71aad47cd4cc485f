"""Dead rows, what keeps VACUUM from removing them, and outdated statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checked_columns import partitions_sql
from pgmrl.doctor.checks.registry import Check, column_check, database_check
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["PRIMARY_ONLY", "autovacuum", "dead_rows", "statistics", "vacuum_blocked"]

PRIMARY_ONLY: Final = "only the primary has these statistics: run the check there"


@column_check("dead-rows", "warning", "dead rows that take places among a scan's candidates")
def dead_rows(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """Dead rows: until VACUUM they are in the HNSW index, where they take places among a scan's candidates."""
    if context.server.standby:
        yield Unchecked(PRIMARY_ONLY)
        return
    sql = (
        "SELECT coalesce(sum(pg_stat_get_live_tuples(p.relid)), 0)::bigint AS live,\n"
        "    coalesce(sum(pg_stat_get_dead_tuples(p.relid)), 0)::bigint AS dead,\n"
        "    max(greatest(pg_stat_get_last_vacuum_time(p.relid),\n"
        "        pg_stat_get_last_autovacuum_time(p.relid))) AS vacuumed\n"
        f"FROM {partitions_sql(literal(column.owner) + '::regclass')} AS p"
    )
    row = context.row(sql)
    # statistics begin anew after a crash or a restore: they may know of fewer rows than ANALYZE counted
    total = max(row.live, column.size.rows) + row.dead
    if not total or row.dead <= context.thresholds.dead_share * total:
        return
    vacuumed = f"last vacuumed {row.vacuumed:%Y-%m-%d %H:%M}" if row.vacuumed else "not vacuumed since statistics began"
    yield Problem(
        f"{row.dead:,} of {total:,} rows are dead ({row.dead / total:.0%}, {vacuumed}): until VACUUM they stay in the "
        "HNSW index and take places among a scan's candidates, so that searches take longer and find less",
        f"VACUUM ANALYZE {column.owner};  and lower its autovacuum_vacuum_scale_factor. Not needed after HOT updates, "
        "whose dead rows are not in the index.",
        sql,
        {"dead": row.dead, "live": row.live, "share": row.dead / total},
    )


def _autovacuum_of_table(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Switched off for the column's table or a partition."""
    sql = (
        "SELECT p.relid::regclass::text AS table\n"
        f"FROM {partitions_sql(literal(column.owner) + '::regclass')} AS p JOIN pg_class AS c ON c.oid = p.relid\n"
        "WHERE EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o\n"
        "              WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)"
    )
    for row in context.rows(sql):
        message = f"autovacuum is off for {row.table}: dead rows stay in the HNSW index, and statistics become outdated"
        yield Problem(message, f"ALTER TABLE {row.table} RESET (autovacuum_enabled);", sql, {"table": row.table})


def _autovacuum_of_server(context: CheckContext) -> Iterator[Problem | Unchecked]:
    """The settings that autovacuum needs."""
    if context.server.standby:
        yield Unchecked(PRIMARY_ONLY)
        return
    sql = "SELECT name FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off' ORDER BY name"
    for row in context.rows(sql):
        message = f"{row.name} is off: no table is vacuumed or analyzed automatically"
        remedy = f"ALTER SYSTEM SET {row.name} = on; SELECT pg_reload_conf();  or RESET it for the database or role"
        yield Problem(message, remedy, sql, {"setting": row.name})


autovacuum = Check(
    "autovacuum",
    "warning",
    "autovacuum switched off",
    on_column=_autovacuum_of_table,
    on_database=_autovacuum_of_server,
)


BLOCKERS_SQL: Final = """SELECT 'process ' || a.pid AS blocker, a.usename AS owner, a.state,
    extract(epoch FROM now() - a.xact_start)::float8 AS seconds,
    'SELECT pg_terminate_backend(' || a.pid || ');' AS remedy
FROM pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' AND a.datname = current_database()
  AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
UNION ALL
SELECT 'prepared transaction ' || quote_literal(p.gid), p.owner, 'prepared',
    extract(epoch FROM now() - p.prepared)::float8,
    'ROLLBACK PREPARED ' || quote_literal(p.gid) || ';  or COMMIT PREPARED'
FROM pg_prepared_xacts AS p WHERE p.database = current_database()
UNION ALL
SELECT 'standby ' || r.application_name, r.usename, 'hot_standby_feedback',
    NULL, 'End the long query on that standby.'
FROM pg_stat_replication AS r WHERE r.backend_xmin IS NOT NULL AND age(r.backend_xmin) > 1000000
UNION ALL
SELECT 'replication slot ' || s.slot_name, s.plugin, CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
    NULL, 'SELECT pg_drop_replication_slot(' || quote_literal(s.slot_name) || ');  where nobody uses it'
FROM pg_replication_slots AS s WHERE s.xmin IS NOT NULL AND (NOT s.active OR age(s.xmin) > 1000000)"""


@database_check("vacuum-blocked", "warning", "old transactions and slots that keep VACUUM from removing dead rows")
def vacuum_blocked(context: CheckContext) -> Iterator[Problem | Unchecked]:
    """What VACUUM must wait for: it removes no row that an old snapshot could still see."""
    if context.server.standby:
        yield Unchecked(PRIMARY_ONLY)
        return
    if not context.server.monitors:
        yield Unchecked(f"transactions of other roles are hidden: GRANT pg_monitor TO {context.server.role}")
    for row in context.rows(BLOCKERS_SQL):
        if row.seconds is not None and row.seconds < context.thresholds.held_seconds:
            continue  # standbys and slots have no age: those listed hold back a million transactions
        age = "" if row.seconds is None else f" for {row.seconds / 60:,.0f} min"
        yield Problem(
            f"{row.blocker} ({row.owner}, {row.state}) has kept VACUUM from removing dead rows{age}: rows that died "
            "since then stay in the HNSW indexes",
            row.remedy,
            BLOCKERS_SQL,
            {"blocker": row.blocker, "seconds": row.seconds},
        )


@column_check("statistics", "warning", "tables never analyzed, or changed much since")
def statistics(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """Never analyzed, or not since much has changed."""
    if context.server.standby:
        yield Unchecked(PRIMARY_ONLY)
        return
    sql = (
        "SELECT p.relid::regclass::text AS table, c.reltuples::bigint AS rows, c.relkind = 'p' AS partitioned,\n"
        "    pg_relation_size(p.relid) AS bytes, pg_stat_get_mod_since_analyze(p.relid) AS modified\n"
        f"FROM {partitions_sql(literal(column.owner) + '::regclass')} AS p JOIN pg_class AS c ON c.oid = p.relid"
    )
    for row in context.rows(sql):
        if row.rows < 0 and (row.bytes > 0 or (row.partitioned and column.size.rows > 0)):
            why = " (autovacuum analyzes only the partitions of a partitioned table)" if row.partitioned else ""
            message = f"{row.table} was never analyzed{why}: the planner guesses its size"
        elif row.modified > max(1_000, context.thresholds.modified_share * max(0, row.rows)):
            message = (
                f"{row.modified:,} rows of {row.table} changed since its last ANALYZE, when it had {row.rows:,}: the "
                "planner estimates from outdated statistics"
            )
        else:
            continue
        values = {"table": row.table, "rows": row.rows, "modified": row.modified}
        yield Problem(message, f"ANALYZE {row.table};", sql, values)
