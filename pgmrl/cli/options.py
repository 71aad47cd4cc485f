"""Arguments and options that several commands take, each under one name and with one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgmrl.errors import DefinitionError
from pgmrl.measure.drawing import check_path
from pgmrl.model.metrics import metric_named
from pgmrl.model.shortening import Prefix, Rotation
from pgmrl.online.preflight import parse_size
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.model.metrics import MetricName

__all__ = [
    "ColumnPath",
    "DatabaseUrl",
    "EfSearch",
    "EmbedderName",
    "Exact",
    "FreeSpace",
    "Json",
    "K",
    "MaintenanceWorkMem",
    "Metric",
    "ParallelWorkers",
    "RotationFolder",
    "Seed",
    "Shortening",
    "ShortlistSize",
    "WordsConfig",
    "byte_size",
    "check_plot",
    "known_metric",
    "listed",
    "metric_name",
    "numbers",
    "shortening_rule",
]


def known_metric(name: str | None) -> str | None:
    """Refuse the name of no metric as a wrong use of the option."""
    try:
        return None if name is None else metric_named(name).name
    except DefinitionError as error:
        raise typer.BadParameter(str(error)) from None


Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output and nothing else.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The database; before DATABASE_URL and the embedded server. The process list shows it to others: keep a "
        "password in DATABASE_URL, PGPASSWORD or a password file.",
    ),
]
ColumnPath = Annotated[str, typer.Argument(help="table.column or schema.table.column, of the full vectors")]
Metric = Annotated[
    str | None,
    typer.Option(
        callback=known_metric, help="cosine, l2 or inner_product; needed where the database does not say which."
    ),
]
EmbedderName = Annotated[
    str,
    typer.Option(
        "--embedder", help="The table's embedding model: static, sentence-transformers:NAME or a.module:name."
    ),
]
K = Annotated[int, typer.Option("-k", "--k", help="How many results.")]
ShortlistSize = Annotated[
    int | None,
    typer.Option(
        "--shortlist",
        help="Rows that are ranked exactly; default the stored setting, else 10 times k (at least 40).",
    ),
]
EfSearch = Annotated[
    int | None,
    typer.Option(
        "--ef-search", help="HNSW's candidates; default the stored setting, else the shortlist, at most 1,000."
    ),
]
Exact = Annotated[bool, typer.Option("--exact", help="Search exactly, by reading every row.")]
Seed = Annotated[int, typer.Option(help="Of all random choices.")]
RotationFolder = Annotated[
    Path, typer.Option("--rotation-dir", help="The folder for a learned rotation; beside your migrations.")
]
Shortening = Annotated[str | None, typer.Option("--by", help="prefix, a rotation's id, or its file rotations/r….npy")]
MaintenanceWorkMem = Annotated[
    str | None, typer.Option("--maintenance-work-mem", help='For the index builds alone, such as "8GB".')
]
ParallelWorkers = Annotated[int | None, typer.Option("--parallel-workers", help="Of the server, for the index build.")]
FreeSpace = Annotated[str | None, typer.Option(help="What is free on the server's disk, such as 50GB.")]
WordsConfig = Annotated[
    str | None,
    typer.Option("--words-config", help="The text search configuration of --words; default what its column says."),
]


def metric_name(name: str | None) -> MetricName | None:
    """The metric of an option, which has been checked."""
    return None if name is None else metric_named(name).name


def listed(text: str) -> list[str]:
    """Words with commas between."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between.

    Raises:
        BadParameter: they are none.
    """
    try:
        return [int(word) for word in listed(text)]
    except ValueError:
        raise typer.BadParameter(f"{option}: expected whole numbers such as 32,64,128, got {safe_repr(text)}") from None


def byte_size(option: str, text: str | None) -> int | None:
    """A size such as 50GB in bytes.

    Raises:
        BadParameter: it is none.
    """
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def shortening_rule(text: str) -> Prefix | Rotation:
    """The rule of `--by`.

    Raises:
        BadParameter: a rotation without saying which.
        RotationError: a file that holds none.
    """
    if text == "prefix":
        return Prefix()
    if text == "rotation":
        raise typer.BadParameter("--by rotation: learn one first (`pgmrl fit-rotation`), then give its file or id")
    return Rotation.load(text) if text.endswith(".npy") else Rotation(text)


def check_plot(path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse a file of `--plot` that could not be written, before anything takes long.

    Raises:
        BadParameter: its name ends with something else.
        MeasureError: there is no such folder, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"--plot: expected a name that ends with {' or '.join(suffixes)}, got {path}")
    check_path(path)
