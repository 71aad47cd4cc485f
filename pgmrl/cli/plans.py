"""`pgmrl check-migration` and `pgmrl reshape`: what a change will do, before it does; and the change itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer
from rich.syntax import Syntax

from pgmrl.alembic.pending import pending
from pgmrl.alembic.planning import batch
from pgmrl.cli.common import (
    Json,
    Searched,
    Url,
    asked_index,
    console,
    engine,
    errors,
    escaped,
    known_metric,
    progress,
    write_json,
)
from pgmrl.cli.online import (
    Bars,
    BatchSeconds,
    MaxLag,
    MaxLockWaits,
    MaxRows,
    WithoutTriggers,
    Workers,
    interrupted,
    throttle,
)
from pgmrl.database.reflection import reflect
from pgmrl.model.columns import attachment_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.names import column_parts
from pgmrl.online import contract as contracting
from pgmrl.online import plan, preflight
from pgmrl.online import reshape as reshaping
from pgmrl.online.expand import expand, plan_expand
from pgmrl.online.index_statements import Build
from pgmrl.online.target import Target
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine

    from pgmrl.model.metrics import FullType, MetricName, ShortType
    from pgmrl.online.plan import PlannedStep
    from pgmrl.online.preflight import Finding

__all__ = ["check_migration", "reshape"]

By = Annotated[str | None, typer.Option(help="prefix, a rotation's id, or its file rotations/r….npy")]
Memory = Annotated[str | None, typer.Option("--maintenance-work-mem", help='For the index build alone, such as "8GB".')]
Parallel = Annotated[int | None, typer.Option("--parallel-workers", help="For the index build alone.")]
FreeSpace = Annotated[str | None, typer.Option("--free-space", help="What is free on the server's disk, such as 50GB.")]


def check_migration(
    column: Annotated[str | None, typer.Argument(help="table.column of the full vectors; or give --config")] = None,
    short_dims: Annotated[int, typer.Option(help="Dimensions of the short vector.")] = 128,
    by: By = "prefix",
    type_: Annotated[str, typer.Option("--type", help="halfvec, vector or bit")] = "halfvec",
    metric: Annotated[str, typer.Option(callback=known_metric, help="cosine, l2 or inner_product")] = "cosine",
    m: Annotated[int, typer.Option(help="Links of each element.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="Candidates while building.")] = 100,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="A generated column, in one transaction, instead of the online path.")
    ] = False,
    maintenance_work_mem: Memory = None,
    free_space: FreeSpace = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="alembic.ini: what its pending migrations would do.")
    ] = None,
    to: Annotated[str, typer.Option(help="With --config: up to this revision.")] = "head",
    url: Url = None,
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
    free = _size(free_space)
    with engine(url) as opened, opened.connect() as connection:
        if config is not None:
            checked = _pending(connection, config, to, free)
        else:
            short = Short(short_dims, by=_rule(by or "prefix"), type=cast("ShortType", type_))
            target = _target(connection, str(column), short, cast("MetricName", metric))
            checked = [_checked(connection, target, Hnsw(m, ef_construction), build, online=not in_place, free=free)]
    _show(checked, json=json)


def reshape(
    column: Searched,
    short_dims: Annotated[int | None, typer.Option(help="Dimensions of the new short vector.")] = None,
    by: By = None,
    type_: Annotated[str | None, typer.Option("--type", help="halfvec, vector or bit")] = None,
    m: Annotated[int | None, typer.Option(help="Links of each element of the new index.")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="Candidates while building.")] = None,
    full: Annotated[str | None, typer.Option(help="halfvec or vector: the full vectors move to such a column.")] = None,
    full_name: Annotated[str | None, typer.Option(help="That column's name.")] = None,
    name: Annotated[str | None, typer.Option(help="The new short column's name.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, SQL, locks and room; change nothing.")
    ] = False,
    contract: Annotated[bool, typer.Option("--contract", help="Drop the old one, now that nothing reads it.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Drop the new one instead.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what stands beside what.")] = False,
    watch: Annotated[
        float, typer.Option(help="With --contract: seconds in which nothing may read the old one.")
    ] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="With --contract: drop it although it is read.")] = False,
    maintenance_work_mem: Memory = None,
    parallel_workers: Parallel = None,
    workers: Workers = 1,
    max_rows: MaxRows = None,
    batch_seconds: BatchSeconds = 0.2,
    max_lag: MaxLag = "64MB",
    max_lock_waits: MaxLockWaits = 10,
    without_triggers: WithoutTriggers = False,
    free_space: FreeSpace = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Change the short vector (dimensions, rule, type), the full one's type or the index, without embedding again.

    Expand: the new one is built beside the old, both are kept in step. Switch: the application's next deploy uses the
    model that is printed; old and new code run side by side. Contract: `--contract` drops the old one when nothing
    reads it. Each part can be run again after any failure.

    Example: `pgmrl reshape documents.embedding --short-dims 64 --dry-run`
    """
    schema, table, full_column = column_parts(column)
    with engine(url) as opened:
        with opened.connect() as connection:
            if status:
                console.print(escaped(reshaping.status(connection, table, full_column, schema=schema)), soft_wrap=True)
                return
            if contract or undo:
                what = contracting.pending_contraction(connection, table, full_column, schema=schema)
        if contract or undo:
            _contract(opened, what, watch=watch, force=force, back=undo, dry_run=dry_run, json=json)
            return
        build = Build(True, maintenance_work_mem, parallel_workers)
        with opened.connect() as connection:
            change = reshaping.reshape(
                connection,
                table,
                full_column,
                schema=schema,
                dims=short_dims,
                by=_rule(by) if by else None,
                type_=type_,
                index=asked_index(connection, table, full_column, m, ef_construction, schema=schema),
                full_type=cast("FullType | None", full),
                full_name=full_name,
                name=name,
            )
            planned, found = plan_expand(connection, change, build, free_space=_size(free_space))
        if not json or dry_run:
            _show([Checked(change.new.title, planned, found)], json=json, model=change)
        if dry_run:
            return
        if any(one.level == "error" for one in found):
            raise typer.Exit(1)
        how = throttle(max_rows, batch_seconds, max_lag, max_lock_waits, without_triggers)
        with progress(quiet=json) as bars, interrupted() as over:
            say = (lambda _: None) if json else (lambda title: errors.print(escaped(title)))
            complete = expand(
                opened, change, build, how, workers=workers, on_step=say, progress=Bars(bars), stop_event=over
            )
    if json:
        write_json({"complete": complete, "short": change.new.short, "full": change.new.full, "model": change.model})
    elif complete:
        _next(change, column)
    if not complete:
        raise typer.Exit(1)


class Checked(NamedTuple):
    """A plan with what was found.

    Attributes:
        title: of the short column.
        steps: as they will run.
        findings: the worst first.
    """

    title: str
    steps: Sequence[PlannedStep]
    findings: Sequence[Finding]


def _checked(
    connection: Connection, target: Target, index: Hnsw, build: Build, *, online: bool, free: int | None
) -> Checked:
    size = plan.size_of(connection, target.owner)
    steps = [plan.add(target, online=online, size=size)]
    if online:
        steps.append(plan.fill(target, size, batch(connection, target)))
    steps += [plan.index(target, index, build, size)]
    if online:
        steps += [plan.validate(target)]
    by_trigger = online or isinstance(target.definition.short.by, Rotation)
    found = preflight.check(
        connection,
        target,
        steps,
        by_trigger=by_trigger,
        index=index,
        build=build,
        free_space=free,
        installs=True,
    )
    return Checked(target.title, steps, found)


def _pending(connection: Connection, config: Path, to: str, free: int | None) -> list[Checked]:
    return [Checked(title, steps, found) for title, steps, found in pending(connection, config, to, free)]


def _target(connection: Connection, column: str, short: Short, metric: MetricName) -> Target:
    schema, table, full = column_parts(column)
    given = attachment_of(reflect(connection, column, metric=metric)).definition
    definition = Definition.of(given.dims, short, metric, given.full, given.vector_schema)
    return Target(table, full, definition, schema)


def _rule(given: str) -> Prefix | Rotation:
    if given == "prefix":
        return Prefix()
    if given == "rotation":
        raise typer.BadParameter("--by rotation: fit one first (`pgmrl fit`), then give its file or id")
    return Rotation.load(given) if given.endswith(".npy") else Rotation(given)


def _size(given: str | None) -> int | None:
    try:
        return None if given is None else preflight.parse_size(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _contract(opened: Engine, what: Any, *, watch: float, force: bool, back: bool, dry_run: bool, json: bool) -> None:
    planned = contracting.plan_undo(what) if back else contracting.plan_contract(what)
    if dry_run:
        _show([Checked(what.owner, planned, [])], json=json)
        return
    with opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if back:
            contracting.undo(connection, what)
        else:
            if not json and not force:
                errors.print(f"watching for {watch:g} s whether anything reads the old one")
            contracting.contract(connection, what, watch=watch, force=force)
    gone = [what.new.short] if back else [short.short for short in what.old]
    if json:
        write_json({"dropped": gone, "kept": [one.short for one in what.old] if back else [what.new.short]})
    else:
        console.print(f"dropped {escaped(', '.join(gone))}")


def _next(change: reshaping.Reshape, column: str) -> None:
    if change.same_columns:
        console.print("The index is rebuilt; nothing is to be changed in the application.")
        return
    new_column = ".".join([*column.split(".")[:-1], change.new.full])
    console.print(
        "Both are kept in step now. From its next deploy on the application's model says:\n\n"
        f"    {escaped(change.model)}\n\n"
        "(add_short(...) on a plain column takes the same Short and index). When only new code runs:\n\n"
        f"    pgmrl reshape {escaped(new_column)} --contract",
        soft_wrap=True,
    )


# -- output --------------------------------------------------------------------------------------------------------

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def _show(checked: Sequence[Checked], *, json: bool, model: reshaping.Reshape | None = None) -> None:
    if json:
        write_json([_as_json(one) for one in checked])
    else:
        for one in checked:
            _print(one)
        if not checked:
            console.print("There is nothing of pgmrl's in these migrations.")
        if model is not None and not model.same_columns:
            console.print(f"\nthe model afterwards: {escaped(model.model)}", soft_wrap=True)
    if any(found.level == "error" for one in checked for found in one.findings):
        raise typer.Exit(1)


def _as_json(one: Checked) -> dict[str, Any]:
    return {
        "title": one.title,
        "steps": [plan.as_json(step) for step in one.steps],
        "findings": [asdict(found) for found in one.findings],
        "room_bytes": sum(step.room for step in one.steps),
    }


def _print(one: Checked) -> None:
    console.print(f"[bold]{escaped(one.title)}[/]")
    for number, step in enumerate(one.steps, 1):
        room = f", about {shown(step.room)} of disk" if step.room else ""
        console.print(f"\n[bold]{number}. {escaped(step.title)}[/]", soft_wrap=True)
        console.print(f"   lock: {escaped(step.lock)}, {escaped(step.held)}{room}", soft_wrap=True)
        console.print(Syntax(";\n".join(step.sql) + ";", "sql", word_wrap=True, background_color="default"))
    console.print()
    for found in one.findings:
        colour = _COLOURS[found.level]
        console.print(f"[{colour}]{found.level}[/] {escaped(found.subject)}: {escaped(found.message)}", soft_wrap=True)
