"""How a shortlist is ranked, as SQL text: nearest rows, nearest groups, rows that differ, and lists that are fused.

The searches in Python and the installed SQL functions take their text from here, so that both rank alike. A shortlist
is a relation with the columns `key_1`, …, and `full_vector`; numbers are given as text, a literal in a search and a
variable of PL/pgSQL in a function. Only names and numbers of pgmrl's own are put in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.model.metrics import ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.model.shortening import Definition

__all__ = [
    "distance_sql",
    "distances_sql",
    "diverse_sql",
    "fused_sql",
    "groups_sql",
    "key_names",
    "nearest_sql",
    "numbered_sql",
    "rrf_part_sql",
    "weighted_part_sql",
]


def key_names(count: int) -> list[str]:
    """The names a primary key's columns have in the parts of a statement."""
    return [f"key_{number}" for number in range(1, count + 1)]


def distance_sql(definition: Definition, query: str) -> str:
    """The distance of a row of the shortlist, as a column of that name.

    Args:
        definition: of the column.
        query: the query's full vector, as SQL text.
    """
    return f"full_vector {definition.full_operator} {query} AS distance"


def nearest_sql(distance: str, keys: Sequence[str], source: str, k: str) -> str:
    """The k nearest rows of a shortlist: keys and distance, nearest first; ties go by key.

    Args:
        distance: the column of that name, as `distance_sql` computes it, or as the shortlist has it.
        keys: names of the key's columns.
        source: name of the shortlist, or a subquery with its alias.
        k: how many.
    """
    names = ", ".join(keys)
    return f"SELECT {names}, {distance} FROM {source} ORDER BY distance, {names} LIMIT {k}"  # noqa: S608


def distances_sql(definition: Definition, query: str, columns: str, source: str) -> str:
    """Columns of a shortlist and the distance of each row; computed once a row, whoever reads it.

    Args:
        definition: of the column.
        query: the query's full vector, as SQL text.
        columns: names of the columns that come along, with commas between them.
        source: name of the shortlist.
    """
    return f"SELECT {columns}, {distance_sql(definition, query)} FROM {source} OFFSET 0"  # noqa: S608


# -- groups --------------------------------------------------------------------------------------------------------


def groups_sql(source: str, keys: Sequence[str], group: str, k: str, per_group: str, rows: str) -> str:
    """The k groups whose nearest rows are nearest, and the nearest rows of each; rows without a group are left out.

    A group is told from the others by its nearest row. Returns keys, distance, `place` within the group and
    `group_rank`, both counted from 1.

    Args:
        source: rows with keys, `distance` and the group, as a name or a subquery in parentheses.
        keys: names of the key's columns.
        group: name of the column whose values are the groups.
        k: groups.
        per_group: rows of each group, at most.
        rows: of all groups together, at most: k times per_group.
    """
    names = ", ".join(keys)
    firsts = ", ".join(f"pg_catalog.first_value({name}) OVER each AS first_{name}" for name in ["distance", *keys])
    placed = (
        f"SELECT {names}, distance, row_number() OVER each AS place, {firsts} FROM {source} AS ranked "  # noqa: S608
        f"WHERE distance != 'NaN' AND {group} IS NOT NULL "
        f"WINDOW each AS (PARTITION BY {group} ORDER BY distance, {names})"
    )
    order = ", ".join(f"first_{name}" for name in ["distance", *keys])
    ordered = (
        f"SELECT {names}, distance, place, dense_rank() OVER (ORDER BY {order}) AS group_rank "  # noqa: S608
        f"FROM ({placed}) AS placed WHERE place <= {per_group}"
    )
    # The LIMIT takes nothing away. Without it the planner expects a third of the table, and reads it all for the join.
    return (
        f"SELECT {names}, distance, place, group_rank FROM ({ordered}) AS grouped "  # noqa: S608
        f"WHERE group_rank <= {k} LIMIT {rows}"
    )


# -- rows that differ ----------------------------------------------------------------------------------------------


def numbered_sql(source: str, keys: Sequence[str]) -> str:
    """What there is to pick from: number by distance, keys, `full_vector` and distance.

    Args:
        source: rows with keys, `full_vector` and `distance`, as a name or a subquery in parentheses with its alias.
        keys: names of the key's columns.
    """
    names = ", ".join(keys)
    return (
        f"SELECT CAST(row_number() OVER (ORDER BY distance, {names}) AS integer) AS number, {names}, full_vector, "  # noqa: S608
        f"distance FROM {source} WHERE distance != 'NaN'"
    )


def diverse_sql(definition: Definition, numbered: str, keys: Sequence[str], relevance: str, k: str) -> str:
    """Rows that are near and differ, by maximal marginal relevance: keys, distance, `place` and `score`.

    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998. Each pick maximises

        relevance * similarity(query, row) - (1 - relevance) * max(similarity(row, picked) over the rows picked so far)

    A recursion carries, for each row, its distance to the nearest row picked so far (`nearest`), so that a pick costs
    one distance for each row of the shortlist.

    Args:
        definition: of the column.
        numbered: name of what `numbered_sql` selects.
        keys: names of the key's columns.
        relevance: 0 to 1.
        k: how many.
    """
    share = f"CAST({relevance} AS double precision)"
    similarity = definition.metric.similarity_sql
    names = ", ".join(f"{numbered}.{name}" for name in keys)
    between = f"r.full_vector {definition.full_operator} l.full_vector"
    first = (
        f"SELECT 1 AS place, number, {share} * {similarity('distance')} AS score, ARRAY[number] AS picked, "  # noqa: S608
        f"pg_catalog.array_fill(CAST('infinity' AS double precision), "
        f"ARRAY[(SELECT CAST(count(*) AS integer) FROM {numbered})]) "
        f"AS nearest FROM {numbered} WHERE number = 1"
    )
    compared = (
        f"SELECT r.number, r.distance, least(p.nearest[r.number], {between}) AS near "  # noqa: S608
        f"FROM {numbered} AS r, {numbered} AS l WHERE l.number = p.number OFFSET 0"
    )
    scored = (
        f"SELECT number, near, {share} * {similarity('distance')} - ({ONE} - {share}) * {similarity('near')} AS score "  # noqa: S608
        f"FROM ({compared}) AS compared"
    )
    left = "FILTER (WHERE number != ALL (p.picked))"
    best = (
        f"SELECT (pg_catalog.array_agg(number ORDER BY score DESC, number) {left})[1] AS number, "  # noqa: S608
        f"max(score) {left} AS score, pg_catalog.array_agg(near ORDER BY number) AS nearest FROM ({scored}) AS scored"
    )
    return (
        f"WITH RECURSIVE picks AS ({first} UNION ALL "  # noqa: S608
        f"SELECT p.place + 1, best.number, best.score, p.picked OPERATOR(pg_catalog.||) best.number, best.nearest "
        f"FROM picks AS p, LATERAL ({best}) AS best WHERE p.place < {k} AND best.number IS NOT NULL) "
        f"SELECT {names}, {numbered}.distance, picks.place, picks.score "
        # the LIMIT takes nothing away: it tells the planner how many there are
        f"FROM picks JOIN {numbered} ON {numbered}.number = picks.number LIMIT {k}"
    )


# -- fusion --------------------------------------------------------------------------------------------------------


def rrf_part_sql(weight: str, rrf_k: str) -> str:
    """What a list adds to a row's score by reciprocal rank fusion: weight / (k + rank).

    Cormack, Clarke, Buettcher: "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
    SIGIR 2009.

    Args:
        weight: of the list.
        rrf_k: the larger, the less the first places count before the others.
    """
    return f"CAST({weight} AS double precision) / (CAST({rrf_k} AS double precision) + CAST(rank AS double precision))"


def weighted_part_sql(weight: str) -> str:
    """What a list adds to a row's score by its values, scaled so that its best row has 1 and its last 0.

    Args:
        weight: of the list.
    """
    low, high = "min(value) OVER ()", "max(value) OVER ()"
    spread = f"nullif({high} - {low}, CAST(0 AS double precision))"
    return f"CAST({weight} AS double precision) * coalesce((value - {low}) / {spread}, 1)"


def fused_sql(lists: Sequence[str], parts: Sequence[str], keys: Sequence[str], k: str) -> str:
    """The k rows of the largest scores: keys, `score`, and for each list the row's rank in it, `rank_1`, ….

    Args:
        lists: names of the lists: relations with keys and `value`, the larger the better.
        parts: what each adds to the score, as `rrf_part_sql` and `weighted_part_sql` write it.
        keys: names of the key's columns.
        k: how many.
    """
    names, count = ", ".join(keys), len(lists)
    numbers = range(1, count + 1)
    # added in the order of the lists, and not by sum(): the same lists give the same score to the last bit
    score = " + ".join(f"coalesce(max(part_{number}), 0)" for number in numbers)
    ranks = ", ".join(f"max(rank_{number}) AS rank_{number}" for number in numbers)
    ranked = " UNION ALL ".join(
        _ranked_list(name, part, number, count, names)
        for number, (name, part) in enumerate(zip(lists, parts, strict=True), 1)
    )
    return (
        f"SELECT {names}, {score} AS score, {ranks} FROM ({ranked}) AS listed "  # noqa: S608
        f"GROUP BY {names} ORDER BY score DESC, {names} LIMIT {k}"
    )


def _ranked_list(name: str, part: str, number: int, count: int, keys: str) -> str:
    """One list with its rank and its part of the score; NULL in the columns of the others."""
    columns = [
        f"rank AS rank_{other}, {part} AS part_{other}"
        if other == number
        else f"NULL::bigint AS rank_{other}, NULL::double precision AS part_{other}"
        for other in range(1, count + 1)
    ]
    ranked = f"SELECT {keys}, value, row_number() OVER (ORDER BY value DESC, {keys}) AS rank FROM {name}"  # noqa: S608
    return f"SELECT {keys}, {', '.join(columns)} FROM ({ranked}) AS ranked"  # noqa: S608
