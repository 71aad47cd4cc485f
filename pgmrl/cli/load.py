"""`pgmrl load`: from a file or a query to a table that can be searched."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import BigInteger, Column, MetaData, Table, func, inspect, select

from pgmrl import database
from pgmrl.cli.common import Json, Url, console, engine, known_metric, progress, write_json
from pgmrl.cli.fit import fit_and_add
from pgmrl.cli.sources import column_types, file_rows, peeked, query_rows
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT, embed_batches, load_embedder
from pgmrl.errors import DefinitionError, IngestError
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import metric_named
from pgmrl.model.shortening import Prefix, Rotation, Short
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.types import TypeEngine

    from pgmrl.embedders import Embedder

__all__ = ["analyze", "load"]

BATCH = 2_000


def load(
    source: Annotated[Path | None, typer.Argument(help="A .jsonl, .csv, .tsv or .parquet file.")] = None,
    query: Annotated[str | None, typer.Option(help="Instead of a file: a SELECT in the same database.")] = None,
    table: Annotated[str, typer.Option(help="The table, [schema.]name; made where there is none.")] = "documents",
    text: Annotated[
        str | None, typer.Option(help='What is embedded: a column, or a pattern such as "{name}: {body}".')
    ] = None,
    vector: Annotated[str | None, typer.Option(help="Instead of a text: the column that holds vectors.")] = None,
    key: Annotated[str, typer.Option(help="The key's column; rows are numbered where the data have none.")] = "id",
    column: Annotated[str, typer.Option(help="The vector's column in the table.")] = "embedding",
    model: Annotated[str, typer.Option("--embedder", help="static, sentence-transformers:NAME or a.module:name")] = (
        DEFAULT
    ),
    short: Annotated[int, typer.Option(help="Dimensions of the short vector.")] = 64,
    by: Annotated[str, typer.Option(help="prefix (for Matryoshka-trained models) or rotation (learned)")] = "prefix",
    metric: Annotated[str, typer.Option(callback=known_metric, help="cosine, l2 or inner_product")] = "cosine",
    rotations: Annotated[Path, typer.Option(help="Where a learned rotation is saved.")] = Path("rotations"),
    url: Url = None,
    json: Json = False,
) -> None:
    """Load rows into a table with a Matryoshka column: made, embedded, copied, indexed.

    A table that is there already gets the rows added. Each batch is written whole or not at all.

    Example: `pgmrl load packages.jsonl --table packages --text "{name}: {synopsis}" --key id`
    """
    if (source is None) == (query is None):
        raise typer.BadParameter("give a file or --query")
    if (text is None) == (vector is None):
        raise typer.BadParameter("give --text or --vector")
    if by not in {"prefix", "rotation"}:
        raise typer.BadParameter("--by is prefix or rotation")
    schema, _, name = table.rpartition(".")
    shortened = Short(short, by=Prefix() if by == "prefix" else Rotation())
    maker = load_embedder(model) if text is not None else None
    job = _Job(schema or None, name, key, column, text, vector, maker, shortened, metric, quiet=json)
    with engine(url) as opened, _rows(opened, source, query) as rows:
        first, everything = peeked(rows)
        if not first:
            raise IngestError("there are no rows to load")
        if text is not None:
            _text(first[0], text)  # a pattern that does not fit is an error before the table is made
        types = column_types(first)
        made = not inspect(opened).has_table(name, schema=job.schema)
        target = job.make_table(opened, types, first) if made else job.existing(opened)
        report = job.copy(opened, target, everything, numbered=key not in types)
        rotation = job.finish(opened, target, rotations) if made else None
    result = {"table": table, "made": made, **asdict(report), "rotation": rotation}
    if json:
        write_json(result)
        return
    console.print(f"{report.rows:,} rows in {report.seconds:.1f} s into {table}")
    if report.null_vectors or report.zero_vectors:
        console.print(
            f"{report.null_vectors:,} rows have no vector and {report.zero_vectors:,} a zero short one: "
            "the index does not hold them"
        )
    console.print(f'now: pgmrl search {table}.{column} "…"')


@dataclass(frozen=True, slots=True)
class _Job:
    """What is loaded where; the attributes are the command's options."""

    schema: str | None
    name: str
    key: str
    column: str
    text: str | None
    vector: str | None
    maker: Embedder | None
    short: Short
    metric: str
    quiet: bool

    @property
    def column_path(self) -> str:
        return ".".join(part for part in (self.schema, self.name, self.column) if part)

    def existing(self, opened: Engine) -> Column[Any]:
        """The column of a table that is there."""
        with opened.connect() as connection:
            return reflect(connection, self.column_path)

    def make_table(self, opened: Engine, types: dict[str, TypeEngine[Any]], first: list[dict[str, Any]]) -> Column[Any]:
        """Make the table, without its index: that is built many times faster once the rows are there."""
        dims = self.maker.dims if self.maker is not None else self._given_dims(first)
        full: Column[Any] = Column(self.column, Matryoshka(dims, self.short, metric_named(self.metric).name))
        others = [Column(n, kind) for n, kind in types.items() if n not in {self.key, self.vector, self.column}]
        key = Column(self.key, types.get(self.key, BigInteger()), primary_key=True, autoincrement=False)
        table = Table(self.name, MetaData(), key, *others, full, schema=self.schema)
        later = set(table.indexes)
        table.indexes.clear()
        with opened.begin() as connection:
            database.create_pgvector(connection)
            database.check_pgvector(connection)
            table.create(connection)
        table.indexes.update(later)
        return full

    def copy(self, opened: Engine, target: Column[Any], rows: Iterator[dict[str, Any]], *, numbered: bool) -> Any:
        """Embed and copy the rows."""
        if numbered:
            rows = self._numbered(rows, self._next_key(opened, target))
        with progress(quiet=self.quiet) as bars, opened.connect() as connection:
            task = bars.add_task(f"loading {self.name}", total=None)
            return ingest(
                connection,
                target,
                self._with_vectors(rows),
                batch_size=BATCH,
                progress=lambda done: bars.update(task, completed=done),
            )

    def finish(self, opened: Engine, target: Column[Any], rotations: Path) -> str | None:
        """Build the index, or learn the rotation and build its column and index; the rotation's id."""
        if isinstance(self.short.by, Rotation):
            rotation = fit_and_add(opened, self.column_path, self.short.dims, rotations, quiet=self.quiet)
        else:
            rotation = None
            with progress(quiet=self.quiet) as bars, opened.begin() as connection:
                for index in bars.track(target.table.indexes, description="building the index"):
                    index.create(connection)
        analyze(opened, target)
        return rotation

    def _given_dims(self, first: list[dict[str, Any]]) -> int:
        given = next((row[self.vector] for row in first if self.vector in row and row[self.vector] is not None), None)
        if not isinstance(given, list):
            raise IngestError(f"column {self.vector!r} holds no arrays of numbers in the first rows")
        return len(given)

    def _next_key(self, opened: Engine, target: Column[Any]) -> int:
        if self.key not in target.table.c:
            raise DefinitionError(f"table {self.name} has no column {self.key!r}: name its key with --key")
        largest = select(func.coalesce(func.max(target.table.c[self.key]), 0))
        with opened.connect() as connection:
            return int(connection.execute(largest).scalar_one()) + 1

    def _numbered(self, rows: Iterator[dict[str, Any]], start: int) -> Iterator[dict[str, Any]]:
        return ({self.key: number} | row for number, row in enumerate(rows, start))

    def _with_vectors(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if self.maker is None:
            for row in rows:
                yield {n: v for n, v in row.items() if n != self.vector} | {self.column: row.get(str(self.vector))}
            return
        for batch in _batches(rows):
            yield from self._embedded(batch, self.maker)

    def _embedded(self, batch: list[dict[str, Any]], maker: Embedder) -> Iterator[dict[str, Any]]:
        texts = [_text(row, str(self.text)) for row in batch]
        given = [value for value in texts if value is not None]
        vectors = iter([vector for _, array in embed_batches(maker, given) for vector in array])
        for row, value in zip(batch, texts, strict=True):
            yield {**row, self.column: None if value is None else next(vectors)}


@contextmanager
def _rows(opened: Engine, source: Path | None, query: str | None) -> Iterator[Iterator[dict[str, Any]]]:
    with query_rows(opened, query) if query is not None else file_rows(Path(source or "")) as rows:
        yield rows


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _text(row: dict[str, Any], pattern: str) -> str | None:
    """A column's text, or a pattern filled in; None where nothing of it is there."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise IngestError(f"--text {pattern!r}: {error}; write a column, or columns in braces") from error
    if not names:
        names, pattern = [pattern], f"{{{pattern}}}"
    for name in names:
        if name not in row:
            raise IngestError(f"--text names {name!r}; the rows have {', '.join(row)}")
    if all(row[name] is None for name in names):
        return None
    try:
        return pattern.format(**{name: "" if row[name] is None else row[name] for name in names})
    except (ValueError, LookupError, AttributeError) as error:
        raise IngestError(f"--text {pattern!r}: {error}; write a column, or columns in braces") from error


def analyze(opened: Engine, target: Column[Any]) -> None:
    """Let the planner know of the rows."""
    with opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {qualified(target.table.schema, target.table.name)}")
