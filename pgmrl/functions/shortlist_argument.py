"""The arguments `k` and `shortlist` of a function: which values are refused, and what holds where none is given.

The PL/pgSQL keeps them in the variables `shortlist_size` and `ef_search`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.settings import stored_numbers_sql
from pgmrl.functions.plpgsql import Refusal, filled
from pgmrl.limits import SHORTLIST_LIMIT
from pgmrl.model.scan_settings import default_shortlist_sql
from pgmrl.names import literal, qualified

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["size_refusals", "stored_or_usual_shortlist", "usual_shortlist"]


def size_refusals(k: str, why: str) -> list[Refusal]:
    """A k or a shortlist out of range.

    Args:
        k: the argument, such as `$2`.
        why: what a shortlist has to do with k, and from where on it is long enough.

    """
    return [
        Refusal(
            f"{k} IS NULL OR {k} NOT BETWEEN 1 AND {SHORTLIST_LIMIT}",
            f"'k is ' || coalesce({k}::text, 'NULL')",
            f"Give 1 to {SHORTLIST_LIMIT} rows to return.",
        ),
        Refusal(
            f"shortlist_size < {k} OR shortlist_size > {SHORTLIST_LIMIT}",
            f"format('shortlist is %s, k is %s', shortlist_size, {k})",
            f"{why} to {SHORTLIST_LIMIT}, or NULL for the default.",
        ),
    ]


def usual_shortlist(rows: str) -> str:
    """A line that sets `shortlist_size` where no shortlist is given.

    Args:
        rows: how many shall come back, as `numeric`: no product of two arguments overflows.

    """
    return f"    shortlist_size := coalesce(shortlist_size, {default_shortlist_sql(rows)});"


def stored_or_usual_shortlist(column: SearchedColumn, shortlist: str, rows: str) -> str:
    """Lines that set `shortlist_size`, and `ef_search` where tuning chose one, where no shortlist is given.

    Args:
        column: the column.
        shortlist: the argument, such as `$3`.
        rows: as for `usual_shortlist`.

    """
    table = literal(qualified(column.schema, column.vectors_table))
    stored = stored_numbers_sql(table, literal(column.full_column), literal(column.short_column), rows)
    return filled("stored_shortlist", shortlist=shortlist, stored=stored, usual=usual_shortlist(rows))
