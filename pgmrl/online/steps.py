"""What each step of a migration runs, and what must be true before it: shared by operations, commands and plans.

A check looks before anything is written: it raises, or says whether there is anything left to do, so that every step
can be run again after a failure.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError, RotationError
from pgmrl.model import ddl
from pgmrl.model.shortening import Rotation
from pgmrl.names import literal, qualified, quoted
from pgmrl.online import index_builds
from pgmrl.online.index_builds import BuildProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.database.table_state import TableState
    from pgmrl.model.hnsw import Hnsw
    from pgmrl.model.shortening import Definition
    from pgmrl.online.backfill import Job
    from pgmrl.online.index_builds import Build
    from pgmrl.online.target import Target

__all__ = [
    "Told",
    "add_in_place",
    "add_online",
    "backfill_script",
    "check_add",
    "check_alter",
    "check_drop",
    "check_owner",
    "check_there",
    "differs",
    "drop_short",
    "has_index",
    "index_script",
    "mark",
    "rebuild_script",
    "remove_rotation",
    "validate",
    "validate_script",
]

log = logging.getLogger("alembic.pgmrl")

SAMPLE = 1_000  # rows whose short vector is computed once more by `validate`
TOLERANCE = 2e-3  # client and server round the last digit of half precision differently


# -- checks --------------------------------------------------------------------------------------------------------


def check_add(connection: Connection, target: Target, *, by_trigger: bool) -> bool:
    """Whether the short column is there and kept in step already.

    Raises:
        MigrationError: no such table or column, a column of another type in the way, or missing rights.
        NotMigrated: a trigger needs a newer schema of pgmrl's.
        RotationError: the rotation is not in this database.
    """
    state = check_table(connection, target)
    there = state.shorts.get(target.short)
    if there is not None:
        if not there.is_for(target.full, target.definition):
            raise MigrationError(
                f"{target.title} is there and is something else ({_said(there.definition)}): give"
                " the new one another name, Short(..., name=...), or use op.alter_short"
            )
        keeper = state.sync_triggers.get(target.short)
        if there.kept_by == "generated":
            return True
        if keeper is not None and keeper.complete and keeper.metric == target.definition.metric.name:
            return True
    taken = state.columns.get(target.short)
    if taken is not None and (taken.type != _plain_type(target) or taken.generated is not None):
        raise MigrationError(
            f"a column {target.title} of type {taken.type} is in the way: rename it, or give Short(..., name=...)"
        )
    if by_trigger:
        _check_keeping(connection, target)
    check_owner(connection, target.owner)
    return False


def check_table(connection: Connection, target: Target) -> TableState:
    """The table's state.

    Raises:
        MigrationError: there is no such table or column, or the full column is of another type.
    """
    database.check_pgvector(connection)
    state = table_state(connection, target.schema, target.table)
    if state is None:
        raise MigrationError(f"there is no table {target.owner}: check its name and schema=")
    full = state.columns.get(target.full)
    if full is None:
        vectors = [name for name, one in state.columns.items() if one.kind in {"vector", "halfvec"}]
        raise MigrationError(
            f"table {target.owner} has no column {target.full!r}; its vector columns: {', '.join(vectors) or 'none'}"
        )
    wanted = f"{target.definition.full}({target.definition.dims})"
    if full.type != wanted:
        raise MigrationError(f"{target.owner}.{target.full} is {full.type}, the definition says {wanted}: correct one")
    return state


def check_there(connection: Connection, target: Target) -> TableState:
    """The table's state, with the short column in it.

    Raises:
        MigrationError: as `check_table`, and where the short column is not there.
    """
    state = check_table(connection, target)
    if target.short not in state.shorts:
        raise MigrationError(f"{target.title} is not there, or nothing keeps it in step: op.add_short comes first")
    return state


def check_drop(connection: Connection, schema: str | None, table: str, short: str) -> bool:
    """Whether there is anything left to drop.

    Raises:
        MigrationError: there is no such table, the column is none of pgmrl's, or missing rights.
    """
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema=")
    if short not in state.columns:
        return short in state.sync_triggers
    if short not in state.shorts and short not in state.sync_triggers:
        shorts = ", ".join(state.shorts) or "none"
        raise MigrationError(f"{table}.{short} is no short column of pgmrl's (there: {shorts}): use op.drop_column")
    check_owner(connection, qualified(schema, table))
    return True


def check_alter(connection: Connection, target: Target) -> bool:
    """Whether the short column still has to become what the definition says.

    Raises:
        MigrationError: as `check_add`.
    """
    state = check_table(connection, target)
    there = state.shorts.get(target.short)
    if there is None:
        raise MigrationError(f"{target.title} is not there: op.add_short adds it")
    if ddl.rule_of(target.definition) != "prefix":
        _check_keeping(connection, target)
    check_owner(connection, target.owner)
    return not there.is_for(target.full, target.definition)


def _check_keeping(connection: Connection, target: Target) -> None:
    database.require_schema(connection)
    by = target.definition.short.by
    if isinstance(by, Rotation) and by.id not in database.installed_rotations(connection):
        raise RotationError(f"rotation {by.id} is not in this database: op.install_rotation comes first")


def check_owner(connection: Connection, owner: str) -> None:
    """Check that this role may change the table.

    Raises:
        MigrationError: it may not, with the role that may.
    """
    row = connection.execute(
        text(
            "SELECT pg_has_role(current_user, c.relowner, 'USAGE') AS may, pg_get_userbyid(c.relowner) AS owner, "
            "has_schema_privilege(c.relnamespace, 'CREATE') AS creates, c.relnamespace::regnamespace AS place, "
            "current_user AS who FROM pg_class AS c WHERE c.oid = to_regclass(:owner)"
        ),
        {"owner": owner},
    ).one()
    if not row.may:
        raise MigrationError(f"{owner} belongs to {row.owner}: run this as {row.owner} (SET ROLE), not as {row.who}")
    if not row.creates:
        raise MigrationError(f"{row.who} may not create functions beside {owner}: GRANT CREATE ON SCHEMA {row.place}")


def _said(definition: Definition) -> str:
    return f"{definition.short_type} by {ddl.rule_of(definition)}"


def _plain_type(target: Target) -> str:
    short = target.definition.short
    return f"{short.type}({short.dims})"


# -- short columns -------------------------------------------------------------------------------------------------


def add_online(target: Target) -> list[str]:
    """A plain column and its triggers: no rewrite, no row read."""
    definition = target.definition
    added = f"ALTER TABLE {target.owner} ADD COLUMN IF NOT EXISTS {quoted(target.short)} {definition.short_type}"
    keeper = ddl.create_short_sync_triggers(definition, target.schema, target.table, target.full)
    return [added, *_inline(target), keeper]


def add_in_place(target: Target) -> list[str]:
    """A generated column, which rewrites the table; or a plain one with triggers, filled at once."""
    definition = target.definition
    if ddl.rule_of(definition) != "prefix":
        return [*add_online(target), *ddl.fill_short(definition, target.schema, target.table, target.full)]
    generated = f"GENERATED ALWAYS AS ({target.value}) STORED"
    added = f"ALTER TABLE {target.owner} ADD COLUMN {quoted(target.short)} {definition.short_type} {generated}"
    return [added, *_inline(target)]


def _inline(target: Target) -> list[str]:
    bits = target.definition.short.type == "bit"
    return [] if bits else [ddl.set_storage(target.owner, target.short, "main")]


def drop_short(schema: str | None, table: str, short: str) -> list[str]:
    """The triggers, their function, the column with its indexes."""
    owner = qualified(schema, table)
    return [ddl.drop_sync_triggers(schema, table, short), f"ALTER TABLE {owner} DROP COLUMN IF EXISTS {quoted(short)}"]


def mark(schema: str | None, table: str, short: str, stage: str | None) -> str:
    """Say in the column's comment that it stands beside another one for a while."""
    said = {
        "arriving": "pgmrl: arriving; the next version of the application reads it",
        "retired": "pgmrl: retired; drop it when nothing reads it any more",
    }
    comment = literal(said[stage]) if stage else "NULL"
    return f"COMMENT ON COLUMN {qualified(schema, table)}.{quoted(short)} IS {comment}"


def remove_rotation(rotation: Rotation) -> str:
    """Remove a rotation that nothing uses; one in use stays."""
    used = f"SELECT FROM pg_trigger AS t WHERE position(convert_to('{rotation.id}', 'UTF8') IN t.tgargs) > 0"
    return f"DELETE FROM pgmrl.rotations WHERE id = '{rotation.id}' AND NOT EXISTS ({used})"


def validate(connection: Connection, target: Target) -> None:
    """Check that no row lacks its short vector, and a sample that each is what the definition says.

    Raises:
        MigrationError: some are missing or differ, with their number.
    """
    check_there(connection, target)
    missing = database.execute_plain(
        connection, f"SELECT count(*) FROM {target.owner} WHERE {target.missing}"
    ).scalar_one()
    if missing:
        raise MigrationError(f"{missing:,} rows of {target.owner} have no {target.short} yet: op.backfill_short first")
    compared, differ = tuple[int, ...](database.execute_plain(connection, sample_statement(target)).one())
    if differ:
        raise MigrationError(
            f"{differ} of {compared} rows looked at have a {target.short} that is not computed from {target.full}: "
            f"UPDATE {target.owner} SET {quoted(target.short)} = NULL, then backfill"
        )
    log.info("%s: every row has its short vector; %s of them compared", target.title, compared)


def differs(target: Target) -> str:
    """The rows whose short vector is not what the definition computes, as SQL text."""
    definition, short = target.definition, quoted(target.short)
    if definition.short.type == "bit":
        return f"{short} <> {target.value}"
    l2, norm = definition.operator("<->"), definition.norm(definition.short.type)
    return f"({short} {l2} {target.value}) > {TOLERANCE} * (1 + {norm}({short}))"


def sample_statement(target: Target) -> str:
    """Compare short vectors of a sample with what the definition computes: how many were looked at, how many differ."""
    short = quoted(target.short)
    owner = f"{literal(target.owner)}::regclass"
    share = (
        f"(SELECT least(100, 100.0 * {2 * SAMPLE} / greatest(1, sum(c.reltuples))) FROM pg_class AS c "
        f"WHERE c.relkind = 'r' AND (c.oid = {owner} OR c.oid IN (SELECT relid FROM pg_partition_tree({owner}))))"
    )
    return (
        f"SELECT count(*), count(*) FILTER (WHERE {differs(target)}) FROM "
        f"(SELECT * FROM {target.owner} TABLESAMPLE SYSTEM ({share}) WHERE {short} IS NOT NULL "
        # the first ones would never be those at the table's end, which were written last
        f"ORDER BY random() LIMIT {SAMPLE}) AS s"
    )


# -- for migrations that are printed -------------------------------------------------------------------------------


def backfill_script(target: Target) -> str:
    """The backfill as one statement that commits as it goes; for `alembic upgrade --sql`, outside a transaction.

    It goes by blocks, since the primary key cannot be looked up when a script is printed.
    """
    owner = literal(target.owner)
    # what `format` takes for its own must be doubled
    short, full, value = (one.replace("%", "%%") for one in (quoted(target.short), quoted(target.full), target.value))
    update = (
        f"UPDATE %s AS t SET {short} = {value} WHERE t.ctid = ANY (ARRAY(SELECT s.ctid FROM %s AS s "
        f"WHERE s.ctid >= format('(%%s,0)', $1)::tid AND s.ctid < format('(%%s,0)', $1 + 200)::tid "
        f"AND s.{short} IS NULL AND s.{full} IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED))"
    )
    return f"""DO $pgmrl$
DECLARE
    leaf regclass;
    leaves regclass[] := coalesce((SELECT array_agg(p.relid) FROM pg_partition_tree({owner}::regclass) AS p
                                   WHERE p.isleaf), ARRAY[{owner}::regclass]);
    part bigint;
    missing bigint;
BEGIN
    FOREACH leaf IN ARRAY leaves LOOP
        part := 0;
        WHILE part * 8192 < pg_relation_size(leaf) LOOP
            PERFORM set_config('pgmrl.computed_by', {literal(ddl.rule_of(target.definition))}, true);
            EXECUTE format({literal(update)}, leaf, leaf) USING part;
            COMMIT;
            part := part + 200;
        END LOOP;
    END LOOP;
    SELECT count(*) INTO missing FROM {target.owner} WHERE {target.missing};
    IF missing > 0 THEN
        RAISE EXCEPTION '% rows were held by others and have no short vector yet', missing
            USING HINT = 'Run this statement again.';
    END IF;
END $pgmrl$"""


def validate_script(target: Target) -> str:
    """The check that no row lacks its short vector, as one statement."""
    return f"""DO $pgmrl$
DECLARE
    missing bigint := (SELECT count(*) FROM {target.owner} WHERE {target.missing});
BEGIN
    IF missing > 0 THEN
        RAISE EXCEPTION '% rows have no short vector yet', missing USING HINT = 'Backfill them first.';
    END IF;
END $pgmrl$"""


def index_script(target: Target, index: Hnsw, how: Build) -> list[str]:
    """Remove an INVALID leftover, then build; outside a transaction."""
    name = index.index_name(target.table, target.short)
    return [
        *_set(how),
        _drop_invalid(target, name),
        index_builds.create_statement(target, index, concurrently=True),
        *_reset(how),
    ]


def rebuild_script(target: Target, index: Hnsw, how: Build) -> list[str]:
    """Build beside the old one, exchange, drop; outside a transaction."""
    name = index.index_name(target.table, target.short)
    new, old = index_builds.beside(name)
    return [
        *_set(how),
        _drop_invalid(target, new),
        index_builds.create_statement(target, index, concurrently=True, name=new),
        *_reset(how),
        "BEGIN",
        *index_builds.rename_statements(target, name, new, old),
        "COMMIT",
        index_builds.drop_statement(target.schema, old),
    ]


def _drop_invalid(target: Target, name: str) -> str:
    place = literal(qualified(target.schema, name))
    return f"""DO $pgmrl$
BEGIN
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass({place}) AND NOT indisvalid) THEN
        EXECUTE {literal(f"DROP INDEX {qualified(target.schema, name)}")};
    END IF;
END $pgmrl$"""


def _set(how: Build) -> Sequence[str]:
    return [f"SET {name} = {literal(value)}" for name, value in how.settings()]


def _reset(how: Build) -> Sequence[str]:
    return [f"RESET {name}" for name, _ in how.settings()]


def has_index(connection: Connection, target: Target, index: Hnsw) -> bool:
    """Whether the index is there and valid, as the definition says."""
    name = index.index_name(target.table, target.short)
    wanted = target.definition.metric.operator_class(target.definition.short.type)
    return any(
        (one.name, one.index, one.operator_class, one.valid) == (name, index, wanted, True)
        for one in index_builds.index_states(connection, target.owner, target.short)
    )


# -- progress in a log ---------------------------------------------------------------------------------------------


class Told:
    """Progress as lines of Alembic's log, one every few seconds."""

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.last = time.monotonic()

    def __call__(self, now: Job | BuildProgress) -> None:
        """Say how far it is, if it is time to."""
        if time.monotonic() - self.last < self.every:
            return
        self.last = time.monotonic()
        if isinstance(now, BuildProgress):
            part = f"{now.done / now.total:.0%} of " if now.total else ""
            log.info("index %s: %s%s", now.index, part, now.phase)
        else:
            log.info("%s: %.0f %%, %s", now.target_column, 100 * now.part, now.state)
