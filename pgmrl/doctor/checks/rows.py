"""Rows that no search finds, short vectors that are not their full vector's, and what keeps them in step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.doctor.examination import Check, Skipped
from pgmrl.doctor.examined_columns import parts
from pgmrl.doctor.finding import Finding
from pgmrl.names import literal, quoted
from pgmrl.online.plan import size_of
from pgmrl.online.validation import differs, sample_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject
    from pgmrl.doctor.finding import Severity

__all__ = ["CHECKS"]


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows by what is wrong with their vectors.

    Attributes:
        sql: the statement that counted them.
        looked_at: rows that were read.
        rows: rows of the table, an estimate where not all were read.
        exact: whether all were read.
        absent: rows without a full vector.
        zero: rows whose vector has no direction, under cosine.
        short: rows with a full vector and no short one.

    """

    sql: str
    looked_at: int
    rows: int
    exact: bool
    absent: int
    zero: int
    short: int

    def told(self, count: int) -> str:
        """So many of the rows that were read, for people."""
        if self.exact:
            return f"{count:,} of {self.rows:,} rows"
        whole = round(count / max(1, self.looked_at) * self.rows)
        return f"about {whole:,} of {self.rows:,} rows ({count:,} of {self.looked_at:,} looked at)"

    def values(self, count: int) -> dict[str, int | bool]:
        """The same for machines."""
        whole = count if self.exact else round(count / max(1, self.looked_at) * self.rows)
        return {"rows": whole, "of": self.rows, "found": count, "looked_at": self.looked_at, "exact": self.exact}


def counted(exam: Exam, subject: Subject) -> Counted:
    """Count once for all checks: exactly in a small table, else in a sample of its pages."""
    key = ("counted", subject.owner, subject.short)
    if key not in exam.known:
        exam.known[key] = _count(exam, subject)
    found: Counted = exam.known[key]
    return found


def _count(exam: Exam, subject: Subject) -> Counted:
    definition, full, short = subject.definition, quoted(subject.target.full), quoted(subject.short)
    zero = "false"
    if definition.metric.normalise:  # else a zero vector has a distance, and its place in the index
        one, kind = (full, definition.full) if definition.short.type == "bit" else (short, definition.short.type)
        zero = f"{definition.norm(kind)}({one}) = 0"
    rows = subject.size.rows
    share = sampled(exam, rows)
    sql = (
        "SELECT count(*) AS looked_at,\n"
        f"    count(*) FILTER (WHERE {full} IS NULL) AS absent,\n"
        f"    count(*) FILTER (WHERE {zero}) AS zero,\n"
        f"    count(*) FILTER (WHERE {full} IS NOT NULL AND {short} IS NULL) AS short\n"
        f"FROM {subject.owner}{share}"
    )
    row = exam.one(sql)
    whole = row.looked_at if not share else rows
    return Counted(sql, row.looked_at, whole, not share, row.absent, row.zero, row.short)


def sampled(exam: Exam, rows: int) -> str:
    """What follows a table's name, so that of many rows only some are read; empty for a table of few."""
    most = exam.thresholds.exact_rows
    return "" if rows <= most else f" TABLESAMPLE SYSTEM ({100 * most / rows:.6g}) REPEATABLE ({int(exam.seed)})"


def unfindable(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """NULL and zero vectors."""
    if not subject.serves:
        return
    _note_hidden(exam, subject, "rows-unfindable")
    found = counted(exam, subject)
    column = subject.target.full
    if found.absent:
        many = found.absent > exam.thresholds.null_share * found.looked_at
        yield Finding(
            "rows-unfindable",
            "warning" if many else "info",
            subject.name,
            f"{found.told(found.absent)} have no vector ({column} IS NULL): no search finds them",
            f"Embed them: SELECT … FROM {subject.owner} WHERE {quoted(column)} IS NULL;",
            found.sql,
            {"kind": "null", **found.values(found.absent)},
        )
    if found.zero:
        kind = "zero"
        if subject.definition.may_lose_direction:
            kind = f"zero, at least in its leading {subject.definition.short.dims} dimensions"
        yield Finding(
            "rows-unfindable",
            "warning",
            subject.name,
            f"{found.told(found.zero)} have a vector that is {kind}: under cosine no search finds them",
            "Embed them again, or store NULL; Matryoshka(..., forbid_zero=True) keeps zero vectors out.",
            found.sql,
            {"kind": "zero", **found.values(found.zero)},
        )


def short_missing(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """A full vector without its short one."""
    _note_hidden(exam, subject, "short-missing")
    found = counted(exam, subject)
    if not found.short:
        return
    yield Finding(
        "short-missing",
        _while_reshaping(subject),
        subject.name,
        f"{found.told(found.short)} have a full vector and no short one ({subject.short} IS NULL): no search finds "
        "them. They were written while the trigger was off (session_replication_role, DISABLE TRIGGER), or a "
        "backfill is not finished",
        f"`pgmrl backfill {subject.name}`, or UPDATE {subject.owner} SET {quoted(subject.short)} = "
        f"{subject.target.value} WHERE {subject.target.missing};",
        found.sql,
        found.values(found.short),
    )


def short_differs(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Short vectors that are not computed from their full one, on a sample."""
    if subject.keeper is None:  # the server itself computes a generated column
        return
    sql = sample_statement(subject.target)
    compared, differ = tuple[int, ...](exam.one(sql))
    if not differ:
        return
    target = subject.target
    yield Finding(
        "short-differs",
        _while_reshaping(subject),
        subject.name,
        f"{differ:,} of {compared:,} rows looked at have a {subject.short} that is not computed from their "
        f"{subject.target.full}: searches look for them in the wrong place. They were written past the trigger",
        # not IS DISTINCT FROM, which looks for `=` on the search_path
        f"UPDATE {target.owner} SET {quoted(target.short)} = {target.value} WHERE {differs(target)};  in batches on a "
        "large table",
        sql,
        {"differ": differ, "compared": compared},
    )


def _while_reshaping(subject: Subject) -> Severity:
    return "info" if subject.stage == "arriving" else "critical"


def _note_hidden(exam: Exam, subject: Subject, check: str) -> None:
    hidden = exam.one(f"SELECT row_security_active({literal(subject.owner)}::regclass) AS active").active
    if hidden:
        reason = f"row-level security hides rows from {exam.server.role}: run it as the owner or with BYPASSRLS"
        exam.skip(check, subject.name, reason)


# -- what keeps them in step ---------------------------------------------------------------------------------------


def keeper(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """The triggers of a short column, and those that fill its side table."""
    if subject.keeper is not None:
        what = f"{subject.short} in step with {subject.target.full}"
        yield from _triggers(exam, subject, subject.owner, subject.keeper.name, what)
    if subject.side is not None:
        what = f"side table {subject.owner} in step with {subject.side.owner}"
        yield from _triggers(exam, subject, subject.side.owner, subject.side.keeper, what)


def _triggers(exam: Exam, subject: Subject, owner: str, name: str, what: str) -> Iterator[Finding]:
    sql = (
        "SELECT p.relid::regclass::text AS table, n.name AS trigger, t.tgenabled::text AS enabled\n"
        f"FROM {parts(literal(owner) + '::regclass')} AS p\n"
        f"CROSS JOIN (VALUES ({literal(name)}), ({literal(name + '_u')})) AS n (name)\n"
        "LEFT JOIN pg_trigger AS t ON t.tgrelid = p.relid AND t.tgname = n.name\n"
        "WHERE t.tgenabled IS NULL OR t.tgenabled NOT IN ('O', 'A')"
    )
    for row in exam.ask(sql):
        gone = row.enabled is None
        said = "is missing" if gone else "is disabled" if row.enabled == "D" else "fires on replicas only"
        add = "op.add_short" if owner == subject.owner else "op.add_side_table"
        remedy = (
            f"Run {add} of its migration again."
            if gone
            else f"ALTER TABLE {row.table} ENABLE TRIGGER {quoted(row.trigger)};"
        )
        yield Finding(
            "keeper",
            "critical",
            subject.name,
            f"trigger {row.trigger} on {row.table} {said}: nothing keeps {what}",
            f"{remedy}  Then look at `short-missing` and `short-differs`.",
            sql,
            {"table": row.table, "trigger": row.trigger, "enabled": row.enabled},
        )


def side_table(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Rows that the side table lacks or has otherwise, on a sample."""
    side = subject.side
    if side is None:
        return
    keys = exam.ask(
        "SELECT a.attname FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid "
        f"AND a.attnum = ANY (x.indkey) WHERE x.indisprimary AND x.indrelid = {literal(subject.owner)}::regclass"
    )
    if not keys:
        raise Skipped(f"{subject.owner} has no primary key, by which its rows are compared with those of {side.owner}")
    same = " AND ".join(f"s.{quoted(key[0])} = t.{quoted(key[0])}" for key in keys)
    full, definition = quoted(side.full), subject.definition
    named = ", ".join(quoted(key[0]) for key in keys)
    listed = f"{named}, {full}"
    copied = f"t.{full}::{definition.full_type}"
    share = sampled(exam, size_of(exam.connection, side.owner).rows)
    not_equal = definition.operator("<>")
    sql = (
        "SELECT count(*) AS looked_at,\n"
        f"    count(*) FILTER (WHERE s.{quoted(keys[0][0])} IS NULL) AS missing,\n"
        f"    count(*) FILTER (WHERE s.{full} {not_equal} {copied}\n"
        f"        OR (s.{full} IS NULL) <> (t.{full} IS NULL) AND s.{quoted(keys[0][0])} IS NOT NULL) AS other\n"
        f"FROM {side.owner} AS t{share} LEFT JOIN {subject.owner} AS s ON {same}"
    )
    row = exam.one(sql)
    if row.missing or row.other:
        yield Finding(
            "side-table",
            "critical",
            subject.name,
            f"of {row.looked_at:,} rows of {side.owner} looked at, {row.missing:,} are not in its side table and "
            f"{row.other:,} have another vector there: searches do not find them, or in the wrong place",
            # without its WHERE it would write every row anew
            f"INSERT INTO {subject.owner} AS s ({listed}) SELECT {listed} FROM {side.owner} "
            f"ON CONFLICT ({named}) DO UPDATE SET {full} = EXCLUDED.{full} "
            f"WHERE s.{full} {not_equal} EXCLUDED.{full} OR (s.{full} IS NULL) <> (EXCLUDED.{full} IS NULL);",
            sql,
            {"missing": row.missing, "other": row.other, "looked_at": row.looked_at},
        )


CHECKS = (
    Check("rows-unfindable", "warning", "rows with NULL or zero vectors, which no search finds", each=unfindable),
    Check("short-missing", "critical", "rows with a full vector and no short one", each=short_missing),
    Check("short-differs", "critical", "short vectors that are not computed from their full one", each=short_differs),
    Check("keeper", "critical", "triggers that keep short vectors in step: missing or disabled", each=keeper),
    Check("side-table", "critical", "rows that a side table lacks or has otherwise", each=side_table),
)
