"""What the other nodes of Citus need of pgmrl's for a table's triggers: its schema and rotations, made from here.

Each worker is sent one statement, which does there what is not done yet, in a transaction of its own: Citus has none
around what it runs on nodes by `run_command_on_workers`. Its own way, to send each CREATE FUNCTION on, brings functions
there without the tables that they read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.revisions import NEWEST_REVISION, REVISIONS, revision_statements
from pgmrl.database.rotations import installed_rotation, rotation_statements
from pgmrl.database.schema import LOCK, create_schema, create_version_table, set_version
from pgmrl.errors import MigrationError
from pgmrl.names import dollar_quoted, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from pgmrl.database.shards import Node

__all__ = ["node_script", "preparation_statements", "prepare_workers"]


def preparation_statements(
    connection: Connection, states: Iterable[Node], rotations: Iterable[str], vector_schema: str
) -> list[str]:
    """The statements that bring pgmrl's schema and rotations to the nodes that lack them.

    Args:
        connection: of the database, on the coordinator, which has the rotations.
        states: of the nodes.
        rotations: the ids that are needed.
        vector_schema: pgvector's, on every node.

    Returns:
        Plain SQL; empty where nothing is missing.

    Raises:
        MigrationError: a node has the schema of a newer pgmrl.
        RotationError: this node has not such a rotation.

    """
    states, needed = list(states), list(rotations)
    newer = [node for node in states if node.revision is not None and node.revision not in REVISIONS]
    if newer:
        raise MigrationError(
            f"{newer[0].name} has pgmrl's schema at revision {newer[0].revision}: expected {NEWEST_REVISION} at most; "
            "install the version of pgmrl that brought it"
        )
    lacking = [id_ for id_ in needed if any(id_ not in (node.rotations or ()) for node in states)]
    if not lacking and all(node.revision == NEWEST_REVISION for node in states):
        return []
    axes = [rotation_statements(installed_rotation(connection, id_)) for id_ in lacking]
    return [prepare_workers(node_script([text for statements in axes for text in statements], vector_schema))]


def node_script(more: Sequence[str], vector_schema: str) -> str:
    """The statement that makes or updates pgmrl's schema on the node that runs it, and runs more statements.

    Args:
        more: plain SQL.
        vector_schema: pgvector's.

    """
    made = [_executed(statement) for statement in (*create_schema(), create_version_table())]
    steps = [_step(revision, vector_schema) for revision in REVISIONS]
    body = f"""
DECLARE
    current pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true);
    PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});
{_lines(made)}
    SELECT max(v.version_num) INTO current FROM pgmrl.alembic_version AS v;
{_lines(steps)}
{_lines(map(_executed, more))}
END """
    return f"DO {dollar_quoted(body)}"


def prepare_workers(script: str) -> str:
    """The statement that has all workers run another, and fails with the names of those that cannot."""
    body = f"""
DECLARE
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    faults pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT string_agg(format('%s:%s: %s', w.nodename, w.nodeport, w.result), '; ' ORDER BY w.nodename, w.nodeport)
    INTO faults FROM run_command_on_workers({literal(script)}) AS w WHERE NOT w.success;
    PERFORM pg_catalog.set_config('search_path', path, true);
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl could not be installed on every node: %', faults
            USING HINT = 'This role needs CREATE on the database of each node. A schema pgmrl with functions and '
                'no tables came with a dump that was restored here: drop it on that node.';
    END IF;
END """
    return f"DO {dollar_quoted(body)}"


def _step(revision: str, vector_schema: str) -> str:
    statements = (*revision_statements(revision, True, vector_schema), *set_version(revision))
    return (
        f"IF current IS NULL OR current < {literal(revision)} THEN\n{_lines(map(_executed, statements))}\n    END IF;"
    )


def _executed(statement: str) -> str:
    return f"EXECUTE {literal(statement)};"


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(f"    {statement}" for statement in statements)
