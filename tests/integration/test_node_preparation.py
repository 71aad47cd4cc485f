"""What is sent to the other nodes of Citus, run on one server: once for what is missing, and again for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from pgmrl import Short, database
from pgmrl.database import NEWEST_REVISION
from pgmrl.database.rotations import rotation_statements
from pgmrl.model.columns import Matryoshka
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


def test_a_trigger_without_a_savepoint(connection: Connection, small_rotation: Rotation) -> None:
    """As it is made where Citus is: no block that catches errors, and yet columns may be renamed."""
    database.upgrade(connection)
    database.install_rotation(connection, small_rotation)
    connection.exec_driver_sql("UPDATE pg_extension SET extname = 'citus' WHERE extname = 'plpgsql'")  # rolled back
    column: Column[Any] = Column("embedding", Matryoshka(8, Short(4, by=small_rotation)))
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), column)
    table.create(connection)
    source = connection.exec_driver_sql("SELECT prosrc FROM pg_proc WHERE proname LIKE 'zz_pgmrl_docs_%%'").scalar_one()
    assert "EXCEPTION" not in source
    short = f"embedding_{small_rotation.id}_4"
    vectors = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    connection.execute(table.insert(), [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
    connection.exec_driver_sql("ALTER TABLE docs RENAME COLUMN embedding TO full_vector")
    connection.exec_driver_sql(f"ALTER TABLE docs RENAME COLUMN {short} TO short_vector")
    copy = "INSERT INTO docs (id, full_vector) SELECT id + 2, full_vector FROM docs"
    connection.exec_driver_sql(copy)
    connection.exec_driver_sql("UPDATE docs SET full_vector = (SELECT full_vector FROM docs WHERE id = 1) WHERE id = 0")
    shorts = connection.exec_driver_sql("SELECT short_vector::text FROM docs ORDER BY id").scalars().all()
    first, second = shorts[2], shorts[3]
    assert shorts == [second, second, first, second]
    assert first != second


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
