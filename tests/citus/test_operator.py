"""What an operator does on Citus: nodes that lack something, rotations, changes of a table in shards, bad input."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, select, text

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import FilterIndex, Hnsw, Rotation, Short, check_schema, ingest, search
from pgmrl.database import NEWEST_REVISION, psycopg_connection, sqlalchemy_url
from pgmrl.database.shards import DistributedTable, distributed_table, nodes
from pgmrl.doctor import doctor
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Definition, Prefix
from pgmrl.online.contract import pending_contraction
from pgmrl.online.distributing import distribution_statements
from pgmrl.online.reshape import reshape
from tests.citus.proof import NEEDS_CITUS, URL
from tests.cli import ok

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection

pytestmark = NEEDS_CITUS

DIMS, ROWS = 32, 400
TABLE = "pgmrl_proof_operated"


@dataclass(frozen=True)
class Operated:
    """A table with a rotation, distributed by tenant in a migration.

    Attributes:
        engine: on the coordinator.
        table: with the columns tenant, id, part and embedding.
        rotation: in its file.
        vectors: of the rows.

    """

    engine: Engine
    table: Table
    rotation: Rotation
    vectors: NDArray[np.float32]

    @property
    def short(self) -> str:
        """The short column's name."""
        return definition(self.rotation, 8).short_name("embedding")


def definition(by: Any, dims: int, *, name: str | None = None, stored: bool = True) -> Definition:
    """Of a short vector of the table's full ones, by a rotation or a prefix."""
    return Definition.of(DIMS, Short(dims, by=by, name=name), stored=stored)


@contextmanager
def migration(engine: Engine) -> Iterator[Any]:
    """Operations in Alembic's transaction."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            yield Operations(context)


def values(engine: Engine, query: str) -> list[Any]:
    """Rows of a query on the coordinator, in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        result = connection.exec_driver_sql(query, execution_options={"no_parameters": True})
        return [tuple(row) for row in result] if result.returns_rows else []


def on_workers(engine: Engine, command: str) -> None:
    """Run a command on each worker."""
    with engine.begin() as connection:
        query = text("SELECT success, result FROM run_command_on_workers(:command)")
        answers = connection.execute(query, {"command": command}).all()
    assert all(answer.success for answer in answers), answers


def forget(engine: Engine, rotation: Rotation) -> None:
    """Remove a rotation from the workers, past the triggers that keep it."""
    on_workers(
        engine,
        "DO $do$ BEGIN IF to_regclass('pgmrl.axes') IS NOT NULL THEN SET LOCAL session_replication_role = replica; "
        f"DELETE FROM pgmrl.axes WHERE rotation_id = '{rotation.id}'; "
        f"DELETE FROM pgmrl.rotations WHERE id = '{rotation.id}'; END IF; END $do$",
    )


@pytest.fixture(scope="module")
def citus() -> Iterator[Engine]:
    """An Engine on the coordinator, without the tables that searches are proved on."""
    assert URL is not None
    engine = create_engine(sqlalchemy_url(URL))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def operated(citus: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """Everything in one migration: pgmrl's schema, a rotation that no node has seen, the table, its shards."""
    rng = np.random.default_rng(secrets.randbits(64))
    axes, _ = np.linalg.qr(rng.normal(size=(DIMS, DIMS)))
    folder: Path = tmp_path_factory.mktemp("rotations")
    path = Rotation.of(axes[:8]).save(folder)
    rotation = Rotation.load(path)
    columns: list[Any] = [
        Column("tenant", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("part", Integer),
        Column(
            "embedding",
            Matryoshka(
                DIMS,
                Short(8, by=rotation),
                distributed="tenant",
                filters=[FilterIndex("tenant")],
                index=[Hnsw(), Hnsw(where="part > 5")],
            ),
            nullable=False,
        ),
    ]
    table = Table(TABLE, MetaData(), *columns)
    vectors = rng.normal(size=(ROWS, DIMS)).astype(np.float16).astype(np.float32)
    table.drop(citus, checkfirst=True)
    try:
        with migration(citus) as op:
            op.upgrade_pgmrl(NEWEST_REVISION)
            op.install_rotation(str(path))
            table.create(op.get_bind())
            op.distribute_table(TABLE, "tenant", shards=4)
        yield Operated(citus, table, rotation, vectors)
    finally:
        table.drop(citus, checkfirst=True)
        forget(citus, rotation)


@pytest.fixture(scope="module")
def filled(operated: Operated) -> Operated:
    """With its rows: half of them by COPY, the others by INSERT."""
    rows = [
        {"tenant": n % 7, "id": n, "part": n % 10, "embedding": vector} for n, vector in enumerate(operated.vectors)
    ]
    with operated.engine.begin() as connection:
        ingest(connection, operated.table.c.embedding, rows[: ROWS // 2])
        connection.execute(insert(operated.table), rows[ROWS // 2 :])
    return operated


def missing(operated: Operated, short: str) -> int:
    """Rows without a short vector."""
    query = f"SELECT count(*) FROM {TABLE} WHERE {short} IS NULL"
    return int(values(operated.engine, query)[0][0])


def findings(connection: Connection, *columns: Any) -> dict[str, Any]:
    """The doctor's critical ones, by their checks."""
    return {finding.check: finding for finding in doctor(connection, *columns) if finding.severity == "critical"}


# -- nodes -----------------------------------------------------------------------------------------------------------


def test_one_migration_for_all_nodes(operated: Operated) -> None:
    """Each node has the schema and the rotation; nothing is left to do, in the catalogue nor for autogenerate."""
    with operated.engine.connect() as connection:
        states = nodes(connection)
        assert len(states) > 1
        assert {state.revision for state in states} == {NEWEST_REVISION}
        assert all(operated.rotation.id in (state.rotations or ()) for state in states)
        assert distributed_table(connection, TABLE) == DistributedTable("tenant", 4)
        assert distribution_statements(connection, None, TABLE, "tenant") == []
        assert check_schema(connection, operated.table.c.embedding) is not None
        context = MigrationContext.configure(
            connection,
            opts={
                "autogenerate_plugins": ["alembic.autogenerate.*", "pgmrl"],
                "include_name": lambda name, kind, _: kind != "table" or name == TABLE,
            },
        )
        assert compare_metadata(context, operated.table.metadata) == []


def test_the_schema_stays_on_its_node(operated: Operated) -> None:
    """Citus does not send pgmrl's functions on, which it would without their tables."""
    with operated.engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_dist_object WHERE objid IN (SELECT oid FROM pg_proc WHERE pronamespace = "
                     "'pgmrl'::regnamespace)")  # fmt: skip
        assert connection.execute(query).scalar_one() == 0


def test_a_node_without_the_rotation(operated: Operated) -> None:
    """Named by check_schema and by the doctor, whose remedy is a command that works."""
    forget(operated.engine, operated.rotation)
    with operated.engine.connect() as connection:
        with pytest.raises(NotMigrated, match=rf":\d+ lacks rotation {operated.rotation.id}"):
            check_schema(connection, operated.table.c.embedding)
        finding = findings(connection, operated.table.c.embedding)["nodes-differ"]
    assert f"`pgmrl distribute public.{TABLE} --by tenant` brings it" in finding.remedy
    ok("distribute", TABLE, "--by", "tenant", "--database-url", URL)
    with operated.engine.connect() as connection:
        assert findings(connection, operated.table.c.embedding) == {}


def test_a_node_that_is_down(operated: Operated) -> None:
    """Its name is in each error. Citus' catalogue moves it, for this transaction, to where nobody answers."""
    with operated.engine.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE pg_dist_node SET nodeport = 1 WHERE groupid = (SELECT max(groupid) FROM pg_dist_node)"
        )
        with pytest.raises(NotMigrated, match=r":1 does not answer"):
            check_schema(connection, operated.table.c.embedding)
        with pytest.raises(MigrationError, match=r":1 does not answer.*citus_remove_node"):
            distribution_statements(connection, None, TABLE, "tenant")
        found = findings(connection, operated.table.c.embedding)
        assert "Start the node" in found["nodes-differ"].remedy
        assert "does not answer" in found["shards-differ"].message
        connection.rollback()


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_rotation_over_shards(filled: Operated) -> None:
    """Whoever writes, each shard's trigger computes the short vector; searches find what is nearest."""
    column, table = filled.table.c.embedding, filled.table
    assert missing(filled, filled.short) == 0
    with filled.engine.begin() as connection:
        connection.execute(
            table.update().where(table.c.tenant == 1, table.c.id == 1).values(embedding=filled.vectors[2])
        )
        near = [row[0] for row in connection.execute(search(select(table.c.id), column, filled.vectors[2], k=2))]
        assert sorted(near) == [1, 2]
        connection.execute(
            table.update().where(table.c.tenant == 1, table.c.id == 1).values(embedding=filled.vectors[1])
        )
        for n in (3, 40, 250):
            query = filled.vectors[n]
            rows = connection.execute(search(select(table.c.id), column, query, k=5, shortlist=ROWS)).all()
            exact = connection.execute(search(select(table.c.id), column, query, k=5, exact=True)).all()
            assert rows == exact
            own = connection.execute(search(select(table.c.id).where(table.c.tenant == n % 7), column, query)).all()
            assert [own[0][0], len(own)] == [n, 10]


def test_shards_on_the_coordinator(operated: Operated) -> None:
    """COPY goes to all nodes at once while a trigger runs here, which must not open a savepoint on them."""
    name, engine = "pgmrl_proof_here", operated.engine
    node = values(
        engine,
        "SELECT nodename, nodeport, shouldhaveshards FROM pg_dist_node WHERE groupid = 0 AND noderole = 'primary'",
    )
    if not node:
        pytest.skip("the coordinator is not in Citus' metadata: SELECT citus_set_coordinator_host('…')")
    host, port, before = node[0]
    column: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(8, by=operated.rotation), distributed="id"))
    table = Table(name, MetaData(), Column("id", Integer, primary_key=True, autoincrement=False), column)
    set_property = f"SELECT citus_set_node_property('{host}', {port}, 'shouldhaveshards', %s)"
    values(engine, f"DROP TABLE IF EXISTS {name}")
    try:
        values(engine, set_property % "true")
        with migration(engine) as op:
            table.create(op.get_bind())
            op.distribute_table(name, "id", shards=6)
        placed = f"SELECT DISTINCT nodeport FROM citus_shards WHERE table_name = '{name}'::regclass"
        assert (port,) in values(engine, placed)
        with engine.begin() as connection:
            cursor = psycopg_connection(connection, "COPY").cursor()
            with cursor.copy(f"COPY {name} (id, embedding) FROM STDIN") as copied:
                for n, vector in enumerate(operated.vectors[:50]):
                    copied.write_row((n, str(vector.tolist())))
        values(engine, f"INSERT INTO {name} (id, embedding) SELECT id + 1000, embedding FROM {name} LIMIT 20")
        counts = values(engine, f"SELECT count(*), count({operated.short}) FROM {name}")
        assert counts == [(70, 70)]
    finally:
        values(engine, f"DROP TABLE IF EXISTS {name}")
        values(engine, set_property % str(before).lower())


def test_the_doctor_mends_a_shard(filled: Operated) -> None:
    """An invalid index of one shard, also a partial one, and one that is gone: the remedy is SQL that works."""
    invalid = (
        "UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indrelid = '%1$s'::regclass AND indpred IS NOT NULL "
        f"AND '%1$s' LIKE '%%' || (SELECT min(shardid) FROM pg_dist_shard WHERE logicalrelid = '{TABLE}'::regclass)"
    )
    gone = (
        "DO $do$ DECLARE own regclass; BEGIN FOR own IN SELECT indexrelid FROM pg_index AS x JOIN pg_class AS i "
        "ON i.oid = x.indexrelid JOIN pg_am AS m ON m.oid = i.relam WHERE m.amname = 'hnsw' AND x.indrelid = "
        "%1$L::regclass AND x.indpred IS NULL LOOP EXECUTE format('DROP INDEX %%s', own); END LOOP; END $do$"
    )
    for command, message, begins in (
        (invalid, "the partial HNSW index of shard", "REINDEX"),
        (gone, "has no HNSW index", "DROP"),
    ):
        with filled.engine.begin() as connection:
            query = text("SELECT success, result FROM run_command_on_shards(CAST(:name AS regclass), :command)")
            answers = connection.execute(query, {"name": TABLE, "command": command}).all()
            assert all(answer.success for answer in answers), answers
        with filled.engine.connect() as connection:
            finding = findings(connection, filled.table.c.embedding)["shards-differ"]
        assert message in finding.message
        statements = re.findall(r"((?:REINDEX|DROP|CREATE) INDEX CONCURRENTLY [^;]+);", finding.remedy)
        assert statements[0].startswith(begins)
        for statement in statements:
            values(filled.engine, statement)
        with filled.engine.connect() as connection:
            assert findings(connection, filled.table.c.embedding) == {}


# -- changes ---------------------------------------------------------------------------------------------------------


def test_another_short_column_online(filled: Operated) -> None:
    """Of a rotation and of a prefix: added empty, filled, indexed, checked and dropped, on every shard."""
    for changed in (definition(filled.rotation, 4), definition(Prefix(), 4)):
        short = changed.short_name("embedding")
        for online in (True, False):
            with migration(filled.engine) as op:
                op.add_short(TABLE, "embedding", changed, online=online)
            assert missing(filled, short) == (ROWS if online else 0)
            if online:
                with migration(filled.engine) as op:
                    op.backfill_short(TABLE, "embedding", changed)
                assert missing(filled, short) == 0
            with migration(filled.engine) as op:
                op.create_short_index(TABLE, "embedding", changed)
                op.validate_short(TABLE, "embedding", changed)
                op.rebuild_short_index(TABLE, "embedding", changed, index=Hnsw(m=8))
            shards = values(
                filled.engine,
                f"SELECT result FROM run_command_on_shards('{TABLE}', $$SELECT count(*) FROM pg_index AS x "
                "JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] "
                f"WHERE x.indrelid = '%s'::regclass AND x.indisvalid AND a.attname = '{short}'$$)",
            )
            assert shards == [("1",)] * 4
            with migration(filled.engine) as op:
                op.alter_short(TABLE, "embedding", definition(changed.short.by, 3, name=short))
            assert missing(filled, short) == 0
            with migration(filled.engine) as op:
                op.drop_short(TABLE, short)
    with filled.engine.connect() as connection:
        assert findings(connection, filled.table.c.embedding) == {}


def test_an_expression_index(filled: Operated) -> None:
    """Other dimensions without a column: built concurrently on each shard, and dropped."""
    unstored = definition(Prefix(), 12, stored=False)
    with migration(filled.engine) as op:
        op.create_short_index(TABLE, "embedding", unstored)
    with filled.engine.connect() as connection:
        column: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(12), distributed="tenant", stored=False))
        key = [Column(name, Integer, primary_key=True) for name in ("tenant", "id")]
        table = Table(TABLE, MetaData(), *key, column)
        assert check_schema(connection, column) is not None
        assert connection.execute(search(select(table.c.id), column, filled.vectors[9])).first() == (9, 0.0)
    with migration(filled.engine) as op:
        op.drop_short_index(TABLE, "embedding", unstored)


def test_what_needs_one_server(filled: Operated) -> None:
    """A reshape, its end and a backfill in batches are refused before anything is written, with the way to go."""
    with filled.engine.connect() as connection:
        with pytest.raises(MigrationError, match=r"distributed by tenant.*op\.add_short\(\.\.\., online=True\)"):
            reshape(connection, TABLE, "embedding", dims=4)
        with pytest.raises(MigrationError, match=r"op\.drop_short drops the old column"):
            pending_contraction(connection, TABLE, "embedding")
        assert reshape(connection, TABLE, "embedding", index=Hnsw(m=8)).same_columns
    with pytest.raises(MigrationError, match=rf"UPDATE public\.{TABLE} SET {filled.short} = NULL"):
        ok("backfill", f"{TABLE}.embedding", "--database-url", URL)
    values(filled.engine, f"UPDATE {TABLE} SET {filled.short} = NULL")
    assert missing(filled, filled.short) == 0


# -- other kinds of tables -------------------------------------------------------------------------------------------


@pytest.fixture
def plain(citus: Engine) -> Iterator[Table]:
    """A table of the coordinator's, in a schema of its own."""
    schema = "pgmrl_proof_other"
    column: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(8)))
    table = Table("documents", MetaData(), Column("id", Integer, primary_key=True), column, schema=schema)
    try:
        values(citus, f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        values(citus, f"CREATE SCHEMA {schema}")
        table.create(citus)
        yield table
    finally:
        values(citus, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.mark.parametrize(
    ("made", "described"),
    [
        ("create_reference_table('{table}')", "a reference table"),
        ("citus_schema_distribute('{schema}')", "in a single shard, as the tables of a distributed schema are"),
        ("citus_add_local_table_to_metadata('{table}')", None),
    ],
    ids=["reference", "schema", "local"],
)
def test_other_kinds(citus: Engine, plain: Table, made: str, described: str | None) -> None:
    """Searched as they are, by the ordinary statement; distributed only where they are ordinary to Citus."""
    values(citus, "SELECT " + made.format(table=plain.fullname, schema=plain.schema))
    vectors = np.eye(8, DIMS, dtype=np.float32)
    with citus.begin() as connection:
        connection.execute(insert(plain), [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
        assert check_schema(connection, plain.c.embedding) is not None
        rows = connection.execute(search(select(plain.c.id), plain.c.embedding, vectors[3], k=1)).all()
        assert rows == [(3, 0.0)]
        table = distributed_table(connection, plain.fullname)
        if described is None:
            assert table is None
            assert distribution_statements(connection, plain.schema, plain.name, "id")
            return
        assert table is not None
        assert table.describe() == described
        assert findings(connection, plain.c.embedding) == {}
        with pytest.raises(MigrationError, match=f"expected an ordinary table, got {described}"):
            distribution_statements(connection, plain.schema, plain.name, "id")


def test_partitions_in_shards(citus: Engine) -> None:
    """A partitioned table: distributed, searched, given another column and an index that is built concurrently."""
    name, prefix = "pgmrl_proof_parted", definition(Prefix(), 4)
    values(citus, f"DROP TABLE IF EXISTS {name}")
    try:
        values(
            citus,
            f"CREATE TABLE {name} (id int, part int, embedding halfvec({DIMS}), PRIMARY KEY (id, part)) "
            "PARTITION BY LIST (part)",
        )
        for part in (0, 1):
            values(citus, f"CREATE TABLE {name}_{part} PARTITION OF {name} FOR VALUES IN ({part})")
        with migration(citus) as op:
            op.distribute_table(name, "id", shards=4)
        vectors = np.eye(10, DIMS, dtype=np.float32)
        full = Table(
            name, MetaData(), Column("id", Integer), Column("part", Integer), Column("embedding", HALFVEC(DIMS))
        )
        with citus.begin() as connection:
            rows = [{"id": n, "part": n % 2, "embedding": vector.tolist()} for n, vector in enumerate(vectors)]
            connection.execute(insert(full), rows)
        with migration(citus) as op:
            op.add_short(name, "embedding", prefix)
            op.create_short_index(name, "embedding", prefix)
        column: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(4), distributed="id"))
        key = [Column(each, Integer, primary_key=True) for each in ("id", "part")]
        table = Table(name, MetaData(), *key, column)
        with citus.connect() as connection:
            assert check_schema(connection, column) is not None
            assert findings(connection, column) == {}
            nearest = connection.execute(search(select(table.c.id), column, vectors[1], k=1)).all()
            assert nearest == [(1, 0.0)]
    finally:
        values(citus, f"DROP TABLE IF EXISTS {name}")
