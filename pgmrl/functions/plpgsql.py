"""Text of PL/pgSQL: dollar quotes, templates from .sql files, dynamic statements, errors."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Refusal", "dynamic_text", "filled", "lines", "numbered", "refuse", "static_text", "value_of"]


@cache
def _template(name: str) -> str:
    return resources.files("pgmrl.database.sql").joinpath("functions", f"{name}.sql").read_text(encoding="utf-8")


def filled(template: str, **values: object) -> str:
    """A template of pgmrl/database/sql/functions with its places filled, without the last line break."""
    # in one pass: a name that contains {query} is not filled in a second time
    return re.sub(r"\{(\w+)\}", lambda place: str(values[place[1]]), _template(template)).rstrip("\n")


def numbered(first: int, count: int) -> list[str]:
    """Arguments by their numbers, such as `$5`, `$6`: names may be a column's."""
    return [f"${number}" for number in range(first, first + count)]


def value_of(expression: str) -> str:
    """What stands in a dynamic statement's text for the value of an expression of PL/pgSQL; see `dynamic_text`."""
    return f"\0{expression}\0"


def dynamic_text(statement: str) -> str:
    """An expression of PL/pgSQL for a dynamic statement's text.

    Args:
        statement: the text, with `value_of` where values are put in: `LIMIT` and numbers, for which the plan is made.

    Returns:
        Constants and expressions with `||` between them, such as `'SELECT … LIMIT ' || $2`.
    """
    pieces = enumerate(statement.split("\0"))
    return " || ".join(piece if number % 2 else literal(piece) for number, piece in pieces if piece)


def static_text(statement: str) -> str:
    """A statement of PL/pgSQL itself, whose plan a session keeps: with the expressions instead of their values.

    Args:
        statement: as for `dynamic_text`.
    """
    return statement.replace("\0", "")


class Refusal(NamedTuple):
    """An argument that is refused with an error.

    Attributes:
        condition: when, as SQL text.
        message: what is wrong, as an expression of PL/pgSQL.
        hint: what to give instead.
        code: the condition's name in PostgreSQL.

    """

    condition: str
    message: str
    hint: str
    code: str = "invalid_parameter_value"


def refuse(refusals: Sequence[Refusal]) -> str:
    """An IF that raises the error of the first refusal whose condition holds."""
    branches = [
        f"IF {refusal.condition} THEN\n        RAISE EXCEPTION USING ERRCODE = '{refusal.code}',\n"
        f"            MESSAGE = {refusal.message}, HINT = {literal(refusal.hint)};"
        for refusal in refusals
    ]
    return "    " + "\n    ELS".join(branches) + "\n    END IF;"


def lines(statements: Sequence[str], indent: int) -> str:
    """Statements, one a line."""
    return "\n".join(f"{' ' * indent}{statement};" for statement in statements)
