"""Load rows with vectors by binary COPY: checked before they are sent, whole batches or nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector import Vector as PgVector
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Table
from sqlalchemy.orm import Session

from pgmrl.columns import Attachment, attachment_of, base_column
from pgmrl.database import sqlalchemy_connection
from pgmrl.ddl import set_computed_by
from pgmrl.errors import IngestError, NotMigrated, VectorError
from pgmrl.names import qualified, quoted
from pgmrl.rotation import Rotation
from pgmrl.values import converted
from pgmrl.vectors import as_vector, as_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from pgmrl.metrics import FullType
    from pgmrl.shortening import Definition
    from pgmrl.vectors import Vector

    Row = Mapping[str, Any]

__all__ = ["IngestReport", "ingest"]

BATCH: Final = 5_000
ULPS: Final = 2  # client and server add the products in another order
WIRE: Final[dict[str, Any]] = {"vector": PgVector, "halfvec": HalfVector}


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
    for batch in _batches(_paired(rows, vectors, target.full), batch_size):
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
        kinds: the type of each column in the catalogue, of a domain the one below it.
        oids: the type each column is sent as.
        keys: the primary key's columns.
        check_sample: short vectors to compare in each batch.
    """

    table: Table
    full: str
    kind: str
    attachment: Attachment
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
        return cls(table, base.name, kinds[base.name], attachment, kinds, oids, keys, check_sample)

    @property
    def definition(self) -> Definition:
        return self.attachment.definition

    @property
    def name(self) -> str:
        return qualified(self.table.schema, self.table.name)

    def write(self, driver: psycopg.Connection[Any], batch: list[Row], done: int) -> tuple[int, int]:
        """Check and write a batch; the numbers of rows without a vector and with a zero one."""
        columns = self._columns(batch, done)
        vectors = self._checked(batch, done)
        shorts = self._shorts(columns, [vector for vector in vectors if vector is not None])
        try:
            with driver.transaction():
                self._copy(driver, batch, columns, vectors, shorts, done)
                if shorts is not None:
                    self._compare(
                        driver, [row for row, vector in zip(batch, vectors, strict=True) if vector is not None]
                    )
                    driver.execute("SELECT set_config('pgmrl.computed_by', '', true)")
        except psycopg.Error as error:
            raise IngestError(self._explained(error, batch, done)) from error
        given = [vector for vector in vectors if vector is not None]
        zeros = int(self.definition.unfindable(np.stack(given)).sum()) if given else 0
        return len(batch) - len(given), zeros

    def _columns(self, batch: list[Row], done: int) -> list[str]:
        for number, row in enumerate(batch):
            if not isinstance(row, Mapping):
                raise IngestError(
                    f"row {done + number + 1:,} is {row!r:.60}: give mappings from column name to value. {_fate(done)}"
                )
        columns = list(dict.fromkeys(name for row in batch for name in row))
        if not columns:
            raise IngestError(f"{self._row(batch, 0, done)}: it has no columns: name some. {_fate(done)}")
        unknown = next((name for name in columns if name not in self.oids), None)
        if unknown is not None:
            number = next(number for number, row in enumerate(batch) if unknown in row)
            there = ", ".join(self.oids)
            raise IngestError(
                f"{self._row(batch, number, done)}: {self.name} has no column {unknown!r} (it has {there}). "
                f"{_fate(done)}"
            )
        if self.attachment.short in columns and self.attachment.side is None:
            number = next(number for number, row in enumerate(batch) if self.attachment.short in row)
            raise IngestError(
                f"{self._row(batch, number, done)}: {self.attachment.short!r} is computed, not given: leave it out. "
                f"{_fate(done)}"
            )
        return columns

    def _checked(self, batch: list[Row], done: int) -> list[Vector | None]:
        given = [row.get(self.full) for row in batch]
        try:  # all at once; only where that fails is it worth knowing which row it was
            return list(as_vectors(given, self.definition.dims, cast("FullType", self.kind)))
        except VectorError:
            return self._checked_singly(batch, done)

    def _checked_singly(self, batch: list[Row], done: int) -> list[Vector | None]:
        checked: list[Vector | None] = []
        for number, row in enumerate(batch):
            value = row.get(self.full)
            try:
                checked.append(
                    None if value is None else as_vector(value, self.definition.dims, cast("FullType", self.kind))
                )
            except VectorError as error:
                where = self._row(batch, number, done)
                raise IngestError(f"{where}: {error}. {_fate(done)}") from error
        return checked

    def _shorts(self, columns: list[str], vectors: list[Vector]) -> NDArray[Any] | None:
        """The short vectors of the rows that have one, where the client can compute and then check them."""
        short, rule = self.definition.short, self.definition.short.by
        holds_axes = isinstance(rule, Rotation) and rule.axes is not None
        checkable = bool(self.keys) and set(self.keys) <= set(columns)
        if not vectors or not holds_axes or short.type == "bit" or self.attachment.side or not checkable:
            return None
        return self.definition.shorten(np.stack(vectors))

    def _copy(
        self,
        driver: psycopg.Connection[Any],
        batch: list[Row],
        columns: list[str],
        vectors: list[Vector | None],
        shorts: NDArray[Any] | None,
        done: int,
    ) -> None:
        names = [*columns, *([str(self.attachment.short)] if shorts is not None else [])]
        if shorts is not None:
            driver.execute(set_computed_by(self.definition).encode())
        computed = iter(shorts if shorts is not None else ())
        statement = f"COPY {self.name} ({', '.join(map(quoted, names))}) FROM STDIN (FORMAT BINARY)"
        with _cursor(driver) as cursor, cursor.copy(statement.encode()) as copy:
            try:
                copy.set_types([self.oids[name] for name in names])
            except psycopg.ProgrammingError as error:
                culprit = self._undumpable(driver, names)
                raise IngestError(f"{self._row(batch, 0, done)}: {culprit}. {_fate(done)}") from error
            for row, vector in zip(batch, vectors, strict=True):
                values = [
                    self._value(name, row, done) if name != self.full else _wire(vector, self.kind) for name in columns
                ]
                if shorts is not None:
                    values.append(None if vector is None else _wire(next(computed), self.definition.short.type))
                try:
                    copy.write_row(values)
                except psycopg.OperationalError:  # of the connection, not of the row
                    raise
                except Exception as error:  # psycopg's dumpers raise whatever a wrong value makes them stumble over
                    culprit = self._culprit(driver, names, values, error)
                    raise IngestError(f"row {self._named(row)}: {culprit}. {_fate(done)}") from error

    def _value(self, name: str, row: Row, done: int) -> Any:
        value = row.get(name)
        if value is None:
            return None
        try:
            return converted(self.kinds[name], value)
        except Exception as error:  # whatever a wrong value makes its conversion stumble over
            raise IngestError(f"row {self._named(row)}: {self._refused(name, value)}. {_fate(done)}") from error

    def _undumpable(self, driver: psycopg.Connection[Any], names: Sequence[str]) -> str:
        for name in names:
            try:
                driver.adapters.get_dumper_by_oid(self.oids[name], psycopg.pq.Format.BINARY)
            except psycopg.ProgrammingError:
                return f"column {name!r}: psycopg does not know {self.kinds[name]}; register that type or leave it out"
        raise AssertionError("each has a dumper")

    def _refused(self, name: str, value: Any) -> str:
        return f"column {name!r} ({self.kinds[name]}) does not take {value!r:.100}: give a value of its type"

    def _compare(self, driver: psycopg.Connection[Any], written: list[Row]) -> None:
        """Compare a sample of the short vectors with what the server computes from what it has stored."""
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
        values = [converted(self.kinds[key], row[key]) for row in sample for key in self.keys]
        rows = _cursor(driver).execute(f"{query} WHERE ({keys}) IN ({places})".encode(), values).fetchall()
        dtype = ">f2" if kind == "halfvec" else ">f4"
        for ours, theirs in rows:
            pair = [np.frombuffer(value, dtype, offset=4).astype(np.float64) for value in (ours, theirs)]
            largest = np.abs(pair[1]).max().astype(np.float16 if kind == "halfvec" else np.float32)
            if np.abs(pair[0] - pair[1]).max() > ULPS * max(float(np.spacing(largest)), 1e-5 * float(largest)):
                raise IngestError(
                    f"the short vectors computed here are not those {self.name} computes itself: nothing of this batch "
                    "was written; load the rotation from its file again"
                )

    # -- what an error says ----------------------------------------------------------------------------------------

    def _row(self, batch: list[Row], number: int, done: int) -> str:
        return f"row {done + number + 1:,} ({self._named(batch[number])})"

    def _named(self, row: Row) -> str:
        return ", ".join(f"{key}={row.get(key)!r}" for key in self.keys) or "no key"

    def _explained(self, error: psycopg.Error, batch: list[Row], done: int) -> str:
        diag = error.diag
        line = re.search(r"COPY .*, line (\d+)", diag.context or "")
        number = int(line.group(1)) - 1 if line else -1
        where = f"{self._row(batch, number, done)}: " if 0 <= number < len(batch) else ""
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
    if kinds.get(full) not in WIRE:
        raise NotMigrated(f"table {table.fullname} has no vector column {full}: run the application's migrations")
    return kinds, {name: oid for name, _, oid in rows}


@contextmanager
def _quietly(driver: psycopg.Connection[Any]) -> Iterator[None]:
    """Read without leaving a transaction open that was not."""
    with driver.transaction():
        yield


def _paired(rows: Iterable[Row], vectors: Iterable[Any] | None, full: str) -> Iterator[Row]:
    if vectors is None:
        yield from rows
        return
    given = iter(vectors)
    missing = object()
    count = 0
    for count, row in enumerate(rows, 1):
        vector = next(given, missing)
        if vector is missing:
            raise IngestError(f"there are {count - 1:,} vectors and more rows: give one for each, or None")
        yield {**row, full: vector}
    if next(given, missing) is not missing:
        raise IngestError(f"there are {count:,} rows and more vectors: give one for each row")


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _wire(vector: Any, kind: str) -> bytes | None:
    if vector is None:
        return None
    encoded: bytes = WIRE[kind](np.asarray(vector, np.float32)).to_binary()
    return encoded


def _fate(done: int) -> str:
    return f"Nothing of its batch was written, {done:,} rows before it were."
