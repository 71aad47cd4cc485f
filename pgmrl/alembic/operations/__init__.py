"""The operations of pgmrl in a migration: immutable values that say what to do; `implementations` does it.

Each renders as one line. Those that work online run in transactions of their own and can be run again after any
failure: they look at what is there first.
"""

from pgmrl.alembic.operations.base_operations import OneWay, PgmrlOperation
from pgmrl.alembic.operations.chunk_operations import DropChunks, KeepChunks
from pgmrl.alembic.operations.distribution_operations import DistributeTable, UndistributeTable
from pgmrl.alembic.operations.embedding_operations import DropEmbedding, KeepEmbedding
from pgmrl.alembic.operations.function_operations import DropFunctions, InstallFunctions
from pgmrl.alembic.operations.index_operations import CreateShortIndex, DropShortIndex, OnIndex, RebuildShortIndex
from pgmrl.alembic.operations.model_operations import InstallTextModel, RemoveTextModel
from pgmrl.alembic.operations.schema_operations import InstallRotation, RemoveRotation, UpgradePgmrl
from pgmrl.alembic.operations.short_operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    DropShort,
    MarkShort,
    OnShort,
    ValidateShort,
)
from pgmrl.alembic.operations.storage_operations import DropSide, KeepSide, SetStorage

__all__ = [
    "AddShort",
    "AlterShort",
    "BackfillShort",
    "CreateShortIndex",
    "DistributeTable",
    "DropChunks",
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
    "OnIndex",
    "OnShort",
    "OneWay",
    "PgmrlOperation",
    "RebuildShortIndex",
    "RemoveRotation",
    "RemoveTextModel",
    "SetStorage",
    "UndistributeTable",
    "UpgradePgmrl",
    "ValidateShort",
]
