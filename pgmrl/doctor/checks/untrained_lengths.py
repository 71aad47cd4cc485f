"""Short vectors of a length that their model was not trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.embedding_queue.truncations import TRUNCATIONS_SQL, untrained_truncations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext

__all__ = ["untrained_lengths"]


@database_check("untrained-lengths", "info", "short vectors of a length that their model was not trained for")
def untrained_lengths(context: CheckContext) -> Iterator[Problem]:
    """Prefixes of columns whose triggers name a model that is known."""
    if context.server.schema is None:
        return
    for short in untrained_truncations(context.connection):
        if context.includes(short.table_schema, short.table_name):
            yield Problem(
                f"the short vectors have {short.dims} dimensions, which the model was not trained for",
                f"{short.advice[0].upper()}{short.advice[1:]}.",
                TRUNCATIONS_SQL,
                {"dims": short.dims},
                "info",
                f"{short.table_schema}.{short.table_name}.{short.column}",
            )
