"""The short column a migration is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One short column of one table.

    Attributes:
        table: the table.
        full: the full vector's column.
        definition: full and short vector.
        schema: of the table; None where the search_path finds it.
    """

    table: str
    full: str
    definition: Definition
    schema: str | None = None

    @property
    def short(self) -> str:
        """The short column's name, or that of short vectors which are not stored."""
        return self.definition.short_name(self.full)

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)

    @property
    def title(self) -> str:
        """For people: `documents.embedding_short_64`."""
        return ".".join(part for part in (self.schema, self.table, self.short) if part)

    @property
    def value(self) -> str:
        """The short vector as SQL text."""
        return self.definition.sql(quoted(self.full))

    @property
    def missing(self) -> str:
        """The rows that have no short vector yet and need one, as SQL text."""
        return f"{self.definition.short_sql(self.full)} IS NULL AND {quoted(self.full)} IS NOT NULL"
