"""Every type of the catalogue x every kind of value: stored as the server would store the literal, or refused."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.json import Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range, RangeInfo, register_range
from sqlalchemy import Column, Integer, MetaData, Table

from pgmrl.errors import IngestError
from pgmrl.ingestion.ingest import ingest
from pgmrl.ingestion.target_table import TargetTable
from pgmrl.model.columns import Matryoshka
from pgmrl.model.compat import SparseVector
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Info = TypeVar("Info", bound=TypeInfo)
VECTOR = [1.0, 2.0, 3.0, 4.0]
CHUNKS = 8
UTC = dt.UTC


class Kind(enum.Enum):
    """Labels by name."""

    happy = "gay"


class Word(enum.StrEnum):
    """Labels by value."""

    HAPPY = "happy"


class Whole(enum.IntEnum):
    """A number with a name."""

    FIVE = 5


class Odd:
    """What no type has."""

    def __str__(self) -> str:
        raise OSError("no text")

    def __repr__(self) -> str:
        raise OSError("no repr")

    def __float__(self) -> float:
        raise OSError("no number")


class Mute(dt.tzinfo):
    """A zone that does not say how far it is."""

    def utcoffset(self, _: dt.datetime | None) -> None:
        """Nor whether it is summer."""

    dst = tzname = utcoffset


class Pair(NamedTuple):
    """A row."""

    a: int
    b: str


DAY, MOMENT, ZONED = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 1, 2, 3, 4), dt.datetime(2024, 2, 29, 1, tzinfo=UTC)
ADDRESS, NETWORK = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("10.0.0.0/8")
VALUES: dict[str, Any] = {
    "integer": 5,
    "negative": -7,
    "integer of 16 bits and more": 40_000,
    "integer of 32 bits and more": 2**40 + 1,
    "huge integer": 10**30 + 7,
    "integer of more digits than Python writes": 10**5_000,
    "float": 1.5,
    "float of many digits": 0.1 + 0.2,
    "small float": 1e-300,
    "nan": float("nan"),
    "infinity": float("inf"),
    "decimal": Decimal("12.340"),
    "decimal of many digits": Decimal("16777217.0000000000000000001"),
    "large decimal": Decimal("1e400"),
    "larger decimal": Decimal("1e200000"),
    "fine decimal": Decimal("1e-20000"),
    "signalling decimal": Decimal("sNaN"),
    "empty text": "",
    "0": "0",
    "text": "happy",
    "text of a duration": "01:30:00",
    "text of an array": "{1,2}",
    "text of a range": "[1,5)",
    "text of bits": "101",
    "text of JSON": '{"a": 1}',
    "long text": "x" * 100,
    "NUL": "a\0b",
    "half a character": "\ud800",
    "bytes": b"\x00\xff12345678",
    "no bytes": b"",
    "bytearray": bytearray(b"ab"),
    "memoryview": memoryview(b"abcd")[::2],
    "true": True,
    "None": None,
    "list": [1, 2],
    "list of texts": ["a", 'b"', ""],
    "list with NULL": [1, None],
    "list of truth values": [True, False],
    "list of floats": [0.5, 1.5],
    "list of large integers": [2**40],
    "list of dates": [DAY],
    "list of moments": [MOMENT],
    "list of ranges": [Range(1, 5)],
    "list of documents": [{"a": 1}],
    "mixed list": [1, "a"],
    "nested list": [[1, 2], [3, 4]],
    "ragged list": [[1, 2], [3]],
    "mixed depth": [1, [2]],
    "empty list": [],
    "nested empty lists": [[], []],
    "tuple": (1, 2),
    "row": Pair(1, "a"),
    "set": {1, 2},
    "dict": {"a": [1, None, "ü"]},
    "date": DAY,
    "moment": MOMENT,
    "midnight": dt.datetime(2024, 2, 29),
    "moment with a zone": ZONED,
    "moment with a zone that does not say": dt.datetime(2024, 2, 29, tzinfo=Mute()),
    "time": dt.time(1, 2, 3, 4),
    "time with a zone": dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2, seconds=1))),
    "duration": dt.timedelta(days=-1, seconds=5, microseconds=7),
    "long duration": dt.timedelta.max,
    "uuid": uuid.UUID(int=5),
    "text of a uuid": str(uuid.UUID(int=5)),
    "numpy integer": np.int64(5),
    "numpy unsigned": np.uint64(2**63),
    "numpy float": np.float32(0.1),
    "numpy long double": np.longdouble(1) / 3,
    "numpy truth value": np.True_,
    "numpy text": np.str_("happy"),
    "numpy bytes": np.bytes_(b"ab"),
    "numpy date": np.datetime64("2024-02-29"),
    "numpy nanoseconds": np.datetime64("2024-02-29T01:02:03.000004000", "ns"),
    "numpy odd nanoseconds": np.datetime64("2024-02-29T01:02:03.000000001", "ns"),
    "numpy no moment": np.datetime64("NaT"),
    "numpy duration": np.timedelta64(5, "s"),
    "numpy duration without a unit": np.timedelta64(5),
    "numpy complex": np.complex64(1j),
    "numpy array": np.array([1, 2]),
    "numpy array of floats": np.array([0.5, 1.5]),
    "numpy array of moments": np.array(["2024-02-29"], "M8[ns]"),
    "numpy array of one number": np.array(5),
    "numpy masked array": np.ma.array([1, 2], mask=[False, True]),
    "numpy records": np.array([(1, 2.0)], [("a", int), ("b", float)]),
    "numpy no rows": np.empty((0, 3)),
    "complex": 1j,
    "enum": Kind.happy,
    "enum of texts": Word.HAPPY,
    "enum of integers": Whole.FIVE,
    "address": ADDRESS,
    "address of IPv6": ipaddress.ip_address("::1"),
    "address with a scope": ipaddress.ip_address("fe80::1%eth0"),
    "interface": ipaddress.ip_interface("10.0.0.1/8"),
    "network": NETWORK,
    "range": Range(1, 5),
    "range of large integers": Range(1, 2**40),
    "range of decimals": Range(Decimal("1.5"), None, "[)"),
    "range of dates": Range(DAY, None),
    "range of moments": Range(MOMENT, None, "(]"),
    "range of moments with a zone": Range(None, ZONED),
    "range of texts": Range("a", "b"),
    "range upside down": Range(5, 1),
    "empty range": Range(empty=True),
    "multirange": Multirange([Range(1, 2), Range(5, 6)]),
    "empty multirange": Multirange(),
    "JSON": Jsonb({"a": [1]}),
    "JSON of a text": Jsonb("0"),
    "JSON of nothing": Jsonb(None),
    "odd object": Odd(),
    "class": int,
}
CERTAIN = {
    ("int2", "integer"), ("int4", "integer of 16 bits and more"), ("int8", "numpy integer"), ("oid", "integer"),
    ("float4", "float"), ("float8", "small float"), ("float8", "numpy float"), ("numeric", "huge integer"),
    ("numeric", "float of many digits"), ("numeric", "nan"), ("bool", "numpy truth value"), ("text", "empty text"),
    ("varchar", "0"), ("bpchar", "text"), ("name", "text"), ("bytea", "memoryview"), ("date", "midnight"),
    ("time", "time"), ("timetz", "time with a zone"), ("timestamp", "numpy nanoseconds"),
    ("timestamptz", "moment with a zone"), ("interval", "duration"), ("uuid", "text of a uuid"), ("json", "dict"),
    ("jsonb", "JSON of a text"), ("inet", "interface"), ("cidr", "network"), ("bit", "text of bits"),
    ("int4range", "range"), ("int8range", "range of large integers"), ("numrange", "range of decimals"),
    ("daterange", "range of dates"), ("tsrange", "range of moments"), ("tstzrange", "range of moments with a zone"),
    ("int4multirange", "multirange"), ("_int4", "nested list"), ("_text", "list of texts"), ("_int8", "tuple"),
    ("_bool", "list of truth values"), ("_float8", "numpy array of floats"), ("_date", "list of dates"),
    ("_timestamp", "numpy array of moments"), ("_int4range", "list of ranges"), ("_jsonb", "list of documents"),
    ("_int4", "numpy masked array"), ("_int4", "empty list"), ("vector", "list of floats"), ("halfvec", "numpy array"),
    ("sparsevec", "list"), ("mood", "enum of texts"), ("positive", "integer"), ("citext", "text"),
}  # fmt: skip
"""Cells that are no refusal."""


@pytest.fixture
def driver(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of psycopg's own, to a database with types of its own and of extensions."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        for statement in (
            "CREATE TYPE mood AS ENUM ('happy', 'sad')",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            "CREATE DOMAIN short_word AS varchar(6) CHECK (VALUE <> '0')",
            "CREATE DOMAIN shorter_word AS short_word",
            "CREATE DOMAIN numbers AS integer[]",
            "CREATE TYPE pair AS (a integer, b text)",
            "CREATE TYPE moods AS RANGE (subtype = mood)",
            "CREATE TYPE floats AS RANGE (subtype = float8)",
            "CREATE SCHEMA elsewhere",
            "CREATE TYPE elsewhere.date AS (v text)",
            "CREATE DOMAIN elsewhere.interval AS text",
            "CREATE EXTENSION citext SCHEMA elsewhere",
            "CREATE EXTENSION hstore",
            "SET TIME ZONE 'UTC'",
        ):
            extension = statement.split()[2] if statement.startswith("CREATE EXTENSION") else None
            if extension is not None and not available(connection, extension):
                pytest.skip(f"this server was packed without {extension}")
            connection.execute(statement)
        yield connection


def available(connection: psycopg.Connection[Any], extension: str) -> bool:
    """Whether the server brings an extension."""
    query = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = %s)"
    row = connection.execute(query, [extension]).fetchone()
    return row is not None and bool(row[0])


def table_of(driver: psycopg.Connection[Any]) -> Table:
    """A table to which a column of any type is added."""
    driver.execute("CREATE TABLE docs (id int PRIMARY KEY, e vector(4), e_short_2 halfvec(2))")
    driver.execute("CREATE TABLE plain (n int)")
    return Table(
        "docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(4, Short(2), full="vector"))
    )


def types(driver: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Every type that a column can have: its name in the catalogue and as SQL writes it."""
    query = (
        "SELECT typname, CASE typname WHEN 'bpchar' THEN 'bpchar' WHEN 'bit' THEN 'bit(3)' "
        "ELSE oid::regtype::text END FROM pg_type WHERE typtype IN ('b', 'd', 'e', 'c', 'r', 'm') "
        "AND typisdefined AND oid NOT IN ('docs'::regtype, 'docs[]'::regtype, 'plain'::regtype, 'plain[]'::regtype) "
        "AND typnamespace <> 'pg_toast'::regnamespace ORDER BY typtype, oid"
    )
    return driver.execute(query).fetchall()


def literals(driver: psycopg.Connection[Any], value: Any) -> Iterator[str]:
    """The texts that a user would write for a value."""
    value = without_numpy(value)
    writers: list[Callable[[Any], str]] = [
        str,
        duration,
        json.dumps,
        lambda one: json.dumps(one.obj),
        lambda one: str(SparseVector(one).to_text()),
        lambda one: dumped(driver, one),
        lambda one: dumped(driver, [Jsonb(item) for item in one]),
    ]
    for write in writers:
        try:
            yield write(value)
        except Exception:  # noqa: S112 - there is no such text
            continue


def without_numpy(value: Any) -> Any:
    """The same of Python's."""
    if isinstance(value, (np.datetime64, np.ndarray)) and value.dtype.kind == "M" and not np.isnat(value).any():
        value = value.astype("M8[us]")
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, memoryview):
        return bytes(value)
    return list(value) if type(value) is tuple else value.item() if isinstance(value, np.generic) else value


def duration(value: dt.timedelta) -> str:
    """A timedelta in words."""
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


def dumped(driver: psycopg.Connection[Any], value: Any) -> str:
    """What psycopg sends for a value as text."""
    found = Transformer(driver).get_dumper(value, PyFormat.TEXT).dump(value)
    assert found is not None
    return bytes(found).decode()


def stored_by_the_server(driver: psycopg.Connection[Any], type_: str, value: Any) -> set[str | None]:
    """What an INSERT of the value, and the literals of it, store."""
    found: set[str | None] = set()
    try:
        with driver.transaction(force_rollback=True):
            driver.execute("INSERT INTO plain (v) VALUES (%s)", [value])
            found.update(row[0] for row in driver.execute("SELECT v::text FROM plain"))
    except (psycopg.Error, ValueError, OverflowError, BufferError, OSError, TypeError):
        pass
    for text in dict.fromkeys(literals(driver, value)):
        try:
            with driver.transaction(force_rollback=True):
                statement = sql.SQL("INSERT INTO plain (v) VALUES (CAST(%s::text AS {}))").format(sql.SQL(type_))
                driver.execute(statement, [text])
                found.update(row[0] for row in driver.execute("SELECT v::text FROM plain"))
        except (psycopg.Error, ValueError):
            continue
    return found


def cells(driver: psycopg.Connection[Any], table: Table, type_: str) -> Iterator[str]:
    """The kinds of value that a column `v` of a type takes, stored as the server stores them; others are refused."""
    target, refused = TargetTable.of(driver, table.c.e), []
    for kind, value in VALUES.items():
        if value is not None and not takes(target, value):
            refused.append(kind)  # before anything is sent: here that costs no round trip
            continue
        try:
            with driver.transaction(force_rollback=True):
                ingest(driver, table.c.e, [{"id": 1, "e": VECTOR, "v": value}])
                ((stored,),) = driver.execute("SELECT v::text FROM docs").fetchall()
        except IngestError as error:
            assert "row 1 (id=1): " in str(error)  # noqa: PT017
            continue
        assert stored in ({None} if value is None else stored_by_the_server(driver, type_, value)), (type_, kind)
        yield kind
    expected = r"^row 1 \(id=1\): column 'v': (expected a value of type|the server reads no)"
    for kind in (refused[0], refused[-1], "odd object"):
        with pytest.raises(IngestError, match=expected) as caught:
            ingest(driver, table.c.e, [{"id": 1, "e": VECTOR, "v": VALUES[kind]}])
        assert target.types["v"].name in str(caught.value)
        assert str(caught.value).endswith("Nothing of its batch was written, 0 rows before it were.")


def takes(target: TargetTable, value: Any) -> bool:
    """Whether a value gets as far as psycopg."""
    try:
        target.sent("v", value)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_type_and_every_value(driver: psycopg.Connection[Any], chunk: int) -> None:
    """No value is stored as something else; what is refused is one error that names row, column and type."""
    table, stored, names, tried = table_of(driver), set(), set(), 0
    every = types(driver)
    assert len(every) > 400
    for name, type_ in every[chunk::CHUNKS]:
        try:
            with driver.transaction():
                for place in ("docs", "plain"):
                    driver.execute(f"ALTER TABLE {place} ADD v {type_}".encode())
        except psycopg.errors.InvalidTableDefinition:  # it is made of a pseudo-type
            continue
        tried += 1
        if "." not in type_:
            names.add(name)
        stored |= {(name, kind) for kind in cells(driver, table, type_)}
        for place in ("docs", "plain"):
            driver.execute(f"ALTER TABLE {place} DROP v".encode())
    assert tried > 0.9 * len(every) / CHUNKS
    assert {cell for cell in CERTAIN if cell[0] in names} <= stored


def fetched(info: type[Info], driver: psycopg.Connection[Any], name: str) -> Info:
    """What psycopg knows of a type."""
    found = info.fetch(driver, name)
    assert isinstance(found, info)
    return found


def test_types_that_the_application_has_registered(driver: psycopg.Connection[Any]) -> None:
    """Psycopg's own dumper for a class makes the type that it says; other classes, and all before that, are refused."""
    table = table_of(driver)
    columns = {"m": "mood[]", "p": "pair", "ps": "pair[]", "f": "floats", "h": "hstore", "r": "moods"}
    for name, type_ in columns.items():
        driver.execute(f"ALTER TABLE docs ADD {name} {type_}".encode())
    values = {
        "m": [Kind.happy],
        "f": Range(0.5, 1.5, "[]"),
        "h": {"a": "1", "b": None},
        "r": Range(Kind.happy, None),
    }
    stored = {"m": "{happy}", "f": "[0.5,1.5]", "h": '"a"=>"1", "b"=>NULL', "r": "[happy,)"}
    for name, value in values.items():
        with pytest.raises(IngestError, match=rf"column '{name}': expected .*register the type"):
            ingest(driver, table.c.e, [{"id": 1, "e": VECTOR, name: value}])
    register_enum(fetched(EnumInfo, driver, "mood"), driver, Kind)
    register_composite(fetched(CompositeInfo, driver, "pair"), driver, Pair)
    if hasattr(psycopg.types.hstore, "BaseHstoreBinaryDumper"):
        register_hstore(fetched(TypeInfo, driver, "hstore"), driver)
    else:  # psycopg 3.1 has a text form of it alone, so that it stays refused
        del values["h"]
    register_range(fetched(RangeInfo, driver, "floats"), driver)
    register_range(fetched(RangeInfo, driver, "moods"), driver)
    for number, (name, value) in enumerate((values | {"p": Pair(1, "a")}).items()):
        ingest(driver, table.c.e, [{"id": number, "e": VECTOR, name: value}])
        found = driver.execute(f"SELECT {name}::text FROM docs WHERE id = {number}".encode()).fetchone()
        assert found == ((stored | {"p": "(1,a)"})[name],)
    for name, value in {"m": ["happy"], "p": (1, "a"), "f": Range(1, 2), "h": [("a", "1")]}.items():
        with pytest.raises(IngestError, match=rf"column '{name}': expected"):
            ingest(driver, table.c.e, [{"id": 1, "e": VECTOR, name: value}])
