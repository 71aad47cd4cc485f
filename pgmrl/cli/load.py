"""`pgmrl load`: from a file or a SELECT to a table that can be searched."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pgmrl.cli.column_types import ColumnType, types_of_options
from pgmrl.cli.connect import open_engine
from pgmrl.cli.input_files import folder_source, standard_input
from pgmrl.cli.input_rows import file_source, query_source
from pgmrl.cli.options import DatabaseUrl, EmbedderName, Json, RotationFolder, known_metric
from pgmrl.cli.output import console, counted, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.cli.table_load import TableLoad
from pgmrl.cli.text_template import TextTemplate, unescaped
from pgmrl.doctor.thresholds import Thresholds
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.model.shortening import Prefix, Rotation, Short

if TYPE_CHECKING:
    from pgmrl.cli.input_rows import RowSource

__all__ = ["load"]

MAX_CHARS: Final = 100_000
STANDARD_INPUT: Final = Path("-")
FORMATS: Final = ("jsonl", "csv", "tsv", "parquet")


def load(
    source: Annotated[
        Path | None, typer.Argument(help="A .jsonl, .csv, .tsv or .parquet file; - for standard input.")
    ] = None,
    query: Annotated[
        str | None, typer.Option("--select", help="Instead of a file: a SELECT in the same database.")
    ] = None,
    query_url: Annotated[
        str | None, typer.Option("--from", help="The database of --select, where it is another one: its URL.")
    ] = None,
    files: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="FOLDER PATTERN",
            help="Instead of a file: text files, each a row with its path and text: docs '**/*.md'.",
        ),
    ] = None,
    input_format: Annotated[
        str, typer.Option("--format", help="Of standard input: jsonl, csv, tsv or parquet.")
    ] = "jsonl",
    table: Annotated[str, typer.Option(help="The table, [schema.]name; made where there is none.")] = "documents",
    text: Annotated[
        str | None, typer.Option(help='What is embedded: a column, or a pattern such as "{name}: {body}".')
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option(help="Instead of a text: the column of the data that holds vectors.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The key's column; rows are numbered where the data have none.  [default: id; of --files path]"
        ),
    ] = None,
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
    --resume loads the rows that are not there, by their key, and does the rest; of standard input with the same rows
    once more. Reading, embedding and writing go on beside each other, a few batches apart.

    Example: `pgmrl load packages.jsonl --table packages --text "{name}: {synopsis}" --key id`
    """
    if files is not None and text is None and vector_column is None:
        text = "text"
    for wrong, message in (
        (sum(place is not None for place in (source, query, files)) != 1, "give a file, --select or --files"),
        (query is None and query_url is not None, "--from belongs to --select"),
        (input_format not in FORMATS, f"--format: expected one of {', '.join(FORMATS)}, got {input_format}"),
        ((text is None) == (vector_column is None), "give --text or --vector-column"),
        (by not in {"prefix", "rotation"}, f"--by: expected prefix or rotation, got {by}"),
        (max_chars < 1, f"--max-chars: expected at least 1, got {max_chars}"),
    ):
        if wrong:
            raise typer.BadParameter(message)
    schema, _, name = table.rpartition(".")
    job = TableLoad(
        schema=schema or None,
        table=name,
        key=key or ("id" if files is None else "path"),
        column=column,
        types=_types(types or []),
        template=None if text is None else TextTemplate.of(unescaped(text)),
        vector_column=vector_column,
        model=None if text is None else load_embedder(model),
        max_chars=max_chars,
        short=Short(short_dims, by=Prefix() if by == "prefix" else Rotation()),
        metric=metric,
        resume=resume,
    )
    with ExitStack() as stack:
        rows = _file_rows(stack, source, files, input_format)
        engine = stack.enter_context(open_engine(url, writes=True))
        if rows is None:
            queried = engine if query_url is None else stack.enter_context(open_engine(query_url))
            rows = stack.enter_context(query_source(queried, str(query)))
        report = stack.enter_context(progress_report(quiet=json))
        result = job.run(engine, rows, rotation_dir, report)
    document = {"table": table, **result}
    if json:
        write_json(document)
    else:
        _print(document, f"{table}.{column}", max_chars)


def _file_rows(
    stack: ExitStack, source: Path | None, files: tuple[Path, str] | None, input_format: str
) -> RowSource | None:
    """Files and standard input, which are looked at before a server is; None for a SELECT."""
    if files is not None:
        return folder_source(*files)
    if source == STANDARD_INPUT:
        return stack.enter_context(standard_input(input_format))
    return None if source is None else file_source(source)


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
