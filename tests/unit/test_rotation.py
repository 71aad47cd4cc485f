"""A rotation is named by a hash of its axes: a file or an object with other axes is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgmrl.errors import RotationError
from pgmrl.model.rotation import Rotation


@pytest.fixture
def axes() -> NDArray[np.float64]:
    """Four orthonormal rows of eight numbers."""
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    return np.asarray(q[:4])


def test_the_id_is_a_hash_of_the_axes(axes: NDArray[np.float64]) -> None:
    """Worked out here a second time, since ids live in migrations for ever and must never change."""
    values = axes.astype(np.float16).astype(">f2").tobytes()
    expected = "r" + hashlib.sha256(b"pgmrl rotation 4 x 8\n" + values).hexdigest()[:12]
    assert Rotation.of(axes).id == expected


def test_a_known_rotation_keeps_its_id() -> None:
    """A constant: if this fails, rotations that users have pinned are no longer found."""
    assert Rotation.of(np.eye(2, 3)).id == "redfc4dcc12e1"


def test_other_axes_have_another_id(axes: NDArray[np.float64]) -> None:
    """Fewer, reordered, or changed in one bit."""
    changed = axes.copy()
    changed[0, 0] *= 1.01
    ids = {Rotation.of(a).id for a in (axes, axes[:3], axes[::-1], changed, -axes)}
    assert len(ids) == 5


def test_shape_is_part_of_the_hash() -> None:
    """The same numbers in another shape are other axes."""
    flat = np.linspace(0.1, 0.8, 8)
    assert Rotation.of(flat.reshape(1, 8)).id != Rotation.of(flat.reshape(2, 4)).id


def test_save_and_load_give_the_same(axes: NDArray[np.float64], tmp_path: Path) -> None:
    """The file is named by the id, in a folder that need not exist yet."""
    rotation = Rotation.of(axes)
    path = rotation.save(tmp_path / "deep" / "rotations")
    assert path.name == f"{rotation.id}.npy"
    loaded = Rotation.load(path)
    assert loaded == rotation
    assert np.array_equal(loaded.required_axes(), rotation.required_axes())


def test_saving_twice_writes_the_same_bytes(axes: NDArray[np.float64], tmp_path: Path) -> None:
    """A file under version control that does not change by itself."""
    first = Rotation.of(axes).save(tmp_path / "a").read_bytes()
    assert Rotation.of(axes).save(tmp_path / "b").read_bytes() == first


def test_a_file_under_another_rotations_name_is_refused(axes: NDArray[np.float64], tmp_path: Path) -> None:
    """Copied over, or restored from the wrong commit."""
    path = Rotation.of(axes).save(tmp_path)
    other = Rotation.of(axes[:2]).save(tmp_path)
    path.write_bytes(other.read_bytes())
    with pytest.raises(RotationError, match=f"holds {other.stem}"):
        Rotation.load(path)


def test_a_file_whose_axes_were_changed_is_refused(axes: NDArray[np.float64], tmp_path: Path) -> None:
    """One bit is enough."""
    path = Rotation.of(axes).save(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RotationError, match="restore it"):
        Rotation.load(path)


def test_a_file_under_a_name_of_ones_own_is_taken(axes: NDArray[np.float64], tmp_path: Path) -> None:
    """The id comes from the content."""
    path = Rotation.of(axes).save(tmp_path).rename(tmp_path / "ours.npy")
    assert Rotation.load(path).id == Rotation.of(axes).id


@pytest.mark.parametrize("content", [None, b"", b"no array at all"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    """Absent, empty, or something else."""
    path = tmp_path / "r.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RotationError, match="cannot read a rotation from"):
        Rotation.load(path)


@pytest.mark.parametrize("name", ["r123", "R0123456789ab", "r0123456789abc", "r0123456789ag", "'; DROP TABLE x", ""])
def test_a_malformed_id_is_refused(name: str) -> None:
    """Ids are put into SQL text, so their form is checked where they enter."""
    with pytest.raises(RotationError, match="expected the id of a rotation"):
        Rotation(name)


def test_an_id_with_other_axes_is_refused(axes: NDArray[np.float64]) -> None:
    """One id can only ever mean one set of axes."""
    with pytest.raises(RotationError, match="expected the axes of r0123456789ab"):
        Rotation("r0123456789ab", axes.astype(np.float16))


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.ones((3, 2)), np.array([[np.nan, 1.0]]), np.array([[1e6, 1.0]])],
    ids=["one-dimensional", "more rows than dims", "nan", "overflow"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_set_of_axes_is_refused(wrong: NDArray[np.float64]) -> None:
    """Shape and finiteness, after rounding to half precision."""
    with pytest.raises(RotationError, match="expected 1 to dims rows"):
        Rotation.of(wrong)


def test_axes_cannot_be_changed_in_place(axes: NDArray[np.float64]) -> None:
    """Their hash was taken once."""
    with pytest.raises(ValueError, match="read-only"):
        Rotation.of(axes).required_axes()[0, 0] = 1


def test_a_pinned_rotation_asks_for_its_file() -> None:
    """Where only the server holds the axes."""
    with pytest.raises(RotationError, match=r"Rotation\.load"):
        Rotation("r0123456789ab").required_axes()


def test_axes_of_no_rows_are_refused() -> None:
    """A rotation that keeps nothing shortens nothing."""
    with pytest.raises(RotationError, match="expected 1 to dims rows"):
        Rotation.of(np.empty((0, 4)))
