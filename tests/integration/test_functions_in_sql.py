"""What SQL can do with the functions: filters, joins, prepared statements; what the planner makes of them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, NullPool, Table, create_engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl import install_functions
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.conftest import Wares
    from tests.corpus import Corpus
else:
    Corpus = Wares = Any

INDEX = "passages_embedding_short_32_hnsw"
SETTINGS = ("hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier")


def ask(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    """All rows of a statement."""
    return list(connection.execute(text(statement), parameters))


def ids(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    """The first column of a statement."""
    return [row[0] for row in ask(connection, statement, **parameters)]


@contextmanager
def alone(wares: Wares) -> Iterator[Connection]:
    """A connection that nobody uses afterwards: what is set in it ends with it."""
    engine = create_engine(wares.engine.url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


# -- filters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "lets"), [
    ("package => 'email'", lambda p: p["package"] == "email"),
    ("length_min => 300", lambda p: p["length"] >= 300),
    ("length_max => 30", lambda p: p["length"] <= 30),
    ("length_min => 100, length_max => 200", lambda p: 100 <= p["length"] <= 200),
    ("package_any => '{asyncio,logging,xml}'", lambda p: p["package"] in {"asyncio", "logging", "xml"}),
    ("package_any => ARRAY['asyncio']", lambda p: p["package"] == "asyncio"),
    ("tags_with => '{kind::method,written-in::c}'",
     lambda p: {"kind::method", "written-in::c"} <= set(p["tags"] or ())),
    ("package => 'decimal', length_max => 100", lambda p: p["package"] == "decimal" and p["length"] <= 100),
    ("package => NULL, length_min => NULL, package_any => NULL, tags_with => NULL", lambda p: True),  # noqa: ARG005
    ("package_any => '{}'", lambda p: False),  # noqa: ARG005
    ("package => 'no such package'", lambda p: False),  # noqa: ARG005
])  # fmt: skip
def test_filters_work_inside_the_shortlist(wares: Wares, given: str, lets: Any) -> None:
    """As many rows as are asked for, if the filter leaves them; exactly those that NumPy finds."""
    with wares.engine.connect() as connection:
        for number in range(3):
            expected = wares.nearest(wares.queries[number], 15, lets)
            query = wares.literal(number)
            for options in ("exact => true", "shortlist => 4000"):
                rows = ask(connection, f"SELECT * FROM passages_search(:query, 15, {options}, {given})", query=query)
                assert [row.id for row in rows] == expected
                assert {(row.requested, row.returned) for row in rows} <= {(15, len(expected))}
            found = ids(connection, f"SELECT id FROM passages_search(:query, 15, {given})", query=query)
            assert len(found) == len(expected)
            assert all(lets(wares.passages[n]) for n in found)


@pytest.mark.parametrize("k", [1, 41, 300, 1001, 3000])
def test_as_many_rows_come_as_are_asked_for(wares: Wares, k: int) -> None:
    """Through the index, beyond ef_search's default of 40 and its limit of 1,000."""
    with wares.engine.connect() as connection:
        through_the_index(connection)
        found = ids(connection, f"SELECT id FROM passages_search(:query, {k}, {k})", query=wares.literal(1))
    assert len(set(found)) == k
    assert all(n < len(wares.vectors) for n in found)


@pytest.mark.parametrize("options", ["5000", "5000, true", "5000, package => 'no such'"])
def test_rows_without_a_vector_never_come(wares: Wares, options: str) -> None:
    """NULL and zero vectors have no distance: 4,000 of 4,020 rows come."""
    with wares.engine.connect() as connection:
        rows = ask(connection, f"SELECT * FROM passages_search(:query, 5000, {options})", query=wares.literal(0))
    wanted = 0 if "no such" in options else 4000
    assert len(rows) == wanted
    assert all(row.id < 4000 and row.returned == 4000 and row.requested == 5000 for row in rows)


# -- as a table ----------------------------------------------------------------------------------------------------


def test_joins_and_aggregates(wares: Wares) -> None:
    """The result is joined, filtered again, grouped, numbered."""
    with wares.engine.connect() as connection:
        query = wares.literal(4)
        joined = ask(
            connection,
            "SELECT p.id, p.name, p.package FROM passages_search(:query, 30, exact => true) AS h "
            "JOIN passages AS p USING (id) WHERE h.distance < 0.7 ORDER BY h.rank",
            query=query,
        )
        grouped = ask(
            connection,
            "SELECT package, count(*), min(distance), max(similarity) FROM passages_search(:query, 30, exact => true) "
            "JOIN passages USING (id) GROUP BY package ORDER BY min(distance)",
            query=query,
        )
        rank = ids(connection, "SELECT rank FROM passages_search(:query, 30) ORDER BY rank", query=query)
    nearest = wares.nearest(wares.queries[4], 30)
    assert [row.id for row in joined] == nearest[: len(joined)]
    assert len(joined) > 0
    assert grouped[0].package == wares.passages[nearest[0]]["package"]
    assert sum(row.count for row in grouped) == 30
    assert rank == list(range(1, 31))


def test_lateral_over_many_rows(wares: Wares) -> None:
    """A search for each of 200 rows gives what each gives, also with the row's own vector."""
    with wares.engine.connect() as connection:
        rows = ask(
            connection,
            "SELECT p.id, s.id AS other, s.rank FROM passages AS p CROSS JOIN LATERAL passages_similar(p.id, 3) AS s "
            "WHERE p.id < 200 ORDER BY p.id, s.rank",
        )
        for n in (0, 77, 199):
            expected = ids(connection, "SELECT id FROM passages_similar(:n, 3)", n=n)
            assert [row.other for row in rows if row.id == n] == expected
        exact = ask(
            connection,
            "SELECT p.id, s.id AS other FROM passages AS p CROSS JOIN LATERAL "
            "passages_search(p.embedding, 4, exact => true) AS s WHERE p.id < 20 ORDER BY p.id, s.rank",
        )
    assert len(rows) == 600
    assert [row.other for row in exact] == [m for n in range(20) for m in wares.nearest(wares.vectors[n], 4)]


def test_a_vector_from_a_subquery(wares: Wares) -> None:
    """Of another row, or computed."""
    with wares.engine.connect() as connection:
        found = ids(
            connection,
            "SELECT id FROM passages_search((SELECT avg(embedding) FROM passages WHERE id IN (5, 6)), 9, "
            "exact => true)",
        )
    middle = wares.vectors[5:7].astype(np.float64).mean(axis=0)
    assert len(set(found) & set(wares.nearest(middle, 9))) >= 8  # avg() rounds to half precision its own way


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_prepared_statements(wares: Wares, mode: str) -> None:
    """Every argument a parameter, in either way of planning."""
    statement = "SELECT id FROM passages_search($1, $2, $3, $4, package => $5, package_any => $6)"
    with alone(wares) as connection:
        through_the_index(connection)
        connection.exec_driver_sql(f"SET plan_cache_mode = {mode}")
        types = "halfvec, integer, integer, boolean, text, text[]"
        connection.exec_driver_sql(f"PREPARE asked ({types}) AS {statement}")
        for number in range(7):
            query = wares.literal(number)
            email = ids(connection, f"EXECUTE asked('{query}', 7, NULL, true, 'email', NULL)")
            assert email == wares.nearest(wares.queries[number], 7, lambda p: p["package"] == "email")
            all_ = ids(connection, f"EXECUTE asked('{query}', 5, 4000, false, NULL, NULL)")
            assert all_ == wares.nearest(wares.queries[number], 5)
            some = ids(connection, f"EXECUTE asked('{query}', {number + 1}, 100, false, NULL, '{{asyncio,email}}')")
            assert len(some) == number + 1
            assert all(wares.passages[n]["package"] in {"asyncio", "email"} for n in some)
        plans = ask(connection, "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'asked'")[
            0
        ]
        assert tuple(plans) == ((21, 0) if mode == "force_generic_plan" else (0, 21))


# -- the planner ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "rows"), [
    ("passages_search(:query)", 10),
    ("passages_search(:query, k => 50)", 50),
    ("passages_search(:query, 700, package => 'email')", 700),
    ("passages_similar(7, k => 50)", 50),
    ("passages_search_named('asyncio')", 10),
    ("passages_search_named('asyncio', 25)", 25),
])  # fmt: skip
def test_the_planner_knows_how_many_rows_come(wares: Wares, call: str, rows: int) -> None:
    """The functions are inlined, so that a join is planned for k rows."""
    with wares.engine.connect() as connection:
        sent = f"EXPLAIN (FORMAT JSON) SELECT * FROM {call}"
        plan: Any = connection.execute(text(sent), {"query": wares.literal(0)} if ":query" in call else {}).scalar_one()
    assert (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"] == rows


@pytest.mark.parametrize("given", ["", ", package => 'email'", ", 10, 3000", ", 10, length_min => 10"])
@pytest.mark.parametrize("call", ["search", "similar", "search_named"])
def test_the_short_index_is_used(wares: Wares, given: str, call: str) -> None:
    """As auto_explain saw it, inside the function."""
    argument = {"search": ":query", "similar": "77", "search_named": "'asyncio'"}[call]
    with alone(wares) as connection:
        through_the_index(connection)
        with plans_of(connection) as plans:
            rows = ask(
                connection,
                f"SELECT * FROM passages_{call}({argument}{given})",
                **({"query": wares.literal(3)} if call == "search" else {}),
            )
    shortlists = [plan for plan in plans if "CTE shortlist" in plan]
    assert len(shortlists) == 1
    assert f"Index Scan using {INDEX}" in shortlists[0]
    assert len(rows) == 10


def test_the_short_index_is_used_for_each_row_of_the_related_view(wares: Wares) -> None:
    """Three rows, three scans."""
    with alone(wares) as connection:
        through_the_index(connection)
        with plans_of(connection) as plans:
            assert len(ask(connection, "SELECT * FROM passages_related WHERE id IN (1, 2, 3)")) == 15
    assert sum(f"Index Scan using {INDEX}" in plan for plan in plans) == 3


@contextmanager
def plans_of(connection: Connection) -> Iterator[list[str]]:
    """The plans of all statements that run inside, also those that functions run."""
    connection.exec_driver_sql("LOAD 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_level = log"):
        connection.exec_driver_sql(f"SET auto_explain.{setting}")
    connection.exec_driver_sql("SET client_min_messages = log")
    notices: list[str] = []

    def keep(diagnostic: Any) -> None:
        notices.append(diagnostic.message_primary)

    driver: Any = connection.connection.driver_connection
    driver.add_notice_handler(keep)
    try:
        yield notices
    finally:
        driver.remove_notice_handler(keep)


def through_the_index(connection: Connection) -> None:
    """With 4,000 rows the planner often rightly sorts them all."""
    for how in ("seqscan", "bitmapscan", "sort"):
        connection.exec_driver_sql(f"SET LOCAL enable_{how} = off")


# -- rows that an index scan does not find -------------------------------------------------------------------------


@pytest.mark.parametrize("k", [10, 60])
def test_a_filter_that_leaves_few_rows_gets_all_of_them(wares: Wares, k: int) -> None:
    """Where the planner is misled into the index, which gives up."""
    package, lets = "json", lambda p: p["package"] == "json"
    left = sum(map(lets, wares.passages))
    with wares.engine.connect() as connection:
        through_the_index(connection)
        connection.exec_driver_sql("SET LOCAL hnsw.max_scan_tuples = 50")
        rows = ask(connection, f"SELECT * FROM passages_search(:q, {k}, package => '{package}')", q=wares.literal(0))
    assert 0 < left < 60
    assert [row.id for row in rows] == wares.nearest(wares.queries[0], k, lets)
    assert {(row.requested, row.returned) for row in rows} == {(k, min(k, left))}


def test_deleted_rows_take_no_places(engine: Engine, corpus: Corpus) -> None:
    """Three quarters deleted and not vacuumed: the scan goes on until the shortlist is full."""
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(96, Short(32))))
    vectors = corpus.documents[:4000, :96]
    with engine.begin() as connection:
        docs.create(connection)
        connection.exec_driver_sql("ALTER TABLE docs SET (autovacuum_enabled = off)")
        connection.execute(docs.insert(), [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
        install_functions(connection, docs.c.e)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM docs WHERE mod(id, 4) <> 0")
    with engine.begin() as connection:
        through_the_index(connection)
        for k in (10, 200):
            found = ids(connection, f"SELECT id FROM docs_search(docs_vector(400), {k}, {k})")
            assert len(found) == k
            assert all(n % 4 == 0 for n in found)


# -- what is left behind -------------------------------------------------------------------------------------------


def settings(connection: Connection) -> list[str]:
    """What the server scans with."""
    return [connection.exec_driver_sql(f"SELECT current_setting('{name}')").scalar_one() for name in SETTINGS]


@pytest.mark.parametrize("call", [
    "passages_search(:q)", "passages_search(:q, 2000)", "passages_similar(1, 20)", "passages_search_named('asyncio')",
    "passages_search(:q, exact => true)", "passages_search_diverse(:q)",
])  # fmt: skip
@pytest.mark.parametrize("own", [False, True])
def test_settings_are_as_before(wares: Wares, call: str, own: bool) -> None:
    """In autocommit, in a transaction, and where the caller has set its own."""
    given = {"q": wares.literal(0)} if ":q" in call else {}
    with alone(wares) as connection:
        ids(connection, "SELECT vector_dims('[1]'::vector)")  # loads the library
        if own:
            for name, value in zip(SETTINGS, ("77", "strict_order", "12345", "2"), strict=True):
                connection.exec_driver_sql(f"SET {name} = '{value}'")
        connection.commit()
        before = settings(connection)
        assert before == (["77", "strict_order", "12345", "2"] if own else ["40", "off", "20000", "1"])
        ask(connection, f"SELECT * FROM {call}", **given)
        assert settings(connection) == before
        connection.commit()
        assert settings(connection) == before
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        ask(connection, f"SELECT * FROM {call}", **given)
        assert settings(connection) == before


def test_settings_are_as_before_after_an_error(wares: Wares) -> None:
    """Rolled back to a savepoint, the transaction goes on with its own."""
    with wares.engine.connect() as connection:
        ids(connection, "SELECT vector_dims('[1]'::vector)")
        connection.exec_driver_sql("SET LOCAL hnsw.ef_search = 55")
        before = settings(connection)
        savepoint = connection.begin_nested()
        connection.exec_driver_sql("SET LOCAL work_mem = '64kB'")
        with pytest.raises(DBAPIError, match="division by zero"):
            # the search has run when the division fails
            ask(connection, "SELECT 1 / (rank - 1) FROM passages_search(:q, 2000)", q=wares.literal(0))
        savepoint.rollback()
        assert settings(connection) == before
        savepoint = connection.begin_nested()
        connection.exec_driver_sql("SET LOCAL statement_timeout = '1ms'")
        with pytest.raises(DBAPIError, match="statement timeout"):  # while it scans
            ask(
                connection,
                "SELECT * FROM generate_series(1, 1000) AS n, passages_search(:q, 2000 + n)",
                q=wares.literal(0),
            )
        savepoint.rollback()
        assert settings(connection) == before


def test_settings_stay_where_the_transaction_is_rolled_back(wares: Wares) -> None:
    """A pool gets its connection back as it was."""
    with wares.engine.connect() as connection:
        ask(connection, "SELECT * FROM passages_search(:q, 2000)", q=wares.literal(0))
        connection.rollback()
        assert settings(connection) == ["40", "off", "20000", "1"]
