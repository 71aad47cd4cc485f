"""The short vectors of a table as an element of SQLAlchemy's: a column, or an expression where none holds them.

The expression's text is `Definition.sql`, the index's, with literals only: of a bound parameter neither the planner nor
a cached statement would know that it is the index's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler

    from pgmrl.model.shortening import Definition

__all__ = ["IndexedShort", "short_element"]

FULL: Final = "\0"  # stands for the full vector; no identifier can have it


class _ComputedShort(FunctionElement[Any]):
    """The short vector of a full one, in parentheses.

    Attributes:
        before: what stands before the full vector, as SQL text.
        after: what stands behind it.

    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - of SQLAlchemy's type
        *FunctionElement._traverse_internals,
        ("before", InternalTraversal.dp_string),
        ("after", InternalTraversal.dp_string),
    ]

    def __init__(self, definition: Definition, full: ColumnElement[Any]) -> None:
        self.before, self.after = f"({definition.sql(FULL)})".split(FULL)
        super().__init__(full)


class IndexedShort(_ComputedShort):
    """The same as an index has it.

    Attributes:
        key: what `postgresql_ops` calls it: its text, which is also the key of the literal_column that Alembic puts in
            its place in a migration that it writes by itself.

    """

    inherit_cache = True

    def __init__(self, definition: Definition, full: Column[Any]) -> None:
        super().__init__(definition, full)
        self.key = definition.short_sql(full.name)


def short_element(
    definition: Definition, short: str, full: ColumnElement[Any], column: Callable[[str], Any]
) -> ColumnElement[Any]:
    """The short vector of a row.

    Args:
        definition: of the full vector's column.
        short: the short vectors' name, as the column's attachment has it.
        full: the full vector of the row.
        column: gives the short column of the row by its name.

    """
    if not definition.has_column:
        return _ComputedShort(definition, full)
    stored: ColumnElement[Any] = column(short)
    return stored


@compiles(_ComputedShort)
def _compile(element: _ComputedShort, compiler: SQLCompiler, **options: Any) -> str:
    # literal_column: a driver that formats statements wants its percent signs doubled
    before, after = (compiler.process(literal_column(text)) for text in (element.before, element.after))
    return f"{before}{compiler.process(element.clause_expr.element, **options)}{after}"
