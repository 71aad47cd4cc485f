"""The function `…_vector`: the vector of one row, or an error that says why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import comment_text
from pgmrl.functions.plpgsql import filled, numbered
from pgmrl.names import dollar_quoted, literal, quoted

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["vector_function"]


def vector_function(column: SearchedColumn) -> list[str]:
    """The statements that make it, with its comment."""
    key = numbered(1, len(column.key_columns))
    same = [f"t.{quoted(name)} = {value}" for (name, _), value in zip(column.key_columns, key, strict=True)]
    key_text = " || ', ' || ".join(f"coalesce({value}::text, 'NULL')" for value in key)
    body = filled(
        "vector",
        vector_type=column.vector_type,
        full_vector=column.full_vector,
        from_clause=column.from_clause,
        same_key=" AND ".join(same),
        key_is_null=" OR ".join(f"{value} IS NULL" for value in key),
        null_message=literal(f"{', '.join(column.key_argument_names)} is NULL"),
        missing_message=f"{literal(f'there is no row of {column.table} with the key ')} || {key_text}",
        empty_message=f"{literal(f'the row of {column.table} with this key has no vector: ')} || {key_text}",
        empty_hint=literal(f"Leave out rows where {column.full_column} is NULL."),
    )
    name = column.qualified_name("vector")
    types = ", ".join(type_ for _, type_ in column.key_columns)
    function = (
        f"CREATE OR REPLACE FUNCTION {name}({', '.join(column.key_arguments)}) RETURNS {column.vector_type}\n"
        "LANGUAGE plpgsql STABLE SECURITY INVOKER\nSET search_path = pg_catalog, pg_temp\n"
        f"AS {dollar_quoted(f'{chr(10)}-- pgmrl: the vector of one row{chr(10)}{body}{chr(10)}')}"
    )
    return [
        function,
        f"COMMENT ON FUNCTION {name}({types}) IS {comment_text(column, f'the vector of one row of {column.table}')}",
    ]
