"""The operations on pgmrl's own schema and the rotations in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["InstallRotation", "RemoveRotation", "UpgradePgmrl"]


@Operations.register_operation("upgrade_pgmrl")
@dataclass(frozen=True)
class UpgradePgmrl(PgmrlOperation):
    """Bring pgmrl's schema from one of its revisions to another.

    Attributes:
        to: the revision to reach, such as "0001"; "base" removes everything.
        since: the revision that an earlier migration of this history reached; None for the first one.

    """

    to: str
    since: str | None = None

    @classmethod
    def upgrade_pgmrl(cls, operations: Operations, to: str, since: str | None = None) -> None:
        """Bring pgmrl's schema to a revision, inside this migration.

        Raises:
            DefinitionError: there is no such revision.
            NotMigrated: the database is at another revision than `since`.

        """
        operations.invoke(cls(to, since))

    def reverse(self) -> UpgradePgmrl:
        """Back to the revision that it started from."""
        return UpgradePgmrl(self.since or "base", self.to)


@Operations.register_operation("install_rotation")
@dataclass(frozen=True)
class InstallRotation(PgmrlOperation):
    """Put the axes of a saved rotation into the database, which checks their hash.

    Attributes:
        path: the file `Rotation.save` wrote; a relative one is looked for beside the migration's environment.

    """

    path: str

    @classmethod
    def install_rotation(cls, operations: Operations, path: str | Path) -> None:
        """Put the axes of a saved rotation into the database.

        Raises:
            RotationError: there is no such file, or its axes are not those its name says.

        """
        operations.invoke(cls(str(path)))

    def reverse(self) -> RemoveRotation:
        """Remove it."""
        return RemoveRotation(self.path)


@Operations.register_operation("remove_rotation")
@dataclass(frozen=True)
class RemoveRotation(PgmrlOperation):
    """Take the axes of a rotation out of the database, unless a short column still needs them.

    Attributes:
        path: as `InstallRotation`.

    """

    path: str

    @classmethod
    def remove_rotation(cls, operations: Operations, path: str | Path) -> None:
        """Take the axes of a rotation out of the database, unless a short column still needs them.

        Raises:
            RotationError: there is no such file.

        """
        operations.invoke(cls(str(path)))

    def reverse(self) -> InstallRotation:
        """Install it."""
        return InstallRotation(self.path)
