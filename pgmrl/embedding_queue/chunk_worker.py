"""One worker that cuts marked texts into chunks; once, or for ever."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pgmrl.embedders.chunker import Chunker
from pgmrl.embedding_queue.chunk_entries import ChunkEntries
from pgmrl.embedding_queue.embed_worker import EmbedProgress, QueueWorker, WorkerOptions
from pgmrl.online.preconditions import check_sees_all_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from pgmrl.embedders import Embedder
    from pgmrl.embedders.chunker import Chunk
    from pgmrl.embedding_queue.chunk_table import ChunkTable

__all__ = ["run_chunk_worker"]


def run_chunk_worker(
    engine: Engine,
    table: ChunkTable,
    embedder: Embedder | None = None,
    options: WorkerOptions | None = None,
    *,
    stop_event: threading.Event | None = None,
    progress: Callable[[EmbedProgress], None] | None = None,
) -> EmbedProgress:
    """Cut the texts of the rows that are marked: until none is left, or for ever.

    The chunks of a row are replaced in one short transaction, and only if its text is still the one that was cut; a
    chunk whose text stays keeps its row and its vector.

    Args:
        engine: of the database, with psycopg.
        table: of the chunks.
        embedder: whose tokens are counted; None where it is characters.
        options: as of `run_worker`.
        stop_event: set it to stop after the batch at hand.
        progress: called after each batch; `written` are the texts that were cut.

    Returns:
        What was done.

    Raises:
        EmbedderError: the library that cuts is not installed, or the model does not count its tokens.
        MigrationError: row-level security hides rows from this role, or the chunks are declared anew meanwhile.
    """
    options = options or WorkerOptions()
    chunker = Chunker(table.chunks.size, table.chunks.overlap, embedder)
    queue = ChunkEntries(table, options.attempts, options.pause)
    with engine.connect() as connection:
        queue.check_installed(connection)
        check_sees_all_rows(connection, table.owner)  # a hidden chunk would be stored once more

    def chunks(texts: list[str]) -> list[list[Chunk]]:
        return [chunker.chunks(value) for value in texts]

    return QueueWorker(queue, chunks, options, stop_event or threading.Event(), progress).run_on(engine)
