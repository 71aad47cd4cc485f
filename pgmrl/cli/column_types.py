"""The types of the columns that `pgmrl load` makes: inferred from all values of a file, or given by `--type`."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg.types.json import Json
from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    SmallInteger,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, REAL

from pgmrl.errors import IngestError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy.types import TypeEngine

__all__ = ["TYPES", "ColumnType", "TextInference", "ValueInference", "type_of", "types_of_options"]

BIGINT_LIMIT: Final = 2**63
WHOLE_IN_DOUBLE: Final = 2**53  # the first whole numbers that double precision cannot tell apart
INTEGER_TEXT: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})")  # with a leading zero it is no number: a postal code
DECIMAL_TEXT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
TRUTH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type of a column.

    Attributes:
        name: in PostgreSQL.
        sql: for SQLAlchemy.
        of_text: a value from its text; raises ValueError where that is none.
    """

    name: str
    sql: TypeEngine[Any]
    of_text: Callable[[str], Any]

    def value(self, value: Any) -> Any:
        """A value of a file as it is loaded.

        Raises:
            ValueError: it is none of this type.
        """
        if value is None:
            return None
        if isinstance(value, str):
            return self.of_text(value)
        return json.dumps(value, ensure_ascii=False) if isinstance(self.sql, Text) else value


def _truth(text: str) -> bool:
    try:
        return TRUTH[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{safe_repr(text)} is neither true nor false") from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{safe_repr(text)} is no number") from None


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _json(text: str) -> Json:
    return Json(json.loads(text))  # a string of JSON, too, is one


TYPES: Final[Mapping[str, ColumnType]] = {
    kind.name: kind
    for kind in (
        ColumnType("text", Text(), str),
        ColumnType("boolean", Boolean(), _truth),
        ColumnType("smallint", SmallInteger(), int),
        ColumnType("integer", Integer(), int),
        ColumnType("bigint", BigInteger(), int),
        ColumnType("real", REAL(), float),
        ColumnType("double precision", Double(), float),
        ColumnType("numeric", Numeric(), _decimal),
        ColumnType("date", Date(), dt.date.fromisoformat),
        ColumnType("timestamp", DateTime(), dt.datetime.fromisoformat),
        ColumnType("timestamptz", DateTime(timezone=True), _moment),
        ColumnType("uuid", Uuid(), UUID),
        ColumnType("json", JSON(), _json),
        ColumnType("jsonb", JSONB(), _json),
    )
}
"""What `--type` takes. A time without a zone is taken as UTC where the column has one."""

ALIASES: Final[Mapping[str, str]] = {
    "bool": "boolean",
    "int2": "smallint",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float": "double precision",
    "float8": "double precision",
    "decimal": "numeric",
    "varchar": "text",
    "character varying": "text",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


def type_of(name: str) -> ColumnType | None:
    """The type of this name, with or without a length; None for one that is not known here."""
    bare = re.sub(r"\s*\([0-9, ]*\)", "", name).strip().lower()
    return TYPES.get(ALIASES.get(bare, bare))


def types_of_options(options: Iterable[str]) -> dict[str, ColumnType]:
    """The types of `--type name=type`.

    Raises:
        ValueError: an option of another form, or an unknown type.
    """
    types = {}
    for option in options:
        name, equals, type_name = option.rpartition("=")
        kind = type_of(type_name)
        if not equals or not name.strip():
            raise ValueError(f"expected name=type such as rank=integer, got {safe_repr(option)}")
        if kind is None:
            raise ValueError(f"{option}: expected one of the types {', '.join(TYPES)}, got {safe_repr(type_name)}")
        types[name.strip()] = kind
    return types


# -- inference -----------------------------------------------------------------------------------------------------


class TextInference:
    """The narrowest type of a column whose values are all texts: bigint, double precision, boolean, else text.

    What would not come back as it was stays text: 007 and +1, whole numbers beyond bigint, and among decimals whole
    numbers that double precision would round.
    """

    def __init__(self) -> None:
        self.kinds = {"bigint", "double precision", "boolean"}
        self.empty = True

    def add(self, text: str) -> None:
        """See one more value."""
        self.empty = False
        if "boolean" in self.kinds and text.lower() not in {"true", "false"}:
            self.kinds.discard("boolean")
        if "bigint" in self.kinds and not (INTEGER_TEXT.fullmatch(text) and abs(int(text)) < BIGINT_LIMIT):
            self.kinds.discard("bigint")
        if "double precision" in self.kinds and not _is_decimal(text):
            self.kinds.discard("double precision")

    def type(self) -> ColumnType:
        """The type of what was seen."""
        names = ("boolean", "bigint", "double precision")
        name = next((name for name in names if name in self.kinds and not self.empty), "text")
        return TYPES[name]


def _is_decimal(text: str) -> bool:
    if DECIMAL_TEXT.fullmatch(text) is None:
        return False
    is_whole = text.lstrip("-").isdigit()
    return not is_whole or abs(int(text)) <= WHOLE_IN_DOUBLE


@dataclass(slots=True)
class ValueInference:
    """The type of a column whose values have types of their own, as those of JSON have.

    Attributes:
        column: its name, for the error.
        seen: for each kind of value the line of the first.
    """

    column: str
    seen: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any, line: int) -> None:
        """See one more value, which is on this line of the file."""
        kind = _kind(value)
        if kind is not None:
            self.seen.setdefault(kind, line)

    def type(self) -> ColumnType:
        """The type of what was seen; text where that is nothing.

        Raises:
            IngestError: values of different types.
        """
        kinds = set(self.seen)
        for allowed, name in _COMBINATIONS:
            if kinds <= allowed:
                return TYPES[name]
        listed = ", ".join(f"{kind} (line {line})" for kind, line in self.seen.items())
        raise IngestError(
            f"column {safe_repr(self.column)} has values of different types: {listed}; make them alike, or load "
            f"them as text with --type {self.column}=text"
        )


_COMBINATIONS: Final[tuple[tuple[set[str], str], ...]] = (
    ({"text"}, "text"),
    ({"boolean"}, "boolean"),
    ({"whole number"}, "bigint"),
    ({"whole number", "number"}, "double precision"),
    ({"whole number", "whole number beyond bigint"}, "numeric"),
    ({"object", "array"}, "jsonb"),
)


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "whole number" if -BIGINT_LIMIT <= value < BIGINT_LIMIT else "whole number beyond bigint"
    kinds = {float: "number", str: "text", dict: "object", list: "array"}
    return kinds.get(type(value), type(value).__name__)
