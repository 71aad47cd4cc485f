"""A filtered search is planned for its values, also where the driver has prepared it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, select

from pgmrl import compile_sql, search
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.databases import indexed_afterwards, vacuum

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tests.corpus import Corpus
else:
    Corpus = Engine = Any

ROWS, DIMS = 4_000, 96


@pytest.fixture(scope="module")
def rows(module_engine: Engine, corpus: Corpus) -> Table:
    """4,000 real vectors; of `lot` 1 there are four rows, of `lot` 0 all others."""
    table = Table(
        "rows",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("lot", Integer),
        Column("embedding", Matryoshka(DIMS, Short(48))),
    )
    vectors = corpus.documents[:ROWS, :DIMS]
    with module_engine.begin() as connection:
        table.create(connection)
        given = [{"id": n, "lot": int(n % 1_000 == 0), "embedding": vector} for n, vector in enumerate(vectors)]
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), given)
    vacuum(module_engine, table.name)
    return table


@pytest.mark.parametrize("joined", [False, True])
def test_a_prepared_search_is_planned_for_its_values(
    rows: Table, module_database_url: str, corpus: Corpus, joined: bool
) -> None:
    """Twenty times the same text: no plan for no value in particular, and of a rare value every row."""
    filtered = select(rows.c.id).where(rows.c.lot == 1)
    if joined:
        other = rows.alias()
        filtered = filtered.join(other, other.c.id == rows.c.id)
    with psycopg.connect(module_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for number in range(20):
            text, sent = compile_sql(search(filtered, rows.c.embedding, corpus.queries[number, :DIMS], k=10))
            found = connection.execute(text.encode(), sent, prepare=True).fetchall()
            assert sorted(row[0] for row in found) == [0, 1000, 2000, 3000]
        plans = connection.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements").fetchall()
    assert plans == [(0, 20)]


def test_one_without_a_filter_may_keep_its_plan(rows: Table, module_database_url: str, corpus: Corpus) -> None:
    """There is nothing in it that a plan could know better."""
    with psycopg.connect(module_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for number in range(20):
            text, sent = compile_sql(search(select(rows.c.id), rows.c.embedding, corpus.queries[number, :DIMS], k=10))
            assert "generate_series" not in text
            assert len(connection.execute(text.encode(), sent, prepare=True).fetchall()) == 10
        plans = connection.execute("SELECT generic_plans FROM pg_prepared_statements").fetchall()
    assert plans[0][0] > 0


def test_counts_agree_with_the_table(rows: Table, module_engine: Engine) -> None:
    """The fixture is what the tests take it for."""
    with module_engine.connect() as connection:
        count = select(func.count()).where(rows.c.lot == 1)
        assert connection.execute(count).scalar_one() == 4
