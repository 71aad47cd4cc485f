"""Dead rows, what keeps VACUUM from them, and stale statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.examination import PRIMARY, Check, Skipped
from pgmrl.doctor.examined_columns import parts
from pgmrl.doctor.finding import Finding
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject

__all__ = ["CHECKS"]


def dead_sql(subject: Subject) -> str:
    """The statement that counts dead rows by the statistics."""
    return (
        "SELECT coalesce(sum(pg_stat_get_live_tuples(p.relid)), 0)::bigint AS live,\n"
        "    coalesce(sum(pg_stat_get_dead_tuples(p.relid)), 0)::bigint AS dead,\n"
        "    max(greatest(pg_stat_get_last_vacuum_time(p.relid),\n"
        "        pg_stat_get_last_autovacuum_time(p.relid))) AS vacuumed\n"
        f"FROM {parts(literal(subject.owner) + '::regclass')} AS p"
    )


def dead(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Dead rows: still in the HNSW index, where they take places of a scan's candidates."""
    if exam.server.standby:
        raise Skipped(PRIMARY)
    sql = dead_sql(subject)
    row = exam.one(sql)
    # statistics begin anew after a crash or a restore: they may know of fewer rows than ANALYZE counted
    whole = max(row.live, subject.size.rows) + row.dead
    if not whole or row.dead <= exam.thresholds.dead_share * whole:
        return
    vacuumed = f"last vacuumed {row.vacuumed:%Y-%m-%d %H:%M}" if row.vacuumed else "never vacuumed since"
    yield Finding(
        "dead-rows",
        "warning",
        subject.name,
        f"{row.dead:,} of {whole:,} rows are dead ({row.dead / whole:.0%}, {vacuumed}): until VACUUM they stay in the "
        "HNSW index and take places of a scan's candidates, so that searches take longer and find less",
        f"VACUUM ANALYZE {subject.owner};  and lower its autovacuum_vacuum_scale_factor. Not done after a HOT update, "
        "whose dead row is not in the index; then it is harmless.",
        sql,
        {"dead": row.dead, "live": row.live, "share": row.dead / whole},
    )


def autovacuum(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Switched off, for the table or everywhere."""
    sql = (
        "SELECT p.relid::regclass::text AS table\n"
        f"FROM {parts(literal(subject.owner) + '::regclass')} AS p JOIN pg_class AS c ON c.oid = p.relid\n"
        "WHERE EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o\n"
        "              WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)"
    )
    for row in exam.ask(sql):
        message = f"autovacuum is off for {row.table}: dead rows stay in the HNSW index, and statistics go stale"
        remedy = f"ALTER TABLE {row.table} RESET (autovacuum_enabled);"
        yield Finding("autovacuum", "warning", subject.name, message, remedy, sql, {"table": row.table})


def autovacuum_anywhere(exam: Exam) -> Iterator[Finding]:
    """The settings that autovacuum needs."""
    if exam.server.standby:
        raise Skipped(PRIMARY)
    sql = "SELECT name FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off' ORDER BY name"
    for row in exam.ask(sql):
        message = f"{row.name} is off: no table is vacuumed or analyzed by itself"
        remedy = f"ALTER SYSTEM SET {row.name} = on; SELECT pg_reload_conf();  or RESET it for the database or role"
        yield Finding("autovacuum", "warning", "database", message, remedy, sql, {"setting": row.name})


HOLDERS_SQL = """SELECT 'process ' || a.pid AS holder, a.usename AS who, a.state,
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


def held(exam: Exam) -> Iterator[Finding]:
    """What VACUUM must wait for: it removes no row that an old snapshot could still see."""
    if exam.server.standby:
        raise Skipped(PRIMARY)
    if not exam.server.monitors:
        reason = f"transactions of other roles are hidden: GRANT pg_monitor TO {exam.server.role}"
        exam.skip("vacuum-held", "database", reason)
    for row in exam.ask(HOLDERS_SQL):
        if row.seconds is not None and row.seconds < exam.thresholds.held_seconds:
            continue  # of a standby and of a slot nobody knows the age: those listed hold back a million transactions
        age = "" if row.seconds is None else f" for {row.seconds / 60:,.0f} min"
        yield Finding(
            "vacuum-held",
            "warning",
            "database",
            f"{row.holder} ({row.who}, {row.state}) holds VACUUM back{age}: rows that died since "
            "stay in the HNSW indexes",
            row.remedy,
            HOLDERS_SQL,
            {"holder": row.holder, "seconds": row.seconds},
        )


def statistics(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Never analyzed, or not since much has changed."""
    if exam.server.standby:
        raise Skipped(PRIMARY)
    sql = (
        "SELECT p.relid::regclass::text AS table, c.reltuples::bigint AS rows, c.relkind = 'p' AS partitioned,\n"
        "    pg_relation_size(p.relid) AS bytes, pg_stat_get_mod_since_analyze(p.relid) AS modified\n"
        f"FROM {parts(literal(subject.owner) + '::regclass')} AS p JOIN pg_class AS c ON c.oid = p.relid"
    )
    for row in exam.ask(sql):
        if row.rows < 0 and (row.bytes > 0 or (row.partitioned and subject.size.rows > 0)):
            why = ": autovacuum does not analyze partitioned tables, only their partitions" if row.partitioned else ""
            message = f"{row.table} was never analyzed{why}; the planner guesses its size"
        elif row.modified > max(1_000, exam.thresholds.modified_share * max(0, row.rows)):
            message = (
                f"{row.modified:,} rows of {row.table} changed since its last ANALYZE, when it had {row.rows:,}: the "
            )
            message += "planner counts on the old ones"
        else:
            continue
        values = {"table": row.table, "rows": row.rows, "modified": row.modified}
        yield Finding("statistics", "warning", subject.name, message, f"ANALYZE {row.table};", sql, values)


CHECKS = (
    Check("dead-rows", "warning", "dead rows that take places among a scan's candidates", each=dead),
    Check("autovacuum", "warning", "autovacuum switched off", each=autovacuum, once=autovacuum_anywhere),
    Check("vacuum-held", "warning", "old transactions and slots that hold VACUUM back", once=held),
    Check("statistics", "warning", "tables never analyzed, or changed much since", each=statistics),
)
