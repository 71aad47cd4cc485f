"""An embedding model whose vectors say of which text they are: eight numbers of its hash."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DIMS", "Letters", "SlowLetters", "vector_of"]

DIMS = 8


def vector_of(text: str) -> NDArray[np.float32]:
    """The vector of a text; exact in half precision."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.array([byte + 1 for byte in digest[:DIMS]], np.float32)


class Letters:
    """Refuses texts with the word `bad`, by an error for the whole batch, and remembers what it was given."""

    name = "letters"
    dims = DIMS
    trained_dims: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 8), float32."""
        self.batches.append(list(texts))
        if any("bad" in text for text in texts):
            raise ValueError("a bad word")
        return np.array([vector_of(text) for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 8), float32."""
        return np.array([vector_of(text) for text in texts])


class SlowLetters(Letters):
    """Takes as long as a batch of a real model, so that a worker can be killed meanwhile."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 8), float32."""
        time.sleep(0.05)
        return super().embed_documents(texts)
