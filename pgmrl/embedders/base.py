"""The protocol of embedding models, and checks of the vectors that they return."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Embedder",
    "check_vectors",
    "embed_batches",
    "embed_query",
    "layer_normalised",
    "text_list",
    "unit_length",
    "zero_vectors",
]


@runtime_checkable
class Embedder(Protocol):
    """An embedding model: texts in, full vectors out. Any object with these five members is one.

    The contract on the vectors: their leading dimensions, scaled to unit length, are their short vector. A model that
    needs a transformation before truncation (nomic's layer normalization) applies it before it returns.

    The vector of a text without a known token may be zero. An embedder returns what the model returns; `zero_vectors`
    finds such rows, so that a caller can report them: an index on cosine distance leaves them out.
    """

    @property
    def name(self) -> str:
        """The model, for people and for records; a different name where the vectors differ."""
        ...

    @property
    def dims(self) -> int:
        """Dimensions of a full vector."""
        ...

    @property
    def trained_dims(self) -> tuple[int, ...]:
        """Dimensions of the truncations the model was trained for, ascending; empty if it is not Matryoshka-trained."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts to be found; shape (len(texts), dims), float32."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts to search with, which many models prefix differently; shape (len(texts), dims), float32."""
        ...


def embed_batches(
    embedder: Embedder, texts: Iterable[str], batch_size: int = 1024
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Embed documents batch by batch: for progress bars, and for texts that do not fit in memory together.

    Args:
        embedder: the model.
        texts: any iterable; one batch is read ahead.
        batch_size: texts in a batch.

    Yields:
        The batch's texts and their vectors, checked; shape (len(batch), dims), float32.

    Raises:
        EmbedderError: as `check_vectors`.
    """
    remaining = iter(texts)
    while batch := list(islice(remaining, batch_size)):
        yield batch, check_vectors(embedder, embedder.embed_documents(batch), len(batch))


def embed_query(embedder: Embedder, text: str) -> NDArray[np.float32]:
    """One query's vector, checked; shape (dims,), float32.

    Raises:
        EmbedderError: as `check_vectors`; or the vector is zero, with which nothing can be searched.
    """
    vector = check_vectors(embedder, embedder.embed_queries([text]), 1)[0]
    if not vector.any():
        raise EmbedderError(f"{embedder.name} returned a zero vector for the query {safe_repr(text)}: use other words")
    return cast("NDArray[np.float32]", vector)


def check_vectors(embedder: Embedder, vectors: Any, count: int) -> NDArray[np.float32]:
    """Check that an embedder returned finite vectors of its dimensions, one for each text.

    Args:
        embedder: the model, for its dimensions and its name.
        vectors: what `embed_documents` or `embed_queries` returned.
        count: the number of texts that went in.

    Returns:
        Shape (count, dims), float32.

    Raises:
        EmbedderError: not numbers, another shape, or a value that is not finite, with the first text concerned.
    """
    try:
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named below
            array = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderError(
            f"expected an array of numbers from {embedder.name}, got {type(vectors).__name__}: {error}"
        ) from error
    if array.shape != (count, embedder.dims):
        expected = (count, embedder.dims)
        raise EmbedderError(
            f"expected vectors of shape {expected} from {embedder.name} (one row for each text, `dims` columns), got "
            f"shape {array.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise EmbedderError(
            f"expected finite numbers from {embedder.name}, got NaN or infinity for {bad.size} of {count} texts, "
            f"the first of them text {bad[0]}"
        )
    return array


def zero_vectors(vectors: NDArray[np.floating]) -> list[int]:
    """Indices of the rows that are all zeros: texts without a known token.

    Args:
        vectors: shape (n, dims).
    """
    return [int(index) for index in np.flatnonzero(~vectors.any(axis=1))]


# For implementations


def text_list(texts: Sequence[str]) -> list[str]:
    """The texts as a list, as tokenizers need it.

    Raises:
        EmbedderError: a single string, which would be embedded letter by letter, or an element that is no string.
    """
    if isinstance(texts, str):
        raise EmbedderError("expected a list of texts, got a single string: put it in a list")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise EmbedderError(
                f"expected a string as text {index}, got {safe_repr(text)}: leave it out or pass an empty string"
            )
    return list(texts)


def unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a zero row stays zero.

    Args:
        vectors: shape (n, dims).

    Returns:
        The same shape, float32.
    """
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return cast("NDArray[np.float32]", rows / np.where(norms == 0, np.float32(1), norms))


def layer_normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `torch.nn.functional.layer_norm` over the last dimension, without weights; shape (n, dims), float32."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(1e-5))
    return np.asarray(centred / deviation, np.float32)
