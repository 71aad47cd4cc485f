"""The same searches over every driver of SQLAlchemy's for PostgreSQL: the same rows, and nothing set up for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    bindparam,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.ext.asyncio import create_async_engine

from pgmrl import (
    Matryoshka,
    Short,
    compile_sql,
    database,
    ingest,
    more_like_this,
    search,
    search_diverse,
    search_groups,
    search_many,
)
from pgmrl.errors import SearchError, WrongConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgmrl.model.rotation import Rotation
    from tests.corpus import Corpus

DIMS = 64
ROWS = 600
DRIVERS = ("psycopg", "psycopg2", "pg8000", "asyncpg", "psycopg_async")


def table_of(rotation: Rotation | None = None) -> Table:
    """A table of vectors with a number to filter and group by."""
    short = Short(16) if rotation is None else Short(4, by=rotation)
    return Table(
        "notes",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("part", Integer),
        Column("embedding", Matryoshka(DIMS if rotation is None else 8, short)),
    )


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest, database_url: str) -> Iterator[Any]:
    """Calls a function with a connection through this driver, whose transaction is committed."""
    driver = request.param
    if driver not in {"psycopg", "psycopg_async"}:
        pytest.importorskip(driver)
    # pgmrl's test server listens on a socket, which each driver names in its own way
    url = database.sqlalchemy_url(database_url).replace("+psycopg:", f"+{driver}:")
    options: dict[str, Any] = {}
    if driver == "pg8000" and (socket := socket_of(database_url)) is not None:
        options = {"connect_args": {"unix_sock": socket}}
        url = url.partition("?")[0]
    if driver in {"asyncpg", "psycopg_async"}:

        def through(function: Callable[[Connection], Any]) -> Any:
            async def work() -> Any:
                engine = create_async_engine(url, **options)
                try:
                    async with engine.begin() as connection:
                        return await connection.run_sync(function)
                finally:
                    await engine.dispose()

            return asyncio.run(work())

        yield through
        return
    engine = create_engine(url, **options)

    def directly(function: Callable[[Connection], Any]) -> Any:
        with engine.begin() as connection:
            return function(connection)

    yield directly
    engine.dispose()


def socket_of(url: str) -> str | None:
    """The path of the server's socket; None where it is reached by TCP."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        folder, port = connection.info.host, connection.info.port
    return f"{folder}/.s.PGSQL.{port}" if folder.startswith("/") else None


def shapes_of(table: Table, queries: Any) -> dict[str, Any]:
    """A search of each shape."""
    embedding, ids = table.c.embedding, select(table.c.id)
    return {
        "plain": search(ids, embedding, queries[0]),
        "exact": search(ids, embedding, queries[0], exact=True),
        "filtered": search(ids.where(table.c.part == 3), embedding, queries[0], counts=True, similarity="score"),
        "page": search(ids, embedding, queries[0], k=5, offset=5),
        "near": search(ids, embedding, queries[0], max_distance=0.9),
        "many": search_many(ids, embedding, queries, k=4),
        "like": search(ids, embedding, more_like_this(embedding, [5, 9], unlike=[2])),
        "groups": search_groups(ids, embedding, queries[0], by=table.c.part, k=3, per_group=2),
        "diverse": search_diverse(ids, embedding, queries[0], k=4),
        "expression": search(ids, embedding, select(embedding).where(table.c.id == 8).scalar_subquery()),
    }


def test_every_shape(run: Any, engine: Engine, corpus: Corpus) -> None:
    """What psycopg gives, the others give."""
    table = table_of()
    vectors, queries = corpus.documents[:ROWS, :DIMS], corpus.queries[:3, :DIMS]
    rows = [{"id": n, "part": n % 7, "embedding": vector} for n, vector in enumerate(vectors)]

    def write(connection: Connection) -> None:
        table.create(connection)
        connection.execute(insert(table), rows)

    run(write)
    shapes = shapes_of(table, queries) | {
        "average": select(func.avg(table.c.embedding)),
        "vectors": select(table.c.embedding, table.c.embedding.l1_distance(queries[0])).where(table.c.id < 3),
    }
    later = search(select(table.c.id), table.c.embedding, bindparam("query"))
    with engine.connect() as connection:
        for name, statement in shapes.items():
            expected = connection.execute(statement).all()
            for row, other in zip(run(lambda c, s=statement: c.execute(s).all()), expected, strict=True):
                for value, of_psycopg in zip(row, other, strict=True):
                    np.testing.assert_allclose(value, of_psycopg, rtol=1e-6, atol=1e-6, err_msg=name)
        expected = connection.execute(later, {"query": queries[1]}).all()
    assert [row.id for row in run(lambda c: c.execute(later, {"query": queries[1]}).all())] == [
        row.id for row in expected
    ]


def test_every_shape_over_a_plain_connection_of_asyncpg(engine: Engine, database_url: str, corpus: Corpus) -> None:
    """By text and numbered parameters, with no codec set on the connection; also of a list of values."""
    asyncpg = pytest.importorskip("asyncpg")
    table, queries = table_of(), corpus.queries[:3, :DIMS]
    vectors = enumerate(corpus.documents[:ROWS, :DIMS])
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [{"id": n, "part": n % 7, "embedding": vector} for n, vector in vectors])
        some = search(select(table.c.id).where(table.c.id.in_(range(40))), table.c.embedding, queries[0])
        shapes = shapes_of(table, queries) | {"list": some}
        expected = {name: [tuple(row) for row in connection.execute(shape)] for name, shape in shapes.items()}

    async def work() -> dict[str, list[tuple[Any, ...]]]:
        plain = await asyncpg.connect(database_url.replace("+psycopg", ""))
        try:
            sent = {name: compile_sql(shape, "asyncpg") for name, shape in shapes.items()}
            return {
                name: [tuple(row) for row in await plain.fetch(sql.text, *sql.params)] for name, sql in sent.items()
            }
        finally:
            await plain.close()

    got = asyncio.run(work())
    for name, rows in expected.items():
        for row, other in zip(got[name], rows, strict=True):
            np.testing.assert_allclose(row, other, rtol=1e-6, atol=1e-6, err_msg=name)
    with pytest.raises(SearchError, match="driver='oracle': expected one of psycopg, asyncpg"):
        compile_sql(some, "oracle")  # type: ignore[call-overload]


def test_a_rotation(run: Any, small_rotation: Rotation) -> None:
    """The client shortens, with the query at hand, with one that comes later, and with many."""
    table = table_of(small_rotation)
    vectors = np.random.default_rng(5).normal(size=(200, 8)).astype(np.float32)

    def ask(connection: Connection) -> tuple[list[int], list[int], list[Any], list[Any]]:
        database.install_rotation(connection, small_rotation)
        table.create(connection)
        connection.execute(insert(table), [{"id": n, "part": 0, "embedding": v} for n, v in enumerate(vectors)])
        now = search(select(table.c.id), table.c.embedding, vectors[4], k=3)
        later = search(select(table.c.id), table.c.embedding, bindparam("q"), k=3)
        # of the row nearest by its short vector alone, so that a wrong one would show
        alone: dict[str, Any] = {"k": 1, "shortlist": 1, "complete": False}
        many = search_many(select(table.c.id), table.c.embedding, vectors[:20] + 1, **alone)
        each = [search(select(table.c.id), table.c.embedding, vector + 1, **alone) for vector in vectors[:20]]
        return (
            list(connection.execute(now).scalars()),
            list(connection.execute(later, {"q": vectors[4]}).scalars()),
            [(row[0], row[2]) for row in connection.execute(many)],
            [tuple(connection.execute(single).one()) for single in each],
        )

    now, later, many, each = run(ask)
    assert now == later
    assert now[0] == 4
    assert many == each


def test_what_needs_psycopg_says_so(run: Any, request: pytest.FixtureRequest) -> None:
    """COPY does, and refuses before it writes."""
    driver = request.node.callspec.params["run"]
    table = table_of()
    run(table.create)
    rows = [{"id": 1, "part": 1, "embedding": np.ones(DIMS)}]
    if driver == "psycopg":
        run(lambda c: ingest(c, table.c.embedding, rows))
    else:
        with pytest.raises(WrongConnection, match="psycopg 3"):
            run(lambda c: ingest(c, table.c.embedding, rows))
    assert run(lambda c: c.execute(select(func.count()).select_from(table)).scalar()) == (driver == "psycopg")


def test_an_engine_made_and_used_before_pgmrl_is_imported(database_url: str) -> None:
    """As every application's db.py does; its open connection, too, can write and search."""
    program = f"""
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
engine = create_engine({database_url!r})
connection = engine.connect()
connection.exec_driver_sql("SELECT 1")
import numpy as np
from pgmrl import Matryoshka, Short, search, search_many
table = Table("early", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
table.create(connection)
connection.execute(table.insert(), [{{"id": i, "e": v}} for i, v in enumerate(np.eye(8) + 1)])
print(connection.execute(search(select(table.c.id), table.c.e, np.eye(8)[1] + 1, k=1)).all())
print(connection.execute(search_many(select(table.c.id), table.c.e, np.eye(8)[2:4] + 1, k=1)).all())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.stdout.splitlines() == ["[(1, 0.0)]", "[(2, 0, 0.0), (3, 1, 0.0)]"], done.stderr


@pytest.mark.parametrize("factory", [psycopg.ClientCursor, psycopg.Cursor])
def test_cursors_of_psycopg(database_url: str, factory: Any) -> None:
    """A cursor that puts parameters into the text itself gets vectors as literals."""
    engine = create_engine(database_url, connect_args={"cursor_factory": factory})
    table = table_of()
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(
            insert(table), [{"id": n, "part": 0, "embedding": v} for n, v in enumerate(np.eye(DIMS) + 1)]
        )
        nearest = search_many(select(table.c.id), table.c.embedding, np.eye(DIMS)[5:7] + 1, k=1)
        assert [row.id for row in connection.execute(nearest)] == [5, 6]
        server_side = connection.execution_options(stream_results=True)
        assert (
            server_side.execute(search(select(table.c.id), table.c.embedding, np.eye(DIMS)[3] + 1)).scalars().first()
            == 3
        )
    engine.dispose()


def test_an_upsert(run: Any) -> None:
    """ON CONFLICT with the vector among the columns."""
    table = table_of()

    def upsert(connection: Connection) -> Any:
        table.create(connection, checkfirst=True)
        made = postgresql_insert(table).values(id=1, part=1, embedding=np.ones(DIMS))
        connection.execute(
            made.on_conflict_do_update(index_elements=["id"], set_={"embedding": made.excluded.embedding})
        )
        return connection.execute(select(table.c.embedding)).scalar()

    run(upsert)
    np.testing.assert_array_equal(run(upsert), np.ones(DIMS, np.float32))
