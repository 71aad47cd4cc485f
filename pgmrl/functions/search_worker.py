"""The functions that do the work, in PL/pgSQL: the search itself, and the vector of one row."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from pgmrl.limits import EF_SEARCH_LIMIT, MAX_SCAN_TUPLES, OVERSAMPLE, SHORTLIST_LIMIT, SHORTLIST_MIN
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.functions.searched_column import Place
    from pgmrl.functions.shapes import Shape
    from pgmrl.model.hnsw import Hnsw
    from pgmrl.model.sql_functions import Filter

__all__ = ["COST", "conditions", "dollar", "filled", "filter_arguments", "sizes", "usual", "vector", "worker"]

COST: Final = 10_000
"""A search costs as much as this many comparisons: the planner should not repeat it lightly."""


def dollar(body: str) -> str:
    """A text in dollar quotes, with a tag that it does not contain."""
    tag = "$pgmrl$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"{tag}{body}{tag}"


@cache
def _template(name: str) -> str:
    return resources.files("pgmrl.database.sql").joinpath("functions", f"{name}.sql").read_text(encoding="utf-8")


def filled(template: str, **values: object) -> str:
    """A template of pgmrl/sql/functions with its places filled."""
    # in one pass: a name that contains {query} is not filled in a second time
    return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), _template(template))


def sizes(k: str, why: str) -> str:
    """Branches of an IF that refuse a k or a shortlist that cannot be; `size` is the shortlist, given or by default.

    Args:
        k: the argument, such as `$2`.
        why: what a shortlist has to do with k, and from where on it is long enough.

    """
    hint = literal(f"{why} to {SHORTLIST_LIMIT}, or NULL for the default.")
    return filled("sizes", k=k, most=SHORTLIST_LIMIT, hint=hint).rstrip()


def usual(place: Place, shortlist: str, rows: str, *, tuned: bool = True) -> str:
    """Lines that set `size` where no shortlist is given, and `effort` where tuning chose one.

    Args:
        place: the column.
        shortlist: the argument, such as `$3`.
        rows: how many shall come back, as `numeric`: no product of two arguments overflows.
        tuned: whether what tuning chose holds.

    """
    wanted = f"greatest({SHORTLIST_MIN}, {OVERSAMPLE} * {rows})"
    if not tuned:
        return f"    size := least({SHORTLIST_LIMIT}, coalesce(size, {wanted}));"
    return filled(
        "usual",
        shortlist=shortlist,
        rows=rows,
        table=literal(qualified(place.schema, place.owner_of_vectors)),
        full=literal(place.column),
        short=literal(place.short_column),
        most=SHORTLIST_LIMIT,
        wanted=wanted,
    ).rstrip()


def worker(place: Place, shape: Shape, marker: str, index: Hnsw) -> str:
    """The statement that makes the search itself.

    Args:
        place: the column.
        shape: what it returns.
        marker: the first line.
        index: how the short column's index is named.

    """
    arguments = [f"query {place.full_type_name}", "k integer", "shortlist integer", "exact boolean", *shape.arguments]
    # the key has no names here: a filter might have them
    arguments += [f"{type_} DEFAULT NULL" for _, type_ in place.keys] + filter_arguments(place)
    body = dollar(f"\n-- pgmrl {marker}\n{_body(place, shape, index)}")
    return (
        f"CREATE OR REPLACE FUNCTION {place.worker(shape.kind)}({', '.join(arguments)}) "
        f"RETURNS SETOF {place.sql('hit')}\n"
        f"LANGUAGE plpgsql STABLE ROWS 1000 COST {COST} SECURITY INVOKER\n"
        f"SET search_path = pg_catalog, pg_temp\nAS {body}"
    )


def _body(place: Place, shape: Shape, index: Hnsw) -> str:
    definition = place.qualified_definition
    keys = shape.keys
    title = f"{place.table}.{place.column}".replace("%", "%%")  # inside format()
    index_name = qualified(place.schema, index.index_name(place.owner_of_vectors, place.short_column))
    # inside the dynamic statement $1 and $2 are the query; the rest follows in the worker's order
    first, keyed = shape.fixed + 1, len(place.keys)
    passed = keyed + len(place.declared.tests)
    return filled(
        "search",
        option=f"$5 {shape.arguments[0].split()[0]}, " if shape.arguments else "",
        usual=usual(place, "$3", shape.rows, tuned=shape.tuned),
        sizes=sizes("$2", "The k rows come out of the shortlist: give as many"),
        ef_limit=EF_SEARCH_LIMIT,
        scan_tuples=MAX_SCAN_TUPLES,
        dims=definition.dims,
        vector=quoted(place.vector_schema),
        short_type=definition.short_type,
        candidates=literal(shape.candidates),
        index=literal(index_name),
        query_hint=literal(f"Give a vector of {definition.dims} dimensions, as in {place.table}.{place.column}."),
        dims_message=literal(f"query has %s dimensions, {title} has {definition.dims}"),
        zero_full=_zero_full(place),
        zero_short=_zero_short(place),
        checks=shape.checks,
        conditions="\n".join([_without_one(place, 3, first), *conditions(place, 3 + keyed, first + keyed)]),
        short_query=definition.sql("$1"),
        nearest=literal(f" ORDER BY {place.short} {definition.short_operator} $2 LIMIT "),
        tail=shape.tail,
        exactly=shape.exactly,
        incomplete=shape.incomplete or f"hits.listed < size AND pgmrl.gave_up_v1({literal(index_name)}, scans)",
        passed="".join(f", ${shape.fixed + number}" for number in range(1, passed + 1)),
        results=", ".join(f"d.{name}" for name in keys),
        similarity=definition.metric.similarity_sql("d.distance"),
        returned=shape.returned,
        unnested=", ".join(f"unnest(hits.{name})" for name in keys),
        unnested_names=", ".join(keys),
    )


def conditions(place: Place, inner: int, outer: int) -> Iterator[str]:
    """Lines that add a condition for each filter that is given.

    Args:
        place: the column.
        inner: the number of the first filter's parameter within the dynamic statement.
        outer: the same among the function's arguments.

    """
    for number, one in enumerate(place.declared.tests):
        condition = literal(f" AND {_condition(place, one, f'${inner + number}')}")
        yield f"    IF ${outer + number} IS NOT NULL THEN kept := kept || {condition}; END IF;"


def _without_one(place: Place, inner: int, outer: int) -> str:
    """A line that leaves out the row with a key; arguments as `conditions`."""
    given = [f"${outer + number} IS NOT NULL" for number in range(len(place.keys))]
    same = [f"t.{quoted(name)} = ${inner + number}" for number, (name, _) in enumerate(place.keys)]
    other = literal(f" AND NOT ({' AND '.join(same)})")
    return f"    IF {' AND '.join(given)} THEN kept := kept || {other}; END IF;"


def _condition(place: Place, one: Filter, value: str) -> str:
    row = f"t.{quoted(one.column)}"
    if dict(place.types)[one.column] == "citext":
        # its operators are not on the fixed search_path, where text's would compare: those of arrays are by the type
        compared = f"{value} @> ARRAY[{row}]" if one.test == "in" else f"ARRAY[{row}] {one.test} ARRAY[{value}]"
        return f"{row} IS NOT NULL AND {compared}"
    if one.test == "in":
        return f"{row} = ANY ({value})"
    return f"{row} {'@>' if one.test == 'contains' else one.test} {value}"


def _zero_full(place: Place) -> str:
    definition = place.qualified_definition
    if not definition.metric.normalise:
        return ""
    message = "query is a zero vector, which has no direction"
    hint = literal("Give a vector that is not zero.")
    return (
        f"    ELSIF {definition.norm(definition.full)}($1) = 0 THEN\n"
        "        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',\n"
        f"            MESSAGE = {literal(message)}, HINT = {hint};"
    )


def _zero_short(place: Place) -> str:
    definition = place.qualified_definition
    if not definition.may_lose_direction:
        return ""
    short = definition.short
    message = f"query is zero in its leading {short.dims} dimensions, so the short index cannot be searched with it"
    return (
        f"        IF {definition.norm(short.type)}(short_query) = 0 THEN\n"
        f"            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = {literal(message)},\n"
        "                HINT = 'Say exact => true.';\n"
        "        END IF;"
    )


def filter_arguments(place: Place) -> list[str]:
    """The filters as arguments of a function, with their defaults."""
    return [f"{quoted(place.argument(one))} {place.argument_type(one)} DEFAULT NULL" for one in place.declared.tests]


def vector(place: Place) -> str:
    """The statement that makes the function for the vector of one row."""
    keys = [f"{quoted(name)} {type_}" for name, (_, type_) in zip(place.key_arguments, place.keys, strict=True)]
    given = [f"${number}" for number in range(1, len(keys) + 1)]
    same = " AND ".join(f"t.{quoted(name)} = {value}" for (name, _), value in zip(place.keys, given, strict=True))
    shown = " || ', ' || ".join(f"coalesce({value}::text, 'NULL')" for value in given)
    body = filled(
        "vector",
        full=place.full_type_name,
        stored=place.full,
        source=place.source,
        same_key=same,
        unknown=" OR ".join(f"{value} IS NULL" for value in given),
        no_key=literal(f"{', '.join(place.key_arguments)} is NULL"),
        missing=f"{literal(f'there is no row of {place.table} with the key ')} || {shown}",
        empty=f"{literal(f'the row of {place.table} with this key has no vector: ')} || {shown}",
        empty_hint=literal(f"Leave out rows where {place.column} is NULL."),
    )
    return (
        f"CREATE OR REPLACE FUNCTION {place.sql('vector')}({', '.join(keys)}) RETURNS {place.full_type_name}\n"
        f"LANGUAGE plpgsql STABLE SECURITY INVOKER\nSET search_path = pg_catalog, pg_temp\n"
        f"AS {dollar(f'{chr(10)}-- pgmrl: the vector of one row{chr(10)}{body}')}"
    )
