"""The statements that install a column's functions, as plain SQL that a migration can also print.

Metric and short vector come from `Definition`, as everywhere. The worker is PL/pgSQL that plans each search for its own
numbers and filters: a static statement with `LIMIT $1` and `section = $2 OR $2 IS NULL` would be planned without
knowing them. What people call are SQL functions around it, which the planner inlines: so that it knows how many rows
`k => 50` returns.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgmrl.functions.calls import told, views, wrappers
from pgmrl.functions.hybrid_worker import hybrid, make_fused
from pgmrl.functions.search_worker import dollar, vector, worker
from pgmrl.functions.shapes import shapes
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.functions.searched_column import Place
    from pgmrl.model.hnsw import Hnsw

__all__ = ["drop_statement", "install_statements"]


def install_statements(place: Place, index: Hnsw) -> list[str]:
    """What installs the functions, or replaces those of another version or declaration.

    Args:
        place: the column.
        index: how the short column's index is named.

    """
    marker = json.dumps(place.marker(), ensure_ascii=True)
    statements = [
        f"SELECT pgmrl.prepare_functions_v1({literal(place.functions_schema)}, {literal(marker)}::jsonb)",
        f"DO {dollar(_make_type(place))}",
        *_workers(place, marker, index),
        vector(place),
        *wrappers(place),
        *views(place),
    ]
    given = ", ".join(type_ for _, type_ in place.keys)
    comments = {
        **{f"TYPE {place.sql(result)}": "a row that was found" for result in place.results},
        **{f"FUNCTION {place.worker(kind)}": f"what the functions {place.name}_… call" for kind in place.working},
        f"FUNCTION {place.sql('vector')}({given})": f"the vector of one row of {place.table}",
    }
    statements += [f"COMMENT ON {thing} IS {literal(told(place, what))}" for thing, what in comments.items()]
    return [*statements, *_grants(place)]


def drop_statement(schema: str, name: str) -> str:
    """What drops the functions of this name, with their views; refused by the server while something else uses them."""
    return f"SELECT pgmrl.drop_functions_v1({literal(schema)}, {literal(name)})"


def _workers(place: Place, marker: str, index: Hnsw) -> Iterator[str]:
    for shape in shapes(place):
        # the first one says what all of them are for
        yield worker(place, shape, f"functions {marker}" if shape.kind == "search" else shape.kind, index)
    if place.declared.words is not None:
        yield f"DO {dollar(make_fused(place))}"
        yield hybrid(place)


def _make_type(place: Place) -> str:
    keys = [f"{quoted(name)} {type_}" for name, (_, type_) in zip(place.key_results, place.keys, strict=True)]
    numbers = ["distance double precision", "similarity double precision"]
    columns = ", ".join([*keys, *numbers, "rank integer", "requested integer", "returned integer"])
    hit = place.sql("hit")
    return f"BEGIN IF to_regtype({literal(hit)}) IS NULL THEN CREATE TYPE {hit} AS ({columns}); END IF; END"


def _grants(place: Place) -> Iterator[str]:
    """The right to call them: what was granted by another declaration is taken back."""
    roles = ", ".join(map(quoted, place.declared.grant_to)) or "PUBLIC"
    called = [*map(place.worker, place.working), *(place.sql(kind) for kind in place.kinds)]
    for name in called:
        if place.declared.grant_to:
            yield f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION {name} TO {roles}"
    for view in place.views:
        stored = view == place.named("related_stored")
        if place.declared.grant_to and not stored:
            yield f"REVOKE ALL ON {qualified(place.functions_schema, view)} FROM PUBLIC"
        if place.declared.grant_to or not stored:  # what is stored is what its owner saw: not for everybody unasked
            yield f"GRANT SELECT ON {qualified(place.functions_schema, view)} TO {roles}"
