"""Whether searches run as they should: settings that stand in their way, and the plan that the server makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from pgmrl.database.settings import stored_setting
from pgmrl.doctor.examination import Check
from pgmrl.doctor.finding import Finding
from pgmrl.explanation.reasons import reasons
from pgmrl.limits import EF_SEARCH_LIMIT, MAX_SCAN_TUPLES
from pgmrl.measure import sampled_queries
from pgmrl.model.columns import base_column
from pgmrl.names import literal, quoted
from pgmrl.searching.options import shortlist_size
from pgmrl.searching.plans import explained, index_serving
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, SelectBase

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject
    from pgmrl.searching.plans import Node

__all__ = ["CHECKS", "numbers"]

WATCHED: Final = (
    "hnsw.ef_search",
    "hnsw.max_scan_tuples",
    "enable_indexscan",
    "enable_seqscan",
    "session_replication_role",
)

SETTINGS_SQL: Final = f"""SELECT concat_ws(' in ', coalesce('role ' || quote_ident(r.rolname), o.every),
        'database ' || quote_ident(d.datname)) AS place,
    concat_ws(' IN ', coalesce('ROLE ' || quote_ident(r.rolname), upper(o.every)),
        'DATABASE ' || quote_ident(d.datname)) AS altered,
    split_part(c.given, '=', 1) AS name, substr(c.given, strpos(c.given, '=') + 1) AS value
FROM pg_db_role_setting AS s
LEFT JOIN pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
LEFT JOIN (VALUES ('role all')) AS o (every) ON s.setrole = 0 AND s.setdatabase = 0
CROSS JOIN unnest(s.setconfig) AS c (given)
WHERE (s.setdatabase = 0 OR d.datname = current_database())
  AND split_part(c.given, '=', 1) IN ({", ".join(map(literal, WATCHED))})
UNION ALL
SELECT 'the server', 'SYSTEM', name, setting FROM pg_settings
WHERE source IN ('configuration file', 'command line', 'environment variable')
  AND name IN ({", ".join(map(literal, WATCHED))})"""


def numbers(connection: Connection, column: Any) -> tuple[int, int, int]:
    """Results, shortlist and ef_search of a search through a column: as stored, or else the defaults."""
    setting = stored_setting(connection, column)
    if setting is not None:
        return setting.k, setting.shortlist, setting.ef_search
    size = shortlist_size(10)
    return 10, size, min(size, EF_SEARCH_LIMIT)


def settings(exam: Exam) -> Iterator[Finding]:
    """Settings of the server, the database or a role that searches or triggers would suffer from."""
    longest = max(
        (numbers(exam.connection, subject.column)[1] for subject in exam.subjects), default=shortlist_size(10)
    )
    for row in exam.ask(SETTINGS_SQL):
        values = {"place": row.place, "name": row.name, "value": row.value}
        found = _judged(row.name, row.value, longest)
        if found is None:
            continue
        severity, what = found
        yield Finding(
            "settings",
            severity,
            "database",
            f"{row.name} = {row.value} for {row.place}: {what}",
            f"ALTER {row.altered} RESET {row.name};",
            SETTINGS_SQL,
            values,
        )


def _judged(name: str, value: str, longest: int) -> tuple[Any, str] | None:
    """Severity and consequence of a setting; None where there is none."""
    number = int(value) if value.isdecimal() else 0
    off = value in {"off", "false", "no", "0"}
    said = {
        "session_replication_role": (
            value == "replica",
            "critical",
            "triggers do not fire, so that rows are written without their short vectors",
        ),
        "enable_indexscan": (off, "warning", "no search uses an index; each reads all rows"),
        "enable_seqscan": (
            off,
            "info",
            "searches that should read the whole table, such as those with a rare filter, may walk the index",
        ),
        "hnsw.ef_search": (
            number < longest,
            "info",
            f"searches of pgmrl set their own, but SQL written by hand finds no more than {number:,} rows",
        ),
        "hnsw.max_scan_tuples": (
            number < MAX_SCAN_TUPLES,
            "warning" if number < longest else "info",
            f"a scan ends before a shortlist of {longest:,} is full"
            if number < longest
            else f"searches with a filter give up before pgvector's {MAX_SCAN_TUPLES:,} and read all its rows",
        ),
    }
    wrong, severity, what = said[name]
    return (severity, what) if wrong else None


def stored(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """What `pgmrl tune --apply` stored, against pgvector's limits and today's table."""
    setting = stored_setting(exam.connection, subject.column) if subject.serves else None
    if setting is None:
        return
    sql = f"SELECT * FROM pgmrl.settings WHERE relation = {literal(subject.owner)}::regclass"
    if setting.shortlist > EF_SEARCH_LIMIT:
        yield Finding(
            "stored-setting",
            "info",
            subject.name,
            f"its stored shortlist of {setting.shortlist:,} is above {EF_SEARCH_LIMIT:,}, the most that HNSW keeps "
            "at a time: the scan iterates, and its memory grows with it",
            "More short dimensions need a shorter shortlist: `pgmrl tune` compares them.",
            sql,
            {"shortlist": setting.shortlist},
        )
    before, now = setting.row_count, subject.size.rows
    if before and now > exam.thresholds.grown * before:
        yield Finding(
            "stored-setting",
            "warning",
            subject.name,
            f"shortlist {setting.shortlist:,} and ef_search {setting.ef_search:,} were chosen for {before:,} rows, "
            f"there are {now:,} now: a larger table needs more of both for the same recall",
            f"`pgmrl recall {subject.name}` to see, `pgmrl tune {subject.name}` to choose again.",
            sql,
            {"row_count": before, "rows": now},
        )


# -- the plan ------------------------------------------------------------------------------------------------------


def _planned(exam: Exam, subject: Subject) -> tuple[SelectBase, Node]:
    """A search with the vector of a row, and its plan; made once for all checks."""
    key = ("plan", subject.owner, subject.short)
    if key not in exam.known:
        query = sampled_queries(exam.connection, subject.column, 1, seed=exam.seed).vectors[0]
        k, shortlist, ef_search = numbers(exam.connection, subject.column)
        column = base_column(subject.column)
        statement = search(
            select(*column.table.primary_key), column, query, k=k, shortlist=shortlist, ef_search=ef_search
        )
        exam.known[key] = statement, explained(exam.connection, statement, "VERBOSE")["Plan"]
    found: tuple[SelectBase, Node] = exam.known[key]
    return found


def plan(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Whether the shortlist comes through the short index."""
    # without an index that could serve another check says why
    if not subject.serves or not subject.indexed or subject.size.rows < exam.thresholds.small_rows:
        return
    statement, planned = _planned(exam, subject)
    served = index_serving(planned)
    if served.indexes:  # of a partitioned table, small partitions are rightly read whole
        return
    why = "; ".join(reasons(exam.connection, statement, planned))
    operator, short = subject.definition.short_operator, quoted(subject.short)
    row = f"SELECT {short} FROM {subject.owner} WHERE {short} IS NOT NULL LIMIT 1"
    yield Finding(
        "plan",
        "warning",
        subject.name,
        f"a search of {subject.size.rows:,} rows is planned without the short index: {served.instead}. {why}",
        f"ANALYZE {subject.owner};  then the checks `settings` and `statistics`, and random_page_cost (1.1 on SSDs). "
        "`pgmrl explain` shows the whole.",
        f"EXPLAIN SELECT 1 FROM {subject.owner} ORDER BY {short} {operator} ({row}) LIMIT 100",
        {"instead": served.instead, "why": why, "cost": planned["Total Cost"]},
    )


def jit(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Whether each search would be compiled first."""
    if not subject.serves or not subject.indexed:
        return
    sql = (
        "SELECT pg_jit_available() AS available, current_setting('jit')::boolean AS enabled,\n"
        "    current_setting('jit_above_cost')::float8 AS above"
    )
    row = exam.one(sql)
    if not row.enabled:
        return
    cost = float(_planned(exam, subject)[1]["Total Cost"])
    if compiles(row.available, row.above, cost):
        yield Finding(
            "jit",
            "warning",
            subject.name,
            f"a search is planned at a cost of {cost:,.0f}, above jit_above_cost ({row.above:,.0f}): the server "
            "compiles it each time, which takes longer than the search",
            "ALTER DATABASE … SET jit = off;",
            sql,
            {"cost": cost, "jit_above_cost": row.above},
        )


def compiles(available: bool, above: float, cost: float) -> bool:
    """Whether a server that has JIT switched on compiles a statement of this cost; -1 is never."""
    return available and 0 <= above < cost


CHECKS = (
    Check("settings", "critical", "settings of server, database or roles that searches suffer from", once=settings),
    Check("stored-setting", "warning", "a stored setting that no longer fits", each=stored),
    Check("plan", "warning", "a search that the server plans without the short index", each=plan),
    Check("jit", "warning", "searches that the server compiles first", each=jit),
)
