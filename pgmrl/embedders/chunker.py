"""Long texts cut into chunks of a model's tokens, by semantic-text-splitter: at paragraphs, sentences, words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from pgmrl.embedders.base import Embedder

__all__ = ["Chunk", "Chunker"]


class Chunk(NamedTuple):
    """A part of a text.

    Attributes:
        start: its first character, from 0 on.
        stop: the character after its last one.
        text: what stands between.
    """

    start: int
    stop: int
    text: str


class Chunker:
    """Cuts texts at the largest of paragraph, sentence and word that fits, without white space at the ends.

    Args:
        size: tokens, or characters, that a chunk has at most.
        overlap: of them, those that it has at most in common with the one before.
        embedder: whose tokens are counted, by its method `count_tokens(text)`; characters where it is None.

    Raises:
        EmbedderError: semantic-text-splitter is not installed, or the model has no such method.

    """

    def __init__(self, size: int, overlap: int = 0, embedder: Embedder | None = None) -> None:
        try:
            from semantic_text_splitter import TextSplitter  # noqa: PLC0415 - of an extra
        except ImportError as error:
            raise EmbedderError(
                f"cutting texts needs {error.name}: install it with: pip install 'pgmrl[chunks]'"
            ) from error
        if embedder is None:
            self._splitter = TextSplitter(size, overlap)
            return
        count_tokens = getattr(embedder, "count_tokens", None)
        if count_tokens is None:
            raise EmbedderError(
                f'{embedder.name} does not count its tokens (count_tokens): say the size in characters, by="characters"'
            )
        self._splitter = TextSplitter.from_callback(count_tokens, size, overlap)

    def chunks(self, text: str) -> list[Chunk]:
        """The chunks of a text in their order; none of one without a character that is not white space."""
        return [Chunk(start, start + len(part), part) for start, part in self._splitter.chunk_indices(text)]
