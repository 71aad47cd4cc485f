"""The documents of a table: by what they are named, which of them there are, and their vectors."""

from __future__ import annotations

import re
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Enum,
    Integer,
    String,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
)

from pgmrl.database.search_path import catalogue_result
from pgmrl.database.vector_reader import VectorType, batch_rows, binary_column, read_vectors
from pgmrl.errors import MeasureError
from pgmrl.measure.exact_neighbours import CELLS, RowBatch
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.server_names import server_name
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sqlalchemy import Column, ColumnElement, Connection, Select

__all__ = ["Documents", "documents_of"]

LARGEST: Final = 2**63


@dataclass(frozen=True, slots=True)
class Documents:
    """A table's rows as documents.

    Attributes:
        column: the full vectors', of a Table.
        id: the column that names a document; unique.

    """

    column: Column[Any]
    id: Column[Any]

    @property
    def name(self) -> ColumnElement[str]:
        """The document's name as text, as judgements have it."""
        return cast(self.id, Text)

    def known(self, connection: Connection, names: Iterable[str]) -> dict[str, bool]:
        """Those of the names that the table has, each with whether there is a vector, in the order of the key."""
        attachment, vectors = attachment_of(self.column), vectors_table(self.column)
        table = self.column.table
        there = (vectors.c[attachment.full].is_not(None)).label("there")
        statement = select(self.name, func.coalesce(there, False)).select_from(
            table if vectors is table else table.outerjoin(vectors, _same_key(table, vectors))
        )
        kind, compared, values = self._comparable([name for name in names if "\0" not in name])
        named = statement.where(compared == any_(bindparam("names", values, ARRAY(kind))))
        rows = connection.execute(named.order_by(*table.primary_key))
        return {name: bool(with_vector) for name, with_vector in rows}

    def batches(self, connection: Connection, queries: int) -> Generator[RowBatch]:
        """All documents with a vector, labelled by their names; so many at a time as can be compared with the queries.

        To be closed, also where an error ends the reading.
        """
        attachment, vectors = attachment_of(self.column), vectors_table(self.column)
        definition, table = attachment.definition, self.column.table
        full = vectors.c[attachment.full]
        binary = binary_column(definition.full, full, definition.vector_schema)
        statement: Select[*tuple[Any, ...]] = select(self.name, binary).where(full.is_not(None))
        if vectors is not table:
            statement = statement.select_from(table.join(vectors, _same_key(table, vectors)))
        rows, count = batch_rows(definition.dims, queries, CELLS), 0
        with closing(read_vectors(connection, statement, [VectorType.full(definition)], rows=rows)) as batches:
            for (names,), (full_vectors,), _ in batches:
                ids = np.arange(count, count + len(names))
                count += len(names)
                # a document without a name is found like others, and nobody can have judged it
                labels = [f"\0{row}" if name is None else name for row, name in zip(ids.tolist(), names, strict=True)]
                yield RowBatch(ids, full_vectors, labels)

    def _comparable(self, names: Iterable[str]) -> tuple[Any, ColumnElement[Any], list[Any]]:
        """A type, what to compare in it, and the names in it; by the column itself where its index can be used."""
        kind = self.id.type
        if isinstance(kind, Integer):
            return BigInteger(), self.id, [int(name) for name in names if _is_integer(name)]
        if isinstance(kind, Uuid):
            return Uuid(), self.id, [uuid.UUID(name) for name in names if _is_uuid(name)]
        if isinstance(kind, String) and not isinstance(kind, Enum):
            return Text(), self.id, list(names)
        return Text(), self.name, list(names)


def documents_of(connection: Connection, column: Any, name: str | None) -> Documents:
    """The documents of a column's table.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        name: the column that names them; default the primary key.

    Raises:
        MeasureError: there is no such column, two rows may share a name, or the key has several columns.

    """
    full = base_column(column)
    table = full.table
    keys = [key.name for key in table.primary_key]
    if not keys:
        raise MeasureError(f"{table.fullname} has no primary key: a search returns rows by their key")
    if name is None:
        if len(keys) > 1:
            raise MeasureError(
                f"the key of {table.fullname} has {len(keys)} columns ({', '.join(keys)}): say by "
                "which column with a unique index the judgements name documents (`--document-id`, document_id=)"
            )
        return Documents(full, table.c[keys[0]])
    if name not in table.c:
        raise MeasureError(
            f"{table.fullname} has no column {safe_repr(name)} to name documents by: it has {', '.join(table.c.keys())}"
        )
    if [name] != keys and not _is_unique(connection, table, name):
        raise MeasureError(
            f"{table.fullname}.{name} has no unique index, so it does not say which row is meant: name documents by a "
            "column whose values are unique"
        )
    return Documents(full, table.c[name])


def _is_unique(connection: Connection, table: Any, name: str) -> bool:
    unique: bool = catalogue_result(
        connection,
        text(
            "SELECT EXISTS (SELECT FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid "
            "AND a.attnum = x.indkey[0] WHERE x.indrelid = to_regclass(:table) AND a.attname = :name AND x.indisunique "
            "AND x.indisvalid AND x.indnkeyatts = 1 AND x.indpred IS NULL AND x.indexprs IS NULL)"
        ),
        {"table": server_name(connection, table), "name": name},
    ).scalar_one()
    return unique


def _same_key(table: Any, vectors: Any) -> ColumnElement[bool]:
    return and_(*(key == vectors.c[key.name] for key in table.primary_key))


def _is_integer(name: str) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]{0,18}", name) is not None and -LARGEST <= int(name) < LARGEST


def _is_uuid(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name) is not None  # as the server writes it
