"""Matryoshka columns for SQLAlchemy: the full vector, the short one beside it, what keeps it in step, its index."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Computed,
    ForeignKeyConstraint,
    Index,
    Table,
    event,
    literal_column,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import MappedColumn, QueryableAttribute, mapped_column
from sqlalchemy.types import TypeDecorator

from pgmrl.errors import DefinitionError, UntrainedTruncationWarning
from pgmrl.model import (
    ddl,
    inserts,  # noqa: F401 - has INSERT compiled without short columns
)
from pgmrl.model.argument_types import choice, optional_name, truth_value
from pgmrl.model.ddl import Storage
from pgmrl.model.ddl_events import table_statement
from pgmrl.model.distribution import Distributed, checked_distributed
from pgmrl.model.embed import Embed, drop_embedding_triggers, keep_embedding_triggers
from pgmrl.model.filter_index import FilterIndex, add_filter_index, checked_filters
from pgmrl.model.hnsw import Hnsw, index_list, main_index
from pgmrl.model.short_expression import IndexedShort
from pgmrl.model.shortening import Definition, Prefix, Short
from pgmrl.model.sqlalchemy_internals import TableType, unselected_column
from pgmrl.model.types import NumpyVector
from pgmrl.model_cards import truncation_advice
from pgmrl.names import identifier, qualified, quoted
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.metrics import FullType, Metric, MetricName
    from pgmrl.model.sql_functions import SqlFunctions
    from pgmrl.model.vectors import VectorArray

__all__ = [
    "Attachment",
    "Matryoshka",
    "add_short",
    "add_side_table",
    "attach_filters",
    "attachment_of",
    "is_distributed",
    "matryoshka",
    "vectors_table",
]

INFO_KEY: Final = "pgmrl"
_POSTGRESQL: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Attachment:
    """What pgmrl knows of one column; kept in `Column.info`, so that copies of a table carry it.

    Attributes:
        definition: full and short vector.
        full: the full column's name.
        short: the short column's name, or that of short vectors which no column holds (`definition.has_column`); None
            before a rotation has been learned.
        indexes: how the short column's indexes are built, of which only partial ones can be several; empty for none.
        side: the key of the side table in the MetaData, where the vectors are searched there.
        functions: the SQL functions that search it; None for none.
        filters: indexes on columns that searches filter by; by the database's names once the table has all columns.
        embed: the text that the full vectors are kept in step with; None where the application brings them.
        distributed: the distribution column of a table of Citus's; True for its key, False for an ordinary table.

    """

    definition: Definition
    full: str
    short: str | None
    indexes: tuple[Hnsw, ...]
    side: str | None = None
    functions: SqlFunctions | None = None
    filters: tuple[FilterIndex, ...] = ()
    embed: Embed | None = None
    distributed: Distributed = False

    @property
    def index(self) -> Hnsw:
        """The index of all rows, else the first partial one; as declared by default where there is none."""
        return main_index(self.indexes)


class Matryoshka(NumpyVector, TableType):
    """The full vector's type; attached to a table it brings the short column, its index and what keeps it in step.

    In a declarative class use `matryoshka(...)`, which also defers loading. For a `Table`:

        Table("packages", metadata, Column("embedding", Matryoshka(768, Short(128))))

    Args:
        dims: dimensions of the full vector, up to 16,000.
        short: the short vector.
        metric: `cosine`, `l2` or `inner_product`.
        full: the full column's type, `halfvec` or `vector`.
        index: how the short column's HNSW index is built; None for no index; several, where some are partial.
        storage: `main` (inline in the row) or `external` (TOAST); inline by default while a vector fits a page.
        forbid_zero: add a CHECK against zero vectors, which a cosine index does not contain.
        vector_schema: the schema pgvector lives in, where that is not on the search_path.
        as_list: a loaded vector is a list of floats instead of an array: for JSON, pydantic, and comparisons by `==`.
        stored: False: no short column, only an HNSW index on the expression of its vectors; by a prefix alone.
        filters: indexes for searches that filter: `[FilterIndex("tenant_id")]`.
        embed: the text that the vectors are made of, and the model, see `Embed`; needs pgmrl's schema.
        distributed: the distribution column's name, where Citus distributes the table: a search takes a form that works
            over shards. True where the primary key is that one column.

    Raises:
        DefinitionError: dimensions, types or names that cannot work.

    """

    cache_ok = True

    def __init__(
        self,
        dims: int,
        short: Short,
        metric: MetricName = "cosine",
        full: FullType = "halfvec",
        index: Hnsw | Sequence[Hnsw] | None = Hnsw(),  # noqa: B008 - immutable
        storage: Storage | None = None,
        forbid_zero: bool = False,
        vector_schema: str | None = None,
        as_list: bool = False,
        stored: bool = True,
        filters: Sequence[FilterIndex] = (),
        embed: Embed | None = None,
        distributed: Distributed = False,
    ) -> None:
        self.definition = Definition.of(
            dims, short, metric, full, vector_schema, stored=truth_value("stored", stored, DefinitionError)
        )
        super().__init__(self.definition.dims, full, vector_schema, truth_value("as_list", as_list, DefinitionError))
        self.short = short
        self.metric: MetricName = self.definition.metric.name
        self.full: FullType = full
        self.indexes = index_list(index)
        self.storage: Storage = _checked_storage(storage) or ddl.default_storage(self.definition)
        self.forbid_zero = truth_value("forbid_zero", forbid_zero, DefinitionError)
        self.filters = _checked_filters(filters, self.definition)
        self.embed = _checked_embed(embed, distributed)
        self.distributed = checked_distributed(distributed)
        self._attached = False

    def __repr__(self) -> str:
        distributed = f", distributed={self.distributed!r}" if self.distributed else ""
        return f"Matryoshka({self.dims}, {self.short!r}, {self.metric!r}, {self.full!r}{distributed})"

    def checked(self, value: Any) -> VectorArray:
        """A row's vector as it is sent; shape (dims,), float32.

        Raises:
            VectorError: it cannot be stored, or not searched afterwards: see `Definition.row`.

        """
        return self.definition.row(value)

    def copy(self, **_: Any) -> NumpyVector:  # type: ignore[override]  # a plain type once attached
        """A copy for another column.

        Once attached, its table already has the short column: the copies that `Table.to_metadata` makes are plain.
        Copies of a column that is still free, as of a mixin, bring their own.
        """
        if self._attached:
            return NumpyVector(self.dims, self.kind, self.vector_schema, self.as_list)
        return Matryoshka(
            self.dims,
            self.short,
            self.metric,
            self.full,
            self.indexes,
            self.storage,
            self.forbid_zero,
            self.vector_schema,
            self.as_list,
            self.definition.has_column,
            self.filters,
            self.embed,
            self.distributed,
        )

    def on_table(self, column: Column[Any], table: Table) -> None:
        """Add the short column, its index and what keeps it in step, once."""
        if INFO_KEY in column.info:
            return
        self._attached = True
        event.listen(
            table,
            "after_create",
            table_statement(lambda schema, name: ddl.set_storage(qualified(schema, name), column.name, self.storage)),
            propagate=True,
        )
        if self.forbid_zero:
            norm = self.definition.norm(self.full)
            name = identifier(f"{table.name}_{column.name}_not_zero")
            not_zero = CheckConstraint(literal_column(f"{norm}({quoted(column.name)}) > 0"), name=name)
            table.append_constraint(not_zero.ddl_if(dialect="postgresql"))
        _attach(column, table, self.definition, self.indexes, self.filters, self.distributed)
        if self.filters:  # whose columns may come after this one
            event.listen(table, "after_parent_attach", lambda target, _: attach_filters(target))
            event.listen(table, "before_create", lambda target, *_, **__: attach_filters(target))
        if self.embed is not None:
            _attach_embed(column, table, self.embed)


def matryoshka(
    dims: int,
    short: Short,
    *,
    metric: MetricName = "cosine",
    full: FullType = "halfvec",
    index: Hnsw | Sequence[Hnsw] | None = Hnsw(),  # noqa: B008 - immutable
    storage: Storage | None = None,
    forbid_zero: bool = False,
    vector_schema: str | None = None,
    as_list: bool = False,
    stored: bool = True,
    filters: Sequence[FilterIndex] = (),
    embed: Embed | None = None,
    distributed: Distributed = False,
    deferred: bool = True,
    **column: Any,
) -> MappedColumn[Any]:
    """A Matryoshka attribute of a declarative class.

        embedding: Mapped[VectorArray] = matryoshka(768, Short(128, by=Prefix()), metric="cosine")

    The short column is not mapped: it is never loaded, and never fetched after an INSERT. The arguments up to
    `vector_schema` are those of `Matryoshka`.

    Args:
        dims: this and the arguments up to `distributed`: see `Matryoshka`.
        short: the short vector.
        metric: of the searches.
        full: the full column's type.
        index: on the short column; several, where some are partial.
        storage: of the full column.
        forbid_zero: add a CHECK.
        vector_schema: pgvector's.
        as_list: load lists; the attribute is then a `Mapped[list[float]]`.
        stored: False for an index on an expression instead of a column.
        filters: indexes for searches that filter.
        embed: the text that the vectors are made of; the column is nullable then, unless `nullable` says otherwise.
        distributed: the distribution column, on Citus.
        deferred: load the vector only when it is asked for. Where that cannot be done later, as with an AsyncSession:
            False, or `undefer(Package.embedding)` among the options of the Select.
        **column: further arguments of `mapped_column`, such as `nullable`.

    """
    type_ = Matryoshka(
        dims,
        short,
        metric,
        full,
        index,
        storage,
        forbid_zero,
        vector_schema,
        as_list,
        stored,
        filters,
        embed,
        distributed,
    )
    if embed is not None:  # a row has no vector before its text is embedded
        column.setdefault("nullable", True)
    return mapped_column(type_, deferred=truth_value("deferred", deferred, DefinitionError), **column)


def add_short(
    column: InstrumentedAttribute[Any] | Column[Any],
    short: Short,
    *,
    metric: MetricName | Metric = "cosine",
    index: Hnsw | Sequence[Hnsw] | None = Hnsw(),  # noqa: B008 - immutable
    vector_schema: str | None = None,
    stored: bool = True,
    filters: Sequence[FilterIndex] = (),
    embed: Embed | None = None,
    distributed: Distributed = False,
) -> None:
    """Give a column that already exists (pgvector's `VECTOR` or `HALFVEC`) short vectors, to be searched through them.

    Call it after the class or Table is defined. The column keeps its type and the code that writes it does not change.

        add_short(Document.embedding, Short(256), stored=False)  # one CREATE INDEX CONCURRENTLY, and nothing else
        add_short(Document.embedding, Short(256))  # a short column beside it, and its index

    Args:
        column: the full vectors' attribute or column.
        short: the short vector.
        metric: `cosine`, `l2` or `inner_product`.
        index: how the HNSW index on the short vectors is built; None for no index; several, where some are partial.
        vector_schema: the schema pgvector lives in, where that is not on the search_path.
        stored: False: no short column. The index computes the leading dimensions itself, by the expression of
            pgvector's README, `(subvector(embedding, 1, 256)::halfvec(256))`.
        filters: indexes for searches that filter: `[FilterIndex("tenant_id")]`.
        embed: the text that the vectors are made of, and the model, see `Embed`; needs pgmrl's schema.
        distributed: the distribution column, on Citus: see `Matryoshka`.

    Raises:
        DefinitionError: the column is no vector of known dimensions, or has short ones already; `stored=False` with a
            rotation, a name or filters; an index that cannot be.

    """
    full_column, table = _column_and_table(column)
    if INFO_KEY in full_column.info:
        raise DefinitionError(f"{table.name}.{full_column.name} has a short column already")
    dims, full = _dims_and_kind(full_column)
    stored = truth_value("stored", stored, DefinitionError)
    definition = Definition.of(dims, short, metric, full, vector_schema, stored=stored)
    declared = _checked_embed(embed, distributed)
    shards = checked_distributed(distributed)
    _attach(full_column, table, definition, index_list(index), _checked_filters(filters, definition), shards)
    attach_filters(table)
    if declared is not None:
        _attach_embed(full_column, table, declared)


def add_side_table(
    column: InstrumentedAttribute[Any] | Column[Any],
    short: Short,
    *,
    metric: MetricName = "cosine",
    full: FullType = "halfvec",
    index: Hnsw | Sequence[Hnsw] | None = Hnsw(),  # noqa: B008 - immutable
    storage: Storage | None = None,
    name: str | None = None,
    vector_schema: str | None = None,
    stored: bool = True,
    filters: Sequence[FilterIndex] = (),
) -> Table:
    """Search a column through a side table (one to one, same key); the application's table gains only a trigger.

    The side table holds a copy of the vector, by default in half precision and inline, and its short one. Searches
    on `column` then run on that copy, and their distances are exact in its precision.

    Call it after the class or Table is defined. pgmrl's schema must be installed (`pgmrl upgrade`). The other arguments
    are those of `Matryoshka`.

    Args:
        column: the vector column, of any pgvector type with known dimensions.
        full: the type of the copy.
        name: the side table's name; by default table and column joined.
        filters: indexes for searches that filter, by columns of the key: the side table has no others.

    Returns:
        The side table, in the same MetaData.

    Raises:
        DefinitionError: as `add_short`, and for a table without a primary key.

    """
    full_column, table = _column_and_table(column)
    if INFO_KEY in full_column.info:
        raise DefinitionError(f"{table.name}.{full_column.name} has a short column already")
    keys = list(table.primary_key.columns)
    if not keys:
        raise DefinitionError(f"table {table.name} has no primary key: a side table needs one to refer to")
    dims, _ = _dims_and_kind(full_column)
    optional_name("name", name, DefinitionError)
    side = Table(
        name or identifier(f"{table.name}_{full_column.name}"),
        table.metadata,
        *(Column(key.name, key.type, primary_key=True, autoincrement=False) for key in keys),
        Column(
            full_column.name,
            Matryoshka(dims, short, metric, full, index, storage, False, vector_schema, stored=stored, filters=filters),
        ),
        ForeignKeyConstraint(
            [key.name for key in keys],
            keys,
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        schema=table.schema,
    )
    inner: Attachment = side.c[full_column.name].info[INFO_KEY]
    full_column.info[INFO_KEY] = replace(inner, side=side.key)
    names, owner, full_name = [key.name for key in keys], table.name, full_column.name
    event.listen(
        side,
        "after_create",
        table_statement(lambda schema, table: ddl.create_side_sync_triggers(schema, owner, table, names, full_name)),
        propagate=True,
    )
    event.listen(
        side,
        "after_drop",
        table_statement(lambda schema, table: ddl.drop_side_sync_triggers(schema, table, full_name)),
        propagate=True,
    )
    return side


def attachment_of(column: Any) -> Attachment:
    """What pgmrl knows of a mapped attribute or a Table's column.

    Raises:
        DefinitionError: it is not a Matryoshka column.

    """
    base = _base_column(column)
    attachment = base.info.get(INFO_KEY) if base is not None else None
    if not isinstance(attachment, Attachment):
        raise DefinitionError(
            f"{safe_str(column)} is not a Matryoshka column: declare it with matryoshka(...), or call add_short on it"
        )
    return attachment


def base_column(column: Any) -> Column[Any]:
    """The Table's column behind a mapped attribute, an alias's column or a column itself.

    Raises:
        DefinitionError: there is none.

    """
    base = _base_column(column)
    if base is None:
        raise DefinitionError(f"expected a mapped attribute or a Table's column, got {safe_str(column)}")
    return base


def vectors_table(column: Any) -> Table:
    """The table that holds the vectors of a Matryoshka column: its own, or its side table.

    Raises:
        DefinitionError: it is not a Matryoshka column.

    """
    attachment, table = attachment_of(column), base_column(column).table
    vectors: Table = table if attachment.side is None else table.metadata.tables[attachment.side]
    return vectors


def is_distributed(table: Table) -> bool:
    """Whether a Matryoshka column of a table says that Citus distributes it."""
    attachments = (column.info.get(INFO_KEY) for column in table.columns)
    return any(isinstance(each, Attachment) and each.distributed is not False for each in attachments)


def _base_column(column: Any) -> Column[Any] | None:
    if not isinstance(column, QueryableAttribute | ColumnElement):  # of anything else no attribute is asked for
        return None
    prop = getattr(column, "property", None)
    candidates = getattr(prop, "columns", None) or getattr(column, "base_columns", None) or ()
    return next((c for c in candidates if isinstance(c, Column)), None)


# -- putting it together -------------------------------------------------------------------------------------------


def attach_filters(table: Table) -> None:
    """Add the filters' indexes of a table's Matryoshka columns, once it has all its columns; again it does nothing.

    Raises:
        DefinitionError: a column that they name is not there, cannot be in a B-tree, or an entry cannot fit a page.

    """
    for column in list(table.columns):
        attachment = column.info.get(INFO_KEY)
        if not isinstance(attachment, Attachment) or attachment.side is not None or attachment.short is None:
            continue
        if attachment.filters and attachment.full == column.name:
            short, size = table.c[attachment.short], attachment.definition.short_bytes
            filters = tuple(add_filter_index(table, short, size, index) for index in attachment.filters)
            column.info[INFO_KEY] = replace(attachment, filters=filters)


def _attach(
    column: Column[Any],
    table: Table,
    definition: Definition,
    indexes: tuple[Hnsw, ...],
    filters: tuple[FilterIndex, ...],
    distributed: Distributed,
) -> None:
    if not definition.learned:
        column.info[INFO_KEY] = Attachment(definition, column.name, None, indexes, distributed=distributed)
        return
    name = definition.short_name(column.name)
    existing = table.c.get(name)
    if existing is not None and not _holds(existing, definition):
        raise DefinitionError(
            f"table {table.name} already has a column {name} of type {existing.type}, expected "
            f"{definition.short_type}: give Short(..., name=...) another one"
        )
    column.info[INFO_KEY] = Attachment(definition, column.name, name, indexes, filters=filters, distributed=distributed)
    if not definition.has_column:
        for index in indexes:
            _add_index(table, IndexedShort(definition, column), definition, index, name)
        return
    if existing is None:
        short = _short_column(definition, column.name, name)
        table.append_column(short)
    else:
        short = existing  # of a reflected table, say
    event.listen(table, "before_create", _only_in_postgresql(name), propagate=True)
    for index in indexes:
        _add_index(table, short, definition, index, name)
    if definition.short.type != "bit":
        # of a row over two kilobytes PostgreSQL would move it to TOAST, at the cost of every write
        event.listen(
            table,
            "after_create",
            table_statement(lambda schema, table: ddl.set_storage(qualified(schema, table), name, "main")),
            propagate=True,
        )
    if short.computed is None:
        full = column.name
        event.listen(
            table,
            "after_create",
            table_statement(lambda schema, table: ddl.create_short_sync_triggers(definition, schema, table, full)),
            propagate=True,
        )
        event.listen(
            table,
            "after_drop",
            table_statement(lambda schema, table: ddl.drop_short_sync_triggers(schema, table, name)),
            propagate=True,
        )


def _attach_embed(column: Column[Any], table: Table, embed: Embed) -> None:
    full = column.name
    column.info[INFO_KEY] = replace(column.info[INFO_KEY], embed=embed)
    _warn_of_truncation(table, column, column.info[INFO_KEY].definition, embed)
    event.listen(
        table,
        "after_create",
        table_statement(lambda schema, name: keep_embedding_triggers(embed, schema, name, full)),
        propagate=True,
    )
    event.listen(
        table,
        "before_drop",
        table_statement(lambda schema, name: drop_embedding_triggers(schema, name, full)),
        propagate=True,
    )


def _warn_of_truncation(table: Table, column: Column[Any], definition: Definition, embed: Embed) -> None:
    """Say where a prefix has a length that its model was not trained for, at the line that declares it."""
    if not isinstance(definition.short.by, Prefix):
        return
    advice = truncation_advice(embed.by, definition.short.dims, definition.dims)
    if advice is None:
        return
    level, libraries = 1, {"pgmrl", "sqlalchemy", "sqlmodel"}
    # up to the application, which declares a class far from here
    while sys._getframe(level).f_globals.get("__name__", "sqlalchemy").split(".")[0] in libraries:
        level += 1
    message = f"{table.name}.{column.name}: {advice}"
    warnings.warn(message, UntrainedTruncationWarning, stacklevel=level + 1)


def _holds(column: Column[Any], definition: Definition) -> bool:
    """Whether a column that is there can hold the short vectors."""
    if not definition.has_column:
        return False
    if definition.short.type == "bit":
        type_ = column.type
        return isinstance(type_, postgresql.BIT) and type_.length == definition.short.dims
    try:
        return _dims_and_kind(column) == (definition.short.dims, definition.short.type)
    except DefinitionError:
        return False


def _short_column(definition: Definition, full: str, name: str) -> Column[Any]:
    short = definition.short
    type_: Any = (
        BIT(short.dims) if short.type == "bit" else NumpyVector(short.dims, short.type, definition.vector_schema)
    )
    generated = []
    if isinstance(short.by, Prefix):
        generated.append(Computed(literal_column(definition.sql(quoted(full))), persisted=True))
    # Left out of SELECT, INSERT ... RETURNING and of mapping: the database alone writes and reads it.
    return unselected_column(name, type_, *generated)


def _only_in_postgresql(short: str) -> Callable[..., None]:
    """A listener that leaves the short column out of tables in other databases, as unit tests create them."""

    def leave_out(target: Table, connection: Connection, **_: Any) -> None:
        # what SQLAlchemy says of columns that a database has without a CREATE TABLE naming them
        target.c[short].system = connection.dialect.name != "postgresql"

    return leave_out


def _add_index(
    table: Table, short: Column[Any] | IndexedShort, definition: Definition, index: Hnsw, short_name: str
) -> None:
    name = index.index_name(table.name, short_name)
    if name in {other.name for other in table.indexes}:  # of a reflected table
        return
    Index(
        name,
        short,
        postgresql_using="hnsw",
        postgresql_with=index.storage_parameters,
        postgresql_ops={short.key: definition.operator_class},
        postgresql_where=None if index.predicate is None else literal_column(f"({index.predicate})"),
    ).ddl_if(dialect="postgresql")


def _checked_filters(filters: Any, definition: Definition) -> tuple[FilterIndex, ...]:
    indexes = checked_filters(filters)
    if indexes and not definition.has_column:
        raise DefinitionError(
            f"filters={safe_repr(filters)}: an index can include a column, and stored=False has none for the short "
            "vectors: leave one of them out"
        )
    return indexes


def _checked_embed(embed: Any, distributed: Any) -> Embed | None:
    if embed is not None and not isinstance(embed, Embed):
        raise DefinitionError(f"embed={safe_repr(embed)}: expected Embed(...), or None where the application embeds")
    if embed is not None and distributed:
        raise DefinitionError(
            "embed= queues texts by triggers, which Citus refuses on distributed tables: leave embed or distributed out"
        )
    return embed


def _checked_storage(storage: Any) -> Storage | None:
    if storage is not None:
        choice("storage", storage, get_args(Storage), DefinitionError)
    return cast("Storage | None", storage)


def _column_and_table(column: Any) -> tuple[Column[Any], Table]:
    base = base_column(column)
    if not isinstance(base.table, Table):
        raise DefinitionError(f"expected a mapped attribute or a Table's column, got {column}")
    return base, base.table


def _dims_and_kind(column: Column[Any]) -> tuple[int, FullType]:
    """Dimensions and type of a vector column, whatever wraps its type: a TypeDecorator, a variant, a subclass."""
    type_ = column.type.dialect_impl(_POSTGRESQL)
    if isinstance(type_, TypeDecorator):
        type_ = type_.load_dialect_impl(_POSTGRESQL)
    if isinstance(type_, NumpyVector):
        return type_.dims, type_.kind
    if not isinstance(type_, VECTOR | HALFVEC):
        raise DefinitionError(
            f"{column} is {safe_repr(column.type)}: expected a column of the type `vector` or `halfvec`"
        )
    kind: FullType = "vector" if isinstance(type_, VECTOR) else "halfvec"
    if type_.dim is None:
        raise DefinitionError(f"{column} declares no dimensions: write {kind.upper()}(768), with the model's number")
    return int(type_.dim), kind
