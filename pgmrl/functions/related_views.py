"""The views `…_related` and `…_related_stored`: the rows most like each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import comment_text
from pgmrl.model.query_lengths import uncountable_sql
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["related_views"]


def related_views(column: SearchedColumn, count: int) -> Iterator[str]:
    """The statements that make them.

    Args:
        column: the column.
        count: related rows of each row.
    """
    own_names, related_names = column.view_key_names
    keys = [
        f"t.{quoted(name)} AS {quoted(shown)}" for shown, (name, _) in zip(own_names, column.key_columns, strict=True)
    ]
    related = [
        f"s.{quoted(name)} AS {quoted(shown)}"
        for shown, name in zip(related_names, column.result_key_names, strict=True)
    ]
    own_key = ", ".join(f"t.{quoted(name)}" for name, _ in column.key_columns)
    similar = ", ".join(
        [*(f"w.{quoted(name)}" for name in column.result_key_names), "w.rank, w.distance, w.similarity"]
    )
    search = f"{column.worker_name()}({column.full_vector}, {count}, NULL, false, {own_key})"
    view = column.qualified_name("related")
    yield (
        f"CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS\n"
        f"SELECT {', '.join([*keys, *related])}, s.rank, s.distance, s.similarity\n"
        f"FROM {column.from_clause}\n"
        # the limit tells the planner how many there are
        f"CROSS JOIN LATERAL (SELECT {similar} FROM {search} AS w LIMIT {count}) AS s\n"
        f"WHERE {_searchable(column)}"
    )
    description = f"the {count} rows of {column.table} most like each row"
    yield f"COMMENT ON VIEW {view} IS {comment_text(column, f'{description}; ask for one row or a few')}"
    if column.functions.stored:
        stored = column.qualified_name("related_stored")
        yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {stored} AS SELECT * FROM {view} WITH NO DATA"
        key = quoted(column.object_name("related_stored_key"))  # for REFRESH MATERIALIZED VIEW CONCURRENTLY
        yield f"CREATE UNIQUE INDEX IF NOT EXISTS {key} ON {stored} ({', '.join(map(quoted, own_names))}, rank)"
        description += ", as the owner saw them at the last REFRESH MATERIALIZED VIEW"
        yield f"COMMENT ON MATERIALIZED VIEW {stored} IS {comment_text(column, description)}"


def _searchable(column: SearchedColumn) -> str:
    """Rows whose vector can be searched with: the worker refuses the others.

    By the full vector, and not by the short one: a view that reads the short column would stand in the way of its end.
    """
    definition = column.qualified_definition
    conditions = [f"{column.full_vector} IS NOT NULL"]
    norm = definition.norm(definition.full)
    uncountable = uncountable_sql(definition, f"{norm}({column.full_vector})", stored=True)
    if uncountable is not None:
        conditions.append(f"NOT ({uncountable})")
    if definition.metric.normalise:
        leading = f"{definition.qualified('subvector')}({column.full_vector}, 1, {definition.short.dims})"
        searched = leading if definition.may_lose_direction else column.full_vector
        conditions.append(f"{norm}({searched}) OPERATOR(pg_catalog.>) 0")
    return " AND ".join(conditions)
