"""Tables that Citus distributes: what its catalogue says of them, and what their shards and its nodes have.

By Citus' catalogue and its functions for commands elsewhere: `pg_dist_partition`, `run_command_on_shards` and
`run_command_on_workers`. The commands that go to other nodes run there under the role's own search_path, and so
qualify every name and operator.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import text

from pgmrl.database.extension import PGVECTOR_NEEDED, version_numbers
from pgmrl.database.search_path import catalogue_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

__all__ = [
    "NODE_COMMAND",
    "SCHEMA_COMMAND",
    "SHARD_COMMAND",
    "DistributedTable",
    "Node",
    "Shard",
    "ShardIndex",
    "citus_version",
    "distributed_table",
    "node_faults",
    "nodes",
    "on_this_node",
    "shard_faults",
    "shard_rows",
    "shards",
]

SHARD_COMMAND: Final = """
SELECT pg_catalog.json_build_object('rows', c.reltuples, 'indexes', (
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
        a.attname, o.opcname, x.indisvalid AND x.indisready, x.indpred IS NOT NULL)), '[]'::pg_catalog.json)
    FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_class AS i ON i.oid OPERATOR(pg_catalog.=) x.indexrelid
    JOIN pg_catalog.pg_am AS m ON m.oid OPERATOR(pg_catalog.=) i.relam AND m.amname OPERATOR(pg_catalog.=) 'hnsw'
    JOIN pg_catalog.pg_opclass AS o ON o.oid OPERATOR(pg_catalog.=) x.indclass[0]
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) x.indrelid
        AND a.attnum OPERATOR(pg_catalog.=) x.indkey[0]
    WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid
))::pg_catalog.text
FROM pg_catalog.pg_class AS c
WHERE c.oid OPERATOR(pg_catalog.=) %1$L::pg_catalog.regclass::pg_catalog.oid
"""
"""What a shard has, as JSON; `run_command_on_shards` puts its name in by `format`."""

NODE_COMMAND: Final = """
SELECT pg_catalog.json_build_object(
    'pgvector', (SELECT e.extversion FROM pg_catalog.pg_extension AS e
        WHERE e.extname OPERATOR(pg_catalog.=) 'vector'),
    'schema', CASE WHEN pg_catalog.to_regclass('pgmrl.rotations') IS NOT NULL THEN 2 OPERATOR(pg_catalog.=)
        (SELECT pg_catalog.count(*) FROM (VALUES
            ('pgmrl.rotations', 'id', 'pg_catalog.text'),
            ('pgmrl.alembic_version', 'version_num', 'pg_catalog.varchar')) AS v (relation, name, type)
        JOIN pg_catalog.pg_class AS c
            ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(v.relation)::pg_catalog.oid
            AND c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relrowsecurity
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
            AND a.attname OPERATOR(pg_catalog.=) v.name::pg_catalog.name
            AND a.atttypid OPERATOR(pg_catalog.=) v.type::pg_catalog.regtype::pg_catalog.oid) END
)::pg_catalog.text
"""
"""What a node has, as JSON. A view in the place of a table, or a type of somebody's, would run there as this role."""
SCHEMA_COMMAND: Final = """
SELECT pg_catalog.json_build_object(
    'revision', (SELECT pg_catalog.max(v.version_num) FROM pgmrl.alembic_version AS v),
    'rotations', (SELECT coalesce(pg_catalog.json_agg(r.id), '[]'::pg_catalog.json) FROM pgmrl.rotations AS r)
)::pg_catalog.text
"""
"""What a node's schema pgmrl has, as JSON; where there is one."""

_READ_SETTING: Final = text("SELECT pg_catalog.current_setting(:name)")
_SET_SETTING: Final = text("SELECT pg_catalog.set_config(:name, :value, true)")


class DistributedTable(NamedTuple):
    """A table of Citus's.

    Attributes:
        column: the distribution column's name; None for a table in one shard.
        shards: how many there are.
        reference: whether every node has that shard; else one node has it, such as all tables of a distributed schema.

    """

    column: str | None
    shards: int
    reference: bool = False

    def describe(self) -> str:
        """What it is, in words."""
        if self.column is not None:
            return f"distributed by {self.column}"
        return "a reference table" if self.reference else "in a single shard, as the tables of a distributed schema are"


class ShardIndex(NamedTuple):
    """An HNSW index of a shard.

    Attributes:
        column: its column's name; None where it is on an expression.
        operator_class: of its column.
        valid: False after an interrupted build.
        partial: whether it has a condition.

    """

    column: str | None
    operator_class: str
    valid: bool
    partial: bool


class Shard(NamedTuple):
    """A shard as its node has it.

    Attributes:
        number: its id.
        error: what its node says instead; None where it answers.
        rows: as of its last ANALYZE; -1 before the first.
        indexes: its HNSW indexes.

    """

    number: int
    error: str | None
    rows: float = -1
    indexes: Sequence[ShardIndex] = ()


class Node(NamedTuple):
    """A node of Citus's, the coordinator among them.

    Attributes:
        name: host and port.
        error: what it says instead, or the connection to it; None where it answers.
        pgvector: the extension's version there; None where it is not installed.
        rotations: the ids of the rotations there; None where pgmrl's schema is not.
        revision: of pgmrl's schema there.

    """

    name: str
    error: str | None
    pgvector: str | None = None
    rotations: frozenset[str] | None = None
    revision: str | None = None


def citus_version(connection: Connection) -> str | None:
    """The version of the extension citus in this database; None where it is not installed."""
    version: str | None = catalogue_result(
        connection,
        "SELECT e.extversion FROM pg_extension AS e JOIN pg_depend AS d ON d.refobjid = e.oid "
        "AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass "
        "WHERE e.extname = 'citus' AND d.objid = to_regclass('pg_catalog.pg_dist_partition')",
    ).scalar()
    return version


@contextmanager
def on_this_node(connection: Connection) -> Iterator[None]:
    """Have Citus leave what is created inside on this node, in the caller's transaction.

    It would send functions to the others, and fails where they depend on one another or on tables of this node.
    """
    if citus_version(connection) is None:
        yield
        return
    setting = "citus.enable_ddl_propagation"
    before = connection.execute(_READ_SETTING, {"name": setting}).scalar_one()
    connection.execute(_SET_SETTING, {"name": setting, "value": "off"})
    yield  # of an error the transaction's end, or the savepoint's, takes the setting back
    connection.execute(_SET_SETTING, {"name": setting, "value": before})


def distributed_table(connection: Connection, owner: str) -> DistributedTable | None:
    """What Citus says of a table; None where there is no Citus, and for one of this node alone.

    Args:
        connection: of the database, on the coordinator.
        owner: the table as SQL text.

    """
    if citus_version(connection) is None:
        return None
    query = text(
        "SELECT CASE WHEN p.partkey IS NOT NULL THEN column_to_column_name(p.logicalrelid, p.partkey) END, "
        "(SELECT count(*) FROM pg_catalog.pg_dist_shard AS s WHERE s.logicalrelid = p.logicalrelid), p.repmodel = 't' "
        "FROM pg_catalog.pg_dist_partition AS p WHERE p.logicalrelid = to_regclass(:name) "
        "AND (p.partkey IS NOT NULL OR p.colocationid <> 0)"  # else one of this node that is in Citus' metadata
    )
    row = catalogue_result(connection, query, {"name": owner}).first()
    return None if row is None else DistributedTable(*row)


def shards(connection: Connection, owner: str) -> list[Shard]:
    """The shards of a distributed table, as their nodes have them.

    Args:
        connection: of the database, on the coordinator.
        owner: the table as SQL text.

    """
    query = text(
        "SELECT shardid, success, result FROM run_command_on_shards(to_regclass(:name), :command) ORDER BY shardid"
    )
    rows = catalogue_result(connection, query, {"name": owner, "command": SHARD_COMMAND})
    return [_shard(*row) for row in rows]


def shard_rows(connection: Connection, owner: str) -> float | None:
    """The rows of a distributed table as of the last ANALYZE of its shards; 0 of a table of this node alone.

    Args:
        connection: of the database, on the coordinator.
        owner: the table as SQL text.

    Returns:
        None where a shard has no statistics yet or does not answer.

    """
    if distributed_table(connection, owner) is None:
        return 0.0
    rows = [shard.rows for shard in shards(connection, owner)]
    return sum(rows) if all(number >= 0 for number in rows) else None


def _shard(number: int, success: bool, result: str | None) -> Shard:
    if not success or not result:
        return Shard(number, result or "no answer")
    document = json.loads(result)
    return Shard(number, None, document["rows"], [ShardIndex(*index) for index in document["indexes"]])


def nodes(connection: Connection) -> list[Node]:
    """This node and the workers of Citus, by what they answer.

    This one answers in the connection's own transaction, which another would not see, or wait for.
    """
    answers = _answers(connection, NODE_COMMAND)
    states = {name: json.loads(result) for name, result, error in answers if error is None}
    own, schemas = answers[0][0], {}
    if states[own]["schema"] and not any(state["schema"] is False for state in states.values()):
        schemas = {
            name: json.loads(result) for name, result, error in _answers(connection, SCHEMA_COMMAND) if error is None
        }
    return [_node(name, error, states.get(name), schemas.get(name)) for name, _, error in answers]


def _node(name: str, error: str | None, state: Any, schema: Any) -> Node:
    if error is None and state["schema"] is False:
        error = "the tables in its schema pgmrl are not pgmrl's: look at them, and drop the schema"
    if error is not None:
        return Node(name, error)
    rotations = None if schema is None else frozenset(schema["rotations"])
    return Node(name, None, state["pgvector"], rotations, None if schema is None else schema["revision"])


def _answers(connection: Connection, command: str) -> list[tuple[str, str, str | None]]:
    """The name, the answer, and the error or None of this node, which is the first, and of the workers."""
    own: str = catalogue_result(
        connection,
        "SELECT coalesce((SELECT n.nodename || ':' || n.nodeport FROM pg_catalog.pg_dist_node AS n "
        "JOIN pg_catalog.pg_dist_local_group AS g ON g.groupid = n.groupid WHERE n.noderole = 'primary' LIMIT 1), "
        "'this node')",
    ).scalar_one()
    query = text(
        "SELECT nodename || ':' || nodeport AS name, success, result FROM run_command_on_workers(:command) ORDER BY 1"
    )
    rows = catalogue_result(connection, query, {"command": command})
    here = (own, str(catalogue_result(connection, command).scalar_one()), None)
    return [
        here,
        *(
            (name, result or "", None if success and result else result or "no answer")
            for name, success, result in rows
            if name != own
        ),
    ]


# -- what is wrong with them ---------------------------------------------------------------------------------------


def shard_faults(
    states: Iterable[Shard], column: str | None, operator_class: str, partial: Iterable[bool] = (False,)
) -> list[str]:
    """What is wrong with the shards of a table, one line each.

    Args:
        states: of all its shards.
        column: the short column; None where an index computes the short vectors.
        operator_class: that searches need.
        partial: of each index that there should be, whether it has a condition.

    """
    faults = []
    for shard in states:
        if shard.error is not None:
            faults.append(f"shard {shard.number} does not answer: {shard.error.strip()}")
            continue
        own = [index for index in shard.indexes if (index.column, index.operator_class) == (column, operator_class)]
        for kind in sorted({*partial, *(index.partial for index in own)}):
            valid = [index.valid for index in own if index.partial is kind]
            title = "partial HNSW index" if kind else "HNSW index"
            if not valid:
                faults.append(f"shard {shard.number} has no {title} ({operator_class}) on its short vectors")
            elif not any(valid):
                faults.append(f"the {title} of shard {shard.number} is invalid")
    return faults


def node_faults(states: Iterable[Node], rotations: Iterable[str] = ()) -> list[str]:
    """What is wrong with the nodes, one line each.

    Args:
        states: of all nodes.
        rotations: ids of the rotations that short columns of distributed tables need.

    """
    states, faults = list(states), []
    versions = {node.pgvector for node in states if node.pgvector is not None}
    for node in states:
        if node.error is not None:
            faults.append(f"{node.name} does not answer: {node.error.strip()}")
        elif node.pgvector is None:
            faults.append(f"{node.name} has no pgvector: expected 0.8.0 or later")
        elif version_numbers(node.pgvector) < PGVECTOR_NEEDED:
            faults.append(f"{node.name} has pgvector {node.pgvector}: expected 0.8.0 or later")
        else:
            faults += [
                f"{node.name} lacks rotation {id_}"
                for id_ in rotations
                if node.rotations is None or id_ not in node.rotations
            ]
    if len(versions) > 1:
        own = ", ".join(f"{node.name} {node.pgvector}" for node in states if node.pgvector is not None)
        faults.append(f"the nodes have different versions of pgvector: {own}")
    return faults
