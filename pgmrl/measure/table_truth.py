"""The truth of searches of a table: the exact nearest rows of each query, and its exact shortlist, from one pass.

The rows are those that the searches see: the pass is a SELECT of the caller's own conditions, in the same snapshot and
with the same rights. The short vectors are those that are stored, which is what the index holds.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl import database
from pgmrl.database.vector_reader import VectorType, batch_rows, binary_column, read_vectors
from pgmrl.measure.exact_neighbours import CELLS, ExactSearch, RowBatch, read_neighbours
from pgmrl.measure.ground_truth import GroundTruth, kept_neighbours
from pgmrl.model.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Select

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["QueryTruth", "TableTruth", "queries_at_once"]

Key = tuple[Any, ...]

ENTRIES: Final = 2_000_000
"""Rows of all shortlists that memory holds, some 130 MB. Of longer ones fewer queries have their turn at a time."""


def queries_at_once(shortlist: int) -> int:
    """Queries whose lists fit into memory."""
    return max(1, ENTRIES // shortlist)


@dataclass(frozen=True, slots=True)
class QueryTruth:
    """The truth of one query.

    Attributes:
        count: rows there are to return, at most k.
        keys: of the nearest rows, nearest first; the first `count` and those that are as near as the last of them.
        limit: the distance within which a row is as near.
        crowded: whether there may be more such rows than `keys` has.
        listed: full distances of the exact shortlist, nearest first by short vectors.
        own_seen: whether the row that the query is, is among the rows that are searched.

    """

    count: int
    keys: list[Key]
    limit: float
    crowded: bool
    listed: NDArray[np.float64]
    own_seen: bool

    def recall(self, returned: Sequence[tuple[Key, float]]) -> float:
        """The share of the true neighbours among rows that a search returned, by key and distance."""
        near = {_identity(key) for key in self.keys}
        hits = sum(_identity(key) in near or (self.crowded and distance <= self.limit) for key, distance in returned)
        return self._share(hits)

    def shortlist_recall(self, size: int) -> float:
        """The recall of the exact shortlist of so many rows."""
        return self._share(int((self.listed[:size] <= self.limit).sum()))

    def _share(self, hits: int) -> float:
        return min(1.0, hits / self.count) if self.count else 1.0


@dataclass(frozen=True, slots=True)
class TableTruth:
    """What the truth is read from.

    Attributes:
        connection: in a snapshot.
        definition: of the column, with the axes of its rotation.
        statement: selects the key, the full and the short vector in binary form.
        expected: rows that will come, as the server's planner expects.

    """

    connection: Connection
    definition: Definition
    statement: Select[*tuple[Any, ...]]
    expected: float

    @classmethod
    def of(cls, connection: Connection, rows: SelectedRows, definition: Definition, expected: float) -> TableTruth:
        """Of the rows that searches leave.

        Raises:
            RotationError: the column's rotation is not installed.

        """
        by = definition.short.by
        if isinstance(by, Rotation):
            by = database.with_axes(connection, by)
            definition = replace(definition, short=replace(definition.short, by=by))
        return cls(connection, definition, truth_statement(rows, definition), expected)

    def read(
        self,
        vectors: NDArray[np.float32],
        keys: Sequence[Key] | None,
        *,
        k: int,
        shortlist: int,
        deadline: float,
        progress: Callable[[int], None],
    ) -> list[QueryTruth]:
        """The truth of queries, by one pass.

        Args:
            vectors: of the queries, shape (q, dims), float32.
            keys: of the rows that they are; None where they are none.
            k: results that count.
            shortlist: rows of the shortlist.
            deadline: of `time.monotonic`, when it shall be over.
            progress: called with the rows that were read.

        Returns:
            One for each query, from the first; fewer where time was short.

        Raises:
            MeasureError: there is not enough time for a few queries.

        """
        count = kept_neighbours(k)
        numbers: dict[str, Any] = {"shortlist": shortlist, "label_shortlists": False}
        search = ExactSearch(self.definition, vectors, count, shortenings=[self.definition], **numbers)
        with closing(self._batches(len(vectors), keys)) as batches:
            read_neighbours(batches, search, expected=self.expected, deadline=deadline, progress=progress)
        truth, listed = GroundTruth.of(k, search.full()), search.short()
        columns = zip(truth.ids, truth.neighbours, truth.counts, truth.limits, truth.crowded, strict=True)
        return [
            QueryTruth(
                int(expected),
                [search.labels[row] for row in ids[near].tolist()],
                float(limit),
                bool(crowded),
                listed.full[number],
                bool(search.own_seen[number]),
            )
            for number, (ids, near, expected, limit, crowded) in enumerate(columns)
        ]

    def _batches(self, queries: int, keys: Sequence[Key] | None) -> Generator[RowBatch]:
        definition = self.definition
        own = {} if keys is None else {_identity(key): number for number, key in enumerate(keys)}
        types = [VectorType.full(definition), VectorType.short(definition)]
        rows, first = batch_rows(definition.dims + definition.short.dims, queries, CELLS), 0
        with closing(read_vectors(self.connection, self.statement, types, rows=rows)) as batches:
            for columns, (vectors, shorts), (_, shortened) in batches:
                labels = list(zip(*columns, strict=True))
                ids = np.arange(first, first + len(labels))
                first += len(labels)
                yield RowBatch(ids, vectors, labels, shorts, shortened, own=_own_pairs(labels, own))


def truth_statement(rows: SelectedRows, definition: Definition) -> Select[*tuple[Any, ...]]:
    """Key, full and short vector of the rows that searches leave, of those that have a full one."""
    assert rows.short is not None  # noqa: S101 - without short vectors there is nothing to measure
    schema = definition.vector_schema
    binary = (
        binary_column(definition.full, rows.full, schema),
        binary_column(definition.short.type, rows.short, schema),
    )
    columns = rows.select.with_only_columns(*rows.inner_keys, *binary, maintain_column_froms=True)
    return columns.where(rows.full.is_not(None))


def _own_pairs(labels: Sequence[Key], own: dict[Any, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Which rows of a batch are queries: the queries' and the rows' numbers."""
    if not own:
        return None
    pairs = [(own[identity], row) for row, key in enumerate(labels) if (identity := _identity(key)) in own]
    if not pairs:
        return None
    query, row = np.array(pairs, np.int64).T
    return query, row


def _identity(key: Key) -> Any:
    """A key as something that can be looked up; arrays and documents cannot."""
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key
