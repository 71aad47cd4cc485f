"""Where `pgmrl load` reads rows from: JSON lines, CSV, Parquet, or a SELECT."""

from __future__ import annotations

import csv
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import text
from sqlalchemy.types import UserDefinedType

from pgmrl import database
from pgmrl.cli.column_types import TYPES, ColumnType, TextInference, ValueInference, type_of
from pgmrl.errors import IngestError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from pgmrl.cli.text_template import TextTemplate

    Row = dict[str, Any]

__all__ = ["RowSource", "Survey", "file_source", "query_source", "text_lines"]

BATCH: Final = 1_000  # rows that are held of a Parquet file or a SELECT
FIELD_LIMIT: Final = 2**31 - 1  # characters of a field of a CSV file; Python's own limit is 131,072
SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
ZERO: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
NO_ZERO: Final = "which no text in PostgreSQL can hold: remove it"


class Survey(NamedTuple):
    """What is known of all rows before the first is loaded.

    Attributes:
        types: of the columns, in their order.
        parsed: of those whose values are made from texts, or checked: for `rows`.
        rows: how many there are; None where that would take reading them.
    """

    types: Mapping[str, ColumnType]
    parsed: Mapping[str, ColumnType]
    rows: int | None


class RowSource(Protocol):
    """Rows that are read once to look at them and once to load them, or that say what they are."""

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        """Look at all rows, so that what is wrong with one is said before anything is written.

        Args:
            types: of columns whose type is known.
            template: names columns that must be there.
            *skipped: columns whose values are left as they are: those of vectors.

        Raises:
            IngestError: a row that cannot be loaded, with its line.
        """
        ...

    def rows(self, parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        """The rows, with the values of these columns as their types have them."""
        ...


def file_source(path: Path) -> RowSource:
    """A file, by its ending: .jsonl (.ndjson), .csv, .tsv, .parquet.

    Raises:
        IngestError: no such file, or an unknown ending.
    """
    sources: dict[str, type[_JsonLines | _Csv | _Parquet]] = {
        ".jsonl": _JsonLines,
        ".ndjson": _JsonLines,
        ".csv": _Csv,
        ".tsv": _Csv,
        ".parquet": _Parquet,
    }
    source = sources.get(path.suffix.lower())
    if source is None:
        raise IngestError(f"{path} ends with none of {', '.join(sources)}: rename or convert it")
    if not path.is_file():
        raise IngestError(f"there is no file {path}")
    return source(path)


@contextmanager
def query_source(engine: Engine, query: str) -> Iterator[RowSource]:
    """The rows of a SELECT, fetched as they are needed; the transaction is read-only."""
    with engine.connect() as connection:
        database.leave_pinned(connection)
        connection.execute(text("SET TRANSACTION READ ONLY"))
        yield _Query(connection, query)


# -- text files ----------------------------------------------------------------------------------------------------


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file from 1 on, without a byte order mark.

    Raises:
        IngestError: a line is not UTF-8, or has a zero byte.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for number, line in enumerate(lines, 1):
            if not line.isascii():
                try:
                    line.encode()
                except UnicodeEncodeError as error:
                    byte = ord(line[error.start]) & 0xFF
                    raise IngestError(
                        f"{path}, line {number}: byte {byte:#04x} is not UTF-8, after "
                        f"{safe_repr(line[: error.start][-20:])}: convert the file to UTF-8"
                    ) from None
            if "\0" in line:
                raise IngestError(f"{path}, line {number}: a zero byte, {NO_ZERO}")
            yield number, line


def _parsed(row: Row, types: Mapping[str, ColumnType], place: str) -> Row:
    return {name: _typed(types[name], name, value, place) if name in types else value for name, value in row.items()}


def _typed(kind: ColumnType, name: str, value: Any, place: str) -> Any:
    try:
        return kind.value(value)
    except ValueError:
        raise IngestError(f"{place}: column {safe_repr(name)}: expected {kind.name}, got {safe_repr(value)}") from None


@dataclass(frozen=True)
class _JsonLines:
    """One JSON object a line."""

    path: Path

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        inferred: dict[str, ValueInference] = {}
        names: dict[str, None] = {}  # in the order in which they come
        count = 0
        for line, row in self._objects():
            count += 1
            place = f"{self.path}, line {line}"
            if template is not None:
                template.check_columns(row, place)
            names |= dict.fromkeys(row)
            for name, value in row.items():
                if name in types:
                    _typed(types[name], name, value, place)
                elif name not in skipped:
                    inferred.setdefault(name, ValueInference(name)).add(value, line)
        column_types = {name: types.get(name) or inferred[name].type() for name in names if name not in skipped}
        return Survey(column_types, types, count)

    def rows(self, parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        for line, row in self._objects():
            yield _parsed(row, parsed, f"{self.path}, line {line}")

    def _objects(self) -> Iterator[tuple[int, Row]]:
        for number, line in text_lines(self.path):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise IngestError(f"{self.path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise IngestError(f"{self.path}, line {number} is no JSON object: write one object a line")
            if SURROGATE.search(line) or ZERO.search(line):
                self._check_escapes(row, number)
            yield number, row

    def _check_escapes(self, row: Row, line: int) -> None:
        """Half a surrogate pair and a zero are valid JSON, and no text that could be stored."""
        for name, value in row.items():
            written = json.dumps({name: value}, ensure_ascii=False)
            if ZERO.search(written):
                raise IngestError(f"{self.path}, line {line}: column {safe_repr(name)} has \\u0000, {NO_ZERO}")
            try:
                written.encode()
            except UnicodeEncodeError as error:
                half = ord(error.object[error.start])
                raise IngestError(
                    f"{self.path}, line {line}: column {safe_repr(name)} has \\u{half:04x}, half of a surrogate "
                    "pair: write both halves, or the character itself"
                ) from None


@dataclass(frozen=True)
class _Csv:
    """A header, and as many fields in each record; an empty field is NULL."""

    path: Path

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        records = self._records()
        header = next(records, (1, []))[1]
        if template is not None and header:
            template.check_columns(header, f"{self.path}, line 1")
        inferred = {name: TextInference() for name in header if name not in types and name not in skipped}
        count = 0
        for line, fields in records:
            count += 1
            for name, field in zip(header, fields, strict=True):
                if field and name in inferred:
                    inferred[name].add(field)
                elif field and name in types:
                    _typed(types[name], name, field, f"{self.path}, line {line}")
        kinds = {name: column.type() for name, column in inferred.items()}
        column_types = {name: types.get(name) or kinds[name] for name in header if name not in skipped}
        return Survey(column_types, column_types, count)

    def rows(self, parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        records = self._records()
        header = next(records, (1, []))[1]
        for line, fields in records:
            row = {name: field or None for name, field in zip(header, fields, strict=True)}
            yield _parsed(row, parsed, f"{self.path}, line {line}")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The header, then the records, each with the line on which it begins."""
        csv.field_size_limit(FIELD_LIMIT)
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        reader = csv.reader((line for _, line in text_lines(self.path)), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise IngestError(f"{self.path}, line {line}: {error}") from error
            if not fields:
                continue
            if header is None:
                header = fields
                self._check_header(header, line)
            elif len(fields) != len(header):
                raise IngestError(f"{self.path}, line {line}: expected {len(header)} fields, got {len(fields)}")
            yield line, fields

    def _check_header(self, header: list[str], line: int) -> None:
        for name in header:
            if not name or header.count(name) > 1:
                problem = f"two columns {safe_repr(name)}" if name else "a column without a name"
                raise IngestError(f"{self.path}, line {line}: the header has {problem}: name each once")


# -- sources that say what their columns are -----------------------------------------------------------------------


def _check_names(names: list[str], place: str, how: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise IngestError(f"{place}: two columns {safe_repr(name)}: name each once, {how}")


@dataclass(frozen=True)
class _Parquet:
    """A Parquet file; its schema has the types."""

    path: Path

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        with self._opened() as opened:
            schema, count = opened.schema_arrow, opened.metadata.num_rows
        if template is not None:
            template.check_columns(schema.names, str(self.path))
        _check_names(schema.names, str(self.path), "in the file")
        names = [name for name in schema.names if name not in skipped]
        column_types = {name: types.get(name) or self._type(name, schema.field(name).type) for name in names}
        return Survey(column_types, types, count)

    def rows(self, parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        number = 0
        with self._opened() as opened:
            for batch in opened.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield _parsed(row, parsed, f"{self.path}, row {number}")

    def _opened(self) -> Any:
        try:
            from pyarrow import parquet  # noqa: PLC0415 - an extra
        except ImportError:
            raise IngestError("reading Parquet needs pyarrow: pip install 'pgmrl[parquet]'") from None
        try:
            return parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:  # pyarrow's own among them
            raise IngestError(f"{self.path} cannot be read as Parquet: {error}") from error

    def _type(self, name: str, arrow: Any) -> ColumnType:
        from pyarrow import types  # noqa: PLC0415 - an extra

        tests = (
            ("boolean", types.is_boolean),
            ("bigint", types.is_integer),
            ("double precision", types.is_floating),
            ("text", lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)),
            ("numeric", types.is_decimal),
            ("date", types.is_date),
            ("timestamptz", lambda kind: types.is_timestamp(kind) and kind.tz is not None),
            ("timestamp", types.is_timestamp),
            ("jsonb", types.is_nested),
        )
        for name_of_type, test in tests:
            if test(arrow):
                return TYPES[name_of_type]
        raise IngestError(
            f"{self.path}: column {safe_repr(name)} is of type {arrow}, which is not loaded: convert or drop it"
        )


class _ServerType(UserDefinedType[Any]):
    """A type by the server's name for it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


@dataclass(frozen=True)
class _Query:
    """A SELECT; the server says what its columns are."""

    connection: Connection
    query: str

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        with self._result(1) as result:
            described = [(column.name, column.type_code) for column in result.cursor.description]
        if template is not None:
            template.check_columns([name for name, _ in described], "--select")
        _check_names([name for name, _ in described], "--select", "with AS")
        oids = {name: oid for name, oid in described if name not in skipped}
        column_types = {name: types.get(name) or self._type(oid) for name, oid in oids.items()}
        return Survey(column_types, types, None)

    def rows(self, parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        with self._result(BATCH) as result:
            for number, row in enumerate(result.mappings(), 1):
                yield _parsed(dict(row), parsed, f"row {number}")

    @contextmanager
    def _result(self, size: int) -> Iterator[Any]:
        statement = text(self.query.replace(":", "\\:"))  # a colon is no parameter
        result = self.connection.execute(statement, execution_options={"yield_per": size})
        try:
            yield result
        finally:
            result.close()

    def _type(self, oid: int) -> ColumnType:
        query = text("SELECT pg_catalog.format_type(CAST(:oid AS pg_catalog.oid), -1)")  # as the user's path shows it
        name = self.connection.execute(query, {"oid": oid}).scalar_one()
        return type_of(name) or ColumnType(name, _ServerType(name), str)
