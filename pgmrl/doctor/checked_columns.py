"""The short columns to check, each with what the checks need to know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Table

from pgmrl import database
from pgmrl.database.check_schema import check_column_types, short_column_infos
from pgmrl.database.reflection import reflect, reflect_place
from pgmrl.database.table_state import table_state
from pgmrl.doctor.finding import NotChecked, Problem
from pgmrl.errors import NotMigrated, PgmrlError
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.names import qualified
from pgmrl.online.plan import size_of
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Connection

    from pgmrl.database.catalogue import ColumnInfo
    from pgmrl.database.index_states import IndexState
    from pgmrl.database.table_state import SyncTrigger
    from pgmrl.model.shortening import Definition
    from pgmrl.online.plan import Size

__all__ = ["CheckedColumn", "SideTableSource", "checked_columns", "partitions_sql"]


@dataclass(frozen=True, slots=True)
class SideTableSource:
    """The application's table whose vectors are copied into a side table.

    Attributes:
        owner: the table as SQL text.
        sync_function: name of the trigger function that copies; its triggers have names that begin with it.
        full: the vectors' column there; the side table's has the same name.

    """

    owner: str
    sync_function: str
    full: str


@dataclass(frozen=True, slots=True)
class CheckedColumn:
    """A short column with what the checks need to know of it.

    Attributes:
        name: `schema.table.column` of the full vector.
        target: the column and its definition: as the model declares it, or else as the catalogue has it.
        indexes: HNSW indexes on it, without partial ones.
        partial_indexes: those.
        sync_trigger: the trigger that keeps it in step; None for a generated column.
        size: size of its table.
        stage: `arriving` or `retired` while a reshape has two short columns side by side; else None.
        partitioned: whether its table is partitioned.
        source: the table it is copied from, where it is in a side table; else None.
        searched: the column object to search with.
        serves: whether searches of `searched` go through this short column, not another one of the same vector.
        reflected: whether `searched` is as the catalogue has it: each of its names has its schema.

    """

    name: str
    target: Target
    indexes: tuple[IndexState, ...]
    partial_indexes: tuple[IndexState, ...]
    sync_trigger: SyncTrigger | None
    size: Size
    stage: str | None
    partitioned: bool
    source: SideTableSource | None
    searched: Any
    serves: bool
    reflected: bool

    @property
    def all_indexes(self) -> tuple[IndexState, ...]:
        """The HNSW indexes on it, partial ones last."""
        return self.indexes + self.partial_indexes

    @property
    def owner(self) -> str:
        """Its table as SQL text."""
        return self.target.owner

    @property
    def short(self) -> str:
        """The short column's name."""
        return self.target.short

    @property
    def definition(self) -> Definition:
        """The definition of the full and the short vector."""
        return self.target.definition

    @property
    def operator_class(self) -> str:
        """The operator class that searches need, without a schema."""
        return self.definition.metric.operator_class(self.definition.short.type)

    @property
    def indexed(self) -> bool:
        """Whether there is a valid index of this operator class."""
        return any(index.valid and index.operator_class == self.operator_class for index in self.indexes)


class Selection(NamedTuple):
    """The columns that a caller asked for.

    Attributes:
        columns: the short columns to check.
        mismatches: columns that the database does not have as they are declared.
        not_checked: columns in schemas that the role may not use.

    """

    columns: Sequence[CheckedColumn]
    mismatches: Sequence[Problem]
    not_checked: Sequence[NotChecked]


def partitions_sql(relation: str) -> str:
    """A subquery `relid` of a table or index and all its partitions; the argument is SQL text of a regclass."""
    return f"(SELECT {relation} AS relid UNION SELECT p.relid FROM pg_partition_tree({relation}) AS p)"


def checked_columns(connection: Connection, columns: Iterable[Any]) -> Selection:
    """The short columns of some columns, or of the whole database.

    Args:
        connection: a connection to the database.
        columns: Matryoshka attributes or columns, or names as `reflect` takes them; empty for all.

    Raises:
        NotMigrated: there is no table or column of a name in the database.
        DefinitionError: a name has another form, or something else is not a Matryoshka column.

    """
    infos = database.columns(connection)
    sources = _side_table_sources(connection)
    selected: list[tuple[ColumnInfo, Any]] = []
    mismatches: list[Problem] = []
    names_or_columns = list(columns)
    if not names_or_columns:
        selected = [(info, None) for info in infos]
    for name_or_column in names_or_columns:
        if isinstance(name_or_column, str):
            declared, (own, problem) = None, _by_name(reflect(connection, name_or_column), infos, sources)
        else:
            declared, (own, problem) = name_or_column, _as_declared(connection, name_or_column, infos)
        selected += [(info, declared) for info in own]
        mismatches += [problem] if problem else []
    unusable = _unusable_schemas(connection)
    checked: dict[tuple[str, str, str], CheckedColumn] = {}
    not_checked: dict[tuple[str, str, str], NotChecked] = {}
    for info, declared in selected:
        key = (info.table_schema, info.table_name, info.short_column)
        if info.table_schema in unusable:
            reason = f"no USAGE on schema {info.table_schema}: grant it, or run as its owner"
            not_checked[key] = NotChecked("all", _full_name(info), reason)
        elif key not in checked:
            try:
                column = _checked_column(connection, info, declared, sources, infos)
            except PgmrlError as error:  # what the catalogue holds may be anybody's
                not_checked[key] = NotChecked("all", _full_name(info), str(error))
                continue
            if column is not None:
                checked[key] = column
    return Selection(list(checked.values()), mismatches, list(not_checked.values()))


def _full_name(info: ColumnInfo) -> str:
    return f"{info.table_schema}.{info.table_name}.{info.full_column}"


def _unusable_schemas(connection: Connection) -> set[str]:
    """The schemas that this role may not use: what is in them cannot be looked up by name."""
    query = "SELECT nspname FROM pg_namespace WHERE NOT has_schema_privilege(oid, 'USAGE')"
    return set(database.execute_plain(connection, query).scalars())


def _as_declared(
    connection: Connection, column: Any, infos: list[ColumnInfo]
) -> tuple[list[ColumnInfo], Problem | None]:
    """The catalogue's rows for a column of a model."""
    attachment, table = attachment_of(column), vectors_table(column)
    name = f"{table.fullname}.{attachment.full}"
    try:
        check_column_types(connection, table, attachment)
    except NotMigrated as error:
        remedy = "Run the application's migrations (`alembic upgrade head`), or correct the model."
        return [], Problem(f"{error}.", remedy, subject=name)
    if attachment.short is None:
        message = (
            "the model's rotation has not been learned: there are no short vectors, and each search reads all rows"
        )
        remedy = f"`pgmrl fit-rotation {name}`, then set the id in the model."
        return [], Problem(message, remedy, severity="warning", subject=name)
    own = short_column_infos(connection, table, attachment, infos)
    expected = getattr(attachment.definition.short.by, "id", None)
    if own and own[0].rotation == expected:
        return own, None
    short = f"{name.rpartition('.')[0]}.{attachment.short}"
    message = f"nothing keeps {short} in step with {attachment.full}"
    if own:
        message = f"{short} is computed by {_shortening(own[0].rotation)}, expected {_shortening(expected)} as declared"
    message += ": searches rank by short vectors that do not belong to their rows"
    return [], Problem(message, "Run the migration that adds it, or correct the model.", subject=name)


def _shortening(rotation: str | None) -> str:
    return "a prefix" if rotation is None else f"rotation {rotation}"


def _by_name(
    column: Column[Any], infos: list[ColumnInfo], sources: dict[str, SideTableSource]
) -> tuple[list[ColumnInfo], Problem | None]:
    """The catalogue's rows for a reflected column; those of its side table, where it has one."""
    table = column.table
    assert isinstance(table, Table)  # noqa: S101 - reflect made it
    key = (table.schema, table.name, column.name)
    own = [info for info in infos if (info.table_schema, info.table_name, info.full_column) == key]
    if own:
        return own, None
    owner = qualified(table.schema, table.name)
    for info in infos:
        source = sources.get(qualified(info.table_schema, info.table_name))
        if source is not None and (source.owner, source.full) == (owner, column.name):
            own.append(info)
    if own:
        return own, None
    message = "there are no short vectors for this column: each search reads all rows"
    remedy = "Add a short column: `pgmrl fit-rotation` and op.add_short, see docs/existing.md."
    return [], Problem(message, remedy, severity="warning", subject=f"{table.fullname}.{column.name}")


def _checked_column(
    connection: Connection,
    info: ColumnInfo,
    declared: Any,
    sources: dict[str, SideTableSource],
    infos: list[ColumnInfo],
) -> CheckedColumn | None:
    state = table_state(connection, info.table_schema, info.table_name)
    short = None if state is None else state.shorts.get(info.short_column)
    if state is None or short is None:  # dropped a moment ago, or a subvector that is not pgmrl's
        return None
    definition = short.definition
    if declared is not None:
        definition = replace(attachment_of(declared).definition, vector_schema=definition.vector_schema)
    searched = declared
    if searched is None:  # by the name's parts: each may have dots of its own
        searched = reflect_place(connection, info.table_schema, info.table_name, info.full_column, infos=infos)
    target = Target(info.table_name, info.full_column, definition, info.table_schema)
    return CheckedColumn(
        name=_full_name(info),
        target=target,
        indexes=tuple(index for index in short.indexes if index.index.predicate is None),
        partial_indexes=tuple(index for index in short.indexes if index.index.predicate is not None),
        sync_trigger=state.sync_triggers.get(info.short_column) if short.kept_by == "trigger" else None,
        size=size_of(connection, target.owner),
        stage=info.stage,
        partitioned=state.partitioned,
        source=sources.get(target.owner),
        searched=searched,
        serves=attachment_of(searched).short == info.short_column,
        reflected=declared is None,
    )


_SIDE_TABLES: Final = """
SELECT DISTINCT n.nspname, c.relname, p.proname, s.nspname AS side_schema, v.relname AS side_table
FROM pg_trigger AS g
JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zz\\_pgmrl\\_%'
JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
-- By names, and the other way round: to_regclass fails without USAGE, and parse_ident where the argument is no name.
JOIN pg_class AS v ON v.relkind IN ('r', 'p')
JOIN pg_namespace AS s ON s.oid = v.relnamespace
    AND g.tgargs = convert_to(quote_ident(s.nspname) || '.' || quote_ident(v.relname), 'UTF8') || '\\x00'::bytea
WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgnargs = 1
  AND has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(s.oid, 'USAGE')
"""


def _side_table_sources(connection: Connection) -> dict[str, SideTableSource]:
    """The tables that are copied into side tables, by the side table as SQL text."""
    sources = {}
    for row in database.execute_plain(connection, _SIDE_TABLES).all():
        state = table_state(connection, row.nspname, row.relname)
        for side in state.sides if state else ():
            if side.name == row.proname:
                side_table = qualified(row.side_schema, row.side_table)
                sources[side_table] = SideTableSource(qualified(row.nspname, row.relname), side.name, side.full)
    return sources
