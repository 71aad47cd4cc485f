"""What is read from SQLAlchemy without a public name for it: all of it is here, each in a function that says what for.

Looked for and not found in 2.0 and 2.1: whether a Select has a LIMIT, an ORDER BY or a loader option; how a type learns
of its column, also when it was copied or unpickled; how a column becomes a generated one after it was made; how a
column is kept out of SELECT and INSERT; what an INSERT takes from a SELECT and sets on a conflict. A new version of
SQLAlchemy that changes one of these fails the test of that function in tests/unit/test_sqlalchemy_internals.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Column, Computed, Table, event
from sqlalchemy.orm import LoaderCriteriaOption
from sqlalchemy.sql.base import SchemaEventTarget

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.sql.dml import Insert

__all__ = [
    "TableType",
    "clauses_of",
    "conflict_clause",
    "has_loader_criteria",
    "is_left_out",
    "limit_of",
    "selected_names",
    "set_computed",
    "unselected_column",
    "with_conflict_values",
    "with_select",
]

InsertT = TypeVar("InsertT", bound="Insert")


class TableType(SchemaEventTarget):
    """Part of a column type that adds to the table its column is in."""

    def on_table(self, column: Column[Any], table: Table) -> None:
        """The column has been added to a table."""
        raise NotImplementedError

    def _set_parent(self, parent: SchemaEventTarget, **_: Any) -> None:
        event.listen(parent, "after_parent_attach", self.on_table)


def clauses_of(statement: Select[*tuple[Any, ...]]) -> list[str]:
    """The clauses that a Select has, of those that a search adds itself; in SQL's words."""
    clauses = {
        "LIMIT": statement._limit_clause is not None or statement._fetch_clause is not None,
        "OFFSET": statement._offset_clause is not None,
        "GROUP BY": bool(statement._group_by_clauses) or bool(statement._having_criteria),
        "DISTINCT": statement._distinct,
        "ORDER BY": bool(statement._order_by_clauses),
        "FOR UPDATE": statement._for_update_arg is not None,
    }
    return [name for name, there in clauses.items() if there]


def limit_of(statement: Select[*tuple[Any, ...]]) -> ColumnElement[Any] | None:
    """What stands behind LIMIT; None without one."""
    limit: ColumnElement[Any] | None = statement._limit_clause
    return limit


def has_loader_criteria(statement: Select[*tuple[Any, ...]]) -> bool:
    """Whether `with_loader_criteria` adds conditions to a Select when it is executed."""
    return any(isinstance(option, LoaderCriteriaOption) for option in statement._with_options)


def set_computed(column: Column[Any], computed: Computed) -> None:
    """Make a column a generated one, after it has been made."""
    computed._set_parent_with_dispatch(column)


def unselected_column(name: str, type_: Any, *items: Any) -> Column[Any]:
    """A nullable column of a table that is left out of SELECT, of INSERT with its RETURNING, and of mapping."""
    return Column(name, type_, *items, nullable=True, _omit_from_statements=True)


def is_left_out(column: Any) -> bool:
    """Whether a column was made by `unselected_column`."""
    return bool(getattr(column, "_omit_from_statements", False))


def selected_names(insert: Insert) -> list[str]:
    """The names of the columns that INSERT … SELECT fills; empty for other statements."""
    names = None if insert.select is None else insert._select_names
    return list(names or ())


def conflict_clause(insert: Insert) -> Any:
    """What stands behind ON CONFLICT; None without one."""
    return insert._post_values_clause


def with_select(insert: InsertT, names: list[str], rows: Any) -> InsertT:
    """The same INSERT from another SELECT."""
    copy = insert._clone()
    copy._select_names, copy.select = names, rows
    return copy


def with_conflict_values(insert: InsertT, values: Any) -> InsertT:
    """The same INSERT … ON CONFLICT DO UPDATE that sets other columns."""
    clause = insert._post_values_clause
    assert clause is not None  # noqa: S101 - the caller has seen it
    conflict: Any = clause._clone()
    conflict.update_values_to_set = values
    copy = insert._clone()
    copy._post_values_clause = conflict
    return copy
