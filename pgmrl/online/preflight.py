"""Before anything runs: what stands in the way of a migration, what it will cost, and what would make it cheaper."""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError, NotMigrated, PgmrlError, PgvectorMissing
from pgmrl.model import ddl
from pgmrl.model.hnsw import Hnsw
from pgmrl.online import backfill, plan
from pgmrl.online.preconditions import check_add, check_owner
from pgmrl.reprs import safe_repr
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from pgmrl.online.index_statements import Build, ShortIndex
    from pgmrl.online.plan import PlannedStep, Size
    from pgmrl.online.target import Target

__all__ = ["LEVELS", "Finding", "check", "parse_size"]

LEVELS: Final = ("error", "warning", "note")  # the worst first

LISTED: Final = 8  # indexes that are named
LONG: Final = 30  # seconds after which a transaction is in the way
UNITS: Final = {"": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know before a migration runs.

    Attributes:
        level: `error` (it would fail), `warning` (it would hurt) or `note`.
        subject: what was looked at, for machines.
        message: what is, and what to do about it.
    """

    level: Literal["error", "warning", "note"]
    subject: str
    message: str


def parse_size(value: str) -> int:
    """Bytes of `50GB`, in PostgreSQL's units.

    Raises:
        ValueError: it is no size.
    """
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?b)?\s*", value.lower())
    if size is None:
        raise ValueError(f"expected a size such as 50GB or 800MB, got {safe_repr(value)}")
    return int(float(size.group(1)) * UNITS[size.group(2) or ""])


def check(
    connection: Connection,
    target: Target,
    planned: Sequence[PlannedStep],
    *,
    by_trigger: bool,
    index: ShortIndex | None = None,
    build: Build | None = None,
    free_space: int | None = None,
    kept: bool = False,
    installs: bool = False,
) -> list[Finding]:
    """Look at everything that can go wrong with adding a short column; reads the catalogue only.

    Args:
        connection: of the database.
        target: the short column.
        planned: the steps that would run.
        by_trigger: whether a trigger keeps the column, so that pgmrl's schema is needed.
        index: the index that would be built.
        build: how.
        free_space: bytes free on the server's disk, where the caller knows.
        kept: the short column is there already and stays, or is not there on purpose.
        installs: pgmrl's schema and the rotation come before it, or with it.

    Returns:
        Findings, the worst first.
    """
    findings = list(_pgvector(connection))
    if any(finding.level == "error" for finding in findings):
        return findings  # nothing else can be looked at
    if not kept:
        findings += _definition(connection, target, by_trigger=by_trigger and not installs)
        findings += _schema(connection) if by_trigger and installs else []
    elif index is not None:
        findings += _rights(connection, target)
    state = table_state(connection, target.schema, target.table)
    if state is None:
        return findings
    size = plan.size_of(connection, target.owner)
    backfilled = any(step.title.startswith("backfill") for step in planned)
    findings += [
        _table(target, planned, size),
        *_rewrites(connection, target, planned, size),
        *_transactions(connection, target.owner),
    ]
    findings += [*_room(connection, planned, free_space), *_replication(connection, backfilled=backfilled)]
    if isinstance(index, Hnsw):
        findings += _memory(connection, target, index, build, size)
    if backfilled:
        findings += [
            *_key(connection, target),
            *_triggers(connection, target.owner),
            *_full_index(connection, target, size),
        ]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _schema(connection: Connection) -> Iterator[Finding]:
    try:
        database.require_schema(connection)
    except NotMigrated as error:
        yield Finding("note", "schema", str(error))


def _definition(connection: Connection, target: Target, *, by_trigger: bool) -> list[Finding]:
    try:
        complete = check_add(connection, target, by_trigger=by_trigger)
    except PgmrlError as error:
        return [Finding("error", "definition", str(error))]
    return [Finding("note", "definition", f"{target.title} is there already and kept in step")] if complete else []


def _rights(connection: Connection, target: Target) -> Iterator[Finding]:
    try:
        check_owner(connection, target.owner)
    except MigrationError as error:
        yield Finding("error", "rights", str(error))


def _pgvector(connection: Connection) -> Iterator[Finding]:
    try:
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            database.check_pgvector(connection)
    except PgvectorMissing as error:
        yield Finding("error", "pgvector", str(error))
        return
    for warning in recorded:
        yield Finding("warning", "pgvector", str(warning.message))


def _table(target: Target, planned: Sequence[PlannedStep], size: Size) -> Finding:
    rewritten = "it is written anew" if any(step.rewrites for step in planned) else "nothing is rewritten under a lock"
    large = f"{shown(size.table)}, {shown(size.total)} with its indexes"
    return Finding("note", "table", f"{target.owner} has about {size.rows:,} rows, {large}; {rewritten}")


def _rewrites(connection: Connection, target: Target, planned: Sequence[PlannedStep], size: Size) -> Iterator[Finding]:
    for step in planned:
        if step.rewrites:
            message = (
                f"{step.title}: all {size.rows:,} rows ({shown(size.table)}) are written anew under {step.lock}: "
                f"nobody reads or writes until it is done{_indexes_too(connection, target)}. The online path does not"
            )
            yield Finding("warning" if size.table > 100_000_000 else "note", "rewrite", message)


def _indexes_too(connection: Connection, target: Target) -> str:
    """What the table's indexes add to a rewrite, the largest first; vector indexes take most of its time."""
    rows = connection.execute(
        text(
            "SELECT x.indexrelid::regclass::text AS name, pg_relation_size(x.indexrelid) AS bytes FROM pg_index AS x "
            "JOIN pg_class AS i ON i.oid = x.indexrelid AND i.relkind = 'i' "
            "WHERE x.indrelid = to_regclass(:owner) "
            "OR x.indrelid IN (SELECT relid FROM pg_partition_tree(to_regclass(:owner))) ORDER BY 2 DESC, 1"
        ),
        {"owner": target.owner},
    ).all()
    if not rows:
        return ""
    listed = ", ".join(f"{row.name} ({shown(row.bytes)})" for row in rows[:LISTED])
    more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    # a generated column rewrites the table and builds its indexes again; an UPDATE adds an entry for every row
    done = "rebuilt under the same lock" if ddl.rule_of(target.definition) == "prefix" else "given every row once more"
    return f"; the indexes there are {done}: {listed}{more}"


def _transactions(connection: Connection, owner: str) -> Iterator[Finding]:
    rows = database.catalogue_result(
        connection,
        text(
            "SELECT a.pid, a.usename, a.state, extract(epoch FROM now() - a.xact_start)::bigint AS seconds, "
            "left(a.query, 60) AS query, EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid "
            "AND l.relation = to_regclass(:owner)) AS holds "
            "FROM pg_stat_activity AS a WHERE a.xact_start < now() - make_interval(secs => :long) "
            "AND a.pid <> pg_backend_pid() AND a.datname = current_database() ORDER BY a.xact_start"
        ),
        {"owner": owner, "long": LONG},
    ).all()
    for row in rows:
        what = "holds the table" if row.holds else "is older than a concurrent build, which will wait for it"
        yield Finding(
            "warning",
            "transaction",
            f"process {row.pid} ({row.usename}, {row.state}, for {row.seconds} s: {row.query}) {what}: let it end, or "
            f"SELECT pg_terminate_backend({row.pid})",
        )
    prepared = database.catalogue_result(
        connection, text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
    ).scalars()
    for gid in prepared:
        message = f"prepared transaction {gid}: a concurrent build waits for it; COMMIT PREPARED or ROLLBACK PREPARED"
        yield Finding("warning", "transaction", message)


def _room(connection: Connection, planned: Sequence[PlannedStep], free_space: int | None) -> Iterator[Finding]:
    needed = sum(step.room for step in planned)
    if needed == 0:
        return
    free = free_space if free_space is not None else _free_here(connection)
    if free is None:
        message = f"about {shown(needed)} of disk are needed; SQL cannot say what is free (--free-space 50GB says it)"
        yield Finding("note", "disk", message)
    elif free < needed:
        yield Finding(
            "error", "disk", f"about {shown(needed)} of disk are needed and {shown(free)} are free: make room"
        )
    else:
        yield Finding("note", "disk", f"about {shown(needed)} of disk are needed, {shown(free)} are free")


def _free_here(connection: Connection) -> int | None:
    """Free bytes under the data directory, where the server is on this machine and says where it lives."""
    local, directory = tuple(
        database.catalogue_result(
            connection,
            text(
                "SELECT inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8', "
                "(SELECT setting FROM pg_settings WHERE name = 'data_directory')"
            ),
        ).one()
    )
    if not local or not directory or not Path(directory).is_dir():
        return None
    return shutil.disk_usage(directory).free


def _memory(connection: Connection, target: Target, index: Hnsw, build: Build | None, size: Size) -> Iterator[Finding]:
    setting = "current_setting('maintenance_work_mem')"
    memory, memory_text = database.catalogue_result(
        connection, text(f"SELECT pg_size_bytes({setting}), {setting}")
    ).one()
    if build is not None and build.maintenance_work_mem is not None:
        memory, memory_text = parse_size(build.maintenance_work_mem), build.maintenance_work_mem
    needed = plan.graph_bytes(target, index, size.rows)
    large = shown(plan.index_bytes(target, index, size.rows))
    sizes = f"the index will be about {large}; its graph is built in {shown(needed)}"
    if needed > memory:
        message = f"{sizes}, maintenance_work_mem is {memory_text}: past it a build is many times slower; give it more"
        yield Finding("warning", "maintenance_work_mem", message)
    else:
        yield Finding("note", "maintenance_work_mem", f"{sizes}, maintenance_work_mem is {memory_text}: it fits")


def _replication(connection: Connection, *, backfilled: bool) -> Iterator[Finding]:
    rows = database.catalogue_result(
        connection,
        text(
            "SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS lag "
            "FROM pg_stat_replication WHERE NOT pg_is_in_recovery()"
        ),
    ).all()
    for row in rows:
        lag = "its lag is not shown to this role (pg_monitor)" if row.lag is None else f"{shown(row.lag)} behind"
        level: Literal["warning", "note"] = "warning" if (row.lag or 0) > 64 * 1024**2 else "note"
        tail = "; the backfill waits while it is more than 64 MB behind" if backfilled else ""
        yield Finding(level, "replication", f"standby {row.application_name}: {lag}{tail}")


def _key(connection: Connection, target: Target) -> Iterator[Finding]:
    try:
        backfill.short_fill(connection, target)
    except MigrationError as error:
        yield Finding("error", "primary key", str(error))
    query = text("SELECT row_security_active(to_regclass(:owner))")
    if database.catalogue_result(connection, query, {"owner": target.owner}).scalar():
        message = (
            f"row-level security hides rows of {target.owner} from this role: run it as the owner or with BYPASSRLS"
        )
        yield Finding("error", "row security", message)


def _triggers(connection: Connection, owner: str) -> Iterator[Finding]:
    names = database.catalogue_result(
        connection,
        text(
            "SELECT t.tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid "
            "WHERE t.tgrelid = to_regclass(:owner) AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') "
            "AND (t.tgtype & 16) <> 0 AND p.proname NOT LIKE 'z_\\_pgmrl\\_%' ORDER BY 1"
        ),
        {"owner": owner},
    ).scalars()
    listed = ", ".join(names)
    if listed:
        message = (
            f"triggers of the application fire for every row that is backfilled: {listed}. Where that is wrong (an "
            "updated_at, an audit log), backfill with --without-triggers"
        )
        yield Finding("warning", "triggers", message)


def _full_index(connection: Connection, target: Target, size: Size) -> Iterator[Finding]:
    names = database.catalogue_result(
        connection,
        text(
            "SELECT i.relname FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid "
            "JOIN pg_am AS m ON m.oid = i.relam AND m.amname IN ('hnsw', 'ivfflat') "
            "WHERE x.indrelid = to_regclass(:owner)"
        ),
        {"owner": target.owner},
    ).scalars()
    listed = ", ".join(names)
    if listed:
        message = (
            f"the table has vector indexes already ({listed}): a backfilled row that finds no room on its page is "
            f"inserted into each once more, up to {size.rows:,} times. It is slow, and bloats them: REINDEX "
            "CONCURRENTLY those that stay; or keep the short vectors in a side table, which leaves this one alone"
        )
        yield Finding("warning", "vector indexes", message)
