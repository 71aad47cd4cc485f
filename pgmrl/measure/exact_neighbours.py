"""The nearest rows of many queries, exactly, by one pass over the table.

Each batch of rows is compared with all queries by one matrix product in single precision, for the full vectors and for
each way to shorten them; pairs that may be among the nearest are computed once more in double precision, and that
decides. So the cost is one read and rows x queries x dimensions multiplications, summed over the ways to shorten.
Memory holds a batch, its scores (`CELLS` of them, 32 MB, and for a while three times that) and the lists: 28 bytes for
each row that is kept of a query, half as much again while rows wait to be merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.measure.pairwise_scores import PairwiseScores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.pairwise_scores import Operand
    from pgmrl.model.shortening import Definition

__all__ = ["CELLS", "ExactSearch", "Neighbours", "RowBatch", "read_neighbours"]

CELLS: Final = 8_000_000
"""Scores that are held at a time: rows of a batch times queries."""

LABELS: Final = 500_000
"""Labels of rows that are no longer in any list, so many are remembered at most."""

FEWEST: Final = 10
"""Queries that are worth going on with when time is short."""

FAR: Final = np.finfo(np.float64).max
"""The distance of the last row in a list that is not full: beyond every finite one."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a table.

    Attributes:
        ids: shape (n,), int64; no two rows of a pass have the same.
        vectors: full vectors as stored, shape (n, dims), float32.
        labels: what else is to be known of rows that are in a list; None for nothing.
        shorts: short vectors as stored, shape (n, short dims), where there is one way to shorten and these are not to
            be computed; None where they are.
        shortened: which rows have a short vector, shape (n,); None for all.
        levels: the smallest of the nested tables that a row belongs to, shape (n,); None where there is one table.
        own: pairs of a query and the row that it is, as numbers of queries and rows: no row is its own neighbour.

    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    labels: Sequence[Any] | None = None
    shorts: NDArray[Any] | None = None
    shortened: NDArray[np.bool_] | None = None
    levels: NDArray[np.int64] | None = None
    own: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest rows of each query, nearest first.

    Attributes:
        ids: shape (queries, size); -1 where the table has fewer rows.
        distances: by which they are ordered, shape (queries, size); infinite where the table has fewer rows.
        full: the distances between full vectors, of the same shape.
        rows: of the table.

    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float64]
    full: NDArray[np.float64]
    rows: int


class ExactSearch:
    """A search that rows are given to, batch by batch.

    Args:
        definition: of the column; full vectors are compared under its metric.
        queries: shape (q, dims).
        count: rows to find for each query by full vectors.
        shortenings: definitions whose short vectors are compared too, of the same full vectors.
        shortlist: rows to find for each query by each kind of short vectors.
        levels: how many nested tables there are; of each the nearest by full vectors are found.
        label_shortlists: whether labels are kept of rows that are only near by short vectors.

    Attributes:
        labels: of the rows in the lists, by id; of others as well.
        own_seen: which queries have met the row that they are, shape (q,).

    """

    def __init__(
        self,
        definition: Definition,
        queries: NDArray[np.floating],
        count: int,
        *,
        shortenings: Sequence[Definition] = (),
        shortlist: int = 0,
        levels: int = 1,
        label_shortlists: bool = True,
    ) -> None:
        stored = definition.stored(queries)
        self._normalise = definition.metric.normalise
        self._full = _Space(PairwiseScores.full(definition), stored)
        self._short = [
            _ShortSpace(PairwiseScores.short(short), short.shorten(stored), shorten=short) for short in shortenings
        ]
        self._levels = [_List(len(queries), count) for _ in range(levels)]
        self._shortlists = [_List(len(queries), shortlist) for _ in shortenings]
        self._rows = np.zeros(levels, np.int64)
        self._labelled = [*self._levels, *(self._shortlists if label_shortlists else ())]
        self._kept_labels = LABELS
        self.labels: dict[int, Any] = {}
        self.own_seen = np.zeros(len(queries), np.bool_)

    @property
    def queries(self) -> int:
        """How many there are."""
        return len(self._full.queries)

    def add(self, batch: RowBatch) -> None:
        """Compare some rows with all queries; under cosine those without a direction are passed over."""
        batch = _with_direction(batch) if self._normalise else batch
        if not len(batch):
            return
        if batch.own is not None:
            self.own_seen[batch.own[0]] = True
        candidates = [*self._near_by_full(batch), *self._near_by_short(batch)]
        self._merge(batch, candidates)

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.own_seen = self.own_seen[:queries]
        for space in (self._full, *self._short):
            space.drop(queries)
        for found in (*self._levels, *self._shortlists):
            found.drop(queries)

    def full(self, level: int = 0) -> Neighbours:
        """The nearest by full vectors, in one of the nested tables."""
        return self._levels[level].neighbours(int(self._rows[level]))

    def short(self, number: int = 0) -> Neighbours:
        """The nearest by one kind of short vectors."""
        return self._shortlists[number].neighbours(int(self._rows[0]))

    def forget_labels(self) -> None:
        """Keep the labels of the rows in the lists alone."""
        for found in self._labelled:
            found.merge()
        ids = np.unique(np.concatenate([found.ids for found in self._labelled]))
        self.labels = {row: self.labels[row] for row in ids.tolist() if row in self.labels}
        self._kept_labels = max(LABELS, 2 * len(self.labels))

    # -- candidates ------------------------------------------------------------------------------------------------

    def _near_by_full(self, batch: RowBatch) -> list[_Pairs]:
        rows = self._full.seen(batch.vectors)
        scores = self._full.scores(rows, batch.own)
        found = []
        for level, found_before in enumerate(self._levels):
            among = None if batch.levels is None else np.flatnonzero(batch.levels >= level)
            self._rows[level] += len(batch) if among is None else len(among)
            part = scores if among is None or len(among) == len(batch) else scores[:, among]
            query, column = found_before.candidates(self._full, part, batch.vectors, among)
            found.append(_Pairs(query, column if among is None else among[column]))
        return found

    def _near_by_short(self, batch: RowBatch) -> list[_Pairs]:
        found = []
        for space, found_before in zip(self._short, self._shortlists, strict=True):
            vectors = space.shorten.shorten(batch.vectors) if batch.shorts is None else batch.shorts
            space.vectors = vectors
            scores = space.scores(space.seen(vectors), batch.own)
            if batch.shortened is not None:
                scores[:, ~batch.shortened] = np.inf
            found.append(_Pairs(*found_before.candidates(space, scores, vectors, None)))
        return found

    def _merge(self, batch: RowBatch, candidates: Sequence[_Pairs]) -> None:
        """Compute the distances of the candidates, those between full vectors once for all lists, and take them in."""
        codes = [pairs.query * len(batch) + pairs.column for pairs in candidates]
        pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
        if not len(pairs):
            return
        full = self._full.distances(pairs // len(batch), pairs % len(batch), batch.vectors)
        wheres = np.split(place, np.cumsum([len(code) for code in codes])[:-1])
        levels = len(self._levels)
        for number, (found, (query, column), where) in enumerate(
            zip((*self._levels, *self._shortlists), candidates, wheres, strict=True)
        ):
            distances = full[where]
            if number >= levels:
                space = self._short[number - levels]
                distances = space.distances(query, column, space.vectors)
            found.add(query, batch.ids[column], distances, full[where])
        if batch.labels is not None:
            columns = [near.column for near in candidates[: len(self._labelled)]]
            taken = np.unique(np.concatenate(columns)).tolist()
            self.labels.update((int(batch.ids[row]), batch.labels[row]) for row in taken)
            if len(self.labels) > self._kept_labels:
                self.forget_labels()


def read_neighbours(
    batches: Iterable[RowBatch],
    search: ExactSearch,
    *,
    expected: float = 0.0,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Give all rows to a search.

    Args:
        batches: of the table.
        search: takes them.
        expected: rows that will come, to foresee whether there is time.
        deadline: of `time.monotonic()`, when it shall be over; queries are given up, the last ones first.
        progress: called with the rows that were read.

    Returns:
        The rows that were read.

    Raises:
        MeasureError: not even a few queries can be compared until the deadline.

    """
    begun, rows = monotonic(), 0
    for batch in batches:
        search.add(batch)
        rows += len(batch)
        if progress is not None:
            progress(rows)
        if deadline is not None:
            affordable = _affordable(search.queries, begun, deadline, rows / max(expected, rows, 1))
            if affordable < search.queries:
                search.drop(affordable)
    search.forget_labels()
    return rows


def _affordable(queries: int, begun: float, deadline: float, done: float) -> int:
    """Queries that can be gone on with, if time goes with their number."""
    now = monotonic()
    if done >= 1 or (now - begun < 1 and now < deadline):  # too early to tell
        return queries
    needed = (now - begun) / done * (1 - done)
    if needed <= deadline - now:
        return queries
    affordable = int(queries * 0.9 * (deadline - now) / needed)
    if affordable < min(FEWEST, queries):
        raise MeasureError(
            f"reading the table for {queries:,} queries takes about {needed + now - begun:,.0f} s, and reading alone "
            "may take most of it: give more seconds, or none"
        )
    return affordable


# -- one space and one list ----------------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Pairs of a query and a row of the batch, by their numbers."""

    query: NDArray[np.int64]
    column: NDArray[np.int64]


class _Space:
    """Vectors that are compared: the queries, and how far single precision is to be trusted."""

    def __init__(self, metric: PairwiseScores, queries: NDArray[Any]) -> None:
        self.metric = metric
        self.queries = queries
        self.prepared = metric.prepared(queries)
        self.longest = 0.0

    def seen(self, vectors: NDArray[Any]) -> Operand:
        """The rows of a batch, prepared."""
        rows = self.metric.prepared(vectors)
        self.longest = max(self.longest, float(rows.squares.max(initial=0)))
        return rows

    def scores(self, rows: Operand, own: tuple[NDArray[np.int64], NDArray[np.int64]] | None) -> NDArray[Any]:
        scores = self.metric.scores(self.prepared, rows)
        if own is not None:
            scores[own] = np.inf
        return scores

    def exact_scores(self, query: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.float64]:
        """The scores of some queries in double precision."""
        queries = self.metric.prepared(self.queries[query], np.float64)
        return np.asarray(self.metric.scores(queries, self.metric.prepared(vectors, np.float64)), np.float64)

    def distances(self, query: NDArray[np.int64], row: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.float64]:
        return self.metric.distances(self.queries, vectors, query, row)

    def drop(self, queries: int) -> None:
        self.queries = self.queries[:queries]
        self.prepared = type(self.prepared)(*(part[:queries] for part in self.prepared))


class _ShortSpace(_Space):
    """Short vectors, and those of the batch."""

    def __init__(self, metric: PairwiseScores, queries: NDArray[Any], *, shorten: Definition) -> None:
        super().__init__(metric, queries)
        self.shorten = shorten
        self.vectors: NDArray[Any] = queries[:0]


@dataclass(slots=True)
class _List:
    """For each query the nearest rows of those that came so far.

    Attributes:
        queries: how many.
        size: rows to keep for each.
        worst: the distance of the last one that is kept, shape (queries,); `FAR` while there are fewer.
        query: which query an entry is for, ascending.
        ids: its row.
        distances: by which the rows are ordered.
        full: the distance between full vectors.
        waiting: entries that are not merged yet.
        count: how many those are.

    """

    queries: int
    size: int
    worst: NDArray[np.float64] = field(init=False)
    query: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    distances: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    full: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    waiting: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.worst = np.full(self.queries, FAR)

    def candidates(
        self, space: _Space, scores: NDArray[Any], vectors: NDArray[Any], among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a query and a column of the scores that may be among the nearest.

        Args:
            space: where the vectors are compared.
            scores: in single precision, shape (queries, n).
            vectors: of the batch.
            among: which rows of the batch the columns are; None for all.

        """
        rounding = space.metric.rounding(space.prepared, space.longest)
        full = self.worst < FAR
        worst = space.metric.score_of(np.where(full, self.worst, 0.0), space.prepared)
        limits = np.where(full, worst + rounding, FAR)
        limits = np.minimum(limits, np.finfo(scores.dtype).max).astype(scores.dtype)
        near = scores <= limits[:, np.newaxis]
        crowded = np.flatnonzero(near.sum(axis=1) > self.size)
        if len(crowded):
            nearest = np.partition(scores[crowded], self.size - 1, axis=1)[:, self.size - 1]
            nearest = (nearest + 2 * rounding[crowded]).astype(scores.dtype)
            near[crowded] &= scores[crowded] <= nearest[:, np.newaxis]
            self._decide(space, near, vectors if among is None else vectors[among])
        query, column = np.nonzero(near)
        return query, column

    def _decide(self, space: _Space, near: NDArray[np.bool_], vectors: NDArray[Any]) -> None:
        """Where more rows than can stay are as near as single precision can tell, double precision chooses."""
        crowded = np.flatnonzero(near.sum(axis=1) > 2 * self.size)
        if not len(crowded):
            return
        exact = np.where(near[crowded], space.exact_scores(crowded, vectors), np.inf)
        chosen = np.argpartition(exact, self.size - 1, axis=1)[:, : self.size]
        near[crowded] = False
        near[crowded[:, np.newaxis], chosen] = True

    def add(
        self,
        query: NDArray[np.int64],
        ids: NDArray[np.int64],
        distances: NDArray[np.float64],
        full: NDArray[np.float64],
    ) -> None:
        """Take in the candidates that are nearer than the last row of their list, each with its distances."""
        nearer = distances < self.worst[query]
        self.waiting.append((query[nearer].astype(np.int32), ids[nearer], distances[nearer], full[nearer]))
        self.count += int(nearer.sum())
        if 2 * self.count > self.size * self.queries:  # a half more than what stays: more memory saves little time
            self.merge()

    def merge(self) -> None:
        """Let go of what is too far."""
        if not self.waiting:
            return
        parts = [(self.query, self.ids, self.distances, self.full), *self.waiting]
        query, ids, distances, full = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(query, kind="stable")
        bounds = np.searchsorted(query[order], np.arange(self.queries + 1))
        kept = []
        for number in range(self.queries):
            own = order[bounds[number] : bounds[number + 1]]
            if len(own) >= self.size:
                own = own[np.argpartition(distances[own], self.size - 1)[: self.size]]
                self.worst[number] = distances[own].max()
            kept.append(own)
        chosen = np.concatenate(kept)
        self.query, self.ids, self.distances, self.full = query[chosen], ids[chosen], distances[chosen], full[chosen]
        self.waiting, self.count = [], 0

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.merge()
        stay = self.query < queries
        self.queries, self.worst = queries, self.worst[:queries]
        self.query, self.ids, self.distances, self.full = (
            self.query[stay],
            self.ids[stay],
            self.distances[stay],
            self.full[stay],
        )

    def neighbours(self, rows: int) -> Neighbours:
        """What was found, nearest first."""
        self.merge()
        order = np.lexsort((self.distances, self.query))
        query = self.query[order]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        shape = (self.queries, self.size)
        ids, distances, full = np.full(shape, -1, np.int64), np.full(shape, np.inf), np.full(shape, np.inf)
        for whole, values in ((ids, self.ids), (distances, self.distances), (full, self.full)):
            whole[query, place] = values[order]
        return Neighbours(ids, distances, full, rows)


def _with_direction(batch: RowBatch) -> RowBatch:
    """Without zero vectors, which have no distance to anything."""
    keep = np.asarray(batch.vectors.any(axis=1))
    if keep.all():
        return batch
    kept = np.flatnonzero(keep)
    own = batch.own
    if own is not None:
        known = keep[own[1]]
        own = (own[0][known], np.searchsorted(kept, own[1][known]))
    return replace(
        batch,
        ids=batch.ids[keep],
        vectors=batch.vectors[keep],
        labels=None if batch.labels is None else [batch.labels[row] for row in kept.tolist()],
        shorts=None if batch.shorts is None else batch.shorts[keep],
        shortened=None if batch.shortened is None else batch.shortened[keep],
        levels=None if batch.levels is None else batch.levels[keep],
        own=own,
    )
