"""Keys in `after` and `more_like_this`: of the column's type, or refused before the server is asked."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    literal,
    select,
)

from pgmrl.errors import SearchError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.searching.key_values import key_values
from pgmrl.searching.more_like_this import more_like_this
from pgmrl.searching.search import search


class Colour(enum.Enum):
    """A key of few values."""

    RED = 1


class Own(TypeDecorator[Any]):
    """A type of the application's, which converts what it is given."""

    impl = Text
    cache_ok = True


DAY = dt.date(2026, 1, 2)
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)

TAKEN: list[tuple[Any, Any, Any]] = [
    (Integer(), 5, 5),
    (Integer(), np.int64(5), 5),
    (SmallInteger(), 2**15 - 1, 2**15 - 1),
    (BigInteger(), -(2**63), -(2**63)),
    (Text(), "é", "é"),
    (Text(), np.str_("a"), "a"),
    (Numeric(), Decimal("1.5"), Decimal("1.5")),
    (Float(), np.float64(1.5), 1.5),
    (Uuid(), uuid.UUID(int=5), uuid.UUID(int=5)),
    (Uuid(), str(uuid.UUID(int=5)), uuid.UUID(int=5)),
    (Uuid(as_uuid=False), str(uuid.UUID(int=5)), str(uuid.UUID(int=5))),
    (Date(), DAY, DAY),
    (Date(), "2026-01-02", DAY),
    (DateTime(), NOON, NOON),
    (DateTime(), NOON.isoformat(), NOON),
    (Enum(Colour), Colour.RED, Colour.RED),
    (Enum("red", "green"), "red", "red"),
    (LargeBinary(), b"\xff", b"\xff"),
    (Own(), ("anything",), ("anything",)),
]
REFUSED: list[tuple[Any, Any]] = [
    *((Integer(), value) for value in ("5", 5.0, True, 2**31, -(2**31) - 1, 10**5000, b"5", [5], object())),
    (SmallInteger(), 2**15),
    (BigInteger(), 2**63),
    *((Text(), value) for value in (5, b"a", "a\0", "\ud800", None, ["a"])),
    *((Numeric(), value) for value in ("1.5", True, float("nan"))),
    *((Uuid(), value) for value in (5, "no", b"0" * 16)),
    *((Date(), value) for value in (5, "no", b"2026-01-02")),
    *((Enum(Colour), value) for value in ("BLUE", 1)),
    (LargeBinary(), "a"),
    (Own(), []),
]


@pytest.mark.parametrize(("type_", "value", "sent"), TAKEN, ids=lambda value: type(value).__name__)
def test_values_of_the_columns_type(type_: Any, value: Any, sent: Any) -> None:
    """As they are; NumPy's as Python's, and a text out of JSON as what it says."""
    (checked,) = key_values("after", [Column("key", type_)], (value,))
    assert checked == sent
    assert type(checked) is type(sent)


@pytest.mark.parametrize(("type_", "value"), REFUSED, ids=lambda value: type(value).__name__)
def test_values_of_another_type(type_: Any, value: Any) -> None:
    """One line with the argument, the column and its type."""
    with pytest.raises(
        SearchError, match=r" in after: expected a value of the key's column key, of type \w+"
    ) as caught:
        key_values("after", [Column("key", type_)], (value,))
    assert str(caught.value).isprintable()


def test_a_search_refuses_them() -> None:
    """Where the driver or the server would have, with a page of SQL."""
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with pytest.raises(SearchError, match="'x' in after: expected a value of the key's column id, of type integer"):
        search(select(docs.c.id), docs.c.e, np.ones(8), after=(0.5, "x"))
    with pytest.raises(SearchError, match="'x' in unlike: expected a value of the key's column id"):
        more_like_this(docs.c.e, [1], unlike=["x"])
    keys: Any = np.array([3, 4, 3])
    assert more_like_this(docs.c.e, keys).keys == ((3,), (4,))
    assert search(select(docs.c.id), docs.c.e, np.ones(8), after=(0.5, literal(3))) is not None
