"""What tests need to know of the installed versions of the libraries."""

from __future__ import annotations

from typing import Any, Final

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql

from pgmrl.alembic.older_alembic import ALEMBIC, PLUGINS

__all__ = ["HAS_PLUGINS", "NO_PLUGINS", "distinct_on", "needs_plugins"]

HAS_PLUGINS: Final = ALEMBIC >= PLUGINS
NO_PLUGINS: Final = "pgmrl's autogenerate plugin needs Alembic 1.18 or later"

needs_plugins = pytest.mark.skipif(not HAS_PLUGINS, reason=NO_PLUGINS)


def distinct_on(statement: Select[*tuple[Any, ...]], *columns: Any) -> Select[*tuple[Any, ...]]:
    """DISTINCT ON: what `distinct()` makes before SQLAlchemy 2.1, where that is deprecated."""
    if not hasattr(statement, "ext"):
        return statement.distinct(*columns)
    return statement.ext(postgresql.distinct_on(*columns))
