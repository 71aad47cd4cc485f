"""The passes over the table: how much of it there is time for, the truth, and what each candidate would lose."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pgmrl.measure.pairwise_scores import PairwiseScores
from pgmrl.model.rotation import Rotation
from pgmrl.tune.candidates import candidates, rotation_axes
from pgmrl.tune.growth_models import build_growth
from pgmrl.tune.nested_samples import SMALLEST, NestedSamples, nested_truth
from pgmrl.tune.short_ranks import count_short_ranks
from pgmrl.tune.truncation import Truncation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.exact_neighbours import RowBatch
    from pgmrl.measure.ground_truth import GroundTruth
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.request import TuneRequest
    from pgmrl.tune.time_budget import TimeBudget
    from pgmrl.tune.tuning_inputs import TuningInputs

    Report = Callable[[str, int, int], None]

__all__ = [
    "LearningRows",
    "PassCost",
    "choose_extent",
    "expected_seconds",
    "measured_cost",
    "read_truncations",
    "read_truths",
]

PASSES: Final = 3
"""Times that the table is read: for the truth, for the ranks, and for the short vectors of trials."""

SHARE: Final = 0.4
"""Of the time that there is, so much may go into the passes."""

NEARLY_ALL: Final = 0.8
"""From this share of the rows on all are read: it saves little, and of a sample the index there is tells nothing."""

FEWEST: Final = 400
"""Queries, half of which choose and half check: of fewer recall is not known well enough to choose by."""

FEWEST_SWEPT: Final = 200
"""Where the column has an index: fewer queries sweep that, more would extrapolate from a part of the rows."""

SHORTENED: Final = 2_048  # rows whose short vectors are computed to know how long that takes
BATCHES: Final = 2  # whose time tells that of the others
OVERHEAD: Final = 100  # dimensions that take as long as what comparing short vectors takes besides

BUILD_SECONDS: Final = 0.25e-3  # for each row of 100,000, of m=16 and ef_construction=100: about, of the first guess
SCAN_SECONDS: Final = 6e-6  # likewise for each candidate of a scan
SCANS: Final = 300 * 1_500  # queries, and the sum of ef_search that they are scanned with


class PassCost(NamedTuple):
    """What a pass takes.

    Attributes:
        read: seconds for each row, to read it.
        shorten: seconds for each row, to compute its short vectors of all candidates, and once more of the finalists.
        compare: seconds for each row, to compare it with all queries, by full vectors.
        ranks: how many times as long as that the short vectors of all candidates take.
        busy: how many times as long as on an idle machine all of this took.

    """

    read: float
    shorten: float
    compare: float
    ranks: float
    busy: float

    @property
    def row(self) -> float:
        """Seconds for each row, however many queries there are."""
        return PASSES * self.read + self.shorten

    def seconds(self, rows: float, queries: float) -> float:
        """All passes, over so many rows, with this share of the queries."""
        return rows * (self.row + queries * self.compare * (1 + self.ranks))


@dataclass(slots=True)
class LearningRows:
    """Rows to learn a rotation from, of those that pass by.

    Attributes:
        samples: the second part of them is what is learned from.
        parts: vectors of those rows.

    """

    samples: NestedSamples
    parts: list[NDArray[np.float16 | np.float32]] = field(default_factory=list)

    def add(self, batch: RowBatch, kind: str) -> None:
        """Take what belongs to the sample."""
        part = self.samples.fractions[1] < 1
        chosen = batch.vectors[self.samples.of(batch.ids) > 0] if part else batch.vectors
        self.parts.append(chosen.astype(np.float16 if kind == "halfvec" else np.float32))


# -- how much ------------------------------------------------------------------------------------------------------


def choose_extent(
    inputs: TuningInputs, request: TuneRequest, budget: TimeBudget, cost: PassCost | None
) -> PassCost | None:
    """How many queries to ask, and how many rows to read: as was asked for, and as there is time for.

    Fewer queries widen the interval; fewer rows leave recall to a model. So rows are left out last.

    Args:
        inputs: what is tuned; rows and queries are left out there.
        request: how many were asked for.
        budget: the time there is.
        cost: of the passes; None where time does not matter.

    Returns:
        The cost with the queries that are left.

    """
    share = min(1.0, request.rows / max(1, inputs.rows))
    if share >= NEARLY_ALL:
        share = 1.0
    if budget.left is not None and cost is not None:
        count, seconds = len(inputs.queries), max(0.0, SHARE * budget.left)
        rows = share * inputs.rows
        if cost.seconds(rows, 1.0) > seconds:
            of_queries = (seconds / max(1.0, rows) - cost.row) / (cost.compare * (1 + cost.ranks))
            swept = inputs.current is not None and inputs.current.index_bytes is not None
            kept = min(count, max(FEWEST_SWEPT if swept else FEWEST, int(of_queries * count)))
            if kept < count:
                inputs.keep_queries(kept)
                inputs.incomplete.append(f"{kept:,} of {count:,} queries were tried")
            least = SMALLEST * request.k / max(1, inputs.rows)  # of fewer rows there is nothing to say
            share = min(share, max(least, share * seconds / max(1e-9, cost.seconds(rows, kept / count))))
            share = 1.0 if share >= NEARLY_ALL else share
            cost = cost._replace(compare=cost.compare * kept / count)
    if share < 1:
        inputs.table.percent = max(1e-4, 100 * share)
        inputs.incomplete.append(
            f"a random {100 * share:.3g} % of the rows were read, and recall scaled to all of them by the model"
        )
    return cost


def measured_cost(inputs: TuningInputs, request: TuneRequest) -> PassCost:
    """By the time of the first batches."""
    reading, rows, started, worked = 0.0, 0, time.perf_counter(), time.process_time()
    batch = None

    def first() -> Generator[RowBatch]:
        nonlocal reading, rows, batch
        with closing(inputs.table.batches(len(inputs.queries))) as batches:
            for _ in range(BATCHES):
                begun = time.perf_counter()
                following = next(batches, None)
                reading += time.perf_counter() - begun
                if following is None:
                    return
                batch = following
                rows += len(batch)
                yield batch

    nested_truth(first(), inputs.definition, inputs.queries, request.k, NestedSamples((1.0,), request.seed))
    whole, dims = time.perf_counter() - started, inputs.definition.dims
    tried = _like_those_tried(inputs, request)
    shorten = 0.0 if batch is None else _shorten_seconds(tried, batch.vectors[:SHORTENED])
    elapsed, worked = time.perf_counter() - started, time.process_time() - worked
    return PassCost(
        read=reading / max(1, rows),
        shorten=shorten * (1 + (request.finalists + 1) / len(tried)),
        compare=max(1e-9, (whole - reading) / max(1, rows)),
        ranks=sum(candidate.dims + OVERHEAD for candidate in tried) / dims / 2,  # half of the queries choose
        busy=max(1.0, (elapsed - reading) / max(1e-9, worked)),
    )


def _like_those_tried(inputs: TuningInputs, request: TuneRequest) -> list[Candidate]:
    """As many as will be tried, of the same dimensions: by any rotation, since none has been learned."""
    axes = rotation_axes(inputs.definition, request.dims) if "rotation" in request.by else 0
    rotation = Rotation.of(np.eye(axes, inputs.definition.dims, dtype=np.float16)) if axes else None
    numbers: dict[str, Any] = {"types": request.types, "dims": request.dims, "rotation": rotation}
    return candidates(inputs.definition, inputs.index, rules=request.by, **numbers)


def _shorten_seconds(tried: Sequence[Candidate], vectors: NDArray[np.float32]) -> float:
    """For each row, to compute the short vectors of all candidates."""
    started = time.perf_counter()
    for candidate in tried:
        PairwiseScores.short(candidate.definition).prepared(candidate.swept.shorten(vectors))
    return (time.perf_counter() - started) / max(1, len(vectors))


def expected_seconds(
    inputs: TuningInputs, request: TuneRequest, budget: TimeBudget, cost: PassCost, samples: NestedSamples
) -> float:
    """About how long it will take, by the time of the first batches and what builds usually take."""
    passes = cost.seconds(inputs.read, 1.0)
    rows = inputs.read * samples.fractions[samples.largest_index]
    effort = inputs.index.m / 16 * inputs.index.ef_construction / 100
    build = BUILD_SECONDS * 100_000 * effort * build_growth(100_000, rows)
    # a fourth and a sixteenth of the rows too
    trials = cost.busy * request.finalists * (1.3 * build + 2 * SCANS * SCAN_SECONDS)
    expected = budget.elapsed + passes + trials
    return expected if budget.seconds is None else min(expected, budget.seconds)


# -- what is read --------------------------------------------------------------------------------------------------


def read_truths(
    inputs: TuningInputs, request: TuneRequest, samples: NestedSamples, learning: LearningRows, report: Report
) -> list[GroundTruth]:
    """The truth of all queries in each part of the table; on the way, rows to learn a rotation from."""
    expected = round(inputs.read)
    rows = 0

    def read(batch: RowBatch) -> None:
        nonlocal rows
        rows += len(batch)
        if "rotation" in request.by:
            learning.add(batch, inputs.definition.full)
        report("exact search", min(rows, expected), expected)

    batches = inputs.table.batches(len(inputs.queries))
    return nested_truth(batches, inputs.definition, inputs.queries, request.k, samples, read)


def read_truncations(
    inputs: TuningInputs,
    request: TuneRequest,
    samples: NestedSamples,
    truths: Sequence[GroundTruth],
    tried: Sequence[Candidate],
    report: Report,
) -> list[Truncation]:
    """What each candidate loses by shortening in each part of the table, by the queries that choose."""
    rows = 0

    def read(batch: RowBatch) -> None:
        nonlocal rows
        rows += len(batch)
        report(f"{len(tried)} ways to shorten", rows, truths[0].rows)

    own = [truth.of_queries(slice(0, inputs.tuned)) for truth in truths]
    ranks = count_short_ranks(inputs.table, tried, inputs.tuning, own, samples, read)
    floor = min(0.9, request.recall)
    return [Truncation.of(candidate, tables, floor) for candidate, tables in zip(tried, ranks, strict=True)]
