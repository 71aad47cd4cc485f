"""A rotation: principal axes learned from the user's own vectors, named by a hash of themselves."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pgmrl.errors import RotationError, VectorError
from pgmrl.model.argument_types import path_argument
from pgmrl.model.real_numbers import real_numbers
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Rotation"]

_ID = re.compile(r"r[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Rotation:
    """Shorten by the leading principal axes (orthonormal rows, half precision).

    Three states: `Rotation()` has not been learned; `Rotation("r9c41…")` is pinned, and the server holds the axes;
    `Rotation.load(path)` is pinned and holds them itself, so that queries are shortened by the client.

    An id is a hash of the axes, so one id can only ever mean one set of axes.

    Attributes:
        id: `r` and twelve hexadecimal digits, or None.
        axes: shape (count, dims), float16, or None where only the server holds them.

    Raises:
        RotationError: the id is malformed or does not belong to these axes.

    """

    id: str | None = None
    axes: NDArray[np.float16] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        named: Any = self.id
        if named is not None and not (isinstance(named, str) and _ID.fullmatch(named)):
            raise RotationError(
                f"{safe_repr(self.id)}: expected the id of a rotation, `r` and twelve hexadecimal digits"
            )
        if self.axes is not None:
            _check_axes(self.id, self.axes)

    @classmethod
    def of(cls, axes: NDArray[np.floating]) -> Self:
        """The rotation with these axes.

        Args:
            axes: shape (count, dims), orthonormal rows, most important first; rounded to half precision.

        Raises:
            RotationError: no numbers, or another shape.

        """
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is refused
            half = np.array(_numbers(axes), dtype=np.float16, order="C")
        if half.ndim != 2 or not 1 <= half.shape[0] <= half.shape[1] or not np.isfinite(half).all():
            raise RotationError(f"axes of shape {half.shape}: expected 1 to dims rows of dims finite numbers")
        half.flags.writeable = False
        return cls(rotation_id(half), half)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            RotationError: there is no such file, or its axes are not those of the id in its name.

        """
        path = path_argument("path", path, RotationError)
        try:
            axes = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise RotationError(f"cannot read a rotation from {safe_str(path, 500)}: {safe_str(error, 500)}") from error
        loaded = cls.of(axes)
        named = _ID.search(path.stem)
        if named and named.group() != loaded.id:
            raise RotationError(f"{path} holds {loaded.id}, expected {named.group()}: restore it from your history")
        return loaded

    def save(self, directory: str | Path) -> Path:
        """Write the axes to `<directory>/<id>.npy` and return that path; the same axes are the same file.

        Raises:
            RotationError: this object holds none, or the file cannot be written.

        """
        axes = self.required_axes()
        path = path_argument("directory", directory, RotationError) / f"{self.id}.npy"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, axes)
        except (OSError, ValueError) as error:
            raise RotationError(
                f"cannot write a rotation to {safe_str(path.parent, 500)}: {safe_str(error, 500)}"
            ) from error
        return path

    def required_axes(self) -> NDArray[np.float16]:
        """The axes, shape (count, dims).

        Raises:
            RotationError: this object holds none.

        """
        if self.axes is None:
            raise RotationError(f"the axes of rotation {self.id} are needed here: use Rotation.load(path)")
        return self.axes


def _check_axes(id_: str | None, axes: Any) -> None:
    if not isinstance(axes, np.ndarray) or axes.ndim != 2 or axes.dtype.kind != "f":
        raise RotationError(
            f"axes={safe_repr(axes)}: expected an array of shape (count, dims), as Rotation.of makes it"
        )
    if id_ != rotation_id(axes):
        raise RotationError(f"expected the axes of {id_}, got those of {rotation_id(axes)}: load the right file")


def _numbers(axes: Any) -> NDArray[np.floating]:
    try:
        return real_numbers(axes, "axes")
    except VectorError as error:
        raise RotationError(str(error)) from None


def rotation_id(axes: NDArray[np.floating]) -> str:
    """The id of these axes; `pgmrl/sql/rotations.sql` computes the same in the database."""
    half = np.asarray(axes, dtype=np.float16)
    header = f"pgmrl rotation {half.shape[0]} x {half.shape[1]}\n".encode()
    return "r" + hashlib.sha256(header + half.astype(">f2").tobytes()).hexdigest()[:12]
