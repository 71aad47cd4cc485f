"""The library beside what a user would write without it, in the same stack: SQLAlchemy, a Session, mapped rows.

Without it means `select(Item).order_by(Item.embedding.cosine_distance(query)).limit(10)` with pgvector-python's types,
as its README has it, on plain `vector` and `halfvec` under an HNSW index, with `hnsw.ef_search` set on the connection.
Vectors are deferred on both sides, so that both map the same rows. Bare SQL stands beside it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Integer, bindparam, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from benchmarks.data import K
from benchmarks.library import LibrarySide
from benchmarks.sides import Index, PostgresSide, plain, plain_efforts, shortlists
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncEngine

    from benchmarks.data import Floats, Kind
    from benchmarks.server import Server
    from benchmarks.sides import Effort, Search

SYNC, ASYNC = "SQLAlchemy", "AsyncSession"
PREBUILT = "prebuilt"
PREPARED = {"prepare_threshold": 0}


def variants(efforts: Sequence[Effort], variant: str) -> Iterator[Effort]:
    """The same efforts, asked in another way."""
    return (replace(effort, variant=variant) for effort in efforts)


def item(table: str, full: Kind) -> Any:
    """A mapped class of a plain side's table, with the type of pgvector-python's."""

    class Base(DeclarativeBase):
        pass

    kind = HALFVEC(768) if full == "halfvec" else VECTOR(768)
    columns = {"id": mapped_column(Integer, primary_key=True), "embedding": mapped_column(kind, deferred=True)}
    return type("Item", (Base,), {"__tablename__": table, **columns})


class Sessions:
    """A Session and an AsyncSession on a connection of their own: autocommit, every statement prepared at once."""

    def __init__(self, server: Server) -> None:
        self._runner = asyncio.Runner()
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_size": 1, "connect_args": PREPARED}
        self._engine = create_engine(server.sqlalchemy_url, **options)
        self.sync = Session(self._engine.connect())
        self._async_engine: AsyncEngine = create_async_engine(server.sqlalchemy_url, **options)
        self.asynchronous = AsyncSession(self._async_engine)

    def execute(self, variant: str, statement: Any, parameters: Any = None) -> list[Any]:
        """The rows, by the kind of session that the variant names.

        Each query of an AsyncSession is a coroutine that the loop is started for, which is part of what it takes.
        """
        if ASYNC not in variant:
            return list(self.sync.execute(statement, parameters).all())
        return list(self._runner.run(self._awaited(statement, parameters)))

    async def _awaited(self, statement: Any, parameters: Any) -> Sequence[Any]:
        result = await self.asynchronous.execute(statement, parameters)
        return result.all()

    def close(self) -> None:
        """Close both."""

        async def closed() -> None:
            await self.asynchronous.close()
            await self._async_engine.dispose()

        self._runner.run(closed())
        self._runner.close()
        self.sync.connection().close()
        self.sync.close()
        self._engine.dispose()


class PgvectorSide(PostgresSide):
    """Plain pgvector: bare SQL, and by variants through SQLAlchemy as pgvector-python's README writes it."""

    def __init__(self, server: Server, full: Kind, sizes: Sequence[int]) -> None:
        like = plain(server, full, ())
        efforts = [effort for variant in ("", SYNC, ASYNC) for effort in variants(plain_efforts(*sizes), variant)]
        super().__init__(server, like.name, like.layout, like.index, like.family, efforts)
        self.item = item(like.layout.name, full)
        self._sessions: Sessions | None = None

    @property
    def sessions(self) -> Sessions:
        """This side's own."""
        if self._sessions is None:
            self._sessions = Sessions(self.server)
        return self._sessions

    def prepare(self, effort: Effort) -> Search:
        """From the query to row numbers."""
        if not effort.variant:
            return super().prepare(effort)
        item, sessions, variant = self.item, self.sessions, effort.variant

        def ask(query: Floats) -> list[int]:
            statement = select(item).order_by(item.embedding.cosine_distance(query)).limit(K)
            return [row[0].id for row in sessions.execute(variant, statement)]

        sessions.execute(variant, text(f"SELECT set_config('hnsw.ef_search', '{effort.ef_search}', false)"))
        return ask

    def close(self) -> None:
        """Close its connections."""
        super().close()
        if self._sessions is not None:
            self._sessions.close()
            self._sessions = None


class StackSide(LibrarySide):
    """The library, mapped rows, by either kind of session."""

    def __init__(self, server: Server, axes: NDArray[np.float16], sizes: Sequence[int], index: Index) -> None:
        names = ("", PREBUILT, ASYNC, f"{ASYNC}, {PREBUILT}")
        efforts = [effort for name in names for effort in variants(shortlists(*sizes), name)]
        super().__init__(server, axes, efforts, index)
        self._sessions: Sessions | None = None

    @property
    def sessions(self) -> Sessions:
        """This side's own."""
        if self._sessions is None:
            self._sessions = Sessions(self.server)
        return self._sessions

    def select(self, query: Any, effort: Effort) -> Select[Any]:
        """The library's Select, of mapped rows."""
        sizes = {"shortlist": effort.shortlist, "ef_search": effort.ef_search}
        found: Any = search(select(self.mapped), self.mapped.embedding, query, k=K, **sizes)  # type: ignore[arg-type]
        return found  # type: ignore[no-any-return]

    def prepare(self, effort: Effort) -> Search:
        """From the query to row numbers."""
        super().prepare(effort)  # checks the plan
        sessions, variant = self.sessions, effort.variant
        if PREBUILT in variant:
            built = self.select(bindparam("q"), effort)
            return lambda query: [row[0].id for row in sessions.execute(variant, built, {"q": query})]
        return lambda query: [row[0].id for row in sessions.execute(variant, self.select(query, effort))]

    def close(self) -> None:
        """Close its connections."""
        super().close()
        if self._sessions is not None:
            self._sessions.close()
            self._sessions = None
