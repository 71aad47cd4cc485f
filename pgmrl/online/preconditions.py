"""What must be true before a step of a migration: looked at before anything is written.

A check raises, or says whether there is anything left to do, so that every step can be run again after a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.index_states import filter_index_states, index_states
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError, RotationError
from pgmrl.model import ddl
from pgmrl.model.filter_index import FilterIndex
from pgmrl.model.shortening import Rotation
from pgmrl.names import qualified, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.table_state import TableState
    from pgmrl.model.shortening import Definition
    from pgmrl.online.index_statements import ShortIndex
    from pgmrl.online.target import Target

__all__ = [
    "check_add",
    "check_alter",
    "check_drop",
    "check_owner",
    "check_sees_all_rows",
    "check_stored",
    "check_there",
    "existing_table",
    "has_index",
]


def existing_table(connection: Connection, schema: str | None, table: str) -> TableState:
    """What the catalogue says of a table.

    Raises:
        MigrationError: there is no such table.
    """
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    return state


def check_add(connection: Connection, target: Target, *, by_trigger: bool) -> bool:
    """Whether the short column is there and kept in step already.

    Args:
        connection: of the database.
        target: the short column.
        by_trigger: whether a trigger will keep it, for which pgmrl's schema is needed.

    Raises:
        MigrationError: no such table or column, a column of another type in the way, or missing rights.
        NotMigrated: a trigger needs a newer schema of pgmrl's.
        RotationError: the rotation is not in this database.
    """
    check_stored(target)
    state = check_table(connection, target)
    existing = state.shorts.get(target.short)
    if existing is not None:
        if not existing.is_for(target.full, target.definition):
            raise MigrationError(
                f"{target.title}: expected {_summary(target.full, target.definition)}, "
                f"got {_summary(existing.full, existing.definition)}: give the new one another name, "
                "Short(..., name=...), or use op.alter_short"
            )
        trigger = state.sync_triggers.get(target.short)
        if existing.kept_by == "generated":
            return True
        if trigger is not None and trigger.complete and trigger.metric == target.definition.metric.name:
            return True
    column = state.columns.get(target.short)
    if column is not None and (column.type != _plain_type(target) or column.generated is not None):
        raise MigrationError(
            f"a column {target.title} of type {column.type} is in the way: rename it, or give Short(..., name=...)"
        )
    if by_trigger:
        _check_sync(connection, target)
    check_owner(connection, target.owner)
    if ddl.rule_of(target.definition) != "prefix":  # a generated column is computed whoever sees the rows
        check_sees_all_rows(connection, target.owner)
    return False


def check_stored(target: Target) -> None:
    """Check that the definition has a short column.

    Raises:
        MigrationError: it has none.
    """
    if not target.definition.has_column:
        raise MigrationError(
            f"{target.title} is not stored (stored=False): there is no column to add, fill or check; "
            "op.create_short_index makes its index"
        )


def check_table(connection: Connection, target: Target) -> TableState:
    """The table's state.

    Raises:
        MigrationError: there is no such table or column, or the full column is of another type.
    """
    database.check_pgvector(connection)
    state = existing_table(connection, target.schema, target.table)
    full = state.columns.get(target.full)
    if full is None:
        vectors = [name for name, column in state.columns.items() if column.kind in {"vector", "halfvec"}]
        raise MigrationError(
            f"table {target.owner} has no column {safe_repr(target.full)}; its vector columns: "
            f"{', '.join(vectors) or 'none'}"
        )
    declared = f"{target.definition.full}({target.definition.dims})"
    untyped = full.type == target.definition.full
    if full.type == declared or (untyped and not target.definition.has_column):  # its index says its own dimensions
        return state
    remedy = "correct one"
    if untyped:
        name = target.definition.full.upper()
        remedy = (
            f"a column without dimensions gets them by op.alter_column({target.table!r}, {target.full!r}, "
            f"type_={name}({target.definition.dims})), which autogenerate writes where the model says them; "
            "stored=False needs none"
        )
    raise MigrationError(
        f"{target.owner}.{target.full}: expected {declared} as the definition says, got {full.type}: {remedy}"
    )


def check_there(connection: Connection, target: Target) -> TableState:
    """The table's state, with the short column in it; short vectors that are not stored need none.

    Raises:
        MigrationError: as `check_table`, and where the short column is not there.
    """
    state = check_table(connection, target)
    if target.definition.has_column and target.short not in state.shorts:
        raise MigrationError(f"{target.title} is not there, or nothing keeps it in step: op.add_short comes first")
    return state


def check_drop(connection: Connection, schema: str | None, table: str, short: str) -> bool:
    """Whether there is anything left to drop.

    Raises:
        MigrationError: there is no such table, the column is none of pgmrl's, or missing rights.
    """
    state = existing_table(connection, schema, table)
    if short not in state.columns:
        return short in state.sync_triggers
    if short not in state.shorts and short not in state.sync_triggers:
        shorts = ", ".join(name for name in state.shorts if name in state.columns) or "none"
        raise MigrationError(f"expected a short column of {table} ({shorts}), got {short}: use op.drop_column")
    check_owner(connection, qualified(schema, table))
    return True


def check_alter(connection: Connection, target: Target) -> bool:
    """Whether the short column still has to become what the definition says.

    Raises:
        MigrationError: as `check_add`.
    """
    check_stored(target)
    state = check_table(connection, target)
    existing = state.shorts.get(target.short)
    if existing is None:
        raise MigrationError(f"{target.title} is not there: op.add_short adds it")
    if ddl.rule_of(target.definition) != "prefix":
        _check_sync(connection, target)
    check_owner(connection, target.owner)
    return not existing.is_for(target.full, target.definition)


def _check_sync(connection: Connection, target: Target) -> None:
    database.require_schema(connection)
    by = target.definition.short.by
    if isinstance(by, Rotation) and by.id not in database.installed_rotations(connection):
        raise RotationError(f"rotation {by.id} is not in this database: op.install_rotation comes first")


def check_owner(connection: Connection, owner: str, *, creates: bool = True) -> None:
    """Check that this role may change the table; where there is none, other checks say so.

    Args:
        connection: of the database.
        owner: the table, or an index, as SQL text.
        creates: whether an index or a function comes into its schema.

    Raises:
        MigrationError: it may not, with the role that may.
    """
    row = database.catalogue_result(
        connection,
        text(
            "SELECT pg_has_role(current_user, c.relowner, 'USAGE') AS may, pg_get_userbyid(c.relowner) AS owner, "
            "has_schema_privilege(c.relnamespace, 'CREATE') AS creates, c.relnamespace::regnamespace AS place, "
            "current_user AS who FROM pg_class AS c WHERE c.oid = to_regclass(:owner)"
        ),
        {"owner": owner},
    ).first()
    if row is None:
        return
    if not row.may:
        raise MigrationError(f"{owner} belongs to {row.owner}: run this as {row.owner} (SET ROLE), not as {row.who}")
    if creates and not row.creates:
        raise MigrationError(
            f"{row.who} may not create indexes or functions beside {owner}: GRANT CREATE ON SCHEMA {row.place} TO "
            f"{quoted(row.who)}"
        )


def check_sees_all_rows(connection: Connection, owner: str) -> None:
    """Check that row-level security hides no rows of a table from this role, before it reads or fills all of them.

    Raises:
        MigrationError: it does; under FORCE ROW LEVEL SECURITY also from the table's owner.
    """
    row = database.catalogue_result(
        connection,
        text(
            "SELECT row_security_active(c.oid) AS hidden, c.relforcerowsecurity AS forced, current_user AS who "
            "FROM pg_class AS c WHERE c.oid = to_regclass(:owner)"
        ),
        {"owner": owner},
    ).one()
    if row.hidden:
        remedy = "as a role with BYPASSRLS" if row.forced else "as its owner or as a role with BYPASSRLS"
        more = f", or between ALTER TABLE {owner} NO FORCE and FORCE ROW LEVEL SECURITY" if row.forced else ""
        raise MigrationError(f"row-level security may hide rows of {owner} from {row.who}: run this {remedy}{more}")


def _summary(full: str, definition: Definition) -> str:
    rule, metric = ddl.rule_of(definition), definition.metric.name
    return f"{definition.short_type} by {rule} of {full} {definition.full_type} for {metric}"


def _plain_type(target: Target) -> str:
    short = target.definition.short
    return f"{short.type}({short.dims})"


def has_index(connection: Connection, target: Target, index: ShortIndex, name: str) -> bool:
    """Whether the index of this name is there and valid, as the definition says."""
    if isinstance(index, FilterIndex):
        return any(
            state.name == name and state.valid and state.index.same(index)
            for state in filter_index_states(connection, target.owner, target.short)
        )
    operator_class = target.definition.metric.operator_class(target.definition.short.type)
    return any(
        (state.name, state.index, state.operator_class, state.valid) == (name, index, operator_class, True)
        for state in index_states(connection, target.owner, target.short)
    )
