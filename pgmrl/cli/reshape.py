"""`pgmrl reshape …`: another short vector, full type or index for a table in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from pgmrl import database
from pgmrl.cli.backfill_options import (
    BatchSeconds,
    MaxLag,
    MaxLockWaits,
    MaxRows,
    WithoutTriggers,
    Workers,
    stop_requested,
    throttle,
)
from pgmrl.cli.connect import open_engine
from pgmrl.cli.index_options import EfConstruction, M, index_of_options
from pgmrl.cli.options import (
    ColumnPath,
    DatabaseUrl,
    FreeSpace,
    Json,
    MaintenanceWorkMem,
    ParallelWorkers,
    Shortening,
    byte_size,
    shortening_rule,
)
from pgmrl.cli.output import console, errors, escaped, write_json
from pgmrl.cli.plan_report import CheckedPlan, print_plan, refuse_errors, write_plans
from pgmrl.cli.progress_report import job_progress, progress_report
from pgmrl.cli.repeat import Watch, repeated
from pgmrl.embedding_queue import installed_model
from pgmrl.model.embed import drop_embedding_triggers
from pgmrl.names import column_parts, qualified
from pgmrl.online import contract as contraction
from pgmrl.online import removal as removing
from pgmrl.online import reshape as reshaping
from pgmrl.online.expand import expand, plan_expand
from pgmrl.online.index_builds import Build

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from pgmrl.model.metrics import FullType
    from pgmrl.online.contract import Contraction
    from pgmrl.online.reshape import Reshape

__all__ = ["app"]

app = typer.Typer(
    help="Other dimensions, rule, type or index, without embedding again: start, deploy, contract.",
    no_args_is_help=True,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print steps, SQL, locks and room; change nothing.")]


@app.command()
def start(
    column: ColumnPath,
    short_dims: Annotated[int | None, typer.Option(help="Dimensions of the new short vector.")] = None,
    by: Shortening = None,
    type_: Annotated[str | None, typer.Option("--type", help="Of the short vector: halfvec, vector or bit.")] = None,
    m: M = None,
    ef_construction: EfConstruction = None,
    full: Annotated[str | None, typer.Option(help="halfvec or vector: the full vectors move to such a column.")] = None,
    full_name: Annotated[str | None, typer.Option(help="That column's name.")] = None,
    name: Annotated[str | None, typer.Option(help="The new short column's name.")] = None,
    dry_run: DryRun = False,
    maintenance_work_mem: MaintenanceWorkMem = None,
    parallel_workers: ParallelWorkers = None,
    workers: Workers = 1,
    max_rows: MaxRows = None,
    batch_seconds: BatchSeconds = 0.2,
    max_lag: MaxLag = "64MB",
    max_lock_waits: MaxLockWaits = 10,
    without_triggers: WithoutTriggers = False,
    free_space: FreeSpace = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Build the new short vector beside the old one, and say what the application's model is to say.

    What is not given stays as it is. Both are kept in step from then on: old and new code run side by side. Can be run
    again after any failure. Where only the index changes, it is rebuilt, and there is nothing to deploy.

    Example: `pgmrl reshape start documents.embedding --short-dims 64 --dry-run`
    """
    schema, table, full_column = column_parts(column)
    pace = throttle(max_rows, batch_seconds, max_lag, max_lock_waits, without_triggers)
    build = Build(True, maintenance_work_mem, parallel_workers)
    with open_engine(url, writes=not dry_run) as engine:
        with engine.connect() as connection:
            change = reshaping.reshape(
                connection,
                table,
                full_column,
                schema=schema,
                dims=short_dims,
                by=shortening_rule(by) if by else None,
                type_=type_,
                index=index_of_options(connection, table, full_column, m, ef_construction, schema=schema),
                full_type=cast("FullType | None", full),
                full_name=full_name,
                name=name,
            )
            free = byte_size("--free-space", free_space)
            with database.caller_path(connection):  # rows of the table are counted, whose name may have no schema
                planned = CheckedPlan(change.new.title, *plan_expand(connection, change, build, free_space=free))
        _show_start(planned, change, json=json, dry_run=dry_run)
        refuse_errors([planned])
        if dry_run:
            return
        with progress_report(quiet=json) as report, stop_requested() as stop:
            complete = expand(
                engine,
                change,
                build,
                pace,
                workers=workers,
                on_step=(lambda _: None) if json else (lambda title: errors.print(escaped(title))),
                progress=job_progress(report),
                stop_event=stop,
            )
    if json:
        write_json({"complete": complete, "short": change.new.short, "full": change.new.full, "model": change.model})
    elif complete:
        _print_next(change, column)
    if not complete:
        raise typer.Exit(1)


@app.command()
def status(column: ColumnPath, watch: Watch = False, url: DatabaseUrl = None) -> None:
    """Say which short columns there are, what each is for and what keeps it in step.

    Example: `pgmrl reshape status documents.embedding`
    """
    schema, table, full = column_parts(column)
    with open_engine(url) as engine, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        repeated(lambda: escaped(reshaping.status(connection, table, full, schema=schema)), watch=watch)


@app.command()
def contract(
    column: ColumnPath,
    wait_seconds: Annotated[
        float, typer.Option(help="How long to wait for a search of the old one, which would stop this.")
    ] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Drop it although it is searched; waits for nothing.")] = False,
    dry_run: DryRun = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Drop the old short vector, when only new code runs.

    Drops nothing where a search uses the old index while it waits, or a view or a function of the database names the
    old column. Before it drops anything it compares all rows, also with --force, and refuses where some differ.

    Example: `pgmrl reshape contract documents.embedding`
    """
    with open_engine(url, writes=not dry_run) as engine:
        change = _change_under_way(engine, column)
        _show_drop(CheckedPlan(change.owner, contraction.plan_contract(change), []), json=json, dry_run=dry_run)
        if dry_run:
            return
        if not json and not force:
            errors.print(f"waiting {wait_seconds:g} s for searches of the old short vector")
        with _autocommit(engine) as connection, progress_report(quiet=json) as report:
            contraction.contract(connection, change, watch=wait_seconds, force=force, progress=job_progress(report))
    old = [short.short for short in change.old]
    _show_dropped(old, kept=[change.new.short], json=json)


@app.command()
def undo(column: ColumnPath, dry_run: DryRun = False, url: DatabaseUrl = None, json: Json = False) -> None:
    """Drop the new short vector, and go on with the old one.

    Where the full vectors were moving too, it compares all rows first, and refuses where some differ.

    Example: `pgmrl reshape undo documents.embedding`
    """
    with open_engine(url, writes=not dry_run) as engine:
        change = _change_under_way(engine, column)
        _show_drop(CheckedPlan(change.owner, contraction.plan_undo(change), []), json=json, dry_run=dry_run)
        if dry_run:
            return
        with _autocommit(engine) as connection, progress_report(quiet=json) as report:
            contraction.undo(connection, change, progress=job_progress(report))
    _show_dropped([change.new.short], kept=[short.short for short in change.old], json=json)


@app.command()
def drop(
    column: ColumnPath,
    wait_seconds: Annotated[
        float, typer.Option(help="How long to wait for a search of it, which would stop this.")
    ] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Drop it although it is searched; waits for nothing.")] = False,
    dry_run: DryRun = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Drop a column of full vectors, its short ones, their indexes and triggers: another model's has taken its place.

    Drops nothing where a search uses its index while it waits, a view or a function of the database reads it, a
    reshape moves it, or a side table copies it. Its vectors are gone then; whoever wants them embeds again.

    Example: `pgmrl reshape drop documents.embedding`
    """
    schema, table, full = column_parts(column)
    with open_engine(url, writes=not dry_run) as engine, _autocommit(engine) as connection:
        marked = installed_model(connection, qualified(schema, table), full) is not None
        triggers = [drop_embedding_triggers(schema, table, full)] if marked else []
        going = removing.removal(connection, table, full, schema=schema, before=triggers)
        _show_drop(CheckedPlan(going.owner, removing.plan_removal(going), []), json=json, dry_run=dry_run)
        if dry_run:
            return
        if not json and not force:
            errors.print(f"waiting {wait_seconds:g} s for searches of {escaped(column)}")
        removing.remove(connection, going, watch=wait_seconds, force=force)
    _show_dropped(going.columns, kept=[], json=json)


def _autocommit(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _change_under_way(engine: Engine, column: str) -> Contraction:
    schema, table, full = column_parts(column)
    with engine.connect() as connection:
        return contraction.pending_contraction(connection, table, full, schema=schema)


# -- output --------------------------------------------------------------------------------------------------------


def _show_start(planned: CheckedPlan, change: Reshape, *, json: bool, dry_run: bool) -> None:
    if json:
        if dry_run:
            write_plans([planned])
        return
    print_plan(planned)
    if not change.same_columns:
        console.print(f"\nthe model afterwards: {escaped(change.model)}", soft_wrap=True)


def _show_drop(planned: CheckedPlan, *, json: bool, dry_run: bool) -> None:
    if not json:
        print_plan(planned)
    elif dry_run:
        write_plans([planned])


def _show_dropped(dropped: list[str], kept: list[str], *, json: bool) -> None:
    if json:
        write_json({"dropped": dropped, "kept": kept})
    else:
        console.print(f"dropped {escaped(', '.join(dropped))}")


def _print_next(change: Reshape, column: str) -> None:
    if change.same_columns:
        console.print("The index is rebuilt; nothing is to be changed in the application.")
        return
    new_column = ".".join([*column.split(".")[:-1], change.new.full])
    console.print(
        "Both are kept in step now. From its next deploy on the application's model says:\n\n"
        f"    {escaped(change.model)}\n\n"
        "(add_short(...) on a plain column takes the same Short and index). When only new code runs:\n\n"
        f"    pgmrl reshape contract {escaped(new_column)}",
        soft_wrap=True,
    )
