"""Rotations in the database: their axes, installed and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.extension import check_pgvector
from pgmrl.database.schema import installed_revision, require_schema
from pgmrl.database.search_path import catalogue_result, pinned
from pgmrl.errors import (
    RotationError,
)
from pgmrl.model.binary import decode
from pgmrl.model.rotation import Rotation
from pgmrl.names import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["install_rotation", "installed_rotation", "installed_rotations", "rotation_statements", "with_axes"]


def install_rotation(connection: Connection | Session, rotation: Rotation) -> bool:
    """Put the axes of a rotation into the database, which checks them against the id.

    Returns:
        Whether they were not there before.

    Raises:
        RotationError: the rotation holds no axes.
        NotMigrated: pgmrl's schema is not installed.

    """
    rotation.required_axes()
    connection = sqlalchemy_connection(connection)
    require_schema(connection)
    if rotation.id in installed_rotations(connection):
        return False
    with pinned(connection):
        for statement in rotation_statements(rotation):
            connection.exec_driver_sql(statement)
    return True


def rotation_statements(rotation: Rotation) -> list[str]:
    """The statements that install a rotation, as plain SQL that a migration can also print."""
    axes = rotation.required_axes()
    rows = ",\n".join(f"('{rotation.id}', {n}, '{_as_text(axis)}')" for n, axis in enumerate(axes, 1))
    sizes = f"('{rotation.id}', {axes.shape[1]}, {axes.shape[0]})"
    insert_axes = f"INSERT INTO pgmrl.axes (rotation_id, n, axis) VALUES\n{rows}\nON CONFLICT DO NOTHING"
    seal = f"INSERT INTO pgmrl.rotations (id, dims, axes) VALUES {sizes} ON CONFLICT DO NOTHING"  # noqa: S608
    return [insert_axes, seal]  # the id is of a checked form and the rest are numbers


def installed_rotations(connection: Connection | Session) -> list[str]:
    """The ids of the rotations in this database, oldest first."""
    connection = sqlalchemy_connection(connection)
    if installed_revision(connection) is None:
        return []
    return list(catalogue_result(connection, "SELECT id FROM pgmrl.rotations ORDER BY installed_at, id").scalars())


def installed_rotation(connection: Connection | Session, rotation_id: str) -> Rotation:
    """A rotation with its axes, read from the database.

    Raises:
        RotationError: it is not installed there, or its axes are gone or are others.

    """
    connection = sqlalchemy_connection(connection)
    installed = installed_rotations(connection)
    if rotation_id not in installed:
        names = ", ".join(installed) or "none"
        raise RotationError(
            f"rotation {rotation_id} is not installed here (installed: {names}): run `pgmrl fit-rotation`"
        )
    schema = quoted(check_pgvector(connection))
    query = text(f"SELECT {schema}.halfvec_send(axis) FROM pgmrl.axes WHERE rotation_id = :id ORDER BY n")  # noqa: S608
    encoded = catalogue_result(connection, query, {"id": rotation_id}).scalars().all()
    if not encoded:
        raise RotationError(f"rotation {rotation_id} has no axes in pgmrl.axes: restore them from a backup")
    axes: NDArray[np.float16] = np.stack([decode(axis, "halfvec") for axis in encoded]).astype(np.float16)
    rotation = Rotation.of(axes)
    if rotation.id != rotation_id:
        raise RotationError(f"the axes stored as {rotation_id} are {rotation.id}: restore pgmrl.axes from a backup")
    return rotation


def with_axes(connection: Connection | Session, rotation: Rotation) -> Rotation:
    """A rotation with its axes, from the database where it holds none.

    Raises:
        RotationError: it is not installed there, or has no id either, as before it is learned.

    """
    if rotation.axes is not None:
        return rotation
    if rotation.id is None:
        raise RotationError(
            "this rotation has neither axes nor an id: learn one by `pgmrl fit-rotation`, or load its file"
        )
    return installed_rotation(connection, rotation.id)


def _as_text(axis: NDArray[np.float16]) -> str:
    return "[" + ",".join(f"{value:.9g}" for value in axis.astype(float)) + "]"
