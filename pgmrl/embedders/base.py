"""What an embedding model has to offer, and the checks on what it gives."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Embedder",
    "as_texts",
    "checked",
    "embed_batches",
    "embed_query",
    "normalised",
    "zero_vectors",
]


@runtime_checkable
class Embedder(Protocol):
    """An embedding model: texts in, full vectors out. Any object with these five members is one.

    The contract on the vectors: their leading dimensions, scaled back to unit length, are the right short vector.
    A model with a rule of its own before truncation (nomic's layer-norm) applies it before it returns.

    A text the model knows nothing of may come out as a zero vector. An embedder returns what the model gives;
    `zero_vectors` finds such rows, so that a caller can report them: an index on cosine distance leaves them out.
    """

    @property
    def name(self) -> str:
        """Which model this is, for people and for records; another name where the vectors differ."""
        ...

    @property
    def dims(self) -> int:
        """Dimensions of a full vector."""
        ...

    @property
    def trained_dims(self) -> tuple[int, ...]:
        """The truncations the model was trained for, ascending; empty where it is not Matryoshka-trained."""
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
    """Documents embedded batch by batch: for progress bars, and for texts that do not fit memory at once.

    Args:
        embedder: the model.
        texts: any iterable; read one batch ahead of what is embedded, no further.
        batch_size: texts in a batch.

    Yields:
        The batch's texts and their vectors, checked; shape (len(batch), dims), float32.

    Raises:
        EmbedderError: as `checked`.
    """
    remaining = iter(texts)
    while batch := list(islice(remaining, batch_size)):
        yield batch, checked(embedder, embedder.embed_documents(batch), len(batch))


def embed_query(embedder: Embedder, text: str) -> NDArray[np.float32]:
    """One query's vector, checked; shape (dims,), float32.

    Raises:
        EmbedderError: as `checked`; or the model knows nothing of the text, so that there is nothing to search with.
    """
    vector = checked(embedder, embedder.embed_queries([text]), 1)[0]
    if not vector.any():
        raise EmbedderError(f"{embedder.name} gives a zero vector for the query {text!r}: use other words")
    return cast("NDArray[np.float32]", vector)


def checked(embedder: Embedder, vectors: Any, count: int) -> NDArray[np.float32]:
    """What an embedder returned, if it is what it promised.

    Args:
        embedder: the model, for its dimensions and its name.
        vectors: what `embed_documents` or `embed_queries` returned.
        count: the number of texts that went in.

    Returns:
        Shape (count, dims), float32.

    Raises:
        EmbedderError: not numbers, another shape, or a value that is not finite; names the first text concerned.
    """
    try:
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named below
            array = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"{embedder.name} returned no array of numbers: {error}") from error
    if array.shape != (count, embedder.dims):
        expected = (count, embedder.dims)
        raise EmbedderError(
            f"{embedder.name} returned shape {array.shape} for {count} texts, expected {expected}: "
            "one row a text, as many columns as its `dims`"
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise EmbedderError(
            f"{embedder.name} returned NaN or infinity for {bad.size} of {count} texts, first text {bad[0]}"
        )
    return array


def zero_vectors(vectors: NDArray[np.floating]) -> list[int]:
    """Indices of the rows that are all zeros: texts the model knows nothing of.

    Args:
        vectors: shape (n, dims).
    """
    return [int(index) for index in np.flatnonzero(~vectors.any(axis=1))]


# For embedders


def as_texts(texts: Sequence[str]) -> list[str]:
    """The texts as the list that tokenizers want.

    Raises:
        EmbedderError: a single string, which would be embedded letter by letter, or an element that is no text.
    """
    if isinstance(texts, str):
        raise EmbedderError("texts is a single string: give a list of texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise EmbedderError(f"text {index} is {text!r}, not a string: leave it out or give an empty text")
    return list(texts)


def normalised(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a zero row stays zero.

    Args:
        vectors: shape (n, dims).

    Returns:
        The same shape, float32.
    """
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return cast("NDArray[np.float32]", rows / np.where(norms == 0, np.float32(1), norms))
