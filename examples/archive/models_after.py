"""The archive: notes that have been embedded for years, now searched in two stages."""

from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import DateTime, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Short, add_short


class Base(DeclarativeBase):
    """The models."""


class Note(Base):
    """A note."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    author: Mapped[str] = mapped_column(server_default="nobody")
    written_at: Mapped[Any] = mapped_column(DateTime(timezone=True), server_default=func.now())
    embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)


add_short(Note.embedding, Short(64), metric="cosine")
