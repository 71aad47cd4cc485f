"""`pgmrl recall`: how much of the truth searches return, and why they miss the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from sqlalchemy import select

from pgmrl.cli.common import Json, Metric, Searched, Url, console, engine, escaped, metric_name, progress, write_json
from pgmrl.cli.measuring import QueryFile, QuerySelect, given_queries, telling
from pgmrl.cli.search import EfSearch, ShortlistSize, Where, check_condition, conditioned
from pgmrl.database.reflection import reflect
from pgmrl.measure.history import record_recall, require_recording
from pgmrl.measure.recall import SAMPLE, SECONDS, WORST, Recall, measure_recall

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["recall"]


def recall(
    column: Searched,
    sample: Annotated[
        int, typer.Option(help="How many queries to try; rows of the table, unless others are given.")
    ] = SAMPLE,
    queries: QueryFile = None,
    query_sql: QuerySelect = None,
    where: Where = None,
    k: Annotated[int, typer.Option("-k", help="Results that count.")] = 10,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    complete: Annotated[
        bool | None, typer.Option(help="With or without the exact branch; default as in a search.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="When to stop, and report what was tried until then.")] = SECONDS,
    parallel: Annotated[int, typer.Option(help="Processes that help with an exact search.")] = 0,
    worst: Annotated[int, typer.Option(help="How many of the worst queries to show.")] = WORST,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Keep the result in pgmrl.recall_history.")] = False,
    metric: Metric = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Measure recall@k with its confidence interval, and what loses the rest: short vectors, HNSW scan, filter.

    Searches as the application does and compares with exact searches, which read the whole table. Reads only, a
    standby will do.

    Example: `pgmrl recall packages.embedding --where "section = 'games'"`
    """
    with engine(url) as opened, opened.connect() as connection:
        if record:
            require_recording(connection)
        searched = reflect(connection, column, metric=metric_name(metric))
        check_condition(connection, searched, where)
        statement = conditioned(select(*searched.table.primary_key.columns), where)
        given = given_queries(connection, searched, sample, queries, query_sql)
        connection.rollback()  # measuring begins transactions of its own
        with progress(quiet=json) as bars:
            found = measure_recall(
                connection,
                searched,
                statement,
                queries=sample if given is None else given,
                k=k,
                shortlist=shortlist,
                ef_search=ef_search,
                complete=complete,
                seconds=seconds,
                parallel=parallel,
                seed=seed,
                worst=worst,
                progress=telling(bars),
            )
        if record:
            with connection.begin():
                record_recall(connection, searched, found)
    if json:
        write_json(as_json(found))
    else:
        print_recall(found, searched.table.primary_key.columns.keys())


def as_json(found: Recall) -> dict[str, Any]:
    """A measurement as a JSON document."""
    whole = asdict(found)
    whole["recall"] = {"mean": found.recall.mean, "low": found.recall.low, "high": found.recall.high}
    whole["losses"] = [one._asdict() for one in found.losses]
    whole["worst"] = [{**one.loss._asdict(), "needed": one.needed, "why": one.why} for one in found.worst]
    return whole


def print_recall(found: Recall, key: Sequence[str]) -> None:
    """A measurement as a page.

    Args:
        found: the measurement.
        key: the names of the key's columns, for queries that are rows of the table.

    """
    mean, low, high = found.recall
    which = f" where {found.filter}" if found.filter else ""
    cut = found.queries < found.requested
    source = f"{found.queries:,} of {found.source}" if cut else found.source
    console.print(
        f"[bold]recall@{found.k} {mean:.3f}[/]  (95 %: {low:.3f} to {high:.3f})  {escaped(found.column + which)}, "
        f"{escaped(source)} as queries",
        soft_wrap=True,
    )
    if cut:
        said = f"stopped after {found.queries:,} of {found.requested:,} queries: give more --seconds"
        console.print(said, style="yellow")
    if found.index is None:
        console.print(
            f"no index serves the shortlist: {escaped(found.instead)} (see `pgmrl explain`)",
            style="yellow",
            soft_wrap=True,
        )
    console.print(_causes(found))
    through = found.index or "the whole table"
    console.print(
        f"shortlist {found.shortlist:,}, ef_search {found.ef_search:,}, through {escaped(through)}; a search through "
        f"SQLAlchemy took {found.p50_ms:.1f} ms (median), {found.p95_ms:.1f} ms (95 of 100 within); measured in "
        f"{found.seconds:.0f} s",
        style="dim",
        soft_wrap=True,
    )
    if found.worst:
        console.print(_worst(found, key))


def _causes(found: Recall) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    for name, share, meaning in (
        ("lost by truncation", found.truncation, "true neighbours that the short vectors rank behind the shortlist"),
        ("lost by the HNSW scan", found.ann, "rows of the shortlist that the scan passed by"),
        ("not returned", found.shortfall, "fewer rows came out of the scan than were asked for"),
        ("given back", -found.completed, "by ranking all rows of the filter exactly"),
    ):
        if share or not name.startswith(("not", "given")):
            table.add_row(f"{share:z.3f}", name, f"[dim]{meaning}[/]")
    return table


def _worst(found: Recall, key: Sequence[str]) -> Table:
    table = Table(box=None, header_style="dim", title="the queries that lose most", title_justify="left")
    rows = any(one.loss.key is not None for one in found.worst)
    for name in (", ".join(key) if rows else "query number", "recall", "why"):
        table.add_column(escaped(name), overflow="fold")
    for one in found.worst:
        shown = str(one.loss.number) if one.loss.key is None else ", ".join(map(str, one.loss.key))
        table.add_row(escaped(shown), f"{one.loss.recall:.2f}", escaped(one.why))
    return table
