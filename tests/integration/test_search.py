"""Searches on 20,000 real vectors: plans, numbers of rows, the truth, what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import bindparam, create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgmrl.measure import recall_at_k
from pgmrl.model.metrics import METRICS
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.integration.conftest import Plan, Shop
else:
    Connection = Plan = Shop = Any

INDEX = "packages_embedding_short_64_hnsw"


def index_of(nodes: list[dict[str, Any]]) -> list[str]:
    """The indexes a plan reads."""
    return [node["Index Name"] for node in nodes if "Index Name" in node]


def truth(shop: Shop, query: Any, k: int = 10, where: Any = None) -> list[int]:
    """The numbers of the k nearest packages, by NumPy."""
    numbers = np.arange(len(shop.documents)) if where is None else np.flatnonzero(where(np.arange(len(shop.documents))))
    distances = METRICS["cosine"].distances(shop.documents[numbers], query.astype(np.float16).astype(np.float32))
    return [int(n) for n in numbers[np.argsort(distances, kind="stable")[:k]]]


# -- plans ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shortlist": 400}, {"shortlist": 3000}, {"k": 100}])
def test_the_short_index_is_used(shop: Shop, plan: Plan, options: dict[str, Any]) -> None:
    """With bind parameters and no enable_* switch; the payload is read by key."""
    package = shop.package
    with shop.engine.connect() as connection:
        nodes = plan(connection, search(select(package), package.embedding, shop.queries[0], **options))
    assert index_of(nodes).count(INDEX) == 1
    assert [node["Node Type"] for node in nodes].count("Seq Scan") == 1  # of the exact fallback


def test_the_short_index_is_used_for_many_queries(shop: Shop, plan: Plan) -> None:
    """One scan for each, in a lateral join."""
    package = shop.package
    with shop.engine.connect() as connection:
        nodes = plan(connection, search_many(select(package), package.embedding, shop.queries[:5]))
    assert INDEX in index_of(nodes)


def test_the_short_index_is_used_by_a_generic_plan(shop: Shop) -> None:
    """A driver that prepares statements gets one after a few executions."""
    package = shop.package
    text, params = compile_sql(search(select(package.id), package.embedding, shop.queries[0]))
    with shop.engine.connect() as connection:
        cursor: Any = connection.connection.cursor()
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        first = cursor.execute(text, params).fetchall()
        for _ in range(7):  # psycopg prepares after five
            assert cursor.execute(text, params, prepare=True).fetchall() == first
        prepared = cursor.execute(
            "SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%pgmrl_results%'"
        )
        assert prepared.fetchone()[0] >= 7
        explained = cursor.execute(f"EXPLAIN {text}", params, prepare=True).fetchall()
    assert any(INDEX in line for (line,) in explained)


def test_the_generic_plan_of_a_prepared_statement(shop: Shop) -> None:
    """As EXPLAIN (GENERIC_PLAN) shows it, every vector unknown."""
    package = shop.package
    text, params = compile_sql(search(select(package.id), package.embedding, shop.queries[0]))
    numbered = text % {name: f"${n}" for n, name in enumerate(params, 1)}
    with shop.engine.connect() as connection:
        cursor: Any = connection.connection.cursor()
        if cursor.connection.info.server_version < 160_000:
            pytest.skip("EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16")
        lines = cursor.execute("EXPLAIN (GENERIC_PLAN) " + numbered).fetchall()
    assert any(f"Index Scan using {INDEX}" in line for (line,) in lines)


# -- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "shortlist"), [(1, None), (41, 41), (300, 300), (1001, 1001), (3000, 3000)])
def test_as_many_rows_come_back_as_are_asked_for(shop: Shop, k: int, shortlist: int | None) -> None:
    """Beyond ef_search's default of 40, and beyond its limit of 1,000."""
    package = shop.package
    with Session(shop.engine) as session:
        found = session.execute(
            search(select(package.id), package.embedding, shop.queries[1], k=k, shortlist=shortlist)
        )
        rows = found.all()
    assert len({row.id for row in rows}) == k
    assert [row.distance for row in rows] == sorted(row.distance for row in rows)


def test_distances_are_those_of_the_full_vectors(shop: Shop) -> None:
    """Whatever the shortlist, what is returned is exact."""
    package, query = shop.package, shop.queries[2]
    with Session(shop.engine) as session:
        rows = session.execute(search(select(package.id), package.embedding, query, k=20)).all()
    numbers = [row.id for row in rows]
    expected = METRICS["cosine"].distances(shop.documents[numbers], query.astype(np.float16).astype(np.float32))
    assert [row.distance for row in rows] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("part", "wanted"), [(10, 10), (1, 10)], ids=["10 %", "1 %"])
def test_a_filter_leaves_k_rows(shop: Shop, part: int, wanted: int) -> None:
    """Filters run after the index scan, which goes on until the shortlist is full."""
    package = shop.package
    recalls = []
    with Session(shop.engine) as session:
        for query in shop.queries[:20]:
            statement = select(package).where(package.part < part)
            rows = session.execute(search(statement, package.embedding, query, k=10, shortlist=200)).all()
            assert len(rows) == wanted
            assert all(row[0].part < part for row in rows)
            exact = session.execute(search(statement, package.embedding, query, k=10, exact=True)).all()
            recalls.append(recall_at_k([r.distance for r in rows], [r.distance for r in exact]))
    assert np.mean(recalls) >= 0.93


def test_exact_is_the_truth(shop: Shop) -> None:
    """As NumPy finds it, with and without a filter."""
    package = shop.package
    with Session(shop.engine) as session:
        for query in shop.queries[:10]:
            found = session.scalars(search(select(package.id), package.embedding, query, exact=True)).all()
            assert found == truth(shop, query)
            filtered = select(package.id).where(package.part == 7)
            found = session.scalars(search(filtered, package.embedding, query, exact=True)).all()
            assert found == truth(shop, query, where=lambda n: n % 100 == 7)


def test_a_shortlist_of_everything_is_the_truth(shop: Shop) -> None:
    """The filter leaves 200 rows, the shortlist takes all: the rerank alone decides."""
    package = shop.package
    statement = select(package.id).where(package.part == 7)
    with Session(shop.engine) as session:
        for query in shop.queries[:10]:
            found = session.scalars(search(statement, package.embedding, query, shortlist=1000)).all()
            assert found == truth(shop, query, where=lambda n: n % 100 == 7)


@pytest.mark.parametrize("exact", [False, True])
def test_rows_without_a_distance_never_come_back(shop: Shop, exact: bool) -> None:
    """NULL and, under cosine, zero: not even where there is nothing else."""
    package = shop.package
    statement = select(package.id).where(package.id >= len(shop.documents) - 3)
    with Session(shop.engine) as session:
        assert session.scalar(select(func.count()).where(package.id >= len(shop.documents) - 3)) == 203
        rows = session.execute(search(statement, package.embedding, shop.queries[0], k=50, exact=exact)).all()
        many = session.execute(search_many(statement, package.embedding, shop.queries[:2], k=50, exact=exact)).all()
    assert sorted(row.id for row in rows) == [19_997, 19_998, 19_999]
    assert len(many) == 6


# -- many queries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("exact", [False, True])
def test_many_queries_give_what_each_gives(shop: Shop, count: int, exact: bool) -> None:
    """In the order of the queries, then of the distances."""
    if exact and count > 1:
        count = 5
    package, queries = shop.package, shop.queries[:count]
    statement = select(package.id).where(package.part < 50)
    with Session(shop.engine) as session:
        many = session.execute(search_many(statement, package.embedding, queries, k=5, exact=exact)).all()
        single = [
            (row.id, number, row.distance)
            for number, query in enumerate(queries)
            for row in session.execute(search(statement, package.embedding, query, k=5, exact=exact))
        ]
    assert [tuple(row) for row in many] == single
    assert len(many) == 5 * count


# -- what is left behind -------------------------------------------------------------------------------------------


def test_nothing_is_left_in_an_autocommit_connection(shop: Shop) -> None:
    """The statement's settings end with it."""
    package = shop.package
    with shop.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        rows = connection.execute(search(select(package.id), package.embedding, shop.queries[0], k=300)).all()
        assert len(rows) == 300
        assert settings(connection) == ("40", "off")


def test_nothing_leaks_through_a_pool(shop: Shop) -> None:
    """The next user of the connection has the defaults."""
    package = shop.package
    pooled = create_engine(shop.engine.url, pool_size=1, max_overflow=0)
    with pooled.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.execute(search(select(package.id), package.embedding, shop.queries[0], shortlist=3000)).all()
        connection.commit()
    with pooled.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() == pid
        assert settings(connection) == ("40", "off")
    pooled.dispose()


def settings(connection: Connection) -> tuple[str, str]:
    """What the server scans with."""
    row = connection.exec_driver_sql(
        "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
    ).one()
    return row[0], row[1]


# -- other ways in -------------------------------------------------------------------------------------------------


async def test_an_async_session(shop: Shop) -> None:
    """The same Select, on psycopg's async connection."""
    package, query = shop.package, shop.queries[3]
    engine = create_async_engine(shop.engine.url)
    async with AsyncSession(engine) as session:
        statement = search(select(package), package.embedding, query)
        rows = (await session.execute(statement)).all()
        vector = await session.scalar(select(package.embedding).where(package.id == rows[0][0].id))
    await engine.dispose()
    with Session(shop.engine) as session:
        assert [row[0].id for row in rows] == [row[0].id for row in session.execute(statement)]
    assert np.array_equal(np.asarray(vector), shop.documents[rows[0][0].id])


def test_a_select_built_once(shop: Shop) -> None:
    """The query is the caller's own parameter."""
    package = shop.package
    prepared = search(select(package.id), package.embedding, bindparam("mine"), k=5)
    with Session(shop.engine) as session:
        for query in shop.queries[:5]:
            fresh = session.execute(search(select(package.id), package.embedding, query, k=5)).all()
            assert session.execute(prepared, {"mine": query}).all() == fresh


def test_plain_psycopg(shop: Shop) -> None:
    """Text and parameters, without SQLAlchemy."""
    package, statement = shop.package, search(select(shop.package.id), shop.package.embedding, shop.queries[4])
    with Session(shop.engine) as session:
        expected = [tuple(row) for row in session.execute(statement)]
        cursor: Any = session.connection().connection.cursor()
        assert cursor.execute(*compile_sql(statement)).fetchall() == expected
        core = search(select(package.__table__.c.id), package.__table__.c.embedding, shop.queries[4])
        assert [tuple(row) for row in session.execute(core)] == expected
