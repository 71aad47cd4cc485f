"""What tests need to know of the installed versions of the libraries."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql

__all__ = ["ALEMBIC", "distinct_on", "needs_plugins"]

ALEMBIC: Final = tuple(int(part) for part in version("alembic").split(".")[:3])

needs_plugins = pytest.mark.skipif(ALEMBIC < (1, 18, 4), reason="autogenerate plugins need Alembic 1.18.4 or later")


def distinct_on(statement: Select[*tuple[Any, ...]], *columns: Any) -> Select[*tuple[Any, ...]]:
    """DISTINCT ON: of `distinct()` before SQLAlchemy 2.1, which deprecates that."""
    if not hasattr(statement, "ext"):
        return statement.distinct(*columns)
    return statement.ext(postgresql.distinct_on(*columns))
