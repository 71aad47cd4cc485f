"""What the functions make of a shortlist: the nearest rows, the nearest groups, or rows that differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.names import literal, quoted

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import Place

__all__ = ["Shape", "shapes"]

FIXED = 4  # arguments of every worker: query, k, shortlist, exact


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to end the search; all parts are SQL text.

    Attributes:
        kind: `search`, `search_groups` or `search_diverse`.
        keys: names of the key's columns within the statement.
        candidates: selects key and full vector, ready for conditions.
        exactly: an expression: the shortlist without the short index.
        tail: an expression: from the shortlist to the number listed, and arrays of distances and keys in their order.
        rows: how many rows are asked for, as `numeric`, by which the shortlist's default size goes.
        tuned: whether that is what tuning chose; not where the shortlist is what there is to pick from.
        incomplete: whether rows may be missing that the filters would let through; None: when the index gave up.
        returned: how many there are, for the result.
        arguments: of its own, behind those of every shape.
        checks: of these arguments.

    """

    kind: str
    keys: tuple[str, ...]
    candidates: str
    exactly: str
    tail: str
    rows: str
    tuned: bool = True
    incomplete: str | None = None
    returned: str = "pg_catalog.cardinality(hits.distance)"
    arguments: tuple[str, ...] = ()
    checks: str = ""

    @property
    def fixed(self) -> int:
        """The number of arguments before the key and the filters."""
        return FIXED + len(self.arguments)


def shapes(place: Place) -> list[Shape]:
    """Those that a column's functions have."""
    groups = [] if place.declared.group_by is None else [_groups(place, place.declared.group_by)]
    return [_nearest(place), _diverse(place), *groups]


def _nearest(place: Place) -> Shape:
    keys, listed = _keys(place)
    ranked = f", ranked AS (SELECT {listed}, {_distance(place)} FROM shortlist ORDER BY distance, {listed} LIMIT "
    arrays = _arrays(keys, f"distance, {listed}")
    tail = f") SELECT (SELECT count(*) FROM shortlist) AS listed, {arrays} FROM ranked WHERE distance <> 'NaN'"
    return Shape(
        "search",
        keys,
        _candidates(place),
        _exact_shortlist(place),
        f"{literal(ranked)} || $2 || {literal(tail)}",
        "$2::numeric",
    )


def _groups(place: Place, group: str) -> Shape:
    """The nearest groups and the nearest rows of each; rows without a group are left out."""
    keys, listed = _keys(place)
    firsts = ["distance", *keys]  # a group is told from others by its nearest row, which orders those as near
    placed = (
        f", placed AS (SELECT {listed}, distance, row_number() OVER each AS place, "
        f"{', '.join(f'first_value({name}) OVER each AS first_{name}' for name in firsts)} "
        f"FROM (SELECT {listed}, member_of, {_distance(place)} FROM shortlist WHERE member_of IS NOT NULL) AS d "
        f"WHERE distance <> 'NaN' WINDOW each AS (PARTITION BY member_of ORDER BY distance, {listed})), numbered AS ("
        f"SELECT {listed}, distance, place, "
        f"dense_rank() OVER (ORDER BY {', '.join(f'first_{name}' for name in firsts)}) AS number FROM placed) "
        f"SELECT (SELECT max(number) FROM numbered) AS listed, {_arrays(keys, 'number, place')} "
        "FROM numbered WHERE number <= "
    )
    return Shape(
        "search_groups",
        keys,
        _candidates(place, f", t.{quoted(group)} AS member_of"),
        "'(' || candidates || ')'",  # a limit on rows would leave groups out
        f"{literal(placed)} || $2 || ' AND place <= ' || $5",
        "$2::numeric * coalesce($5, 1)",
        tuned=False,
        incomplete="coalesce(hits.listed, 0) < $2",
        returned="least(hits.listed, $2)::integer",
        arguments=("per_group integer",),
        checks=_check("$5 IS NULL OR $5 NOT BETWEEN 1 AND 1000", "per_group", "Give 1 to 1000 rows of each group.")
        + "\n    ELSIF size < $2::bigint * $5 THEN\n"
        "        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',\n"
        "            MESSAGE = format('shortlist is %s, k is %s, per_group is %s', size, $2, $5),\n"
        "            HINT = 'The rows of all groups come out of the shortlist: give k times per_group or more.';",
    )


def _diverse(place: Place) -> Shape:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each step takes the row with the greatest relevance * similarity to the query - (1 - relevance) * similarity to the
    nearest row taken so far, as `search_diverse` does.
    """
    keys, listed = _keys(place)
    similar = place.definition.metric.similarity_sql
    operator = place.qualified_definition.full_operator
    ranked = (
        f", ranked AS MATERIALIZED (SELECT row_number() OVER (ORDER BY distance, {listed}) AS n, {listed}, "
        f"full_vector, distance FROM (SELECT {listed}, full_vector, {_distance(place)} FROM shortlist) AS d "
        "WHERE distance <> 'NaN'), "
        # `apart`: of every row, its distance to the nearest that was taken
        "picks AS (SELECT 1 AS step, f.n, ARRAY[f.n] AS taken, "
        f"(SELECT array_agg(o.full_vector {operator} f.full_vector ORDER BY o.n) FROM ranked AS o) AS apart "
        "FROM ranked AS f WHERE f.n = 1 UNION ALL "
        "SELECT p.step + 1, c.n, p.taken || c.n, "
        f"(SELECT array_agg(least(p.apart[o.n], o.full_vector {operator} c.full_vector) ORDER BY o.n) "
        "FROM ranked AS o) FROM picks AS p CROSS JOIN LATERAL ("
        "SELECT o.n, o.full_vector FROM ranked AS o WHERE o.n <> ALL (p.taken) ORDER BY "
    )
    # two constants, so that they and what stands between them are double precision like `search_diverse`'s
    order = literal(f"::double precision * {similar('o.distance')} - (1 - ")
    order += " || $5 || "
    order += literal(f"::double precision) * {similar('p.apart[o.n]')} DESC, o.n LIMIT 1) AS c WHERE p.step < ")
    arrays = _arrays(keys, "step")
    collected = f") SELECT (SELECT count(*) FROM shortlist) AS listed, {arrays} FROM picks JOIN ranked USING (n)"
    return Shape(
        "search_diverse",
        keys,
        _candidates(place),
        _exact_shortlist(place),
        f"{literal(ranked)} || $5 || {order} || $2 || {literal(collected)}",
        "$2::numeric",
        tuned=False,
        arguments=("relevance double precision",),
        checks=_check(
            "$5 IS NULL OR $5 NOT BETWEEN 0 AND 1",  # NaN is greater than 1
            "relevance",
            "Give 1 for the nearest rows, less for rows that differ from each other.",
        ),
    )


# -- parts ---------------------------------------------------------------------------------------------------------


def _keys(place: Place) -> tuple[tuple[str, ...], str]:
    keys = tuple(f"key_{number}" for number in range(1, len(place.keys) + 1))
    return keys, ", ".join(keys)


def _candidates(place: Place, more: str = "") -> str:
    keys = ", ".join(f"t.{quoted(name)} AS key_{number}" for number, (name, _) in enumerate(place.keys, 1))
    return f"SELECT {keys}, {place.full} AS full_vector{more} FROM {place.source} WHERE true"


def _distance(place: Place) -> str:
    return f"full_vector {place.qualified_definition.full_operator} $1 AS distance"


def _exact_shortlist(place: Place) -> str:
    keys = ", ".join(f"t.{quoted(name)}" for name, _ in place.keys)
    # + 0 keeps an index on the full vector out
    order = literal(f" ORDER BY ({place.full} {place.qualified_definition.full_operator} $1) + 0, {keys} LIMIT ")
    return f"'MATERIALIZED (' || candidates || {order} || size || ')'"


def _arrays(keys: tuple[str, ...], order: str) -> str:
    return ", ".join(f"array_agg({name} ORDER BY {order}) AS {name}" for name in ["distance", *keys])


def _check(wrong: str, argument: str, hint: str) -> str:
    return (
        f"    ELSIF {wrong} THEN\n"
        "        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',\n"
        f"            MESSAGE = '{argument} is ' || coalesce($5::text, 'NULL'), HINT = {literal(hint)};"
    )
