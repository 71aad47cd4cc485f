"""The query vector of a text, by the model that a column is declared to be kept in step by."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgmrl.embedders import embed_query, load_embedder
from pgmrl.errors import DefinitionError, EmbedderError, SearchError
from pgmrl.model.argument_types import is_unicode, plain_text
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from pgmrl.embedders import Embedder
    from pgmrl.model.vectors import VectorArray

__all__ = ["query_vector"]

KEPT: Final = 1024  # query vectors: of 1,024 dimensions they take 4 MB

_loading = threading.Lock()


def query_vector(column: Any, text: str) -> VectorArray:
    """The vector of a query, by the model of the column's `Embed`; the latest 1,024 are kept.

    The model is loaded by the first call. In an application with an event loop call it in a thread:
    `await asyncio.to_thread(query_vector, Package.embedding, text)`.

    Args:
        column: the Matryoshka attribute or column, declared with `embed=Embed(...)`.
        text: the query, which the model prefixes as its queries are.

    Returns:
        Shape (dims,), float32; read-only.

    Raises:
        SearchError: a blank text.
        DefinitionError: the column has no `Embed`.
        EmbedderError: the model cannot be loaded, has other dimensions than the column, or no vector for this text.

    """
    attachment = attachment_of(column)
    query = plain_text(text)
    if query is None or not query.strip() or not is_unicode(query):
        raise SearchError(f"text: expected a text to search for, got {safe_repr(text)}")
    if attachment.embed is None:
        raise DefinitionError(
            f"{base_column(column)} does not say which model makes its vectors: declare embed=Embed(…)"
        )
    return _vector(attachment.embed.by, attachment.definition.dims, query)


@lru_cache(maxsize=KEPT)
def _vector(by: str, dims: int, text: str) -> VectorArray:
    model = _model(by)
    if model.dims != dims:
        raise EmbedderError(f"expected vectors of {dims} dimensions, as the column has, from {by}, got {model.dims}")
    vector = embed_query(model, text)
    vector.flags.writeable = False  # the next call gets the same
    return vector


def _model(by: str) -> Embedder:
    with _loading:  # two threads would load it twice
        return _loaded(by)


@lru_cache(maxsize=8)
def _loaded(by: str) -> Embedder:
    return load_embedder(by)
