"""`Chunks`: a table of passages that are cut out of the texts of another one, and kept in step with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Table, event, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import whole_number
from pgmrl.model.ddl_events import table_statement
from pgmrl.model.embed import Embed
from pgmrl.names import identifier, literal, qualified
from pgmrl.reprs import safe_repr

__all__ = [
    "CHARACTERS",
    "CHUNKS_KEY",
    "Chunks",
    "add_chunks",
    "drop_chunk_triggers",
    "keep_chunk_triggers",
    "queue_chunks",
]

CHARACTERS: Final = "characters"
CHUNKS_KEY: Final = "pgmrl_chunks"
"""Where a Table's `info` has its declaration."""
_LARGEST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Chunks:
    r"""Which text chunks are cut out of, and how: `Chunks("{title}\n{body}", by="static", size=256, overlap=32)`.

    Attributes:
        template: the text, of columns of the parent, as `Embed` takes it.
        by: whose tokens are counted: a model, as `load_embedder` takes it, or "characters".
        size: tokens (or characters) that a chunk has at most.
        overlap: of them, those that it has at most in common with the one before.
        notify: whether the parent's triggers wake the workers at once (NOTIFY); else they look now and then.

    Raises:
        DefinitionError: as `Embed`; a size below 1, or an overlap that is not below the size.

    """

    template: str
    by: str
    size: int = 256
    overlap: int = 0
    notify: bool = True

    def __post_init__(self) -> None:
        text = Embed(self.template, self.by, self.notify)
        for name in ("template", "by", "notify"):
            object.__setattr__(self, name, getattr(text, name))
        size = whole_number("size", self.size, DefinitionError, 1)
        overlap = whole_number("overlap", self.overlap, DefinitionError, 0)
        if size > _LARGEST or overlap >= size:
            raise DefinitionError(
                f"Chunks: expected a size of at most {_LARGEST:,} and an overlap below it, got {size:,} and {overlap:,}"
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "overlap", overlap)

    @property
    def text(self) -> Embed:
        """The parent's text, with the model whose tokens are counted."""
        return Embed(self.template, self.by, self.notify)


def add_chunks(table: type[Any] | Table, chunks: Chunks) -> None:
    """Keep a table of chunks in step with a text of the table that it belongs to.

    It has a foreign key to its parent's primary key, with ON DELETE CASCADE, a primary key of its own, and the columns
    `ordinal`, `start`, `stop` (integer) and `text`: `text` is `start` to `stop` (exclusive) of the parent's text, in
    characters from 0 on. `create_all` and migrations install triggers that mark the parent's rows, and `pgmrl chunk`
    does the cutting. A chunk whose text stays keeps its row, and with it its vector.

    Call it after the class or Table is defined. pgmrl's schema must be installed (`pgmrl upgrade`).

    Args:
        table: of the chunks: a mapped class, or a Table.
        chunks: which text, and how long the chunks are.

    Raises:
        DefinitionError: neither of them, a column that is missing, or a second declaration.

    """
    target = _table(table)
    if not isinstance(chunks, Chunks):
        raise DefinitionError(f"chunks={safe_repr(chunks)}: expected Chunks(...)")
    missing = [name for name in ("ordinal", "start", "stop", "text") if name not in {c.name for c in target.columns}]
    if missing:
        raise DefinitionError(
            f"table {target.name}: expected the columns ordinal, start, stop and text, got no {missing[0]}"
        )
    if CHUNKS_KEY in target.info:
        raise DefinitionError(f"table {target.name} has its chunks declared already")
    target.info[CHUNKS_KEY] = chunks
    for moment, make in (
        ("after_create", lambda schema, name: keep_chunk_triggers(chunks, schema, name)),
        ("after_create", queue_chunks),
        ("before_drop", drop_chunk_triggers),
    ):
        event.listen(target, moment, table_statement(make), propagate=True)


def _table(value: Any) -> Table:
    if isinstance(value, Table):
        return value
    try:
        mapper = inspect(value)
    except NoInspectionAvailable:
        mapper = None
    if isinstance(mapper, Mapper) and isinstance(mapper.local_table, Table):
        return mapper.local_table
    raise DefinitionError(f"table={safe_repr(value)}: expected a mapped class or a Table of chunks")


def keep_chunk_triggers(chunks: Chunks, schema: str | None, table: str) -> str:
    """The statement that installs the triggers which mark a parent's row when its text changes.

    Args:
        chunks: the declaration.
        schema: of the table of chunks.
        table: of chunks.
    """
    columns = f"ARRAY[{', '.join(map(literal, chunks.text.columns))}]"
    name = literal(identifier(f"zw_pgmrl_{table}", limit=61))  # the second trigger adds two bytes
    return (
        f"SELECT pgmrl.keep_chunks_v1({_regclass(schema, table)}, {name}, {columns}, {literal(chunks.template)}, "
        f"{literal(chunks.by)}, {chunks.size}, {chunks.overlap}, {str(chunks.notify).lower()})"
    )


def queue_chunks(schema: str | None, table: str) -> str:
    """The statement that marks every row of the parent."""
    return f"SELECT pgmrl.queue_chunks_v1({_regclass(schema, table)})"


def drop_chunk_triggers(schema: str | None, table: str) -> str:
    """The statement that removes the triggers again; the chunks stay."""
    return f"SELECT pgmrl.drop_chunks_v1({_regclass(schema, table)})"


def _regclass(schema: str | None, table: str) -> str:
    return f"{literal(qualified(schema, table))}::regclass"
