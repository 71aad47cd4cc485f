"""A partition on another server: searches are right, and every tool says what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, select, text

from pgmrl import check_schema, database, explain, search
from pgmrl.doctor import Thresholds, doctor
from pgmrl.errors import MigrationError
from pgmrl.measure.recall import measure_recall
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Short
from pgmrl.online.index_builds import build
from pgmrl.online.target import Target
from tests.databases import connected, create_extension, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.local import LocalServer

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
            address = connection.engine.url
            host, port = address.query["host"], address.query["port"]
            connection.exec_driver_sql(
                "CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw "
                f"OPTIONS (host '{host}', port '{port}', dbname '{shard.url.database}', extensions 'vector')"
            )
            connection.exec_driver_sql("CREATE USER MAPPING FOR CURRENT_USER SERVER shard OPTIONS (user 'postgres')")
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
        assert finding.message.startswith("items_1: on other servers.")
        assert finding.values == {"partitions": ["items_1"]}
        assert [tuple(row) for row in connection.execute(text(finding.sql))] == [("items_1",)]
        assert {one.check for one in report} == {"foreign-partition", "recall-unmeasured"}
        assert report.not_checked == ()
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
    """The server's words name it; a search for rows of the partition here goes on."""
    with halves.begin() as connection:
        connection.exec_driver_sql("ALTER SERVER shard OPTIONS (SET port '1')")
    with halves.connect() as connection:
        local = search(select(ITEMS.c.id).where(ITEMS.c.half == 0), ITEMS.c.embedding, VECTORS[4], k=1)
        assert connection.execute(local).scalars().all() == [4]
        with pytest.raises(Exception, match='could not connect to server "shard"'):
            connection.execute(search(select(ITEMS.c.id), ITEMS.c.embedding, VECTORS[3]))
