"""Where `pgmrl load` reads rows from: JSON lines, CSV, Parquet, or a query."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Boolean, Double, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from pgmrl.errors import IngestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.types import TypeEngine

__all__ = ["column_types", "file_rows", "peeked", "query_rows"]

PEEK: Final = 1000  # rows that decide on the types of the columns


@contextmanager
def file_rows(path: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of a file, by its ending: .jsonl (.ndjson), .csv, .tsv, .parquet.

    Raises:
        IngestError: no such file, an unknown ending, or a line that cannot be read, with its number.
    """
    readers = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise IngestError(f"{path} ends with none of {', '.join(readers)}: rename or convert it")
    if not path.is_file():
        raise IngestError(f"there is no file {path}")
    yield _decoded(path, reader(path))


@contextmanager
def query_rows(engine: Engine, query: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of a query, fetched as they are needed; the transaction is read-only."""
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        streamed = connection.execution_options(yield_per=PEEK).execute(
            text(query.replace(":", "\\:"))  # a colon is no parameter
        )
        yield (dict(row) for row in streamed.mappings())


def peeked(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
    """The first rows, and all of them."""
    first = list(islice(rows, PEEK))
    return first, chain(first, rows)


def column_types(rows: Iterable[dict[str, Any]]) -> dict[str, TypeEngine[Any]]:
    """A type for each column, from the values of the first rows.

    Raises:
        IngestError: a column with values of different types.
    """
    found: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(type(value))
    return {name: _type(name, kinds) for name, kinds in found.items()}


def _type(name: str, kinds: set[type]) -> TypeEngine[Any]:
    if kinds <= {bool} and kinds:
        return Boolean()
    if kinds <= {int} and kinds:
        return BigInteger()
    if kinds <= {int, float} and kinds:
        return Double()
    if kinds <= {str}:
        return Text()
    if kinds <= {dict, list}:
        return JSONB()
    listed = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise IngestError(f"column {name!r} has values of different or unknown types ({listed}): make them alike")


def _decoded(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise IngestError(f"{path} is not UTF-8 ({error}): convert it") from error


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise IngestError(f"{path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise IngestError(f"{path}, line {number} is no JSON object: write one object a line")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise IngestError(f"{path}, line {reader.line_num} has another number of fields than the header")
                yield {name: value if value != "" else None for name, value in row.items()}
        except csv.Error as error:
            raise IngestError(f"{path}, line {reader.line_num}: {error}") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise IngestError("reading Parquet needs pyarrow: pip install 'pgmrl[parquet]'") from None
    with parquet.ParquetFile(path) as opened:
        for batch in opened.iter_batches(batch_size=PEEK):
            yield from batch.to_pylist()
