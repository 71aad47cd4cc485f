"""Filters as arguments of a function, and as conditions of its dynamic statement: NULL means no filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.names import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.functions.searched_column import SearchedColumn
    from pgmrl.model.sql_functions import Filter

__all__ = ["filter_arguments", "filter_conditions"]


def filter_arguments(column: SearchedColumn) -> list[str]:
    """The filters as arguments of a function, with their defaults."""
    return [
        f"{quoted(column.argument_name(test))} {column.argument_type(test)} DEFAULT NULL"
        for test in column.functions.tests
    ]


def filter_conditions(column: SearchedColumn, first_parameter: int, first_argument: int) -> Iterator[str]:
    """Lines of PL/pgSQL that add to `conditions` what each given filter asks for.

    Args:
        column: the column.
        first_parameter: the number of the first filter's parameter within the dynamic statement.
        first_argument: its number among the function's arguments.

    """
    for number, test in enumerate(column.functions.tests):
        condition = literal(f" AND {_condition(column, test, f'${first_parameter + number}')}")
        given = f"${first_argument + number} IS NOT NULL"
        yield f"    IF {given} THEN conditions := conditions || {condition}; END IF;"


def _condition(column: SearchedColumn, test: Filter, value: str) -> str:
    row = f"t.{quoted(test.column)}"
    if dict(column.other_columns)[test.column] == "citext":
        # its operators are not on the fixed search_path, where text's would compare: those of arrays are by the type
        compared = f"{value} @> ARRAY[{row}]" if test.test == "in" else f"ARRAY[{row}] {test.test} ARRAY[{value}]"
        return f"{row} IS NOT NULL AND {compared}"
    if test.test == "in":
        return f"{row} = ANY ({value})"
    return f"{row} {'@>' if test.test == 'contains' else test.test} {value}"
