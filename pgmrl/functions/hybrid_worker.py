"""The function for vectors and words together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.functions.search_worker import COST, conditions, dollar, filled, filter_arguments, sizes, usual
from pgmrl.limits import TEXT_LIMIT
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import Place

__all__ = ["hybrid", "hybrid_arguments", "make_fused"]

RRF: Final = 60  # Cormack, Clarke, Buettcher, SIGIR 2009
FIXED: Final = 8  # arguments before the filters


def make_fused(place: Place) -> str:
    """The body of the DO block that makes the type of its result."""
    keys = [f"{quoted(name)} {type_}" for name, (_, type_) in zip(place.key_results, place.keys, strict=True)]
    numbers = ["score double precision", "rank integer", "vector_rank integer", "words_rank integer"]
    numbers += ["distance double precision", "similarity double precision", "requested integer", "returned integer"]
    fused = place.sql("fused")
    made = f"CREATE TYPE {fused} AS ({', '.join([*keys, *numbers])})"
    return f"BEGIN IF to_regtype({literal(fused)}) IS NULL THEN {made}; END IF; END"


def hybrid_arguments(place: Place, *, defaults: bool) -> list[str]:
    """Its arguments."""
    given = [
        ("k integer", "10"),
        ("shortlist integer", "NULL"),
        ("match text", "'all'"),
        ("fusion text", "'rrf'"),
        ("words_weight double precision", "1"),
        ("exact boolean", "false"),
    ]
    usual = [f"{one} DEFAULT {value}" if defaults else one for one, value in given]
    return [f"query {place.full_type_name}", "words text", *usual, *filter_arguments(place)]


def hybrid(place: Place) -> str:
    """The statement that makes the function behind it."""
    definition, keys = place.qualified_definition, [f"key_{n}" for n in range(1, len(place.keys) + 1)]
    listed = ", ".join(keys)
    tests = range(1, len(place.declared.tests) + 1)
    nothing = ", ".join(["NULL"] * len(keys))
    filters = "".join(f", ${5 + n}" for n in tests)
    named = [f"s.{quoted(name)} AS {key}" for name, key in zip(place.key_results, keys, strict=True)]
    own = [f"t.{quoted(name)} AS {key}" for (name, _), key in zip(place.keys, keys, strict=True)]
    same = " AND ".join(f"t.{quoted(name)} = f.{key}" for (name, _), key in zip(place.keys, keys, strict=True))
    words = f"t.{quoted(place.declared.words or '')}"
    order = f"ORDER BY f.score DESC, {', '.join(f'f.{key}' for key in keys)}"
    body = filled(
        "hybrid",
        usual=usual(place, "$4", "$3::numeric", tuned=False),
        sizes=sizes("$3", "Both lists are as long as the shortlist: give k"),
        text_limit=TEXT_LIMIT,
        rrf=RRF,
        no_words_hint=literal(f"Give words to look for, or call {place.named('search')}."),
        conditions="\n".join(conditions(place, 6, FIXED + 1)),
        config=literal(place.declared.config or ""),
        near=literal(
            f"WITH near AS MATERIALIZED (SELECT {', '.join(named)}, s.rank::bigint AS rank, -s.distance AS value "
            f"FROM {place.worker()}($1, "
        ),
        nearer=literal(f", $5, {nothing}{filters}) AS s), "),
        worded=literal(
            f"worded AS MATERIALIZED (SELECT {listed}, row_number() OVER (ORDER BY value DESC, {listed}) AS rank, "
            f"value FROM (SELECT {', '.join(own)}, ts_rank({words}, $2)::double precision AS value "
            f"FROM {qualified(place.schema, place.table)} AS t WHERE {words} @@ $2"
        ),
        listed=literal(f" ORDER BY value DESC, {listed} LIMIT "),
        fused_near=literal(
            f") AS l), listed AS (SELECT {listed}, rank AS vector_rank, NULL::bigint AS words_rank, NULL::double "
            "precision AS words_part, "
        ),
        fused_words=literal(f" AS vector_part FROM near UNION ALL SELECT {listed}, NULL, rank, $4 * ("),
        fused=literal(
            f"), NULL FROM worded), fused AS (SELECT {listed}, coalesce(max(vector_part), 0) + "
            "coalesce(max(words_part), 0) AS score, max(vector_rank) AS vector_rank, max(words_rank) AS words_rank "
            f"FROM listed GROUP BY {listed} ORDER BY score DESC, {listed} LIMIT "
        ),
        result=literal(
            f") SELECT {', '.join(f'f.{key}' for key in keys)}, f.score, (row_number() OVER ({order}))::integer, "
            "f.vector_rank::integer, f.words_rank::integer, d.distance, "
            f"{definition.metric.similarity_sql('d.distance')}, $3, (count(*) OVER ())::integer "
            f"FROM {place.source} JOIN fused AS f ON {same} CROSS JOIN LATERAL "
            f"(SELECT nullif({place.full} {definition.full_operator} $1, 'NaN') AS distance) AS d {order}"
        ),
        passed="".join(f", ${FIXED + n}" for n in tests),
    )
    return (
        f"CREATE OR REPLACE FUNCTION {place.worker('hybrid')}({', '.join(hybrid_arguments(place, defaults=False))}) "
        f"RETURNS SETOF {place.sql('fused')}\n"
        f"LANGUAGE plpgsql STABLE ROWS 1000 COST {COST} SECURITY INVOKER\n"
        f"SET search_path = pg_catalog, pg_temp\nAS {dollar(chr(10) + body)}"
    )
