"""The functions that do the work, in PL/pgSQL: `…_search_v1`, `…_search_groups_v1`, `…_search_diverse_v1`.

A worker plans each search with a filter for its own numbers and values: a static statement with `LIMIT $1` and
`section = $2 OR $2 IS NULL` would be planned without knowing them. A search without one is static, and planned once.
"""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Final

from pgmrl.functions.filter_arguments import filter_arguments, filter_conditions
from pgmrl.functions.plpgsql import Refusal, dynamic_text, filled, lines, numbered, refuse, static_text, value_of
from pgmrl.functions.query_argument import length_refusals, scale_query
from pgmrl.functions.shortlist_argument import size_refusals, stored_or_usual_shortlist, usual_shortlist
from pgmrl.functions.shortlist_ranking import all_rows, filtered_shortlist, kept_shortlist, shortlist
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.model.scan_settings import (
    NO_LIMIT,
    PGVECTOR_DEFAULTS,
    default_ef_search_sql,
    gated_vector_sql,
    long_scan_settings,
    max_scan_tuples_sql,
    scan_settings,
)
from pgmrl.names import dollar_quoted, literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgmrl.functions.searched_column import SearchedColumn
    from pgmrl.functions.shortlist_ranking import ShortlistRanking
    from pgmrl.model.hnsw import Hnsw

__all__ = ["COST", "search_worker"]

_EF_SEARCH: Final = f"{default_ef_search_sql('coalesce(ef_search, shortlist_size)')}::text"
COST: Final = 10_000
"""A search costs as much as this many comparisons: the planner should not repeat it lightly."""


def search_worker(column: SearchedColumn, ranking: ShortlistRanking, first_line: str, index: Hnsw) -> str:
    """The statement that makes a worker.

    Args:
        column: the column.
        ranking: what it makes of its shortlist.
        first_line: of its text, by which the catalogue knows it.
        index: how the short column's index is named.

    """
    arguments = [f"query {column.vector_type}", "k integer", "shortlist integer", "exact boolean"]
    arguments += [] if ranking.argument is None else [ranking.argument]
    # the key has no names here: a filter might have them
    arguments += [f"{type_} DEFAULT NULL" for _, type_ in column.key_columns] + filter_arguments(column)
    body = dollar_quoted(f"\n-- pgmrl {first_line}\n{_body(column, ranking, index)}\n")
    return (
        f"CREATE OR REPLACE FUNCTION {column.worker_name(ranking.kind)}({', '.join(arguments)}) "
        f"RETURNS SETOF {column.qualified_name('hit')}\n"
        f"LANGUAGE plpgsql STABLE ROWS 1000 COST {COST} SECURITY INVOKER\n"
        f"SET search_path = pg_catalog, pg_temp\nAS {body}"
    )


def _body(column: SearchedColumn, ranking: ShortlistRanking, index: Hnsw) -> str:
    definition, keys = column.qualified_definition, column.key_names
    index_name = literal(qualified(column.schema, index.index_name(column.vectors_table, column.short_column)))
    # inside the dynamic statement $1 and $2 are the query; the rest follows in the worker's order
    first = ranking.fixed_arguments + 1
    count = len(keys) + len(column.functions.tests)
    passed = "".join(f", {argument}" for argument in numbered(first, count))
    order = f" ORDER BY {column.short_vector} {definition.short_operator}"
    candidates = all_rows(column, ranking.carried)
    conditions = [
        _without_row(column, 3, first),
        "    unfiltered := conditions;",
        *filter_conditions(column, 3 + len(keys), first + len(keys)),
    ]
    if column.distributed is None:
        scanned = _scanned(column, ranking, order, candidates, passed)
        counted = f"    scans bigint := pg_catalog.pg_stat_get_xact_numscans(pg_catalog.to_regclass({index_name}));\n"
        few = f"pgmrl.gave_up_v1({index_name}, scans)"
    else:
        scanned, counted, few = _scanned_by_shards(ranking, order, passed), "", "conditions <> unfiltered"
    return filled(
        "search",
        option=f"$5 {ranking.argument.split()[0]}, " if ranking.argument else "",
        usual_shortlist=(
            stored_or_usual_shortlist(column, "$3", ranking.rows) if ranking.tuned else usual_shortlist(ranking.rows)
        ),
        short_type=definition.short_type,
        candidates=literal(candidates),
        counted=counted,
        scanned=scanned,
        checks=refuse(_refusals(column, ranking)),
        scale_query=scale_query(column),
        conditions="\n".join(conditions),
        short_query=definition.sql("$1"),
        zero_short=_zero_short_check(column),
        caller_settings=lines(_read_settings(), 4),
        ranking=dynamic_text(ranking.ranking),
        exact_shortlist=ranking.exact_shortlist,
        incomplete=ranking.incomplete or f"winners.listed < shortlist_size AND {few}",
        passed=passed,
        results=", ".join(f"d.{name}" for name in keys),
        similarity=definition.metric.similarity_sql("d.distance"),
        returned=ranking.returned,
        unnested=", ".join(f"unnest(winners.{name})" for name in keys),
        unnested_names=", ".join(keys),
    )


def _scanned(column: SearchedColumn, ranking: ShortlistRanking, order: str, candidates: str, passed: str) -> str:
    """Lines that take the shortlist through the short index and rank it."""
    nearest = f"{order} $2 LIMIT "
    kept = kept_shortlist(candidates, f"{order} worker.short_query LIMIT ")
    return filled(
        "search_here",
        plain=_plain(column),
        static=static_text(f"{kept}{ranking.ranking}"),
        shortlist=shortlist(nearest),
        filtered_shortlist=filtered_shortlist(column, nearest, ranking.carried),
        ranking=dynamic_text(ranking.ranking),
        set_scan=lines(_set_scan(), 8),
        ef_limit=EF_SEARCH_LIMIT,
        set_long_scan=lines(_set_long_scan(), 12),
        restore_settings=lines(_restore_settings(scan_settings("")), 8),
        restore_long_settings=lines(_restore_settings(long_scan_settings("")), 12),
        passed=passed,
    )


def _scanned_by_shards(ranking: ShortlistRanking, order: str, passed: str) -> str:
    """The same of a distributed table, in the form of pgmrl.searching.distributed_statement.

    Without a filter there is no exact fallback, and the scan goes on until the shortlist is full or the index ends.
    """
    limited = max_scan_tuples_sql("shortlist_size")
    limit = f"CASE WHEN conditions = unfiltered THEN {NO_LIMIT}::text ELSE {limited} END"
    settings = scan_settings(f"'{value_of(_EF_SEARCH)}'") | long_scan_settings(f"'{value_of(limit)}'")
    return filled(
        "search_shards",
        shortlist=shortlist(f"{order} {gated_vector_sql('$2', settings)} LIMIT "),
        ranking=dynamic_text(ranking.ranking),
        restore_settings=lines(_restore_settings(PGVECTOR_DEFAULTS), 8),
        passed=passed,
    )


def _plain(column: SearchedColumn) -> str:
    """Whether a search has no condition, nor a policy that puts one on, as SQL text."""
    names = [column.table] if column.side_table is None else [column.table, column.side_table]
    tables = [literal(qualified(column.schema, name)) for name in names]
    policies = [f"pg_catalog.row_security_active(pg_catalog.to_regclass({table}))" for table in tables]
    return " AND NOT ".join([f"conditions = '' AND shortlist_size <= {EF_SEARCH_LIMIT}", *policies])


# -- the scan's settings -------------------------------------------------------------------------------------------


def _set_config(name: str, value: str) -> str:
    return f"unused := pg_catalog.set_config('{name}', {value}, true)"


def _variable(setting: str) -> str:
    return f"old_{setting.removeprefix('hnsw.')}"


def _read_settings() -> list[str]:
    return [f"{_variable(name)} text := pg_catalog.current_setting('{name}', true)" for name in PGVECTOR_DEFAULTS]


def _set_scan() -> list[str]:
    return [_set_config(name, value) for name, value in scan_settings(_EF_SEARCH).items()]


def _set_long_scan() -> list[str]:
    settings = long_scan_settings(max_scan_tuples_sql("shortlist_size"))
    return [_set_config(name, value) for name, value in settings.items()]


def _restore_settings(names: Iterable[str]) -> list[str]:
    return [_set_config(name, f"coalesce({_variable(name)}, '{PGVECTOR_DEFAULTS[name]}')") for name in names]


# -- checks and conditions -----------------------------------------------------------------------------------------


def _refusals(column: SearchedColumn, ranking: ShortlistRanking) -> list[Refusal]:
    """Arguments that are refused."""
    definition = column.qualified_definition
    dims = f"{quoted(column.vector_schema)}.vector_dims($1)"
    title = f"{column.table}.{column.full_column}"
    dims_message = literal(f"query has %s dimensions, {title.replace('%', '%%')} has {definition.dims}")
    hint = f"Give a vector of {definition.dims} dimensions, as in {title}."
    refusals = [
        Refusal("$1 IS NULL", "'query is NULL'", hint, "null_value_not_allowed"),
        Refusal(f"{dims} <> {definition.dims}", f"format({dims_message}, {dims})", hint, "data_exception"),
        *size_refusals("$2", "The k rows come out of the shortlist: give as many"),
        Refusal("$4 IS NULL", "'exact is NULL'", "Give true or false.", "null_value_not_allowed"),
    ]
    return [*refusals, *length_refusals(column), *ranking.refusals]


def _zero_short_check(column: SearchedColumn) -> str:
    definition = column.qualified_definition
    if not definition.may_lose_direction:
        return ""
    short = definition.short
    message = f"query is zero in its leading {short.dims} dimensions, so the short index cannot be searched with it"
    zero = f"{definition.norm(short.type)}(short_query) = 0"
    return indent(refuse([Refusal(zero, literal(message), "Say exact => true.")]), "    ")


def _without_row(column: SearchedColumn, first_parameter: int, first_argument: int) -> str:
    """A line that leaves out the row with a key; arguments as `filter_conditions`."""
    count = len(column.key_columns)
    given = [f"{argument} IS NOT NULL" for argument in numbered(first_argument, count)]
    parameters = zip(column.key_columns, numbered(first_parameter, count), strict=True)
    same = [f"t.{quoted(name)} = {parameter}" for (name, _), parameter in parameters]
    condition = literal(f" AND NOT ({' AND '.join(same)})")
    return f"    IF {' AND '.join(given)} THEN conditions := conditions || {condition}; END IF;"
