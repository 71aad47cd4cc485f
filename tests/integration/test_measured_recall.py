"""Recall as it is measured: against NumPy, split into its causes, on planted losses and under bad conditions."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from pgmrl import Hnsw, Matryoshka, Short, add_side_table, database, install_functions, load_settings, reflect, search
from pgmrl.database.settings import Setting, forget_setting, setting_of, store_setting, stored_setting
from pgmrl.errors import DefinitionError, MeasureError, NotMigrated, SearchError
from pgmrl.measure import (
    measure_recall,
    recall_at_k,
    recall_history,
    record_recall,
    sampled_queries,
    selected_queries,
    vector_queries,
)
from pgmrl.measure import recall as recall_module
from pgmrl.measure.recall import Clock
from pgmrl.model.types import NumpyVector
from pgmrl.names import quoted
from tests.conftest import vector_text
from tests.databases import indexed_afterwards, vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from tests.corpus import Corpus
else:
    Corpus = Connection = Engine = Any

ROWS, DIMS = 4_000, 96


def table_of(name: str = "packages", **options: Any) -> Table:
    """Passages with 96 dimensions, found by 16: enough are lost to see why."""
    return Table(
        name,
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("package", Text),
        Column("embedding", Matryoshka(DIMS, Short(16), **options)),
    )


def filled(engine: Engine, corpus: Corpus, table: Table, rows: int = ROWS) -> None:
    """The table with its first rows, analyzed."""
    with engine.begin() as connection:
        table.metadata.create_all(connection)
        given = [
            {"id": n, "package": corpus.passages[n]["package"], "embedding": corpus.documents[n, :DIMS]}
            for n in range(rows)
        ]
        if given:
            with indexed_afterwards(connection, table):
                connection.execute(table.insert(), given)
    vacuum(engine, table.name)


@pytest.fixture(scope="module")
def packages(module_engine: Engine, corpus: Corpus) -> Table:
    """4,000 passages."""
    table = table_of(index=Hnsw(m=4, ef_construction=8))
    filled(module_engine, corpus, table)
    return table


@pytest.fixture
def asked(module_engine: Engine) -> Iterator[Connection]:
    """A connection that only reads."""
    with module_engine.connect() as connection:
        yield connection


def nearest(stored: Any, query: Any) -> Any:
    """Distances of every row, by NumPy."""
    rows, one = stored.astype(np.float64), np.asarray(query, np.float16).astype(np.float64)
    return 1 - rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)


# -- what is measured ----------------------------------------------------------------------------------------------


def test_recall_and_its_causes_are_what_numpy_says(asked: Connection, packages: Table, corpus: Corpus) -> None:
    """Of queries that are no rows: recall, and what the exact short order loses."""
    queries = vector_queries(packages.c.embedding, corpus.queries[:60, :DIMS])
    found = measure_recall(asked, packages.c.embedding, queries=queries, shortlist=30)
    stored = corpus.documents[:ROWS, :DIMS].astype(np.float16)
    truncation = []
    for number, query in enumerate(queries.vectors):
        distances = nearest(stored, query)
        short = nearest(stored[:, :16], query[:16])
        listed = np.sort(distances[np.argsort(short, kind="stable")[:30]])[:10].tolist()
        truth = np.sort(distances)[:10].tolist()
        truncation.append(1 - recall_at_k(listed, truth))
        made = search(select(packages.c.id), packages.c.embedding, query, k=10, shortlist=30)
        hits = [row.distance for row in asked.execute(made)]
        assert found.losses[number].recall == recall_at_k(hits, truth)
    # the short vectors are rounded to half precision: a place may differ at the shortlist's end
    assert found.truncation == pytest.approx(np.mean(truncation), abs=0.01)
    assert 0 < found.truncation < 1
    # what is left of the loss is the scan's: every graph is another, and may even be right by what it passes by
    assert found.ann == pytest.approx(1 - found.recall.mean - np.mean(truncation), abs=0.01)
    assert found.index == "packages_embedding_short_16_hnsw"
    assert (found.queries, found.requested, found.shortlist, found.ef_search) == (60, 60, 30, 30)


def test_the_filter_is_told_with_its_values(asked: Connection, packages: Table) -> None:
    """As somebody would write them in psql."""
    statement = select(packages.c.id).where(packages.c.package == "it's", packages.c.id > 3)
    found = measure_recall(asked, packages.c.embedding, statement, queries=2)
    assert found.filter == "packages.package = 'it''s' AND packages.id > 3"


@pytest.mark.parametrize("where", [None, "package = 'email'", "id % 50 = 7", "package = 'none'"])
@pytest.mark.parametrize("complete", [True, False])
def test_the_parts_sum_to_the_loss(asked: Connection, packages: Table, where: str | None, complete: bool) -> None:
    """Of each query, whatever the filter leaves."""
    statement = select(packages.c.id)
    if where is not None:
        statement = statement.where(text(where))
    found = measure_recall(asked, packages.c.embedding, statement, queries=15, shortlist=20, complete=complete)
    for one in found.losses:
        assert 1 - one.recall == pytest.approx(one.truncation + one.ann + one.shortfall - one.completed)
        assert one.returned <= one.expected <= 10
    assert 1 - found.recall.mean == pytest.approx(found.truncation + found.ann + found.shortfall - found.completed)
    assert found.filter == where


def test_a_row_is_not_its_own_neighbour(asked: Connection, packages: Table, corpus: Corpus) -> None:
    """And does not take a place of the others."""
    found = measure_recall(asked, packages.c.embedding, queries=30, shortlist=ROWS, ef_search=1000)
    assert found.truncation == 0  # every row is in the exact shortlist
    assert found.recall.mean > 0.9  # of so poor a graph some rows cannot be reached
    assert {one.returned for one in found.losses} == {10}
    few = measure_recall(asked, packages.c.embedding, queries=30, k=1, shortlist=1, ef_search=1)
    stored = corpus.documents[:ROWS, :DIMS].astype(np.float16)
    for one in few.losses:
        (number,) = one.key  # type: ignore[misc]
        short = nearest(stored[:, :16], stored[number, :16])
        full = nearest(stored, stored[number])
        short[number] = full[number] = np.inf
        # with twins among the rows, both are as near
        assert one.truncation == 1 - float(full[short.argmin()] <= full.min() + 1e-6)


def test_a_filter_that_leaves_few(asked: Connection, packages: Table) -> None:
    """Without the exact fallback rows do not come back; with it they are given back."""
    statement = select(packages.c.id).where(packages.c.id % 200 == 3)
    asked.exec_driver_sql("SET enable_seqscan = off")  # on so small a table the planner would not walk the graph
    asked.exec_driver_sql("SET hnsw.max_scan_tuples = 50")
    alone = measure_recall(asked, packages.c.embedding, statement, queries=20, complete=False)
    assert alone.shortfall > 0.3
    assert alone.completed == 0
    whole = measure_recall(asked, packages.c.embedding, statement, queries=20)
    assert whole.recall.mean == 1
    assert whole.completed == pytest.approx(alone.shortfall + whole.ann + whole.truncation)
    assert any("leave complete=False out" in one.why for one in alone.worst)


def test_the_worst_queries_and_why(asked: Connection, packages: Table) -> None:
    """A shortlist as long as is said would hold all neighbours of the query."""
    found = measure_recall(asked, packages.c.embedding, queries=40, shortlist=12, worst=4)
    assert [one.loss.recall for one in found.worst] == sorted(one.recall for one in found.losses)[:4]
    for one in found.worst:
        assert one.why
        if one.loss.truncation > 0:
            assert one.needed is not None
            assert one.needed > 12
            assert f"{one.needed:,}" in one.why
            asked.exec_driver_sql("SET enable_indexscan = off")
            (vector,) = asked.execute(select(packages.c.embedding).where(packages.c.id == one.loss.key[0])).one()  # type: ignore[index]
            for size, whole in ((one.needed, True), (one.needed - 1, False)):
                made = search(select(packages.c.id), packages.c.embedding, vector, k=11, shortlist=size + 1)
                hits = [row.distance for row in asked.execute(made) if row.id != one.loss.key[0]]  # type: ignore[index]
                truth = search(select(packages.c.id), packages.c.embedding, vector, k=11, exact=True)
                best = [row.distance for row in asked.execute(truth) if row.id != one.loss.key[0]]  # type: ignore[index]
                assert (recall_at_k(hits[:10], best[:10]) == 1) is whole
            asked.exec_driver_sql("RESET enable_indexscan")


def test_a_shortlist_out_of_reach_is_not_advised(asked: Connection, packages: Table) -> None:
    """Of a hundred neighbours, 16 of 96 dimensions rank some behind a thousand rows."""
    found = measure_recall(asked, packages.c.embedding, queries=40, k=100, shortlist=100, worst=40)
    far = [one for one in found.worst if one.needed is not None and one.needed > 1_000]
    assert far
    for one in far:
        assert f"no shortlist within reach ({one.needed:,}): more short dimensions or a rotation" in one.why
        assert "would hold them" not in one.why


def test_a_search_with_a_join(asked: Connection, packages: Table) -> None:
    """It is measured as it is, and the worst queries are looked into."""
    other = packages.alias()
    statement = select(packages.c.id).join(other, other.c.id == packages.c.id)
    joined = measure_recall(asked, packages.c.embedding, statement, queries=20, shortlist=12, complete=False)
    assert any(one.needed is not None and one.needed > 12 for one in joined.worst)
    plain = measure_recall(asked, packages.c.embedding, queries=20, shortlist=12)
    assert joined.truncation == plain.truncation


def test_the_same_seed_gives_the_same_queries(asked: Connection, packages: Table) -> None:
    """And another one gives others."""
    first, again, other = (sampled_queries(asked, packages.c.embedding, 50, seed=seed) for seed in (1, 1, 2))
    assert first.keys == again.keys != other.keys
    assert first.keys is not None
    assert len(set(first.keys)) == 50


def test_the_same_queries_whatever_the_keys_collation(engine: Engine, corpus: Corpus) -> None:
    """Keys of texts of which each has another one, and of which two read alike when joined."""
    table = Table(
        "packages",
        MetaData(),
        Column("a", Text(collation="C"), primary_key=True),
        Column("b", Text(collation="POSIX"), primary_key=True),
        Column("embedding", Matryoshka(DIMS, Short(16))),
    )
    with engine.begin() as connection:
        table.create(connection)
        keys = [(f"{n},{m}", f"{m}") for n in range(20) for m in range(10)] + [("x", "y,z"), ("x,y", "z")]
        given = [{"a": a, "b": b, "embedding": corpus.documents[n, :DIMS]} for n, (a, b) in enumerate(keys)]
        connection.execute(table.insert(), given)
        first = sampled_queries(connection, table.c.embedding, 5, seed=3)
        connection.execute(table.delete())
        connection.execute(table.insert(), given[::-1])  # other places, the same order
        assert sampled_queries(connection, table.c.embedding, 5, seed=3).keys == first.keys


def test_rows_among_many_zero_vectors(engine: Engine, corpus: Corpus) -> None:
    """As many queries as there are rows to ask with, however few of all rows those are."""
    table = table_of(index=None)
    filled(engine, corpus, table, 60)
    with engine.connect() as connection:
        zero = [{"id": n, "embedding": np.zeros(DIMS)} for n in range(1_000, 2_500)]
        connection.execute(table.insert(), zero)
        found = sampled_queries(connection, table.c.embedding, 50)
    assert len(found) == 50
    assert found.skipped > 0


@pytest.fixture
def fetched(asked: Connection) -> Iterator[list[tuple[str, int]]]:
    """The statements, and how many rows each has brought; of a cursor's, less than none."""
    sent: list[tuple[str, int]] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append((statement, cursor.rowcount))

    event.listen(asked, "after_cursor_execute", note)
    yield sent
    event.remove(asked, "after_cursor_execute", note)


def test_one_pass_for_all_queries(asked: Connection, packages: Table, fetched: list[tuple[str, int]]) -> None:
    """The table is read once, through a cursor; what else comes is a few times as many rows as there are queries."""
    found = measure_recall(asked, packages.c.embedding, queries=30, shortlist=12)
    assert any(one.needed is not None for one in found.worst)
    passes = ("SELECT packages.id, halfvec_send(packages.embedding)", "WHERE packages.embedding IS NOT NULL")
    whole = [sent for sent in fetched if sent[0].startswith(passes[0]) and sent[0].endswith(passes[1])]
    assert len(whole) == 1
    assert max(count for sent, count in fetched if (sent, count) not in whole) <= 3 * 30 + 100
    del fetched[:]
    assert len(selected_queries(asked, packages.c.embedding, "SELECT embedding FROM packages", limit=7)) == 7
    assert max(count for _, count in fetched) == 7


def test_a_shortlist_that_is_sorted_is_searched_for_once(
    asked: Connection, packages: Table, fetched: list[tuple[str, int]]
) -> None:
    """Where no index serves it there is nothing that the exact fallback could give back; through an index, twice.

    Nor is there where the scan fills the shortlist.
    """
    few = select(packages.c.id).where(packages.c.id % 200 == 3)
    for through_index, statement, searches in ((False, few, 10), (True, few, 20), (True, None, 10)):
        asked.exec_driver_sql(f"SET enable_seqscan = {'off' if through_index else 'on'}")
        del fetched[:]
        measured = measure_recall(asked, packages.c.embedding, statement, queries=10, worst=0)
        assert (measured.index is not None) == through_index
        sent = [sql for sql, _ in fetched if sql.startswith("WITH pgmrl_")]
        assert len(sent) == searches


def test_long_searches_of_a_sorted_shortlist_are_not_all_made(
    asked: Connection, packages: Table, fetched: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once some have lost what the exact shortlist loses; the numbers are the same. Through an index all are made."""
    few = select(packages.c.id).where(packages.c.id % 20 == 3)
    options: dict[str, Any] = {"queries": 12, "shortlist": 11, "worst": 0}
    every = measure_recall(asked, packages.c.embedding, few, **options)
    assert every.index is None
    assert every.searched == 12
    assert 0 < every.truncation < 1
    monkeypatch.setattr(recall_module, "SEARCHED", 3)
    monkeypatch.setattr(recall_module, "SEARCH_SECONDS", 0)
    del fetched[:]
    some = measure_recall(asked, packages.c.embedding, few, **options)
    assert some.searched == len([sql for sql, _ in fetched if sql.startswith("WITH pgmrl_")]) == 3
    assert [loss._replace(ms=None) for loss in some.losses] == [loss._replace(ms=None) for loss in every.losses]
    assert (some.recall, some.truncation) == (every.recall, every.truncation)
    asked.exec_driver_sql("SET enable_seqscan = off")
    through = measure_recall(asked, packages.c.embedding, few, **options)
    assert through.index is not None
    assert through.searched == 12


def test_a_large_table_is_not_read_whole(engine: Engine, corpus: Corpus, statements: list[str]) -> None:
    """Some of its pages, whatever the seed, also where half of the rows have no vector."""
    table = table_of(index=None)
    filled(engine, corpus, table)
    with engine.begin() as connection:
        for share in (1, 2):
            connection.execute(table.update().where(table.c.id % share != 0).values(embedding=None))
            connection.exec_driver_sql("ANALYZE packages")
            del statements[:]
            for seed in range(5):
                assert len(sampled_queries(connection, table.c.embedding, 10, seed=seed)) == 10
            read = [one for one in statements if "hashtextextended" in one]
            assert len(read) >= 5
            assert all("TABLESAMPLE" in one for one in read)


def test_a_table_that_was_never_analyzed(engine: Engine, corpus: Corpus) -> None:
    """The server chooses among all rows, and sends few."""
    table = table_of(index=None)
    counts: list[int] = []
    with engine.begin() as connection:
        table.create(connection)
        given = [{"id": n, "embedding": corpus.documents[n, :DIMS]} for n in range(1_000)]
        connection.execute(table.insert(), given)
        event.listen(connection, "after_cursor_execute", lambda _, cursor, *__: counts.append(cursor.rowcount))
        assert len(sampled_queries(connection, table.c.embedding, 20)) == 20
    assert max(counts) <= 3 * 20 + 100


def test_queries_of_a_log(asked: Connection, packages: Table) -> None:
    """As pgvector's types, as arrays and as text."""
    for kind in ("embedding", "embedding::vector", "embedding::vector::real[]", "embedding::text"):
        found = selected_queries(
            asked, packages.c.embedding, f"SELECT {kind} FROM packages WHERE id < 20 ORDER BY id; -- the first", limit=5
        )
        assert len(found) == 5
    measured = measure_recall(asked, packages.c.embedding, queries=found)
    assert measured.losses[0].key is None
    for statement, message in (
        ("SELECT 1, 2", "2 columns"),
        ("SELECT nothing", "does not exist"),
        ("SET search_path = public", "syntax error.*\n.*\n.*\n*Give a SELECT of one column"),
        ("DELETE FROM packages RETURNING embedding", "Give a SELECT of one column"),
        ("SELECT embedding FROM packages FOR UPDATE", "read-only transaction"),
        ("SELECT NULL::text", "none can be searched with"),
    ):
        with pytest.raises(MeasureError, match=message):
            selected_queries(asked, packages.c.embedding, statement, limit=5)
        asked.rollback()


@pytest.mark.parametrize("mode", ["AUTOCOMMIT", "READ COMMITTED", "in a transaction"])
def test_nothing_is_left_behind(module_engine: Engine, packages: Table, mode: str) -> None:
    """No setting and no transaction, on a connection of any kind."""
    level = "READ COMMITTED" if mode == "in a transaction" else mode
    settings = "SELECT concat_ws(' ', current_setting('enable_indexscan'), current_setting('statement_timeout'), "
    settings += "current_setting('max_parallel_workers_per_gather'), current_setting('transaction_read_only'))"
    with module_engine.connect().execution_options(isolation_level=level) as connection:
        before = connection.exec_driver_sql(settings).scalar()
        if mode != "in a transaction":
            connection.rollback()
        measure_recall(connection, packages.c.embedding, queries=8)
        if mode != "AUTOCOMMIT":
            assert connection.in_transaction() is (mode == "in a transaction")
        assert connection.exec_driver_sql(settings).scalar() == before
    with module_engine.connect() as connection:
        connection.execute(text("SET default_transaction_read_only = on"))  # as a standby is
        assert measure_recall(connection, packages.c.embedding, queries=8).queries == 8


def test_a_table_that_is_written_to_meanwhile(engine: Engine, corpus: Corpus) -> None:
    """Truth and search are of one snapshot: rows that come between cannot look like losses."""
    table = table_of("busy")
    filled(engine, corpus, table, 1_500)
    stop = threading.Event()

    def write() -> None:
        with engine.connect() as connection:
            n = 10_000
            while not stop.is_set():
                near = corpus.documents[n % 1_500, :DIMS]
                connection.execute(table.insert(), [{"id": n + m, "embedding": near} for m in range(20)])
                connection.execute(table.delete().where(table.c.id < n - 100, table.c.id >= 10_000))
                connection.commit()
                n += 20

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with engine.connect() as connection:
            found = measure_recall(connection, table.c.embedding, queries=30, shortlist=1_400, ef_search=1_000)
    finally:
        stop.set()
        writer.join()
    assert found.truncation == 0


# -- where ---------------------------------------------------------------------------------------------------------


def test_a_side_table(engine: Engine, corpus: Corpus) -> None:
    """Vectors are sampled there, keys are those of the table."""
    table = Table(
        "things", MetaData(), Column("id", Integer, primary_key=True), Column("e", NumpyVector(DIMS, "vector"))
    )
    add_side_table(table.c.e, Short(16))
    with engine.begin() as connection:
        table.metadata.create_all(connection)
        rows = [{"id": n, "e": corpus.documents[n, :DIMS]} for n in range(1_500)]
        connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE things_e")
        connection.exec_driver_sql("SET enable_seqscan = off")
        found = measure_recall(connection, table.c.e, queries=20)
    assert found.index is not None
    assert found.recall.mean > 0.5
    assert found.losses[0].key is not None


NAME = 'it\'s : a "table"'
PARTS = f"""
CREATE SCHEMA "My %s";
CREATE TABLE "My %s".{quoted(NAME)} (
    a int, "B b" text, "Full" halfvec({DIMS}), "Full_short_16" halfvec(16)
        GENERATED ALWAYS AS ((l2_normalize(subvector("Full", 1, 16)))::halfvec(16)) STORED,
    PRIMARY KEY (a, "B b")
) PARTITION BY HASH (a);
CREATE TABLE "My %s".part_0 PARTITION OF "My %s".{quoted(NAME)} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "My %s".part_1 PARTITION OF "My %s".{quoted(NAME)} FOR VALUES WITH (MODULUS 2, REMAINDER 1);
"""


def test_a_key_of_two_columns_and_names_that_need_quotes(engine: Engine, corpus: Corpus) -> None:
    """In another schema, partitioned, with NULL and zero vectors among them."""
    rows = [{"a": n, "B b": f"x{n}", "Full": corpus.documents[n, :DIMS]} for n in range(1_500)]
    rows += [{"a": -n, "B b": "", "Full": None if n % 2 else np.zeros(DIMS)} for n in range(1, 60)]
    table = Table(
        NAME,
        MetaData(schema="My %s"),
        Column("a", Integer, primary_key=True),
        Column("B b", Text, primary_key=True),
        Column("Full", Matryoshka(DIMS, Short(16, name="Full_short_16"))),
    )
    with engine.begin() as connection:
        database.execute_plain(connection, PARTS)
        connection.execute(table.insert(), rows)
        create = f'CREATE INDEX short ON "My %s".{quoted(NAME)} USING hnsw ("Full_short_16" halfvec_cosine_ops)'
        database.execute_plain(connection, create)
        database.execute_plain(connection, f'ANALYZE "My %s".{quoted(NAME)}')
        connection.exec_driver_sql("SET enable_seqscan = off")
        found = measure_recall(connection, table.c.Full, queries=1_400, worst=1, seconds=600)
        assert found.queries == 1_400
        assert found.index is not None
        assert found.index.count("part_") == 2
        assert all(len(one.key) == 2 and one.key[0] >= 0 for one in found.losses if one.key)
        record_recall(connection, table.c.Full, found)
        assert recall_history(connection, table.c.Full)[0].recall == found.recall.mean
        store_setting(connection, table.c.Full, Setting(10, 50, 60))
        assert stored_setting(connection, table.c.Full) == Setting(10, 50, 60)


def test_pgvector_in_another_schema(elsewhere: Engine, corpus: Corpus) -> None:
    """And not on the search_path."""
    table = table_of(vector_schema="extensions")
    with elsewhere.begin() as connection:
        table.create(connection)
        rows = [{"id": n, "embedding": corpus.documents[n, :DIMS]} for n in range(1_000)]
        connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ANALYZE packages")
        connection.exec_driver_sql("SET enable_seqscan = off")
        assert measure_recall(connection, table.c.embedding, queries=20).index is not None


def test_row_level_security(engine: Engine, corpus: Corpus) -> None:
    """The role's own rows are measured, as its searches find them."""
    table = table_of()
    filled(engine, corpus, table, 1_500)
    role = f"tenant_{abs(hash(str(engine.url)))}"
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE packages ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON packages USING (mod(id, 3) = 0)",
            f"CREATE ROLE {role}",
            f"GRANT SELECT ON packages TO {role}",
        ):
            connection.exec_driver_sql(statement)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
            found = measure_recall(connection, table.c.embedding, queries=40)
            assert {one.key[0] % 3 for one in found.losses if one.key} == {0}
            assert {one.expected for one in found.losses} == {10}
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


def test_a_hot_standby(standby: Engine, corpus: Corpus) -> None:
    """Nothing is written, so it need not be the primary; what cannot be recorded there says so."""
    with standby.connect() as connection:
        column = reflect(connection, "packages.embedding")
        connection.rollback()
        queries = vector_queries(column, corpus.queries[:20, :96])
        found = measure_recall(connection, column, queries=queries)
        assert found.queries == 20
        assert found.index is not None
        with pytest.raises(DBAPIError, match="read-only transaction"):
            record_recall(connection, column, found)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_few_rows_or_none(engine: Engine, corpus: Corpus) -> None:
    """None is an error; fewer than k are what there is."""
    table = table_of()
    filled(engine, corpus, table, 0)
    with engine.connect() as connection:
        with pytest.raises(MeasureError, match="has no row with a vector"):
            measure_recall(connection, table.c.embedding)
        connection.execute(
            table.insert(), [{"id": -n, "embedding": None if n % 2 else np.zeros(DIMS)} for n in range(9)]
        )
        with pytest.raises(MeasureError, match="none has a usable vector"):
            measure_recall(connection, table.c.embedding)
        connection.execute(table.insert(), [{"id": n, "embedding": corpus.documents[n, :DIMS]} for n in range(1, 4)])
        found = measure_recall(connection, table.c.embedding)
        assert found.recall.mean == 1
        assert {(one.returned, one.expected) for one in found.losses} == {(2, 2)}
        assert found.instead is not None  # so few rows are not read through an index


def test_all_vectors_equal(engine: Engine, corpus: Corpus) -> None:
    """Whichever come back are as near as any."""
    table = table_of()
    filled(engine, corpus, table, 0)
    with engine.connect() as connection:
        connection.execute(table.insert(), [{"id": n, "embedding": corpus.documents[0, :DIMS]} for n in range(500)])
        assert measure_recall(connection, table.c.embedding, queries=20).recall.mean == 1


def test_without_an_index(engine: Engine, corpus: Corpus) -> None:
    """None, an invalid one, no short vectors at all: each says what is missing."""
    table = table_of(index=None)
    filled(engine, corpus, table, 100)
    with engine.connect() as connection:
        with pytest.raises(NotMigrated, match="no HNSW index"):
            measure_recall(connection, table.c.embedding)
        connection.exec_driver_sql("CREATE INDEX bad ON packages USING hnsw (embedding_short_16 halfvec_cosine_ops)")
        connection.exec_driver_sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'bad'::regclass")
        with pytest.raises(NotMigrated, match="only an invalid HNSW index"):
            measure_recall(connection, table.c.embedding)
        connection.exec_driver_sql("CREATE TABLE plain (id int PRIMARY KEY, e vector(8))")
        with pytest.raises(NotMigrated, match="no short vectors"):
            measure_recall(connection, reflect(connection, "plain.e"))


def test_each_statement_has_what_is_left(asked: Connection, packages: Table) -> None:
    """The limit is of all together: the server is told anew before each of a query's statements."""
    limits: list[int] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SET LOCAL statement_timeout = "):
            limits.append(int(statement.rpartition(" ")[2]))

    event.listen(asked, "before_cursor_execute", note)
    try:
        measure_recall(asked, packages.c.embedding, queries=5, worst=0)
    finally:
        event.remove(asked, "before_cursor_execute", note)
    assert len(limits) >= 5 + 3  # each search, and sampling, plan and pass
    assert limits == sorted(limits, reverse=True)
    assert 0 < limits[-1] < limits[0] <= 60_000


def test_too_little_time(asked: Connection, packages: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one query is an error; some are reported as some."""
    with pytest.raises(MeasureError, match="not one query was tried"):
        measure_recall(asked, packages.c.embedding, seconds=0.001)
    tried: list[tuple[str, int]] = []
    monkeypatch.setattr(Clock, "left", property(lambda _: 0.0 if ("queries", 7) in tried else 60.0))
    found = measure_recall(asked, packages.c.embedding, queries=50, progress=lambda *done: tried.append(done[:2]))
    assert (found.queries, found.requested) == (7, 50)
    assert not asked.in_transaction()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": 0}, SearchError),
        ({"shortlist": 5}, SearchError),
        ({"ef_search": 1001}, SearchError),
        ({"seconds": 0}, SearchError),
        ({"queries": 0}, MeasureError),
    ],
)
def test_numbers_that_make_no_sense(asked: Connection, packages: Table, options: Any, error: type[Exception]) -> None:
    """Each is refused before anything is read for long."""
    with pytest.raises(error):
        measure_recall(asked, packages.c.embedding, **options)


def test_a_dropped_connection_is_the_servers_own_error(module_engine: Engine, packages: Table) -> None:
    """Not taken for the end of the time."""
    url = module_engine.url
    with create_engine(url).connect() as connection, module_engine.connect() as other:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        connection.rollback()

        def drop(what: str, done: int, _: int) -> None:
            if (what, done) == ("queries", 3):
                other.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")

        with pytest.raises(OperationalError, match="terminating connection"):
            measure_recall(connection, packages.c.embedding, queries=30, progress=drop)


# -- history and settings ------------------------------------------------------------------------------------------


def test_history(engine: Engine, corpus: Corpus) -> None:
    """Oldest first; it follows a renamed table; only those who may read the table see it."""
    table = table_of()
    filled(engine, corpus, table, 300)
    with engine.begin() as connection:
        for size in (40, 100):
            found = measure_recall(connection, table.c.embedding, queries=5, shortlist=size)
            record_recall(connection, table.c.embedding, found)
        assert [one.shortlist for one in recall_history(connection, table.c.embedding)] == [40, 100]
        assert len(recall_history(connection, table.c.embedding, limit=1)) == 1
        connection.exec_driver_sql("ALTER TABLE packages RENAME TO wares")
        assert connection.exec_driver_sql(
            "SELECT DISTINCT relation::text FROM pgmrl.recall_history"
        ).scalars().all() == ["wares"]
        with connection.begin_nested() as savepoint:
            connection.exec_driver_sql("CREATE ROLE nobody_reads")
            connection.exec_driver_sql("SET LOCAL ROLE nobody_reads")
            assert connection.exec_driver_sql("SELECT count(*) FROM pgmrl.recall_history").scalar() == 0
            savepoint.rollback()


def test_without_pgmrls_schema_nothing_is_recorded(engine: Engine, corpus: Corpus) -> None:
    """Nor set; searches go on with pgmrl's own defaults."""
    table = table_of()
    filled(engine, corpus, table, 50)
    with engine.begin() as connection:
        found = measure_recall(connection, table.c.embedding, queries=2)
        database.downgrade(connection)
        assert load_settings(connection, table.metadata) == {}
        assert stored_setting(connection, table.c.embedding) is None
        with pytest.raises(NotMigrated, match="not installed"):
            record_recall(connection, table.c.embedding, found)
        with pytest.raises(NotMigrated, match="not installed"):
            store_setting(connection, table.c.embedding, Setting(10, 50, 60))


def limits(statement: Any) -> tuple[str, ...]:
    """Shortlist and ef_search of a search."""
    made = str(statement.compile())
    ef = re.search(r"hnsw\.ef_search', '(\d+)'", made)
    size = re.search(r"LIMIT (\d+)\)", made)
    assert ef is not None
    assert size is not None
    return size[1], ef[1]


def test_a_setting_is_the_default_of_searches(engine: Engine, corpus: Corpus) -> None:
    """In Python from when it is loaded, in SQL from the next call; what a caller says goes before."""
    table = table_of()
    filled(engine, corpus, table, 2_000)
    query, column = corpus.queries[0, :DIMS], table.c.embedding

    def numbers(**options: Any) -> tuple[str, ...]:
        return limits(search(select(table.c.id), column, query, **options))

    with engine.begin() as connection:
        install_functions(connection, column)
        connection.exec_driver_sql("SET enable_seqscan = off")
        literal = vector_text(query)
        before = connection.execute(text("SELECT id FROM packages_search(:q)"), {"q": literal}).scalars().all()
        assert numbers() == ("100", "100")
        store_setting(connection, column, Setting(10, 12, 20, target=0.9))
        assert numbers() == ("100", "100")
        assert load_settings(connection, table.metadata) == {"packages.embedding": Setting(10, 12, 20, target=0.9)}
        assert numbers() == ("12", "20")
        assert numbers(k=5) == ("12", "20")
        assert numbers(k=20) == ("24", "40")
        assert numbers(shortlist=50) == ("50", "50")
        assert numbers(oversample=3) == ("40", "40")
        assert numbers(ef_search=30) == ("12", "30")
        other = connection.execute(text("SELECT id FROM packages_search(:q)"), {"q": literal}).scalars().all()
        python = connection.execute(search(select(table.c.id), column, query)).scalars().all()
        assert other == python != before
        given = connection.execute(text("SELECT id FROM packages_search(:q, shortlist => 100)"), {"q": literal})
        assert given.scalars().all() == before
        reflected = reflect(connection, "packages.embedding")
        assert setting_of(reflected) == Setting(10, 12, 20, target=0.9)
        store_setting(connection, column, Setting(10, 30, 30))
        assert forget_setting(connection, column)
        assert not forget_setting(connection, column)
        assert load_settings(connection, column) == {}
        assert numbers() == ("100", "100")
        again = connection.execute(text("SELECT id FROM packages_search(:q)"), {"q": literal}).scalars().all()
        assert again == before
        assert setting_of(column) is None


def test_a_setting_of_another_short_column_does_not_hold(engine: Engine, corpus: Corpus) -> None:
    """After a reshape the numbers of the old vectors are no longer right."""
    short: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(32)))
    table, other = table_of(), Table("packages", MetaData(), Column("id", Integer, primary_key=True), short)
    filled(engine, corpus, table, 10)
    with engine.begin() as connection:
        store_setting(connection, table.c.embedding, Setting(10, 12, 20))
        assert load_settings(connection, other.c.embedding) == {}
        assert load_settings(connection, table.c.embedding) != {}


def test_a_setting_for_nothing(engine: Engine) -> None:
    """A table that is not there, a column without short vectors."""
    with engine.begin() as connection:
        with pytest.raises(NotMigrated, match="no table"):
            store_setting(connection, table_of().c.embedding, Setting(10, 12, 20))
        connection.exec_driver_sql("CREATE TABLE plain (id int PRIMARY KEY, e vector(8))")
        with pytest.raises(DefinitionError, match="no short vectors"):
            store_setting(connection, reflect(connection, "plain.e"), Setting(10, 12, 20))
