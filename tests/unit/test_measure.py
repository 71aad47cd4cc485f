"""Intervals of a mean recall, and queries of files; no database."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from pgmrl.database.settings import Setting
from pgmrl.errors import DefinitionError, MeasureError, VectorError
from pgmrl.measure import file_queries, mean_interval, vector_queries
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# -- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [20, 50, 200, 1000])
def test_the_interval_holds_the_mean_as_often_as_it_says(queries: int) -> None:
    """Of queries of which some are much harder than others, as real ones are; for k = 1 shares jump, and so does it."""
    rng = np.random.default_rng(0)
    kept = {}
    for mean, alike, k in itertools.product((0.8, 0.95, 0.98, 0.995), (4, 20), (1, 10, 100)):
        found = [
            mean_interval(rng.binomial(k, rng.beta(mean * alike, (1 - mean) * alike, queries)) / k) for _ in range(300)
        ]
        kept[mean, alike, k] = np.mean([one.low <= mean <= one.high for one in found])
    assert 0.95 <= np.mean(list(kept.values())) <= 0.96
    assert min(kept.values()) >= 0.85, kept


@pytest.mark.parametrize("values", [[1.0], [0.0], [0.5], [1.0] * 200, [0.0] * 200, [0.5] * 9, [0.0, 1.0] * 50])
def test_an_interval_lies_within_0_and_1_and_around_its_mean(values: list[float]) -> None:
    """Also where the values do not vary."""
    found = mean_interval(values)
    assert found.mean == np.mean(values)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 0.001


def test_more_queries_narrow_the_interval_and_a_sample_without_a_miss_is_no_certainty() -> None:
    """The more, the closer to 1."""
    lows = [mean_interval([1.0] * n).low for n in (10, 100, 1000)]
    assert lows == sorted(lows)
    assert lows[0] < 0.9 < lows[1] < 0.99 < lows[2] < 1


def test_a_miss_does_not_make_it_surer() -> None:
    """One query more that lost something must not raise the lower end."""
    assert mean_interval([1.0] * 199 + [0.9]).low <= mean_interval([1.0] * 200).low + 0.001
    assert mean_interval([1.0] * 199 + [0.0]).low < mean_interval([1.0] * 200).low


def test_no_values() -> None:
    """There is no mean."""
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


# -- queries -------------------------------------------------------------------------------------------------------


def column() -> Any:
    """Eight dimensions, cosine."""
    table = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("v", Matryoshka(8, Short(4))))
    return table.c.v


def test_vectors_that_cannot_be_searched_with_are_counted() -> None:
    """Zero, zero in the leading dimensions, NULL, not finite. Under cosine one of any other length is scaled."""
    good = np.arange(1.0, 9.0)
    bad = [None, good * 0, np.r_[np.zeros(4), np.ones(4)], good * np.nan, good * np.inf]
    found = vector_queries(column(), [good, *bad, "[1,2,3,4,5,6,7,8]", list(good), good * 2.0**20])
    assert (len(found), found.skipped, found.keys) == (4, 5, None)
    assert found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors[:3], np.stack([good] * 3))
    assert np.array_equal(found.vectors[3] / found.vectors[3, 0], good)
    with pytest.raises(MeasureError, match="of 5 none can be searched with"):
        vector_queries(column(), bad)


@pytest.mark.parametrize("one", [np.ones(7), np.ones((2, 4)), 3.0, "x", {"a": 1}, [1, "b"]])
def test_a_vector_of_another_shape(one: Any) -> None:
    """Is an error that says which."""
    with pytest.raises(VectorError, match="query 2 of given queries"):
        vector_queries(column(), [np.ones(8), one])


def test_files(tmp_path: Path) -> None:
    """NumPy and JSON lines."""
    rows = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    lines = [json.dumps({"id": n, "vector": row.tolist()} if n % 2 else row.tolist()) for n, row in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "", ""]))
    for name in ("a.npy", "a.jsonl"):
        found = file_queries(column(), tmp_path / name)
        assert np.array_equal(found.vectors, rows)
        assert name in found.source
        assert np.array_equal(file_queries(column(), tmp_path / name, limit=2).vectors, rows[:2])
        with pytest.raises(MeasureError, match="0 queries"):
            file_queries(column(), tmp_path / name, limit=0)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda path: path.write_bytes(b"nothing"), "no NumPy array"),
        ("a.npy", lambda path: np.save(path, np.ones(8)), "has 1 dimensions"),
        ("a.npy", lambda path: np.save(path, np.array([{}], object)), "no NumPy array"),
        ("a.jsonl", lambda path: path.write_text("[1,2]\nnothing"), "dimensions|line 2"),
        ("a.jsonl", lambda path: path.write_text('{"embedding": [1]}'), "line 1"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, name: str, write: Callable[[Path], Any], message: str) -> None:
    """Says the file, and the line."""
    write(tmp_path / name)
    with pytest.raises(VectorError, match=message) as caught:
        file_queries(column(), tmp_path / name)
    assert name in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """And one that is empty."""
    with pytest.raises(MeasureError, match="cannot be read"):
        file_queries(column(), tmp_path / "none.npy")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(MeasureError, match="none can be searched with"):
        file_queries(column(), tmp_path / "empty.jsonl")


# -- settings ------------------------------------------------------------------------------------------------------


def test_a_setting_scales_with_k() -> None:
    """Fewer results take as long a shortlist; pgvector's and pgmrl's limits hold."""
    setting = Setting(10, 60, 80)
    assert [setting.numbers(k) for k in (1, 10, 11, 50)] == [(60, 80), (60, 80), (66, 88), (300, 400)]
    assert setting.numbers(1_000) == (6_000, 1_000)
    assert setting.numbers(50_000) == (100_000, 1_000)


@pytest.mark.parametrize(
    "numbers",
    [(0, 10, 10), (10, 9, 10), (10, 100_001, 10), (10, 10, 0), (10, 10, 1_001), (1, 1, 1, 0.0), (1, 1, 1, 2.0)],
)
def test_a_setting_that_cannot_be(numbers: tuple[Any, ...]) -> None:
    """Says which number."""
    with pytest.raises(DefinitionError):
        Setting(*numbers)
