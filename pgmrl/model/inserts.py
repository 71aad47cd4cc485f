"""INSERT of every column of a table, as upsert helpers and INSERT … SELECT write it: without the short columns.

`table.c` and `excluded` have the short column too, and PostgreSQL takes no value for a generated one. Statements in
which it stands are put right when they are compiled, which SQLAlchemy does once for statements that are alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.dml import Insert

from pgmrl.model.sqlalchemy_internals import (
    conflict_clause,
    is_left_out,
    selected_names,
    with_conflict_values,
    with_select,
)

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

__all__: list[str] = []


@compiles(Insert, "postgresql")
def _compile(insert: Insert, compiler: SQLCompiler, **options: Any) -> str:
    columns: Any = insert.table.c
    short_columns: dict[str, Any] = {column.key: column for column in columns if is_left_out(column)}
    if short_columns:
        insert = _without_generated_values(_without_names(insert, short_columns), short_columns)
    text: str = compiler.visit_insert(insert, **options)  # type: ignore[no-untyped-call]
    return text


def _without_names(insert: Insert, short_columns: dict[str, Any]) -> Insert:
    """INSERT … SELECT without short columns that are generated, or that the SELECT does not have."""
    names = selected_names(insert)
    if not short_columns.keys() & set(names):
        return insert
    rows: Any = insert.select
    selected = rows.subquery()
    if len(names) != len(selected.c):  # `table.c.keys()` has the short column, `select(table)` has it not
        return with_select(insert, [name for name in names if name not in short_columns], rows)
    generated = _generated(short_columns)
    kept = {name: value for name, value in zip(names, selected.c, strict=True) if name not in generated}
    return with_select(insert, list(kept), select(*kept.values()))


def _without_generated_values(insert: Insert, short_columns: dict[str, Any]) -> Insert:
    """ON CONFLICT DO UPDATE without short columns that are generated."""
    conflict = conflict_clause(insert)
    if not isinstance(conflict, OnConflictDoUpdate):
        return insert
    generated = _generated(short_columns)
    values: Any = conflict.update_values_to_set  # a dict, in 2.0 a list of pairs
    pairs = values.items() if isinstance(values, dict) else values
    kept = [(key, value) for key, value in pairs if key not in generated]
    return with_conflict_values(insert, dict(kept) if isinstance(values, dict) else kept)


def _generated(short_columns: dict[str, Any]) -> set[str]:
    return {key for key, column in short_columns.items() if column.computed is not None}
