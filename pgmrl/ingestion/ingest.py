"""Load rows with vectors by binary COPY: checked before they are sent, whole batches or nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Table
from sqlalchemy.orm import Session

from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.errors import DefinitionError, IngestError, NotMigrated, VectorError
from pgmrl.ingestion.values import Model, converted
from pgmrl.model.binary import decode, encode
from pgmrl.model.columns import Attachment, attachment_of, base_column
from pgmrl.model.ddl import set_computed_by
from pgmrl.model.rotation import Rotation
from pgmrl.model.vectors import as_vector, as_vectors
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from pgmrl.model.metrics import FullType, ShortType
    from pgmrl.model.shortening import Definition
    from pgmrl.model.vectors import VectorArray

    Row = Mapping[str, Any]

__all__ = ["IngestReport", "ingest"]

BATCH: Final = 5_000
ULPS: Final = 2  # client and server add the products in another order
VECTOR_TYPES: Final = frozenset({"vector", "halfvec"})


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What was loaded.

    Attributes:
        rows: rows written.
        null_vectors: of them, rows without a vector, which no search returns.
        zero_vectors: of them, rows whose short vector is zero under cosine: the index does not hold them, and only an
            exact search can return them (none can where the full vector is zero too).
        batches: transactions (or savepoints).
        seconds: from the first row to the last.
    """

    rows: int = 0
    null_vectors: int = 0
    zero_vectors: int = 0
    batches: int = 0
    seconds: float = 0.0


def ingest(
    connection: Connection | Session | psycopg.Connection[Any],
    column: Any,
    rows: Iterable[Row],
    *,
    vectors: Iterable[Any] | NDArray[Any] | None = None,
    batch_size: int = BATCH,
    check_sample: int = 20,
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Load rows into the table of a Matryoshka column.

    Memory is bounded by the batch, however long `rows` is. A batch is one transaction, or a savepoint where the
    connection is in a transaction already (as a Session always is): it is written whole or not at all, and earlier
    batches stay.

    Columns that a row does not name have their defaults, those that the model gives in Python too; None is NULL.

    A prefix is computed by the server. With a rotation whose axes are at hand the short vectors of a batch are one
    matrix product here, and a sample of them is compared with what the server computes from the stored vectors.

    Args:
        connection: of SQLAlchemy on psycopg 3, or psycopg's own.
        column: the Matryoshka attribute or column.
        rows: mappings from column name to value, with the vector among them unless `vectors` is given.
        vectors: the vectors, in the order of `rows`; shape (n, dims) or any iterable; None for a row without one.
        batch_size: rows in a batch.
        check_sample: short vectors of each batch that are compared.
        progress: called after each batch with the number of rows written so far.

    Raises:
        IngestError: a row that cannot be loaded, named by its key; nothing of its batch was written.
        NotMigrated: the table or one of the columns is not in the database.
    """
    if batch_size < 1:
        raise IngestError(f"batch_size={batch_size}: give at least 1")
    driver = _driver(connection)
    target = _Target.of(driver, column, check_sample)
    report, start = IngestReport(), time.perf_counter()
    batches = _batches(_paired(rows, vectors, target.full), batch_size)
    while batch := _next(batches, report.rows):
        nulls, zeros = target.write(driver, batch, done=report.rows)
        report = replace(
            report,
            rows=report.rows + len(batch),
            null_vectors=report.null_vectors + nulls,
            zero_vectors=report.zero_vectors + zeros,
            batches=report.batches + 1,
        )
        if progress is not None:
            progress(report.rows)
    return replace(report, seconds=time.perf_counter() - start)


# -- where to ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """The table that is loaded, and how.

    Attributes:
        table: the application's table.
        full: the vector column's name.
        kind: its type there, `vector` or `halfvec`; beside a side table it may differ from the definition's.
        attachment: what pgmrl knows of the column.
        model: what the Table says of values that the catalogue does not: defaults and types in Python.
        kinds: the type of each column in the catalogue, of a domain the one below it.
        oids: the type each column is sent as.
        keys: the primary key's columns.
        check_sample: short vectors to compare in each batch.
    """

    table: Table
    full: str
    kind: FullType
    attachment: Attachment
    model: Model
    kinds: dict[str, str]
    oids: dict[str, int]
    keys: tuple[str, ...]
    check_sample: int

    @classmethod
    def of(cls, driver: psycopg.Connection[Any], column: Any, check_sample: int) -> _Target:
        attachment, base = attachment_of(column), base_column(column)
        table = base.table
        if not isinstance(table, Table):
            raise IngestError(f"{column} is no column of a Table")
        kinds, oids = _types(driver, table, base.name)
        keys = tuple(key.name for key in table.primary_key.columns)
        model = Model.of(table, except_for={base.name, attachment.short})
        target = cls(
            table, base.name, cast("FullType", kinds[base.name]), attachment, model, kinds, oids, keys, check_sample
        )
        target._check_keeper(driver)
        return target

    @property
    def definition(self) -> Definition:
        return self.attachment.definition

    @property
    def name(self) -> str:
        return qualified(self.table.schema, self.table.name)

    @property
    def range(self) -> FullType:
        """The type whose range a vector must fit: also that of its copy in a side table."""
        return "halfvec" if "halfvec" in {self.kind, self.definition.full} else "vector"

    def write(self, driver: psycopg.Connection[Any], batch: list[Row], done: int) -> tuple[int, int]:
        """Check and write a batch; the numbers of rows without a vector and with a zero one."""
        batch = self._completed(batch, done)
        self._check_columns(batch, done)
        vectors = self._checked(batch, done)
        parts = self._parts(batch, vectors)
        at: _Part | None = None
        try:
            with driver.transaction():
                for at in parts:
                    self._copy(driver, at, done)
                    if at.shorts is not None:
                        self._compare(driver, at)
                        driver.execute("SELECT set_config('pgmrl.computed_by', '', true)")
                at = None  # what fails now is not of one part: a deferred constraint
        except psycopg.Error as error:
            raise IngestError(self._explained(error, at, done)) from error
        given = [vector for vector in vectors if vector is not None]
        zeros = int(self.definition.unfindable(np.stack(given)).sum()) if given else 0
        return len(batch) - len(given), zeros

    def _check_keeper(self, driver: psycopg.Connection[Any]) -> None:
        """A rotated short column without its trigger would stay empty, and nobody would know."""
        short, rule = self.attachment.short, self.definition.short.by
        if short is None or not isinstance(rule, Rotation) or self.attachment.side is not None:
            return
        if short not in self.oids:
            if rule.axes is None:
                return  # the migration that adds it fills it
            raise NotMigrated(f"table {self.table.fullname} has no column {short}: run the migration that adds it")
        query = (
            "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgenabled IN ('O', 'A') "
            "AND position(convert_to(%s, 'UTF8') IN tgargs) > 0"
        )
        with _quietly(driver):
            kept = _cursor(driver).execute(query, [self.name, str(rule.id)]).fetchone()
        if kept is None:
            raise NotMigrated(
                f"nothing keeps {self.table.fullname}.{short} in step with {self.full}: run the migration that adds it"
            )

    def _completed(self, batch: list[Row], done: int) -> list[Row]:
        """The rows with the model's defaults."""
        for number, row in enumerate(batch):
            if not isinstance(row, Mapping):
                raise IngestError(
                    f"row {done + number + 1:,} is {row!r:.60}: give mappings from column name to value. {_fate(done)}"
                )
        if not self.model.defaults:
            return batch
        completed: list[Row] = []
        for number, row in enumerate(batch):
            try:
                completed.append(self.model.completed(row))
            except DefinitionError as error:
                raise IngestError(f"{self._row(row, number, done)}: {error}. {_fate(done)}") from error
        return completed

    def _parts(self, batch: list[Row], vectors: list[VectorArray | None]) -> list[_Part]:
        """Rows of the same columns together: a column that COPY names cannot have its default in some of the rows."""
        groups: dict[frozenset[str], list[int]] = {}
        for number, row in enumerate(batch):
            groups.setdefault(frozenset(row), []).append(number)
        parts = []
        for numbers in groups.values():
            columns = list(batch[numbers[0]])
            own = [vectors[number] for number in numbers]
            shorts = self._shorts(columns, [vector for vector in own if vector is not None])
            parts.append(_Part(columns, numbers, [batch[number] for number in numbers], own, shorts))
        return parts

    def _check_columns(self, batch: list[Row], done: int) -> None:
        for number, row in enumerate(batch):
            if not row:
                raise IngestError(f"{self._row(row, number, done)}: it has no columns: name some. {_fate(done)}")
        columns = dict.fromkeys(name for row in batch for name in row)
        unknown = next((name for name in columns if name not in self.oids), None)
        if unknown is not None:
            number = next(number for number, row in enumerate(batch) if unknown in row)
            there = ", ".join(self.oids)
            raise IngestError(
                f"{self._row(batch[number], number, done)}: {self.name} has no column {unknown!r} (it has {there}). "
                f"{_fate(done)}"
            )
        if self.attachment.short in columns and self.attachment.side is None:
            number = next(number for number, row in enumerate(batch) if self.attachment.short in row)
            raise IngestError(
                f"{self._row(batch[number], number, done)}: {self.attachment.short!r} is computed, not given: leave it "
                f"out. {_fate(done)}"
            )

    def _checked(self, batch: list[Row], done: int) -> list[VectorArray | None]:
        given = [row.get(self.full) for row in batch]
        try:  # all at once; only where that fails is it worth knowing which row it was
            return list(as_vectors(given, self.definition.dims, self.range))
        except VectorError:
            return self._checked_singly(batch, done)

    def _checked_singly(self, batch: list[Row], done: int) -> list[VectorArray | None]:
        checked: list[VectorArray | None] = []
        for number, row in enumerate(batch):
            value = row.get(self.full)
            try:
                checked.append(None if value is None else as_vector(value, self.definition.dims, self.range))
            except VectorError as error:
                raise IngestError(f"{self._row(row, number, done)}: {error}. {_fate(done)}") from error
        return checked

    def _shorts(self, columns: list[str], vectors: list[VectorArray]) -> NDArray[Any] | None:
        """The short vectors of the rows that have one, where the client can compute and then check them."""
        short, rule = self.definition.short, self.definition.short.by
        holds_axes = isinstance(rule, Rotation) and rule.axes is not None
        checkable = bool(self.keys) and set(self.keys) <= set(columns)
        if not vectors or not holds_axes or short.type == "bit" or self.attachment.side or not checkable:
            return None
        return self.definition.shorten(np.stack(vectors))

    def _copy(self, driver: psycopg.Connection[Any], part: _Part, done: int) -> None:
        columns, shorts = part.columns, part.shorts
        names = [*columns, *([str(self.attachment.short)] if shorts is not None else [])]
        if shorts is not None:
            driver.execute(set_computed_by(self.definition).encode())
        computed = iter(shorts if shorts is not None else ())
        statement = f"COPY {self.name} ({', '.join(map(quoted, names))}) FROM STDIN (FORMAT BINARY)"
        with _cursor(driver) as cursor, cursor.copy(statement.encode()) as copy:
            try:
                copy.set_types([self.oids[name] for name in names])
            except psycopg.ProgrammingError as error:
                where, culprit = self._row(part.rows[0], part.numbers[0], done), self._undumpable(driver, names)
                raise IngestError(f"{where}: {culprit}. {_fate(done)}") from error
            for number, row, vector in zip(part.numbers, part.rows, part.vectors, strict=True):
                values = [
                    self._value(name, row, number, done) if name != self.full else _encoded(vector, self.kind)
                    for name in columns
                ]
                if shorts is not None:
                    values.append(None if vector is None else encode(next(computed), self.definition.short.type))
                try:
                    copy.write_row(values)
                except psycopg.OperationalError:  # of the connection, not of the row
                    raise
                except Exception as error:  # psycopg's dumpers raise whatever a wrong value makes them stumble over
                    culprit = self._culprit(driver, names, values, error)
                    raise IngestError(f"{self._row(row, number, done)}: {culprit}. {_fate(done)}") from error

    def _value(self, name: str, row: Row, number: int, done: int) -> Any:
        value = row[name]
        if value is None:
            return None
        try:
            return self._sent(name, value)
        except Exception as error:  # whatever a wrong value makes its conversion stumble over
            where = self._row(row, number, done)
            raise IngestError(f"{where}: {self._refused(name, value)}. {_fate(done)}") from error

    def _sent(self, name: str, value: Any) -> Any:
        """A value as it is sent."""
        bound = self.model.bound(name, value)
        return None if bound is None else converted(self.kinds[name], bound)

    def _undumpable(self, driver: psycopg.Connection[Any], names: Sequence[str]) -> str:
        for name in names:
            try:
                driver.adapters.get_dumper_by_oid(self.oids[name], psycopg.pq.Format.BINARY)
            except psycopg.ProgrammingError:
                return f"column {name!r}: psycopg does not know {self.kinds[name]}; register that type or leave it out"
        raise AssertionError("each has a dumper")

    def _refused(self, name: str, value: Any) -> str:
        return f"column {name!r} ({self.kinds[name]}) does not take {value!r:.100}: give a value of its type"

    def _compare(self, driver: psycopg.Connection[Any], part: _Part) -> None:
        """Compare a sample of the short vectors with what the server computes from what it has stored."""
        written = [row for row, vector in zip(part.rows, part.vectors, strict=True) if vector is not None]
        step = max(1, len(written) // max(1, self.check_sample))
        sample = written[::step][: self.check_sample]
        if not sample:
            return
        kind = self.definition.short.type
        send = self.definition.qualified(f"{kind}_send")
        given, own = quoted(str(self.attachment.short)), self.definition.sql(quoted(self.full))
        keys = ", ".join(map(quoted, self.keys)).replace("%", "%%")
        places = ", ".join("(" + ", ".join(["%s"] * len(self.keys)) + ")" for _ in sample)
        query = f"SELECT {send}({given}), {send}({own}) FROM {self.name}".replace("%", "%%")  # noqa: S608
        values = [self._sent(key, row[key]) for row in sample for key in self.keys]
        # not prepared, which a pooler between the server and us may not allow
        found = _cursor(driver).execute(f"{query} WHERE ({keys}) IN ({places})".encode(), values, prepare=False)
        rows = found.fetchall()
        if len(rows) < len(sample) or any(ours is None or theirs is None for ours, theirs in rows):
            raise IngestError(
                f"a trigger on {self.name} changes rows while they are loaded, so the short vectors computed here are "
                "not theirs: nothing of this batch was written; pin the rotation by its id alone, Rotation(id), and "
                "the server computes them"
            )
        if not all(_same(ours, theirs, kind) for ours, theirs in rows):
            raise IngestError(
                f"the short vectors computed here are not those {self.name} computes itself: nothing of this batch "
                "was written; load the rotation from its file again"
            )

    # -- what an error says ----------------------------------------------------------------------------------------

    def _row(self, row: Row, number: int, done: int) -> str:
        return f"row {done + number + 1:,} ({self._named(row)})"

    def _named(self, row: Row) -> str:
        return ", ".join(f"{key}={row.get(key)!r}" for key in self.keys) or "no key"

    def _explained(self, error: psycopg.Error, part: _Part | None, done: int) -> str:
        diag = error.diag
        # "COPY packages, line 17" in the server's language
        line = re.search(rf"COPY {re.escape(self.table.name)}, \S+ (\d+)", diag.context or "")
        number = int(line.group(1)) - 1 if line and part is not None else -1
        where = ""
        if part is not None and 0 <= number < len(part.rows):
            where = f"{self._row(part.rows[number], part.numbers[number], done)}: "
        said = [diag.message_primary or str(error).strip()]
        if diag.message_detail and "Failing row contains" not in diag.message_detail:  # which is a page of numbers
            said.append(diag.message_detail.rstrip("."))
        return f"{where}{': '.join(said)}. {_fate(done)}"

    def _culprit(
        self, driver: psycopg.Connection[Any], names: Sequence[str], values: Sequence[Any], error: Exception
    ) -> str:
        """Which value could not be sent."""
        for name, value in zip(names, values, strict=True):
            try:
                if value is not None:
                    dumper = driver.adapters.get_dumper_by_oid(self.oids[name], psycopg.pq.Format.BINARY)
                    dumper(type(value), driver).dump(value)
            except Exception:
                return self._refused(name, value)
        return str(error)


# -- helpers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a batch that have the same columns.

    Attributes:
        columns: their columns.
        numbers: their places in the batch.
        rows: the rows.
        vectors: their vectors; None for a row without one.
        shorts: the short vectors of those that have one; None where the server computes them.
    """

    columns: list[str]
    numbers: list[int]
    rows: list[Row]
    vectors: list[VectorArray | None]
    shorts: NDArray[Any] | None


def _same(ours: bytes, theirs: bytes, kind: ShortType) -> bool:
    """Whether two short vectors in binary form differ by no more than the order of adding explains."""
    one, other = (decode(value, kind).astype(np.float64) for value in (ours, theirs))
    largest = np.abs(other).max().astype(np.float16 if kind == "halfvec" else np.float32)
    return bool(np.abs(one - other).max() <= ULPS * max(float(np.spacing(largest)), 1e-5 * float(largest)))


def _driver(connection: Connection | Session | psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    if isinstance(connection, psycopg.Connection):
        return connection
    through = sqlalchemy_connection(connection)
    if through.in_transaction():
        through.exec_driver_sql("SELECT 1")  # SQLAlchemy begins late; a batch must find the caller's transaction begun
    driver = through.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise IngestError("ingest needs psycopg 3, not asynchronous: an URL that begins with postgresql+psycopg://")
    return driver


def _cursor(driver: psycopg.Connection[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
    """A cursor that does not depend on the factories of the caller's connection."""
    return psycopg.Cursor(driver, row_factory=tuple_row)


def _types(driver: psycopg.Connection[Any], table: Table, full: str) -> tuple[dict[str, str], dict[str, int]]:
    """The type of each column, and the type that its values are sent as."""
    query = """
        WITH RECURSIVE plain AS (
            SELECT a.attnum, a.attname, a.atttypid AS oid FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL  -- a domain may be of a domain
            SELECT p.attnum, p.attname, t.typbasetype FROM plain AS p
            JOIN pg_type AS t ON t.oid = p.oid AND t.typtype = 'd'
        )
        SELECT p.attname, t.typname, CASE
            WHEN t.typname IN ('vector', 'halfvec', 'sparsevec', 'bit') THEN 'bytea'::regtype
            WHEN t.typtype = 'e' OR t.typreceive::text IN ('textrecv', 'varcharrecv', 'bpcharrecv', 'citextrecv')
            THEN 'text'::regtype ELSE t.oid END::oid::integer
        FROM plain AS p JOIN pg_type AS t ON t.oid = p.oid AND t.typtype <> 'd'
        ORDER BY p.attnum
    """
    with _quietly(driver):
        rows = _cursor(driver).execute(query, [qualified(table.schema, table.name)]).fetchall()
    if not rows:
        raise NotMigrated(f"there is no table {table.fullname} in this database: run the application's migrations")
    kinds = {name: kind for name, kind, _ in rows}
    if kinds.get(full) not in VECTOR_TYPES:
        raise NotMigrated(f"table {table.fullname} has no vector column {full}: run the application's migrations")
    return kinds, {name: oid for name, _, oid in rows}


@contextmanager
def _quietly(driver: psycopg.Connection[Any]) -> Iterator[None]:
    """Read without leaving a transaction open that was not."""
    with driver.transaction():
        yield


def _paired(rows: Iterable[Any], vectors: Iterable[Any] | None, full: str) -> Iterator[Row]:
    if vectors is None:
        yield from rows
        return
    if isinstance(rows, Sized) and isinstance(vectors, Sized) and len(rows) != len(vectors):
        raise IngestError(
            f"there are {len(rows):,} rows and {len(vectors):,} vectors: give one for each row, or None. "
            "Nothing was written."
        )
    given = iter(vectors)
    missing = object()
    count = 0
    for count, row in enumerate(rows, 1):
        if isinstance(row, Mapping) and full in row:
            raise IngestError(f"row {count:,} has {full!r}, and `vectors` are given too: leave one of them out")
        vector = next(given, missing)
        if vector is missing:
            raise IngestError(f"there are {count - 1:,} vectors and more rows: give one for each, or None")
        yield {**row, full: vector} if isinstance(row, Mapping) else row
    if next(given, missing) is not missing:
        raise IngestError(f"there are {count:,} rows and more vectors: give one for each row")


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _next(batches: Iterator[list[Row]], done: int) -> list[Row]:
    """The next batch, empty at the end; what goes wrong in the caller's iterator is told how far the load was."""
    try:
        return next(batches, [])
    except Exception as error:
        error.add_note(f"{done:,} rows had been written before.")
        raise


def _encoded(vector: VectorArray | None, kind: FullType) -> bytes | None:
    return None if vector is None else encode(vector, kind)


def _fate(done: int) -> str:
    return f"Nothing of its batch was written, {done:,} rows before it were."
