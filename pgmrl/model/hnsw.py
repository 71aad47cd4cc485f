"""The options of the HNSW index on a short column: their range, their SQL, and the statement that builds the index.

An option of pgvector's that is added here is checked, declared in a table's metadata and built; what reads it back from
the catalogue is in pgmrl.database.index_states.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import whole_number
from pgmrl.names import identifier, qualified, quoted

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["Hnsw", "create_index"]


@dataclass(frozen=True, slots=True)
class Hnsw:
    """Build options of the HNSW index on the short column, as in pgvector.

    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
    World graphs" (2016), whose names they have.

    Attributes:
        m: links of each element, 2 to 100.
        ef_construction: candidates while building, at least 2 * m, at most 1,000.

    Raises:
        DefinitionError: a value pgvector refuses.

    """

    m: int = 16
    # above pgvector's 64: more recall at the same size and latency (benchmarks/NOTES.md)
    ef_construction: int = 100

    def __post_init__(self) -> None:
        for option in ("m", "ef_construction"):
            object.__setattr__(self, option, whole_number(option, getattr(self, option), DefinitionError))
        if not 2 <= self.m <= 100:
            raise DefinitionError(f"m={self.m}: expected 2 to 100, what pgvector takes")
        if not 2 * self.m <= self.ef_construction <= 1000:
            raise DefinitionError(
                f"ef_construction={self.ef_construction}: expected {2 * self.m} (twice m) to 1000, what pgvector takes"
            )

    @property
    def storage_parameters(self) -> dict[str, int]:
        """What CREATE INDEX takes in its WITH clause, by pgvector's names."""
        return asdict(self)

    def index_name(self, table: str, short: str) -> str:
        """The index's name; never longer than PostgreSQL takes."""
        return identifier(f"{table}_{short}_hnsw")


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
    )
