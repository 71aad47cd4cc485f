"""The columns of models against those of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.checks.registry import database_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.finding import Problem

__all__ = ["model"]


@database_check("model", "critical", "columns that the database does not have as they are declared")
def model(context: CheckContext) -> Sequence[Problem]:
    """What differed when the columns were looked up."""
    return context.mismatches
