"""The migration that brings a short column and its index to what tuning chose; of tuning only this needs Alembic."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import render_python_code
from alembic.operations.ops import UpgradeOps

from pgmrl import database
from pgmrl.alembic import (
    AddShort,
    BackfillShort,
    CreateShortIndex,
    InstallRotation,
    MarkShort,
    RebuildShortIndex,
    UpgradePgmrl,
    ValidateShort,
    render_item,
)
from pgmrl.model.columns import attachment_of
from pgmrl.tune.applying import chosen, chosen_target

if TYPE_CHECKING:
    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.tune.result import Tuning

__all__ = ["migration"]


def migration(connection: Connection | Session, column: Any, tuning: Tuning, folder: str = "rotations") -> str | None:
    """The body of the migration that brings column and index to the choice; None where nothing is to change.

    As in docs/reshape.md: the new short column comes beside the old one, which is marked as retired and dropped later.

    Args:
        connection: of the database.
        column: as it was tuned.
        tuning: the result of `tune`.
        folder: of rotations, beside the migrations.

    Raises:
        MeasureError: no setting reached the target.

    """
    choice = chosen(tuning)
    if tuning.keeps_column:
        return None
    target = chosen_target(column, tuning)
    where: dict[str, Any] = {"schema": target.schema}
    columns = (target.table, target.full, target.definition)
    attachment = attachment_of(column)
    if target.short == attachment.short:
        operations: list[MigrateOperation] = [RebuildShortIndex(*columns, **where, index=choice.candidate.index)]
        return _rendered(operations)
    connection = database.sqlalchemy_connection(connection)
    operations = []
    installed = database.installed_revision(connection)
    if installed != database.NEWEST_REVISION:
        operations.append(UpgradePgmrl(database.NEWEST_REVISION, installed))
    rotation = tuning.rotation
    if rotation is not None and rotation.id not in database.installed_rotations(connection):
        operations.append(InstallRotation(str(PurePosixPath(folder) / f"{rotation.id}.npy")))
    if target.definition.has_column:
        operations += [
            AddShort(*columns, **where, online=True),
            BackfillShort(*columns, **where),
            ValidateShort(*columns, **where),
        ]
    operations.append(CreateShortIndex(*columns, **where, index=choice.candidate.index))
    if attachment.short is not None and attachment.definition.has_column:
        operations.append(MarkShort(target.table, attachment.short, "retired", schema=target.schema))
    return _rendered(operations)


def _rendered(operations: list[MigrateOperation]) -> str:
    # `render_python_code` keeps the imports to itself
    imports = "import pgmrl.alembic  # registers the operations\nfrom alembic import op\n\n"
    body = render_python_code(UpgradeOps(operations), render_item=render_item)
    names = [name for name in ("Definition", "Hnsw", "Rotation", "Short") if f"{name}(" in body or f"{name}." in body]
    return f"{imports}from pgmrl import {', '.join(names)}\n\n\ndef upgrade() -> None:\n    {body.strip()}\n"
