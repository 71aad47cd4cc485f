"""`pgmrl tune`: the cheapest setting that reaches a recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from rich.syntax import Syntax
from rich.table import Table

from pgmrl import database
from pgmrl.cli.common import (
    Json,
    Metric,
    Searched,
    Url,
    asked_index,
    console,
    engine,
    errors,
    escaped,
    metric_name,
    progress,
    write_json,
)
from pgmrl.cli.measuring import QueryFile, QuerySelect, check_drawing, given_queries, sizes, telling
from pgmrl.database.reflection import reflect
from pgmrl.database.settings import NEEDED
from pgmrl.model.columns import INFO_KEY, attachment_of
from pgmrl.model.rotation import Rotation
from pgmrl.tune import Tuning
from pgmrl.tune import tune as tuned
from pgmrl.tune.applying import apply_tuning, migration, model, reshape_commands
from pgmrl.tune.plots import (
    CHECKS,
    FRONT,
    MODELS,
    about,
    answer,
    check_rows,
    facts,
    front_rows,
    kept_rows,
    model_rows,
    today,
    write_html,
    write_png,
)
from pgmrl.tune.tuning import FINALISTS, GRAPH_ROWS, QUERIES, ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Connection


__all__ = ["tune"]

COMMANDS: Final = (
    "or the same to one database without a migration (--dry-run shows the steps)",
    "and when only new code runs, drop the old column by --contract",
)


def tune(
    column: Searched,
    recall: Annotated[
        float,
        typer.Option(
            help="recall@k to reach, above 0 and at most 1. No sample shows exactly 1: take 0.999, or exact=True."
        ),
    ] = 0.95,
    k: Annotated[int, typer.Option("-k", "--k", help="Results that count.")] = 10,
    sample: Annotated[
        int, typer.Option(help="How many queries at most, rows of the table unless given; half of them check.")
    ] = QUERIES,
    queries: QueryFile = None,
    query_sql: QuerySelect = None,
    dims: Annotated[str | None, typer.Option(help="Short dimensions to try, such as 32,64,128.")] = None,
    by: Annotated[str, typer.Option(help="Ways to shorten to try: prefix, rotation or both.")] = "prefix,rotation",
    types: Annotated[str, typer.Option("--type", help="Short types to try: halfvec, bit, vector.")] = "halfvec,bit",
    rotation: Annotated[
        Path | None, typer.Option(help="A rotation's file; default the column's own, else one is learned.")
    ] = None,
    m: Annotated[int | None, typer.Option(help="Links of each element; default as the index there is.")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="Candidates while building; likewise.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Try other m and ef_construction too.")] = False,
    max_shortlist: Annotated[int, typer.Option(help="The longest shortlist and largest ef_search to take.")] = 1000,
    minimise: Annotated[str, typer.Option(help="latency, size or build: what counts first.")] = "latency",
    finalists: Annotated[int, typer.Option(help="Candidates whose index is tried.")] = FINALISTS,
    rows: Annotated[int, typer.Option(help="Rows to read at most; of more a random sample.")] = ROWS,
    graph_rows: Annotated[int, typer.Option(help="Rows that indexes are tried on at most.")] = GRAPH_ROWS,
    maintenance_work_mem: Annotated[str | None, typer.Option(help='For these builds, such as "1GB".')] = None,
    seconds: Annotated[
        float | None, typer.Option(help="About how long; less is read and tried. The check of the choice comes on top.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all random choices.")] = 0,
    png: Annotated[Path | None, typer.Option(help="Write the picture there.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with picture and tables there.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the choice as the default of searches; print the migration.")
    ] = False,
    directory: Annotated[
        Path, typer.Option("--directory", help="Where a learned rotation is saved; beside your migrations.")
    ] = Path("rotations"),
    metric: Metric = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Find the cheapest short vectors and search numbers that reach a recall, before there is a column for them.

    Reads the vectors, computes what each way to shorten would lose, and tries the indexes of the most promising on a
    table that nobody else sees and that is rolled back. Says latency, index size, build time and memory today and at
    ten times the rows, and how far the models held. Exit code 1 where nothing reaches the recall.

    Example: `pgmrl tune packages.embedding --recall 0.95 --html tuning.html`
    """
    check_drawing("--png", png, (".png",))
    check_drawing("--html", html, (".html", ".htm"))
    with engine(url) as opened, opened.connect() as connection:
        if apply:
            database.require_schema(connection, NEEDED, "keeping settings")
        searched = _with_axes(connection, reflect(connection, column, metric=metric_name(metric)))
        given = given_queries(connection, searched, sample, queries, query_sql)
        owner = searched.table
        index = asked_index(connection, owner.name, searched.name, m, ef_construction, schema=owner.schema)
        connection.rollback()  # tuning begins a transaction of its own
        with progress(quiet=json) as bars:
            found = tuned(
                connection,
                searched,
                recall,
                k=k,
                queries=sample if given is None else given,
                dims=None if dims is None else sizes("--dims", dims),
                by=cast("Any", _listed(by)),
                types=cast("Any", _listed(types)),
                rotation=None if rotation is None else Rotation.load(rotation),
                index=index,
                graph=graph,
                max_shortlist=max_shortlist,
                optimize_for=cast("Any", minimise),
                finalists=finalists,
                rows=rows,
                graph_rows=graph_rows,
                maintenance_work_mem=maintenance_work_mem,
                seconds=seconds,
                seed=seed,
                progress=telling(bars),
            )
        if png is not None:
            write_png(found, png)
        if html is not None:
            write_html(found, html)
        plan = _plan(connection, searched, found, directory) if apply and found.choice is not None else None
    if json:
        write_json({**found.as_json(), **({} if plan is None else plan)})
    else:
        print_tuning(found)
        _print_paths(png, html)
        if plan is not None:
            _print_plan(plan)
    if found.choice is None:
        raise typer.Exit(1)


def print_tuning(found: Tuning) -> None:
    """What was found as a page."""
    style = "bold" if found.choice is not None else "bold yellow"
    console.print(f"[{style}]{escaped(answer(found))}[/]", soft_wrap=True)
    for note in found.incomplete:
        console.print(f"[yellow]incomplete: {escaped(note)}[/]", soft_wrap=True)
    if found.current is not None:
        console.print(escaped(today(found.current)), soft_wrap=True)
    console.print(_table("", ("", "today", "at ten times the rows"), facts(found)))
    console.print(
        _table(
            "what no other setting beats in recall, time and size at once",
            FRONT,
            front_rows(about(found), found.current),
        )
    )
    console.print(_table(f"recall@{found.k} of an exact shortlist", *kept_rows(found)))
    console.print(_table("checked with queries that were not used", CHECKS, check_rows(found)))
    console.print(_table("models, checked by predicting the largest size from smaller ones", MODELS, model_rows(found)))
    for note in found.notes:
        console.print(f"[dim]{escaped(note)}[/]", soft_wrap=True)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.seconds.items())
    console.print(
        f"{found.queries:,} of {escaped(found.source)} chose; {found.rows_read:,} rows read; {took}",
        style="dim",
        soft_wrap=True,
    )


def _plan(connection: Connection, searched: Column[Any], found: Tuning, directory: Path) -> dict[str, Any]:
    """Store the choice, save a rotation that is not in the database, and say what is to change."""
    if found.incomplete:
        said = "; ".join(found.incomplete)
        errors.print(f"incomplete: {escaped(said)}. The choice is stored all the same.", soft_wrap=True)
    rotation = found.rotation
    saved = None
    if rotation is not None and rotation.id not in database.installed_rotations(connection):
        saved = rotation.save(directory)
    body = migration(connection, searched, found, directory.name)
    commands = [] if body is None else reshape_commands(connection, searched, found, str(directory))
    connection.rollback()
    with connection.begin():
        short = apply_tuning(connection, searched, found)
    return {
        "applied_to": short,
        "in_effect": short == attachment_of(searched).short,
        "rotation_saved": saved,
        "migration": body,
        "commands": commands,
        "model": None if body is None else model(searched, found),
    }


def _print_plan(plan: dict[str, Any]) -> None:
    short = plan["applied_to"]
    if plan["in_effect"]:
        said = f"stored for {short}: SQL functions take it from now on, models by load_settings(...)"
    else:
        said = f"stored; takes effect when {short} is there (the migration below); until then searches stay as they are"
    console.print(f"\n{escaped(said)}", soft_wrap=True)
    if plan["rotation_saved"] is not None:
        console.print(f"rotation saved to {escaped(plan['rotation_saved'])}: commit it", soft_wrap=True)
    if plan["migration"] is None:
        return
    console.print(
        "\nThe short column or its index changes. The migration (docs: Changing your mind):\n", soft_wrap=True
    )
    console.print(Syntax(plan["migration"], "python", word_wrap=True, background_color="default"))
    console.print(f"the model afterwards: {escaped(plan['model'])}", soft_wrap=True)
    for command, what in zip(plan["commands"], COMMANDS, strict=False):
        console.print(f"\n{what}:\n\n    {escaped(command)}", soft_wrap=True)


def _with_axes(connection: Connection, searched: Column[Any]) -> Column[Any]:
    """The column with the axes of its rotation: what is measured is a model that loads them."""
    attachment = attachment_of(searched)
    by = attachment.definition.short.by
    if isinstance(by, Rotation) and attachment.definition.learned:
        short = replace(attachment.definition.short, by=database.with_axes(connection, by))
        searched.info[INFO_KEY] = replace(attachment, definition=replace(attachment.definition, short=short))
    return searched


def _print_paths(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            console.print(f"drawn into {escaped(path)}", soft_wrap=True)


def _listed(given: str) -> list[str]:
    return [one.strip() for one in given.split(",") if one.strip()]


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*head, title=title or None, title_justify="left", box=None, header_style="dim")
    for row in rows:
        table.add_row(*map(escaped, row))
    return table
