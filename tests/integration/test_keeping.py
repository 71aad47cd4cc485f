"""A rotated short vector is in step with its full one, whoever writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Computed, Integer, MetaData, Table, Text, create_engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from pgmrl import database
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Definition, Rotation, Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

A = "[1,2,3,4,5,6,7,8]"
B = "[-3,1,0,2,-1,4,2,1]"


@pytest.fixture
def table(connection: Connection, small_rotation: Rotation) -> Table:
    """A table `docs` with a rotated short column, in the transaction of `connection`."""
    database.install_rotation(connection, small_rotation)
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("e", Matryoshka(8, Short(4, small_rotation, name="short"), full="vector")),
    )
    docs.create(connection)
    return docs


@pytest.fixture
def run(connection: Connection, table: Table) -> Callable[[str], None]:
    """Execute a statement as the server's administrator would type it."""
    assert table.name == "docs"

    def execute(statement: str) -> None:
        connection.exec_driver_sql(statement)

    return execute


def out_of_step(connection: Connection, table: Table) -> int:
    """Rows whose short vector is not the one of their full vector."""
    definition: Definition = table.c.e.info["pgmrl"].definition
    query = f"SELECT count(*) FROM docs WHERE short IS DISTINCT FROM {definition.sql('e')}"
    return int(connection.exec_driver_sql(query).scalar_one())


INSERT = f"INSERT INTO docs (id, e) VALUES (1, '{A}')"
WRITES = {
    "insert": [INSERT],
    "insert with a short of its own": [f"INSERT INTO docs (id, e, short) VALUES (1, '{A}', '[1,1,1,1]')"],
    "update of the full vector": [INSERT, f"UPDATE docs SET e = '{B}'"],
    "update of the short vector": [INSERT, "UPDATE docs SET short = '[1,1,1,1]'"],
    "update of the short vector to NULL": [INSERT, "UPDATE docs SET short = NULL"],
    "update to NULL": [INSERT, "UPDATE docs SET e = NULL"],
    "upsert": [
        INSERT,
        f"INSERT INTO docs (id, e) VALUES (1, '{B}') ON CONFLICT (id) DO UPDATE SET e = EXCLUDED.e",
    ],
    "merge": [
        INSERT,
        f"MERGE INTO docs USING (VALUES (1)) AS n (id) ON docs.id = n.id WHEN MATCHED THEN UPDATE SET e = '{B}'",
    ],
    "from a select": [f"INSERT INTO docs (id, e) SELECT n, '{A}'::vector FROM generate_series(1, 3) AS n"],
    "zero": ["INSERT INTO docs (id, e) VALUES (1, '[0,0,0,0,0,0,0,0]')"],
    "computed by another rotation": [
        "SELECT set_config('pgmrl.computed_by', 'r000000000000', true)",
        f"INSERT INTO docs (id, e, short) VALUES (1, '{A}', '[1,1,1,1]')",
        "UPDATE docs SET short = '[1,1,1,1]'",
    ],
}  # fmt: skip


@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES)
def test_every_writer_leaves_the_short_vector_in_step(
    connection: Connection, table: Table, run: Callable[[str], None], writes: list[str]
) -> None:
    """The trigger fires on writes to the full and to the short vector."""
    for write in writes:
        run(write)
    assert connection.exec_driver_sql("SELECT count(*) FROM docs").scalar_one() > 0
    assert out_of_step(connection, table) == 0


def test_a_short_vector_is_numpys(connection: Connection, table: Table, run: Callable[[str], None]) -> None:
    """Not only equal to itself: the test's own arithmetic."""
    run(f"INSERT INTO docs (id, e) VALUES (1, '{A}')")
    axes = table.c.e.info["pgmrl"].definition.short.by.required_axes().astype(float)
    product = axes @ np.arange(1.0, 9.0)
    stored = connection.exec_driver_sql("SELECT short::vector::real[] FROM docs").scalar_one()
    assert stored == pytest.approx(product / np.linalg.norm(product), abs=1e-3)


def test_another_trigger_that_changes_the_vector(
    connection: Connection, table: Table, run: Callable[[str], None]
) -> None:
    """An UPDATE that never names the vector; triggers fire in the order of their names, ours begins with zz."""
    run(
        "CREATE FUNCTION scale() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.e := public.l2_normalize(NEW.e); RETURN NEW; END $$"
    )
    run(f"INSERT INTO docs (id, e) VALUES (1, '{A}')")
    run("CREATE TRIGGER scale BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION scale()")
    run("UPDATE docs SET title = 'x'")
    assert connection.exec_driver_sql("SELECT vector_norm(e) FROM docs").scalar_one() == pytest.approx(1)
    assert out_of_step(connection, table) == 0
    run(f"INSERT INTO docs (id, e) VALUES (2, '{B}')")
    assert out_of_step(connection, table) == 0


def test_copy_is_kept_too(connection: Connection, table: Table) -> None:
    """COPY fires row triggers."""
    cursor: Any = connection.connection.cursor()
    with cursor.copy("COPY docs (id, e) FROM STDIN") as into:
        for n in range(20):
            into.write_row((n, A if n % 2 else B))
    assert out_of_step(connection, table) == 0


def test_an_unrelated_update_does_not_rotate(
    connection: Connection, table: Table, run: Callable[[str], None], small_rotation: Rotation
) -> None:
    """It would cost a quarter of a millisecond a row: shown by a short vector that a bypass left wrong."""
    run(f"SELECT set_config('pgmrl.computed_by', '{small_rotation.id}', true)")
    run(f"INSERT INTO docs (id, e, short) VALUES (1, '{A}', '[1,1,1,1]')")
    run("SELECT set_config('pgmrl.computed_by', '', true)")
    run("UPDATE docs SET title = 'x'")
    assert out_of_step(connection, table) == 1
    run("UPDATE docs SET short = '[2,2,2,2]'")
    assert out_of_step(connection, table) == 0


def test_a_loader_that_names_the_rotation_is_trusted_for_its_transaction(
    engine: Engine, small_rotation: Rotation
) -> None:
    """And no longer: the next transaction of the same connection is kept again."""
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        docs = Table(
            "docs",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("e", Matryoshka(8, Short(4, small_rotation, name="short"))),
        )
        docs.create(connection)
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql(f"SELECT set_config('pgmrl.computed_by', '{small_rotation.id}', true)")
            connection.exec_driver_sql(f"INSERT INTO docs VALUES (1, '{A}', '[1,1,1,1]')")
        with connection.begin():
            connection.exec_driver_sql(f"INSERT INTO docs VALUES (2, '{A}', '[1,1,1,1]')")
        wrong = connection.exec_driver_sql("SELECT id FROM docs WHERE short = '[1,1,1,1]'").scalars().all()
    assert wrong == [1]


def test_missing_axes_are_an_error_with_a_hint(connection: Connection) -> None:
    """A table cannot be made for a rotation that is not installed; nothing of it stays."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4, Rotation("r0123456789ab")))),
    )
    with connection.begin_nested() as savepoint:
        with pytest.raises(ProgrammingError, match=r"rotation r0123456789ab is not installed(?s:.*)pgmrl fit-rotation"):
            docs.create(connection)
        savepoint.rollback()
    with pytest.raises(ProgrammingError, match=r"with 4 axes is not installed(?s:.*)HINT"):
        connection.exec_driver_sql(f"SELECT pgmrl.rotate_v1('{A}'::vector, 'r0123456789ab', 4)")


def test_more_axes_than_there_are(connection: Connection, table: Table, small_rotation: Rotation) -> None:
    """Silently fewer dimensions would never be found again."""
    assert table.name == "docs"
    with pytest.raises(ProgrammingError, match="with 5 axes is not installed"):
        connection.exec_driver_sql(f"SELECT pgmrl.rotate_v1('{A}'::vector, '{small_rotation.id}', 5)")


def test_a_wrong_number_of_dimensions(connection: Connection, small_rotation: Rotation) -> None:
    """The axes have eight."""
    database.install_rotation(connection, small_rotation)
    with pytest.raises(DBAPIError, match="different halfvec dimensions"):
        connection.exec_driver_sql(f"SELECT pgmrl.rotate_v1('[1,2]'::halfvec, '{small_rotation.id}', 4)")


@pytest.mark.parametrize("role_reads", [True, False])
def test_an_ordinary_role_writes_and_searches(engine: Engine, small_rotation: Rotation, role_reads: bool) -> None:
    """It has rights on the application's table alone; without them it has none through pgmrl either."""
    with engine.connect() as connection:
        is_virtual = connection.exec_driver_sql("SHOW server_version_num").scalar_one() >= "180000"
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("note", Text, Computed("'n'", persisted=None if is_virtual else True)),
        Column("e", Matryoshka(8, Short(4, small_rotation))),
    )
    role = f"clerk_{engine.url.database}"
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        docs.create(connection)
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        if role_reads:
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE ON docs TO {role}")
    clerk = create_engine(engine.url, connect_args={"options": f"-c role={role}"})
    try:
        with clerk.connect() as connection:
            (_works if role_reads else _is_refused)(connection, docs)
    finally:
        clerk.dispose()
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


def _works(connection: Connection, docs: Table) -> None:
    connection.exec_driver_sql(INSERT)
    connection.exec_driver_sql(f"UPDATE docs SET e = '{B}'")
    assert connection.execute(search(docs.select(), docs.c.e, np.arange(1, 9), k=1)).scalars().all() == [1]
    for refused in (
        "DELETE FROM pgmrl.rotations",
        "INSERT INTO pgmrl.axes VALUES ('r0123456789ab', 1, '[1]')",
        "UPDATE pgmrl.axes SET n = n + 1",
    ):
        with connection.begin_nested() as savepoint:
            with pytest.raises(ProgrammingError, match="permission denied"):
                connection.exec_driver_sql(refused)
            savepoint.rollback()


def _is_refused(connection: Connection, docs: Table) -> None:
    with pytest.raises(ProgrammingError, match="permission denied for table docs"):
        connection.execute(search(docs.select(), docs.c.e, np.arange(1, 9), k=1))
