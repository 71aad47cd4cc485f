"""What operations need to be there before them, and which of them commit; pure, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    InstallFunctions,
    KeepChunks,
    KeepEmbedding,
    KeepSide,
    OneWay,
    OnIndex,
    RebuildShortIndex,
)
from pgmrl.model.shortening import Rotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations import MigrateOperation

__all__ = ["commits", "done_by_upgrade", "needs_schema", "rotations_used"]


def done_by_upgrade(operations: Iterable[MigrateOperation]) -> list[MigrateOperation]:
    """What an upgrade does, without the wrappers; what only a downgrade does is left out."""
    unwrapped = [
        operation.operation if isinstance(operation, OneWay) and not operation.downgrade else operation
        for operation in operations
    ]
    return [operation for operation in unwrapped if not isinstance(operation, OneWay)]


def needs_schema(operations: Iterable[MigrateOperation]) -> bool:
    """Whether they need pgmrl's schema: triggers and SQL functions do, generated columns do not."""
    return any(
        isinstance(operation, InstallFunctions | KeepChunks | KeepEmbedding | KeepSide)
        or (isinstance(operation, AddShort | AlterShort) and operation.by_trigger)
        for operation in done_by_upgrade(operations)
    )


def rotations_used(operations: Iterable[MigrateOperation]) -> list[Rotation]:
    """The rotations whose axes have to be in the database, each once; with axes where an operation has them."""
    rotations: dict[str, Rotation] = {}
    for operation in done_by_upgrade(operations):
        if isinstance(operation, AddShort | AlterShort) and isinstance(operation.definition.short.by, Rotation):
            rotation = operation.definition.short.by
            known = rotations.get(str(rotation.id))
            rotations[str(rotation.id)] = known if known is not None and known.axes is not None else rotation
    return list(rotations.values())


def commits(operation: MigrateOperation) -> bool:
    """Whether it ends the migration's transaction before it runs."""
    return any(
        isinstance(done, BackfillShort | RebuildShortIndex)
        or (isinstance(done, AddShort) and done.online)
        or (isinstance(done, OnIndex) and done.build.concurrently)
        for done in done_by_upgrade([operation])
    )
