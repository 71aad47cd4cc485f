"""The function `…_hybrid`: the rows that a vector and words find together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from pgmrl.functions.callable_function import callable_function, row_limit
from pgmrl.functions.filter_arguments import filter_arguments, filter_conditions
from pgmrl.functions.plpgsql import Refusal, dynamic_text, filled, numbered, refuse, value_of
from pgmrl.functions.query_argument import length_refusals, scale_query
from pgmrl.functions.search_worker import COST
from pgmrl.functions.shortlist_argument import size_refusals, usual_shortlist
from pgmrl.limits import RRF_K, TEXT_LIMIT
from pgmrl.model.fulltext import Match, finds_rows_sql, tsquery_sql
from pgmrl.model.ranking_sql import fused_sql, rrf_part_sql, weighted_part_sql
from pgmrl.names import dollar_quoted, literal, qualified, quoted

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["FUSED_COLUMNS", "hybrid_arguments", "hybrid_function", "hybrid_worker"]

FUSED_COLUMNS: Final = {
    "score": "double precision",
    "rank": "integer",
    "vector_rank": "integer",
    "words_rank": "integer",
    "distance": "double precision",
    "similarity": "double precision",
}
"""Columns of the result, between the key and `requested`, `returned`."""

OPTIONS: Final = {
    "k integer": "10",
    "shortlist integer": "NULL",
    "match text": "'all'",
    "fusion text": "'rrf'",
    "words_weight double precision": "1",
    "exact boolean": "false",
}
FIXED_ARGUMENTS: Final = 2 + len(OPTIONS)  # before the filters


def hybrid_function(column: SearchedColumn) -> list[str]:
    """The statements that make the function people call."""
    arguments = hybrid_arguments(column)
    return callable_function(
        column,
        "hybrid",
        arguments,
        "hybrid",
        numbered(1, len(arguments)),
        row_limit("$3"),
        f"the rows of {column.table} that a vector and words in {column.functions.words} find together",
        result="fused",
        columns=list(FUSED_COLUMNS),
    )


def hybrid_arguments(column: SearchedColumn) -> list[str]:
    """The arguments of the function people call, with their types and defaults."""
    return _arguments(column, [f"{option} DEFAULT {default}" for option, default in OPTIONS.items()])


def hybrid_worker(column: SearchedColumn) -> str:
    """The statement that makes the function behind it."""
    tests = len(column.functions.tests)
    config = literal(column.functions.config or "")
    matches = get_args(Match)
    body = filled(
        "hybrid",
        usual_shortlist=usual_shortlist("$3::numeric"),
        checks=refuse(_refusals(column)),
        # inside the dynamic statement the filters follow five parameters
        conditions="\n".join(filter_conditions(column, 6, FIXED_ARGUMENTS + 1)),
        words_query="\n".join(f"        WHEN '{match}' THEN {tsquery_sql(config, match, '$2')}" for match in matches),
        finds_rows=finds_rows_sql("words_query"),
        parts="\n".join(_parts()),
        fused=dynamic_text(_fused(column)),
        scale_query=scale_query(column),
        passed="".join(f", {argument}" for argument in numbered(FIXED_ARGUMENTS + 1, tests)),
    )
    return (
        f"CREATE OR REPLACE FUNCTION {column.worker_name('hybrid')}({', '.join(_arguments(column, list(OPTIONS)))}) "
        f"RETURNS SETOF {column.qualified_name('fused')}\n"
        f"LANGUAGE plpgsql STABLE ROWS 1000 COST {COST} SECURITY INVOKER\n"
        f"SET search_path = pg_catalog, pg_temp\nAS {dollar_quoted(f'{chr(10)}{body}{chr(10)}')}"
    )


def _arguments(column: SearchedColumn, options: list[str]) -> list[str]:
    return [f"query {column.vector_type}", "words text", *options, *filter_arguments(column)]


def _refusals(column: SearchedColumn) -> list[Refusal]:
    """Arguments that are refused; the worker of `…_search` refuses those for the vector, but gets it scaled."""
    no_words = f"Give words to look for, or call {column.object_name('search')}."
    matches = ", ".join(f"'{match}'" for match in get_args(Match))
    return [
        Refusal("$2 IS NULL", "'words is NULL'", no_words, "null_value_not_allowed"),
        Refusal(r"btrim($2, E' \t\r\n') = ''", "'words is empty'", no_words),
        Refusal(
            f"length($2) > {TEXT_LIMIT}",
            "format('words has %s characters', length($2))",
            f"Give at most {TEXT_LIMIT}.",
        ),
        *size_refusals("$3", "Both lists are as long as the shortlist: give k"),
        Refusal(
            f"$5 IS NULL OR $5 NOT IN ({matches})",
            "'match is ' || coalesce(quote_literal($5), 'NULL')",
            "Give 'any' or 'all' of the words, or 'web' for \"quotes\", or and -.",
        ),
        Refusal(
            "$6 IS NULL OR $6 NOT IN ('rrf', 'weighted')",
            "'fusion is ' || coalesce(quote_literal($6), 'NULL')",
            "Give 'rrf' (by ranks) or 'weighted' (by values).",
        ),
        Refusal(
            "$7 IS NULL OR NOT ($7 >= 0 AND $7 < 'Infinity')",
            "'words_weight is ' || coalesce($7::text, 'NULL')",
            "Give 1 where words count as much as the vector, more or less where they do not.",
        ),
        *length_refusals(column),
    ]


def _parts() -> list[str]:
    """Branches of a CASE on the fusion; the words' weight is the dynamic statement's fourth parameter."""
    parts = {
        "rrf": [rrf_part_sql(weight, str(RRF_K)) for weight in ("1", "$4")],
        "weighted": [weighted_part_sql(weight) for weight in ("1", "$4")],
    }
    return [
        f"        WHEN '{fusion}' THEN\n            vector_part := {literal(vector)};\n"
        f"            words_part := {literal(words)};"
        for fusion, (vector, words) in parts.items()
    ]


def _fused(column: SearchedColumn) -> str:
    """The dynamic statement: $1 query, $2 the words' query, $3 k, $4 words_weight, $5 exact, then the filters."""
    keys = column.key_names
    listed, size = ", ".join(keys), value_of("shortlist_size")
    passed = ["$1", size, size, "$5", *["NULL"] * len(keys), *numbered(6, len(column.functions.tests))]
    named = [f"s.{quoted(name)} AS {key}" for name, key in zip(column.result_key_names, keys, strict=True)]
    nearest = f"SELECT {', '.join(named)}, -s.distance AS value FROM {column.worker_name()}({', '.join(passed)}) AS s"
    own = [f"t.{quoted(name)} AS {key}" for (name, _), key in zip(column.key_columns, keys, strict=True)]
    words = f"t.{quoted(column.functions.words or '')}"
    matching = (
        f"SELECT {', '.join(own)}, ts_rank({words}, $2)::double precision AS value "
        f"FROM {qualified(column.schema, column.table)} AS t WHERE {words} @@ $2{value_of('conditions')} "
        f"ORDER BY value DESC, {listed} LIMIT {size}"
    )
    parts = [value_of("vector_part"), value_of("words_part")]
    fused = fused_sql(["nearest", "matching"], parts, keys, value_of("$3"))
    definition = column.qualified_definition
    order = f"ORDER BY f.score DESC, {', '.join(f'f.{key}' for key in keys)}"
    same = [f"t.{quoted(name)} = f.{key}" for (name, _), key in zip(column.key_columns, keys, strict=True)]
    return (
        f"WITH nearest AS MATERIALIZED ({nearest}), matching AS MATERIALIZED ({matching}), fused AS ({fused}) "
        f"SELECT {', '.join(f'f.{key}' for key in keys)}, f.score, (row_number() OVER ({order}))::integer, "
        "f.rank_1::integer, f.rank_2::integer, d.distance, "
        f"{definition.metric.similarity_sql('d.distance')}, $3, (count(*) OVER ())::integer "
        f"FROM {column.from_clause} JOIN fused AS f ON {' AND '.join(same)} CROSS JOIN LATERAL "
        f"(SELECT nullif({column.full_vector} {definition.full_operator} $1, 'NaN') AS distance) AS d {order}"
    )
