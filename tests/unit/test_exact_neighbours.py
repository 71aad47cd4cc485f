"""Exact neighbours by one pass, against a full sort: metrics, batches of every size, ties, single precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.errors import MeasureError
from pgmrl.measure import exact_neighbours
from pgmrl.measure.exact_neighbours import ExactSearch, RowBatch, read_neighbours
from pgmrl.measure.ground_truth import GroundTruth, kept_neighbours
from pgmrl.measure.pairwise_scores import PairwiseScores
from pgmrl.measure.recall_by_distance import tie_ranks
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Definition, Prefix, Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pgmrl.measure.neighbour_lists import Neighbours
    from pgmrl.model.metrics import MetricName, ShortType

METRIC_NAMES: list[Any] = list(METRICS)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Random vectors of numbers that half precision holds, as any column stores them."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16).astype(np.float32)


def batches(rows: NDArray[np.float32], size: int, **parts: Any) -> Iterator[RowBatch]:
    """So many rows at a time, labelled by their numbers, with more of each."""
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        ids = np.arange(part.start, part.stop)
        labels = [f"d{number}" for number in ids.tolist()]
        yield RowBatch(ids, rows[part], labels, **{name: values[part] for name, values in parts.items()})


def dense(definition: Definition, rows: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """The distance of every pair, infinite where there is none; rows as they are stored."""
    found = np.stack([definition.metric.distances(rows, query) for query in definition.stored(queries)])
    return np.where(np.isnan(found), np.inf, found)


def assert_nearest(found: Neighbours, distances: NDArray[np.float64]) -> None:
    """The rows found are as near as the nearest of a full sort, each with its own distance, nearest first."""
    size = found.ids.shape[1]
    for ids, near, truth in zip(found.ids, found.distances, distances, strict=True):
        known = ids >= 0
        assert len(set(ids[known].tolist())) == known.sum() == min(size, np.isfinite(truth).sum())
        np.testing.assert_allclose(near[known], truth[ids[known]], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(near[known], np.sort(truth)[: known.sum()], rtol=1e-12, atol=1e-12)
        assert not known[known.sum() :].any()
        assert np.isinf(near[~known]).all()


# -- scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_scores_order_as_distances(metric: MetricName) -> None:
    """Of any metric; under cosine a zero vector is infinitely far."""
    rows, queries = normal(50, 16), normal(3, 16, seed=1)
    definition = Definition.of(16, Short(4), metric, "vector")
    scores = PairwiseScores.full(definition)
    prepared = scores.prepared(queries), scores.prepared(rows)
    found = scores.scores(*prepared)
    distances = dense(definition, rows, queries)
    assert np.argsort(found, axis=1).tolist() == np.argsort(distances, axis=1).tolist()
    rounding = scores.rounding(prepared[0], float(prepared[1].squares.max()))
    for number in range(50):
        exact = scores.score_of(distances[:, number], prepared[0])
        assert (np.abs(exact - found[:, number]) <= rounding).all()
    if metric == "cosine":
        zero = scores.scores(prepared[0], scores.prepared(np.zeros((1, 16), np.float32)))
        assert np.isinf(zero).all()


def test_scores_of_bits_are_hamming_distances() -> None:
    """An affine function of them, exactly."""
    rng = np.random.default_rng(2)
    rows, queries = rng.random((40, 64)) > 0.5, rng.random((2, 64)) > 0.5
    scores = PairwiseScores("hamming")
    prepared = scores.prepared(queries), scores.prepared(rows)
    hamming = np.array([[(row != query).sum() for row in rows] for query in queries])
    assert (scores.scores(*prepared) == scores.score_of(hamming.astype(float), prepared[0])).all()
    pairs = np.array([0, 1, 1]), np.array([3, 0, 39])
    assert scores.distances(queries, rows, *pairs).tolist() == hamming[pairs].tolist()


@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("dims", [1, 16, 3_000])
def test_rounding_bounds_what_single_precision_loses(metric: MetricName, dims: int) -> None:
    """However long the vectors, and however many dimensions they have."""
    lengths = np.geomspace(0.01, 100, 500)[:, None].astype(np.float32)
    rows, queries = normal(500, dims) * lengths, normal(5, dims, seed=1)
    scores = PairwiseScores(metric)
    single = [scores.prepared(vectors) for vectors in (queries, rows)]
    double = [scores.prepared(vectors, np.float64) for vectors in (queries, rows)]
    off = np.abs(scores.scores(*single) - scores.scores(*double)).max(axis=1)
    assert (off <= scores.rounding(single[0], float(single[1].squares.max()))).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e15, 1e18])
@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_values_whose_squares_single_precision_does_not_hold(metric: MetricName, scale: float) -> None:
    """Are compared in double precision."""
    rows, queries = normal(300, 8) * np.float32(scale), normal(4, 8, seed=1) * np.float32(scale)
    definition = Definition.of(8, Short(4), metric, "vector")
    search = ExactSearch(definition, queries, 12)
    read_neighbours(batches(rows, 50), search)
    distances = dense(definition, rows, queries)
    for ids, truth in zip(search.full().ids, distances, strict=True):
        assert set(ids.tolist()) == set(np.argsort(truth)[:12].tolist())


# -- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("kind", ["halfvec", "vector", "bit"])
@pytest.mark.parametrize("full", ["halfvec", "vector"])
def test_lists_are_those_of_a_full_sort(metric: MetricName, kind: ShortType, full: Any) -> None:
    """In many small batches, so that lists fill up and let go, and with rows that cannot be found."""
    rows, queries = normal(3_000, 12), normal(7, 12, seed=1)
    rows[::100] = 0
    definition = Definition.of(12, Short(5, Prefix(), kind), metric, full)
    other = Definition.of(12, Short(9, Prefix(), kind), metric, full)
    search = ExactSearch(definition, queries, 20, shortenings=[definition, other], shortlist=50)
    assert read_neighbours(batches(rows, 130), search) == 3_000
    distances = dense(definition, rows, queries)
    assert_nearest(search.full(), distances)
    for number, short in enumerate((definition, other)):
        scores = PairwiseScores.short(short)
        near = np.stack(
            [
                scores.distances(
                    short.shorten(queries),
                    short.shorten(rows),
                    np.full(3_000, query),
                    np.arange(3_000),
                )
                for query in range(7)
            ]
        )
        found = search.short(number)
        assert_nearest(found, np.where(np.isfinite(distances), near, np.inf))
        np.testing.assert_allclose(found.full, np.take_along_axis(distances, found.ids, axis=1), rtol=1e-12)
    for found in (search.full(), search.short(0), search.short(1)):
        assert all(search.labels[number] == f"d{number}" for number in np.unique(found.ids).tolist())


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_batches_of_every_size_and_every_remainder(metric: MetricName) -> None:
    """Whatever is left for the last batch, and whichever nested table has no row in it."""
    rows, queries = normal(37, 6), normal(3, 6, seed=1)
    definition = Definition.of(6, Short(3), metric)
    levels = np.random.default_rng(0).integers(0, 4, len(rows))
    distances = dense(definition, rows, queries)
    for size in range(1, len(rows) + 2):
        search = ExactSearch(definition, queries, 5, shortenings=[definition], shortlist=5, levels=4)
        read_neighbours(batches(rows, size, levels=levels), search)
        for level in range(4):
            found = search.full(level)
            assert found.rows == (levels >= level).sum()
            assert_nearest(found, np.where(levels >= level, distances, np.inf))


@pytest.mark.parametrize("last", [[0, 0, 0], [0, 1, 0], [2, 2, 2], []])
def test_a_last_batch_without_a_row_of_the_smallest_table(last: list[int]) -> None:
    """Or of any."""
    rows, queries = normal(40 + len(last), 6), normal(2, 6, seed=1)
    levels = np.array([*[0, 1, 2, 2] * 10, *last])
    definition = Definition.of(6, Short(3))
    search = ExactSearch(definition, queries, 4, levels=3)
    read_neighbours(batches(rows, 40, levels=levels), search)
    distances = dense(definition, rows, queries)
    for level in range(3):
        assert_nearest(search.full(level), np.where(levels >= level, distances, np.inf))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_fewer_rows_than_are_looked_for(rows: int) -> None:
    """Or none: the rest of the list is empty."""
    definition = Definition.of(6, Short(3))
    search = ExactSearch(definition, normal(2, 6), 4, shortenings=[definition], shortlist=4)
    assert read_neighbours(batches(normal(rows, 6, seed=1), 2), search) == rows
    for found in (search.full(), search.short()):
        assert (found.ids >= 0).sum(axis=1).tolist() == [rows, rows]
    truth = GroundTruth.of(2, search.full())
    assert truth.counts.tolist() == [min(2, rows)] * 2
    assert truth.neighbours.sum(axis=1).tolist() == [min(2, rows)] * 2


def test_a_query_is_not_its_own_neighbour() -> None:
    """In no list, and queries that are no row of the table lose nothing."""
    rows = normal(200, 8)
    definition = Definition.of(8, Short(4))
    chosen = {0: 17, 2: 150}  # the second query's own row is filtered out
    queries = rows[[17, 60, 150]]
    others = np.delete(rows, 60, axis=0)

    def own() -> Iterator[RowBatch]:
        for batch in batches(others, 30):
            at = {query: np.flatnonzero((batch.vectors == rows[row]).all(axis=1)) for query, row in chosen.items()}
            pairs = [(query, place) for query, places in at.items() for place in places.tolist()]
            query, place = (np.array(part, np.int64) for part in zip(*pairs, strict=True)) if pairs else (None, None)
            yield RowBatch(batch.ids, batch.vectors, own=None if query is None or place is None else (query, place))

    search = ExactSearch(definition, queries, 6, shortenings=[definition], shortlist=6)
    read_neighbours(own(), search)
    assert search.own_seen.tolist() == [True, False, True]
    distances = dense(definition, others, queries)
    distances[[0, 2], [17, 149]] = np.inf
    assert_nearest(search.full(), distances)
    assert not {17, 149} & set(search.short().ids[[0, 2], :].ravel().tolist())


def test_short_vectors_as_they_are_stored() -> None:
    """Not as they would be computed; rows without one are in no shortlist."""
    rows, queries = normal(90, 8), normal(4, 8, seed=1)
    definition = Definition.of(8, Short(4), "l2", "vector")
    stored = normal(90, 4, seed=2)
    there = np.arange(90) % 3 > 0
    search = ExactSearch(definition, queries, 5, shortenings=[definition], shortlist=80)
    read_neighbours(batches(rows, 20, shorts=stored, shortened=there), search)
    near = np.stack([np.linalg.norm(stored.astype(np.float64) - query, axis=1) for query in queries[:, :4]])
    assert_nearest(search.short(), np.where(there, near, np.inf))
    assert_nearest(search.full(), dense(definition, rows, queries))


def test_going_on_with_fewer_queries() -> None:
    """The last ones are given up, and nothing changes for the others; those that are rows are left out of it too."""
    rows, queries = normal(300, 8), normal(9, 8, seed=1)
    last = np.array([8]), np.array([0])
    definition = Definition.of(8, Short(4))
    search = ExactSearch(definition, queries, 5, shortenings=[definition], shortlist=20)
    for number, batch in enumerate(batches(rows, 60)):
        search.add(replace(batch, own=last))
        search.drop(9 - number)
    assert not search.own_seen.any()
    assert search.queries == 5
    assert_nearest(search.full(), dense(definition, rows, queries[:5]))


# -- ties ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_copies_of_a_row_are_at_the_same_distance(metric: MetricName) -> None:
    """A matrix product gives the last bits of equal rows differently; searches see them as equal."""
    rows = np.repeat(normal(40, 96, seed=1), 5, axis=0)
    definition = Definition.of(96, Short(16), metric, "vector")  # sums of halves are exact
    queries = rows[:35:5]  # seven: numbers that do not fill the processor's registers are added in another order
    search = ExactSearch(definition, queries, 200)
    read_neighbours(batches(rows, 33), search)
    found = search.full()
    for ids, distances in zip(found.ids, found.distances, strict=True):
        ranks = tie_ranks(distances)
        assert len(np.unique(ranks)) == len(np.unique(ids // 5)) == 40


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_all_rows_alike(metric: MetricName) -> None:
    """Each is as near as any other: the lists are full of them, and the truth says that more would do."""
    rows = np.tile(np.linspace(0.1, 1, 8, dtype=np.float32), (500, 1))
    definition = Definition.of(8, Short(4), metric)
    search = ExactSearch(definition, normal(3, 8), kept_neighbours(4), shortenings=[definition], shortlist=9)
    read_neighbours(batches(rows, 64), search)
    truth = GroundTruth.of(4, search.full())
    assert truth.crowded.all()
    assert truth.neighbours.all()
    assert (search.short().ids >= 0).all()


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_rows_that_single_precision_cannot_tell_apart(metric: MetricName) -> None:
    """A common part a hundred thousand times as large as the differences: double precision decides."""
    rows, queries = (normal(2_000, 16) * np.float32(1e-5), normal(5, 16, seed=1) * np.float32(1e-5))
    rows, queries = rows + np.float32(1), queries + np.float32(1)
    definition = Definition.of(16, Short(4), metric, "vector")
    search = ExactSearch(definition, queries, 10)
    read_neighbours(batches(rows, 300), search)
    distances = dense(definition, rows, queries)
    for ids, truth in zip(search.full().ids, distances, strict=True):
        np.testing.assert_allclose(np.sort(truth[ids]), np.sort(truth)[:10], rtol=0, atol=1e-14)


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "kept"), [(1_000, 100), (60, 50), (11, None)])
def test_queries_are_given_up_where_there_is_no_time_for_all(
    deadline: float, kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that the first rows took, ten seconds, of all that will come; the last queries first."""
    clock = iter([0.0, *range(10, 20)])
    monkeypatch.setattr(exact_neighbours, "monotonic", lambda: next(clock))
    rows, queries = normal(100, 8), normal(100, 8, seed=1)
    definition = Definition.of(8, Short(4), "l2", "vector")
    search = ExactSearch(definition, queries, 5)
    if kept is None:
        with pytest.raises(MeasureError, match="reading the table for 100 queries takes about 100 s"):
            read_neighbours(batches(rows, 10), search, expected=100, deadline=deadline)
        return
    assert read_neighbours(batches(rows, 10), search, expected=100, deadline=deadline) == 100
    assert search.queries == kept
    assert_nearest(search.full(), dense(definition, rows, queries[:kept]))
