"""Indexes: there, valid, of the right operator class, used, and there once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pgmrl.doctor.examination import Check
from pgmrl.doctor.examined_columns import parts
from pgmrl.doctor.finding import Finding
from pgmrl.model.columns import attachment_of
from pgmrl.names import literal, qualified, quoted
from pgmrl.online.index_statements import beside, create_statement, drop_statement
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.database.index_states import IndexState
    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject

__all__ = ["CHECKS"]


def indexes_sql(subject: Subject) -> str:
    """The statement that lists the indexes on a short column, of any kind."""
    return (
        "SELECT x.indexrelid::regclass AS index, m.amname AS kind, o.opcname AS operator_class, x.indisvalid AS valid, "
        "x.indpred IS NOT NULL AS partial, pg_size_pretty(pg_relation_size(x.indexrelid)) AS size\n"
        "FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS m ON m.oid = i.relam\n"
        "JOIN pg_opclass AS o ON o.oid = x.indclass[0]\n"
        "JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]\n"
        f"WHERE x.indrelid = {literal(subject.owner)}::regclass AND a.attname = {literal(subject.short)}"
    )


def usual_name(subject: Subject) -> str:
    """What models and migrations call the index."""
    return attachment_of(subject.column).index.index_name(subject.target.table, subject.short)


def create_sql(exam: Exam, subject: Subject) -> tuple[str, str]:
    """What builds the index that searches need, and its name: another one where something else has the usual name."""
    name = usual_name(subject)
    place = literal(qualified(subject.target.schema, name))
    if exam.one(f"SELECT to_regclass({place}) IS NOT NULL AS taken").taken:
        name, _ = beside(name)
    # on a partitioned table the server refuses CONCURRENTLY; op.create_short_index goes by partition
    index, online = attachment_of(subject.column).index, not subject.partitioned
    return create_statement(subject.target, index, concurrently=online, name=name), name


def drop_sql(subject: Subject, index: IndexState) -> str:
    """What drops an index; that of a partitioned table not concurrently, which the server refuses."""
    return drop_statement(subject.target.schema, index.name, concurrently=not subject.partitioned)


def missing(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """No HNSW index."""
    sql = indexes_sql(subject)
    if subject.indexes or any(row.valid and not row.partial for row in exam.ask(sql)):
        return
    rows = subject.size.rows
    idle = subject.stage is not None or rows < exam.thresholds.small_rows
    yield Finding(
        "index-missing",
        "info" if idle else "warning",
        subject.name,
        f"{subject.short} has no HNSW index: each search reads all {rows:,} rows",
        f"{create_sql(exam, subject)[0]};  or op.create_short_index in a migration",
        sql,
        {"rows": rows},
    )


def invalid(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """An index that every write keeps and no search uses."""
    for index in subject.indexes:
        if index.valid:
            continue
        name = qualified(subject.target.schema, index.name)
        values = {"index": index.name, "bytes": index.bytes}
        if index.builder is not None:
            message = f"index {index.name} is being built by process {index.builder}"
            yield Finding("index-invalid", "info", subject.name, message, "Wait: `pgmrl progress`.", values=values)
            continue
        message = f"index {index.name} is INVALID, as an interrupted CREATE INDEX CONCURRENTLY leaves it: every write "
        message += "keeps it and no search uses it"
        again, sql = _again(exam, subject, name)
        if subject.indexed:
            remedy = f"{drop_sql(subject, index)};  another index serves"
        elif index.operator_class != subject.operator_class:
            remedy = f"{drop_sql(subject, index)};  it is for another metric than the searches'"
        else:
            message += f", so each search reads all {subject.size.rows:,} rows"
            remedy = again
        yield Finding("index-invalid", "warning", subject.name, message, remedy, sql, values)


def _again(exam: Exam, subject: Subject, name: str) -> tuple[str, str]:
    """What makes an index valid, and the statement that shows what is wrong."""
    if not subject.partitioned:
        return f"REINDEX INDEX CONCURRENTLY {name};", indexes_sql(subject)
    sql = (
        "SELECT t.relid::regclass AS partition_without\n"
        f"FROM pg_partition_tree({literal(subject.owner)}::regclass) AS t\n"
        f"WHERE t.isleaf AND NOT EXISTS (SELECT FROM pg_partition_tree({literal(name)}::regclass) AS i "
        "JOIN pg_index AS x ON x.indexrelid = i.relid WHERE x.indrelid = t.relid AND x.indisvalid)"
    )
    without = ", ".join(str(row[0]) for row in exam.ask(sql))
    return f"Run op.create_short_index again: it builds what is missing on {without or 'its partitions'}.", sql


def operator_class(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """An index for another metric, and none for the searches'."""
    wanted = subject.operator_class
    index = next((one for one in subject.indexes if one.valid and one.operator_class != wanted), None)
    if index is None or subject.indexed:
        return
    if any(one.operator_class == wanted for one in subject.indexes):
        remedy = f"First what `index-invalid` says of the other one;  then {drop_sql(subject, index)};"
    else:
        create, name = create_sql(exam, subject)
        remedy = f"{create};  then {drop_sql(subject, index)};"
        if index.name == usual_name(subject):
            new = qualified(subject.target.schema, name)
            remedy += f"  then ALTER INDEX {new} RENAME TO {quoted(index.name)};"
    yield Finding(
        "index-operator-class",
        "warning",
        subject.name,
        f"index {index.name} is for {index.operator_class}; searches by {subject.definition.metric.name} need {wanted} "
        f"and do not use it: each reads all {subject.size.rows:,} rows",
        remedy,
        indexes_sql(subject),
        {"index": index.name, "operator_class": index.operator_class, "wanted": wanted},
    )


def duplicate(_exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Two indexes for the same searches; the one that migrations know by its name stays, else the best one."""
    alike: dict[str, list[IndexState]] = defaultdict(list)
    for index in subject.indexes:
        if index.valid:
            alike[index.operator_class].append(index)
    for same in alike.values():
        if len(same) < 2:
            continue
        names = ", ".join(f"{one.name} (m={one.index.m}, {shown(one.bytes)})" for one in same)
        known = usual_name(subject)
        keep = max(same, key=lambda one: (one.name == known, one.index.m, one.index.ef_construction, one.name))
        drops = "; ".join(drop_sql(subject, one) for one in same if one is not keep)
        yield Finding(
            "index-duplicate",
            "warning",
            subject.name,
            f"{len(same)} indexes serve the same searches: {names}. Each write enters all of them, and all take memory",
            f"Drop all but {keep.name}: {drops};",
            indexes_sql(subject),
            {"indexes": [one.name for one in same], "bytes": sum(one.bytes for one in same)},
        )


def unused(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Never scanned since the statistics began, while the table was read whole."""
    if subject.stage is not None or subject.size.rows < exam.thresholds.small_rows:
        return
    for index in subject.indexes:
        if not index.valid:
            continue
        sql = _unused_sql(subject, qualified(subject.target.schema, index.name))
        row = exam.one(sql)
        if row.index_scans or row.seconds < exam.thresholds.unused_seconds or not row.counted:
            continue
        elsewhere = row.standbys or exam.server.standby
        severity = "warning" if row.reads >= exam.thresholds.unused_reads and not elsewhere else "info"
        where = " on this server, whose statistics are its own;" if elsewhere else ","
        yield Finding(
            "index-unused",
            severity,  # type: ignore[arg-type]  # two of the three
            subject.name,
            f"no search has used index {index.name} ({shown(index.bytes)}) in {row.seconds / 86_400:,.1f} days{where} "
            f"and its table was read whole {row.reads:,} times",
            "If it is new, wait. Else look at the plan (check `plan`), and whether searches use the metric's operator.",
            sql,
            {"index": index.name, "seconds": row.seconds, "reads": int(row.reads), "bytes": index.bytes},
        )


def _unused_sql(subject: Subject, name: str) -> str:
    return (
        "SELECT (SELECT coalesce(sum(pg_stat_get_numscans(p.relid)), 0)\n"
        f"        FROM {parts(literal(name) + '::regclass')} AS p) AS index_scans,\n"
        "    (SELECT coalesce(sum(pg_stat_get_numscans(p.relid)), 0)\n"
        f"     FROM {parts(literal(subject.owner) + '::regclass')} AS p) AS reads,\n"
        "    extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 AS seconds,\n"
        "    (SELECT count(*) FROM pg_stat_replication) AS standbys,\n"
        "    current_setting('track_counts')::boolean AS counted\n"
        "FROM pg_stat_database AS d WHERE d.datname = current_database()"
    )


CHECKS = (
    Check("index-missing", "warning", "no HNSW index on the short column", each=missing),
    Check("index-invalid", "warning", "an index left INVALID by an interrupted concurrent build", each=invalid),
    Check("index-operator-class", "warning", "an index for another metric than the searches'", each=operator_class),
    Check("index-duplicate", "warning", "several indexes for the same searches", each=duplicate),
    Check("index-unused", "warning", "an index that no search uses, while its table is read whole", each=unused),
)
