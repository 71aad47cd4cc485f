"""An application as its author types it: mypy accepts it with SQLAlchemy 2.1 and with 2.0, where rows are untyped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Prefix, Short, VectorArray, matryoshka, search, search_diverse, search_groups, search_many

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Base(DeclarativeBase):
    """The models."""


class Package(Base):
    """What is searched."""

    __tablename__ = "packages"
    id: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(768, Short(128, by=Prefix()), metric="cosine")


def nearest(session: Session, query: list[float]) -> list[tuple[str, float]]:
    """Entities with their distance."""
    statement = search(select(Package).where(Package.section == "games"), Package.embedding, query, k=5)
    return [(package.section, distance) for package, distance in session.execute(statement)]


async def ids(session: AsyncSession, query: VectorArray) -> list[int]:
    """Columns, over AsyncSession."""
    rows = await session.execute(search(select(Package.id), Package.embedding, query))
    return [row[0] for row in rows]


def shapes(session: Session, query: VectorArray) -> int:
    """More columns than one behind those that were selected."""
    count = 0
    for _package, _number, distance in session.execute(search_many(select(Package), Package.embedding, [query])):
        count += distance < 1
    for _id, _distance, rank, _score in session.execute(search_diverse(select(Package.id), Package.embedding, query)):
        count += rank
    groups = search_groups(select(Package.id), Package.embedding, query, Package.section)
    return count + len(session.execute(groups).all())
