"""Searches through partial HNSW indexes, and what is said where they cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, text
from sqlalchemy import select as sql_select
from sqlalchemy.exc import ProgrammingError

from pgmrl import (
    Hnsw,
    Matryoshka,
    Short,
    SqlFunctions,
    add_functions,
    assert_index_used,
    check_schema,
    compile_sql,
    database,
    explain,
    install_functions,
    reflect,
    search,
)
from pgmrl.errors import MeasureError, NotMigrated, PartialIndexWarning
from pgmrl.measure import measure_recall
from pgmrl.tune import tune
from tests.cli import ok, ok_json
from tests.databases import indexed_afterwards, vacuum

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from tests.corpus import Corpus
else:
    Corpus = Engine = Any

ROWS, DIMS = 3_000, 96
ALIVE = Hnsw(where="deleted_at IS NULL")
LARGE = Hnsw(where="tenant = 1")


def notes(*indexes: Hnsw) -> Table:
    """Every tenth row is deleted; of three rows two are tenant 1's."""
    table = Table(
        "notes",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("tenant", Integer),
        Column("deleted_at", DateTime),
        Column("title", Text),
        Column("embedding", Matryoshka(DIMS, Short(48), index=indexes or (ALIVE, LARGE))),
    )
    add_functions(table.c.embedding, SqlFunctions(filters=("tenant",)))
    return table


@pytest.fixture(scope="module")
def table(module_engine: Engine, corpus: Corpus) -> Table:
    """3,000 real vectors, without an index of all rows."""
    table = notes()
    with module_engine.begin() as connection:
        table.create(connection)
        rows = [
            {"id": n, "tenant": 2 if n % 3 == 0 else 1, "embedding": corpus.documents[n, :DIMS]} for n in range(ROWS)
        ]
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), rows)
        connection.execute(text("UPDATE notes SET deleted_at = now() WHERE id % 10 = 0"))
        install_functions(connection, table.c.embedding)
    vacuum(module_engine, table.name)
    return table


def nearest(corpus: Corpus, condition: Any, query: np.ndarray[Any, Any]) -> list[int]:
    """The ten nearest rows of a condition on their numbers, by brute force."""
    kept = [n for n in range(ROWS) if condition(n)]
    vectors = corpus.documents[kept, :DIMS].astype(np.float16).astype(np.float64)
    distances = 1 - vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return [kept[place] for place in np.argsort(distances, kind="stable")[:10]]


def test_a_filter_that_implies_the_condition_is_served(table: Table, module_engine: Engine, corpus: Corpus) -> None:
    """Its name is in what explain says; a filter that says more than the condition, and in other words, does, too."""
    query = corpus.queries[0, :DIMS]
    alive, tenant = table.c.deleted_at.is_(None), table.c.tenant == 1
    served = [(alive, ALIVE), (alive & (table.c.id > 5), ALIVE), (tenant, LARGE), (table.c.tenant.in_([1]), LARGE)]
    with module_engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_sort = off"))
        for condition, index in served:
            statement = search(sql_select(table.c.id).where(condition), table.c.embedding, query)
            assert_index_used(connection, statement, ignore_cost=True)
            assert index.index_name("notes", "embedding_short_48") in str(explain(connection, statement))
        for select in (sql_select(table.c.id), sql_select(table.c.id).where(table.c.tenant == 2)):
            with pytest.raises(AssertionError, match=r"partial index on .* does not follow .*: all rows are read"):
                assert_index_used(connection, search(select, table.c.embedding, query), ignore_cost=True)


def test_every_search_has_the_rows_of_brute_force(table: Table, module_engine: Engine, corpus: Corpus) -> None:
    """With the filters, without one, and through the SQL function."""
    found_conditions = [
        (table.c.deleted_at.is_(None), lambda n: n % 10 != 0),
        (table.c.tenant == 1, lambda n: n % 3 != 0),
        (table.c.tenant == 2, lambda n: n % 3 == 0),
        (table.c.id >= 0, lambda _: True),
    ]
    shared, called = 0, 0
    with module_engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_sort = off"))
        for query in corpus.queries[:10, :DIMS]:
            for condition, kept in found_conditions:
                statement = search(sql_select(table.c.id).where(condition), table.c.embedding, query, shortlist=200)
                rows = connection.execute(statement).scalars().all()
                assert len(rows) == 10
                assert all(map(kept, rows))
                shared += len(set(rows) & set(nearest(corpus, kept, query)))
            sent = f"[{','.join(map(str, query))}]"
            call = "SELECT id FROM notes_search(CAST(:query AS vector), 10, tenant => :tenant, shortlist => 200)"
            for tenant, kept in ((1, found_conditions[1][1]), (2, found_conditions[2][1]), (None, lambda _: True)):
                rows = connection.execute(text(call), {"query": sent, "tenant": tenant}).scalars().all()
                called += len(set(rows) & set(nearest(corpus, kept, query)))
    assert shared >= 0.95 * 400
    assert called >= 0.95 * 300


def test_a_bound_parameter_in_a_prepared_statement(table: Table, module_database_url: str, corpus: Corpus) -> None:
    """Planned for its value each time, so that the condition is proved."""
    name = LARGE.index_name("notes", "embedding_short_48")
    scans = f"SELECT pg_stat_get_xact_numscans('{name}'::regclass)"
    with psycopg.connect(module_database_url.replace("+psycopg", "")) as connection:
        connection.execute("SET enable_sort = off")
        for number in range(12):
            statement = search(
                sql_select(table.c.id).where(table.c.tenant == 1), table.c.embedding, corpus.queries[number, :DIMS]
            )
            sql, sent = compile_sql(statement)
            assert len(connection.execute(sql.encode(), sent, prepare=True).fetchall()) == 10
        assert connection.execute(scans).fetchone() == (12,)


def test_recall_is_measured_with_the_filter(table: Table, module_engine: Engine) -> None:
    """Without it a search reads the whole table: it says so instead."""
    alive = sql_select(table.c.id).where(table.c.deleted_at.is_(None))
    with module_engine.connect() as connection:
        with pytest.raises(NotMigrated, match=r"only partial HNSW indexes, .* measure with a filter"):
            measure_recall(connection, table.c.embedding, queries=3)
        assert measure_recall(connection, table.c.embedding, alive, queries=3).recall.mean > 0.5
        with pytest.raises(
            MeasureError, match=r"index of all rows, .* got a partial one \(WHERE \(deleted_at IS NULL\)\)"
        ):
            tune(connection, table.c.embedding, recall=0.9, queries=3)


def test_they_are_listed_and_reflected(
    table: Table, module_engine: Engine, module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pgmrl columns` says the condition; without a model a search goes through the same column."""
    monkeypatch.setenv("DATABASE_URL", module_database_url)
    assert "only of rows with (deleted_at IS NULL)" in ok("columns")
    assert [row["index_predicate"] for row in ok_json("columns", "--json")] == ["(deleted_at IS NULL)", "(tenant = 1)"]
    with module_engine.connect() as connection:
        column = reflect(connection, "notes.embedding")
        view = connection.execute(text("SELECT index_predicate FROM pgmrl.columns ORDER BY 1")).scalars().all()
        assert view == ["(deleted_at IS NULL)", "(tenant = 1)"]
        statement = search(sql_select(column.table.c.id).where(column.table.c.tenant == 1), column, np.ones(DIMS))
        assert_index_used(connection, statement, ignore_cost=True)
    assert table.name == column.table.name


def test_check_schema_says_what_is_missing(connection: Connection) -> None:
    """One of all rows, or one of a condition; a condition in other words is the same."""
    notes(Hnsw(where="( deleted_at is null )")).create(connection)
    with pytest.warns(
        PartialIndexWarning, match=r"does not imply its condition \(deleted_at IS NULL\) reads the whole"
    ):
        assert check_schema(connection, notes(ALIVE).c.embedding) is not None
    with pytest.raises(NotMigrated, match=r"only a partial HNSW index .* run the migration"):
        check_schema(connection, notes(Hnsw(), ALIVE).c.embedding)
    with pytest.raises(NotMigrated, match="no valid HNSW index WHERE tenant = 1: run the migration"):
        check_schema(connection, notes(ALIVE, LARGE).c.embedding)
    connection.execute(text("CREATE INDEX ON notes USING hnsw (embedding_short_48 halfvec_cosine_ops)"))
    info = check_schema(connection, notes(Hnsw(), ALIVE).c.embedding)
    assert info is not None
    assert info.index_predicate is None


def test_create_all_makes_nothing_of_what_it_cannot(connection: Connection) -> None:
    """The server's own error, and no table."""
    with pytest.raises(ProgrammingError, match="no_such"), connection.begin_nested():
        notes(Hnsw(where="no_such > 3")).create(connection)
    assert not database.columns(connection)
