"""pgvector's binary format: what its own Python classes write and read, singly and many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.errors import VectorError
from pgmrl.model.binary import decode, decode_many, encode, encode_many
from pgmrl.model.compat import Bit, HalfVector, Vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.model.metrics import ShortType

CLASSES: dict[str, Any] = {"vector": Vector, "halfvec": HalfVector}


def vectors(count: int, dims: int) -> NDArray[np.float32]:
    """Numbers that half precision holds, so that nothing is rounded."""
    return np.random.default_rng(0).normal(size=(count, dims)).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("dims", [1, 3, 768])
def test_vectors_are_written_and_read_as_pgvector_does(kind: ShortType, dims: int) -> None:
    """Byte by byte."""
    rows = vectors(5, dims)
    theirs = [CLASSES[kind](row).to_binary() for row in rows]
    assert [encode(row, kind) for row in rows] == theirs
    assert [value.tobytes() for value in encode_many(rows, kind)] == theirs
    assert np.array_equal(np.stack([decode(value, kind) for value in theirs]), rows)
    found = decode_many(theirs, kind, dims)
    assert np.array_equal(found, rows)
    assert found.dtype == decode(theirs[0], kind).dtype == np.float32


@pytest.mark.parametrize("dims", [1, 7, 8, 9, 64, 769])
def test_bits_are_written_and_read_as_pgvector_does(dims: int) -> None:
    """Also of a length that fills no byte."""
    rows = vectors(5, dims) > 0
    theirs = [Bit(row).to_binary() for row in rows]
    assert [encode(row, "bit") for row in rows] == theirs
    assert [value.tobytes() for value in encode_many(rows, "bit")] == theirs
    assert np.array_equal(np.stack([decode(value, "bit") for value in theirs]), rows)
    assert np.array_equal(decode_many(theirs, "bit", dims), rows)


@pytest.mark.parametrize("kind", ["vector", "halfvec", "bit"])
def test_none_at_all(kind: ShortType) -> None:
    """Of a batch without rows."""
    assert decode_many([], kind, 9).shape == (0, 9)
    assert encode_many(vectors(0, 9), kind).shape == (0,)


def test_values_of_other_dimensions() -> None:
    """Would be read as something else."""
    with pytest.raises(VectorError, match=r"expected values of halfvec\(4\), 12 bytes each"):
        decode_many([encode(np.ones(4), "halfvec"), encode(np.ones(5), "halfvec")], "halfvec", 4)
