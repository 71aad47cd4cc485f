"""The best rows of each group, such as the best passages of each document, in one statement.

pgmrl_reranked the shortlist with its full distances
pgmrl_grouped  of it k groups by their nearest row, the nearest rows of each
pgmrl_exact    the same of all rows; executed only where the shortlist is not full or holds fewer than k groups
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

from sqlalchemy import ColumnElement, text
from sqlalchemy.orm import InstrumentedAttribute

from pgmrl.errors import SearchError
from pgmrl.model.compat import Select
from pgmrl.model.ranking_sql import groups_sql, key_names
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_labels, positive_integer
from pgmrl.searching.fallback import EXACT, RERANKED, falls_short_sql, only_if_sql, unlimited
from pgmrl.searching.options import SearchOptions, SearchParameters, with_shortlist
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import RESULTS, join_results, labelled, materialized, results_table, shaped
from pgmrl.searching.subject import AnySelect
from pgmrl.searching.templates import search_of_shape

if TYPE_CHECKING:
    from sqlalchemy import CTE

    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["search_groups"]

GROUP = "group_key"
GROUPED = "pgmrl_grouped"
EVERY_ROW = "pgmrl_all"

Ts = TypeVarTuple("Ts")


def search_groups(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    by: InstrumentedAttribute[Any] | ColumnElement[Any],
    *,
    k: int = 10,
    per_group: int = 1,
    label: str = "distance",
    **options: Unpack[SearchOptions],
) -> Select[*Ts, float]:
    """Search for the k groups whose nearest rows are nearest, and return the nearest rows of each.

    Groups come in the order of their nearest row, rows within a group by distance; ties go by primary key. Rows whose
    group is NULL are in no group and do not come back.

    `statement`, `column`, `query` and `label` are those of `search`, and so are the errors and the warning.

    Args:
        by: what the rows are grouped by: a column of the table that is searched, under its name in the Select.
        k: groups to return.
        per_group: rows to return of each, at most.
        **options: see `SearchOptions`. The shortlist's default is 10 times k times `per_group`, at least 40, whatever
            tuning stored; the more rows a group has, the more of them stand in one another's way: give more. `complete`
            makes up for missing groups too: a group's further rows that are not in the shortlist do not make it fall
            short.

    Returns:
        The Select with the distance as one more column.

    Raises:
        SearchError: `by` is no column of what is searched.

    """
    check_labels(label)
    rows_each = positive_integer("per_group", per_group)
    size = positive_integer("k", k) * rows_each
    shortlist = options.get("shortlist")
    if shortlist is not None and positive_integer("shortlist", shortlist) < size:
        raise SearchError(
            f"shortlist={safe_repr(shortlist)} is smaller than k={k} times per_group={rows_each}: give more"
        )
    # what is tuned brings the nearest rows; here the shortlist is what there is to group
    parameters = SearchParameters.of(statement, column, k, with_shortlist(options, size))
    select_ = cast("AnySelect", statement)

    def build(rows: SelectedRows, bound: BoundQuery) -> Select[Any]:
        ctes = _ctes(parameters, rows, bound, rows_each)
        results = results_table(len(rows.keys), "group_rank")
        searched = join_results(select_, rows.keys, results, results.c.group_rank).add_cte(*ctes, nest_here=True)
        return search_result(searched.add_columns(labelled(results.c.distance, label)))

    shape = shaped(parameters, select_, query, build, "groups", rows_each, label, extra={GROUP: by})
    return search_of_shape(select_, shape)


def _ctes(parameters: SearchParameters, rows: SelectedRows, bound: BoundQuery, per_group: int) -> list[CTE]:
    definition, k, keys = parameters.definition, parameters.k, key_names(len(rows.keys))
    every_row = rows.every_row(definition, bound.vector, rows.extra)
    numbers = [str(number) for number in (k, per_group, k * per_group)]
    if parameters.exact:
        exact = text(groups_sql(EVERY_ROW, keys, GROUP, *numbers)).columns()
        return [*bound.ctes, every_row.cte(EVERY_ROW), exact.cte(RESULTS)]
    shortlist = rows.shortlist(definition, bound, parameters.scan)
    reranked = shortlist.distances(definition, bound, [*keys, GROUP])
    before = [*bound.ctes, *shortlist.ctes, materialized(reranked, RERANKED)]
    grouped = text(groups_sql(RERANKED, keys, GROUP, *numbers)).columns()
    if not parameters.complete:
        return [*before, grouped.cte(RESULTS)]
    short = f"{falls_short_sql(shortlist.size)} OR (SELECT count(*) FROM {GROUPED} WHERE place = 1) < {k}"  # noqa: S608
    if rows.sharded:  # to which goes a condition, and no limit that is not a constant
        source, all_rows = EVERY_ROW, materialized(every_row.where(text(f"({short})")), EVERY_ROW)
    else:
        source, all_rows = only_if_sql(EVERY_ROW, short), unlimited(every_row).cte(EVERY_ROW)
    every = groups_sql(source, keys, GROUP, *numbers)
    either = f"SELECT * FROM {GROUPED} WHERE NOT ({short}) UNION ALL TABLE {EXACT} LIMIT {k * per_group}"  # noqa: S608
    return [
        *before,
        grouped.cte(GROUPED),
        all_rows,
        text(every).columns().cte(EXACT),
        text(either).columns().cte(RESULTS),
    ]
