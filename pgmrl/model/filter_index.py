"""A B-tree on the columns that searches filter by, which carries the short vector: what only a short vector allows.

A full vector does not fit an index's entry; a short one does. PostgreSQL then reads the rows of a filter from pages in
which their short vectors lie together, exactly, without a graph and without the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import JSON, Column, Index, Table
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import argument_list, name_argument, optional_name
from pgmrl.model.types import NumpyVector
from pgmrl.names import identifier, qualified, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ENTRY_LIMIT",
    "FilterIndex",
    "add_filter_index",
    "checked_filters",
    "create_filter_index",
    "entry_bytes",
    "too_wide",
]

ENTRY_LIMIT: Final = 2_704
"""Bytes of a B-tree's entry: a third of a page (PostgreSQL's BTMaxItemSize, src/include/access/nbtree.h)."""
HEADER: Final = 8
_LEAST_BYTES: Final[tuple[tuple[type[Any], int], ...]] = (
    (sqltypes.SmallInteger, 2),
    (sqltypes.BigInteger, 8),
    (sqltypes.Integer, 4),
    (sqltypes.Uuid, 16),
    (sqltypes.DateTime, 8),
    (sqltypes.Date, 4),
)


@dataclass(frozen=True, slots=True, init=False)
class FilterIndex:
    """A covering index for searches with a filter: `CREATE INDEX ON t (columns) INCLUDE (short vector, key, include)`.

        matryoshka(768, Short(128), filters=[FilterIndex("tenant_id"), FilterIndex("section", include=["size_kb"])])

    Args:
        *columns: that searches filter by, the names of columns of the same table; those compared by `=` first.
        include: further columns, on which conditions are answered from the index too.
        name: of the index; by default made of the table, the short column and the columns.

    Raises:
        DefinitionError: no column, or a name that cannot be one.

    """

    columns: tuple[str, ...]
    include: tuple[str, ...]
    name: str | None

    def __init__(self, *columns: str, include: Iterable[str] = (), name: str | None = None) -> None:
        if not columns:
            raise DefinitionError('FilterIndex() names no column: expected those that searches filter by, "tenant_id"')
        names = argument_list("include", include, DefinitionError, 'a list of column names, include=["size_kb"]')
        what = "the name of a column"
        object.__setattr__(
            self, "columns", _distinct(name_argument("column", c, DefinitionError, what=what) for c in columns)
        )
        included = _distinct(name_argument("include", each, DefinitionError, what=what) for each in names)
        object.__setattr__(self, "include", tuple(each for each in included if each not in self.columns))
        object.__setattr__(self, "name", optional_name("name", name, DefinitionError))

    def __repr__(self) -> str:
        arguments = [repr(column) for column in self.columns]
        arguments += [f"include={list(self.include)!r}"] if self.include else []
        arguments += [f"name={self.name!r}"] if self.name is not None else []
        return f"FilterIndex({', '.join(arguments)})"

    def index_name(self, table: str, short: str) -> str:
        """The index's name; never longer than PostgreSQL takes."""
        return self.name or identifier(f"{table}_{short}_by_{'_'.join(self.columns)}")

    def partition_name(self, partition: str, short: str) -> str:
        """The name of a partition's index."""
        return identifier(f"{partition}_{self.name}") if self.name else self.index_name(partition, short)

    def serves(self, declared: FilterIndex) -> bool:
        """Whether an index that is there does what a declared one would: its columns, and what it includes."""
        return self.columns == declared.columns and set(declared.include) <= set(self.include)

    def same(self, other: FilterIndex) -> bool:
        """Whether both are the same but for their names."""
        return self.columns == other.columns and set(self.include) == set(other.include)

    def with_keys(self, keys: Iterable[str]) -> FilterIndex:
        """With the key's columns included, by which the shortlist's full vectors are fetched."""
        return FilterIndex(*self.columns, include=(*keys, *self.include), name=self.name)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def checked_filters(filters: Any) -> tuple[FilterIndex, ...]:
    """What a declaration's `filters` says.

    Raises:
        DefinitionError: it is no list of FilterIndex, or has one twice.
    """
    expected = 'a list of indexes, filters=[FilterIndex("tenant_id")]'
    indexes = argument_list("filters", filters, DefinitionError, expected)
    for n, index in enumerate(indexes):
        if not isinstance(index, FilterIndex):
            raise DefinitionError(f"filters={safe_repr(filters)}: expected {expected}")
        twice = [other for other in indexes[:n] if (other.columns, other.name) == (index.columns, index.name)]
        if twice:
            raise DefinitionError(f"filters has {index!r} and {twice[0]!r}: expected one, with all that it includes")
    return tuple(indexes)


def create_filter_index(
    index: FilterIndex, schema: str | None, table: str, short: str, *, name: str, concurrently: bool, only: bool
) -> str:
    """The statement that builds it, as SQL text.

    Args:
        index: with the key's columns.
        schema: of the table.
        table: the table.
        short: the short column's name.
        name: of the index.
        concurrently: while others write.
        only: of a partitioned table, without its partitions.
    """
    how, where = "CONCURRENTLY " if concurrently else "", "ONLY " if only else ""
    columns = ", ".join(map(quoted, index.columns))
    included = ", ".join(map(quoted, (short, *index.include)))
    return f"CREATE INDEX {how}{quoted(name)} ON {where}{qualified(schema, table)} ({columns}) INCLUDE ({included})"


def entry_bytes(widths: Iterable[int], short_bytes: int) -> int:
    """Bytes of an entry: its header, the short vector and columns of these widths."""
    return HEADER + (short_bytes + sum(widths) + 7) // 8 * 8


def too_wide(index: FilterIndex, table: str, size: int, short_bytes: int) -> str:
    """What is said of an entry that cannot fit.

    Args:
        index: the index.
        table: its table.
        size: bytes of an entry, at least.
        short_bytes: those of the short vector among them.
    """
    return (
        f"{index!r}: an entry of {table} takes at least {size:,} bytes, {short_bytes:,} of them the short vector; "
        f"PostgreSQL's B-tree takes {ENTRY_LIMIT:,}: use fewer short dimensions, or the type halfvec or bit"
    )


# -- in a Table ----------------------------------------------------------------------------------------------------


def add_filter_index(table: Table, short: Column[Any], short_bytes: int, index: FilterIndex) -> FilterIndex:
    """Add the index to a Table whose columns are all there, once.

    Args:
        table: the table.
        short: the short column.
        short_bytes: of one short vector as it is stored.
        index: as it was declared, by names or keys of columns.

    Returns:
        The same by the names that the database has, with the key's columns included.

    Raises:
        DefinitionError: a column is not there, cannot be in a B-tree, or an entry cannot fit a page.
    """
    columns = [_column(table, name, index) for name in index.columns]
    for column in columns:
        _check_order(table, column, short)
    keys = [column for column in table.primary_key.columns if column not in columns]
    further = [_column(table, name, index) for name in index.include]
    included = [column for column in dict.fromkeys((*keys, *further)) if column is not short and column not in columns]
    _check_entry(table, index, [*columns, *included], short_bytes)
    named = FilterIndex(
        *(column.name for column in columns), include=[column.name for column in included], name=index.name
    )
    name = named.index_name(table.name, short.name)
    if name not in {other.name for other in table.indexes}:  # of a reflected table, or added already
        include = [column.key for column in (short, *included)]
        Index(name, *columns, postgresql_include=include).ddl_if(dialect="postgresql")
    return named


def _column(table: Table, name: str, index: FilterIndex) -> Column[Any]:
    column = table.columns.get(name)
    if column is None:
        column = next((column for column in table.columns if column.name == name), None)
    if column is None:
        names = ", ".join(column.name for column in table.columns)
        raise DefinitionError(f"{index!r}: table {table.name} has no column {name}; its columns: {names}")
    return column


def _check_order(table: Table, column: Column[Any], short: Column[Any]) -> None:
    type_ = column.type
    if column is short or isinstance(type_, NumpyVector | VECTOR | HALFVEC | SPARSEVEC):
        raise DefinitionError(
            f"FilterIndex({column.name!r}): {table.name}.{column.name} is a vector: expected the columns that searches "
            "filter by; the short vector is included by itself"
        )
    if isinstance(type_, JSON) and not isinstance(type_, postgresql.JSONB):
        raise DefinitionError(
            f"FilterIndex({column.name!r}): {table.name}.{column.name} is {type_}, which has no order that a B-tree "
            "needs: filter by a generated column of its own, or use JSONB"
        )


def _check_entry(table: Table, index: FilterIndex, columns: Iterable[Column[Any]], short_bytes: int) -> None:
    size = entry_bytes(map(_least_bytes, columns), short_bytes)
    if size > ENTRY_LIMIT:
        raise DefinitionError(too_wide(index, table.name, size, short_bytes))


def _least_bytes(column: Column[Any]) -> int:
    type_ = column.type
    if isinstance(type_, NumpyVector):
        return 8 + type_.dims * (2 if type_.kind == "halfvec" else 4)
    return next((size for kind, size in _LEAST_BYTES if isinstance(type_, kind)), 1)
