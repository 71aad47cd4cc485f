"""The functions `…_search_text` and so on: search by words that the database embeds itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import callable_function, no_key, passed_filters, row_limit, shared_arguments
from pgmrl.functions.hybrid_function import FUSED_COLUMNS, hybrid_arguments
from pgmrl.functions.plpgsql import numbered
from pgmrl.names import literal, qualified

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["text_functions"]


def text_functions(column: SearchedColumn, model: str) -> list[str]:
    """The statements that make them.

    Args:
        column: the column.
        model: by which the column's vectors were embedded; of `pgmrl.models`, or with a colon one that is outside.
    """
    if ":" in model:
        place = f"{literal(qualified(column.schema, column.table))}, {literal(column.full_column)}"
        vector = f"pgmrl.ask_v1({place}, {literal(model)}, $1)::{column.vector_type}"
    else:
        vector = f"pgmrl.embed_question_v1({literal(model)}, $1)::{column.vector_type}"
    table, group_by = column.table, column.functions.group_by
    statements = callable_function(
        column,
        "search_text",
        ["words text", "k integer DEFAULT 10", *shared_arguments(column)],
        "search",
        [vector, "$2", "$3", "$4", *no_key(column), *passed_filters(column, 5)],
        row_limit("$2"),
        f"the rows of {table} nearest to words, by the model {model}",
    )
    statements += callable_function(
        column,
        "search_diverse_text",
        ["words text", "k integer DEFAULT 10", "relevance double precision DEFAULT 0.5", *shared_arguments(column)],
        "search_diverse",
        [vector, "$2", "$4", "$5", "$3", *no_key(column), *passed_filters(column, 6)],
        row_limit("$2"),
        f"rows of {table} near to words that differ from each other, by the model {model}",
    )
    if group_by is not None:
        statements += callable_function(
            column,
            "search_groups_text",
            ["words text", "k integer DEFAULT 10", "per_group integer DEFAULT 1", *shared_arguments(column)],
            "search_groups",
            [vector, "$2", "$4", "$5", "$3", *no_key(column), *passed_filters(column, 6)],
            f"{row_limit('$2')} * {row_limit('$3')}",
            f"the rows of {table} nearest to words by {group_by}, by the model {model}",
        )
    if column.functions.words is not None:
        arguments = hybrid_arguments(column)[1:]
        statements += callable_function(
            column,
            "hybrid_text",
            arguments,
            "hybrid",
            [vector, *numbered(1, len(arguments))],
            row_limit("$2"),
            f"the rows of {table} that words find by meaning, by the model {model}, and in {column.functions.words}",
            result="fused",
            columns=list(FUSED_COLUMNS),
        )
    return statements
