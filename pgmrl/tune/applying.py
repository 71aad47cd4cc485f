"""Take what tuning chose: its numbers into pgmrl.settings, and the migration where column or index change."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath
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
from pgmrl.database.settings import Setting, store_setting
from pgmrl.errors import MeasureError
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.rotation import Rotation
from pgmrl.online.reshape import Reshape
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.tune.index_trial import Option
    from pgmrl.tune.result import Tuning

__all__ = ["apply_tuning", "migration", "model", "reshape_commands", "setting"]


def setting(tuning: Tuning) -> Setting:
    """The numbers of the choice, as searches take them.

    Raises:
        MeasureError: no setting reached the target.

    """
    choice = _chosen(tuning)
    return Setting(
        k=tuning.k,
        shortlist=choice.shortlist,
        ef_search=choice.ef_search,
        target=tuning.target,
        recall=choice.recall.mean,
        latency_ms=choice.latency_ms,
        row_count=tuning.rows,
    )


def apply_tuning(connection: Connection | Session, column: Any, tuning: Tuning) -> str:
    """Store the choice, in the caller's transaction: SQL functions take it from then on, models by `load_settings`.

    For a short column that is not there yet the numbers wait until the migration has added it.

    Args:
        connection: its role needs INSERT and UPDATE on pgmrl.settings.
        column: as it was tuned.
        tuning: the result of `tune`.

    Returns:
        The name of the short column that the numbers are for.

    Raises:
        MeasureError: no setting reached the target.
        NotMigrated: pgmrl's schema is missing or too old.

    """
    chosen = setting(tuning)
    if tuning.keeps_column:
        store_setting(connection, column, chosen)
        return str(attachment_of(column).short)
    target = _target(column, tuning)
    store_setting(connection, column, chosen, short=target.short)
    return target.short


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
    choice = _chosen(tuning)
    if tuning.keeps_column:
        return None
    target = _target(column, tuning)
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
    operations += [
        AddShort(*columns, **where, online=True),
        BackfillShort(*columns, **where),
        ValidateShort(*columns, **where),
        CreateShortIndex(*columns, **where, index=choice.candidate.index),
    ]
    if attachment.short is not None:
        operations.append(MarkShort(target.table, attachment.short, "retired", schema=target.schema))
    return _rendered(operations)


def model(column: Any, tuning: Tuning) -> str:
    """What the application's model says from then on."""
    target = _target(column, tuning)
    return Reshape(target, target, None, _chosen(tuning).candidate.index).model


def reshape_commands(connection: Connection | Session, column: Any, tuning: Tuning, folder: str) -> list[str]:
    """What does the same as the migration to one database, for the shell; nothing where there is no column to reshape.

    The first builds the new column or index; where the column changes, the second drops the old one.

    Args:
        connection: of the database.
        column: as it was tuned.
        tuning: the result of `tune`.
        folder: where a rotation that is not in the database was saved.

    Raises:
        MeasureError: no setting reached the target.

    """
    attachment = attachment_of(column)
    if attachment.short is None:
        return []
    target, index, rotation = _target(column, tuning), _chosen(tuning).candidate.index, tuning.rotation
    name = ".".join(part for part in (target.schema, target.table, target.full) if part)
    parts, contract = ["pgmrl", "reshape", "start", name], []
    if target.short != attachment.short:
        by = "prefix"
        if rotation is not None:
            there = rotation.id in database.installed_rotations(database.sqlalchemy_connection(connection))
            by = str(rotation.id) if there else str(Path(folder) / f"{rotation.id}.npy")
        short = target.definition.short
        parts += ["--short-dims", str(short.dims), "--by", by, "--type", short.type]
        parts += ["--name", target.short]  # the numbers are stored for that name
        contract = [shlex.join(["pgmrl", "reshape", "contract", name])]
    parts += ["--m", str(index.m), "--ef-construction", str(index.ef_construction)]
    return [shlex.join(parts), *contract]


def _chosen(tuning: Tuning) -> Option:
    if tuning.choice is None:
        reason = "" if tuning.limit is None else f": {tuning.limit.message}; {tuning.limit.remedy}"
        raise MeasureError(f"no setting reaches recall@{tuning.k} of {tuning.target}{reason}")
    return tuning.choice


def _target(column: Any, tuning: Tuning) -> Target:
    """The short column of the choice; of the vectors and rule that are there already, the one that is there."""
    attachment, table = attachment_of(column), vectors_table(column)
    definition = _chosen(tuning).candidate.definition
    short = definition.short
    if isinstance(short.by, Rotation):
        definition = replace(definition, short=replace(short, by=Rotation(short.by.id)))
    there = attachment.definition.short
    if attachment.short is not None and (there.by, there.dims, there.type) == (short.by, short.dims, short.type):
        definition = replace(definition, short=replace(definition.short, name=attachment.short))
    return Target(table.name, attachment.full, definition, table.schema)


def _rendered(operations: list[MigrateOperation]) -> str:
    # `render_python_code` keeps the imports to itself
    imports = "import pgmrl.alembic  # registers the operations\nfrom alembic import op\n\n"
    body = render_python_code(UpgradeOps(operations), render_item=render_item)
    names = [name for name in ("Definition", "Hnsw", "Rotation", "Short") if f"{name}(" in body or f"{name}." in body]
    return f"{imports}from pgmrl import {', '.join(names)}\n\n\ndef upgrade() -> None:\n    {body.strip()}\n"
