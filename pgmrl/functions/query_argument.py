"""The query of a SQL function: refused or scaled where pgvector would not compute with its length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.plpgsql import Refusal
from pgmrl.model.query_lengths import scaled_sql, uncountable_sql
from pgmrl.names import literal

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["length_refusals", "scale_query"]


def length_refusals(column: SearchedColumn) -> list[Refusal]:
    """Lengths of `$1` that are refused; the function's argument has been rounded to the column's type by then."""
    definition = column.qualified_definition
    length = f"{definition.norm(definition.full)}($1)"
    refusals = []
    if definition.metric.normalise:
        message = literal("query is a zero vector, which has no direction")
        refusals.append(Refusal(f"{length} = 0", message, "Give a vector that is not zero."))
    uncountable = uncountable_sql(definition, length, stored=True)
    if uncountable is not None:
        message = f"format('query has the length %s', {length})"
        hint = "Scale the query and all vectors alike: at such a length rounding or pgvector leaves nothing."
        refusals.append(Refusal(uncountable, message, hint))
    return refusals


def scale_query(column: SearchedColumn) -> str:
    """A line that scales `$1`, where only its direction counts; empty where the type keeps it in range."""
    definition = column.qualified_definition
    if not definition.metric.normalise or definition.full == "halfvec":
        return ""
    return f"    $1 := {scaled_sql(definition, '$1')};"
