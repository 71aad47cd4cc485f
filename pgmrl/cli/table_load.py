"""What `pgmrl load` does: make a table, embed the rows, copy them, build the index."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Column, MetaData, Table, func, inspect, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import NullType

from pgmrl import database
from pgmrl.cli.column_types import ColumnType, type_of
from pgmrl.cli.output import counted, errors, escaped
from pgmrl.cli.progress_report import ProgressReport, job_progress
from pgmrl.database.reflection import reflect
from pgmrl.database.table_state import table_state
from pgmrl.embedders import embed_batches
from pgmrl.embedding_queue import check_model, installed_model
from pgmrl.errors import DefinitionError, IngestError, MeasureError, NotMigrated, PgmrlError
from pgmrl.ingestion.ingest import IngestReport, ingest
from pgmrl.ingestion.new_table import create_without_indexes, vacuum_analyze
from pgmrl.ingestion.read_ahead import read_ahead
from pgmrl.measure.fit_rotation import fit_rotation
from pgmrl.measure.recall import measure_recall
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.metrics import metric_named
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.model_cards import truncation_advice
from pgmrl.names import LIMIT, qualified
from pgmrl.online import index_builds, steps
from pgmrl.online.target import Target
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from pgmrl.cli.input_rows import RowSource, Survey
    from pgmrl.cli.text_template import TextTemplate
    from pgmrl.embedders import Embedder

    Row = dict[str, Any]

__all__ = ["TableLoad"]

BATCH: Final = 2_000
RECALL_QUERIES: Final = 100
RECALL_SECONDS: Final = 30.0
RECALL_SHARE: Final = 0.1  # of the time that the load took, where that is more
BATCH_CHARS: Final = 1_000_000  # that are embedded at once: a model may hold a vector for every few of them


@dataclass
class TableLoad:
    """What is loaded where.

    Attributes:
        schema: of the table; None where the search_path decides.
        table: its name; made where there is none.
        key: the key's column.
        column: the vectors' column.
        types: of columns of a table that is made; the others' are inferred.
        template: what of a row is embedded; None where the rows have vectors.
        vector_column: the column of the rows that has them.
        model: embeds; None where the rows have vectors.
        max_chars: characters of a text that are embedded.
        short: the short vector of a table that is made.
        metric: of a table that is made.
        resume: leave out the rows that are there, by their key, and do what an earlier load did not come to.
        seconds: that each step took, after `run`.
        truncated: texts of which only the beginning was embedded, after `run`.
        skipped: rows that were there already, after `run`.
        written: rows written so far.
    """

    schema: str | None
    table: str
    key: str
    column: str
    types: dict[str, ColumnType]
    template: TextTemplate | None
    vector_column: str | None
    model: Embedder | None
    max_chars: int
    short: Short
    metric: str
    resume: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    truncated: int = 0
    skipped: int = 0
    written: int = 0

    @property
    def column_path(self) -> str:
        """`schema.table.column`."""
        return ".".join(part for part in (self.schema, self.table, self.column) if part)

    def run(self, engine: Engine, source: RowSource, rotation_dir: Path, report: ProgressReport) -> dict[str, Any]:
        """Make the table where there is none, load the rows, build the index where there is none.

        Raises:
            IngestError: rows that cannot be loaded or are there already, or none.
            DefinitionError: a table that is there and has other columns.
        """
        start = time.perf_counter()
        with engine.connect() as connection:
            self.schema = self.schema or database.new_table_schema(connection, self.table)
        new = not inspect(engine).has_table(self.table, schema=self.schema)
        existing = None if new else self._existing(engine)
        types = self.types if existing is None else self._existing_types(existing)
        with self._timed("read"):
            report("reading", 0)
            survey = source.survey(types, self.template, self.vector_column, self.column)
            rows = source.rows(survey.parsed)
            first = list(islice(rows, BATCH))
        if not first:
            raise IngestError("there are no rows to load")
        if self.template is not None:
            self.template.fill(first[0])  # a pattern that cannot be filled is an error before the table is made
        if existing is None and self.model is not None and isinstance(self.short.by, Prefix):
            advice = truncation_advice(self.model.name, self.short.dims, self.model.dims)
            if advice is not None:
                errors.print(escaped(f"note: {advice}"), soft_wrap=True)
        loadable: Iterator[Row] = chain(first, rows)
        if existing is not None:
            loadable = self._checked(engine, existing, survey, first, loadable)
        target = self._made(engine, survey, first) if existing is None else existing
        with self._interruption_explained(survey):
            with self._timed("embed and load"):
                loaded = self._copy(engine, target, loadable, survey, report)
            indexed = new or self._unfinished(engine)
            rotation = self._finish(engine, target, rotation_dir, report) if indexed else None
        patience = max(RECALL_SECONDS, RECALL_SHARE * (time.perf_counter() - start))
        recall = self._recall(engine, patience, report) if indexed else None
        self.seconds["total"] = time.perf_counter() - start
        counts = asdict(loaded) | {"truncated_texts": self.truncated, "seconds": self.seconds, "skipped": self.skipped}
        return {"made": new, **counts, "rotation": rotation, "recall": recall}

    @contextmanager
    def _interruption_explained(self, survey: Survey) -> Iterator[None]:
        """Say what was written, and how to go on, whatever ends the load."""
        remedy = "the rest and the index come with the same command and --resume"
        if self.key not in survey.types:
            remedy = f"these rows have no {self.key!r} to know them by: drop the table before they are loaded again"
        try:
            yield
        except PgmrlError as error:
            if not self.written:
                raise
            raise type(error)(f"{error}\n{counted(self.written, 'row')} are in {self.table} now; {remedy}") from error
        except BaseException:  # Ctrl-C too
            note = f"the load has ended early: {counted(self.written, 'row')} are in {self.table} now; {remedy}"
            errors.print(escaped(note), soft_wrap=True)
            raise

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        """Take the time of a step."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start

    # -- the table -------------------------------------------------------------------------------------------------

    def _existing(self, engine: Engine) -> Column[Any]:
        with engine.connect() as connection:
            if self.model is not None:
                by = installed_model(connection, qualified(self.schema, self.table), self.column)
                check_model(self.column_path, by, self.model.name)
            return reflect(connection, self.column_path)

    def _existing_types(self, existing: Column[Any]) -> dict[str, ColumnType]:
        """Of a table that is there, as far as they are known here; values of others are loaded as they are."""
        if self.types:
            raise IngestError(f"table {self.table} is there and its columns have types: leave out --type")
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        types = {}
        for column in existing.table.c:
            if column is not existing and not isinstance(column.type, NullType):  # which is what nobody knows
                types[column.name] = type_of(column.type.compile(dialect=dialect))
        return {name: kind for name, kind in types.items() if kind is not None}

    def _checked(
        self, engine: Engine, existing: Column[Any], survey: Survey, first: list[Row], rows: Iterator[Row]
    ) -> Iterator[Row]:
        """The rows that are not there yet, as they are to be; without `resume` none may be.

        Raises:
            IngestError: rows that are there; or rows without a key, which nobody knows again.
        """
        if self.key not in survey.types:
            if self.resume:
                raise IngestError(
                    f"--resume knows rows by their key, and these have no {self.key!r}: name it with --key"
                )
            return rows
        if self.resume:
            return self._missing(engine, existing, rows)
        there = len(first) - len(self._absent(engine, existing, first))
        if there:
            which = f"{'all' if there == len(first) else f'{there:,}'} of the first {counted(len(first), 'row')}"
            raise IngestError(
                f"{which} are in {self.table} already, by their {self.key}: loaded before? --resume loads the others, "
                "and builds the index where there is none. Nothing was written."
            )
        return rows

    def _missing(self, engine: Engine, existing: Column[Any], rows: Iterator[Row]) -> Iterator[Row]:
        while batch := list(islice(rows, BATCH)):
            absent = self._absent(engine, existing, batch)
            self.skipped += len(batch) - len(absent)
            yield from absent

    def _absent(self, engine: Engine, existing: Column[Any], rows: list[Row]) -> list[Row]:
        """Of some rows those whose key is not in the table."""
        if self.key not in existing.table.c:
            raise DefinitionError(f"table {self.table} has no column {safe_repr(self.key)}: name its key with --key")
        key = existing.table.c[self.key]
        keys = [row[self.key] for row in rows if row.get(self.key) is not None]
        with engine.connect() as connection:
            there = set(connection.execute(select(key).where(key.in_(keys))).scalars())
        written = set(map(str, there))  # the server's uuid, say, of a text

        def absent(value: Any) -> bool:
            # a time is the same in each zone, a number with more or fewer places
            return value is None or not ((isinstance(value, Hashable) and value in there) or str(value) in written)

        return [row for row in rows if absent(row.get(self.key))]

    def _unfinished(self, engine: Engine) -> bool:
        """Whether a table that was there lacks what a load makes last: its index, or before it the rotation."""
        column = self._existing(engine)
        if attachment_of(column).short is None:
            return self.resume and isinstance(self.short.by, Rotation)
        with engine.connect() as connection:
            state = table_state(connection, str(column.table.schema), self.table)
        shorts = () if state is None else [short for short in state.shorts.values() if short.full == self.column]
        return bool(shorts) and not any(index.valid for short in shorts for index in short.indexes)

    def _made(self, engine: Engine, survey: Survey, first: list[Row]) -> Column[Any]:
        """Make the table, without its index: that is built many times faster once the rows are there."""
        unknown = [name for name in self.types if name not in survey.types]
        if unknown:
            raise IngestError(f"--type names {safe_repr(unknown[0])}; the rows have {', '.join(survey.types)}")
        for name in (self.table, self.column, self.key, *survey.types):
            if not name or len(name.encode()) > LIMIT:
                raise IngestError(f"{safe_repr(name)}: expected a name of 1 to {LIMIT} bytes of a table or column")
        dims = self.model.dims if self.model is not None else self._dims(first)
        metric = metric_named(self.metric).name
        columns = {name: kind.sql for name, kind in survey.types.items() if name not in {self.key, self.column}}
        key_type = survey.types[self.key].sql if self.key in survey.types else BigInteger()
        with engine.begin() as connection:
            database.create_pgvector(connection)
            vector_schema = database.check_pgvector(connection)
            full: Column[Any] = Column(self.column, Matryoshka(dims, self.short, metric, vector_schema=vector_schema))
            table = Table(
                self.table,
                MetaData(),
                Column(self.key, key_type, primary_key=True, autoincrement=False),
                *(Column(name, kind) for name, kind in columns.items()),
                full,
                schema=self.schema,
            )
            with database.caller_path(connection):  # types of the user's own
                create_without_indexes(connection, table)
        return full

    def _dims(self, first: list[Row]) -> int:
        vectors = (row.get(str(self.vector_column)) for row in first)
        vector = next((_array(vector) for vector in vectors if vector is not None), None)
        if not isinstance(vector, list):
            raise IngestError(f"column {safe_repr(self.vector_column)} holds no arrays of numbers in the first rows")
        return len(vector)

    # -- the rows --------------------------------------------------------------------------------------------------

    def _copy(
        self, engine: Engine, target: Column[Any], rows: Iterator[Row], survey: Survey, report: ProgressReport
    ) -> IngestReport:
        """Embed and copy the rows."""
        if self.key not in survey.types:
            rows = self._numbered(rows, self._next_key(engine, target))
        step = "embedding and loading" if self.model is not None else "loading"

        def show(done: int) -> None:
            self.written = done
            report(step, done + self.skipped, survey.rows)

        # rows are read, embedded and written by a thread each, a few batches apart
        with (
            closing(read_ahead(self._batches(rows))) as batches,
            closing(read_ahead(map(self._with_vectors, batches))) as embedded,
            engine.connect() as connection,
        ):
            return ingest(connection, target, chain.from_iterable(embedded), batch_size=BATCH, progress=show)

    def _next_key(self, engine: Engine, target: Column[Any]) -> int:
        if self.key not in target.table.c:
            raise DefinitionError(f"table {self.table} has no column {safe_repr(self.key)}: name its key with --key")
        largest = select(func.coalesce(func.max(target.table.c[self.key]), 0))
        with engine.connect() as connection:
            return int(connection.execute(largest).scalar_one()) + 1

    def _numbered(self, rows: Iterator[Row], start: int) -> Iterator[Row]:
        return ({self.key: number} | row for number, row in enumerate(rows, start))

    def _with_vectors(self, batch: list[tuple[Row, str | None]]) -> list[Row]:
        """A batch with its vectors, which are computed where the rows do not have them."""
        if self.model is None:
            rows = [dict(row) for row, _ in batch]
            return [row | {self.column: _array(row.pop(str(self.vector_column), None))} for row in rows]
        texts = [text for _, text in batch if text is not None]
        vectors = iter([vector for _, array in embed_batches(self.model, texts) for vector in array])
        return [{**row, self.column: None if text is None else next(vectors)} for row, text in batch]

    def _batches(self, rows: Iterator[Row]) -> Iterator[list[tuple[Row, str | None]]]:
        """Rows with what is embedded of each; few rows where their texts are long."""
        batch: list[tuple[Row, str | None]] = []
        chars = 0
        for row in rows:
            text = None if self.template is None else self.template.fill(row)
            if text is not None and len(text) > self.max_chars:
                text = text[: self.max_chars]
                self.truncated += 1
            batch.append((row, text))
            chars += len(text or "")
            if len(batch) == BATCH or chars > BATCH_CHARS:
                yield batch
                batch, chars = [], 0
        if batch:
            yield batch

    # -- the index -------------------------------------------------------------------------------------------------

    def _finish(self, engine: Engine, target: Column[Any], rotation_dir: Path, report: ProgressReport) -> str | None:
        """Learn the rotation where there is to be one, and add its column; build the index. The rotation's id."""
        definition, rotation = attachment_of(target).definition, None
        if isinstance(self.short.by, Rotation) and not definition.learned:
            with self._timed("rotation"):
                rotation = self._learned(engine, rotation_dir, report)
                definition = self._add_short(engine, definition, rotation)
        with (
            self._timed("index"),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            place = Target(self.table, self.column, definition, self.schema)
            index_builds.build(connection, place, Hnsw(), progress=job_progress(report))
            report("analyzing", 0)
            vacuum_analyze(connection, target.table)
        return None if rotation is None else str(rotation.id)

    def _recall(self, engine: Engine, seconds: float, report: ProgressReport) -> dict[str, Any] | None:
        """What searches with the usual numbers find; None where it could not be measured, or not in time."""
        with self._timed("recall"), engine.connect() as connection:
            column = reflect(connection, self.column_path)
            connection.rollback()
            try:
                measured = measure_recall(
                    connection, column, queries=RECALL_QUERIES, seconds=seconds, worst=0, progress=report
                )
            except (MeasureError, NotMigrated):  # no row has a vector, say
                return None
        return {**measured.recall._asdict(), "k": measured.k, "shortlist": measured.shortlist}

    def _learned(self, engine: Engine, rotation_dir: Path, report: ProgressReport) -> Rotation:
        with engine.connect() as connection:
            fit = fit_rotation(
                connection,
                reflect(connection, self.column_path),
                progress=lambda done: report("learning a rotation", done),
            )
        fit.rotation.save(rotation_dir)
        return fit.rotation

    def _add_short(self, engine: Engine, before: Definition, rotation: Rotation) -> Definition:
        short = Short(self.short.dims, by=rotation)
        definition = Definition(before.dims, short, before.metric, before.full, before.vector_schema)
        with engine.begin() as connection:
            database.upgrade(connection)
            database.install_rotation(connection, rotation)
            for statement in steps.add_in_place(Target(self.table, self.column, definition, self.schema)):
                database.execute_plain(connection, statement)
        return definition


def _array(vector: Any) -> Any:
    """An array of numbers, also where it is written as a text: in CSV, and by a driver that does not know pgvector."""
    if not isinstance(vector, str):
        return vector
    try:
        return json.loads(vector)
    except ValueError:
        return vector  # refused where it is loaded, with its row
