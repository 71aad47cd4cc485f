"""A side table: the application's table gains only a trigger, and the copy follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, select

from pgmrl import database
from pgmrl.model.columns import add_side_table
from pgmrl.model.shortening import Prefix, Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from pgmrl.model.shortening import Rotation

QUERY = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
UPSERT = """INSERT INTO docs (place, id, e) VALUES ('x', 2, '[1,2,3,4,5,6,7,8]')
ON CONFLICT (place, id) DO UPDATE SET e = EXCLUDED.e"""


@pytest.fixture(params=["prefix", "rotation"])
def docs(connection: Connection, small_rotation: Rotation, request: pytest.FixtureRequest) -> Table:
    """A table that was there before, with three rows, one without a vector."""
    metadata = MetaData()
    table = Table(
        "docs",
        metadata,
        Column("place", Text, primary_key=True),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("e", VECTOR(8)),
    )
    table.create(connection)
    vectors = [list(-QUERY), None, list(QUERY)]
    connection.execute(table.insert(), [{"place": "x", "id": n, "e": vector} for n, vector in enumerate(vectors)])
    database.install_rotation(connection, small_rotation)
    add_side_table(table.c.e, Short(4, small_rotation if request.param == "rotation" else Prefix()))
    metadata.create_all(connection)
    return table


def found(connection: Connection, docs: Table, **options: Any) -> list[int]:
    """What a search on the application's column finds."""
    statement = search(select(docs.c.id).where(docs.c.place != ""), docs.c.e, QUERY, **options)
    return [row.id for row in connection.execute(statement)]


def test_rows_that_were_there_are_found(connection: Connection, docs: Table) -> None:
    """And the application's table has no new column."""
    assert found(connection, docs) == found(connection, docs, exact=True) == [2, 0]
    count = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attnum > 0"
    assert connection.exec_driver_sql(count).scalar_one() == 4


def test_every_write_is_followed(connection: Connection, docs: Table) -> None:
    """Insert, update, upsert, NULL, a changed key, a changed key and vector at once, delete."""
    for write, expected in [
        ("INSERT INTO docs (place, id, e) VALUES ('x', 3, '[1,2,3,4,5,6,7,9]')", [2, 3, 0]),
        ("UPDATE docs SET e = '[-8,1,1,-3,0,0,0,0]' WHERE id = 2", [3, 2, 0]),
        (UPSERT, [2, 3, 0]),
        ("UPDATE docs SET title = 'unrelated'", [2, 3, 0]),
        ("UPDATE docs SET id = 20, place = 'y' WHERE id = 2", [20, 3, 0]),
        ("UPDATE docs SET id = 30, e = '[-1,-2,-3,-4,-5,-6,-7,-9]' WHERE id = 3", [20, 30, 0]),
        ("UPDATE docs SET e = NULL WHERE id = 30", [20, 0]),
        ("UPDATE docs SET e = '[1,2,3,4,5,6,7,8]' WHERE id = 1", [1, 20, 0]),
        ("DELETE FROM docs WHERE id = 1", [20, 0]),
    ]:  # fmt: skip
        connection.exec_driver_sql(write)
        assert found(connection, docs) == expected, write
        assert found(connection, docs, exact=True) == expected, write
    rows = "SELECT (SELECT count(*) FROM docs), (SELECT count(*) FROM docs_e)"
    first, second = connection.exec_driver_sql(rows).one()
    assert first == second == 3


def test_truncate_is_refused_or_cascades(connection: Connection, docs: Table) -> None:
    """The foreign key does not let rows go without their copies."""
    connection.exec_driver_sql("TRUNCATE docs CASCADE")
    assert found(connection, docs) == []
    assert connection.exec_driver_sql("SELECT count(*) FROM docs_e").scalar_one() == 0


def test_dropping_the_side_table_frees_the_applications(connection: Connection, docs: Table) -> None:
    """No trigger stays behind that would fail the next insert."""
    docs.metadata.tables["docs_e"].drop(connection)
    connection.exec_driver_sql("INSERT INTO docs (place, id, e) VALUES ('x', 9, '[1,2,3,4,5,6,7,8]')")
    left = r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'zz\_pgmrl\_%%'"
    assert connection.exec_driver_sql(left).scalar_one() == 0
