"""A search by function without a filter: its statement is planned once for a session, and well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Float, Integer, MetaData, Table, Text, bindparam, select, text

from pgmrl import Matryoshka, Short, SqlFunctions, install_functions, search
from pgmrl.model.columns import attachment_of
from pgmrl.model.types import NumpyVector
from tests.databases import vacuum

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROWS, DIMS = 6_000, 16
# of the worker: its variables, its label, the columns of its statement and its arguments
NAMES = ["short_query", "shortlist_size", "worker", "winners", "key_1", "distance", "listed", "query", "shortlist", "k"]


@pytest.fixture(scope="module")
def wares(module_engine: Engine) -> Table:
    """Rows under the index, in a table whose columns are named as what the function is made of."""
    vectors: Column[Any] = Column("e", Matryoshka(DIMS, Short(8)))
    key = Column("full_vector", Integer, primary_key=True, autoincrement=False)
    table = Table("wares", MetaData(), key, *(Column(name, Float) for name in NAMES), Column("kind", Text), vectors)
    random = np.random.default_rng(5)
    with module_engine.begin() as connection:
        table.create(connection)
        rows = [
            {"full_vector": number, "kind": f"kind {number % 3}", "e": random.normal(size=DIMS)}
            for number in range(ROWS)
        ]
        connection.execute(table.insert(), rows)
        install_functions(connection, vectors, SqlFunctions(filters=("kind", "distance <=", "key_1 >=")))
    vacuum(module_engine, "wares")
    return table


def scans(connection: Connection, table: Table) -> int:
    """How often this transaction has scanned the short index."""
    index = attachment_of(table.c.e).index
    name = index.index_name(table.name, str(attachment_of(table.c.e).short))
    count = text("SELECT pg_stat_get_xact_numscans(CAST(:name AS regclass))")
    return int(connection.execute(count, {"name": name}).scalar_one())


@pytest.mark.parametrize("sizes", [(10, None), (3, 40), (7, 900), (10, 1_000), (5, 1_001)])
def test_each_search_of_a_session_goes_through_the_index(
    module_engine: Engine, wares: Table, sizes: tuple[int, Any]
) -> None:
    """After the fifth the plan is one for any size; the rows are those of `search`."""
    k, shortlist = sizes
    call = text("SELECT full_vector FROM wares_search(:query, :k, :shortlist)").bindparams(
        bindparam("query", type_=NumpyVector(DIMS, "halfvec"))
    )
    queries = np.random.default_rng(6).normal(size=(12, DIMS))
    with module_engine.connect() as connection:
        for number, query in enumerate(queries):
            before = scans(connection, wares)
            found = connection.execute(call, {"query": query, "k": k, "shortlist": shortlist}).scalars().all()
            assert scans(connection, wares) == before + 1, number
            statement = search(select(wares.c.full_vector), wares.c.e, query, k=k, shortlist=shortlist)
            assert found == connection.execute(statement).scalars().all()
            assert len(found) == k


def test_other_sizes_in_one_session(module_engine: Engine, wares: Table) -> None:
    """The kept plan takes them all."""
    with module_engine.connect() as connection:
        for k, shortlist in [(10, 40)] * 8 + [(100, 1000), (1, 1), (10, 11), (40, 40)]:
            query = np.random.default_rng(k).normal(size=DIMS)
            call = text(f"SELECT full_vector FROM wares_search(CAST(:query AS halfvec), {k}, {shortlist})")
            found = connection.execute(call, {"query": str(query.tolist())}).scalars().all()
            statement = search(select(wares.c.full_vector), wares.c.e, query, k=k, shortlist=shortlist)
            assert found == connection.execute(statement).scalars().all()


def test_a_filter_is_planned_for_its_value(module_engine: Engine, wares: Table) -> None:
    """Between searches without one."""
    with module_engine.connect() as connection:
        for kind in (None, "kind 1", None, "kind 2", "kind 7"):
            query = np.random.default_rng(7).normal(size=DIMS)
            call = text("SELECT full_vector FROM wares_search(CAST(:query AS halfvec), 10, kind => :kind)")
            found = connection.execute(call, {"query": str(query.tolist()), "kind": kind}).scalars().all()
            rows = select(wares.c.full_vector)
            rows = rows if kind is None else rows.where(wares.c.kind == kind)
            assert found == connection.execute(search(rows, wares.c.e, query)).scalars().all()
            assert len(found) == (0 if kind == "kind 7" else 10)
