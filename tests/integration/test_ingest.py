"""Loading by COPY: every value, every kind of connection, whole batches or nothing."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import threading
import tracemalloc
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Enum,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from pgmrl import database
from pgmrl.errors import IngestError, NotMigrated, PgmrlError, WrongConnection
from pgmrl.ingestion.ingest import IngestReport, ingest
from pgmrl.model import shortening
from pgmrl.model.columns import Matryoshka, add_side_table, matryoshka
from pgmrl.model.compat import HalfVector
from pgmrl.model.compat import Vector as PgVector
from pgmrl.model.ddl import create_short_sync_triggers
from pgmrl.model.shortening import Rotation, Short
from pgmrl.model.vectors import VectorArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from tests.corpus import Corpus

VALUES = [1.5, -2, 0.25, 4, 5, 6, 7, 8]


def docs(short: Short | None = None, name: str = "docs", schema: str | None = None, **options: Any) -> Table:
    """Eight dimensions, a key and a name."""
    return Table(
        name,
        MetaData(schema=schema),
        Column("id", Integer, primary_key=True),
        Column("name", Text),
        Column("e", Matryoshka(8, short or Short(4), **options)),
    )


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random ones."""
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


def numbered(given: Iterable[Any], start: int = 0) -> Iterator[dict[str, Any]]:
    """Rows with these vectors."""
    return ({"id": n, "name": f"row {n}", "e": vector} for n, vector in enumerate(given, start))


@pytest.fixture
def table(engine: Engine) -> Table:
    """An empty table of prefix-shortened vectors, committed."""
    made = docs()
    with engine.begin() as connection:
        made.create(connection)
    return made


@pytest.fixture
def rotated(engine: Engine, small_rotation: Rotation) -> Table:
    """An empty table of rotated vectors, committed."""
    made = docs(Short(4, by=small_rotation))
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        made.create(connection)
    return made


@pytest.fixture
def ids(engine: Engine) -> Callable[[], list[int]]:
    """The keys that others see in `docs`, in order."""

    def seen() -> list[int]:
        with engine.connect() as connection:
            return list(connection.execute(text("SELECT id FROM docs ORDER BY id")).scalars())

    return seen


def raw(url: str, **options: Any) -> psycopg.Connection[Any]:
    """A connection of psycopg's own."""
    return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), **options)


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize(
    "value",
    [VALUES, tuple(VALUES), np.array(VALUES), np.array(VALUES, np.float16), PgVector(VALUES), HalfVector(VALUES), None],
    ids=["list", "tuple", "float64", "float16", "Vector", "HalfVector", "NULL"],
)
def test_forms_of_a_vector(connection: Connection, value: Any, full: Any) -> None:
    """What is stored is what was given, and the short vector is the database's own."""
    table = docs(full=full)
    table.create(connection)
    report = ingest(connection, table.c.e, [{"id": 1, "e": value}])
    row = connection.execute(text("SELECT e::text, e_short_4::text, name FROM docs")).one()
    if value is None:
        assert row == (None, None, None)
    else:
        assert row[0] == "[1.5,-2,0.25,4,5,6,7,8]"
        np.testing.assert_allclose(eval(row[1]), np.array(VALUES[:4]) / np.linalg.norm(VALUES[:4]), atol=1e-3)  # noqa: S307
    assert (report.rows, report.null_vectors, report.zero_vectors, report.batches) == (1, int(value is None), 0, 1)
    assert report.seconds > 0


def test_vectors_of_different_forms_in_a_batch(connection: Connection) -> None:
    """With some NULL among them."""
    table = docs()
    table.create(connection)
    given = [VALUES, np.array(VALUES), None, PgVector(VALUES), HalfVector(VALUES), None]
    assert ingest(connection, table.c.e, numbered(given)).null_vectors == 2
    counted = text("SELECT e::text, count(*) FROM docs GROUP BY 1 ORDER BY 2")
    assert connection.execute(counted).all() == [(None, 2), ("[1.5,-2,0.25,4,5,6,7,8]", 4)]


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_rows_that_no_search_returns_are_counted(connection: Connection, metric: Any) -> None:
    """NULL under every metric, zero vectors where only directions are compared."""
    table = docs(metric=metric)
    table.create(connection)
    zero = np.zeros(8)
    report = ingest(connection, table.c.e, numbered([VALUES, None, zero, None, zero, None, VALUES]), batch_size=2)
    assert (report.rows, report.null_vectors, report.batches) == (7, 3, 4)
    assert report.zero_vectors == (2 if metric == "cosine" else 0)


@pytest.mark.parametrize("kind", [list, iter, np.asarray, lambda given: (row.tolist() for row in given)])
def test_vectors_beside_the_rows(connection: Connection, kind: Any) -> None:
    """In the order of the rows, across batches, as an array or anything that can be iterated."""
    table = docs()
    table.create(connection)
    given = vectors(7).astype(np.float16)
    ingest(connection, table.c.e, ({"id": n} for n in range(7)), vectors=kind(given), batch_size=3)
    stored = connection.execute(table.select().order_by(table.c.id)).scalars
    assert list(stored()) == list(range(7))
    found = np.stack(list(connection.execute(table.select().with_only_columns(table.c.e).order_by("id")).scalars()))
    np.testing.assert_array_equal(found, given.astype(np.float32))


def test_vectors_and_rows_in_different_numbers(connection: Connection) -> None:
    """Nothing is written where the numbers are known; else the last batch is not, and those before it are."""
    table = docs()
    table.create(connection)
    rows = [{"id": n} for n in range(5)]
    with pytest.raises(IngestError, match=r"5 rows and 4 vectors.*Nothing was written"):
        ingest(connection, table.c.e, rows, vectors=vectors(4), batch_size=2)
    assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 0
    with pytest.raises(IngestError, match="4 vectors and more rows"):
        ingest(connection, table.c.e, iter(rows), vectors=vectors(4), batch_size=2)
    with pytest.raises(IngestError, match="5 rows and more vectors"):
        ingest(connection, table.c.e, ({"id": n + 10} for n in range(5)), vectors=vectors(6), batch_size=2)
    with pytest.raises(IngestError, match="0 vectors and more rows"):
        ingest(connection, table.c.e, ({"id": n + 20} for n in range(5)), vectors=[])
    assert list(connection.execute(text("SELECT id FROM docs ORDER BY id")).scalars()) == [0, 1, 2, 3, 10, 11, 12, 13]


def test_vectors_in_two_places(connection: Connection) -> None:
    """Which one is meant nobody said."""
    table = docs()
    table.create(connection)
    with pytest.raises(IngestError, match="row 2 has 'e', and `vectors` are given too"):
        ingest(connection, table.c.e, [{"id": 1}, {"id": 2, "e": VALUES}], vectors=vectors(2))


def test_no_rows(connection: Connection) -> None:
    """Nothing is loaded, and nothing is wrong."""
    table = docs()
    table.create(connection)
    assert ingest(connection, table.c.e, []).rows == 0
    report = ingest(connection, table.c.e, [], vectors=np.empty((0, 8)))
    assert report == IngestReport(seconds=report.seconds)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_that_makes_no_sense(connection: Connection, size: int) -> None:
    """Said before anything is read."""
    table = docs()
    table.create(connection)
    with pytest.raises(IngestError, match="at least 1"):
        ingest(connection, table.c.e, numbered(vectors(1)), batch_size=size)


UTC = dt.UTC
TYPES: list[tuple[str, Any, Any]] = [
    ("smallint", -32768, "-32768"),
    ("integer", np.int64(7), "7"),
    ("bigint", 2**62, str(2**62)),
    ("real", 0.5, "0.5"),
    ("double precision", 3, "3"),
    ("double precision", np.float32(0.25), "0.25"),
    ("numeric", decimal.Decimal("12345678901234567890.123"), "12345678901234567890.123"),
    ("numeric(10,2)", 7, "7.00"),
    ("numeric", 0.5, "0.5"),
    ("text", "naïve 表 \U0001f600 \\N \t\n", "naïve 表 \U0001f600 \\N \t\n"),
    ("text", "", ""),
    ("varchar(5)", "abc", "abc"),
    ("char(5)", "abc", "abc  "),
    ("name", "abc", "abc"),
    ("boolean", np.bool_(True), "true"),
    ("date", dt.date(2024, 2, 29), "2024-02-29"),
    ("date", np.datetime64("2024-02-29"), "2024-02-29"),
    ("date", dt.datetime(2024, 2, 29), "2024-02-29"),
    ("real", np.float64("inf"), "Infinity"),
    ("time", dt.time(1, 2, 3), "01:02:03"),
    ("timestamp", dt.datetime(2024, 2, 29, 1, 2, 3), "2024-02-29 01:02:03"),
    ("timestamptz", dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), "2024-02-29 01:02:03+00"),
    ("interval", dt.timedelta(days=1, seconds=5), "1 day 00:00:05"),
    ("uuid", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("uuid", "00000000-0000-0000-0000-000000000005", "00000000-0000-0000-0000-000000000005"),
    ("jsonb", {"a": [1, None, "ü"]}, '{"a": [1, null, "ü"]}'),
    ("jsonb", [1, 2], "[1, 2]"),
    ("jsonb", Jsonb({"a": 1}), '{"a": 1}'),
    ("json", {"a": 1}, '{"a": 1}'),
    ("bytea", b"\x00\xff", "\\x00ff"),
    ("integer[]", [1, None, 3], "{1,NULL,3}"),
    ("integer[]", [], "{}"),
    ("bigint[]", [1, 2**40], "{1,1099511627776}"),
    ("text[]", ["a", 'b"', "c,d"], '{a,"b\\"","c,d"}'),
    ("double precision[]", [1.5, 2], "{1.5,2}"),
    ("uuid[]", [uuid.UUID(int=5)], "{00000000-0000-0000-0000-000000000005}"),
    ("inet", ipaddress.ip_address("10.0.0.1"), "10.0.0.1/32"),
    ("mood", "happy", "happy"),
    ("small_text", "short", "short"),
    ("smaller_text", "abc", "abc"),
    ("positive", 5, "5"),
    ("domained_mood", "sad", "sad"),
    ("vector(2)", [1, 2], "[1,2]"),
    ("halfvec(2)", np.array([1, 2]), "[1,2]"),
    ("bit(3)", "101", "101"),
]


@pytest.fixture
def typed(connection: Connection) -> Callable[[str], Table]:
    """A table with a column of any type."""
    for statement in (
        "CREATE TYPE mood AS ENUM ('happy', 'sad')",
        "CREATE DOMAIN small_text AS varchar(10)",
        "CREATE DOMAIN smaller_text AS small_text CHECK (length(VALUE) < 6)",
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        "CREATE DOMAIN domained_mood AS mood",
    ):
        connection.execute(text(statement))

    def make(kind: str) -> Table:
        made = docs()
        made.create(connection)
        connection.execute(text(f"ALTER TABLE docs ADD COLUMN v {kind}"))
        return made

    return make


@pytest.mark.parametrize(("kind", "value", "stored"), TYPES, ids=[f"{kind}-{value!r:.20}" for kind, value, _ in TYPES])
def test_columns_of_every_type(
    connection: Connection, typed: Callable[[str], Table], kind: str, value: Any, stored: str
) -> None:
    """And NULL in each."""
    table = typed(kind)
    connection.execute(text("SET LOCAL TimeZone = 'UTC'"))
    ingest(connection, table.c.e, [{"id": 1, "e": VALUES, "v": value}, {"id": 2, "e": VALUES, "v": None}])
    found = connection.execute(text("SELECT v::text FROM docs ORDER BY id")).scalars().all()
    if kind.startswith("char("):
        stored = stored.rstrip()
    assert found == [stored, None]


WRONG: list[tuple[str, Any]] = [
    ("smallint", 40_000),
    ("integer", 2**31),
    ("bigint", 2**63),
    ("integer", "seven"),
    ("integer", 1.5),
    ("integer", [1]),
    ("text", 7),
    ("text", "nul \0"),
    ("text", "half \ud800"),
    ("varchar(5)", "abcdef"),
    ("boolean", "yes"),
    ("date", "not a date"),
    ("timestamptz", 5),
    ("timestamptz", dt.datetime(2024, 2, 29)),  # which instant it is nobody said
    ("inet", "10.0.0.1"),
    ("boolean", 1),
    ("integer[]", [2**31]),
    ("halfvec(2)", [70_000, 1]),
    ("bit(3)", "1"),
    ("uuid", "not a uuid"),
    ("jsonb", {1, 2}),
    ("numeric", "x"),
    ("double precision", "x"),
    ("integer[]", 5),
    ("integer[]", ["a"]),
    ("integer[]", [[1], [2, 3]]),
    ("mood", "angry"),
    ("positive", -1),
    ("small_text", "much longer than that"),
    ("bytea", 5),
    ("bytea", "text"),
    ("real", 1e39),
    ("real", "1.5"),
    ("date", dt.datetime(2024, 2, 29, 5)),
    ("time", dt.time(1, 2, tzinfo=UTC)),
    ("vector(2)", [1, 2, 3]),
    ("vector(2)", "x"),
    ("integer", object()),
]


@pytest.mark.parametrize(("kind", "value"), WRONG, ids=[f"{kind}-{value!r:.20}" for kind, value in WRONG])
def test_values_of_the_wrong_type(connection: Connection, typed: Callable[[str], Table], kind: str, value: Any) -> None:
    """Found by the client or by the server: the row is named, nothing of its batch is written, earlier ones stay."""
    table = typed(kind)
    good = {"e": VALUES, "v": None}
    rows = [{"id": 11, **good}, {"id": 12, **good}, {"id": 13, **good}, {"id": 14, "e": VALUES, "v": value}]
    with pytest.raises(IngestError, match="id=14"):
        ingest(connection, table.c.e, rows, batch_size=2)
    assert connection.execute(text("SELECT id FROM docs ORDER BY id")).scalars().all() == [11, 12]


def test_a_type_that_psycopg_does_not_know(connection: Connection, typed: Callable[[str], Table]) -> None:
    """An array of the application's own enum, unless the application registers it."""
    table = typed("mood[]")
    with pytest.raises(IngestError, match=r"row 1 \(id=1\): column 'v': expected .* type _mood.*register the type"):
        ingest(connection, table.c.e, [{"id": 1, "e": VALUES, "v": ["sad"]}])
    assert ingest(connection, table.c.e, [{"id": 1, "e": VALUES}]).rows == 1


# -- rows that cannot be loaded -----------------------------------------------------------------------------------


def bad(row: dict[str, Any], at: int = 7) -> Iterator[dict[str, Any]]:
    """Ten rows, one of them changed."""
    return (base | (row if n == at else {}) for n, base in enumerate(numbered(vectors(10), 100)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"e": [1, 2, 3]}, "8 dimensions"),
        ({"e": [[1, 2, 3, 4, 5, 6, 7, 8]]}, "8 dimensions"),
        ({"e": [1, np.nan, 3, 4, 5, 6, 7, 8]}, "nan at dimension 2: every value must be finite"),
        ({"e": [1, 2, np.inf, 4, 5, 6, 7, 8]}, "inf at dimension 3"),
        ({"e": [1, 2, 3, 4, 5, 6, 7, 1e39]}, "inf at dimension 8"),
        ({"e": [70_000, 2, 3, 4, 5, 6, 7, 8]}, "half precision"),
        ({"e": "a text"}, "not made of numbers"),
        ({"e": {}}, "not made of numbers"),
        ({"nmae": "x"}, "no column 'nmae'.*it has id, name, e"),
        ({"id": None}, "null value in column"),
    ],
)
@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_a_bad_row_is_named(
    engine: Engine, ids: Callable[[], list[int]], request: pytest.FixtureRequest, by: str, change: Any, message: str
) -> None:
    """By its number and its key; its batch is not written, the one before it is."""
    table: Table = request.getfixturevalue("table" if by == "prefix" else "rotated")
    key = "None" if "id" in change else "107"
    with engine.connect() as connection, pytest.raises(IngestError, match=rf"(?s)row 8 \(id={key}\): .*{message}"):
        ingest(connection, table.c.e, bad(change), batch_size=5)
    assert ids() == [100, 101, 102, 103, 104]
    with engine.connect() as connection:  # the remainder, corrected
        assert ingest(connection, table.c.e, numbered(vectors(5), 105)).rows == 5
    assert ids() == list(range(100, 110))


def test_over_half_range_is_fine_in_a_vector_column(connection: Connection) -> None:
    """Only half precision ends at 65,504; the short vector is a direction."""
    table = docs(full="vector")
    table.create(connection)
    assert ingest(connection, table.c.e, bad({"e": [70_000, 2, 3, 4, 5, 6, 7, 8]})).rows == 10


@pytest.mark.parametrize("first", [100, 107])
def test_a_duplicate_key(engine: Engine, table: Table, ids: Callable[[], list[int]], first: int) -> None:
    """Of a row that was there, or of one in the same batch."""
    with engine.connect() as connection:
        ingest(connection, table.c.e, numbered(vectors(1), first))
        with pytest.raises(IngestError, match=r"Key \(id\)=\((100|107|108)\) already exists"):
            ingest(connection, table.c.e, bad({"id": 108}), batch_size=5)
    assert ids() == ([100] if first == 100 else [100, 101, 102, 103, 104, 107])


def test_constraints_of_the_application(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """NOT NULL, CHECK and a trigger's own objection, in the server's words with the row's name."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE docs ALTER COLUMN name SET NOT NULL"))
        connection.execute(text("ALTER TABLE docs ADD CONSTRAINT not_rude CHECK (name <> 'rude')"))
    with engine.connect() as connection:
        for change, message in (({"name": None}, "null value in column"), ({"name": "rude"}, "not_rude")):
            with pytest.raises(IngestError, match=rf"row 8 \(id=107\): .*{message}") as caught:
                ingest(connection, table.c.e, bad(change))
            assert len(str(caught.value)) < 300
            assert "0 rows before it were" in str(caught.value)
    assert ids() == []


def test_a_foreign_key(engine: Engine, table: Table) -> None:
    """Checked at the end of the COPY, when the server knows the key and no longer the line."""
    child = Table(
        "children",
        table.metadata,
        Column("id", Integer, primary_key=True),
        Column("doc", ForeignKey("docs.id")),
        Column("e", Matryoshka(8, Short(4))),
    )
    with engine.begin() as connection:
        child.create(connection)
    with engine.connect() as connection, pytest.raises(IngestError, match=r"Key \(doc\)=\(9\) is not present"):
        ingest(connection, child.c.e, [{"id": 1, "doc": 9, "e": VALUES}])


def test_a_deferred_constraint_fails_with_its_batch(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """At COMMIT, which belongs to the batch as well."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE docs ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"))
    with engine.connect() as connection, pytest.raises(IngestError, match=r"Key \(name\)=\(twice\) already exists"):
        ingest(connection, table.c.e, (row | {"name": "twice"} for row in numbered(vectors(3))))
    assert ids() == []


def test_the_short_column_cannot_be_given(engine: Engine, table: Table) -> None:
    """It is the database's own."""
    with engine.connect() as connection, pytest.raises(IngestError, match="e_short_4"):
        ingest(connection, table.c.e, [{"id": 1, "e": VALUES, "e_short_4": [1, 2, 3, 4]}])


def test_the_short_column_of_a_rotation_cannot_be_given(engine: Engine, rotated: Table) -> None:
    """Nor there: what it says would be overwritten or, worse, not."""
    short = rotated.c[3].name
    with engine.connect() as connection, pytest.raises(IngestError, match=short):
        ingest(connection, rotated.c.e, [{"id": 1, "e": VALUES, short: [1, 2, 3, 4]}])


def test_rows_of_nothing(engine: Engine, table: Table) -> None:
    """An error of ours and not one of SQL's grammar."""
    with engine.connect() as connection, pytest.raises(IngestError, match=r"row 1 .*no column"):
        ingest(connection, table.c.e, [{}, {}])


def test_rows_that_are_no_mappings(engine: Engine, table: Table) -> None:
    """A tuple does not say which value belongs where."""
    with engine.connect() as connection, pytest.raises(IngestError, match="row 1"):
        ingest(connection, table.c.e, [(1, "x", VALUES)])  # type: ignore[list-item]


def test_columns_that_are_left_out_have_their_defaults(connection: Connection) -> None:
    """Where no row of the batch has them; a key of the database's own too."""

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(server_default="anonymous")
        e: Mapped[VectorArray] = matryoshka(8, Short(4))

    Base.metadata.create_all(connection)
    assert ingest(connection, Doc.e, [{"e": VALUES}, {"e": VALUES}]).rows == 2
    assert connection.execute(text("SELECT id, name FROM docs")).all() == [(1, "anonymous"), (2, "anonymous")]


def test_a_default_does_not_depend_on_the_batchs_other_rows(connection: Connection) -> None:
    """What a row does not name has its default though other rows name it; None is NULL."""
    table = docs()
    table.create(connection)
    connection.execute(text("ALTER TABLE docs ADD COLUMN n integer DEFAULT 7, ADD COLUMN m integer NOT NULL DEFAULT 8"))
    rows: list[dict[str, Any]] = [
        {"id": 1, "e": VALUES, "n": 1},
        {"id": 2, "e": VALUES},
        {"m": 2, "e": VALUES, "id": 3},
        {"id": 4, "n": None},
        {"id": 5, "n": 1, "e": VALUES},
    ]
    report = ingest(connection, table.c.e, rows)
    assert (report.rows, report.null_vectors, report.batches) == (5, 1, 1)
    found = connection.execute(text("SELECT id, n, m, e IS NULL FROM docs ORDER BY id")).all()
    assert found == [(1, 1, 8, False), (2, 7, 8, False), (3, 7, 2, False), (4, None, 8, True), (5, 1, 8, False)]


def test_a_bad_row_among_rows_of_other_columns_is_named(connection: Connection) -> None:
    """By its place in what was given, and all of the batch is taken back."""
    table = docs()
    table.create(connection)
    rows = [{"id": n, "e": VALUES, **({"name": "x"} if n % 2 else {})} for n in range(10)]
    rows[7]["id"] = 1
    with pytest.raises(IngestError, match=r"row 8 \(id=1\): duplicate key"):
        ingest(connection, table.c.e, rows)
    assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 0


class Mood(enum.Enum):
    """Whose labels in the database are its names."""

    happy = 1
    sad = 2


class Lower(TypeDecorator[str]):
    """A type of the application's own."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:  # noqa: ARG002
        """Small letters."""
        return str(value).lower()


def model(connection: Connection, *columns: Column[Any], short: Short | None = None) -> Table:
    """A table with more columns."""
    key: Column[Any] = Column("id", Integer, primary_key=True)
    table = Table("docs", MetaData(), key, *columns, Column("e", Matryoshka(8, short or Short(4))))
    table.create(connection)
    return table


def test_types_of_the_application(connection: Connection) -> None:
    """Enums and decorated types are sent as an INSERT of the model sends them."""
    table = model(connection, Column("mood", Enum(Mood)), Column("low", Lower))
    rows = [{"id": 1, "mood": Mood.sad, "low": "ABC", "e": VALUES}, {"id": 2, "mood": "happy", "low": None}]
    ingest(connection, table.c.e, rows)
    found = connection.execute(text("SELECT mood::text, low FROM docs ORDER BY id".replace(":", "\\:"))).all()
    assert found == [("sad", "abc"), ("happy", None)]
    assert connection.execute(table.select().with_only_columns(table.c.mood)).scalars().first() is Mood.sad
    with pytest.raises(IngestError, match=r'row 1 \(id=3\): invalid input value for enum mood: "angry"'):
        ingest(connection, table.c.e, [{"id": 3, "mood": "angry"}])


def test_defaults_in_python(connection: Connection) -> None:
    """COPY does not know them; a value made for each row, and NULL where NULL is given."""
    table = model(connection, Column("made", postgresql.UUID, default=uuid.uuid4), Column("kind", Text, default="new"))
    ingest(
        connection, table.c.e, [{"id": 1, "e": VALUES}, {"id": 2}, {"id": 3, "kind": None}, {"id": 4, "kind": "old"}]
    )
    found = connection.execute(text("SELECT made, kind FROM docs ORDER BY id")).all()
    assert len({made for made, _ in found}) == 4
    assert [kind for _, kind in found] == ["new", "new", None, "old"]


@pytest.mark.parametrize("default", [func.now(), lambda context: context.current_parameters["id"]])
def test_defaults_that_only_an_insert_can_make(connection: Connection, default: Any) -> None:
    """They are not silently NULL; a row that has a value needs none."""
    table = model(connection, Column("made", DateTime, default=default))
    assert ingest(connection, table.c.e, [{"id": 1, "e": VALUES, "made": dt.datetime(2024, 2, 29)}]).rows == 1
    with pytest.raises(IngestError, match=r"row 2 \(id=3\): column 'made' has a default that only an INSERT can make"):
        ingest(connection, table.c.e, [{"id": 2, "made": None}, {"id": 3}])


def test_the_callers_own_error_passes_through(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """An exception of the generator is not ours to rename; whole batches before it stay."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from numbered(vectors(7))
        raise LookupError("the file ends in the middle")

    with engine.connect() as connection:
        with pytest.raises(LookupError, match="in the middle") as caught:
            ingest(connection, table.c.e, rows(), batch_size=3)
        assert caught.value.__notes__ == ["6 rows had been written before."]
        assert not connection.in_transaction()
    assert ids() == [0, 1, 2, 3, 4, 5]


# -- memory --------------------------------------------------------------------------------------------------------


def test_rows_are_taken_a_batch_at_a_time(engine: Engine, table: Table) -> None:
    """Never more than a batch ahead of what is written."""
    taken, ahead = 0, []

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in numbered(vectors(20_000)):
            taken += 1
            yield row

    written: list[int] = []

    def progress(done: int) -> None:
        written.append(done)
        ahead.append(taken - done)

    with engine.connect() as connection:
        report = ingest(connection, table.c.e, rows(), batch_size=1_500, progress=progress)
    assert report.rows == 20_000
    assert report.batches == len(written) == 14
    assert written == [*range(1_500, 20_000, 1_500), 20_000]
    assert max(ahead) == 0


def test_memory_is_a_batch(engine: Engine, table: Table) -> None:
    """Twenty times the rows need no more of it."""

    def peak(count: int, start: int) -> int:
        rows = numbered((np.full(8, n + 1, np.float32) for n in range(count)), start)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        ingest(connection, table.c.e, rows, batch_size=500)
        return tracemalloc.get_traced_memory()[1] - before

    with engine.connect() as connection:
        ingest(connection, table.c.e, numbered(vectors(1), -1))  # what is made once and kept
        tracemalloc.start()
        try:
            small, large = peak(1_000, 0), peak(20_000, 1_000)
        finally:
            tracemalloc.stop()
    assert large < 1.5 * small


# -- rotations -----------------------------------------------------------------------------------------------------


@contextmanager
def counting(connection: Connection, table: Table) -> Iterator[list[int]]:
    """How often the server itself shortened a vector within the block."""
    triggers = (
        "SELECT DISTINCT tgfoid::regproc::text FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'docs'::regclass"
    )
    name = connection.exec_driver_sql(triggers).scalar_one()
    assert table.name in name
    connection.execute(text("SET LOCAL track_functions = 'all'"))
    calls = text("SELECT coalesce(pg_stat_get_xact_function_calls(CAST(:name AS regproc)), 0)")
    before = connection.execute(calls, {"name": name}).scalar_one()
    found: list[int] = []
    yield found
    found.append(connection.execute(calls, {"name": name}).scalar_one() - before)


def mismatches(connection: Connection, table: Table) -> int:
    """Rows whose short vector is further from the database's own computation than rounding explains."""
    definition = table.c.e.info["pgmrl"].definition
    short = definition.short_name("e")
    own = definition.sql("e")
    differs = f"({short} <-> {own}) > 0.002 * (1 + vector_norm({own}::vector))"
    query = f"SELECT count(*) FROM docs WHERE {differs} OR ({short} IS NULL) <> (e IS NULL)"
    return int(connection.execute(text(query.replace("::", "\\:\\:"))).scalar_one())


@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize("short", ["halfvec", "vector"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_shorts_by_the_client_are_the_databases(
    connection: Connection, small_rotation: Rotation, full: Any, short: Any, metric: Any
) -> None:
    """The trigger has nothing to do, and what is there is what it would have made."""
    database.install_rotation(connection, small_rotation)
    table = docs(Short(4, by=small_rotation, type=short), full=full, metric=metric)
    table.create(connection)
    given = [*vectors(50), None, np.zeros(8), *vectors(50, 1) * 100]
    with counting(connection, table) as calls:
        report = ingest(connection, table.c.e, numbered(given), batch_size=30)
    assert calls == [0]
    assert (report.rows, report.null_vectors) == (102, 1)
    assert mismatches(connection, table) == 0


def test_real_shorts_by_the_client_are_the_databases(
    connection: Connection, corpus: Corpus, rotation: Rotation
) -> None:
    """On 500 real vectors of 256 dimensions, every one compared."""
    database.install_rotation(connection, rotation)
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(256, Short(128, by=rotation), index=None)),
    )
    table.create(connection)
    rows = ({"id": n, "e": vector} for n, vector in enumerate(corpus.documents[:500]))
    with counting(connection, table) as calls:
        ingest(connection, table.c.e, rows, check_sample=500)
    assert calls == [0]
    assert mismatches(connection, table) == 0


def test_the_trigger_is_bypassed_for_the_batch_only(connection: Connection, rotated: Table) -> None:
    """A write that follows in the same transaction is kept in step, whichever way it writes."""
    ingest(connection, rotated.c.e, numbered(vectors(3)))
    connection.execute(text("INSERT INTO docs (id, e) VALUES (100, '[1,2,3,4,5,6,7,8]')"))
    connection.execute(text("UPDATE docs SET e = '[8,7,6,5,4,3,2,1]' WHERE id = 1"))
    assert mismatches(connection, rotated) == 0
    setting = "SELECT coalesce(current_setting('pgmrl.computed_by', true), '')"
    assert connection.execute(text(setting)).scalar_one() == ""


@pytest.mark.parametrize("at", ["client", "server"])
def test_the_trigger_is_not_bypassed_after_a_failure(connection: Connection, rotated: Table, at: str) -> None:
    """In the caller's transaction, which goes on after the savepoint was rolled back."""
    change: dict[str, Any] = {"name": 7} if at == "client" else {"id": 100}
    with pytest.raises(IngestError):
        ingest(connection, rotated.c.e, bad(change))
    connection.execute(text("INSERT INTO docs (id, e) VALUES (1, '[1,2,3,4,5,6,7,8]')"))
    assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 1
    assert mismatches(connection, rotated) == 0


@pytest.mark.parametrize("nested", [False, True])
def test_falsified_axes_write_nothing(
    engine: Engine, rotated: Table, ids: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    """The client's product is compared with the server's own, and loses."""
    with engine.connect() as connection:
        ingest(connection, rotated.c.e, numbered(vectors(3)))
        false = np.linalg.qr(np.random.default_rng(9).normal(size=(8, 8)))[0][:, :4].astype(np.float32)
        monkeypatch.setattr(shortening, "_projection", lambda _rotation, _dims: false)
        if nested:
            connection.execute(text("INSERT INTO docs (id) VALUES (50)"))
        with pytest.raises(IngestError, match=r"not those docs computes itself.*nothing of this batch was written"):
            ingest(connection, rotated.c.e, numbered(vectors(10), 10))
        connection.commit()
    assert ids() == ([0, 1, 2, 50] if nested else [0, 1, 2])


def test_one_false_vector_among_the_compared(engine: Engine, rotated: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single component that is wrong is found where its row is in the sample."""
    right = shortening._projection(rotated.c.e.info["pgmrl"].definition.short.by, 4)
    slightly = right.copy()
    slightly[0, 0] += 0.05
    monkeypatch.setattr(shortening, "_projection", lambda _rotation, _dims: slightly)
    with engine.connect() as connection, pytest.raises(IngestError, match="not those docs computes itself"):
        ingest(connection, rotated.c.e, numbered([np.eye(8)[0] * 3 + 1, *vectors(5)]), check_sample=100)


def test_without_axes_the_database_computes(connection: Connection, rotated: Table) -> None:
    """A rotation that is only pinned: the trigger shortens every row."""
    rule = rotated.c.e.info["pgmrl"].definition.short.by
    pinned = docs(Short(4, by=Rotation(rule.id)))
    with counting(connection, pinned) as calls:
        ingest(connection, pinned.c.e, numbered([*vectors(10), None]))
    assert calls == [11]
    assert mismatches(connection, pinned) == 0


def test_keys_of_the_databases_own_with_a_rotation(connection: Connection, small_rotation: Rotation) -> None:
    """Without a key in the rows nothing could be compared: the database computes."""
    database.install_rotation(connection, small_rotation)
    table = docs(Short(4, by=small_rotation))
    table.create(connection)
    with counting(connection, table) as calls:
        ingest(connection, table.c.e, ({"e": vector} for vector in vectors(10)))
    assert calls == [10]
    assert mismatches(connection, table) == 0


def test_bits_of_a_rotation(connection: Connection, small_rotation: Rotation) -> None:
    """Signs near zero are for one side to decide: the database."""
    database.install_rotation(connection, small_rotation)
    table = docs(Short(4, by=small_rotation, type="bit"))
    table.create(connection)
    ingest(connection, table.c.e, numbered(vectors(20)))
    definition = table.c.e.info["pgmrl"].definition
    wrong = f"SELECT count(*) FROM docs WHERE {definition.short_name('e')} <> {definition.sql('e')}"
    assert connection.execute(text(wrong.replace(":", "\\:"))).scalar_one() == 0


def test_a_rotation_of_another_table_is_kept_in_step(connection: Connection, rotated: Table) -> None:
    """A trigger of the application that writes elsewhere during the load does not inherit the bypass unnoticed."""
    rule = rotated.c.e.info["pgmrl"].definition.short.by
    other = docs(Short(4, by=Rotation(rule.id)), name="other")
    other.create(connection)
    connection.execute(
        text(
            "CREATE FUNCTION copy_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO other (id, e) VALUES (NEW.id, NEW.e); RETURN NEW; END $$"
        )
    )
    connection.execute(text("CREATE TRIGGER copies AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION copy_over()"))
    ingest(connection, rotated.c.e, numbered(vectors(5)))
    short = rotated.c[3].name
    assert connection.execute(text(f"SELECT count(*), count({short}) FROM other")).one() == (5, 5)


def test_an_update_by_another_trigger_is_kept_in_step(connection: Connection, rotated: Table) -> None:
    """The application replaces another row's vector while a batch is loaded."""
    ingest(connection, rotated.c.e, numbered(vectors(1)))
    connection.execute(
        text(
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "UPDATE docs SET e = '[8,-7,6,-5,4,-3,2,-1]' WHERE id = 0; RETURN NEW; END $$"
        )
    )
    connection.execute(text("CREATE TRIGGER touches AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION touch()"))
    ingest(connection, rotated.c.e, numbered(vectors(5), 1))
    assert mismatches(connection, rotated) == 0


OWN_CHANGES = [
    "NEW.e := NULL",
    "NEW.e := '[8,7,6,5,4,3,2,1]'",
    "NEW.id := NEW.id + 100; NEW.e := '[8,7,6,5,4,3,2,1]'",
    "IF NEW.id = 3 THEN RETURN NULL; END IF",
    "IF NEW.id = 777 THEN NEW.e := '[8,7,6,5,4,3,2,1]'; END IF",  # one of very many: in no sample
]


def change_rows(engine: Engine, change: str, table: str = "docs") -> None:
    """A trigger of the application's."""
    body = f"BEGIN {change}; RETURN NEW; END"
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$".replace(":", "\\:"))
        )
        connection.execute(text(f"CREATE TRIGGER a BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION own()"))


@pytest.mark.parametrize("change", OWN_CHANGES)
def test_a_trigger_that_changes_what_is_loaded(engine: Engine, rotated: Table, change: str) -> None:
    """The short vectors computed here would be of other rows: the database computes them."""
    change_rows(engine, change)
    with engine.begin() as connection:
        ingest(connection, rotated.c.e, numbered(vectors(1_000), 1))
        assert mismatches(connection, rotated) == 0
        assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 1_000 - ("NULL; END" in change)


def test_a_trigger_of_one_partition(engine: Engine, small_rotation: Rotation) -> None:
    """It changes some of the rows that are loaded into the whole."""
    table = docs(Short(4, by=small_rotation))
    table.dialect_options["postgresql"]["partition_by"] = "RANGE (id)"
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        connection.execute(CreateTable(table))
        for part in range(2):
            bounds = f"FROM ({part * 500}) TO ({(part + 1) * 500})"
            connection.execute(text(f"CREATE TABLE docs_{part} PARTITION OF docs FOR VALUES {bounds}"))
        definition = table.c.e.info["pgmrl"].definition
        connection.exec_driver_sql(create_short_sync_triggers(definition, None, "docs", "e"))
    change_rows(engine, "IF NEW.id = 777 THEN NEW.e := '[8,7,6,5,4,3,2,1]'; END IF", "docs_1")
    with engine.begin() as connection:
        ingest(connection, table.c.e, numbered(vectors(1_000)))
        assert mismatches(connection, table) == 0


@pytest.mark.parametrize("change", OWN_CHANGES[:4])
def test_a_trigger_that_is_made_meanwhile(
    engine: Engine, rotated: Table, ids: Callable[[], list[int]], change: str
) -> None:
    """Refused by the sample, with what to do, and that works."""

    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": 0, "e": VALUES}
        change_rows(engine, change)
        yield from numbered(vectors(5), 1)

    with engine.connect() as connection, pytest.raises(IngestError, match=r"of this batch was written"):
        ingest(connection, rotated.c.e, rows(), batch_size=1)
    assert ids() in ([0], [0, 1, 2])  # up to the row that it swallows
    rule = rotated.c.e.info["pgmrl"].definition.short.by
    with engine.begin() as connection:
        ingest(connection, docs(Short(4, by=Rotation(rule.id))).c.e, numbered(vectors(5), 11))
        assert mismatches(connection, rotated) == 0


def test_a_rotation_that_nothing_keeps(connection: Connection, small_rotation: Rotation) -> None:
    """Rows without a short vector are found by no search: said before anything is written."""
    pinned = docs(Short(4, by=Rotation(small_rotation.id)))
    connection.execute(text("CREATE TABLE docs (id integer PRIMARY KEY, name text, e halfvec(8))"))
    assert ingest(connection, pinned.c.e, numbered(vectors(1))).rows == 1  # the migration fills it
    with pytest.raises(NotMigrated, match=rf"docs has no column {pinned.c[3].name}: run the migration"):
        ingest(connection, docs(Short(4, by=small_rotation)).c.e, numbered(vectors(1), 1))
    connection.execute(text(f"ALTER TABLE docs ADD COLUMN {pinned.c[3].name} halfvec(4)"))
    for short in (Rotation(small_rotation.id), small_rotation):
        with pytest.raises(NotMigrated, match=rf"nothing keeps docs\.{pinned.c[3].name} in step"):
            ingest(connection, docs(Short(4, by=short)).c.e, numbered(vectors(1), 1))
    assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 1


@pytest.mark.parametrize("keys", ["uuid", "composite"])
def test_keys_of_other_kinds_with_a_rotation(connection: Connection, small_rotation: Rotation, keys: str) -> None:
    """They find the rows that are compared."""
    database.install_rotation(connection, small_rotation)
    columns: list[Column[Any]] = (
        [Column("k", postgresql.UUID, primary_key=True)]
        if keys == "uuid"
        else [Column("a%s", Integer, primary_key=True), Column("b", Text, primary_key=True)]
    )
    table = Table("docs", MetaData(), *columns, Column("e", Matryoshka(8, Short(4, by=small_rotation))))
    table.create(connection)
    given = vectors(30)
    rows: list[dict[str, Any]] = [
        {"k": uuid.UUID(int=n), "e": v} if keys == "uuid" else {"a%s": n % 5, "b": f"%{n}", "e": v}
        for n, v in enumerate(given)
    ]
    with counting(connection, table) as calls:
        assert ingest(connection, table.c.e, rows).rows == 30
    assert calls == [0]
    assert mismatches(connection, table) == 0


# -- connections ---------------------------------------------------------------------------------------------------


def test_a_connection_outside_a_transaction(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """Each batch is committed, and nothing is left open."""
    seen: list[int] = []
    with engine.connect() as connection:
        ingest(connection, table.c.e, numbered(vectors(6)), batch_size=2, progress=lambda _: seen.append(len(ids())))
        assert not connection.in_transaction()
        assert connection.execute(text("SELECT count(*) FROM docs")).scalar_one() == 6
    assert seen == [2, 4, 6]


def test_a_connection_in_a_transaction(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """What the caller rolls back is gone with all batches."""
    with engine.connect() as connection:
        with connection.begin() as transaction:
            ingest(connection, table.c.e, numbered(vectors(6)), batch_size=2)
            assert ids() == []
            transaction.rollback()
        assert ids() == []
        with connection.begin():
            connection.execute(text("INSERT INTO docs (id) VALUES (50)"))
            ingest(connection, table.c.e, numbered(vectors(6)), batch_size=2)
        assert ids() == [0, 1, 2, 3, 4, 5, 50]


def test_a_failed_batch_leaves_the_callers_transaction_usable(
    engine: Engine, table: Table, ids: Callable[[], list[int]]
) -> None:
    """Earlier batches and the caller's own writes can still be committed."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO docs (id) VALUES (50)"))
        with pytest.raises(IngestError, match="id=100"):
            ingest(connection, table.c.e, bad({"id": 100}), batch_size=5)
        connection.execute(text("INSERT INTO docs (id) VALUES (51)"))
    assert ids() == [50, 51, 100, 101, 102, 103, 104]


def test_a_connection_in_a_savepoint(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """The caller's savepoint can be rolled back."""
    with engine.begin() as connection:
        ingest(connection, table.c.e, numbered(vectors(1), 10))
        nested = connection.begin_nested()
        ingest(connection, table.c.e, numbered(vectors(6)), batch_size=2)
        nested.rollback()
    assert ids() == [10]


def test_a_connection_that_commits_by_itself(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """Batches are whole all the same."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(IngestError):
            ingest(connection, table.c.e, bad({"id": 100}), batch_size=5)
    assert ids() == [100, 101, 102, 103, 104]


def test_a_session(engine: Engine, table: Table, ids: Callable[[], list[int]]) -> None:
    """It is always in a transaction: the caller's commit decides."""
    with Session(engine) as session:
        ingest(session, table.c.e, numbered(vectors(6)), batch_size=2)
        session.rollback()
        assert ids() == []
        ingest(session, table.c.e, numbered(vectors(6)), batch_size=2)
        assert ids() == []
        session.commit()
    assert ids() == [0, 1, 2, 3, 4, 5]


def test_psycopg_itself(database_url: str, table: Table, ids: Callable[[], list[int]]) -> None:
    """Outside a transaction, in one, and in autocommit."""
    with raw(database_url) as driver:
        ingest(driver, table.c.e, numbered(vectors(2)))
        assert ids() == [0, 1]
        driver.execute("SELECT 1")
        ingest(driver, table.c.e, numbered(vectors(2), 10))
        driver.rollback()
        assert ids() == [0, 1]
        driver.autocommit = True
        with pytest.raises(IngestError):
            ingest(driver, table.c.e, bad({"id": 100}), batch_size=5)
        assert ids() == [0, 1, 100, 101, 102, 103, 104]
        with driver.transaction(force_rollback=True):
            ingest(driver, table.c.e, numbered(vectors(2), 20))
        assert ids() == [0, 1, 100, 101, 102, 103, 104]


def test_psycopg_with_rows_of_another_form(database_url: str, rotated: Table, ids: Callable[[], list[int]]) -> None:
    """A `row_factory` of the caller's makes no difference."""
    with raw(database_url, row_factory=psycopg.rows.dict_row) as driver:
        assert ingest(driver, rotated.c.e, numbered(vectors(5))).rows == 5
    assert ids() == [0, 1, 2, 3, 4]


async def test_an_asynchronous_connection_is_refused(database_url: str, table: Table) -> None:
    """Its COPY has to be awaited: one error that says which connection to use."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            with pytest.raises(WrongConnection, match="not asynchronous"):
                await connection.run_sync(lambda inner: ingest(inner, table.c.e, numbered(vectors(1))))
    finally:
        await engine.dispose()


@pytest.mark.parametrize("kind", ["SQLAlchemy", "psycopg"])
@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_a_connection_killed_in_the_middle(
    engine: Engine,
    database_url: str,
    ids: Callable[[], list[int]],
    request: pytest.FixtureRequest,
    by: str,
    kind: str,
) -> None:
    """One clear error; nothing of the batch, earlier batches stay, and the table can be loaded on."""
    table: Table = request.getfixturevalue("table" if by == "prefix" else "rotated")
    other = create_engine(database_url)
    driver = raw(database_url)
    connection = engine.connect()
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    connection.rollback()

    def rows() -> Iterator[dict[str, Any]]:
        for n, row in enumerate(numbered(vectors(9))):
            if n == 5:
                with other.connect() as killer:
                    victim = pid if kind == "SQLAlchemy" else driver.info.backend_pid
                    assert killer.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": victim}).scalar()
            yield row

    with pytest.raises(IngestError, match=r"terminat|closed|connection"):
        ingest(connection if kind == "SQLAlchemy" else driver, table.c.e, rows(), batch_size=3)
    connection.invalidate()
    connection.close()
    driver.close()
    other.dispose()
    assert ids() == [0, 1, 2]
    with engine.connect() as again:
        ingest(again, table.c.e, numbered(vectors(6), 3))
    assert ids() == list(range(9))


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_two_loaders_at_once(
    engine: Engine, ids: Callable[[], list[int]], request: pytest.FixtureRequest, by: str
) -> None:
    """Neither waits for the other nor loses a row."""
    table: Table = request.getfixturevalue("table" if by == "prefix" else "rotated")
    start = threading.Barrier(2)
    failed: list[BaseException] = []

    def load(first: int) -> None:
        try:
            with engine.connect() as connection:
                start.wait()
                ingest(connection, table.c.e, numbered(vectors(1_000), first), batch_size=100)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=load, args=(first,)) for first in (0, 1_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert ids() == list(range(2_000))
    if by == "rotation":
        with engine.connect() as connection:
            assert mismatches(connection, table) == 0


# -- places and names ----------------------------------------------------------------------------------------------


def test_a_table_that_is_not_there(engine: Engine) -> None:
    """Also in another schema than the one it is in."""
    with engine.begin() as connection:
        docs().create(connection)
    with engine.connect() as connection:
        with pytest.raises(NotMigrated, match=r"elsewhere\.docs.*migrations"):
            ingest(connection, docs(schema="elsewhere").c.e, numbered(vectors(1)))
        with pytest.raises(NotMigrated, match="no table other"):
            ingest(connection, docs(name="other").c.e, numbered(vectors(1)))


def test_a_vector_column_that_is_not_there(engine: Engine) -> None:
    """A table from before the migration."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE docs (id integer PRIMARY KEY, name text)"))
    with engine.connect() as connection, pytest.raises(NotMigrated, match="no vector column e"):
        ingest(connection, docs().c.e, numbered(vectors(1)))


@pytest.mark.parametrize("dims", [4, 9])
def test_a_table_of_other_dimensions(engine: Engine, dims: int) -> None:
    """The model says eight, the database does not."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE docs (id integer PRIMARY KEY, name text, e halfvec({dims}))"))
    with engine.connect() as connection, pytest.raises(PgmrlError, match=f"{dims} dimensions"):
        ingest(connection, docs().c.e, numbered(vectors(1)))


@pytest.mark.parametrize(
    "hostile", ['a"b', "50% :off", "%s", "%(x)s", "naïve 表", "select", "it's", "a.b", "x:y::z", "\\n"]
)
@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_hostile_names(connection: Connection, small_rotation: Rotation, hostile: str, by: str) -> None:
    """Of schema, table, key, column and vector."""
    if by == "rotation":
        database.install_rotation(connection, small_rotation)
    quoted = '"' + hostile.replace('"', '""') + '"'
    connection.exec_driver_sql(f"CREATE SCHEMA {quoted}".replace("%", "%%"))
    table = Table(
        hostile,
        MetaData(schema=hostile),
        Column(hostile, Integer, primary_key=True),
        Column(hostile + "n", Text),
        Column(hostile + "e", Matryoshka(8, Short(4, by=small_rotation) if by == "rotation" else Short(4))),
    )
    table.create(connection)
    rows = [{hostile: n, hostile + "n": hostile, hostile + "e": v} for n, v in enumerate(vectors(5))]
    assert ingest(connection, table.c[hostile + "e"], rows).rows == 5
    assert connection.execute(table.select().with_only_columns(table.c[hostile + "n"])).scalars().all() == [hostile] * 5
    with pytest.raises(IngestError) as caught:
        ingest(connection, table.c[hostile + "e"], rows)
    assert hostile in str(caught.value)


@pytest.mark.parametrize("kind", [postgresql.REAL, postgresql.DOUBLE_PRECISION])
def test_a_side_table(connection: Connection, kind: Any) -> None:
    """Rows go to the application's table in its own precision; the side table is filled by its trigger."""
    from pgvector.sqlalchemy import VECTOR  # noqa: PLC0415

    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("score", kind),
        Column("e", VECTOR(8)),
    )
    side = add_side_table(table.c.e, Short(4))
    table.metadata.create_all(connection)
    report = ingest(connection, table.c.e, [{"id": n, "score": n / 2, "e": v} for n, v in enumerate(vectors(5))])
    assert report.rows == 5
    joined = (
        f"SELECT count(*), count(s.e_short_4), max((d.e <-> s.e::vector)) FROM docs d JOIN {side.name} s USING (id)"
    )
    count, shorts, error = connection.execute(text(joined.replace(":", "\\:"))).one()
    assert (count, shorts) == (5, 5)
    assert error < 0.01
    exact = connection.execute(table.select().with_only_columns(table.c.e).where(table.c.id == 3)).scalar_one()
    np.testing.assert_array_equal(np.asarray(exact, np.float32), vectors(5)[3])


def test_a_side_table_of_less_range(connection: Connection) -> None:
    """The copy in half precision could not hold it: the row is named."""
    from pgvector.sqlalchemy import VECTOR  # noqa: PLC0415

    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", VECTOR(8)))
    add_side_table(table.c.e, Short(4))
    table.metadata.create_all(connection)
    rows = [{"id": 1, "e": VALUES}, {"id": 2, "e": [70_000.0, *VALUES[1:]]}]
    with pytest.raises(IngestError, match=r"row 2 \(id=2\): .*half precision"):
        ingest(connection, table.c.e, rows)


def test_a_side_table_of_a_rotation(connection: Connection, small_rotation: Rotation) -> None:
    """Two triggers one after the other."""
    from pgvector.sqlalchemy import HALFVEC  # noqa: PLC0415

    database.install_rotation(connection, small_rotation)
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", HALFVEC(8)))
    side = add_side_table(table.c.e, Short(4, by=small_rotation))
    table.metadata.create_all(connection)
    ingest(connection, table.c.e, [{"id": n, "e": v} for n, v in enumerate([*vectors(5), None])])
    short = side.c[2].name
    counted = connection.execute(text(f"SELECT count(*), count({short}) FROM {side.name}")).one()
    assert counted[1] == 5


def test_a_partitioned_table(connection: Connection) -> None:
    """Rows find their partition; the parent is what is named."""
    connection.execute(
        text(
            "CREATE TABLE docs (id integer PRIMARY KEY, name text, e halfvec(8)) PARTITION BY RANGE (id);"
            "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (5);"
            "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (5) TO (10)"
        )
    )
    assert ingest(connection, docs().c.e, numbered(vectors(10))).rows == 10
    assert connection.execute(text("SELECT count(*) FROM docs_2")).scalar_one() == 5
