"""Take what tuning chose: its numbers into pgmrl.settings, and the commands where column or index change."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgmrl import database
from pgmrl.database.settings import Setting, store_setting
from pgmrl.errors import MeasureError
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.shortening import Prefix, Rotation
from pgmrl.online.reshape import Reshape
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.tune.index_trial import Option
    from pgmrl.tune.result import Tuning

__all__ = ["apply_tuning", "chosen", "chosen_target", "model", "reshape_commands", "setting"]


def setting(tuning: Tuning) -> Setting:
    """The numbers of the choice, as searches take them.

    Raises:
        MeasureError: no setting reached the target.

    """
    choice = chosen(tuning)
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
    stored = setting(tuning)
    if tuning.keeps_column:
        store_setting(connection, column, stored)
        return str(attachment_of(column).short)
    target = chosen_target(column, tuning)
    store_setting(connection, column, stored, short=target.short)
    return target.short


def model(column: Any, tuning: Tuning) -> str:
    """What the application's model says from then on."""
    target = chosen_target(column, tuning)
    return Reshape(target, target, None, chosen(tuning).candidate.index).model


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
    target, index, rotation = chosen_target(column, tuning), chosen(tuning).candidate.index, tuning.rotation
    other = target.short != attachment.short
    if attachment.short is None or (other and not target.definition.has_column):  # the migration makes another index
        return []
    name = ".".join(part for part in (target.schema, target.table, target.full) if part)
    parts, contract = ["pgmrl", "reshape", "start", name], []
    if other:
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


def chosen(tuning: Tuning) -> Option:
    """What tuning chose.

    Raises:
        MeasureError: no setting reached the target.

    """
    if tuning.choice is None:
        reason = "" if tuning.limit is None else f": {tuning.limit.message}; {tuning.limit.remedy}"
        raise MeasureError(f"no setting reaches recall@{tuning.k} of {tuning.target}{reason}")
    return tuning.choice


def chosen_target(column: Any, tuning: Tuning) -> Target:
    """The short column of the choice; of the vectors and rule that are there already, the one that is there."""
    attachment, table = attachment_of(column), vectors_table(column)
    definition = chosen(tuning).candidate.definition
    short = definition.short
    if isinstance(short.by, Rotation):
        definition = replace(definition, short=replace(short, by=Rotation(short.by.id)))
    there = attachment.definition.short
    if not attachment.definition.has_column and isinstance(short.by, Prefix):
        return Target(table.name, attachment.full, replace(definition, has_column=False), table.schema)
    if attachment.short is not None and (there.by, there.dims, there.type) == (short.by, short.dims, short.type):
        definition = replace(definition, short=replace(definition.short, name=attachment.short))
    return Target(table.name, attachment.full, definition, table.schema)
