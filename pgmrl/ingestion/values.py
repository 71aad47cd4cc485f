"""What a model says of a column's values in Python: defaults, and types of the application's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Enum
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import TypeDecorator

from pgmrl.errors import DefinitionError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Column, Table

__all__ = ["ModelValues"]


@dataclass(frozen=True, slots=True)
class ModelValues:
    """What a Table says of its values and the catalogue does not.

    Attributes:
        defaults: makes the value of a column that a row does not have.
        binders: of columns whose type is the application's own in Python: what is sent for a value.
    """

    defaults: Mapping[str, Callable[[], Any]]
    binders: Mapping[str, Callable[[Any], Any]]

    @classmethod
    def of(cls, table: Table, except_for: Collection[str | None] = ()) -> ModelValues:
        """Of a Table, but for the columns `except_for`."""
        columns = [column for column in table.columns if column.name not in except_for]
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        binders = {
            column.name: column.type.dialect_impl(dialect).bind_processor(dialect)
            for column in columns
            if isinstance(column.type, (TypeDecorator, Enum))
        }
        return cls(
            {column.name: _default(column) for column in columns if column.default is not None},
            {name: binder for name, binder in binders.items() if binder is not None},
        )

    def completed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row with the defaults of the columns that it does not have.

        Raises:
            DefinitionError: one of them can only be made by an INSERT.
        """
        missing = {name: make() for name, make in self.defaults.items() if name not in row}
        return {**row, **missing} if missing else row

    def bound(self, name: str, value: Any) -> Any:
        """A value as the column's type in Python sends it."""
        binder = self.binders.get(name)
        return value if binder is None else binder(value)


def _default(column: Column[Any]) -> Callable[[], Any]:
    default: Any = column.default
    message = (
        f"column {safe_repr(column.name)} has a default that only an INSERT can make: give its value in every row, "
        "or declare it as server_default"
    )

    def make() -> Any:
        if default.is_scalar:
            return default.arg
        if not default.is_callable:  # an expression or a sequence
            raise DefinitionError(message)
        try:
            return default.arg(None)
        except Exception as error:  # it reads the INSERT's other values
            raise DefinitionError(message) from error

    return make
