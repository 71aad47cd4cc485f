"""A statement for those who run SQL without SQLAlchemy: text and parameters, as a driver takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, overload

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.dialects.postgresql import asyncpg, psycopg

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import choice

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

    AnyStatement = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]

__all__ = ["CompiledSql", "PositionalSql", "compile_sql"]

DIALECTS: Final[dict[str, Any]] = {"psycopg": psycopg.dialect, "asyncpg": asyncpg.dialect}


class CompiledSql(NamedTuple):
    """A statement and its parameters: `cursor.execute(*compile_sql(statement))`.

    Attributes:
        text: with psycopg's named placeholders, `%(name)s`.
        params: the values; vectors already in binary form.
    """

    text: str
    params: dict[str, Any]


class PositionalSql(NamedTuple):
    """A statement and its parameters: `await connection.fetch(compiled.text, *compiled.params)`.

    Attributes:
        text: with numbered placeholders, `$1`.
        params: the values in the order of their numbers; vectors as text.
    """

    text: str
    params: list[Any]


@overload
def compile_sql(statement: AnyStatement, driver: Literal["psycopg"] = "psycopg") -> CompiledSql: ...


@overload
def compile_sql(statement: AnyStatement, driver: Literal["asyncpg"]) -> PositionalSql: ...


def compile_sql(
    statement: AnyStatement, driver: Literal["psycopg", "asyncpg"] = "psycopg"
) -> CompiledSql | PositionalSql:
    """Turn a Select, such as `search` returns, or a union of several into text and parameters for a driver.

    The text depends on the shape of the search alone: keep it, and execute it with other parameters.

        cursor.execute(*compile_sql(search(select(packages), packages.c.embedding, query, k=10)))

    Args:
        statement: to compile.
        driver: `psycopg` 3, or `asyncpg`, whose connection needs no codec.

    Raises:
        SearchError: it is neither, or there is no such driver here.

    """
    if not isinstance(statement, Select | CompoundSelect):
        raise SearchError(f"expected a Select, such as search(...) returns, got {type(statement).__name__}")
    dialect = DIALECTS[choice("driver", driver, list(DIALECTS), SearchError)]()
    compiled: SQLCompiler = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    params = dict(compiled.params)
    for bind, name in compiled.bind_names.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None and name in params:
            params[name] = process(params[name])
    if compiled.positiontup is not None:
        return PositionalSql(str(compiled), [params[name] for name in compiled.positiontup])
    return CompiledSql(str(compiled), params)
