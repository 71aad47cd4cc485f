"""A covering index answers a filtered search, however the statement is sent; and what comes back is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, select
from sqlalchemy.exc import DBAPIError

from pgmrl import FilterIndex, Matryoshka, Short, SqlFunctions, compile_sql, install_functions, search
from pgmrl.model.columns import attachment_of
from pgmrl.model.metrics import METRICS
from pgmrl.names import literal
from pgmrl.searching.plans import nodes, shortlist_scans
from tests.conftest import vector_text
from tests.databases import vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine, Select

    from pgmrl.model.metrics import MetricName
else:
    Connection = Engine = Iterator = NDArray = Any

DIMS, SHORT, ROWS, K, SHORTLIST = 48, 16, 2_000, 10, 100
SELECTIVITIES = (1, 2, 3, 5, 9, 10, 11, 15, 20, 30, 40, 60, 99, 100, 101, 150, 250, 500, 1_000, 2_000)
"""Rows that `lot <= …` leaves of 2,000."""
TENANTS = (1, 3, 9, 10, 11, 40, 99, 101, 300, 1_426)
INDEX = "items_by_part"
METRIC_NAMES: tuple[MetricName, ...] = ("cosine", "l2", "inner_product")


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Random ones: no two rows are at the same distance. Rows, then ten queries."""
    made = np.random.default_rng(14).standard_normal((ROWS + 10, DIMS)) * np.linspace(1, 0.3, DIMS)
    return made.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def items(module_engine: Engine, vectors: NDArray[np.float32]) -> Table:
    """Rows by `lot` (each number once), `part` (1 to 19 and NULL) and `tenant`.

    For each metric there is a column with a covering index on `lot` alone; `embedding` has a graph and one on `part`.
    """
    by_lot = [FilterIndex("lot")]
    covered = [FilterIndex("part", name=INDEX)]
    table = Table(
        "items",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("lot", Integer),
        Column("part", Integer),
        Column("tenant", Integer),
        Column("embedding", Matryoshka(DIMS, Short(SHORT), filters=covered)),
        *(
            Column(name, Matryoshka(DIMS, Short(SHORT), metric=name, index=None, filters=by_lot))
            for name in METRIC_NAMES
        ),
    )
    lots, tenants = _numbers()
    with module_engine.begin() as connection:
        table.create(connection)
        rows = [
            {"id": n, "lot": int(lots[n]), "part": n % 20 or None, "tenant": int(tenants[n])}
            | dict.fromkeys(["embedding", *METRIC_NAMES], vectors[n])
            for n in range(ROWS)
        ]
        connection.execute(table.insert(), rows)
    vacuum(module_engine, table.name)
    return table


def _numbers() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(5)
    return random.permutation(ROWS) + 1, random.permutation(np.repeat(np.arange(len(TENANTS)), TENANTS))


@pytest.fixture
def session(items: Table, module_engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    assert items.name == "items"
    with module_engine.connect() as connection:
        yield connection


def nearest(vectors: NDArray[np.float32], metric: str, number: int, among: NDArray[np.int64], k: int = K) -> list[int]:
    """The ids of the nearest rows to a query, by NumPy."""
    distances = METRICS[metric].distances(vectors[among], vectors[ROWS + number])
    return [int(n) for n in among[np.argsort(distances, kind="stable")[:k]]]


def in_part(items: Table, value: Any) -> Select[Any]:
    """The rows of a part."""
    return select(items.c.id).where(items.c.part == value)


def assert_covered(plan: dict[str, Any]) -> None:
    """The candidates come from the covering index, and none of its rows was looked up in the table."""
    (candidates,) = shortlist_scans(plan)
    scans = [node for node in nodes(candidates) if "Relation Name" in node]
    read = [(node["Node Type"], node.get("Index Name"), node.get("Heap Fetches")) for node in scans]
    assert read == [("Index Only Scan", INDEX, 0)]


# -- plans ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "force_custom_plan", "force_generic_plan"])
def test_a_prepared_statement_reads_the_covering_index_alone(
    items: Table, session: Connection, vectors: NDArray[np.float32], mode: str
) -> None:
    """Seven times: by the sixth, `auto` may take a generic plan."""
    text, values = compile_sql(search(in_part(items, 7), items.c.embedding, vectors[ROWS], k=K), "asyncpg")
    assert all(isinstance(value, int | str) for value in values)
    sent = ", ".join(str(value) if isinstance(value, int) else literal(value) for value in values)
    session.exec_driver_sql(f"SET LOCAL plan_cache_mode = {mode}")
    session.exec_driver_sql(f"PREPARE in_part AS {text}")
    for _ in range(7):
        plan = session.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE in_part ({sent})").scalar_one()
        assert_covered(plan[0]["Plan"])
    session.exec_driver_sql("DEALLOCATE in_part")


@pytest.mark.parametrize("prepared", [False, True])
def test_bind_parameters_of_a_driver(
    items: Table, module_database_url: str, vectors: NDArray[np.float32], prepared: bool
) -> None:
    """Values that the driver sends beside the text; each part in turn."""
    with psycopg.connect(module_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for part in range(1, 8):
            text, sent = compile_sql(search(in_part(items, part), items.c.embedding, vectors[ROWS], k=K))
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {text}"
            row = connection.execute(explain.encode(), sent, prepare=prepared).fetchone()
            assert row is not None
            assert_covered(row[0][0]["Plan"])


def test_the_sql_function_reads_the_covering_index_alone(
    items: Table, session: Connection, vectors: NDArray[np.float32]
) -> None:
    """The server counts the scans of an index, and the rows that they looked up."""
    functions = install_functions(session, items.c.embedding, SqlFunctions(filters=("part",)))
    counters = f"pg_stat_get_xact_numscans('{INDEX}'::regclass), pg_stat_get_xact_tuples_fetched('{INDEX}'::regclass)"
    query = literal(vector_text(vectors[ROWS]))
    before = session.exec_driver_sql(f"SELECT {counters}").one()
    called = f"SELECT id FROM {functions.qualified_name('search')}({query}, {K}, part => 7)"
    assert set(session.exec_driver_sql(called).scalars()) <= set(range(7, ROWS, 20))
    after = session.exec_driver_sql(f"SELECT {counters}").one()
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 0]


def test_a_row_that_vacuum_has_not_seen_is_looked_up(
    items: Table, session: Connection, module_engine: Engine, vectors: NDArray[np.float32]
) -> None:
    """What `assert_covered` would see: the tests above can fail."""
    session.execute(items.update().where(items.c.part == 7).values(tenant=items.c.tenant))
    text, sent = compile_sql(search(in_part(items, 7), items.c.embedding, vectors[ROWS], k=K))
    plan = session.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", sent).scalar_one()[0]["Plan"]
    (candidates,) = shortlist_scans(plan)
    assert sum(node.get("Heap Fetches", 0) for node in nodes(candidates)) >= 100
    session.rollback()
    vacuum(module_engine, items.name)


# -- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_every_row_of_brute_force(items: Table, session: Connection, vectors: NDArray[np.float32], metric: str) -> None:
    """At twenty selectivities: with a shortlist of all rows, and with the usual one, exact among short vectors."""
    column, lots = items.c[metric], _numbers()[0]
    definition = attachment_of(column).definition
    shorts = np.array([definition.shorten(vector) for vector in vectors], np.float32)
    for number, count in enumerate(SELECTIVITIES):
        query, among = number % 10, np.flatnonzero(lots <= count)
        statement = select(items.c.id).where(items.c.lot <= count)
        every = search(statement, column, vectors[ROWS + query], k=K, shortlist=max(K, count))
        assert session.scalars(every).all() == nearest(vectors, metric, query, among), count
        listed = np.array(nearest(shorts, metric, query, among, SHORTLIST))
        usual = search(statement, column, vectors[ROWS + query], k=K, shortlist=SHORTLIST)
        assert session.scalars(usual).all() == nearest(vectors, metric, query, listed), count


@pytest.mark.parametrize("graph", [False, True])
def test_tenants_of_row_level_security(
    items: Table, session: Connection, vectors: NDArray[np.float32], graph: bool
) -> None:
    """Ten of very different size, and a policy that Python cannot see: k rows each, or as many as there are."""
    for statement in (
        "CREATE ROLE filter_plans_tenant",
        "GRANT SELECT ON items TO filter_plans_tenant",
        "ALTER TABLE items ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON items USING (tenant = current_setting('app.tenant')::integer)",
        "SET LOCAL ROLE filter_plans_tenant",
        *(f"SET LOCAL enable_{way} = off" for way in ("seqscan", "bitmapscan", "sort") if graph),
    ):
        session.exec_driver_sql(statement)
    for tenant, size in enumerate(TENANTS):
        session.exec_driver_sql(f"SET LOCAL app.tenant = {tenant}")
        among = np.flatnonzero(_numbers()[1] == tenant)
        found = session.scalars(search(select(items.c.id), items.c.embedding, vectors[ROWS], k=K)).all()
        assert len(found) == min(K, size)
        assert set(found) <= set(among.tolist())
        if size < SHORTLIST:  # no shortlist is full: the ranking is exact
            assert found == nearest(vectors, "cosine", 0, among)


# -- values --------------------------------------------------------------------------------------------------------


def test_null_as_a_filter(items: Table, session: Connection, vectors: NDArray[np.float32]) -> None:
    """`IS NULL` finds the rows without a part, through the index; a parameter that is NULL equals nothing."""
    missing = search(in_part(items, None), items.c.embedding, vectors[ROWS], k=K, shortlist=SHORTLIST)
    assert session.scalars(missing).all() == nearest(vectors, "cosine", 0, np.arange(0, ROWS, 20))
    text, sent = compile_sql(missing)
    plan = session.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", sent).scalar_one()
    assert_covered(plan[0]["Plan"])
    bound = search(in_part(items, bindparam("part")), items.c.embedding, vectors[ROWS], k=K)
    assert session.scalars(bound, {"part": None}).all() == []
    assert len(session.scalars(bound, {"part": 7}).all()) == K


def test_a_filter_of_another_type(items: Table, session: Connection, vectors: NDArray[np.float32]) -> None:
    """The server names the types or the value, before it reads a row."""
    with pytest.raises(DBAPIError, match="operator does not exist: integer = character varying"):
        session.execute(search(in_part(items, "games"), items.c.embedding, vectors[ROWS], k=K))
    session.rollback()
    functions = install_functions(session, items.c.embedding, SqlFunctions(filters=("part",)))
    query = literal(vector_text(vectors[ROWS]))
    with pytest.raises(DBAPIError, match='invalid input syntax for type integer: "games"'):
        session.exec_driver_sql(f"SELECT id FROM {functions.qualified_name('search')}({query}, {K}, part => 'games')")
