"""The checks of distributed tables: their rules, and the commands that go to other nodes, run on this one.

That Citus sends them is in tests/citus.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text

from pgmrl.database.shards import (
    NODE_COMMAND,
    SCHEMA_COMMAND,
    SHARD_COMMAND,
    DistributedTable,
    Node,
    Shard,
    ShardIndex,
    citus_version,
    distributed_table,
    node_faults,
    shard_faults,
)
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

CLASS = "halfvec_cosine_ops"
GOOD = ShardIndex("short", CLASS, True, False)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """In a transaction that is rolled back."""
    with engine.connect() as opened:
        yield opened


@pytest.mark.parametrize(
    ("indexes", "fault"),
    [
        ([GOOD], None),
        ([], "has no HNSW index"),
        ([GOOD._replace(valid=False)], "is invalid"),
        ([GOOD._replace(valid=False), GOOD], None),
        ([GOOD._replace(column="other")], "has no HNSW index"),
        ([GOOD._replace(operator_class="halfvec_l2_ops")], "has no HNSW index"),
        ([GOOD._replace(partial=True)], "has no HNSW index"),
        ([GOOD, GOOD._replace(partial=True)], None),
        ([GOOD, GOOD._replace(partial=True, valid=False)], "the partial HNSW index of shard 8 is invalid"),
    ],
)
def test_the_rule_of_shards_differ(indexes: Sequence[ShardIndex], fault: str | None) -> None:
    """The check "shards-differ": each shard has a valid index of the right class on the short column."""
    faults = shard_faults([Shard(7, None, 10, [GOOD]), Shard(8, None, 10, indexes)], "short", CLASS)
    assert [fault in line and "shard 8" in line for line in faults] == [True] * (fault is not None)  # type: ignore[operator]


def test_a_partial_index_that_should_be_there() -> None:
    """Beside, or instead of, one of all rows."""
    states = [Shard(7, None, 10, [GOOD]), Shard(8, None, 10, [GOOD._replace(partial=True)])]
    assert shard_faults(states[:1], "short", CLASS, {False, True}) == [
        f"shard 7 has no partial HNSW index ({CLASS}) on its short vectors"
    ]
    assert shard_faults(states[1:], "short", CLASS, {True}) == []


def test_a_shard_that_is_down() -> None:
    """It is named, with what its node says."""
    assert shard_faults([Shard(7, "connection refused\n")], "short", CLASS) == [
        "shard 7 does not answer: connection refused"
    ]


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        (Node("b:5432", None, "0.8.4", frozenset({"r1"})), None),
        (Node("b:5432", None, None), "b:5432 has no pgvector"),
        (Node("b:5432", None, "0.7.4", frozenset({"r1"})), "b:5432 has pgvector 0.7.4"),
        (Node("b:5432", None, "0.8.4"), "b:5432 lacks rotation r1"),
        (Node("b:5432", None, "0.8.4", frozenset({"r2"})), "b:5432 lacks rotation r1"),
        (Node("b:5432", None, "0.8.5", frozenset({"r1"})), "different versions of pgvector: a:5432 0.8.4, b:5432 0.8"),
        (Node("b:5432", "timeout"), "b:5432 does not answer: timeout"),
    ],
)
def test_the_rule_of_nodes_differ(node: Node, fault: str | None) -> None:
    """The check "nodes-differ": pgvector of one version, and the rotations, on each node."""
    faults = node_faults([Node("a:5432", None, "0.8.4", frozenset({"r1"})), node], ["r1"])
    assert bool(faults) == (fault is not None)
    assert fault is None or any(fault in line for line in faults)


def test_what_a_shard_is_asked(connection: Connection) -> None:
    """The command on a table of this server, whose name has quotes of both kinds."""
    table = Table("o'b\"x", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    table.create(connection)
    shard = connection.scalar(text("SELECT format(:command, '\"o''b\"\"x\"')"), {"command": SHARD_COMMAND})
    answer = connection.exec_driver_sql(str(shard), execution_options={"no_parameters": True}).scalar_one()
    assert json.loads(answer) == {"rows": -1, "indexes": [["e_short_4", CLASS, True, False]]}


def test_what_a_node_is_asked(connection: Connection) -> None:
    """The command on this server."""
    answer = json.loads(connection.exec_driver_sql(NODE_COMMAND).scalar_one())
    assert answer.keys() == {"pgvector", "schema"}
    assert answer["pgvector"].startswith("0.")
    assert answer["schema"] is True
    revision = connection.exec_driver_sql("SELECT version_num FROM pgmrl.alembic_version").scalar_one()
    answer = json.loads(connection.exec_driver_sql(SCHEMA_COMMAND).scalar_one())
    assert answer == {"revision": revision, "rotations": []}
    connection.exec_driver_sql("ALTER TABLE pgmrl.rotations RENAME TO kept")
    assert json.loads(connection.exec_driver_sql(NODE_COMMAND).scalar_one())["schema"] is None
    for stranger in ("VIEW pgmrl.rotations AS SELECT id FROM pgmrl.kept", "TABLE pgmrl.rotations (id regclass)"):
        with connection.begin_nested() as savepoint:
            connection.exec_driver_sql(f"CREATE {stranger}")
            assert json.loads(connection.exec_driver_sql(NODE_COMMAND).scalar_one())["schema"] is False
            savepoint.rollback()


def test_a_server_without_citus(connection: Connection) -> None:
    """Nothing of Citus is read, as by "distribution-declared", also where a table has its catalogue's name."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE pg_dist_partition (logicalrelid regclass, partkey text)")
    assert citus_version(connection) is None
    assert distributed_table(connection, "pg_class") is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (DistributedTable("id", 4), "distributed by id"),
        (DistributedTable(None, 1, reference=True), "a reference table"),
        (DistributedTable(None, 1), "in a single shard, as the tables of a distributed schema are"),
    ],
)
def test_what_a_table_is(table: DistributedTable, words: str) -> None:
    """In words, as the check "distribution-declared" says it."""
    assert table.describe() == words
