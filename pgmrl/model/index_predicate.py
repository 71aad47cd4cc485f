"""The condition of a partial index as SQL text: one expression, whatever it is given as."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import ColumnElement
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import is_unicode, plain_text
from pgmrl.reprs import safe_repr

__all__ = ["loose_predicate", "predicate_text"]

_TOKENS: Final = re.compile(
    r"""(?P<quoted>(?<![A-Za-z0-9_$\u0080-\U0010ffff])[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^'\\]|'')*'|"(?:[^"]|"")+")"""
    r"""|(?P<refused>--|/\*|;|\$(?!\d)|'|"|\\)|(?P<open>\()|(?P<close>\))""",
    re.DOTALL,
)
_EXPECTED: Final = "expected one condition as SQL text, such as 'deleted_at IS NULL', or a criterion on columns"


def predicate_text(where: Any) -> str:
    """The condition as SQL text: a text as it is, a criterion with its values written out.

    What it refuses could end the statement that it is put into. Whether an index can have it the server says.

    Args:
        where: SQL text, or a criterion as `Index(postgresql_where=...)` takes it.

    Raises:
        DefinitionError: it is neither, or not one expression.
    """
    predicate = _compiled(where) if isinstance(where, ColumnElement) else plain_text(where)
    if predicate is None or not predicate.strip():
        raise DefinitionError(f"where={safe_repr(where)}: {_EXPECTED}")
    predicate = predicate.strip()
    problem = _problem(predicate)
    if problem is not None:
        raise DefinitionError(f"where={safe_repr(predicate)}: {_EXPECTED}, got {problem}")
    return predicate


def _compiled(criterion: ColumnElement[Any]) -> str:
    """A criterion as the DDL compiler of SQLAlchemy writes it: without the table's name, with literal values."""
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # in others % is doubled
    try:
        compiler = dialect.statement_compiler(dialect, None)
        return str(compiler.process(criterion, include_table=False, literal_binds=True))
    except (SQLAlchemyError, NotImplementedError, AttributeError) as error:
        raise DefinitionError(
            f"where={safe_repr(criterion)}: it cannot be written as SQL text ({error}): {_EXPECTED} that have "
            "names; in a class body write the text"
        ) from None


def _problem(predicate: str) -> str | None:
    """What in a text is not of one expression."""
    if "\0" in predicate or not is_unicode(predicate):
        return "a character that PostgreSQL cannot hold"
    depth = 0
    for token in _TOKENS.finditer(predicate):
        if token["refused"]:
            return f"{token['refused']} outside of quotes, or a quote that does not end"
        depth += (token["open"] is not None) - (token["close"] is not None)
        if depth < 0:
            break
    return "parentheses that do not match" if depth else None


def loose_predicate(predicate: str | None) -> str | None:
    """A condition without what the server adds when it prints one: parentheses, casts of constants, spaces, case.

    For comparisons where the server cannot be asked to print the other one.
    """
    if predicate is None:
        return None
    text = re.sub(r"::(?:character varying|double precision|\w+)(?:\(\d+\))?(?:\[\])?", "", predicate)
    parts = re.split(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")", text)
    plain = (
        part if n % 2 else re.sub(r"[\s()]+", "", part).lower().replace("!=", "<>") for n, part in enumerate(parts)
    )
    return "".join(plain)
