"""The shelf: Python's own documentation. It can be searched by meaning."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pgmrl import Short, VectorArray, matryoshka


class Base(DeclarativeBase):
    """The models."""


class Module(Base):
    """A module of the standard library."""

    __tablename__ = "modules"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Entry(Base):
    """One documented object."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    module_id: Mapped[int] = mapped_column(ForeignKey("modules.id"), index=True)
    module: Mapped[Module] = relationship()
    name: Mapped[str]
    text: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="function")
    embedding: Mapped[VectorArray | None] = matryoshka(256, Short(64))
