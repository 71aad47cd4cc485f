"""Values that callers pass by mistake or on purpose: of every kind, and objects whose own methods raise."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import UserDict, UserList, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
from hypothesis import strategies as st
from pgvector import Bit, HalfVector, SparseVector
from pgvector import Vector as PgVector
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, func, literal, null, select, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PLAIN", "Hostile", "hostile_values"]


class Hostile(NamedTuple):
    """A value by its description: its own repr may raise.

    Attributes:
        label: what it is.
        make: makes it anew, since some can be read only once.

    """

    label: str
    make: Callable[[], Any]

    def __repr__(self) -> str:
        return self.label


METHODS = (
    *("__array__", "__bool__", "__eq__", "__float__", "__fspath__", "__getitem__", "__index__", "__int__", "__iter__"),
    *("__len__", "__repr__", "__str__", "__contains__", "__hash__", "to_numpy", "tolist", "items", "keys", "encode"),
)
ERRORS = (RuntimeError, OSError, ZeroDivisionError, RecursionError, KeyError, AttributeError, MemoryError)
BASES = {"object": object, "list": list, "tuple": tuple, "dict": dict, "str": str, "int": int, "float": float}


def raising(base: str, methods: frozenset[str], error: type[Exception]) -> Hostile:
    """An object of a subclass whose methods raise."""

    def method(*_: Any, **__: Any) -> Any:
        raise error("one line\nand another")

    def make() -> Any:
        made = type("Raising", (BASES[base],), dict.fromkeys(methods, method))
        contents: dict[str, Any] = {"list": [1.0, 2.0], "tuple": (1.0, 2.0), "dict": {"a": 1}, "str": "5", "int": 5}
        return made(contents[base]) if base in contents else made()

    return Hostile(f"{base} whose {', '.join(sorted(methods))} raise {error.__name__}", make)


class Lazy:
    """A proxy of something that is not there: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} outside of a request")


class Unending:
    """A sequence that never says how long it is."""

    def __len__(self) -> int:
        return 2**70

    def __getitem__(self, _: int) -> float:
        return 1.0


class Level(enum.IntEnum):
    """Integers with names."""

    ONE = 1


def _generator() -> Iterator[float]:
    yield from (1.0, 2.0)


def _circle() -> list[Any]:
    circle: list[Any] = [1.0]
    circle.append(circle)
    return circle


def _object_array() -> Any:
    array = np.empty(8, object)
    array[:] = [raising("object", frozenset({"__float__", "__repr__"}), OSError).make() for _ in range(8)]
    return array


OTHER = Table("elsewhere", MetaData(), Column("id", Integer, primary_key=True), Column("vector", Integer))

PLAIN: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "object": object,
    "a class": lambda: Hostile,
    "a function": lambda: raising,
    "Ellipsis": lambda: Ellipsis,
    "a proxy": Lazy,
    "a mock": MagicMock,
    "a sequence without an end": Unending,
    "an integer of 5,000 digits": lambda: 10**5_000,
    "2**63": lambda: 2**63,
    "-2**63 - 1": lambda: -(2**63) - 1,
    "2**31": lambda: 2**31,
    "True": lambda: True,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "1e308": lambda: 1e308,
    "1e-308": lambda: 1e-308,
    "complex": lambda: 1j,
    "Decimal": lambda: Decimal("1.5"),
    "Decimal sNaN": lambda: Decimal("sNaN"),
    "Fraction": lambda: Fraction(1, 3),
    "IntEnum": lambda: Level.ONE,
    "np.int64": lambda: np.int64(3),
    "np.uint8": lambda: np.uint8(3),
    "np.float32 NaN": lambda: np.float32("nan"),
    "np.bool_": lambda: np.bool_(True),
    "np.datetime64": lambda: np.datetime64(5, "s"),
    "np.str_": lambda: np.str_("5"),
    "half of a surrogate pair": lambda: "\ud800",
    "NUL": lambda: "a\0b",
    "control characters": lambda: "\x1b[2J\r\n\x07",
    "a long text": lambda: "é" * 100_000,
    "a text of digits": lambda: "10",
    "bytes": lambda: b"\xff\x00",
    "bytearray": lambda: bytearray(8),
    "memoryview": lambda: memoryview(bytes(8)),
    "datetime": lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "date": lambda: dt.date(2026, 1, 1),
    "timedelta": lambda: dt.timedelta(1),
    "UUID": lambda: uuid.UUID(int=5),
    "a path": lambda: Path("/nowhere/at/all"),
    "generator": _generator,
    "range": lambda: range(8),
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({"a"}),
    "deque": lambda: deque([1.0] * 8),
    "UserList": lambda: UserList([1.0] * 8),
    "UserDict": lambda: UserDict({"a": 1}),
    "a mapping with other keys": lambda: {1: 2, None: 3, (4,): 5},
    "nested lists": lambda: [[[[1.0]]]],
    "a ragged list": lambda: [[1.0], [1.0, 2.0]],
    "a circle": _circle,
    "a huge list": lambda: [1.0] * 100_000,
    "list of None": lambda: [None] * 8,
    "list of bool": lambda: [True] * 8,
    "list of texts": lambda: ["1.0"] * 8,
    "list of huge integers": lambda: [10**400] * 8,
    "list of eight": lambda: [0.5, 0.25, 1, 2, 3, 4, 5, 6],
    "tuple of eight": lambda: (1.0, 0, 0, 0, 0, 0, 0, 1),
    "zeros": lambda: np.zeros(8),
    "tiny": lambda: np.full(8, 1e-300),
    "beyond half precision": lambda: [1e5] * 8,
    "NaN among numbers": lambda: [float("nan"), *[1.0] * 7],
    "float64 array": lambda: np.arange(1.0, 9.0),
    "int array": lambda: np.arange(1, 9),
    "huge array": lambda: np.zeros(2_000_000, np.float32),
    "array of shape (8, 1)": lambda: np.ones((8, 1)),
    "array of shape ()": lambda: np.array(5),
    "array of shape (0,)": lambda: np.array([]),
    "array of shape (2, 8)": lambda: np.ones((2, 8)) * [[1.0], [2.0]],
    "bool array": lambda: np.ones(8, bool),
    "complex array": lambda: np.ones(8, complex),
    "datetime array": lambda: np.zeros(8, "datetime64[s]"),
    "text array": lambda: np.array(["1"] * 8),
    "object array": _object_array,
    "structured array": lambda: np.zeros(8, [("a", "f4")]),
    "masked array": lambda: np.ma.array(np.ones(8), mask=[True, *[False] * 7]),
    "Vector": lambda: PgVector([1.0] * 8),
    "HalfVector": lambda: HalfVector([1.0, 0, 0, 0, 0, 0, 0, 2.0]),
    "SparseVector": lambda: SparseVector({1: 1.0}, 8),
    "Bit": lambda: Bit([True] * 8),
    "bindparam": lambda: bindparam("given"),
    "literal": lambda: literal(1),
    "null()": null,
    "text()": lambda: text("x"),
    "a function of SQL": func.now,
    "another Select": lambda: select(OTHER.c.id),
    "another Table": lambda: OTHER,
    "another column": lambda: OTHER.c.vector,
    "a MetaData": MetaData,
    "list of objects that raise": lambda: [raising("object", frozenset(METHODS), OSError).make()] * 2,
    "tuple of objects that raise": lambda: (1.0, raising("object", frozenset(METHODS), OSError).make()),
    "mapping of an object that raises": lambda: {"a": raising("object", frozenset(METHODS), OSError).make()},
}


def _of(value: Any) -> Hostile:
    return Hostile(ascii(value)[:200], lambda: value)


def hostile_values() -> st.SearchStrategy[Hostile]:
    """Any of them, and what Hypothesis makes of its own."""
    own = st.one_of(
        st.integers(),
        st.integers(-3, 60),
        st.floats(),
        st.floats(0, 2),
        st.text(st.characters(), max_size=70),
        st.binary(max_size=20),
        st.decimals(),
        st.lists(st.floats(width=32), min_size=8, max_size=8),
        st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=4),
        st.tuples(st.floats(), st.integers()),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    )
    return st.one_of(
        st.sampled_from(sorted(PLAIN)).map(lambda label: Hostile(label, PLAIN[label])),
        own.map(_of),
        st.builds(
            raising,
            st.sampled_from(sorted(BASES)),
            st.frozensets(st.sampled_from(METHODS), min_size=1),
            st.sampled_from(ERRORS),
        ),
    )
