"""Vectors as they are read: every type, NULLs, batches of every size, keys of any type, any kind of connection."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import BigInteger, Column, Enum, Integer, MetaData, Numeric, Table, Uuid, column, func, select, table
from sqlalchemy.dialects.postgresql import ARRAY, CITEXT
from sqlalchemy.ext.asyncio import create_async_engine

from pgmrl import Hnsw, Matryoshka, Short, database
from pgmrl.database import vector_reader
from pgmrl.database.vector_reader import VectorType, batch_rows, binary_column, binary_sql, read_vectors
from pgmrl.measure import measure_recall

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from pgmrl.model.metrics import ShortType

ROWS, DIMS = 23, 9


@pytest.fixture(scope="module")
def vectors(module_engine: Engine) -> Any:
    """Numbers that half precision holds, in a table that has them in every type; every fifth row without bits."""
    rows = np.random.default_rng(0).normal(size=(ROWS, DIMS)).astype(np.float16).astype(np.float32)
    with module_engine.begin() as connection:
        connection.exec_driver_sql(
            f'CREATE TABLE "My :t %%s" (id int PRIMARY KEY, "halfvec" halfvec({DIMS}), "vector" vector({DIMS}), '
            f'"bit" bit({DIMS}))'
        )
        for number, row in enumerate(rows):
            text = "[" + ",".join(map(str, row.tolist())) + "]"
            bits = None if number % 5 == 0 else "".join("1" if value > 0 else "0" for value in row)
            connection.exec_driver_sql(
                'INSERT INTO "My :t %%s" VALUES '
                "(%(id)s, %(v)s::text::halfvec, %(v)s::text::vector, %(b)s::text::bit(9))",
                {"id": number, "v": text, "b": bits},
            )
    return rows


def read(connection: Connection, statement: Any, *types: VectorType, rows: int) -> list[Any]:
    """All batches."""
    with closing(read_vectors(connection, statement, types, rows=rows)) as batches:
        return list(batches)


@pytest.mark.parametrize("rows", [*range(1, ROWS + 2)])
def test_every_type_in_batches_of_every_size(module_engine: Engine, vectors: Any, rows: int) -> None:
    """By text and by a Select; of a name that looks like a parameter."""
    kinds: list[ShortType] = ["halfvec", "vector", "bit"]
    source = table("My :t %s", column("id", Integer), *map(column, kinds))
    made = select(source.c.id, *(binary_column(kind, source.c[kind], None) for kind in kinds)).order_by(source.c.id)
    columns = ", ".join(binary_sql(kind, f'"{kind}"', None) for kind in kinds)
    types = [VectorType(kind, DIMS) for kind in kinds]
    with module_engine.connect() as connection:
        for statement in (made, f'SELECT id, {columns} FROM "My :t %s" ORDER BY id'):
            batches = read(connection, statement, *types, rows=rows)
            assert {len(batch.vectors[0]) for batch in batches[:-1]} <= {rows}
            assert [number for batch in batches for number in batch.columns[0]] == list(range(ROWS))
            for place, expected in enumerate((vectors, vectors, vectors > 0)):
                there = np.concatenate([batch.present[place] for batch in batches])
                assert there.tolist() == [place < 2 or number % 5 > 0 for number in range(ROWS)]
                found = np.concatenate([batch.vectors[place] for batch in batches])
                assert np.array_equal(found[there], expected[there])
                assert not found[~there].any()


def test_no_rows(module_engine: Engine, vectors: Any) -> None:
    """No batch."""
    assert len(vectors) == ROWS
    with module_engine.connect() as connection:
        statement = f'SELECT {binary_sql("halfvec", "halfvec", None)} FROM "My :t %s" WHERE false'
        assert read(connection, statement, VectorType("halfvec", DIMS), rows=5) == []


@pytest.mark.parametrize("autocommit", [True, False])
def test_reading_that_ends_early_leaves_nothing_behind(module_engine: Engine, vectors: Any, autocommit: bool) -> None:
    """No cursor, and results as they were before: as text."""
    assert len(vectors) == ROWS
    level: Any = "AUTOCOMMIT" if autocommit else "REPEATABLE READ"
    statement = f'SELECT id, {binary_sql("halfvec", "halfvec", None)} FROM "My :t %s"'
    with (
        module_engine.connect().execution_options(isolation_level=level) as connection,
        database.snapshot(connection),
    ):
        with closing(read_vectors(connection, statement, [VectorType("halfvec", DIMS)], rows=3)) as batches:
            assert len(next(batches).vectors[0]) == 3
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_cursors").scalar() == 0
        assert isinstance(connection.exec_driver_sql("SELECT ctid FROM pg_class LIMIT 1").scalar(), str)


async def test_an_asynchronous_connection(module_database_url: str, vectors: Any) -> None:
    """Through run_sync."""
    engine = create_async_engine(module_database_url)
    statement = f'SELECT {binary_sql("vector", "vector", None)} FROM "My :t %s" ORDER BY id'

    def all_of(connection: Connection) -> Any:
        return read(connection, statement, VectorType("vector", DIMS), rows=10)

    async with engine.connect() as connection:
        batches = await connection.run_sync(all_of)
    await engine.dispose()
    assert np.array_equal(np.concatenate([batch.vectors[0] for batch in batches]), vectors)


def test_a_batch_fits_memory() -> None:
    """Of many dimensions or queries fewer rows come at a time, but some."""
    assert batch_rows(768) == vector_reader.ROWS
    assert batch_rows(16_000) == vector_reader.VALUES // 16_000
    assert batch_rows(16, 4_000, 8_000_000) == 2_000
    assert batch_rows(16, 10_000_000) == vector_reader.FEWEST


KEYS = {
    "an array": (ARRAY(Integer), "ARRAY[n]"),
    "citext": (CITEXT(), "'Key ' || n"),
    "an enum": (Enum(*(f"e{n}" for n in range(300)), name="kinds"), "('e' || n)::kinds"),
    "a number": (Numeric(), "n + 0.5"),
    "a uuid": (Uuid(), "md5(n::text)::uuid"),
    "a bigint": (BigInteger(), "n + 5000000000"),
}


@pytest.mark.parametrize(("kind", "value"), KEYS.values(), ids=KEYS)
def test_recall_by_keys_of_any_type(engine: Engine, kind: Any, value: str) -> None:
    """A row is known again by its key, also where psycopg can read that as text alone: nothing is lost here."""
    items = Table(
        "items",
        MetaData(),
        Column("key", kind, primary_key=True, autoincrement=False),
        Column("embedding", Matryoshka(8, Short(8), index=Hnsw())),
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS citext")
        items.metadata.create_all(connection)
        database.execute_plain(
            connection,
            f"INSERT INTO items (key, embedding) SELECT {value}, ARRAY[sin(n), cos(n), sin(2 * n), cos(3 * n), "
            "sin(5 * n), cos(7 * n), sin(11 * n), 0.5]::vector FROM generate_series(0, 299) AS n",
        )
        found = measure_recall(connection, items.c.embedding, queries=20, shortlist=299)
        assert connection.execute(select(func.count()).select_from(items)).scalar() == 300
    assert found.recall.mean == 1
    assert {loss.returned for loss in found.losses} == {10}
    assert found.truncation == found.ann == 0
