"""`pgmrl compare`: how far two columns of a table answer alike, before one takes the other's place."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl.cli.connect import open_engine
from pgmrl.cli.embed import column_model
from pgmrl.cli.options import ColumnPath, DatabaseUrl, Json, K, Metric, Seed, metric_name
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.database.reflection import reflect
from pgmrl.embedders import check_vectors
from pgmrl.embedding_queue import embedded_column
from pgmrl.errors import MeasureError, NotMigrated
from pgmrl.measure import Queries, measure_recall, vector_queries
from pgmrl.measure.agreement import measure_agreement, row_queries
from pgmrl.model.columns import attachment_of

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from pgmrl.cli.progress_report import ProgressReport
    from pgmrl.measure import Recall
    from pgmrl.measure.agreement import Agreement

__all__ = ["compare"]


def compare(
    column: ColumnPath,
    other: Annotated[str, typer.Argument(help="Another column of vectors of the same table.")],
    questions: Annotated[
        Path | None, typer.Option("--questions", help="Instead of rows: a file of questions, one a line.")
    ] = None,
    sample: Annotated[int, typer.Option(help="How many rows or questions to try at most.")] = 200,
    k: K = 10,
    seconds: Annotated[float, typer.Option(help="When to stop each of the measurements.")] = 60.0,
    seed: Seed = 0,
    metric: Metric = None,
    embedders: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder", help="A column's model, where it is one of your own (a.module:name); repeat for two."
        ),
    ] = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Ask two columns the same, each by its own model, and say how many of the answers agree, and the recall of both.

    The first serves, the second is filled beside it by another model: see 'Changing the model'. Reads only.

    Example: `pgmrl compare packages.embedding packages.embedding_2 --questions questions.txt`
    """
    with open_engine(url) as engine, engine.connect() as connection, progress_report(quiet=json) as report:
        first = reflect(connection, column, metric=metric_name(metric))
        columns = first, reflect(connection, other, metric=attachment_of(first).definition.metric.name)
        if questions is None:
            queries = row_queries(connection, *columns, sample, seed=seed)
        else:
            lines = [line for line in _lines(questions) if line.strip()][:sample]
            queries = tuple(  # type: ignore[assignment]
                _questions(connection, name, searched, lines, embedders or [])
                for name, searched in zip((column, other), columns, strict=True)
            )
        connection.rollback()  # measuring begins transactions of its own
        agreement = measure_agreement(connection, *columns, queries, k=k, seconds=seconds)
        recalls = [
            _recall(connection, searched, own, k, seconds, report)
            for searched, own in zip(columns, queries, strict=True)
        ]
    if json:
        found = [recall and {**recall.recall._asdict(), "shortlist": recall.shortlist} for recall in recalls]
        write_json({**asdict(agreement), "overlap": agreement.overlap._asdict(), "recall": found})
        return
    _print(agreement, recalls)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasureError(f"{path} cannot be read: {error}") from None


def _questions(
    connection: Connection, name: str, searched: Column[Any], lines: list[str], embedders: list[str]
) -> Queries:
    """The questions in the vectors of a column's model."""
    target = embedded_column(connection, name)
    by = target.embed.by if target.embed is not None else None
    model = column_model(target, by if by in embedders else None)
    vectors = check_vectors(model, model.embed_queries(lines), len(lines))
    queries = vector_queries(searched, vectors, f"{len(lines):,} questions")
    if queries.skipped:
        raise MeasureError(f"{model.name} has no vector for {queries.skipped:,} of the questions: leave them out")
    return queries


def _recall(
    connection: Connection, searched: Column[Any], queries: Queries, k: int, seconds: float, report: ProgressReport
) -> Recall | None:
    """What searches of a column find of its own truth; None where it has no index, and searches are exact."""
    try:
        return measure_recall(connection, searched, queries=queries, k=k, seconds=seconds, worst=0, progress=report)
    except NotMigrated:
        connection.rollback()
        return None


def _print(agreement: Agreement, recalls: list[Recall | None]) -> None:
    mean, low, high = agreement.overlap
    console.print(
        f"[bold]overlap@{agreement.k} {mean:.3f}[/]  (95 %: {low:.3f} to {high:.3f})  of the answers of "
        f"{escaped(agreement.first)} and {escaped(agreement.second)}; the best answer is the same for "
        f"{agreement.same_best:.0%}; {agreement.queries:,} of {escaped(agreement.source)} as queries",
        soft_wrap=True,
    )
    names = agreement.first, agreement.second
    for name, recall, median in zip(names, recalls, agreement.p50_ms, strict=True):
        said = (
            "exact: it has no valid index"
            if recall is None
            else (
                f"recall@{agreement.k} {recall.recall.mean:.3f} ({recall.recall.low:.3f} to {recall.recall.high:.3f})"
            )
        )
        console.print(f"{escaped(name)}: {said}; median {median:.1f} ms", soft_wrap=True)
