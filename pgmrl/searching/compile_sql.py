"""A statement for those who run SQL without SQLAlchemy: text and parameters, as psycopg 3 takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from pgmrl.errors import SearchError

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["CompiledSql", "compile_sql"]


class CompiledSql(NamedTuple):
    """A statement and its parameters: `cursor.execute(*compile_sql(statement))`.

    Attributes:
        text: with psycopg's named placeholders, `%(name)s`.
        params: the values; vectors already in binary form.
    """

    text: str
    params: dict[str, Any]


def compile_sql(statement: Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]) -> CompiledSql:
    """Turn a Select, such as `search` returns, or a union of several into text and parameters for psycopg 3.

    The text depends on the shape of the search alone: keep it, and execute it with other parameters.

        cursor.execute(*compile_sql(search(select(packages), packages.c.embedding, query, k=10)))

    Raises:
        SearchError: it is neither.

    """
    if not isinstance(statement, Select | CompoundSelect):
        raise SearchError(f"expected a Select, such as search(...) returns, got {type(statement).__name__}")
    dialect = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]
    compiled: SQLCompiler = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    params = dict(compiled.params)
    for bind, name in compiled.bind_names.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None and name in params:
            params[name] = process(params[name])
    return CompiledSql(str(compiled), params)
