"""Partitions that are many, come and go, or lie on other servers: searches, and what the tools say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import check_schema, database, explain, search
from pgmrl.database.settings import Setting, store_setting
from pgmrl.doctor import Thresholds, doctor
from pgmrl.errors import MigrationError
from pgmrl.measure.queries import vector_queries
from pgmrl.measure.recall import measure_recall
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Short
from pgmrl.online.index_builds import build
from pgmrl.online.target import Target
from pgmrl.searching.plans import explained, nodes, shortlist_scans
from tests.databases import connected, create_extension, new_database, vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.local import LocalServer
    from tests.corpus import Corpus

ROWS, DIMS = 600, 16
VECTORS = np.random.default_rng(7).normal(size=(ROWS, DIMS)).astype(np.float32)
ITEMS = Table(
    "items",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("half", Integer, primary_key=True, autoincrement=False),
    Column("embedding", Matryoshka(DIMS, Short(8))),
    postgresql_partition_by="LIST (half)",
)
HERE = Thresholds(small_rows=100)


@pytest.fixture
def halves(engine: Engine, server: LocalServer) -> Iterator[Engine]:
    """A table with one partition here, under an index, and one in another database."""
    with new_database(server, "shard") as url, connected(url) as shard:
        with shard.begin() as connection:
            ITEMS.create(connection)
            connection.exec_driver_sql("CREATE TABLE items_1 PARTITION OF items FOR VALUES IN (1)")
        with engine.begin() as connection:
            create_extension(connection, "postgres_fdw")
            ITEMS.create(connection)
            # a unique index would keep foreign partitions out, and so does the key
            connection.exec_driver_sql("ALTER TABLE items DROP CONSTRAINT items_pkey")
            connection.exec_driver_sql("CREATE TABLE items_0 PARTITION OF items FOR VALUES IN (0)")
            driver: Any = connection.connection.driver_connection
            there = driver.info
            connection.exec_driver_sql(
                "CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw "
                f"OPTIONS (host '{there.host}', port '{there.port}', dbname '{shard.url.database}', "
                "extensions 'vector')"
            )
            login = f"user '{there.user}', password '{there.password}'"
            connection.exec_driver_sql(f"CREATE USER MAPPING FOR CURRENT_USER SERVER shard OPTIONS ({login})")
            connection.exec_driver_sql("CREATE FOREIGN TABLE items_1 PARTITION OF items FOR VALUES IN (1) SERVER shard")
        with engine.begin() as connection:
            connection.execute(
                ITEMS.insert(), [{"id": n, "half": n % 2, "embedding": row} for n, row in enumerate(VECTORS)]
            )
            connection.exec_driver_sql("ANALYZE items")
        yield engine


def test_searches_and_what_is_said_of_them(halves: Engine) -> None:
    """Rows of both, exactly the nearest where the shortlist holds all; the reason is not guessed."""
    query = VECTORS[3] + VECTORS[4]
    statement = search(select(ITEMS.c.id), ITEMS.c.embedding, query, k=20, shortlist=ROWS)
    stored = VECTORS.astype(np.float16).astype(np.float64)
    distances = 1 - stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    with halves.connect() as connection:
        ids = list(connection.execute(statement).scalars())
        assert ids == np.argsort(distances)[:20].tolist()
        assert {number % 2 for number in ids} == {0, 1}
        plan = explain(connection, statement)
        assert not plan.index_used
        assert plan.reasons == ("items_1: on another server, of whose indexes this one knows nothing",)
        connection.rollback()
        measured = measure_recall(connection, ITEMS.c.embedding, queries=20, shortlist=ROWS)
        assert measured.recall.mean == 1
        assert "items_1 is read by a Foreign Scan" in str(measured.instead)


def test_doctor_and_columns(halves: Engine) -> None:
    """The index is that of the partitions here; the other one is named, with what to do."""
    with halves.connect() as connection:
        report = doctor(connection, thresholds=HERE)
        (finding,) = [one for one in report if one.check == "foreign-partition"]
        assert finding.severity == "warning"
        assert finding.message.startswith("public.items_1: on other servers.")
        assert finding.values == {"partitions": ["public.items_1"]}
        assert [tuple(row) for row in connection.execute(text(finding.sql))] == [("items_1",)]
        assert {one.check for one in report} == {"foreign-partition", "recall-unmeasured"}
        assert [one.check for one in report.not_checked] == ["plan"]  # without a key there is no search to plan
        (column,) = database.columns(connection)
        assert column.index_valid
        assert check_schema(connection, ITEMS.c.embedding) == column


def test_an_index_built_while_others_write(halves: Engine) -> None:
    """It could never become valid: refused before anything is made; a plain one leaves the other server's out."""
    index = f"items_{attachment_of(ITEMS.c.embedding).short}_hnsw"
    target = Target("items", "embedding", attachment_of(ITEMS.c.embedding).definition)
    with halves.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"DROP INDEX {index}")
        with pytest.raises(MigrationError, match=r"items_1: foreign tables, beside which an index of items .* never"):
            build(connection, target, Hnsw())
        assert connection.scalar(text("SELECT to_regclass(:name)"), {"name": index}) is None
        connection.exec_driver_sql(
            f"CREATE INDEX {index} ON items USING hnsw ({target.short} halfvec_cosine_ops) WITH (m = 16)"
        )
        (column,) = database.columns(connection)
        assert column.index_valid


def test_another_server_that_does_not_answer(halves: Engine) -> None:
    """The server's words name it, and no rows come without its own."""
    with halves.begin() as connection:
        connection.exec_driver_sql("ALTER SERVER shard OPTIONS (SET port '1')")
    everything = search(select(ITEMS.c.id), ITEMS.c.embedding, VECTORS[3])
    with halves.connect() as connection, pytest.raises(DBAPIError, match='could not connect to server "shard"'):
        connection.execute(everything)


# -- many, and changing ------------------------------------------------------------------------------------------------

PARTS, PASSAGES = 8, 2_400


@pytest.fixture
def parts(engine: Engine, corpus: Corpus) -> Engine:
    """2,400 real vectors of 96 dimensions, by tenant in eight partitions, one per tenant."""
    table = tenants()
    with engine.begin() as connection:
        table.create(connection)
        for tenant in range(PARTS):
            connection.exec_driver_sql(f"CREATE TABLE docs_{tenant} PARTITION OF docs FOR VALUES IN ({tenant})")
        rows = [
            {"id": n, "tenant": n % PARTS, "embedding": row} for n, row in enumerate(corpus.documents[:PASSAGES, :96])
        ]
        connection.execute(table.insert(), rows)
    vacuum(engine, "docs")
    return engine


def tenants() -> Table:
    """The table of `parts`."""
    return Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("tenant", Integer, primary_key=True, autoincrement=False),
        Column("embedding", Matryoshka(96, Short(32))),
        postgresql_partition_by="LIST (tenant)",
    )


def scanned(connection: Connection, statement: Any) -> dict[str, bool]:
    """The tables that the shortlist is taken from, and whether in the order of an index."""
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    top = explained(connection, statement, "VERBOSE")["Plan"]
    read = (node for part in shortlist_scans(top) for node in nodes(part) if "Relation Name" in node)
    return {node["Relation Name"]: "Order By" in node for node in read}


def test_the_plan_of_a_search(parts: Engine, corpus: Corpus) -> None:
    """Every partition's index, merged by distance; with a condition on the key that partition alone."""
    table, query = tenants(), corpus.queries[0, :96]
    everything = search(select(table.c.id), table.c.embedding, query)
    of_one = search(select(table.c.id).where(table.c.tenant == 3), table.c.embedding, query)
    with parts.connect() as connection:
        assert scanned(connection, everything) == {f"docs_{tenant}": True for tenant in range(PARTS)}
        assert [*scanned(connection, of_one)] == ["docs_3"]
        ids = list(connection.execute(of_one).scalars())
    assert len(ids) == 10
    assert {number % PARTS for number in ids} == {3}


def test_fewer_candidates_in_each(parts: Engine, corpus: Corpus) -> None:
    """What the doctor proposes finds what the usual number finds, and what is stored ends the finding."""
    with parts.connect() as connection:
        (finding,) = [one for one in doctor(connection, thresholds=HERE) if one.check == "partition-effort"]
        assert finding.severity == "info"
        assert finding.values == {"partitions": PARTS, "ef_search": 100, "enough": 36}
        assert [tuple(row) for row in connection.execute(text(finding.sql))] == [(PARTS,)]
        connection.rollback()
        column = tenants().c.embedding
        queries = vector_queries(column, corpus.queries[:40, :96])
        usual, fewer = (
            measure_recall(connection, column, queries=queries, shortlist=100, ef_search=ef_search).recall.mean
            for ef_search in (100, 36)
        )
        assert fewer >= usual - 0.02
    with parts.begin() as connection:
        store_setting(connection, column, Setting(10, 100, 36))
    with parts.connect() as connection:
        assert not [one for one in doctor(connection, column, thresholds=HERE) if one.check == "partition-effort"]


def test_detached_and_attached(parts: Engine, corpus: Corpus) -> None:
    """A detached partition is a table with a column and an index of its own; attached, its index is the whole's again.

    One that comes without an index gets it from the server, which makes writers wait: built before, it is attached.
    """
    table = tenants()
    statement = search(select(table.c.id), table.c.embedding, corpus.queries[0, :96], k=PASSAGES, shortlist=PASSAGES)
    with parts.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs DETACH PARTITION docs_3")
        assert len(connection.execute(statement).all()) == PASSAGES // PARTS * (PARTS - 1)
        assert [(info.table_name, info.index_valid) for info in database.columns(connection)] == [
            ("docs", True),
            ("docs_3", True),
        ]
    with parts.connect() as connection:
        report = doctor(connection, thresholds=HERE)
        assert {one.check for one in report} == {"partition-effort", "recall-unmeasured"}
        assert {one.subject for one in report} == {"public.docs.embedding", "public.docs_3.embedding"}
    with parts.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs ATTACH PARTITION docs_3 FOR VALUES IN (3)")
        assert len(connection.execute(statement).all()) == PASSAGES
        (info,) = database.columns(connection)
        assert info.index_valid
        indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'docs_3'::regclass AND NOT indisprimary"
        assert connection.scalar(text(indexes)) == 1
