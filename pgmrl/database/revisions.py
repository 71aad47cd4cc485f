"""The revisions of pgmrl's own schema: what brings it from each to the next, and back.

`migrations/` has one file for each, for whoever runs them by Alembic; pgmrl itself needs no Alembic for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.database.sql import load as load_sql
from pgmrl.database.sql import statements
from pgmrl.errors import DefinitionError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NEWEST_REVISION", "REVISIONS", "Step", "check_revision", "revision_statements", "revision_steps"]

UP: Final[dict[str, Sequence[str]]] = {
    "0001": (
        "version",
        "owns_v1",
        "rotations",
        "rotate_v1",
        "watched_columns_v1",
        "sync_short_v1",
        "sync_side_v1",
        "mirror_full_v1",
        "columns_view",
        "backfills",
        "queries",
        "questions",
        "functions_catalogue",
        "settings",
        "recall_history",
        "health",
        "chunks",
        "embedding_queue",
        "text_models",
        "keep_text",
    )
}
"""The scripts of each revision, in their order: each file in `sql/` says what its part is for."""

DOWN: Final[dict[str, Sequence[str]]] = {"0001": ("drop_all",)}
"""Remove everything but the schema, in which the version is kept; refused by the server while something uses it."""

REVISIONS: Final = tuple(UP)
NEWEST_REVISION: Final = REVISIONS[-1]


class Step(NamedTuple):
    """From one revision to its neighbour.

    Attributes:
        revision: what is upgraded to, or downgraded from.
        up: which of the two.
        reached: the revision afterwards; None for none.
    """

    revision: str
    up: bool
    reached: str | None


def check_revision(revision: str, *others: str) -> None:
    """Check that there is such a revision.

    Args:
        revision: its name.
        *others: what it may be besides, such as `head`.

    Raises:
        DefinitionError: there is none.
    """
    if revision not in {*REVISIONS, *others}:
        expected = ", ".join([*REVISIONS, *others])
        raise DefinitionError(f"pgmrl's schema: expected one of the revisions {expected}, got {safe_repr(revision)}")


def revision_steps(current: str | None, to: str | None) -> list[Step]:
    """The steps from one revision to another in their order; None is the empty database.

    Raises:
        DefinitionError: there is no such revision.
    """
    for name in (current, to):
        if name is not None:
            check_revision(name)
    start = REVISIONS.index(current) + 1 if current else 0
    end = REVISIONS.index(to) + 1 if to else 0
    if start <= end:
        return [Step(name, True, name) for name in REVISIONS[start:end]]
    before = (None, *REVISIONS)
    return [Step(REVISIONS[place], False, before[place]) for place in reversed(range(end, start))]


def revision_statements(revision: str, up: bool, vector_schema: str = "public") -> list[str]:
    """The statements of one step: asyncpg takes one at a time.

    Args:
        revision: as in `Step`.
        up: as in `Step`.
        vector_schema: pgvector's schema.
    """
    return [statement for name in (UP if up else DOWN)[revision] for statement in _script(name, vector_schema)]


def _script(name: str, vector_schema: str) -> list[str]:
    """A file's statements with pgvector's schema put in; `columns_view` makes a view of the query in columns.sql."""
    if name != "columns_view":
        return statements(load_sql(name, vector_schema))
    return [
        f"CREATE VIEW pgmrl.columns AS\n{load_sql('columns', vector_schema)}",
        "COMMENT ON VIEW pgmrl.columns IS 'Every Matryoshka column of this database, as the catalogue has it'",
        "GRANT SELECT ON pgmrl.columns TO PUBLIC",
    ]
