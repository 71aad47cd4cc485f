"""The options of the HNSW index on a short column: their range, their SQL, and the statement that builds the index.

An option of pgvector's that is added here is checked, declared in a table's metadata and built; what reads it back from
the catalogue is in pgmrl.database.index_states.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import argument_list, whole_number
from pgmrl.model.index_predicate import predicate_text
from pgmrl.names import LIMIT, identifier, qualified, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from pgmrl.model.shortening import Definition

__all__ = ["Hnsw", "create_index", "index_list", "index_source", "is_index_name", "main_index"]


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Build options of the HNSW index on the short column, as in pgvector.

    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
    World graphs" (2016), whose names they have.

    Attributes:
        m: links of each element, 2 to 100.
        ef_construction: candidates while building, at least 2 * m, at most 1,000.
        where: the condition of a partial index, as SQL text (`deleted_at IS NULL`) or as a criterion on the table's
            columns; kept as text. A search uses it where its own filter implies the condition.
        declared: `where` as the model says it, where `where` is as the server prints it; the name comes from it.

    Raises:
        DefinitionError: a value pgvector refuses, or a condition that is not one expression.

    """

    m: int = 16
    # above pgvector's 64: more recall at the same size and latency (benchmarks/NOTES.md)
    ef_construction: int = 100
    where: ColumnElement[bool] | str | None = None
    declared: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for option in ("m", "ef_construction"):
            object.__setattr__(self, option, whole_number(option, getattr(self, option), DefinitionError))
        if not 2 <= self.m <= 100:
            raise DefinitionError(f"m={self.m}: expected 2 to 100, what pgvector takes")
        if not 2 * self.m <= self.ef_construction <= 1000:
            raise DefinitionError(
                f"ef_construction={self.ef_construction}: expected {2 * self.m} (twice m) to 1000, what pgvector takes"
            )
        if self.where is not None:
            predicate = predicate_text(self.where)
            object.__setattr__(self, "where", predicate)
            object.__setattr__(self, "declared", predicate)

    @property
    def storage_parameters(self) -> dict[str, int]:
        """What CREATE INDEX takes in its WITH clause, by pgvector's names."""
        return {"m": self.m, "ef_construction": self.ef_construction}

    @property
    def predicate(self) -> str | None:
        """The condition of a partial index as SQL text; None for an index of all rows."""
        return None if self.where is None else str(self.where)

    def printed(self, predicate: str) -> Hnsw:
        """The same index with its condition as the server prints it, and the name that the declared one gives it."""
        printed = replace(self, where=predicate)
        object.__setattr__(printed, "declared", self.declared)
        return printed

    def index_name(self, table: str, short: str) -> str:
        """The index's name; never longer than PostgreSQL takes. A partial one's ends with a hash of its condition."""
        name = f"{table}_{short}_hnsw"
        if self.declared is None:
            return identifier(name)
        digest = hashlib.sha256(" ".join(self.declared.split()).encode()).hexdigest()[:8]
        return f"{identifier(name, LIMIT - len(digest) - 1)}_{digest}"


def index_list(index: Any) -> tuple[Hnsw, ...]:
    """The indexes of an argument `index`: one, several or none.

    Raises:
        DefinitionError: it is something else, or two of them would be for the same rows.

    """
    expected = "Hnsw(...), a list of them that differ in where=, or None for no index"
    if index is None or isinstance(index, Hnsw):
        return () if index is None else (index,)
    indexes = argument_list("index", index, DefinitionError, expected)
    if not all(isinstance(each, Hnsw) for each in indexes):
        raise DefinitionError(f"index={safe_repr(index)}: expected {expected}")
    if len({each.predicate for each in indexes}) < len(indexes):
        raise DefinitionError(f"index={safe_repr(index)}: two are for the same rows: expected {expected}")
    return tuple(indexes)


def index_source(index: Hnsw) -> str:
    """An index as Python code that makes it."""
    where = "" if index.declared is None else f", where={index.declared!r}"
    return f"Hnsw(m={index.m}, ef_construction={index.ef_construction}{where})"


def is_index_name(name: str, table: str, short: str) -> bool:
    """Whether an index on a short column has a name that `Hnsw.index_name` gives, whatever its condition."""
    hashed = Hnsw(where="true").index_name(table, short)
    stem = re.escape(hashed.removesuffix(hashed[-8:]))
    return name == Hnsw().index_name(table, short) or re.fullmatch(f"{stem}[0-9a-f]{{8}}", name) is not None


def main_index(indexes: Sequence[Hnsw]) -> Hnsw:
    """Of several the one of all rows, else the first; as declared by default where there is none."""
    return min(indexes, key=lambda index: index.predicate is not None, default=Hnsw())


def create_index(
    definition: Definition,
    schema: str | None,
    table: str,
    short: str,
    index: Hnsw,
    *,
    name: str,
    concurrently: bool = False,
    only: bool = False,
) -> str:
    """The statement that builds the HNSW index on the short vectors, as SQL text.

    Args:
        definition: full and short vector.
        schema: of the table.
        table: the table.
        short: what is indexed, as SQL text: `Definition.short_sql`.
        index: build options.
        name: of the index.
        concurrently: while others write.
        only: of a partitioned table, without its partitions.

    """
    how, where = "CONCURRENTLY " if concurrently else "", "ONLY " if only else ""
    options = ", ".join(f"{option} = {value}" for option, value in index.storage_parameters.items())
    return (
        f"CREATE INDEX {how}{quoted(name)} ON {where}{qualified(schema, table)} USING hnsw "
        f"({short} {definition.operator_class}) WITH ({options})"
        + ("" if index.predicate is None else f" WHERE ({index.predicate})")
    )
