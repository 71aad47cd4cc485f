"""Measures against values computed by hand, differences against what they must be."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from pgmrl.errors import MeasureError
from pgmrl.evaluation.compare import difference, mean_of
from pgmrl.evaluation.measures import Scorer, parsed

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
