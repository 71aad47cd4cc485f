"""Operations for an application's own Alembic history; import this module in `env.py` or in the migration.

    from alembic import op
    import pgmrl.alembic

    def upgrade():
        op.add_short("documents", "embedding", Definition.of(768, Short(128)))
        op.create_short_index("documents", "embedding", Definition.of(768, Short(128)))

A second Alembic head would break `alembic upgrade head`; these operations keep one linear history.
"""

from pgmrl.errors import MigrationError

try:
    import alembic  # noqa: F401
except ModuleNotFoundError:
    raise MigrationError("migrations by Alembic need it installed: pip install 'pgmrl[alembic]'") from None

from pgmrl.alembic import (
    implementations,  # noqa: F401 - registers how the operations are done
    older_alembic,  # noqa: F401 - says where autogenerate would leave them out
)
from pgmrl.alembic.autogenerate.rendering import render_item
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropEmbedding,
    DropFunctions,
    DropShort,
    DropShortIndex,
    DropSide,
    InstallFunctions,
    InstallRotation,
    InstallTextModel,
    KeepChunks,
    KeepEmbedding,
    KeepSide,
    MarkShort,
    RebuildShortIndex,
    RemoveRotation,
    RemoveTextModel,
    SetStorage,
    UpgradePgmrl,
    ValidateShort,
)
from pgmrl.model.types import NumpyVector

__all__ = [
    "AddShort",
    "AlterShort",
    "BackfillShort",
    "CreateShortIndex",
    "DropEmbedding",
    "DropFunctions",
    "DropShort",
    "DropShortIndex",
    "DropSide",
    "InstallFunctions",
    "InstallRotation",
    "InstallTextModel",
    "KeepChunks",
    "KeepEmbedding",
    "KeepSide",
    "MarkShort",
    "NumpyVector",
    "RebuildShortIndex",
    "RemoveRotation",
    "RemoveTextModel",
    "SetStorage",
    "UpgradePgmrl",
    "ValidateShort",
    "render_item",
]
