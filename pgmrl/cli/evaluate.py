"""`pgmrl evaluate`: the quality of results for judged queries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from pgmrl import database
from pgmrl import evaluate as judge
from pgmrl import fit_rotation as learn
from pgmrl.cli.common import (
    Json,
    Metric,
    Searched,
    Url,
    console,
    engine,
    escaped,
    metric_name,
    progress,
    write_json,
)
from pgmrl.cli.measuring import check_drawing, sizes, telling
from pgmrl.cli.search import EfSearch, ShortlistSize
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.errors import MeasureError
from pgmrl.evaluation import EXACT, SHORT_ONLY, TWO_STAGE, beir_judgements, file_judgements, plot, selected_judgements
from pgmrl.evaluation.measures import DEFAULT as MEASURES
from pgmrl.evaluation.measures import library, parsed
from pgmrl.evaluation.plot import SUFFIXES
from pgmrl.model.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, Connection

    from pgmrl.evaluation import Evaluation, Judged

__all__ = ["evaluate", "print_evaluation"]

FEW: Final = 30
"""Queries below which an interval is mostly chance of which were judged."""


def evaluate(
    column: Searched,
    queries: Annotated[
        Path | None, typer.Option(help="A query a line: `id<TAB>text`, or JSON with `_id` and `text` or `vector`.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgements in TREC's form or BEIR's.")] = None,
    beir: Annotated[
        Path | None, typer.Option(help="Instead: a folder with `queries.jsonl` and `qrels/test.tsv`.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the folder's judgements.")] = "test",
    judgements: Annotated[
        str | None,
        typer.Option(help="Instead: a SELECT of query, document, relevance, and text or vector if there is such."),
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="A .npy file: row n is the vector of query n.")] = None,
    model: Annotated[
        str, typer.Option("--embedder", help="The model the table was embedded with, for queries without a vector.")
    ] = DEFAULT,
    document_id: Annotated[
        str | None, typer.Option(help="The column by which judgements name documents; default the primary key.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="As ir-measures names it; repeat for more. Default: nDCG@10 RR@10 P@10 R@100 AP."),
    ] = None,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    dims: Annotated[
        str | None, typer.Option(help="Short dimensions to try, such as 32,64,128. Default: powers of two from 16.")
    ] = None,
    rotation: Annotated[
        str | None,
        typer.Option(help="Axes to try beside leading dimensions: an installed id, a file, or `fit` to learn some."),
    ] = None,
    words: Annotated[str | None, typer.Option(help="A tsvector column: compare with words, alone and fused.")] = None,
    match: Annotated[str, typer.Option(help="How words match: all, any, or web.")] = "all",
    config: Annotated[
        str | None, typer.Option(help="The text search configuration of --words; default what its column says.")
    ] = None,
    without_itself: Annotated[
        bool, typer.Option("--without-itself", help="Documents are the queries: leave out the one with the same id.")
    ] = False,
    limit_queries: Annotated[int | None, typer.Option(help="Score so many queries, chosen at random.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Score as many queries as this time allows.")] = None,
    drawing: Annotated[
        Path | None, typer.Option("--plot", help="Draw quality against dimensions: a .png, .svg, .pdf or .html file.")
    ] = None,
    metric: Metric = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Judge the results of a column's searches by queries whose relevant documents are known.

    Compares exact search, short vectors alone, two stages as `search` sends them, and several short dimensions that are
    computed and need no column. Reads only; the table is read once. Needs the extra `evaluate`.

    Example: `pgmrl evaluate packages.embedding --queries queries.tsv --qrels qrels.txt --plot quality.png`
    """
    check_drawing("--plot", drawing, SUFFIXES)
    tried = None if dims is None else sizes("--dims", dims)
    _check_measures(measure)
    with engine(url) as opened, opened.connect() as connection, progress(quiet=json) as bars:
        # one snapshot for the pass and the searches, in which nothing can be written
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        searched = reflect(connection, column, metric=metric_name(metric))
        judged = _judged(connection, queries, qrels, beir, split, judgements, vectors)
        found = judge(
            connection,
            searched,
            judged,
            measures=measure or MEASURES,
            embedder=load_embedder(model) if any(one.vector is None for one in judged.queries) else None,
            document_id=document_id,
            shortlist=shortlist,
            ef_search=ef_search,
            dims=tried,
            rotation=_rotation(connection, searched, rotation),
            words=words,
            match=match,  # type: ignore[arg-type]  # checked there
            config=config,
            itself=not without_itself,
            limit_queries=limit_queries,
            seconds=seconds,
            progress=telling(bars),
        )
    if drawing is not None:
        plot(found, drawing)
    if json:
        write_json(as_json(found))
        return
    print_evaluation(found)
    if drawing is not None:
        console.print(f"drawn: {escaped(drawing)}", soft_wrap=True)


def as_json(found: Evaluation) -> dict[str, Any]:
    """An evaluation as a JSON document; per-query values by the query's id."""
    systems = [
        {
            "name": one.name,
            "means": {name: mean._asdict() for name, mean in one.means.items()},
            "differences": {name: value._asdict() for name, value in one.differences.items()},
            "values": {
                name: dict(zip(found.queries, values.tolist(), strict=True)) for name, values in one.values.items()
            },
        }
        for one in found.systems
    ]
    names = ("column", "source", "measures", "rows", "judged", "shortlists", "ef_search", "warnings", "seconds")
    return {
        **{name: getattr(found, name) for name in names},
        "queries": len(found.queries),
        "systems": systems,
        "dims": [asdict(one) for one in found.dims],
        "worst": [asdict(one) for one in found.worst],
    }


def print_evaluation(found: Evaluation) -> None:
    """An evaluation as tables."""
    sizes = ", ".join(f"{size} for {depth}" for depth, size in found.shortlists.items())
    console.print(_systems(found))
    console.print(
        f"{escaped(found.column)}: {len(found.queries):,} queries, {found.judged:,} judgements, {found.rows:,} "
        f"documents; rows of the shortlist {sizes}; means with their 95 % intervals; {found.seconds:.1f} s",
        style="dim",
        soft_wrap=True,
    )
    if len(found.queries) < FEW:
        said = "1 query says" if len(found.queries) == 1 else f"{len(found.queries)} queries say"
        console.print(f"[yellow]note:[/] {said} little: judge {FEW} or more", soft_wrap=True)
    for line in _differences(found):
        console.print(line, soft_wrap=True)
    if found.dims:
        console.print(_dims(found))
    if found.worst:
        console.print(_worst(found))
    for warning in found.warnings:
        console.print(f"[yellow]note:[/] {escaped(warning)}", soft_wrap=True)


def _systems(found: Evaluation) -> Table:
    table = Table("", *map(escaped, found.measures), box=None, header_style="dim")
    for one in found.systems:
        cells = (f"{mean.mean:.4f} [dim]({mean.low:.3f} to {mean.high:.3f})[/]" for mean in one.means.values())
        table.add_row(one.name, *cells)
    return table


def _differences(found: Evaluation) -> Iterable[str]:
    for one in found.systems:
        if one.name == EXACT:
            continue
        name, value = next(iter(one.differences.items()))
        kept = "" if value.kept is None else f", {value.kept:.2%} of it (at least {value.kept_low:.2%})"
        yield (
            f"{one.name} against {EXACT}, {escaped(name)}: {value.mean:+.4f} ({value.low:+.4f} to {value.high:+.4f})"
            f"{kept}; better on {value.better:,} queries, worse on {value.worse:,}"
        )


def _dims(found: Evaluation) -> Table:
    name = found.measures[0]
    title = f"{escaped(name)} without a column, by exact shortlists"
    heads = ("shortened by", "dims", SHORT_ONLY, TWO_STAGE, f"of {EXACT}")
    table = Table(*heads, box=None, header_style="dim", title=title)
    for one in found.dims:
        kept = one.kept[name]
        values = (f"{one.short_only[name]:.4f}", f"{one.two_stage[name]:.4f}", "" if kept is None else f"{kept:.2%}")
        table.add_row(escaped(one.by), str(one.dims), *values)
    return table


def _worst(found: Evaluation) -> Table:
    table = Table("query", "", EXACT, TWO_STAGE, "not found", box=None, header_style="dim", title="worst queries")
    for one in found.worst:
        text = " ".join((one.text or "").split())
        lost = ", ".join(one.lost[:3]) + (", …" if len(one.lost) > 3 else "")
        cells = (
            one.query,
            text if len(text) <= 50 else f"{text[:49]}…",
            f"{one.exact:.3f}",
            f"{one.two_stage:.3f}",
            lost,
        )
        table.add_row(*map(escaped, cells))
    return table


# -- what is given -------------------------------------------------------------------------------------------------


def _check_measures(names: list[str] | None) -> None:
    library()  # an extra that is missing is no wrong option
    try:
        parsed(names or MEASURES)
    except MeasureError as error:
        raise typer.BadParameter(f"--measure: {error}") from None


def _judged(
    connection: Connection,
    queries: Path | None,
    qrels: Path | None,
    beir: Path | None,
    split: str,
    judgements: str | None,
    vectors: Path | None,
) -> Judged:
    if [qrels, beir, judgements].count(None) != 2 or (beir is not None and queries is not None):
        raise typer.BadParameter("give --queries with --qrels, or --beir, or --judgements (with --queries or not)")
    if beir is not None:
        return beir_judgements(beir, split, vectors)
    if judgements is not None:
        return selected_judgements(connection, judgements, queries, vectors)
    if queries is None or qrels is None:
        raise typer.BadParameter("--qrels needs --queries")
    return file_judgements(queries, qrels, vectors)


def _rotation(connection: Connection, column: Column[Any], given: str | None) -> Rotation | None:
    if given is None:
        return None
    if given == "fit":
        return learn(connection, column).rotation
    if Path(given).is_file():
        return Rotation.load(given)
    return database.installed_rotation(connection, given)
