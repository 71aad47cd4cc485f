"""Measures against values computed by hand, lists against a full sort, differences against what they must be."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.errors import MeasureError
from pgmrl.evaluation.compare import difference, mean_of
from pgmrl.evaluation.measures import Scorer, parsed
from pgmrl.evaluation.nearest import CELLS, nearest
from pgmrl.measure.distances import distances, short_space
from pgmrl.model.shortening import Definition, Prefix, Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pgmrl.model.metrics import MetricName, ShortType

RELEVANCE = {"q": {"a": 2, "b": 1, "c": 0, "gone": 1}, "empty": {"a": 1}}
RUN = {"q": ["c", "b", "unjudged", "a"]}


def test_measures_are_as_computed_by_hand() -> None:
    """Ranks 2 and 4 are relevant, of three relevant documents; a query that finds nothing counts 0."""
    names = ["nDCG@10", "RR@10", "P@4", "R@4", "AP", "P(rel=2)@4", "nDCG@2"]
    found = Scorer(measures := parsed(names), RELEVANCE).values(
        {one.depth: {query: ids[: one.depth] for query, ids in RUN.items()} for one in measures}
    )
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    by_hand = {
        "nDCG@10": (1 / math.log2(3) + 2 / math.log2(5)) / ideal,
        "RR@10": 1 / 2,
        "P@4": 2 / 4,
        "R@4": 2 / 3,
        "AP": (1 / 2 + 2 / 4) / 3,
        "P(rel=2)@4": 1 / 4,
        "nDCG@2": (1 / math.log2(3)) / (2 + 1 / math.log2(3)),
    }
    assert {name: values.tolist() for name, values in found.items()} == {
        name: pytest.approx([value, 0]) for name, value in by_hand.items()
    }


def test_the_order_counts_and_not_the_documents_names() -> None:
    """trec_eval puts documents of one score in reverse order of their names: no two may have one."""
    measures = parsed(["P@1"])
    for first, second, value in (("a", "b", 1.0), ("b", "a", 0.0)):
        run = {1: {"q": [first, second]}}
        assert Scorer(measures, {"q": {"a": 1}}).values(run)["P@1"].tolist() == [value]


def test_aliases_are_one_measure() -> None:
    """MRR is RR, MAP is AP; a measure without a cutoff looks at a hundred rows."""
    assert [(one.name, one.depth) for one in parsed(["MRR@10", "RR@10", "MAP", "Success@20"])] == [
        ("RR@10", 10),
        ("AP", 100),
        ("Success@20", 20),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "'nope' is no measure"),
        ("nDCG@ten", "is no measure"),
        ("", "is no measure"),
        ("nDCG@0", "the cutoff is a whole number, at least 1"),
        ("nDCG@-3", "is no measure"),
        ("P@10.5", "at least 1"),
        ("P", "'P' cannot be computed here"),
        ("alpha_nDCG@10", "cannot be computed here: Unsupported"),
        ("Accuracy@5", "has no value for a query that finds nothing"),
    ],
)
def test_what_is_no_measure_is_refused(name: str, message: str) -> None:
    """Also what would end the process inside trec_eval."""
    with pytest.raises(MeasureError, match=message):
        parsed([name])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to install it."""
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MeasureError, match=r"pip install 'pgmrl\[evaluate\]'"):
        parsed(["nDCG@10"])


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("kind", ["halfvec", "bit"])
def test_lists_are_those_of_a_full_sort(metric: MetricName, kind: ShortType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many small batches, so that lists fill up and let go, and with rows that cannot be found."""
    monkeypatch.setattr(sys.modules["pgmrl.evaluation.nearest"], "SLACK", 0)
    random = np.random.default_rng(4)
    rows = random.normal(size=(3_000, 12)).astype(np.float32)
    rows[::100] = 0
    queries = random.normal(size=(7, 12)).astype(np.float32)
    definition = Definition.of(12, Short(5, Prefix(), kind), metric)

    def batches(size: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        assert size <= CELLS
        for start in range(0, len(rows), 130):
            part = rows[start : start + 130]
            yield [f"d{n}" for n in range(start, start + len(part))], part

    found = nearest(batches, definition, queries, [definition], depth=20, shortlist=50, estimate=3_000)
    assert (found.count, found.queries) == (3_000, 7)
    full = distances(definition.metric, definition.stored(rows), definition.stored(queries))
    space, prepare = short_space(definition)
    near = np.where(np.isfinite(full), distances(space, prepare(rows), prepare(queries)), np.inf)
    for lists, truth, size in ((found.full, full, 20), (found.short[0], near, 50)):
        for query, (own, _, _) in enumerate(lists.each()):
            assert len(own) == len(set(own.tolist())) == size
            assert np.sort(truth[query, own]) == pytest.approx(np.sort(truth[query])[:size])
            assert all(found.names[row] == f"d{row}" for row in own.tolist())


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_copies_of_a_row_are_at_the_same_distance(metric: MetricName) -> None:
    """A matrix product gives the last bits of equal rows differently; searches see them as equal."""
    rows = np.repeat(np.random.default_rng(1).normal(size=(40, 96)), 5, axis=0).astype(np.float32)
    given = [(list(map(str, range(start, start + 33))), rows[start : start + 33]) for start in range(0, 200, 33)]
    definition = Definition.of(96, Short(16), metric, "vector")  # sums of halves are exact
    queries = rows[:35:5]  # seven: numbers that do not fill the processor's registers are added in another order
    found = nearest(lambda _: given, definition, queries, [], depth=100, shortlist=100, estimate=1)
    for own, steps, _ in found.full.each():
        assert len(np.unique(steps)) == len(np.unique(own // 5)) == 40


@pytest.mark.parametrize(("deadline", "kept"), [(1_000, 100), (60, 50), (11, None)])
def test_queries_are_given_up_where_there_is_no_time_for_all(
    deadline: float, kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that the first rows took, ten seconds, of all that will come; the last queries first."""
    clock = iter([0.0, *range(10, 20)])
    monkeypatch.setattr(sys.modules["pgmrl.evaluation.nearest"], "monotonic", lambda: next(clock))
    random = np.random.default_rng(2)
    rows, queries = (random.normal(size=(100, 8)).astype(np.float32) for _ in range(2))
    given = [(list(map(str, range(n, n + 10))), rows[n : n + 10]) for n in range(0, 100, 10)]
    definition = Definition.of(8, Short(4), "l2", "vector")
    options: dict[str, Any] = {"depth": 5, "shortlist": 5, "estimate": 100.0, "deadline": deadline}
    if kept is None:
        with pytest.raises(MeasureError, match="reading the table for 100 queries takes about 100 s"):
            nearest(lambda _: given, definition, queries, [], **options)
        return
    found = nearest(lambda _: given, definition, queries, [], **options)
    assert (found.queries, found.count) == (kept, 100)
    truth = distances(definition.metric, rows, queries)
    assert len(list(found.full.each())) == kept
    for query, (own, _, _) in enumerate(found.full.each()):
        assert set(np.argsort(truth[query])[:5].tolist()) <= set(own.tolist())


def test_differences_are_paired() -> None:
    """Two systems that differ by the same on each query differ by that for certain, however far queries spread."""
    exact = np.linspace(0, 0.9, 50)
    found = difference(exact + 0.1, exact)
    assert [found.mean, found.low, found.high] == pytest.approx([0.1, 0.1, 0.1])
    assert (found.better, found.worse) == (50, 0)
    assert found.kept == pytest.approx(0.55 / 0.45)
    none = difference(exact, exact)
    assert (none.mean, none.low, none.high, none.kept, none.kept_low) == (0, 0, 0, 1, 1)
    assert difference(np.ones(3), np.zeros(3)).kept is None


def test_a_bootstrap_interval_is_about_as_wide_as_theory_says() -> None:
    """1.96 standard errors on each side, for many values that are alike."""
    values = np.random.default_rng(0).normal(3, 1, size=400)
    found = difference(values, np.zeros(400))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    counted = mean_of(values)
    assert counted.high - counted.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
