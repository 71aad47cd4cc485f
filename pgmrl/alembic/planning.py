"""What an operation will do, said before it does: its steps, locks and room, and what stands in its way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropShort,
    DropShortIndex,
    OnIndex,
    OnShort,
    RebuildShortIndex,
    ValidateShort,
)
from pgmrl.errors import MigrationError
from pgmrl.names import qualified
from pgmrl.online import backfill, plan, preflight, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from pgmrl.online.plan import PlannedStep, Size
    from pgmrl.online.target import Target

__all__ = ["announce", "batch", "planned"]

log = logging.getLogger("alembic.pgmrl")


def announce(connection: Connection, operation: OnShort) -> None:
    """Say in Alembic's log what is about to happen; called after the operation's own checks.

    Raises:
        MigrationError: it would fail, and why.
    """
    target = operation.target
    listed = list(planned(connection, operation, plan.size_of(connection, target.owner)))
    indexed = operation if isinstance(operation, OnIndex) else None
    found = preflight.check(
        connection,
        target,
        listed,
        by_trigger=False,
        index=indexed.index if indexed else None,
        build=indexed.build if indexed else None,
        kept=True,
    )
    for step in listed:
        log.info("%s: lock %s, %s", step.title, step.lock, step.held)
    for one in found:
        if one.level == "error":
            raise MigrationError(one.message)
        log.log(logging.WARNING if one.level == "warning" else logging.INFO, one.message)


def planned(connection: Connection, operation: Any, size: Size) -> Iterator[PlannedStep]:
    """The steps of an operation as they will run."""
    owner = qualified(operation.schema, operation.table)
    if isinstance(operation, AddShort):
        yield plan.add(operation.target, online=operation.online, size=size)
    elif isinstance(operation, AlterShort):
        yield plan.drop(operation.schema, operation.table, operation.target.short, owner)
        yield plan.add(operation.target, online=False, size=size)
    elif isinstance(operation, BackfillShort):
        yield plan.fill(operation.target, size, batch(connection, operation.target))
    elif isinstance(operation, CreateShortIndex):
        yield plan.index(operation.target, operation.index, operation.build, size)
    elif isinstance(operation, RebuildShortIndex):
        yield plan.rebuild(operation.target, operation.index, operation.build, size)
    elif isinstance(operation, DropShortIndex):
        yield plan.drop_index(operation.target, operation.index.index_name(operation.table, operation.target.short))
    elif isinstance(operation, ValidateShort):
        yield plan.validate(operation.target)
    elif isinstance(operation, DropShort):
        yield plan.drop(operation.schema, operation.table, operation.short, owner)


def batch(connection: Connection, target: Target) -> str:
    """The statement of a backfill's batches."""
    try:
        return backfill.short_fill(connection, target).statement()
    except MigrationError:  # no table yet, or no key: the findings say so
        return steps.backfill_script(target)
