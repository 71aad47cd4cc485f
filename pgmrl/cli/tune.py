"""`pgmrl tune`: the cheapest setting that reaches a recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.filtered_tuning import FilterValues, filters_of_options, print_filtered
from pgmrl.cli.index_options import EfConstruction, M, index_of_options
from pgmrl.cli.options import (
    ColumnPath,
    DatabaseUrl,
    Json,
    K,
    MaintenanceWorkMem,
    Metric,
    RotationFolder,
    Seed,
    check_plot,
    listed,
    metric_name,
    numbers,
)
from pgmrl.cli.output import errors, escaped, write_json
from pgmrl.cli.progress_report import progress_report, say_estimate
from pgmrl.cli.query_vectors import QueryFile, QuerySelect, queries_of_options
from pgmrl.cli.search_input import Where
from pgmrl.cli.tuning_output import print_applied, print_plots, print_tuning
from pgmrl.database.reflection import reflect
from pgmrl.errors import MigrationError
from pgmrl.model.columns import INFO_KEY, attachment_of
from pgmrl.model.rotation import Rotation
from pgmrl.tune import tune as find_setting
from pgmrl.tune.applying import apply_tuning, model, reshape_commands
from pgmrl.tune.filtered import QUERIES as FILTERED_QUERIES
from pgmrl.tune.filtered import tune_filtered
from pgmrl.tune.plots import write_html, write_png
from pgmrl.tune.tuning import FINALISTS, GRAPH_ROWS, QUERIES, ROWS

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from pgmrl.tune import Tuning

__all__ = ["tune"]

SECONDS: Final = 300.0
WRITERS: Final = {".png": write_png, ".html": write_html, ".htm": write_html}


def tune(
    column: ColumnPath,
    recall: Annotated[
        float,
        typer.Option(
            help="recall@k to reach, above 0 and at most 1. No sample shows exactly 1: take 0.999, or exact=True."
        ),
    ] = 0.95,
    k: K = 10,
    sample: Annotated[
        int,
        typer.Option(help="How many queries to try at most; rows of the table, unless others are given. Half check."),
    ] = QUERIES,
    queries: QueryFile = None,
    query_sql: QuerySelect = None,
    where: Where = None,
    values_sql: FilterValues = None,
    dims: Annotated[str | None, typer.Option(help="Short dimensions to try, such as 32,64,128.")] = None,
    by: Annotated[str, typer.Option(help="Ways to shorten to try: prefix, rotation or both.")] = "prefix,rotation",
    types: Annotated[str, typer.Option(help="Short types to try: halfvec, bit, vector.")] = "halfvec,bit",
    rotation: Annotated[
        Path | None, typer.Option(help="A rotation's file; default the column's own, else one is learned.")
    ] = None,
    m: M = None,
    ef_construction: EfConstruction = None,
    graph: Annotated[bool, typer.Option("--graph", help="Try other m and ef_construction too.")] = False,
    max_shortlist: Annotated[int, typer.Option(help="The longest shortlist and largest ef_search to take.")] = 1000,
    optimize_for: Annotated[str, typer.Option(help="latency, size or build: what counts first.")] = "latency",
    finalists: Annotated[int, typer.Option(help="Candidates whose index is tried.")] = FINALISTS,
    rows: Annotated[int, typer.Option(help="Rows to read at most; of more a random sample.")] = ROWS,
    graph_rows: Annotated[int, typer.Option(help="Rows that indexes are tried on at most.")] = GRAPH_ROWS,
    maintenance_work_mem: MaintenanceWorkMem = None,
    seconds: Annotated[
        float, typer.Option(help="How long it may take: fewer queries are asked, fewer candidates tried, less is read.")
    ] = SECONDS,
    seed: Seed = 0,
    plot: Annotated[
        list[Path] | None,
        typer.Option(help="Draw into this file: .png, or .html with the tables; repeat for both (extra `plot`)."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the choice as the default of searches; print the migration.")
    ] = False,
    rotation_dir: RotationFolder = Path("rotations"),
    metric: Metric = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Find the cheapest short vectors and search numbers that reach a recall, before there is a column for them.

    Reads the vectors, computes what each way to shorten would lose, and tries the indexes of the most promising on a
    table that nobody else sees and that is rolled back. Says latency, index size, build time and memory today and at
    ten times the rows, and how far the models held. Exit code 1 where nothing reaches the recall.

    With --where it finds the shortlist for searches with that filter instead, of the column there is, over a sample of
    values: `--where "tenant_id = :t" --values-sql "SELECT id AS t FROM tenants ORDER BY random() LIMIT 20"`.

    Example: `pgmrl tune packages.embedding --recall 0.95 --plot tuning.html`
    """
    plots = plot or []
    for path in plots:
        check_plot(path, tuple(WRITERS))
    if (where or values_sql) and (apply or plots):
        raise typer.BadParameter("--where finds a shortlist for filtered searches: it takes neither --apply nor --plot")
    with open_engine(url, writes=apply) as engine, engine.connect() as connection:
        if apply:
            database.require_schema(connection)
        searched = _with_axes(connection, reflect(connection, column, metric=metric_name(metric)))
        query_vectors = queries_of_options(connection, searched, sample, queries, query_sql)
        owner = searched.table
        index = index_of_options(connection, owner.name, searched.name, m, ef_construction, schema=owner.schema)
        if where is not None or values_sql is not None:
            filters = filters_of_options(connection, searched, where or "true", values_sql)
            connection.rollback()
            numbers_of: dict[str, Any] = {"k": k, "max_shortlist": max_shortlist, "seconds": seconds, "seed": seed}
            with progress_report(quiet=json) as report:
                tuned = tune_filtered(
                    connection,
                    searched,
                    filters,
                    recall,
                    queries=min(sample, FILTERED_QUERIES) if query_vectors is None else query_vectors,
                    progress=report,
                    **numbers_of,
                )
            if json:
                write_json(tuned.as_json())
            else:
                print_filtered(tuned, str(where))
            raise typer.Exit(0 if tuned.shortlist is not None else 1)
        connection.rollback()  # tuning begins a transaction of its own
        with progress_report(quiet=json) as report:
            tuning = find_setting(
                connection,
                searched,
                recall,
                k=k,
                queries=sample if query_vectors is None else query_vectors,
                dims=None if dims is None else numbers("--dims", dims),
                by=cast("Any", listed(by)),
                types=cast("Any", listed(types)),
                rotation=None if rotation is None else Rotation.load(rotation),
                index=index,
                graph=graph,
                max_shortlist=max_shortlist,
                optimize_for=cast("Any", optimize_for),
                finalists=finalists,
                rows=rows,
                graph_rows=graph_rows,
                maintenance_work_mem=maintenance_work_mem,
                seconds=seconds,
                seed=seed,
                progress=report,
                on_estimate=say_estimate(quiet=json),
            )
        for path in plots:
            WRITERS[path.suffix.lower()](tuning, path)
        applied = _applied(connection, searched, tuning, rotation_dir) if apply and tuning.choice is not None else None
    if json:
        write_json({**tuning.as_json(), **(applied or {})})
    else:
        print_tuning(tuning)
        print_plots(plots)
        if applied is not None:
            print_applied(applied)
    if tuning.choice is None:
        raise typer.Exit(1)


def _with_axes(connection: Connection, searched: Column[Any]) -> Column[Any]:
    """The column with the axes of its rotation: what is measured is a model that loads them."""
    attachment = attachment_of(searched)
    by = attachment.definition.short.by
    if isinstance(by, Rotation) and attachment.definition.learned:
        short = replace(attachment.definition.short, by=database.with_axes(connection, by))
        searched.info[INFO_KEY] = replace(attachment, definition=replace(attachment.definition, short=short))
    return searched


def _applied(connection: Connection, searched: Column[Any], tuning: Tuning, rotation_dir: Path) -> dict[str, Any]:
    """Store the choice, save a rotation that is not in the database, and say what is to change."""
    if tuning.incomplete:
        reasons = "; ".join(tuning.incomplete)
        errors.print(f"incomplete: {escaped(reasons)}. The choice is stored all the same.", soft_wrap=True)
    rotation = tuning.rotation
    saved = None
    if rotation is not None and rotation.id not in database.installed_rotations(connection):
        saved = rotation.save(rotation_dir)
    body = None if tuning.keeps_column else _migration(connection, searched, tuning, rotation_dir.name)
    commands = [] if body is None else reshape_commands(connection, searched, tuning, str(rotation_dir))
    connection.rollback()
    with connection.begin():
        short = apply_tuning(connection, searched, tuning)
    return {
        "applied_to": short,
        "in_effect": short == attachment_of(searched).short,
        "rotation_saved": saved,
        "migration": body,
        "commands": commands,
        "model": None if body is None else model(searched, tuning),
    }


def _migration(connection: Connection, searched: Column[Any], tuning: Tuning, folder: str) -> str | None:
    try:
        from pgmrl.tune.applied_migration import migration  # noqa: PLC0415 - Alembic may not be installed
    except MigrationError as error:
        return f"# {error}\n"
    return migration(connection, searched, tuning, folder)
