"""Vectors in step with texts: rows that triggers mark, and workers that embed them.

A row's key stands in `pgmrl.embedding_queue` until the vector of its text is stored. A worker takes keys in a short
transaction, embeds outside of any, and stores in another short one, each row only if its text is still the one that
was embedded. A worker that dies leaves its keys behind, which others take when its time is over.
"""

from pgmrl.embedding_queue.chunk_table import ChunkTable, chunk_table, install_chunks, remove_chunks
from pgmrl.embedding_queue.chunk_worker import run_chunk_worker
from pgmrl.embedding_queue.embed_worker import EmbedProgress, WorkerOptions, run_worker
from pgmrl.embedding_queue.embedded_column import (
    EmbeddedColumn,
    add_column,
    check_model,
    embedded_column,
    install_embedding,
    installed_model,
    remove_embedding,
)
from pgmrl.embedding_queue.queue_status import EmbeddingStatus, ParkedRow, embedding_status, parked_rows, retry_parked
from pgmrl.embedding_queue.truncations import UntrainedTruncation, untrained_truncations

__all__ = [
    "ChunkTable",
    "EmbedProgress",
    "EmbeddedColumn",
    "EmbeddingStatus",
    "ParkedRow",
    "UntrainedTruncation",
    "WorkerOptions",
    "add_column",
    "check_model",
    "chunk_table",
    "embedded_column",
    "embedding_status",
    "install_chunks",
    "install_embedding",
    "installed_model",
    "parked_rows",
    "remove_chunks",
    "remove_embedding",
    "retry_parked",
    "run_chunk_worker",
    "run_worker",
    "untrained_truncations",
]
