"""What autogenerate compares: what the model declares of a table, and what was found of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.types import NullType

from pgmrl.model.columns import INFO_KEY, Attachment
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import MigrateOperation
    from sqlalchemy import Column, Table

    from pgmrl.database.table_state import TableState
    from pgmrl.model.ddl import Storage
    from pgmrl.model.filter_index import FilterIndex
    from pgmrl.model.shortening import Definition

__all__ = [
    "Changes",
    "ComparedTable",
    "DeclaredFull",
    "DeclaredShort",
    "DeclaredSide",
    "DeclaredTable",
    "attachments",
    "column_named",
    "declared_index_names",
]


# -- what the model declares ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeclaredFull:
    """A full column as the model declares it.

    Attributes:
        name: its name.
        type: such as `halfvec(768)`.
        storage: None where the model does not say.
    """

    name: str
    type: str
    storage: Storage | None = None


@dataclass(frozen=True, slots=True)
class DeclaredShort:
    """A short column as the model declares it.

    Attributes:
        full: the full column's name.
        definition: full and short vector.
        indexes: of the short column; partial ones with their condition as the server prints it.
        filters: covering indexes that include it.
    """

    full: str
    definition: Definition
    indexes: tuple[Hnsw, ...]
    filters: tuple[FilterIndex, ...] = ()

    @property
    def name(self) -> str:
        """The short column's name."""
        return self.definition.short_name(self.full)


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """What the model declares of one table.

    Attributes:
        columns: the names of all its columns.
        fulls: full columns.
        shorts: short columns.
        hidden: short columns and indexes that the application's filters leave out.
        existing_indexes: the names of the indexes that the table has in the database.
        indexes: the names of the application's own indexes.
    """

    columns: frozenset[str]
    fulls: tuple[DeclaredFull, ...] = ()
    shorts: tuple[DeclaredShort, ...] = ()
    hidden: frozenset[str] = frozenset()
    existing_indexes: frozenset[str] = frozenset()
    indexes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeclaredSide:
    """A side table as the model declares it.

    Attributes:
        side: its name.
        keys: the primary key's columns.
        column: the vector's column, named alike in both.
    """

    side: str
    keys: tuple[str, ...]
    column: str


def attachments(table: Any) -> Iterator[Attachment]:
    """Of the table's own columns, those that a side table searches left out."""
    for column in table.columns:
        attachment = column.info.get(INFO_KEY)
        if isinstance(attachment, Attachment) and attachment.side is None and attachment.full == column.name:
            yield attachment


def declared_index_names(table: Table) -> set[str]:
    """The names of the indexes on short vectors that a model declares through pgmrl."""
    names: set[str] = set()
    for attachment in attachments(table):
        if attachment.short is not None:
            names |= {index.index_name(table.name, attachment.short) for index in (Hnsw(), *attachment.indexes)}
            names |= {index.index_name(table.name, attachment.short) for index in attachment.filters}
    return names


def column_named(table: Table, name: str) -> Column[Any]:
    """A column by its name in the database; its key may be another."""
    return next(column for column in table.columns if column.name == name)


# -- one table of the comparison -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Changes:
    """Operations on one table, in their order.

    Attributes:
        restores: indexes of columns that `before` drops; for the downgrade only.
        before: ahead of Alembic's own operations on the table.
        after: behind them.
        indexes: of new short columns.
        drops: of what is no longer declared.
        retyped: full columns whose type Alembic has to change.
        dropped: short columns that go, with whatever indexes they have.
        repeatable: the migration commits before its end, so that its own additions have to bear a second run.
    """

    restores: list[MigrateOperation] = field(default_factory=list)
    before: list[MigrateOperation] = field(default_factory=list)
    after: list[MigrateOperation] = field(default_factory=list)
    indexes: list[MigrateOperation] = field(default_factory=list)
    drops: list[MigrateOperation] = field(default_factory=list)
    retyped: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    repeatable: bool = False

    @property
    def all(self) -> list[MigrateOperation]:
        """All operations."""
        return self.around([])

    def around(self, operations: list[MigrateOperation]) -> list[MigrateOperation]:
        """All operations, with Alembic's own on the table in their place."""
        return [*self.restores, *self.before, *operations, *self.after, *self.indexes, *self.drops]


@dataclass(slots=True)
class ComparedTable:
    """A table that passed the application's filters.

    Attributes:
        schema: None for the default one.
        name: of the table.
        reflected: as it is in the database; None where it is to be created.
        model: as the model has it; None where it is to be dropped.
        state: what pgmrl looks at; None where there is none of its concern.
        changes: what is to be done.
    """

    schema: str | None
    name: str
    reflected: Table | None
    model: Table | None
    state: TableState | None = None
    changes: Changes = field(default_factory=Changes)

    @property
    def key(self) -> tuple[str | None, str]:
        """Schema and name as Alembic has them."""
        return (self.schema, self.name)

    @property
    def declared_schema(self) -> str | None:
        """The schema as the migration says it."""
        return self.schema if self.model is None else self.model.schema or self.schema

    @property
    def declared_attachments(self) -> list[Attachment]:
        """What the model attaches to the table's own columns."""
        return [] if self.model is None else list(attachments(self.model))

    def repair_types(self) -> None:
        """Name the types that reflection did not know because pgvector is not on the search_path."""
        if self.state is None or self.reflected is None:
            return
        for column in self.reflected.columns:
            state = self.state.columns.get(str(column.name))
            if state is None or not isinstance(column.type, NullType) or not state.dims:
                continue
            if state.kind in {"vector", "halfvec"}:
                shorts = self.state.shorts.values()
                vector_schema = next((short.definition.vector_schema for short in shorts), None)
                column.type = NumpyVector(state.dims, "vector" if state.kind == "vector" else "halfvec", vector_schema)
