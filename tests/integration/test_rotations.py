"""Rotations in the database are sealed: one id is one set of axes, for ever."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.errors import NotMigrated, RotationError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Rotation, Short

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


@pytest.fixture
def installed(connection: Connection, small_rotation: Rotation) -> Rotation:
    """A rotation that is in the database."""
    database.install_rotation(connection, small_rotation)
    connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")  # as COMMIT would
    return small_rotation


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pgmrl.axes SET axis = '[1,0,0,0,0,0,0,0]' WHERE n = 1",
        "UPDATE pgmrl.axes SET n = n + 100",
        "DELETE FROM pgmrl.axes WHERE n = 4",
        "DELETE FROM pgmrl.axes",
        "TRUNCATE pgmrl.axes",
        "TRUNCATE pgmrl.rotations CASCADE",
        "UPDATE pgmrl.rotations SET axes = 3",
        "UPDATE pgmrl.rotations SET id = 'r000000000000'",
        "INSERT INTO pgmrl.axes SELECT rotation_id, 5, axis FROM pgmrl.axes WHERE n = 1",
        "INSERT INTO pgmrl.axes SELECT id, 4, '[1,0,0,0,0,0,0,0]' FROM pgmrl.rotations ON CONFLICT DO NOTHING",
        "UPDATE pgmrl.axes SET rotation_id = 'r000000000000'",
    ],
)
def test_an_installed_rotation_cannot_be_changed(connection: Connection, installed: Rotation, change: str) -> None:
    """Not even by the owner of the database."""
    with connection.begin_nested() as savepoint:
        with pytest.raises(DBAPIError, match=r"cannot be changed(?s:.*)Fit a new one"):
            connection.exec_driver_sql(change)
        savepoint.rollback()
    assert database.installed_rotation(connection, str(installed.id)) == installed


@pytest.mark.parametrize(
    ("sizes", "message"),
    [("8, 4", "have the hash"), ("8, 3", "have the hash"), ("9, 4", "have the hash")],
)
def test_axes_that_are_not_those_of_the_id(connection: Connection, sizes: str, message: str) -> None:
    """The server computes the hash itself."""
    axes = ", ".join(f"('r0123456789ab', {n}, '[1,0,0,0,0,0,0,{n}]')" for n in range(1, 5))
    connection.exec_driver_sql(f"INSERT INTO pgmrl.axes (rotation_id, n, axis) VALUES {axes}")
    with pytest.raises(DBAPIError, match=message):
        connection.exec_driver_sql(f"INSERT INTO pgmrl.rotations (id, dims, axes) VALUES ('r0123456789ab', {sizes})")


@pytest.mark.parametrize("sizes", ["8, 3", "9, 4", "9, 9"])
def test_sizes_that_are_not_those_of_the_axes(connection: Connection, small_rotation: Rotation, sizes: str) -> None:
    """The right axes under a row that says something else of them."""
    connection.exec_driver_sql(database.rotation_statements(small_rotation)[0])
    with pytest.raises(DBAPIError, match=r"has 4 axes of \{8\} dimensions"):
        connection.exec_driver_sql(
            f"INSERT INTO pgmrl.rotations (id, dims, axes) VALUES ('{small_rotation.id}', {sizes})"
        )


def test_a_rotation_without_axes(connection: Connection) -> None:
    """A row with nothing behind it."""
    with pytest.raises(DBAPIError, match="there are none"):
        connection.exec_driver_sql("INSERT INTO pgmrl.rotations (id, dims, axes) VALUES ('r0123456789ab', 8, 4)")


def test_axes_without_their_rotation_are_not_committed(engine: Engine, small_rotation: Rotation) -> None:
    """Half an installation fails at COMMIT."""
    with engine.connect() as connection:
        connection.exec_driver_sql(database.rotation_statements(small_rotation)[0])
        with pytest.raises(DBAPIError, match="violates foreign key"):
            connection.commit()


def test_a_rotation_in_use_stays(connection: Connection, installed: Rotation) -> None:
    """Removed once no short column needs it."""
    docs = Table(
        "docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4, installed)))
    )
    docs.create(connection)
    with connection.begin_nested() as savepoint:
        with pytest.raises(DBAPIError, match="is in use by a short column"):
            connection.exec_driver_sql("DELETE FROM pgmrl.rotations")
        savepoint.rollback()
    docs.drop(connection)
    connection.exec_driver_sql("DELETE FROM pgmrl.rotations")
    assert connection.exec_driver_sql("SELECT count(*) FROM pgmrl.axes").scalar_one() == 0
    connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.parametrize("commits", [True, False])
def test_two_install_the_same_rotation_at_once(engine: Engine, rotation: Rotation, commits: bool) -> None:
    """The second waits for the first, and finds it there or installs it itself."""
    first = engine.connect()
    assert database.install_rotation(first, rotation)
    failed: list[BaseException] = []

    def second() -> None:
        try:
            with engine.begin() as connection:
                database.install_rotation(connection, rotation)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    if commits:
        first.commit()
    else:
        first.rollback()
    first.close()
    thread.join(20)
    assert not thread.is_alive()
    assert not failed
    with engine.connect() as connection:
        assert database.installed_rotation(connection, str(rotation.id)) == rotation
        assert connection.execute(text("SELECT count(*) FROM pgmrl.axes")).scalar_one() == len(rotation.required_axes())


def test_installing_twice_says_so(connection: Connection, installed: Rotation) -> None:
    """A migration that runs where `pgmrl fit-rotation` has been."""
    assert not database.install_rotation(connection, installed)
    assert database.installed_rotations(connection) == [installed.id]


def test_a_rotation_that_is_not_there(connection: Connection, installed: Rotation) -> None:
    """The error lists what is."""
    with pytest.raises(RotationError, match=f"installed: {installed.id}"):
        database.installed_rotation(connection, "r0123456789ab")


def test_a_rotation_without_axes_cannot_be_installed(connection: Connection) -> None:
    """It is only a name."""
    with pytest.raises(RotationError, match=r"Rotation\.load"):
        database.install_rotation(connection, Rotation("r0123456789ab"))


def test_without_pgmrls_schema(connection: Connection, small_rotation: Rotation) -> None:
    """One error that says what to run."""
    database.downgrade(connection)
    with pytest.raises(NotMigrated, match="pgmrl upgrade"):
        database.install_rotation(connection, small_rotation)
    assert database.installed_rotations(connection) == []


def test_4096_dimensions(connection: Connection) -> None:
    """Axes of the largest models fit a page each, in half precision."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4096, 8)))
    rotation = Rotation.of(q.T)
    database.install_rotation(connection, rotation)
    assert database.installed_rotation(connection, str(rotation.id)) == rotation
