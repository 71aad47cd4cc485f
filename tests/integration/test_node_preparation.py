"""What is sent to the other nodes of Citus, run on one server: once for what is missing, and again for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database import NEWEST_REVISION
from pgmrl.database.rotations import rotation_statements
from pgmrl.names import literal
from pgmrl.online.node_preparation import node_command, on_workers, schema_script

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.model.rotation import Rotation


def objects(connection: Connection) -> list[tuple[str, ...]]:
    """Functions, relations and triggers of pgmrl's schema."""
    query = text(
        "SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc) FROM pg_proc AS p "
        "WHERE p.pronamespace = 'pgmrl'::regnamespace "
        "UNION ALL SELECT c.relkind::text, c.relname, c.relacl::text FROM pg_class AS c "
        "WHERE c.relnamespace = 'pgmrl'::regnamespace "
        "UNION ALL SELECT 'trigger', g.tgrelid::regclass::text, g.tgname FROM pg_trigger AS g "
        "JOIN pg_class AS c ON c.oid = g.tgrelid WHERE c.relnamespace = 'pgmrl'::regnamespace AND NOT g.tgisinternal"
    )
    return sorted(tuple(map(str, row)) for row in connection.execute(query))


def test_a_node_gets_the_schema(connection: Connection, small_rotation: Rotation) -> None:
    """As `pgmrl upgrade` makes it, with the rotation; under any search_path, and a second time without a change."""
    connection.exec_driver_sql("DROP SCHEMA IF EXISTS pgmrl CASCADE")
    database.upgrade(connection)
    expected = objects(connection)
    connection.exec_driver_sql("DROP SCHEMA pgmrl CASCADE")
    rotation = [f"EXECUTE {literal(statement)};" for statement in rotation_statements(small_rotation)]
    command = node_command([*schema_script(database.check_pgvector(connection)), *rotation])
    connection.exec_driver_sql("SET LOCAL search_path = nowhere")
    for _ in range(2):
        database.execute_plain(connection, command)
    connection.exec_driver_sql("SET LOCAL search_path = public")
    assert database.installed_revision(connection) == NEWEST_REVISION
    assert database.installed_rotations(connection) == [small_rotation.id]
    assert objects(connection) == expected


@pytest.mark.parametrize("fails", [False, True])
def test_the_error_names_the_nodes(connection: Connection, fails: bool) -> None:
    """Where a function of Citus's name answers for two nodes; the search_path is the caller's again."""
    connection.exec_driver_sql(
        "CREATE FUNCTION pg_temp.run_command_on_workers(command text, OUT nodename text, OUT nodeport int, "
        "OUT success bool, OUT result text) RETURNS SETOF record LANGUAGE sql AS "
        f"$$ VALUES ('a', 1, true, 'DO'), ('b', 2, {not fails}, 'ERROR: ' || left(command, 2)) $$"
    )
    statement = on_workers(["PERFORM 1;"])
    # temporary functions are never found without their schema
    statement = statement.replace("FROM run_command", "FROM pg_temp.run_command")
    if not fails:
        connection.exec_driver_sql("SET LOCAL search_path = elsewhere")
        database.execute_plain(connection, statement)
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "elsewhere"
        return
    with pytest.raises(DBAPIError, match=r"could not be installed on every node: b:2: ERROR: DO\n"):
        database.execute_plain(connection, statement)
