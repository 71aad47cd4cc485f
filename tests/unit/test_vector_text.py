"""A vector's text, as drivers without a binary form send it: read back, it is the same vector."""

from __future__ import annotations

import numpy as np

from pgmrl.model.parameters import vector_text


def test_every_half() -> None:
    """All finite ones; the text is that of the same number in single precision."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    text = vector_text(finite.astype(np.float32), "halfvec")
    assert text == vector_text(finite.astype(np.float32), "vector")
    back = np.array([float(number) for number in text[1:-1].split(",")]).astype(np.float16)
    assert back.tobytes() == finite.tobytes()


def test_single_precision() -> None:
    """Of any size, negative zero too."""
    numbers = np.random.default_rng(0).normal(size=10_000) * 10.0 ** np.random.default_rng(1).integers(-30, 30, 10_000)
    vector = np.concatenate([numbers, [0.0, -0.0, 3.4028235e38, 1e-45]]).astype(np.float32)
    text = vector_text(vector, "vector")
    assert (
        np.array([float(number) for number in text[1:-1].split(",")]).astype(np.float32).tobytes() == vector.tobytes()
    )
