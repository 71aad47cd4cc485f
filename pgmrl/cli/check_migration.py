"""`pgmrl check-migration`: what a change will do, before it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import (
    DatabaseUrl,
    FreeSpace,
    Json,
    MaintenanceWorkMem,
    Shortening,
    byte_size,
    known_metric,
    shortening_rule,
)
from pgmrl.cli.output import console
from pgmrl.cli.plan_report import CheckedPlan, print_plan, refuse_errors, write_plans
from pgmrl.database.reflection import reflect
from pgmrl.model.columns import attachment_of
from pgmrl.model.filter_index import FilterIndex
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Rotation, Short
from pgmrl.names import column_parts
from pgmrl.online import backfill, plan, preflight
from pgmrl.online.filter_columns import completed
from pgmrl.online.index_builds import Build
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.model.metrics import MetricName, ShortType
    from pgmrl.online.index_statements import ShortIndex

__all__ = ["check_migration"]


def check_migration(
    column: Annotated[str | None, typer.Argument(help="table.column of the full vectors; or give --config")] = None,
    short_dims: Annotated[int, typer.Option(help="Dimensions of the short vector.")] = 128,
    by: Shortening = "prefix",
    type_: Annotated[str, typer.Option("--type", help="Of the short vector: halfvec, vector or bit.")] = "halfvec",
    metric: Annotated[str, typer.Option(callback=known_metric, help="cosine, l2 or inner_product")] = "cosine",
    m: Annotated[int, typer.Option(help="Links of each element of the index.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="Candidates while building.")] = 100,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Columns that searches filter by, such as tenant_id,section: their index too."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="A generated column, in one transaction, instead of the online path.")
    ] = False,
    maintenance_work_mem: MaintenanceWorkMem = None,
    free_space: FreeSpace = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="alembic.ini: what its pending migrations would do.")
    ] = None,
    to: Annotated[str, typer.Option(help="With --config: up to this revision.")] = "head",
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Say what a migration will do before it does: steps, SQL, locks, room, what stands in the way. Changes nothing.

    Looks at the table's size, expected rewrites, disk, pgvector's version, maintenance_work_mem against the index's
    size, long transactions, triggers, standbys. Exit code 1 where it would fail.

    Example: `pgmrl check-migration documents.embedding --short-dims 128`
    """
    if (column is None) == (config is None):
        raise typer.BadParameter("give a column or --config alembic.ini")
    build = Build(not in_place, maintenance_work_mem)
    free = byte_size("--free-space", free_space)
    with open_engine(url) as engine, engine.connect() as connection:
        if config is not None:
            from pgmrl.alembic.pending import pending  # noqa: PLC0415 - Alembic may not be installed

            database.leave_pinned(connection)  # the application's own code, and Alembic's table, are found by its path
            plans = [CheckedPlan(*planned) for planned in pending(connection, config, to, free)]
        else:
            short = Short(short_dims, by=shortening_rule(by or "prefix"), type=cast("ShortType", type_))
            target = _target(connection, str(column), short, cast("MetricName", metric))
            with database.caller_path(connection):  # rows of the table are counted, whose name may have no schema
                indexes = [Hnsw(m, ef_construction), *(_filter_index(connection, target, f) for f in filters or ())]
                plans = [_checked(connection, target, indexes, build, online=not in_place, free=free)]
    if json:
        write_plans(plans)
    else:
        for checked in plans:
            print_plan(checked)
        if not plans:
            console.print("There is nothing of pgmrl's in these migrations.")
    refuse_errors(plans)


def _target(connection: Connection, column: str, short: Short, metric: MetricName) -> Target:
    schema, table, full = column_parts(column)
    reflected = attachment_of(reflect(connection, column, metric=metric)).definition
    definition = Definition.of(reflected.dims, short, metric, reflected.full, reflected.vector_schema)
    return Target(table, full, definition, schema)


def _filter_index(connection: Connection, target: Target, columns: str) -> ShortIndex:
    return completed(connection, target, FilterIndex(*(column.strip() for column in columns.split(","))))


def _checked(
    connection: Connection,
    target: Target,
    indexes: Sequence[ShortIndex],
    build: Build,
    *,
    online: bool,
    free: int | None,
) -> CheckedPlan:
    size = plan.size_of(connection, target.owner)
    steps = [plan.add(target, online=online, size=size)]
    if online:
        steps.append(plan.fill(target, size, backfill.batch_statement(connection, target)))
    steps += [plan.index(target, index, build, size) for index in indexes]
    if online:
        steps.append(plan.validate(target))
    findings = preflight.check(
        connection,
        target,
        steps,
        by_trigger=online or isinstance(target.definition.short.by, Rotation),
        index=indexes[0],
        build=build,
        free_space=free,
        installs=True,
    )
    return CheckedPlan(target.title, steps, findings)
