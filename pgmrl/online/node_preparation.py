"""What each node of Citus needs for a table: pgvector, and for its triggers pgmrl's schema and rotations.

Each worker is sent one statement, which does there what is not done yet, in a transaction of its own: Citus has none
around what it runs on nodes by `run_command_on_workers`. Its own way, to send each CREATE FUNCTION on, brings functions
there without the tables that they read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.extension import check_pgvector
from pgmrl.database.revisions import NEWEST_REVISION, REVISIONS, revision_statements
from pgmrl.database.rotations import installed_rotation, rotation_statements
from pgmrl.database.schema import LOCK, create_schema, create_version_table, set_version
from pgmrl.database.shards import node_faults, nodes
from pgmrl.errors import MigrationError
from pgmrl.model.shortening import Rotation
from pgmrl.names import dollar_quoted, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from pgmrl.model.shortening import Definition

__all__ = ["node_command", "on_workers", "preparation_statements", "schema_script"]


def preparation_statements(connection: Connection, definitions: Sequence[Definition]) -> list[str]:
    """The statements that bring to the workers what they lack.

    Args:
        connection: of the database, on the coordinator, which has all of it.
        definitions: of the short columns that triggers keep.

    Returns:
        Plain SQL; empty where nothing is missing.

    Raises:
        MigrationError: a node is out of reach, has an old pgvector, or the schema of a newer pgmrl.
        RotationError: this node has not such a rotation.

    """
    states, vector_schema = nodes(connection), check_pgvector(connection)
    faults = node_faults(node for node in states if node.error is not None or node.pgvector is not None)
    if faults:
        raise MigrationError(f"{'; '.join(faults)}: mend that node, or take it out by citus_remove_node")
    missing = [_extension(vector_schema)] if any(node.pgvector is None for node in states) else []
    if definitions:
        newer = next((node for node in states if node.revision is not None and node.revision not in REVISIONS), None)
        if newer is not None:
            raise MigrationError(
                f"{newer.name} has pgmrl's schema at revision {newer.revision}: expected {NEWEST_REVISION} at most; "
                "install the version of pgmrl that brought it"
            )
        if any(node.revision != NEWEST_REVISION for node in states):
            missing += schema_script(vector_schema)
        rotations = {str(each.short.by.id) for each in definitions if isinstance(each.short.by, Rotation)}
        for rotation in sorted(rotations):
            if any(rotation not in (node.rotations or ()) for node in states):
                missing += map(_executed, rotation_statements(installed_rotation(connection, rotation)))
    return [on_workers(missing)] if missing else []


def schema_script(vector_schema: str) -> list[str]:
    """The statements of PL/pgSQL that make pgmrl's schema, or bring an older one up to date.

    Args:
        vector_schema: pgvector's.

    """
    made = [_executed(statement) for statement in (*create_schema(), create_version_table())]
    read = "SELECT max(v.version_num) INTO current FROM pgmrl.alembic_version AS v;"
    return [*made, read, *(_step(revision, vector_schema) for revision in REVISIONS)]


def node_command(script: Iterable[str]) -> str:
    """The statement by which a node runs a script, one at a time, under the pinned search_path and for itself alone.

    Args:
        script: statements of PL/pgSQL; `current` is a variable of type text.

    """
    lines = "\n".join(script)
    body = f"""
DECLARE
    current pg_catalog.text;
BEGIN
PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
PERFORM pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true);
PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});
{lines}
END """
    return f"DO {dollar_quoted(body)}"


def on_workers(script: Iterable[str]) -> str:
    """The statement that has all workers run a script, and fails with the names of those that cannot.

    Args:
        script: as of `node_command`.

    """
    body = f"""
DECLARE
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    faults pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT string_agg(format('%s:%s: %s', w.nodename, w.nodeport, w.result), '; ' ORDER BY w.nodename, w.nodeport)
    INTO faults FROM run_command_on_workers({literal(node_command(script))}) AS w WHERE NOT w.success;
    PERFORM pg_catalog.set_config('search_path', path, true);
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION 'what pgmrl needs could not be installed on every node: %', faults
            USING HINT = 'This role needs CREATE on the database of each node. A schema pgmrl with functions and '
                'no tables came with a dump that was restored here: drop it on that node.';
    END IF;
END """
    return f"DO {dollar_quoted(body)}"


def _extension(vector_schema: str) -> str:
    return f"CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {quoted(vector_schema)};"


def _step(revision: str, vector_schema: str) -> str:
    statements = (*revision_statements(revision, True, vector_schema), *set_version(revision))
    return "\n".join(
        [f"IF current IS NULL OR current < {literal(revision)} THEN", *map(_executed, statements), "END IF;"]
    )


def _executed(statement: str) -> str:
    return f"EXECUTE {literal(statement)};"
