"""What was begun and not finished, what nothing uses any more, and SQL functions that no longer fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgmrl.database.table_state import table_state
from pgmrl.doctor.examination import Check
from pgmrl.doctor.finding import Finding
from pgmrl.functions.installed import installed_markers
from pgmrl.functions.searched_column import VERSION
from pgmrl.model import ddl
from pgmrl.names import literal, qualified
from pgmrl.online.jobs import jobs
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject
    from pgmrl.doctor.finding import Severity
    from pgmrl.online.jobs import Job

__all__ = ["CHECKS"]

BACKFILLS_SQL: Final = (
    "SELECT table_schema, table_name, target_column, rows_seen, rows_estimated, state,\n"
    "    now() - updated_at AS silent_for\n"
    "FROM pgmrl.backfills WHERE finished_at IS NULL"
)


def backfills(exam: Exam) -> Iterator[Finding]:
    """Backfills that are not finished."""
    if exam.server.schema is None:
        return
    for job in jobs(exam.connection):
        if job.finished or not exam.concerns(job.table_schema, job.table_name):
            continue
        name = f"{job.table_schema}.{job.table_name}.{job.target_column}"
        values = {"part": job.part, "state": job.state, "idle_seconds": job.idle_seconds}
        severity, said = _said(job, exam.thresholds.idle_seconds)
        message = f"the backfill of {job.target_column} is at {job.part:.0%} and {said}"
        source = f"{job.table_schema}.{job.table_name}.{job.source_column}"
        remedy = (
            "Wait: `pgmrl progress`." if severity == "info" else f"`pgmrl backfill {source}` goes on where it stopped."
        )
        yield Finding("backfill", severity, name, message, remedy, BACKFILLS_SQL, values)


def _said(job: Job, idle: float) -> tuple[Severity, str]:
    if job.state.startswith("failed") or job.state == "stopped":
        return "warning", job.state
    if job.idle_seconds > idle:
        return "warning", f"no worker has reported for {job.idle_seconds / 60:,.0f} min"
    return "info", job.state


def retired(_exam: Exam, subject: Subject) -> Iterator[Finding]:
    """A short column that a reshape has left behind."""
    if subject.stage != "retired":
        return
    size = sum(index.bytes for index in subject.indexes)
    yield Finding(
        "retired",
        "info",
        subject.name,
        f"{subject.short} is retired and still kept by every write, with an index of {shown(size)}",
        "When no application reads it any more: `pgmrl reshape contract`, or op.drop_short.",
        f"SELECT * FROM pgmrl.columns WHERE short_column = {literal(subject.short)}",
        {"bytes": size},
    )


ORPHANS_SQL: Final = """SELECT n.nspname, p.proname, obj_description(p.oid, 'pg_proc') AS says,
    ARRAY(SELECT ARRAY[c.relname::text, a.attname::text] FROM pg_class AS c
          JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('vector', 'halfvec', 'bit')
          WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')) AS vectors
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname LIKE 'zz\\_pgmrl\\_%' AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgfoid = p.oid)"""


def orphans(exam: Exam) -> Iterator[Finding]:
    """Functions that kept a column in step, whose triggers are gone."""
    for row in exam.ask(ORPHANS_SQL) if exam.whole else ():
        name = qualified(row.nspname, row.proname)
        tables = [table for table, column in row.vectors if ddl.sync_trigger_name(table, column) == row.proname]
        values = {"function": name, "table": tables[0] if tables else None}
        if tables:
            message = (
                f"the triggers of {name} are gone from {qualified(row.nspname, tables[0])}: nothing does what it says, "
            )
            message += f"{row.says!r}. New rows are not found"
            remedy = "Run op.add_short (or op.add_side_table) of its migration again, then `pgmrl backfill`."
            yield Finding("keeper-orphan", "critical", "database", message, remedy, ORPHANS_SQL, values)
        else:
            message = f"{name} is left of a table or column that is gone"
            remedy = f"DROP FUNCTION {name}();"
            yield Finding("keeper-orphan", "info", "database", message, remedy, ORPHANS_SQL, values)


# -- SQL functions -------------------------------------------------------------------------------------------------

FUNCTIONS_SQL: Final = "SELECT function_schema, marker FROM pgmrl.function_sets"


def functions(exam: Exam) -> Iterator[Finding]:
    """The sets of SQL functions against the tables they search."""
    for place, marker in installed_markers(exam.connection):
        if not exam.concerns(marker["schema"], marker["table"]):
            continue
        schema = marker["schema"]
        owner = qualified(schema, marker["table"])
        name = f"{place}.{marker['name']}_…"
        column = f"{schema}.{marker['table']}.{marker['column']}"
        usage = f"SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = {literal(schema)}"
        if any(not row[0] for row in exam.ask(usage)):
            exam.skip("functions", column, f"no USAGE on schema {schema}: grant it, or run as its owner")
            continue
        found = _misfit(exam, owner, marker)
        if found is None and marker["version"] != VERSION:
            found = ("info", f"are of version {marker['version']}, this library writes version {VERSION}")
        if found is not None:
            severity, what = found
            yield Finding(
                "functions",
                severity,  # type: ignore[arg-type]  # one of the three
                column,
                f"the SQL functions {name} {what}",
                "Install them again: `pgmrl functions install`, or op.install_functions. Drop those of a table that "
                "is gone: SELECT pgmrl.drop_functions_v1(schema, name);",
                FUNCTIONS_SQL,
                {"functions": name, "short_column": marker["short"], "version": marker["version"]},
            )


def _misfit(exam: Exam, owner: str, marker: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a set of functions, with its severity; None where nothing is."""
    if exam.one(f"SELECT to_regclass({literal(owner)}) AS there").there is None:
        return "critical", f"search {owner}, which is not there (renamed?): each call fails"
    holder = marker["side"] or marker["table"]
    state = table_state(exam.connection, marker["schema"], holder)
    short = None if state is None else state.shorts.get(marker["short"])
    if short is None:
        return "critical", f"search by {holder}.{marker['short']}, which is not there or which nothing keeps in step"
    definition = short.definition
    there = {
        "rule": ddl.rule_of(definition),
        "dims": definition.short.dims,
        "type": definition.short.type,
        "full": f"{definition.full}({definition.dims})",
    }
    other = [
        f"{name} {marker[name]} (now {value})" for name, value in there.items() if marker.get(name, value) != value
    ]
    if other:
        return "critical", f"were made for another {marker['short']}: {', '.join(other)}"
    if short.stage == "retired":
        return "warning", f"search by {marker['short']}, which is retired: they will fail when it is dropped"
    return None


CHECKS = (
    Check("backfill", "warning", "backfills that stopped or failed", once=backfills),
    Check("retired", "info", "short columns that a reshape has left behind", each=retired),
    Check("keeper-orphan", "critical", "keeping functions whose triggers are gone", once=orphans),
    Check("functions", "critical", "SQL functions for another table, column or version", once=functions),
)
