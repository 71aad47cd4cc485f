"""The models' error as a part of the interval, and how much of a table is read in the time there is."""

from __future__ import annotations

import numpy as np
import pytest

from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.tune.candidates import Candidate
from pgmrl.tune.growth_models import Growth
from pgmrl.tune.table_passes import PassCost
from pgmrl.tune.truncation import Truncation

CANDIDATE = Candidate(Definition.of(768, Short(128)), Hnsw())


def truncation(exponent: float, error: float | None) -> Truncation:
    """A recall that rises with the logarithm of the shortlist, of 1,000 and 250 rows."""
    curves = [(rows, lambda sizes: np.log10(sizes) / 4) for rows in (1_000, 250)]
    return Truncation(CANDIDATE, [], curves, Growth(exponent, 1_000, 10, error), 0.8)


def test_what_was_measured_has_no_model_error() -> None:
    """Nor has a table that is hardly larger."""
    assert truncation(0.5, 0.02).model_error(100, 1_000) == 0
    assert truncation(0.5, 0.02).model_error(100, 1_200) == 0


@pytest.mark.parametrize(("rows", "steps"), [(2_000, 1.0), (4_000, 1.0), (16_000, 2.0), (8_000, 1.5)])
def test_the_error_grows_with_the_steps(rows: int, steps: float) -> None:
    """One step is from the second largest table to the largest; less than one counts as one."""
    assert truncation(0.5, 0.02).model_error(100, rows) == pytest.approx(0.02 * steps)


def test_a_model_that_was_not_checked_may_be_all_wrong() -> None:
    """Its error is as much as it makes out."""
    unchecked = truncation(0.5, None)
    change = abs(unchecked.recall(100, 4_000) - unchecked.recall(100, 1_000))
    assert change > 0.05
    assert unchecked.model_error(100, 4_000) == pytest.approx(change)


def test_fewer_queries_cost_less_but_reading_stays() -> None:
    """Three readings of the table, its short vectors, and the comparisons with this share of the queries."""
    cost = PassCost(read=1e-5, shorten=2e-5, compare=4e-5, ranks=4.0, busy=1.0)
    assert cost.seconds(100_000, 1.0) == pytest.approx(3 * 1 + 2 + 4 * 5)
    assert cost.seconds(100_000, 0.25) == pytest.approx(3 * 1 + 2 + 5)
