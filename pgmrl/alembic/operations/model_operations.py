"""The operations on models that embed text in the database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation, stated

__all__ = ["InstallTextModel", "RemoveTextModel"]


@Operations.register_operation("install_text_model")
@dataclass(frozen=True)
class InstallTextModel(PgmrlOperation):
    """Put a static model into pgmrl's schema, for `pgmrl.embed_text` and `…_search_text`.

    Attributes:
        source: `static`, or a folder; a relative one is looked for beside the migration's environment, too.
        name: of the model in the database; by default `static` or the folder's.

    """

    source: str
    name: str | None = None

    @classmethod
    def install_text_model(cls, operations: Operations, source: str | Path = "static", name: str | None = None) -> None:
        """Put a static model into pgmrl's schema; one that is there already, of the same content, stays.

        Raises:
            EmbedderError: an extra or a file is missing, or the model cannot run in the database.
            MigrationError: another model has this name, or the migration is printed (`--sql`).

        """
        operations.invoke(cls(str(source), name))

    @property
    def model_name(self) -> str:
        """The name, also where it was not given."""
        return self.name or Path(self.source).name

    def reverse(self) -> RemoveTextModel:
        """Remove it."""
        return RemoveTextModel(self.model_name, self.source)


@Operations.register_operation("remove_text_model")
@dataclass(frozen=True)
class RemoveTextModel(PgmrlOperation):
    """Remove a model, unless functions or triggers need it.

    Attributes:
        name: of the model in the database.
        source: as `InstallTextModel`; None where the operation does not say.

    """

    name: str
    source: str | None = None

    @classmethod
    def remove_text_model(cls, operations: Operations, name: str = "static") -> None:
        """Remove a model; does nothing where there is none.

        Raises:
            MigrationError: functions or a trigger need it.

        """
        operations.invoke(cls(name))

    def reverse(self) -> InstallTextModel:
        """Install it again.

        Raises:
            DefinitionError: `source` is None.

        """
        return InstallTextModel(stated(self.source, f"remove_text_model({self.name!r})"), self.name)
