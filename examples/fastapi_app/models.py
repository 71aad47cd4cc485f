"""Passages of many tenants, each embedded in a pgvector column."""

from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Short, add_short


class Base(DeclarativeBase):
    """The models."""


class Passage(Base):
    """A passage that belongs to a tenant."""

    __tablename__ = "passages"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    body: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(256), deferred=True)


add_short(Passage.embedding, Short(64), metric="cosine")
