"""Tables of vectors, loaded by binary COPY straight from arrays, and what they and their indexes weigh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np

from benchmarks.data import stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.data import Dataset, Kind
    from benchmarks.server import Connection

Rule = Literal["prefix", "rotation", "bits"]
Storage = Literal["main", "external"]


@dataclass(frozen=True, slots=True)
class Shortened:
    """How a short vector is made, in NumPy.

    Attributes:
        rule: leading dimensions, leading principal axes, or signs.
        dims: how many.
        axes: shape (dims, full dims) for a rotation.
    """

    rule: Rule
    dims: int
    axes: NDArray[np.float16] | None = None

    @property
    def type(self) -> str:
        """The short column's type."""
        return f"bit({self.dims})" if self.rule == "bits" else f"halfvec({self.dims})"

    def of(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Short vectors of full ones; float16, or bool for signs."""
        if self.rule == "bits":
            return vectors[..., : self.dims] > 0
        full = vectors.astype(np.float32, copy=False)
        short = full[..., : self.dims] if self.axes is None else full @ self.axes.astype(np.float32).T
        return np.asarray(short / np.linalg.norm(short, axis=-1, keepdims=True)).astype(np.float16)


@dataclass(frozen=True, slots=True)
class Layout:
    """A table: `id`, `embedding`, and `short` where there is one.

    Attributes:
        name: the table's name.
        full: the full column's type.
        storage: where full vectors are kept: inline in the row, or in TOAST.
        short: the short column.
    """

    name: str
    full: Kind
    storage: Storage
    short: Shortened | None = None

    def ensure(self, connection: Connection, dataset: Dataset) -> None:
        """Create and load the table, unless it holds this data set already; `id` is the row's number."""
        wanted = f"{dataset.name} {self}"
        if _comment(connection, self.name) == wanted:
            return
        with connection.transaction():  # a table made in the same transaction is loaded without WAL
            connection.execute(f'DROP TABLE IF EXISTS "{self.name}"')
            connection.execute(self._create(dataset.dims))
            self._copy(connection, dataset)
            connection.execute(f'ALTER TABLE "{self.name}" ADD PRIMARY KEY (id)')
            connection.execute(f'COMMENT ON TABLE "{self.name}" IS {_literal(wanted)}')
        connection.execute(f'VACUUM (ANALYZE, FREEZE) "{self.name}"')

    def __str__(self) -> str:
        axes = "" if self.short is None or self.short.axes is None else f" {crc32(self.short.axes.tobytes()):x}"
        short = "" if self.short is None else f" {self.short.rule}:{self.short.type}{axes}"
        return f"{self.full}/{self.storage}{short}"

    def _create(self, dims: int) -> str:
        columns = [f"id integer NOT NULL, embedding {self.full}({dims}) STORAGE {self.storage.upper()} NOT NULL"]
        if self.short is not None:
            # pgvector's default would let a wide row push the short vector out, too
            columns.append(f"short {self.short.type} STORAGE MAIN NOT NULL")
        return f'CREATE TABLE "{self.name}" ({", ".join(columns)})'

    def _copy(self, connection: Connection, dataset: Dataset) -> None:
        names = "id, embedding" + (", short" if self.short else "")
        shorten = self.short.of if self.short else None
        copy(connection, f'"{self.name}" ({names})', dataset.rows, self.full, shorten)


def copy(
    connection: Connection,
    into: str,
    rows: NDArray[Any],
    full: Kind,
    shorten: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> None:
    """COPY rows into id, full vector and, where `shorten` makes one, short vector; `id` is the row's number."""
    with connection.cursor().copy(f"COPY {into} FROM STDIN (FORMAT binary)") as stream:
        stream.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for start in range(0, len(rows), 5_000):
            part = stored(rows[start : start + 5_000], full)
            stream.write(_packed(start, part, None if shorten is None else shorten(part)).tobytes())
        stream.write(b"\xff\xff")


def _packed(start: int, full: NDArray[Any], short: NDArray[Any] | None) -> NDArray[Any]:
    """Rows as COPY wants them: every field has a fixed width, so a structured array is the wire format."""
    fields: list[Any] = [("fields", ">i2"), ("id_size", ">i4"), ("id", ">i4"), *_vector("full", full)]
    if short is not None:
        fields += _vector("short", short)
    rows = np.zeros(len(full), np.dtype(fields))
    rows["fields"], rows["id_size"] = 2 + (short is not None), 4
    rows["id"] = np.arange(start, start + len(full))
    _fill(rows, "full", full)
    if short is not None:
        _fill(rows, "short", short)
    return rows


def _vector(name: str, values: NDArray[Any]) -> list[Any]:
    dims = values.shape[1]
    if values.dtype == np.bool_:
        return [(f"{name}_size", ">i4"), (f"{name}_bits", ">i4"), (name, "u1", (-(-dims // 8),))]
    kind = ">f2" if values.dtype == np.float16 else ">f4"
    return [(f"{name}_size", ">i4"), (f"{name}_dims", ">i2"), (f"{name}_unused", ">i2"), (name, kind, (dims,))]


def _fill(rows: NDArray[Any], name: str, values: NDArray[Any]) -> None:
    rows[f"{name}_size"] = 4 + rows.dtype[name].itemsize
    if values.dtype == np.bool_:
        rows[f"{name}_bits"], rows[name] = values.shape[1], np.packbits(values, axis=1)
    else:
        rows[f"{name}_dims"], rows[name] = values.shape[1], values


def _comment(connection: Connection, relation: str) -> str | None:
    found = connection.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", [f'"{relation}"']).fetchone()
    return found[0] if found else None


def index_comment(connection: Connection, index: str) -> str | None:
    """What was noted on an index; None where it is absent or its build was interrupted."""
    return _comment(connection, index)


def set_index_comment(connection: Connection, index: str, text: str) -> None:
    """Note something on an index."""
    connection.execute(f'COMMENT ON INDEX "{index}" IS {_literal(text)}')


def sizes(connection: Connection, table: str, index: str | None) -> dict[str, int]:
    """Bytes of the vector index, of the table with TOAST, of everything with the primary key."""
    row = connection.execute(
        "SELECT pg_table_size(to_regclass(%(t)s)), pg_total_relation_size(to_regclass(%(t)s)),"
        " coalesce(pg_relation_size(to_regclass(%(i)s)), 0)",
        {"t": f'"{table}"', "i": f'"{index}"' if index else None},
    ).fetchone()
    assert row is not None
    return {"table_bytes": row[0], "total_bytes": row[1], "index_bytes": row[2]}


def prewarm(connection: Connection, *relations: str) -> None:
    """Read tables, their TOAST and indexes into shared buffers."""
    for relation in relations:
        connection.execute(
            "SELECT pg_prewarm(oid::regclass) FROM pg_class"
            " WHERE oid = to_regclass(%(r)s)"
            " OR oid = (SELECT reltoastrelid FROM pg_class WHERE oid = to_regclass(%(r)s))"
            " OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = to_regclass(%(r)s))"
            " OR oid IN (SELECT indexrelid FROM pg_index i JOIN pg_class c ON i.indrelid = c.reltoastrelid"
            " WHERE c.oid = to_regclass(%(r)s))",
            {"r": f'"{relation}"'},
        )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
