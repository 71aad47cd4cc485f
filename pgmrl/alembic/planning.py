"""What an operation will do, logged before it does: its steps, locks and room, and what stands in its way."""

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
from pgmrl.database.job_log import log
from pgmrl.errors import MigrationError
from pgmrl.names import qualified
from pgmrl.online import backfill, plan, preflight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from pgmrl.online.plan import PlannedStep, Size

__all__ = ["announce", "planned"]


def announce(connection: Connection, operation: OnShort) -> None:
    """Log with Alembic what is about to happen; called after the operation's own checks.

    Raises:
        MigrationError: it would fail, and why.
    """
    target = operation.target
    steps = list(planned(connection, operation, plan.size_of(connection, target.owner)))
    index, build = (operation.index, operation.build) if isinstance(operation, OnIndex) else (None, None)
    findings = preflight.check(connection, target, steps, by_trigger=False, index=index, build=build, kept=True)
    for step in steps:
        log.info("%s: lock %s, %s", step.title, step.lock, step.held)
    for finding in findings:
        if finding.level == "error":
            raise MigrationError(finding.message)
        log.log(logging.WARNING if finding.level == "warning" else logging.INFO, finding.message)


def planned(connection: Connection, operation: Any, size: Size) -> Iterator[PlannedStep]:
    """The steps of an operation as they will run."""
    owner = qualified(operation.schema, operation.table)
    if isinstance(operation, AddShort):
        yield plan.add(operation.target, online=operation.online, size=size)
    elif isinstance(operation, AlterShort):
        yield plan.drop(operation.schema, operation.table, operation.target.short, owner)
        yield plan.add(operation.target, online=False, size=size)
    elif isinstance(operation, BackfillShort):
        yield plan.fill(operation.target, size, backfill.batch_statement(connection, operation.target))
    elif isinstance(operation, CreateShortIndex):
        yield plan.index(operation.target, operation.index, operation.build, size)
    elif isinstance(operation, RebuildShortIndex):
        yield plan.rebuild(operation.target, operation.index, operation.build, size)
    elif isinstance(operation, DropShortIndex):
        yield plan.drop_index(operation.target, operation.index_name)
    elif isinstance(operation, ValidateShort):
        yield plan.validate(operation.target)
    elif isinstance(operation, DropShort):
        yield plan.drop(operation.schema, operation.table, operation.short, owner)
