"""The best rows of each group, such as the best passages of each document, in one statement.

pgmrl_found   the shortlist by full distance: k groups by their nearest row, the nearest rows of each
pgmrl_exact   the same of all rows; executed only where the shortlist holds fewer than k groups
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import text

from pgmrl.errors import SearchError
from pgmrl.searching import statement as parts
from pgmrl.searching.fallback import EXACT, FOUND, distances_sql, prepare_search
from pgmrl.searching.options import SearchOptions, positive, shortlist_size
from pgmrl.searching.statement import SHORTLIST, WINNERS, key_names, materialized, winners_table
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.statement import Candidates

__all__ = ["search_groups"]

GROUP = "group_key"
EVERY = "pgmrl_all"

Ts = TypeVarTuple("Ts")


def search_groups(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    by: InstrumentedAttribute[Any] | ColumnElement[Any],
    *,
    k: int = 10,
    per_group: int = 1,
    shortlist: int | None = None,
    ef_search: int | None = None,
    exact: bool = False,
    complete: bool = True,
    label: str = "distance",
) -> Select[*Ts, float]:
    """Search for the k groups whose nearest rows are nearest, and return the nearest rows of each.

    Groups come in the order of their nearest row, rows within a group by distance; ties go by primary key. Rows whose
    group is NULL are in no group and do not come back.

    Args:
        statement: as for `search`.
        column: as for `search`.
        query: as for `search`.
        by: what the rows are grouped by: a column of the table that is searched, under its name in the Select.
        k: groups to return.
        per_group: rows to return of each, at most.
        shortlist: rows that are ranked exactly; default 10 times k times `per_group`, at least 40. The more rows a
            group has, the more of them stand in one another's way: give more.
        ef_search: as for `search`.
        exact: rank every row that the filters leave.
        complete: where the shortlist holds fewer than k groups, rank every row that the filters leave. A group's
            further rows that are not in the shortlist do not make it fall short.
        label: the name of the distance in the result.

    Returns:
        The Select with the distance as one more column.

    Raises:
        SearchError: as `search`; `by` is no column of what is searched.
        VectorError: as `search`.
        DefinitionError: as `search`.

    Warns:
        ExactSearchWarning: as `search`.

    """
    rows_each = positive("per_group", per_group)
    # what is tuned brings the nearest rows; here the shortlist is what there is to group
    size = shortlist_size(positive("k", k) * rows_each) if shortlist is None else shortlist
    if positive("shortlist", size) < k * rows_each:
        raise SearchError(f"shortlist={size} is smaller than k={k} times per_group={rows_each}: give more")
    asked = SearchOptions.of(statement, column, k, size, None, ef_search, exact)
    select_ = cast("AnySelect", statement)
    rows, sent = prepare_search(asked, select_, query, {GROUP: by})
    ctes = _ctes(asked, rows, sent, rows_each, complete=complete)
    winners = winners_table(len(rows.keys), "group_rank")
    found = parts.result(select_, rows.keys, winners, winners.c.group_rank).add_cte(*ctes, nest_here=True)
    return found.add_columns(winners.c.distance.label(label))


def _ctes(asked: SearchOptions, rows: Candidates, sent: BoundQuery, per_group: int, *, complete: bool) -> list[CTE]:
    definition, names = asked.definition, ", ".join(key_names(len(rows.keys)))
    few = text(_few(asked.k))
    where = () if asked.exact else (few,)
    every = rows.exactly(definition, sent.vector, None, *where, carry=rows.extra).cte(EVERY)
    exact = text(_grouped(EVERY, names, asked.k, per_group)).columns()
    if asked.exact:
        return [*sent.ctes, every, exact.cte(WINNERS)]
    shortlist = materialized(rows.nearest(definition, sent.short, asked.scan), SHORTLIST)
    ranked = distances_sql(definition, sent, f"{names}, {GROUP}", SHORTLIST)
    found = sent.text(_grouped(f"({ranked})", names, asked.k, per_group)).columns()
    if not complete:
        return [*sent.ctes, shortlist, found.cte(WINNERS)]
    body = f"SELECT * FROM {FOUND} WHERE NOT {_few(asked.k)} UNION ALL TABLE {EXACT}"  # noqa: S608
    both = text(f"{body} LIMIT {asked.k * per_group}").columns()
    return [*sent.ctes, shortlist, found.cte(FOUND), every, exact.cte(EXACT), both.cte(WINNERS)]


def _grouped(source: str, names: str, k: int, per_group: int) -> str:
    """The k groups whose nearest rows are nearest; a group is told from others by its nearest row."""
    keys = names.split(", ")
    firsts = ", ".join(f"first_value({name}) OVER each AS first_{name}" for name in keys)
    placed = (
        f"SELECT {names}, distance, row_number() OVER each AS place, "  # noqa: S608 - names of our own
        f"first_value(distance) OVER each AS first_distance, {firsts} FROM {source} AS ranked "
        f"WHERE distance != 'NaN' AND {GROUP} IS NOT NULL "
        f"WINDOW each AS (PARTITION BY {GROUP} ORDER BY distance, {names})"
    )
    order = ", ".join(["first_distance", *(f"first_{name}" for name in keys)])
    ordered = (
        f"SELECT {names}, distance, place, dense_rank() OVER (ORDER BY {order}) AS group_rank "  # noqa: S608
        f"FROM ({placed}) AS placed WHERE place <= {per_group}"
    )
    # The LIMIT takes nothing away. Without it the planner expects a third of the table, and reads it all for the join.
    return (
        f"SELECT {names}, distance, place, group_rank FROM ({ordered}) AS grouped "  # noqa: S608
        f"WHERE group_rank <= {k} LIMIT {k * per_group}"
    )


def _few(k: int) -> str:
    return f"(SELECT count(*) FROM {FOUND} WHERE place = 1) < {k}"  # noqa: S608
