"""Principal axes: what they must be on any input, and what they are good for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgmrl.errors import RotationError
from pgmrl.measure import fit_rotation
from pgmrl.measure.fit_rotation import fit_axes
from pgmrl.model.rotation import rotation_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.model.rotation import Rotation

HALF = 2e-3  # axes are kept in half precision


def spread(rows: int, dims: int, seed: int = 0, decay: float = 0.8) -> NDArray[np.float32]:
    """Vectors of a falling spectrum in a random basis, so that no leading dimension says much."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    scales = np.maximum(decay ** np.arange(dims), 1e-3)
    return np.asarray((rng.normal(size=(rows, dims)) * scales) @ basis.T, np.float32)


def assert_orthonormal(rotation: Rotation, count: int, dims: int) -> None:
    """Finite unit rows at right angles, as far as half precision goes."""
    axes = rotation.required_axes().astype(np.float64)
    assert axes.shape == (count, dims)
    assert np.isfinite(axes).all()
    np.testing.assert_allclose(axes @ axes.T, np.eye(count), atol=HALF)


def captured(rotation: Rotation, vectors: NDArray[np.floating]) -> float:
    """The share of the vectors' squared length that the axes keep."""
    wide = vectors.astype(np.float64)
    return float(((wide @ rotation.required_axes().astype(np.float64).T) ** 2).sum() / (wide**2).sum())


@pytest.mark.parametrize(("dims", "count"), [(1, 1), (8, 8), (64, 16), (300, 300)])
@pytest.mark.parametrize("normalise", [True, False])
def test_axes_are_orthonormal(dims: int, count: int, normalise: bool) -> None:
    """From one dimension to all of them."""
    assert_orthonormal(fit_axes(spread(400, dims), count, normalise=normalise), count, dims)


def test_the_same_input_is_the_same_id() -> None:
    """The id is a hash of the axes: nothing random may be left in them."""
    vectors = spread(500, 48)
    first, second = (fit_axes(vectors.copy(), 12, normalise=True) for _ in range(2))
    assert first.id == second.id == rotation_id(first.required_axes())
    assert fit_axes(spread(500, 48, seed=1), 12, normalise=True).id != first.id


def test_the_same_input_is_the_same_id_by_subspace_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its random start is always the same one."""
    monkeypatch.setattr(fit_rotation, "FULL_DECOMPOSITION", 32)
    vectors = spread(500, 200)
    assert fit_axes(vectors, 12, normalise=True).id == fit_axes(vectors, 12, normalise=True).id


def test_the_largest_component_of_each_axis_is_positive() -> None:
    """An eigenvector's sign is arbitrary; LAPACK's choice must not become part of the id."""
    vectors = spread(500, 48)
    axes = fit_axes(vectors, 48, normalise=False).required_axes().astype(np.float64)
    largest = axes[np.arange(48), np.abs(axes).argmax(axis=1)]
    assert (largest > 0).all()
    mirrored = fit_axes(-vectors, 48, normalise=False).required_axes()
    np.testing.assert_array_equal(axes, mirrored.astype(np.float64))


def test_the_first_axes_keep_most() -> None:
    """Each axis keeps at least as much as the next one, and together they are the best there is."""
    vectors = spread(1000, 32)
    rotation = fit_axes(vectors, 16, normalise=False)
    kept = ((vectors @ rotation.required_axes().astype(np.float32).T) ** 2).sum(axis=0)
    assert (kept[:-1] >= kept[1:] * (1 - HALF)).all()
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False) ** 2
    assert captured(rotation, vectors) == pytest.approx(values[:16].sum() / values.sum(), abs=1e-4)


def test_axes_keep_more_than_leading_dimensions() -> None:
    """Where the spectrum is rotated away from the dimensions, which is what a rotation is for."""
    vectors = spread(1000, 64)
    rotation = fit_axes(vectors, 8, normalise=False)
    prefix = float((vectors[:, :8] ** 2).sum() / (vectors**2).sum())
    assert captured(rotation, vectors) > 0.95
    assert prefix < 0.4


def test_axes_pass_through_the_origin() -> None:
    """Not through the mean: a common direction of all vectors is part of their cosine, and the first axis."""
    rng = np.random.default_rng(0)
    offset = np.zeros(16, np.float32)
    offset[5] = 10
    vectors = rng.normal(size=(500, 16)).astype(np.float32) + offset
    first = fit_axes(vectors, 1, normalise=True).required_axes()[0].astype(np.float64)
    assert first[5] > 0.99


@pytest.mark.parametrize(("dims", "count"), [(1_600, 32), (2_048, 256)])
def test_many_dimensions_keep_as_much_as_all_eigenvectors(dims: int, count: int) -> None:
    """Subspace iteration instead of a decomposition that would take a minute."""
    assert dims > fit_rotation.FULL_DECOMPOSITION
    rng = np.random.default_rng(0)
    scales = 1 / (1 + np.arange(dims)) ** 0.5  # as slow to fall as real embeddings'
    vectors = (rng.normal(size=(600, dims)) * scales).astype(np.float32)
    rotation = fit_axes(vectors, count, normalise=False)
    assert_orthonormal(rotation, count, dims)
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False) ** 2
    assert captured(rotation, vectors) == pytest.approx(values[:count].sum() / values.sum(), rel=3e-3)


def test_both_ways_find_the_same_subspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the spectrum falls fast there is one answer."""
    vectors = spread(400, 200)
    whole = fit_axes(vectors, 10, normalise=True).required_axes().astype(np.float64)
    monkeypatch.setattr(fit_rotation, "FULL_DECOMPOSITION", 100)
    iterated = fit_axes(vectors, 10, normalise=True).required_axes().astype(np.float64)
    assert np.linalg.svd(whole @ iterated.T, compute_uv=False).min() > 1 - HALF


@pytest.mark.parametrize("count", [0, -1, 9])
def test_a_number_of_axes_that_there_cannot_be(count: int) -> None:
    """The error says what there can be."""
    with pytest.raises(RotationError, match="ask for 1 to 8"):
        fit_axes(spread(100, 8), count, normalise=True)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_too_few_rows(rows: int) -> None:
    """Fewer rows than axes: some of the axes would be of nothing."""
    with pytest.raises(RotationError, match=rf"{rows} usable rows are too few to learn 8 axes"):
        fit_axes(spread(rows, 16), 8, normalise=True)


def degenerate(what: str, dims: int) -> NDArray[np.float32]:
    """Rows that span fewer dimensions than axes are asked for."""
    rng = np.random.default_rng(0)
    rows = {
        "one row many times": np.tile(rng.normal(size=(1, dims)), (100, 1)),
        "all components equal": np.full((100, dims), 0.25),
        "one dimension only": np.eye(1, dims) * rng.normal(size=(100, 1)),
        "three dimensions": rng.normal(size=(100, 3)) @ rng.normal(size=(3, dims)),
        "tiny": rng.normal(size=(100, dims)) * 1e-20,
        "huge": rng.normal(size=(100, dims)) * 1e18,
        "all zero": np.zeros((100, dims)),
        "one row of zeros": np.vstack([rng.normal(size=(99, dims)), np.zeros((1, dims))]),
    }
    return rows[what].astype(np.float32)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dims", [32, 1_600])
@pytest.mark.parametrize(
    "what",
    [
        "one row many times",
        "all components equal",
        "one dimension only",
        "three dimensions",
        "tiny",
        "huge",
        "one row of zeros",
    ],
)
def test_degenerate_rows_give_sound_axes(what: str, dims: int, normalise: bool) -> None:
    """Orthonormal all the same, and they keep what there is."""
    vectors = degenerate(what, dims)
    rotation = fit_axes(vectors, 16, normalise=normalise)
    assert_orthonormal(rotation, 16, dims)
    wide = vectors.astype(np.float64)
    if normalise:
        wide = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    values = np.linalg.svd(wide, compute_uv=False) ** 2
    assert captured(rotation, wide) > (1 - 2 * HALF) * values[:16].sum() / values.sum()


@pytest.mark.parametrize("normalise", [True, False])
def test_rows_of_zeros_only(normalise: bool) -> None:
    """There is no direction to learn."""
    with pytest.raises(RotationError, match="zero"):
        fit_axes(degenerate("all zero", 32), 4, normalise=normalise)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    """One of them would be in every axis."""
    vectors = spread(100, 16)
    vectors[50, 3] = value
    with pytest.raises(RotationError, match="finite"):
        fit_axes(vectors, 4, normalise=True)


def test_normalising_lets_every_row_count_alike() -> None:
    """Under cosine one long vector must not outweigh a thousand short ones."""
    rng = np.random.default_rng(0)
    many = np.zeros((990, 16))
    many[:, :2] = rng.normal(size=(990, 2))
    few = np.zeros((10, 16))
    few[:, 8:10] = 1000 * rng.normal(size=(10, 2))
    vectors = np.vstack([many, few]).astype(np.float32)
    by_direction = fit_axes(vectors, 2, normalise=True).required_axes()
    by_length = fit_axes(vectors, 2, normalise=False).required_axes()
    assert np.abs(by_direction[:, :2]).max(axis=1).min() > 0.7
    assert np.abs(by_length[:, 8:10]).max(axis=1).min() > 0.7


def test_more_rows_than_a_batch() -> None:
    """The batches together are all rows, the last and shorter one too."""
    rows = 2 * fit_rotation.FETCH + 1
    vectors = np.zeros((rows, 4), np.float32)
    vectors[:, 0] = 1
    vectors[-1] = [0, 0, 0, 1000]
    first = fit_axes(vectors, 1, normalise=False).required_axes()[0]
    assert first[3] > 0.99


def test_the_input_is_left_alone() -> None:
    """Half precision or double, writable or not."""
    vectors = spread(100, 16)
    before = vectors.copy()
    vectors.flags.writeable = False
    single = fit_axes(vectors, 4, normalise=True)
    np.testing.assert_array_equal(vectors, before)
    assert fit_axes(vectors.astype(np.float64), 4, normalise=True).id == single.id
    assert_orthonormal(fit_axes(vectors.astype(np.float16), 4, normalise=True), 4, 16)


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_every_row_is_as_likely_to_stay(batch: int) -> None:
    """However the rows come, and however many more than there is place for."""
    kept = np.zeros(1_000)
    for seed in range(200):
        reservoir = fit_rotation._Reservoir.of(100, 1, np.dtype(">f4"), seed)
        rows = np.arange(1_000, dtype=np.float32)[:, None]
        for start in range(0, 1_000, batch):
            reservoir.add(rows[start : start + batch])
        numbers = reservoir.rows[:, 0].astype(int)
        assert len(set(numbers)) == reservoir.held == 100
        kept[numbers] += 1
    tenths = kept.reshape(10, 100).sum(axis=1)  # 2,000 are expected in each, with a deviation of 43
    assert np.abs(tenths - 2_000).max() < 200


def test_a_reservoir_that_is_not_filled() -> None:
    """Fewer rows than there is place for: all of them, in their order."""
    reservoir = fit_rotation._Reservoir.of(100, 1, np.dtype(">f2"), 0)
    for start in (0, 20, 40):
        reservoir.add(np.arange(start, start + 20, dtype=np.float16)[:, None])
    assert reservoir.held == 60
    assert reservoir.rows[:60, 0].tolist() == list(range(60))
