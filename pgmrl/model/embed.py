"""`Embed`: which text of a row its vector is made of, and by which model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import is_unicode, plain_text, truth_value
from pgmrl.names import identifier, literal, qualified, quoted
from pgmrl.reprs import safe_repr

__all__ = [
    "Embed",
    "drop_embedding_triggers",
    "embedding_trigger_name",
    "keep_embedding_triggers",
    "queue_embeddings",
    "text_sql",
]

_BLANK: Final = "E' \\t\\n\\r\\f\\v'"
_PIECES: Final = re.compile(r"(?P<doubled>\{\{|\}\})|\{(?P<column>[^{}]+)\}|(?P<text>[^{}]+)|(?P<stray>[{}])")


@dataclass(frozen=True, slots=True)
class Embed:
    r"""Keep a column of vectors in step with a text of its row: `Embed("{title}\n{body}", by="static")`.

    A trigger marks a row in the transaction that changes its text, and `pgmrl embed` computes the vector.

    Attributes:
        template: the text, with columns in braces; or one column's name. NULL counts as an empty text; a row whose
            columns are all blank has no vector. Braces of the text itself are doubled.
        by: the model, as `load_embedder` takes it.
        notify: whether the trigger wakes the workers at once (NOTIFY); else they look now and then.
        parts: of the template, in their order: (text, None), or ("", column).

    Raises:
        DefinitionError: a template that names no column, or more than a column in braces; no name of a model.

    """

    template: str
    by: str
    notify: bool = True
    parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("template", "by"):
            value = plain_text(getattr(self, name))
            if (
                value is None
                or not value.strip()
                or not is_unicode(value)
                or any(c < " " and c not in "\n\t" for c in value)
            ):
                raise DefinitionError(
                    f"Embed {name}: expected a text without control characters, got {safe_repr(getattr(self, name))}"
                )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "notify", truth_value("notify", self.notify, DefinitionError))
        object.__setattr__(self, "parts", _parts(self.template))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the text is made of, each once."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))


def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    pieces = list(_PIECES.finditer(template))
    if any(piece["stray"] for piece in pieces):
        raise DefinitionError(
            f"Embed({safe_repr(template)}): expected columns in braces, as in {{title}}; braces of the text are doubled"
        )
    if not any(piece["column"] for piece in pieces):
        return (("", template),)
    return tuple((piece["text"] or (piece["doubled"] or "")[:1], piece["column"]) for piece in pieces)


def text_sql(embed: Embed, row: str) -> str:
    """The text of a row as SQL text; NULL where every column is NULL or blank.

    Args:
        embed: the declaration.
        row: the table's alias, as SQL text.
    """
    values = [f"{row}.{quoted(name)}" for name in embed.columns]
    pieces = [literal(text) if name is None else f"{row}.{quoted(name)}" for text, name in embed.parts]
    blank = f"pg_catalog.btrim(pg_catalog.concat({', '.join(values)}), {_BLANK})"
    return (
        f"CASE WHEN {blank} OPERATOR(pg_catalog.<>) ''::pg_catalog.text THEN pg_catalog.concat({', '.join(pieces)}) END"
    )


def embedding_trigger_name(table: str, column: str) -> str:
    """Name of the triggers that mark a table's rows, and of their function."""
    return identifier(f"zx_pgmrl_{table}_{column}", limit=61)  # the second trigger adds two bytes


def keep_embedding_triggers(embed: Embed, schema: str | None, table: str, column: str) -> str:
    """The statement that installs the triggers which mark a row when its text changes."""
    names = f"ARRAY[{', '.join(map(literal, embed.columns))}]"
    texts = [embedding_trigger_name(table, column), column]
    return (
        f"SELECT pgmrl.keep_embedding_v1({_regclass(schema, table)}, {', '.join(map(literal, texts))}, {names}, "
        f"{literal(embed.template)}, {literal(embed.by)}, {str(embed.notify).lower()})"
    )


def queue_embeddings(schema: str | None, table: str, column: str, *, everything: bool = False) -> str:
    """The statement that marks the rows without a vector, or all of them."""
    return f"SELECT pgmrl.queue_embeddings_v1({_regclass(schema, table)}, {literal(column)}, {str(everything).lower()})"


def drop_embedding_triggers(schema: str | None, table: str, column: str) -> str:
    """The statement that removes the triggers again."""
    return f"SELECT pgmrl.drop_embedding_v1({_regclass(schema, table)}, {literal(column)})"


def _regclass(schema: str | None, table: str) -> str:
    return f"{literal(qualified(schema, table))}::regclass"
