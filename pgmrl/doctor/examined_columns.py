"""What is examined: each short column with all that the checks need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table

from pgmrl import database
from pgmrl.database.check_schema import check_types, rows_of
from pgmrl.database.reflection import reflect, reflect_place
from pgmrl.database.table_state import table_state
from pgmrl.doctor.finding import Finding, NotChecked
from pgmrl.errors import NotMigrated
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.names import qualified
from pgmrl.online.plan import size_of
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, Connection

    from pgmrl.database.catalogue import ColumnInfo
    from pgmrl.database.index_states import IndexState
    from pgmrl.database.table_state import SyncTrigger
    from pgmrl.model.shortening import Definition
    from pgmrl.online.plan import Size

__all__ = ["Side", "Subject", "parts", "subjects"]


@dataclass(frozen=True, slots=True)
class Side:
    """The application's table whose vectors are copied into a side table.

    Attributes:
        owner: that table as SQL text.
        keeper: the function that copies, with its triggers.
        full: the vector's column there, named alike in the side table.

    """

    owner: str
    keeper: str
    full: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A short column.

    Attributes:
        name: `schema.table.column` of the full vector.
        target: where it is and what it is to be; as the model declares it, or else as the catalogue says.
        indexes: HNSW indexes on it, partial ones left out.
        keeper: the trigger that keeps it in step; None for a generated column.
        size: of the table that holds it.
        stage: `arriving` or `retired` while a reshape has two short columns side by side; else None.
        partitioned: whether its table is a partitioned one.
        side: the table it is copied from, where it is in a side table.
        column: to search with.
        serves: whether searches by `column` go through this short column, not another one of the same vector.

    """

    name: str
    target: Target
    indexes: tuple[IndexState, ...]
    keeper: SyncTrigger | None
    size: Size
    stage: str | None
    partitioned: bool
    side: Side | None
    column: Any
    serves: bool

    @property
    def owner(self) -> str:
        """Its table as SQL text."""
        return self.target.owner

    @property
    def short(self) -> str:
        """Its name."""
        return self.target.short

    @property
    def definition(self) -> Definition:
        """Full and short vector."""
        return self.target.definition

    @property
    def operator_class(self) -> str:
        """The operator class that searches need, without a schema."""
        return self.definition.metric.operator_class(self.definition.short.type)

    @property
    def indexed(self) -> bool:
        """Whether a valid index of this operator class is there."""
        return any(one.valid and one.operator_class == self.operator_class for one in self.indexes)


def parts(relation: str) -> str:
    """A subquery `relid` of a table or index and all its partitions; the argument is SQL text of a regclass."""
    return f"(SELECT {relation} AS relid UNION SELECT p.relid FROM pg_partition_tree({relation}) AS p)"


def subjects(connection: Connection, asked: Iterable[Any]) -> tuple[list[Subject], list[Finding], list[NotChecked]]:
    """The short columns that were asked for, or all of the database.

    Args:
        connection: of the database.
        asked: Matryoshka attributes or columns, or names as `reflect` takes them; empty for all.

    Returns:
        The short columns, findings for those that the database does not have as they are declared, and those in schemas
        that the role may not use.

    Raises:
        NotMigrated: a name is of no table or column in the database.
        DefinitionError: a name has another form, or something else is no Matryoshka column.

    """
    infos = database.columns(connection)
    sides = _sides(connection)
    found: dict[tuple[str, str, str], Subject] = {}
    missing: list[Finding] = []
    given = list(asked)
    chosen: list[tuple[ColumnInfo, Any]] = [(info, None) for info in infos] if not given else []
    for one in given:
        declared = not isinstance(one, str)
        column = one if declared else reflect(connection, one)
        own, problem = _declared(connection, column, infos) if declared else _named(column, infos, sides)
        chosen += [(info, column if declared else None) for info in own]
        missing += [problem] if problem else []
    closed, not_checked = _closed(connection), {}
    for info, model in chosen:
        place = (info.table_schema, info.table_name, info.short_column)
        if info.table_schema in closed:
            reason = f"no USAGE on schema {info.table_schema}: grant it, or run as its owner"
            not_checked[place] = NotChecked("all", name_of(info), reason)
            continue
        subject = None if place in found else _subject(connection, info, model, sides, infos)
        if subject is not None:
            found[place] = subject
    return list(found.values()), missing, list(not_checked.values())


def name_of(info: ColumnInfo) -> str:
    """How a column is called in findings."""
    return f"{info.table_schema}.{info.table_name}.{info.full_column}"


def _closed(connection: Connection) -> set[str]:
    """The schemas that this role may not use: what is in them cannot be looked up by name."""
    query = "SELECT nspname FROM pg_namespace WHERE NOT has_schema_privilege(oid, 'USAGE')"
    return set(database.execute_plain(connection, query).scalars())


def _declared(connection: Connection, column: Any, infos: list[ColumnInfo]) -> tuple[list[ColumnInfo], Finding | None]:
    """The catalogue's rows for a column of a model."""
    attachment, table = attachment_of(column), vectors_table(column)
    name = f"{table.fullname}.{attachment.full}"
    try:
        check_types(connection, table, attachment)
    except NotMigrated as error:
        remedy = "Run the application's migrations (`alembic upgrade head`), or correct the model."
        return [], Finding("model", "critical", name, f"{error}.", remedy)
    if attachment.short is None:
        message = (
            "the model's rotation has not been learned: there are no short vectors, and each search reads every row"
        )
        return [], Finding(
            "model", "warning", name, message, f"`pgmrl fit-rotation {name}`, then pin the id in the model."
        )
    own = rows_of(connection, table, attachment, infos)
    by = attachment.definition.short.by
    wanted = getattr(by, "id", None)
    if own and own[0].rotation == wanted:
        return own, None
    short = f"{name.rpartition('.')[0]}.{attachment.short}"
    kept = own[0].rotation or "a prefix" if own else ""
    said = f"is kept by {kept}, the model says {wanted or 'a prefix'}" if own else "is kept in step by nothing"
    message = f"{short} {said}: searches rank by short vectors that are not those of the rows"
    return [], Finding("model", "critical", name, message, "Run the migration that adds it, or correct the model.")


def _named(
    column: Column[Any], infos: list[ColumnInfo], sides: dict[str, Side]
) -> tuple[list[ColumnInfo], Finding | None]:
    """The catalogue's rows for a column by name; of its side table, where it has one."""
    table = column.table
    assert isinstance(table, Table)  # noqa: S101 - reflect made it
    own = [
        info
        for info in infos
        if (info.table_schema, info.table_name, info.full_column) == (table.schema, table.name, column.name)
    ]
    if own:
        return own, None
    owner = qualified(table.schema, table.name)
    for info in infos:
        side = sides.get(qualified(info.table_schema, info.table_name))
        if side is not None and (side.owner, side.full) == (owner, column.name):
            own.append(info)
    if own:
        return own, None
    name = f"{table.fullname}.{column.name}"
    message = "there are no short vectors beside it: each search reads every row"
    remedy = "Add a short column: `pgmrl fit-rotation` and op.add_short, see docs/existing.md."
    return [], Finding("model", "warning", name, message, remedy)


def _subject(
    connection: Connection, info: ColumnInfo, model: Any, sides: dict[str, Side], infos: list[ColumnInfo]
) -> Subject | None:
    state = table_state(connection, info.table_schema, info.table_name)
    there = None if state is None else state.shorts.get(info.short_column)
    if state is None or there is None:  # dropped a moment ago, or a subvector that is none of pgmrl's
        return None
    definition = there.definition if model is None else attachment_of(model).definition
    column = model
    if column is None:  # by the name's parts: each may have dots of its own
        column = reflect_place(connection, info.table_schema, info.table_name, info.full_column, infos=infos)
    target = Target(info.table_name, info.full_column, definition, info.table_schema)
    return Subject(
        name=name_of(info),
        target=target,
        indexes=there.indexes,
        keeper=state.sync_triggers.get(info.short_column) if there.kept_by == "trigger" else None,
        size=size_of(connection, target.owner),
        stage=info.stage,
        partitioned=state.partitioned,
        side=sides.get(target.owner),
        column=column,
        serves=attachment_of(column).short == info.short_column,
    )


_SIDES: Final = """
SELECT DISTINCT n.nspname, c.relname, p.proname, s.nspname AS side_schema, v.relname AS side_table
FROM pg_trigger AS g
JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zz\\_pgmrl\\_%'
JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
-- CASE: the arguments of somebody else's triggers are not looked at. By names: to_regclass fails without USAGE
CROSS JOIN LATERAL (SELECT CASE WHEN g.tgnargs = 1 AND p.proname LIKE 'zz\\_pgmrl\\_%'
    THEN parse_ident(convert_from(rtrim(g.tgargs, '\\x00'::bytea), 'UTF8')) END AS place) AS a
JOIN pg_namespace AS s ON s.nspname = a.place[1]
JOIN pg_class AS v ON v.relnamespace = s.oid AND v.relname = a.place[2]
WHERE NOT g.tgisinternal AND g.tgparentid = 0
  AND has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(s.oid, 'USAGE')
"""


def _sides(connection: Connection) -> dict[str, Side]:
    """The tables that are copied into side tables, by the side table as SQL text."""
    found = {}
    for row in database.execute_plain(connection, _SIDES).all():
        state = table_state(connection, row.nspname, row.relname)
        for side in state.sides if state else ():
            if side.name == row.proname:
                name = qualified(row.side_schema, row.side_table)
                found[name] = Side(qualified(row.nspname, row.relname), side.name, side.full)
    return found
