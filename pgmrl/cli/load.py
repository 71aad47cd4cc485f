"""`pgmrl load`: from a file or a SELECT to a table that can be searched."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pgmrl.cli.column_types import ColumnType, types_of_options
from pgmrl.cli.connect import open_engine
from pgmrl.cli.input_rows import file_source, query_source
from pgmrl.cli.options import DatabaseUrl, EmbedderName, Json, RotationFolder, known_metric
from pgmrl.cli.output import console, counted, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.cli.table_load import TableLoad
from pgmrl.cli.text_template import TextTemplate
from pgmrl.doctor.thresholds import Thresholds
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.model.shortening import Prefix, Rotation, Short

__all__ = ["load"]

MAX_CHARS: Final = 100_000


def load(
    source: Annotated[Path | None, typer.Argument(help="A .jsonl, .csv, .tsv or .parquet file.")] = None,
    query: Annotated[
        str | None, typer.Option("--select", help="Instead of a file: a SELECT in the same database.")
    ] = None,
    table: Annotated[str, typer.Option(help="The table, [schema.]name; made where there is none.")] = "documents",
    text: Annotated[
        str | None, typer.Option(help='What is embedded: a column, or a pattern such as "{name}: {body}".')
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option(help="Instead of a text: the column of the data that holds vectors.")
    ] = None,
    key: Annotated[str, typer.Option(help="The key's column; rows are numbered where the data have none.")] = "id",
    column: Annotated[str, typer.Option(help="The vector's column in the table.")] = "embedding",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="NAME=TYPE",
            help="A column's type, such as rank=integer; repeat for more. Default: by all values of the file.",
        ),
    ] = None,
    model: EmbedderName = DEFAULT,
    max_chars: Annotated[
        int, typer.Option(help="Characters of a text that are embedded; longer ones are stored whole.")
    ] = MAX_CHARS,
    short_dims: Annotated[int, typer.Option(help="Dimensions of the short vector.")] = 64,
    by: Annotated[str, typer.Option(help="prefix (for Matryoshka-trained models) or rotation (learned)")] = "prefix",
    metric: Annotated[str, typer.Option(callback=known_metric, help="cosine, l2 or inner_product")] = "cosine",
    rotation_dir: RotationFolder = Path("rotations"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a load that was interrupted: rows that are there are left out."),
    ] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Load rows into a table with a Matryoshka column: made, embedded, copied, indexed.

    A file is read to its end before anything is written. Each batch is written whole or not at all. A table that is
    there already gets the rows added, and its index where it has none. After an interruption the same command with
    --resume loads the rows that are not there, by their key, and does the rest.

    Example: `pgmrl load packages.jsonl --table packages --text "{name}: {synopsis}" --key id`
    """
    if (source is None) == (query is None):
        raise typer.BadParameter("give a file or --select")
    if (text is None) == (vector_column is None):
        raise typer.BadParameter("give --text or --vector-column")
    if by not in {"prefix", "rotation"}:
        raise typer.BadParameter(f"--by: expected prefix or rotation, got {by}")
    if max_chars < 1:
        raise typer.BadParameter(f"--max-chars: expected at least 1, got {max_chars}")
    schema, _, name = table.rpartition(".")
    job = TableLoad(
        schema=schema or None,
        table=name,
        key=key,
        column=column,
        types=_types(types or []),
        template=None if text is None else TextTemplate.of(text),
        vector_column=vector_column,
        model=None if text is None else load_embedder(model),
        max_chars=max_chars,
        short=Short(short_dims, by=Prefix() if by == "prefix" else Rotation()),
        metric=metric,
        resume=resume,
    )
    file = None if source is None else file_source(source)
    with (
        open_engine(url, writes=True) as engine,
        query_source(engine, str(query)) if file is None else nullcontext(file) as rows,
        progress_report(quiet=json) as report,
    ):
        result = job.run(engine, rows, rotation_dir, report)
    document = {"table": table, **result}
    if json:
        write_json(document)
    else:
        _print(document, f"{table}.{column}", max_chars)


def _types(options: list[str]) -> dict[str, ColumnType]:
    try:
        return types_of_options(options)
    except ValueError as error:
        raise typer.BadParameter(f"--type: {error}") from None


def _print(document: dict[str, Any], column_path: str, max_chars: int) -> None:
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in document["seconds"].items() if step != "total")
    total = document["seconds"]["total"]
    console.print(
        f"{counted(document['rows'], 'row')} in {total:.1f} s into {escaped(document['table'])}: {steps}",
        soft_wrap=True,
    )
    if document["skipped"]:
        console.print(f"{counted(document['skipped'], 'row')} were there already", soft_wrap=True)
    if document["null_vectors"] or document["zero_vectors"]:
        console.print(
            f"{counted(document['null_vectors'], 'row')} without a vector and {document['zero_vectors']:,} with a zero "
            "short one: the index does not hold them",
            soft_wrap=True,
        )
    if document["truncated_texts"]:
        console.print(
            f"of {counted(document['truncated_texts'], 'text')} only the first {max_chars:,} characters were embedded "
            "(--max-chars)",
            soft_wrap=True,
        )
    recall = document["recall"]
    if recall is not None:
        _print_recall(recall, column_path)
    elif "recall" in document["seconds"] and document["rows"] > document["null_vectors"]:
        console.print(
            f"recall could not be measured in {document['seconds']['recall']:.0f} s: pgmrl recall "
            f"{escaped(column_path)} --seconds 600",
            soft_wrap=True,
        )
    console.print(f'now: pgmrl search {escaped(column_path)} "…"', soft_wrap=True)


def _print_recall(recall: dict[str, Any], column_path: str) -> None:
    """What the usual searches find; where it is little, first."""
    style, remark = None, ""
    if recall["high"] < Thresholds().recall_least:
        style, remark = "yellow", f"searches miss {1 - recall['mean']:.0%} of the true neighbours: "
    console.print(
        f"{remark}recall@{recall['k']} {recall['mean']:.2f} ({recall['low']:.2f} to {recall['high']:.2f}) with the "
        f"usual shortlist of {recall['shortlist']}; what brings more: pgmrl tune {escaped(column_path)} --recall 0.95",
        style=style,
        soft_wrap=True,
    )
