"""An application's own types around pgvector's."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy.types import TypeDecorator

__all__ = ["Embedding", "Sub"]


class Embedding(TypeDecorator[Any]):
    """Wraps pgvector's type."""

    impl = VECTOR
    cache_ok = True


class Sub(VECTOR):
    """Is a subclass of pgvector's type."""

    cache_ok = True
