"""`pgmrl recall`: how much of the truth searches return, and why they miss the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from sqlalchemy import select

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import ColumnPath, DatabaseUrl, EfSearch, Json, K, Metric, Seed, ShortlistSize, metric_name
from pgmrl.cli.output import console, errors, escaped, print_table, write_json
from pgmrl.cli.progress_report import progress_report, say_estimate
from pgmrl.cli.query_vectors import QueryFile, QuerySelect, queries_of_options
from pgmrl.cli.search_input import Where, check_filter, filtered
from pgmrl.database.reflection import reflect
from pgmrl.measure.history import record_recall, require_recording
from pgmrl.measure.recall import SAMPLE, SECONDS, WORST, Recall, measure_recall

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["recall"]


def recall(
    column: ColumnPath,
    sample: Annotated[
        int, typer.Option(help="How many queries to try at most; rows of the table, unless others are given.")
    ] = SAMPLE,
    queries: QueryFile = None,
    query_sql: QuerySelect = None,
    where: Where = None,
    k: K = 10,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    complete: Annotated[
        bool, typer.Option(help="With or without the exact fallback behind a shortlist that is not full.")
    ] = True,
    seconds: Annotated[float, typer.Option(help="When to stop, and report what was tried until then.")] = SECONDS,
    parallel_workers: Annotated[int, typer.Option(help="Of the server, that help with an exact search.")] = 0,
    worst: Annotated[int, typer.Option(help="How many of the worst queries to show.")] = WORST,
    seed: Seed = 0,
    record: Annotated[bool, typer.Option("--record", help="Keep the result in pgmrl.recall_history.")] = False,
    metric: Metric = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Measure recall@k with its confidence interval, and what loses the rest: short vectors, HNSW scan, filter.

    Searches as the application does and compares with exact searches, which read the whole table. Reads only, a
    standby will do.

    Example: `pgmrl recall packages.embedding --where "section = 'games'"`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        if record:
            require_recording(connection)
        searched = reflect(connection, column, metric=metric_name(metric))
        check_filter(connection, searched, where)
        statement = filtered(select(*searched.table.primary_key.columns), where)
        query_vectors = queries_of_options(connection, searched, sample, queries, query_sql)
        connection.rollback()  # measuring begins transactions of its own
        with progress_report(quiet=json) as report:
            measured = measure_recall(
                connection,
                searched,
                statement,
                queries=sample if query_vectors is None else query_vectors,
                k=k,
                shortlist=shortlist,
                ef_search=ef_search,
                complete=complete,
                seconds=seconds,
                parallel=parallel_workers,
                seed=seed,
                worst=worst,
                progress=report,
                on_estimate=say_estimate(quiet=json),
            )
        kept = not (record and database.is_standby(connection))
        connection.rollback()
        if record and kept:
            with connection.begin():
                record_recall(connection, searched, measured)
    if json:
        write_json(as_json(measured))
    else:
        print_recall(measured, searched.table.primary_key.columns.keys())
    if not kept:
        errors.print(f"not recorded: {database.KEEPS_NO_HISTORY}")
        raise typer.Exit(1)


def as_json(measured: Recall) -> dict[str, Any]:
    """A measurement as a JSON document."""
    document = asdict(measured)
    document["recall"] = measured.recall._asdict()
    document["searched"] = measured.searched
    document["losses"] = [loss._asdict() for loss in measured.losses]
    document["worst"] = [{**query.loss._asdict(), "needed": query.needed, "why": query.why} for query in measured.worst]
    return document


def print_recall(measured: Recall, key: Sequence[str]) -> None:
    """A measurement as a page.

    Args:
        measured: the measurement.
        key: the names of the key's columns, for queries that are rows of the table.

    """
    mean, low, high = measured.recall
    where = f" where {measured.filter}" if measured.filter else ""
    stopped = measured.queries < measured.requested
    source = f"{measured.queries:,} of {measured.source}" if stopped else measured.source
    console.print(
        f"[bold]recall@{measured.k} {mean:.3f}[/]  (95 %: {low:.3f} to {high:.3f})  "
        f"{escaped(measured.column + where)}, {escaped(source)} as queries",
        soft_wrap=True,
    )
    if stopped:
        console.print(
            f"stopped after {measured.queries:,} of {measured.requested:,} queries: give more --seconds", style="yellow"
        )
    if measured.index is None:
        console.print(
            f"no index serves the shortlist: {escaped(measured.instead)} (see `pgmrl explain`)",
            style="yellow",
            soft_wrap=True,
        )
    if measured.searched < measured.queries:
        console.print(
            f"each search sorts these rows again: {measured.searched:,} were made, which lost what the exact shortlist "
            f"loses, and the losses of the other {measured.queries - measured.searched:,} are computed as that",
            style="yellow",
            soft_wrap=True,
        )
    _print_losses(measured)
    if measured.scan_limit is not None:
        console.print(
            escaped(f"{measured.scan_limit.message}: {measured.scan_limit.remedy}"), style="yellow", soft_wrap=True
        )
    if measured.index is not None and measured.losses[0].key is not None:
        console.print(
            "rows of the table are in its index, which finds their neighbours more easily than those of a new query: "
            "real queries, by --query-sql or --queries, may lose more to the scan",
            style="dim",
            soft_wrap=True,
        )
    source = measured.index or "the whole table"
    console.print(
        f"shortlist {measured.shortlist:,}, ef_search {measured.ef_search:,}, through {escaped(source)}; a search "
        f"through SQLAlchemy took {measured.p50_ms:.1f} ms (median), {measured.p95_ms:.1f} ms (95 of 100 within); "
        f"measured in {measured.seconds:.0f} s",
        style="dim",
        soft_wrap=True,
    )
    if measured.worst:
        _print_worst(measured, key)


def _print_losses(measured: Recall) -> None:
    losses = [
        ("lost by truncation", measured.truncation, "true neighbours that the short vectors rank behind the shortlist"),
        ("lost by the HNSW scan", measured.ann, "rows of the shortlist that the scan passed by"),
    ]
    if measured.shortfall:
        losses.append(("not returned", measured.shortfall, "fewer rows came out of the scan than were asked for"))
    if measured.completed:
        losses.append(("given back", -measured.completed, "by ranking all rows of the filter exactly"))
    rows = [(f"{share:z.3f}", name, Text(meaning, style="dim")) for name, share, meaning in losses]
    print_table(["", "", ""], rows, wrapped=[2], right=[0])


def _print_worst(measured: Recall, key: Sequence[str]) -> None:
    are_rows = any(query.loss.key is not None for query in measured.worst)
    rows = [
        (
            str(query.loss.number) if query.loss.key is None else ", ".join(map(str, query.loss.key)),
            f"{query.loss.recall:.2f}",
            query.why,
        )
        for query in measured.worst
    ]
    head = (", ".join(key) if are_rows else "query number", "recall", "why")
    print_table(head, rows, title="the queries that lose most", wrapped=[0, 2])
