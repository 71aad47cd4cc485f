"""What people call: SQL functions that the planner inlines, and views of related rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.hybrid_worker import hybrid_arguments
from pgmrl.functions.search_worker import COST, filter_arguments
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgmrl.functions.searched_column import Place
    from pgmrl.model.sql_functions import Filter

__all__ = ["told", "views", "wrappers"]


def told(place: Place, what: str) -> str:
    """A comment: what it is, and of which column."""
    return f"{what}; {place.schema}.{place.table}.{place.column} by {place.definition.metric.name}"


def wrappers(place: Place) -> Iterator[str]:
    """The statements that make the functions people call, with their comments."""
    tests, filters = place.declared.tests, filter_arguments(place)
    usual = ["shortlist integer DEFAULT NULL", "exact boolean DEFAULT false", *filters]
    keys = [f"{quoted(name)} {type_}" for name, (_, type_) in zip(place.key_arguments, place.keys, strict=True)]
    count = len(keys)
    nothing, query, k = ["NULL"] * count, f"query {place.full_type_name}", "k integer DEFAULT 10"
    yield from _wrapper(
        place,
        "search",
        [query, k, *usual],
        ["$1", "$2", "$3", "$4", *nothing, *_numbers(5, tests)],
        _rows("$2"),
        f"the rows of {place.table} nearest to a vector",
    )
    given = [f"${number}" for number in range(1, count + 1)]
    asked, size, exact = (f"${count + number}" for number in (1, 2, 3))
    yield from _wrapper(
        place,
        "similar",
        [*keys, k, *usual],
        [f"{place.sql('vector')}({', '.join(given)})", asked, size, exact, *given, *_numbers(count + 4, tests)],
        _rows(asked),
        f"the rows of {place.table} most like one of them, without that one",
    )
    named = ", ".join([literal(qualified(place.schema, place.table)), literal(place.column), "$1"])
    yield from _wrapper(
        place,
        "search_named",
        ["name text", k, *usual],
        [f"pgmrl.query_v1({named})::{place.full_type_name}", "$2", "$3", "$4", *nothing, *_numbers(5, tests)],
        _rows("$2"),
        f"the rows of {place.table} nearest to a named query (pgmrl.queries)",
    )
    yield from _wrapper(
        place,
        "search_diverse",
        [query, k, "relevance double precision DEFAULT 0.5", *usual],
        ["$1", "$2", "$4", "$5", "$3", *nothing, *_numbers(6, tests)],
        _rows("$2"),
        f"rows of {place.table} near to a vector that differ from each other (maximal marginal relevance)",
    )
    if place.declared.group_by is not None:
        yield from _wrapper(
            place,
            "search_groups",
            [query, k, "per_group integer DEFAULT 1", *usual],
            ["$1", "$2", "$4", "$5", "$3", *nothing, *_numbers(6, tests)],
            f"{_rows('$2')} * {_rows('$3')}",
            f"the nearest rows of {place.table} by {place.declared.group_by}: k groups, nearest first",
        )
    if place.declared.words is not None:
        yield from _hybrid(place)


def _rows(argument: str) -> str:
    # the limit tells the planner how many rows come; the worker refuses what is NULL or less than 1
    return f"GREATEST({argument}, 1)"


def _numbers(first: int, tests: Sequence[Filter]) -> list[str]:
    return [f"${first + number}" for number in range(len(tests))]


def _wrapper(place: Place, kind: str, arguments: list[str], passed: list[str], rows: str, what: str) -> Iterator[str]:
    name, working = place.sql(kind), kind if kind in place.working else "search"
    columns = ", ".join(f"s.{quoted(one)}" for one in place.key_results)
    yield (
        f"CREATE OR REPLACE FUNCTION {name}({', '.join(arguments)}) RETURNS SETOF {place.sql('hit')}\n"
        f"LANGUAGE sql STABLE ROWS 10 COST {COST} SECURITY INVOKER\nBEGIN ATOMIC\n"
        f"    SELECT {columns}, s.distance, s.similarity, s.rank, s.requested, s.returned\n"
        f"    FROM {place.worker(working)}({', '.join(passed)}) AS s\n    LIMIT {rows}; END"
    )
    yield f"COMMENT ON FUNCTION {name} IS {literal(told(place, what))}"


def _hybrid(place: Place) -> Iterator[str]:
    arguments, name = hybrid_arguments(place, defaults=True), place.sql("hybrid")
    passed = ", ".join(f"${number}" for number in range(1, len(arguments) + 1))
    columns = [*place.key_results, "score", "rank", "vector_rank", "words_rank", "distance", "similarity"]
    columns += ["requested", "returned"]
    yield (
        f"CREATE OR REPLACE FUNCTION {name}({', '.join(arguments)}) RETURNS SETOF {place.sql('fused')}\n"
        f"LANGUAGE sql STABLE ROWS 10 COST {COST} SECURITY INVOKER\nBEGIN ATOMIC\n"
        f"    SELECT {', '.join(f's.{quoted(one)}' for one in columns)}\n"
        f"    FROM {place.worker('hybrid')}({passed}) AS s\n    LIMIT {_rows('$3')}; END"
    )
    what = f"the rows of {place.table} that a vector and words in {place.declared.words} find together"
    yield f"COMMENT ON FUNCTION {name} IS {literal(told(place, what))}"


def views(place: Place) -> Iterator[str]:
    """The statements that make the views of related rows."""
    declared = place.declared
    if declared.related is None:
        return
    own_names, related_names = place.view_keys
    keys = [f"t.{quoted(name)} AS {quoted(shown)}" for shown, (name, _) in zip(own_names, place.keys, strict=True)]
    related = [
        f"s.{quoted(name)} AS {quoted(shown)}" for shown, name in zip(related_names, place.key_results, strict=True)
    ]
    own = ", ".join(f"t.{quoted(name)}" for name, _ in place.keys)
    found = ", ".join([*(f"w.{quoted(name)}" for name in place.key_results), "w.rank, w.distance, w.similarity"])
    # the limit tells the planner how many there are
    called = f"{place.worker()}({place.full}, {declared.related}, NULL, false, {own})"
    view = place.sql("related")
    yield (
        f"CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS\n"
        f"SELECT {', '.join([*keys, *related])}, s.rank, s.distance, s.similarity\n"
        f"FROM {place.source}\n"
        f"CROSS JOIN LATERAL (SELECT {found} FROM {called} AS w LIMIT {declared.related}) AS s\n"
        f"WHERE {_searchable(place)}"
    )
    what = f"the {declared.related} rows of {place.table} most like each row; ask for one row or a few"
    yield f"COMMENT ON VIEW {view} IS {literal(told(place, what))}"
    if declared.stored:
        stored = place.sql("related_stored")
        listed = ", ".join(map(quoted, own_names))
        yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {stored} AS SELECT * FROM {view} WITH NO DATA"
        key = quoted(place.named("related_stored_key"))  # for REFRESH MATERIALIZED VIEW CONCURRENTLY
        yield f"CREATE UNIQUE INDEX IF NOT EXISTS {key} ON {stored} ({listed}, rank)"
        what = f"{what.split(';', maxsplit=1)[0]}, as the owner saw them at the last REFRESH MATERIALIZED VIEW"
        yield f"COMMENT ON MATERIALIZED VIEW {stored} IS {literal(told(place, what))}"


def _searchable(place: Place) -> str:
    """Rows whose vector can be searched with: the worker refuses the others.

    By the full vector, and not by the short one: a view that reads the short column would stand in the way of its end.
    """
    definition = place.qualified_definition
    there = f"{place.full} IS NOT NULL"
    if not definition.metric.normalise:
        return there
    leading = f"{definition.qualified('subvector')}({place.full}, 1, {definition.short.dims})"
    looked_at = leading if definition.may_lose_direction else place.full
    return f"{there} AND {definition.norm(definition.full)}({looked_at}) OPERATOR(pg_catalog.>) 0"
