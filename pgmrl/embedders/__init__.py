"""Embedding models: one protocol, two implementations, and any of the user's own.

Nothing heavy is imported before a model is loaded.
"""

from pgmrl.embedders.base import (
    Embedder,
    check_vectors,
    embed_batches,
    embed_query,
    text_list,
    unit_length,
    zero_vectors,
)
from pgmrl.embedders.loading import DEFAULT, load_embedder

__all__ = [
    "DEFAULT",
    "Embedder",
    "check_vectors",
    "embed_batches",
    "embed_query",
    "load_embedder",
    "text_list",
    "unit_length",
    "zero_vectors",
]
