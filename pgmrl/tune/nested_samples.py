"""Nested random parts of a table, which stand for tables of other sizes, and the ground truth in each."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from pgmrl.measure.exact_neighbours import ExactSearch, read_neighbours
from pgmrl.measure.ground_truth import GroundTruth, kept_neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from pgmrl.measure.exact_neighbours import RowBatch
    from pgmrl.model.shortening import Definition
    from pgmrl.tune.request import TuneRequest

__all__ = ["SMALLEST", "NestedSamples", "nested_truth", "samples_for"]

STEP: Final = 4
"""Each smaller table that is measured has a fourth of the rows of the one before."""

SMALLEST: Final = 20
"""Times k rows: of fewer there is nothing to say."""


@dataclass(frozen=True, slots=True)
class NestedSamples:
    """Nested random parts of a table, numbered from the largest, 0, to the smallest.

    A row belongs to those whose fraction is above a number that only depends on its place and the seed, so that each
    pass sees the same parts without keeping who belongs where (Vitter, "Random sampling with a reservoir", 1985, needs
    to keep them).

    Attributes:
        fractions: of the rows read; falling, the first is 1.
        seed: of the choice.
        largest_index: the number of the largest part that an index is tried on.

    """

    fractions: tuple[float, ...]
    seed: int
    largest_index: int = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self.fractions)

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The smallest part that each row belongs to, shape (n,); it belongs to all larger ones too."""
        drawn = _uniform(places, self.seed)
        return np.asarray((drawn[:, np.newaxis] < np.asarray(self.fractions)).sum(axis=1) - 1)


def samples_for(rows: float, request: TuneRequest, memory: int) -> NestedSamples:
    """Sizes to measure at: what is read, what an index is tried on, and a fourth and a sixteenth of that.

    Args:
        rows: that are read.
        request: for the most rows of an index.
        memory: rows whose graph fits into `maintenance_work_mem`.

    """
    smallest = SMALLEST * request.k
    largest = min(rows, request.graph_rows, max(memory, smallest))
    in_part = largest < 0.8 * rows
    sizes = [rows, largest] if in_part else [rows]
    for step in (STEP, STEP * STEP):
        if sizes[0] / step >= smallest and sizes[-1] / STEP >= smallest:
            sizes.append((largest if in_part else rows) / step)
    return NestedSamples(tuple(size / rows for size in sizes), request.seed, int(in_part))


def nested_truth(
    batches: Generator[RowBatch],
    definition: Definition,
    queries: NDArray[np.float32],
    k: int,
    samples: NestedSamples,
    progress: Callable[[RowBatch], None] | None = None,
) -> list[GroundTruth]:
    """The nearest rows of each query in each part of the table, by one pass.

    Args:
        batches: of the table, by the rows' places; closed at the end.
        definition: of the column.
        queries: as stored, shape (q, dims), float32.
        k: results that count.
        samples: the parts.
        progress: called with each batch.

    Returns:
        One for each part, the largest first.

    """
    search = ExactSearch(definition, queries, kept_neighbours(k), levels=len(samples))

    def numbered() -> Generator[RowBatch]:
        for batch in opened:
            yield replace(batch, levels=samples.of(batch.ids))
            if progress is not None:
                progress(batch)

    with closing(batches) as opened:
        read_neighbours(numbered(), search)
    return [GroundTruth.of(k, search.full(level)) for level in range(len(samples))]


def _uniform(places: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number from 0 to 1 for each place (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = places.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed.astype(np.float64) / 2.0**64
