"""What is read from SQLAlchemy without a public name for it: all of it is here, each in a function that says what for.

Looked for and not found in 2.0 and 2.1: whether a Select has a LIMIT, an ORDER BY or a loader option; how a type learns
of its column, also when it was copied or unpickled; how a column becomes a generated one after it was made; how a
column is kept out of SELECT and INSERT; what an INSERT takes from a SELECT and sets on a conflict; the key by which
a statement is found among the compiled ones; whether a statement's schemas are translated. A new version of SQLAlchemy
that changes one of these fails the test of that function in tests/unit/test_sqlalchemy_internals.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Column, Computed, Select, Table, event
from sqlalchemy.orm import LoaderCriteriaOption
from sqlalchemy.sql.base import SchemaEventTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.dml import Insert

__all__ = [
    "OPTIONS",
    "TableType",
    "adds_schema",
    "all_columns_of",
    "cache_key",
    "clauses_of",
    "columns_of",
    "conflict_clause",
    "has_loader_criteria",
    "has_options",
    "hashed_once",
    "is_left_out",
    "keep_until_changed",
    "limit_of",
    "memoize_cache_key",
    "selected_names",
    "set_computed",
    "structure_names",
    "unbuilt",
    "unselected_column",
    "with_conflict_values",
    "with_select",
]

InsertT = TypeVar("InsertT", bound="Insert")
SelectT = TypeVar("SelectT", bound="Select[*tuple[Any, ...]]")

OPTIONS: Final = (
    *("_with_options", "_execution_options", "_compile_options", "_propagate_attrs", "_params"),
    *("_compile_state_funcs", "_with_context_options"),  # of 2.1, of 2.0
)


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


def adds_schema(compiler: Any) -> bool:
    """Whether a statement is compiled with a schema_translate_map that may give a schema to tables without one.

    What it gives them is filled in at each execution.
    """
    return None in (compiler.schema_translate_map or ())


def has_options(statement: Select[*tuple[Any, ...]]) -> bool:
    """Whether a Select has options that say how objects are loaded."""
    return bool(statement._with_options)


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


def cache_key(element: Any) -> Any:
    """The key of an element in the cache of compiled statements, with `key` and `bindparams`; None without one.

    None also for a statement that holds values of its parameters (`Select.params`), as the key of SQLAlchemy 2.1 does.
    """
    key = element._generate_cache_key()
    return None if key is None or any(key[2:]) else key


class _HashedOnce(tuple[Any, ...]):
    """A tuple that remembers its hash."""

    def __hash__(self) -> int:
        number: int | None = self.__dict__.get("number")
        if number is None:
            number = self.__dict__["number"] = super().__hash__()
        return number


def hashed_once(key: Any) -> Any:
    """The same cache key with its hash worked out once: each execution asks for it, and it grows with the statement."""
    return key._replace(key=_HashedOnce(key.key))


def memoize_cache_key(statement: Select[*tuple[Any, ...]], key: Any) -> None:
    """Give a statement its key, as if it had been worked out."""
    statement.__dict__["_generate_cache_key"] = lambda *_: key
    statement._memoized_keys |= {"_generate_cache_key"}


def keep_until_changed(statement: Select[*tuple[Any, ...]], name: str, value: Any) -> None:
    """Give a statement an attribute that no copy of it has, so that it is gone once something is added."""
    statement.__dict__[name] = value
    statement._memoized_keys |= {name}


def structure_names() -> tuple[list[str], list[str]]:
    """What a Select is made of, and what copies one.

    Not its columns and options, which an execution reads.
    """
    read = {"_raw_columns", *OPTIONS}
    parts = [name for name, _ in Select._traverse_internals if name not in read]
    copying = ["_generate", "_clone", "_gen_cache_key", "_copy_internals", "__reduce_ex__", "get_children"]
    copying += ["_annotate", "_with_annotations", "_deannotate"]
    return parts, copying


def columns_of(statement: Select[*tuple[Any, ...]]) -> list[Any]:
    """What a Select selects, as it was given."""
    return list(statement._raw_columns)


def unbuilt(cls: type[SelectT], statement: Select[*tuple[Any, ...]], added: Sequence[Any]) -> SelectT:
    """A Select of a class of its own with nothing but the columns and options of another, and more columns."""
    made = cls.__new__(cls)
    made.__dict__.update({name: value for name, value in statement.__dict__.items() if name in OPTIONS})
    made._raw_columns = [*statement._raw_columns, *added]
    return made


def all_columns_of(statement: Select[*tuple[Any, ...]]) -> list[Any]:
    """The columns of the rows of a Select."""
    return list(statement._all_selected_columns)
