"""The statements that install a column's functions, as plain SQL that a migration can also print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import comment_text
from pgmrl.functions.diverse_function import diverse_function, diverse_ranking
from pgmrl.functions.groups_function import groups_function, groups_ranking
from pgmrl.functions.hybrid_function import FUSED_COLUMNS, hybrid_function, hybrid_worker
from pgmrl.functions.related_views import related_views
from pgmrl.functions.search_function import nearest_ranking, search_function
from pgmrl.functions.search_named_function import search_named_function
from pgmrl.functions.search_worker import search_worker
from pgmrl.functions.similar_function import similar_function
from pgmrl.functions.text_functions import text_functions
from pgmrl.functions.vector_function import vector_function
from pgmrl.names import dollar_quoted, literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgmrl.functions.searched_column import SearchedColumn
    from pgmrl.model.hnsw import Hnsw

__all__ = ["drop_statement", "install_statements", "printed_statements"]

HIT_COLUMNS = {"distance": "double precision", "similarity": "double precision", "rank": "integer"}


def install_statements(column: SearchedColumn, index: Hnsw) -> list[str]:
    """What installs the functions, or replaces those of another version or declaration.

    Args:
        column: the column.
        index: how the short column's index is named.

    """
    functions, marker = column.functions, json.dumps(column.marker(), ensure_ascii=True)
    statements = [
        f"SELECT pgmrl.prepare_functions_v1({literal(column.functions_schema)}, {literal(marker)}::jsonb)",
        *_result_type(column, "hit", HIT_COLUMNS),
        # the first worker says what all of them are for
        *_worker(column, "search", search_worker(column, nearest_ranking(column), f"functions {marker}", index)),
        *vector_function(column),
        *search_function(column),
        *similar_function(column),
        *search_named_function(column),
        *_worker(column, "search_diverse", search_worker(column, diverse_ranking(column), "search_diverse", index)),
        *diverse_function(column),
    ]
    if functions.group_by is not None:
        ranking = groups_ranking(column, functions.group_by)
        statements += _worker(column, ranking.kind, search_worker(column, ranking, ranking.kind, index))
        statements += groups_function(column, functions.group_by)
    if functions.words is not None:
        statements += _result_type(column, "fused", FUSED_COLUMNS)
        statements += _worker(column, "hybrid", hybrid_worker(column))
        statements += hybrid_function(column)
    if functions.model is not None:
        statements += text_functions(column, functions.model)
    if functions.related is not None:
        statements += related_views(column, functions.related)
    return [*statements, *_grants(column)]


def printed_statements(column: SearchedColumn, index: Hnsw) -> list[str]:
    """As `install_statements`, to be run by hand in one transaction: on Citus, made on the coordinator alone."""
    statements = install_statements(column, index)
    if column.distributed is None:
        return statements
    return [
        "SELECT pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true)",
        *statements,
        "SELECT pg_catalog.set_config('citus.enable_ddl_propagation', 'on', true)",
    ]


def drop_statement(schema: str, name: str) -> str:
    """What drops the functions of this name, with their views; refused by the server while something else uses them."""
    return f"SELECT pgmrl.drop_functions_v1({literal(schema)}, {literal(name)})"


def _worker(column: SearchedColumn, kind: str, statement: str) -> list[str]:
    comment = comment_text(column, f"what the functions {column.prefix}_… call")
    return [statement, f"COMMENT ON FUNCTION {column.worker_name(kind)} IS {comment}"]


def _result_type(column: SearchedColumn, suffix: str, columns: Mapping[str, str]) -> list[str]:
    """The type of a function's result; one that is there stays, for what uses it."""
    keys = [
        f"{quoted(name)} {type_}" for name, (_, type_) in zip(column.result_key_names, column.key_columns, strict=True)
    ]
    numbers = [f"{name} {type_}" for name, type_ in {**columns, "requested": "integer", "returned": "integer"}.items()]
    name = column.qualified_name(suffix)
    created = f"CREATE TYPE {name} AS ({', '.join([*keys, *numbers])})"
    return [
        f"DO {dollar_quoted(f'BEGIN IF pg_catalog.to_regtype({literal(name)}) IS NULL THEN {created}; END IF; END')}",
        f"COMMENT ON TYPE {name} IS {comment_text(column, 'a row that was found')}",
    ]


def _grants(column: SearchedColumn) -> Iterator[str]:
    """The right to call them: what was granted by another declaration is taken back."""
    grant_to = column.functions.grant_to
    roles = ", ".join(map(quoted, grant_to)) or "PUBLIC"
    names = [*map(column.worker_name, column.worker_kinds), *map(column.qualified_name, column.function_kinds)]
    for name in names:
        if grant_to:
            yield f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION {name} TO {roles}"
    for view in column.view_names:
        stored = view == column.object_name("related_stored")
        name = qualified(column.functions_schema, view)
        if grant_to and not stored:
            yield f"REVOKE ALL ON {name} FROM PUBLIC"
        if grant_to or not stored:  # what is stored is what its owner saw: not for everybody unasked
            yield f"GRANT SELECT ON {name} TO {roles}"
