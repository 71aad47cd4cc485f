"""`pgmrl evaluate`: the quality of results for judged queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl import database, fit_rotation
from pgmrl import evaluate as evaluated
from pgmrl.cli.connect import open_engine
from pgmrl.cli.evaluation_output import as_json, print_evaluation
from pgmrl.cli.options import (
    ColumnPath,
    DatabaseUrl,
    EfSearch,
    EmbedderName,
    Json,
    Metric,
    ShortlistSize,
    WordsConfig,
    check_plot,
    metric_name,
    numbers,
)
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.cli.progress_report import progress_report, say_estimate
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.errors import MeasureError
from pgmrl.evaluation import beir_judgements, file_judgements, plot, selected_judgements
from pgmrl.evaluation.measures import DEFAULT as MEASURES
from pgmrl.evaluation.measures import library, parsed
from pgmrl.evaluation.plot import SUFFIXES
from pgmrl.model.rotation import Rotation

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from pgmrl.evaluation import Judged

__all__ = ["evaluate"]


def evaluate(
    column: ColumnPath,
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
    model: EmbedderName = DEFAULT,
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
    words_config: WordsConfig = None,
    without_itself: Annotated[
        bool, typer.Option("--without-itself", help="Documents are the queries: leave out the one with the same id.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(help="How many queries to try at most, chosen at random; default all.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Score as many queries as this time allows.")] = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw quality by dimensions into this file: .png, .svg, .pdf or .html."),
    ] = None,
    metric: Metric = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Judge the results of a column's searches by queries whose relevant documents are known.

    Compares exact search, short vectors alone, two stages as `search` sends them, and several short dimensions that are
    computed and need no column. Reads only; the table is read once. Needs the extra `evaluate`.

    Example: `pgmrl evaluate packages.embedding --queries queries.tsv --qrels qrels.txt --plot quality.png`
    """
    check_plot(plot_file, SUFFIXES)
    tried = None if dims is None else numbers("--dims", dims)
    _check_measures(measure)
    with open_engine(url) as engine, engine.connect() as connection, progress_report(quiet=json) as report:
        # one snapshot for the pass and the searches, in which nothing can be written
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        searched = reflect(connection, column, metric=metric_name(metric))
        judged = _judged(connection, queries, qrels, beir, split, judgements, vectors)
        evaluation = evaluated(
            connection,
            searched,
            judged,
            measures=measure or MEASURES,
            embedder=load_embedder(model) if any(query.vector is None for query in judged.queries) else None,
            document_id=document_id,
            shortlist=shortlist,
            ef_search=ef_search,
            dims=tried,
            rotation=_rotation(connection, searched, rotation),
            words=words,
            match=match,  # type: ignore[arg-type]  # checked there
            config=words_config,
            itself=not without_itself,
            limit_queries=sample,
            seconds=seconds,
            progress=report,
            on_estimate=say_estimate(quiet=json),
        )
    if plot_file is not None:
        plot(evaluation, plot_file)
    if json:
        write_json(as_json(evaluation))
        return
    print_evaluation(evaluation)
    if plot_file is not None:
        console.print(f"drawn into {escaped(plot_file)}", soft_wrap=True)


# -- queries and judgements -----------------------------------------------------------------------------------------


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


def _rotation(connection: Connection, column: Column[Any], option: str | None) -> Rotation | None:
    """The rotation of an id, of a file, or one that is learned."""
    if option is None:
        return None
    if option == "fit":
        return fit_rotation(connection, column).rotation
    if Path(option).is_file():
        return Rotation.load(option)
    return database.installed_rotation(connection, option)
