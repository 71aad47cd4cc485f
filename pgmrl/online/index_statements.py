"""The statements on an index of short vectors, HNSW or covering: build, rename, drop; and how a build is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.model.filter_index import FilterIndex, create_filter_index
from pgmrl.model.hnsw import Hnsw, create_index
from pgmrl.names import identifier, qualified, quoted

if TYPE_CHECKING:
    from pgmrl.online.target import Target

__all__ = [
    "Build",
    "ShortIndex",
    "beside",
    "create_statement",
    "drop_statement",
    "exchange_statements",
    "rename_statement",
]

ShortIndex = Hnsw | FilterIndex
"""What is built on short vectors: a graph, or a B-tree on the columns of filters that includes them."""


@dataclass(frozen=True, slots=True)
class Build:
    """How an index is built.

    Attributes:
        concurrently: while others read and write; False locks writers out, and runs inside a transaction.
        maintenance_work_mem: for this build alone, such as "8GB"; the server's setting where None.
        parallel_workers: `max_parallel_maintenance_workers` for this build alone.
    """

    concurrently: bool = True
    maintenance_work_mem: str | None = None
    parallel_workers: int | None = None

    def settings(self) -> list[tuple[str, str]]:
        """The parameters to set, and their values."""
        values = {
            "maintenance_work_mem": self.maintenance_work_mem,
            "max_parallel_maintenance_workers": self.parallel_workers,
        }
        return [(name, str(value)) for name, value in values.items() if value is not None]


def create_statement(
    target: Target, index: ShortIndex, *, concurrently: bool, name: str | None = None, only: bool = False
) -> str:
    """The statement that builds the index.

    Args:
        target: the short column.
        index: build parameters, or the columns of a covering index, the key's among them.
        concurrently: while others read and write.
        name: of the index; by default as the model names it.
        only: on a partitioned table alone, not on its partitions.
    """
    name = name or index.index_name(target.table, target.short)
    if isinstance(index, FilterIndex):
        return create_filter_index(
            index, target.schema, target.table, target.short, name=name, concurrently=concurrently, only=only
        )
    return create_index(
        target.definition,
        target.schema,
        target.table,
        target.definition.short_sql(target.full),
        index,
        name=name,
        concurrently=concurrently,
        only=only,
    )


def drop_statement(schema: str | None, name: str, *, concurrently: bool = True) -> str:
    """The statement that drops an index."""
    return f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}IF EXISTS {qualified(schema, name)}"


def rename_statement(schema: str | None, name: str, new_name: str) -> str:
    """The statement that renames an index; takes no lock that readers or writers would notice."""
    return f"ALTER INDEX {qualified(schema, name)} RENAME TO {quoted(new_name)}"


def beside(name: str) -> tuple[str, str]:
    """The names of the new and of the old index while one replaces the other."""
    return identifier(f"{name}_new"), identifier(f"{name}_old")


def exchange_statements(schema: str | None, name: str) -> list[str]:
    """The statements that put the new index beside the old one in its place."""
    new, old = beside(name)
    return [rename_statement(schema, name, old), rename_statement(schema, new, name)]
