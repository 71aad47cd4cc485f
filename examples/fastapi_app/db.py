"""The engine, and a session for each request."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])  # postgresql+asyncpg://…
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def session() -> AsyncIterator[AsyncSession]:
    """A session that is closed when the answer is on its way."""
    async with sessions() as opened:
        yield opened


DatabaseSession = Annotated[AsyncSession, Depends(session)]
