"""Settings of the server, the database or a role that impair searches, and settings that tuning has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgmrl.database.settings import stored_setting as load_setting
from pgmrl.doctor.checks.registry import column_check, database_check
from pgmrl.doctor.finding import Problem
from pgmrl.limits import EF_SEARCH_LIMIT, MAX_SCAN_TUPLES
from pgmrl.names import literal
from pgmrl.searching.options import shortlist_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.doctor.finding import Severity

__all__ = ["SearchNumbers", "search_numbers", "settings", "stored_setting"]

CHECKED_SETTINGS: Final = (
    "hnsw.ef_search",
    "hnsw.max_scan_tuples",
    "enable_indexscan",
    "enable_seqscan",
    "session_replication_role",
)

SETTINGS_SQL: Final = f"""SELECT concat_ws(' in ', coalesce('role ' || quote_ident(r.rolname), o.every),
        'database ' || quote_ident(d.datname)) AS holder,
    concat_ws(' IN ', coalesce('ROLE ' || quote_ident(r.rolname), upper(o.every)),
        'DATABASE ' || quote_ident(d.datname)) AS altered,
    split_part(c.entry, '=', 1) AS name, substr(c.entry, strpos(c.entry, '=') + 1) AS value
FROM pg_db_role_setting AS s
LEFT JOIN pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
LEFT JOIN (VALUES ('role all')) AS o (every) ON s.setrole = 0 AND s.setdatabase = 0
CROSS JOIN unnest(s.setconfig) AS c (entry)
WHERE (s.setdatabase = 0 OR d.datname = current_database())
  AND split_part(c.entry, '=', 1) IN ({", ".join(map(literal, CHECKED_SETTINGS))})
UNION ALL
SELECT 'the server', 'SYSTEM', name, setting FROM pg_settings
WHERE source IN ('configuration file', 'command line', 'environment variable')
  AND name IN ({", ".join(map(literal, CHECKED_SETTINGS))})"""


class SearchNumbers(NamedTuple):
    """What recall depends on, besides the rows.

    Attributes:
        k: results.
        shortlist: rows ranked exactly.
        ef_search: candidates that HNSW keeps.

    """

    k: int
    shortlist: int
    ef_search: int


def search_numbers(connection: Connection, column: Any) -> SearchNumbers:
    """The numbers of a column's searches: as stored, or else the defaults."""
    setting = load_setting(connection, column)
    if setting is not None:
        return SearchNumbers(setting.k, setting.shortlist, setting.ef_search)
    size = shortlist_size(10)
    return SearchNumbers(10, size, min(size, EF_SEARCH_LIMIT))


@database_check("settings", "critical", "settings of the server, the database or a role that impair searches")
def settings(context: CheckContext) -> Iterator[Problem]:
    """Settings that impair searches or keep triggers from firing."""
    shortlists = [search_numbers(context.connection, column.searched).shortlist for column in context.columns]
    longest = max(shortlists, default=shortlist_size(10))
    for row in context.rows(SETTINGS_SQL):
        effect = _effect(row.name, row.value, longest)
        if effect is not None:
            severity, consequence = effect
            yield Problem(
                f"{row.name} = {row.value} for {row.holder}: {consequence}",
                f"ALTER {row.altered} RESET {row.name};",
                SETTINGS_SQL,
                {"holder": row.holder, "name": row.name, "value": row.value},
                severity,
            )


def _effect(name: str, value: str, longest: int) -> tuple[Severity, str] | None:
    """Severity and consequence of a setting; None where it does no harm."""
    number = int(value) if value.isdecimal() else 0
    off = value in {"off", "false", "no", "0"}
    scan_severity: Severity = "warning"
    scan_consequence = f"a scan ends before it has the {longest:,} rows of a shortlist"
    if number >= longest:
        scan_severity = "info"
        scan_consequence = (
            f"scans with a filter end before pgvector's default of {MAX_SCAN_TUPLES:,} rows, and all rows "
        )
        scan_consequence += "that pass the filter are read"
    effects: dict[str, tuple[bool, Severity, str]] = {
        "session_replication_role": (
            value == "replica",
            "critical",
            "triggers do not fire, so that rows are written without their short vectors",
        ),
        "enable_indexscan": (off, "warning", "no search uses an index; each reads all rows"),
        "enable_seqscan": (
            off,
            "info",
            "searches for which a sequential scan is best, such as those with a rare filter, may use the index",
        ),
        "hnsw.ef_search": (
            number < longest,
            "info",
            f"searches of pgmrl set their own value, but SQL written by hand finds at most {number:,} rows",
        ),
        "hnsw.max_scan_tuples": (number < MAX_SCAN_TUPLES, scan_severity, scan_consequence),
    }
    harmful, severity, consequence = effects[name]
    return (severity, consequence) if harmful else None


@column_check("stored-setting", "warning", "a stored setting that no longer fits the table")
def stored_setting(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """What `pgmrl tune --apply` stored, against pgvector's limits and today's table."""
    setting = load_setting(context.connection, column.searched) if column.serves else None
    if setting is None:
        return
    sql = f"SELECT * FROM pgmrl.settings WHERE relation = {literal(column.owner)}::regclass"
    if setting.shortlist > EF_SEARCH_LIMIT:
        yield Problem(
            f"the stored shortlist of {setting.shortlist:,} is above {EF_SEARCH_LIMIT:,}, the maximum of "
            "hnsw.ef_search: the scan iterates, and takes more memory",
            "More short dimensions need a shorter shortlist: `pgmrl tune` compares them.",
            sql,
            {"shortlist": setting.shortlist},
            "info",
        )
    before, now = setting.row_count, column.size.rows
    if before and now > context.thresholds.grown * before:
        yield Problem(
            f"shortlist {setting.shortlist:,} and ef_search {setting.ef_search:,} were chosen for {before:,} rows, the "
            f"table has {now:,} now: a larger table needs more of both for the same recall",
            f"`pgmrl recall {column.name}` to measure, `pgmrl tune {column.name}` to choose again.",
            sql,
            {"row_count": before, "rows": now},
        )
