"""The parts of tuning that need no database: models, selection, ranks, candidates, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.errors import DefinitionError
from pgmrl.measure.ground_truth import GroundTruth
from pgmrl.measure.intervals import Interval
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Definition, Short
from pgmrl.tune.candidates import Candidate, candidates, rotation_axes
from pgmrl.tune.growth_models import Timed, build_growth, fit_growth, fit_latency
from pgmrl.tune.index_trial import Option
from pgmrl.tune.limiting_factor import limiting_factor
from pgmrl.tune.nested_samples import NestedSamples
from pgmrl.tune.selection import cheapest, pareto, reaches, sizes_for
from pgmrl.tune.short_ranks import ShortRanks
from pgmrl.tune.truncation import Truncation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DEFINITION = Definition.of(768, Short(128))
K = 10


# -- models --------------------------------------------------------------------------------------------------------


def planted(rows: int, exponent: float, base: int = 1_000) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A curve that rises with the shortlist, and is stretched with the table by this exponent."""
    return lambda sizes: 1 - np.exp(-(5 + (np.asarray(sizes) - K) / (rows / base) ** exponent) / 20)


@pytest.mark.parametrize("exponent", [-0.2, 0.0, 0.3, 0.75])
def test_a_planted_growth_is_found(exponent: float) -> None:
    """And predicts the largest size from the two before."""
    sizes = (16_000, 4_000, 1_000)
    found = fit_growth([(rows, planted(rows, exponent)) for rows in sizes], K)
    assert found.exponent == pytest.approx(exponent, abs=0.006)
    assert found.error is not None
    assert found.error < 0.01
    assert found.equivalent(10 + 90 * 10**exponent, 160_000) == pytest.approx(100, rel=0.05)
    assert found.equivalent(K, 160_000) == K


def test_a_growth_that_changes_its_mind_shows() -> None:
    """An exponent of 0 between the small tables and .8 between the large ones."""
    curves = [(16_000, planted(16_000, 0.8, 4_000)), (4_000, planted(4_000, 0)), (1_000, planted(1_000, 0))]
    found = fit_growth(curves, K)
    assert found.exponent == pytest.approx(0.8, abs=0.01)
    assert (found.error or 0) > 0.05


def test_what_says_nothing_changes_nothing() -> None:
    """A curve that is 1 everywhere, and one size alone."""
    ones = [(rows, np.ones_like) for rows in (16_000, 4_000)]
    assert fit_growth(ones, K).exponent == 0
    assert fit_growth(ones, K).error is None
    assert fit_growth(ones[:1], K).equivalent(50, 1_000_000) == 50


def timed(rows: int, noise: float = 0.0) -> list[Timed]:
    """0.1 ms, 2 µs for a row of the shortlist, 4 µs for a candidate in 16,000 rows and 5 % more when rows double."""
    found = []
    for number, (shortlist, ef) in enumerate(((20, 20), (40, 40), (80, 80), (20, 80), (20, 40))):
        ms = 0.1 + 0.002 * shortlist + 0.004 * (1 + 0.05 * np.log2(rows / 16_000)) * ef
        found.append(Timed(rows, shortlist, ef, ms * (1 + noise * (-1) ** number)))
    return found


def test_latency_is_fitted_and_checked() -> None:
    """Terms, their growth, and what the small tables would have said of the large one."""
    found = fit_latency([*timed(16_000), *timed(4_000), *timed(1_000)])
    assert (found.fixed, found.ranked, found.visited) == pytest.approx((0.1, 0.002, 0.004), rel=1e-6)
    assert found.deeper == pytest.approx(0.05, rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.ms(100, 100, 160_000) == pytest.approx(0.1 + 0.2 + 0.4 * (1 + 0.05 * np.log2(10)))


def test_latency_with_noise_has_no_negative_terms() -> None:
    """However the noise falls."""
    for noise in (-0.3, 0.3):
        found = fit_latency([*timed(16_000, noise), *timed(4_000)])
        assert min(found.fixed, found.ranked, found.visited, found.deeper) >= 0
        assert found.ms(40, 40, 16_000) == pytest.approx(0.34, rel=0.4)
        assert found.error is None  # two sizes: nothing to check with


def test_a_build_grows_a_little_faster_than_its_rows() -> None:
    """By rows * log(rows)."""
    assert build_growth(1_000, 1_000) == 1
    assert build_growth(2**10, 2**20) == 2**10 * 2
    assert build_growth(1, 10) == 10


# -- choice --------------------------------------------------------------------------------------------------------


def option(recall: float, ms: float, size: int, build: float | None = 1.0, low: float | None = None) -> Option:
    """One setting."""
    interval = Interval(recall, recall - 0.01 if low is None else low, min(1.0, recall + 0.01))
    return Option(Candidate(DEFINITION, Hnsw()), 40, 40, interval, ms, size, build)


def test_the_interval_must_reach_the_target() -> None:
    """Not the mean; where nothing at all was missed, that will do."""
    assert not reaches(Interval(0.955, 0.949, 0.96), 0.95)
    assert reaches(Interval(0.955, 0.95, 0.96), 0.95)
    assert reaches(Interval(1.0, 0.998, 1.0), 1.0)


def test_the_cheapest() -> None:
    """By latency; of what is level the smaller; or by size, or by build."""
    slow, fast, level, missed = (
        option(0.99, 2.0, 10, 9.0),
        option(0.97, 1.0, 50, 3.0),
        option(0.97, 1.04, 30, 5.0),
        option(0.955, 0.5, 5, 1.0),
    )
    every = [slow, fast, level, missed]
    assert cheapest(every, 0.95, "latency") is level
    assert cheapest([slow, fast, missed], 0.95, "latency") is fast
    assert cheapest(every, 0.95, "size") is slow
    assert cheapest(every, 0.95, "build") is fast
    assert cheapest(every, 0.999, "latency") is None
    assert cheapest([], 0.5, "latency") is None


def test_the_front() -> None:
    """What another beats in all three is not on it, nor what is level."""
    best, beaten, smaller, better, level = (
        option(0.95, 1.0, 50),
        option(0.94, 1.1, 50),
        option(0.94, 1.2, 30),
        option(0.97, 1.3, 60),
        option(0.951, 1.05, 50),
    )
    assert pareto([better, smaller, beaten, best, level]) == [best, smaller, better]


def test_shortlists_to_try() -> None:
    """From k to the longest, both included."""
    assert sizes_for(10, 40) == [10, 12, 15, 20, 25, 30, 40]
    assert sizes_for(7, 22)[:2] == [7, 8]
    assert sizes_for(7, 22)[-1] == 22
    assert sizes_for(1000) == [1000]


# -- ranks ---------------------------------------------------------------------------------------------------------


def ranks(nearer: list[list[int]], equal: list[list[int]], rows: int = 1_000, k: int = 2) -> ShortRanks:
    """Of neighbours that stand behind so many rows, among so many at the same distance."""
    counts = np.array(nearer)
    shape = (len(counts), k + 10)
    distances = np.full(shape, 9.0)
    distances[:, : counts.shape[1]] = 0.1
    truth = GroundTruth(k, distances, np.zeros(shape, np.int64), rows)
    found = ShortRanks.empty(truth)
    found.nearer[:, : counts.shape[1]] = counts
    found.equal[:, : counts.shape[1]] = equal
    found.thresholds[:, : counts.shape[1]] = 0.5
    return found


def test_recall_by_ranks() -> None:
    """A shortlist holds what stands before its end."""
    found = ranks([[0, 50], [3, 4]], [[1, 1], [1, 1]])
    assert found.per_query(1).tolist() == [0.5, 0]
    assert found.per_query(4).tolist() == [0.5, 0.5]
    assert found.per_query(5).tolist() == [0.5, 1]
    assert found.recall((50, 51)).tolist() == [0.75, 1]


def test_rows_at_the_same_short_distance_share_the_room() -> None:
    """Two neighbours among eight rows that tie, and room for four of these."""
    found = ranks([[0, 0]], [[8, 8]])
    assert found.per_query(4).tolist() == [0.5]
    assert found.per_query(8).tolist() == [1]


def test_more_rows_tie_than_were_kept() -> None:
    """Whichever come are right."""
    found = ranks([[0] * 12], [[500] * 12])
    found.truth.distances[:] = 0.1
    assert found.truth.crowded.tolist() == [True]
    assert found.per_query(2).tolist() == [1]


def test_a_count_in_parts_is_the_count() -> None:
    """Rows of many queries at once; a row that is as near as a neighbour is equal to it."""
    rng = np.random.default_rng(0)
    found = ranks([[0, 0]] * 3, [[0, 0]] * 3)
    found.thresholds[:, :2] = rng.random((3, 2))
    scores = rng.random((3, 400))
    scores[:, 7] = found.thresholds[:, 1]
    query, column = np.nonzero(scores <= 2)
    found.count(query, scores[query, column])
    for number in range(3):
        for neighbour in range(2):
            threshold = found.thresholds[number, neighbour]
            assert found.nearer[number, neighbour] == (scores[number] < threshold).sum()
            assert found.equal[number, neighbour] == (scores[number] == threshold).sum()


# -- why not -------------------------------------------------------------------------------------------------------


def truncation(nearer: int) -> Truncation:
    """A candidate whose neighbours all stand behind so many rows."""
    found = ranks([[nearer, nearer]] * 400, [[1, 1]] * 400, 100_000)
    return Truncation.of(Candidate(DEFINITION, Hnsw()), [found], 0.9)


def test_causes() -> None:
    """Each by what would mend it."""
    assert limiting_factor(None, [truncation(5_000)], 0.9, 100_000, 1_000, rotated=False).cause == "dimensions"
    assert "rotation" in limiting_factor(None, [truncation(5_000)], 0.9, 100_000, 1_000, rotated=False).remedy
    assert "rotation" not in limiting_factor(None, [truncation(5_000)], 0.9, 100_000, 1_000, rotated=True).remedy
    assert limiting_factor(None, [truncation(200)], 0.9, 100_000, 100, rotated=True).cause == "shortlist"
    found = limiting_factor(option(0.7, 1, 1), [truncation(5)], 0.9, 100_000, 1_000, rotated=True)
    assert found.cause == "graph"
    assert "m=16" in found.message
    assert "0.7000" in found.message
    # the scan of ef_search 40 is compared with an exact shortlist of as many
    assert "exact shortlist of 40 " in found.message
    assert "1,000" not in found.message


def test_time_is_a_cause_of_its_own() -> None:
    """Where the sweep ended before the graph could be blamed; not where more time would not help."""
    given: dict[str, Any] = {"rotated": True, "ended": "at ef_search 30"}
    for most in (1_000, 100):
        found = limiting_factor(option(0.7, 1, 1), [truncation(5)], 0.9, 100_000, most, **given)
        assert found.cause == "time"
        assert found.message.startswith("time ran out at ef_search 30; an exact shortlist of 40 keeps")
        assert found.remedy == "give more --seconds"
    assert limiting_factor(option(0.7, 1, 1), [truncation(5_000)], 0.9, 100_000, 1_000, **given).cause == "dimensions"
    assert limiting_factor(option(0.7, 1, 1), [truncation(200)], 0.9, 100_000, 100, **given).cause == "shortlist"


# -- candidates and samples ----------------------------------------------------------------------------------------


def axes(count: int, dims: int = 768) -> Rotation:
    """A rotation."""
    return Rotation.of(np.eye(count, dims))


def test_candidates() -> None:
    """Prefixes and a rotation's leading axes, signs of many dimensions; smallest index first."""
    given: dict[str, Any] = {"rules": ("prefix", "rotation"), "types": ("halfvec", "bit"), "dims": None}
    found = candidates(DEFINITION, Hnsw(), rotation=axes(256), **given)
    titles = [one.title for one in found]
    assert {"prefix 32", "prefix 512", "rotation 256", "prefix 768 bit", "prefix 384 bit"} <= set(titles)
    assert not {"rotation 384", "rotation 768 bit", "prefix 768"} & set(titles)
    sizes = [one.index_bytes(1_000_000) for one in found]
    assert sizes == sorted(sizes)
    assert all(one.rule == "prefix" for one in candidates(DEFINITION, Hnsw(), rotation=None, **given))
    assert rotation_axes(DEFINITION, None) == 256
    assert rotation_axes(DEFINITION, (16, 300)) == 300


def test_candidates_of_few_dimensions() -> None:
    """There is always something to try, unless it was asked for what cannot be."""
    small = Definition.of(16, Short(4))
    given: dict[str, Any] = {"rules": ("prefix",), "rotation": None}
    assert [one.dims for one in candidates(small, Hnsw(), types=("halfvec",), dims=None, **given)] == [15]
    assert [one.dims for one in candidates(small, Hnsw(), types=("halfvec",), dims=(8, 16, 8), **given)] == [8, 16]
    with pytest.raises(DefinitionError, match="1 to 16"):
        candidates(small, Hnsw(), types=("halfvec",), dims=(17,), **given)
    with pytest.raises(DefinitionError, match="nothing to try"):
        candidates(small, Hnsw(), types=("bit",), dims=None, **given)
    wide = Definition.of(16_000, Short(8), full="vector")
    found = candidates(wide, Hnsw(), types=("halfvec", "bit"), dims=None, **given)
    assert {one.dims for one in found if one.type == "bit"} == {8_000, 16_000}


def test_samples_are_nested_random_parts() -> None:
    """The same for the same place and seed, whatever comes with it."""
    places = np.arange(100_000, dtype=np.int64) << 16 | 1
    samples = NestedSamples((1.0, 0.25, 0.0625), 3)
    found = samples.of(places)
    assert [(found >= number).mean() for number in range(3)] == pytest.approx([1, 0.25, 0.0625], abs=0.006)
    assert (samples.of(places[::-1])[::-1] == found).all()
    assert (samples.of(places[500:600]) == found[500:600]).all()
    assert (NestedSamples(samples.fractions, 4).of(places) != found).any()
    blocks = np.array([found[start : start + 1_000].mean() for start in range(0, 100_000, 1_000)])
    assert blocks.std() < 0.04
