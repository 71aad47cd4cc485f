"""The database that a command works on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pgmrl import database, local
from pgmrl.urls import connection_options, display_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

__all__ = ["open_engine"]


@contextmanager
def open_engine(url: str | None, *, writes: bool = False) -> Iterator[Engine]:
    """An Engine on the database of `--database-url`, else of DATABASE_URL, else of the embedded server.

    Names mean the server's own objects on its connections: see `database.connect`.

    Args:
        url: of `--database-url`.
        writes: whether the command writes, for which a standby is refused before anything is done.

    Raises:
        Unreachable: the server does not answer.
        DatabaseError: it takes no writes, and the command needs them.
        LocalServerError: the embedded server cannot be used.
    """
    with ExitStack() as stack:
        if url is None:
            url = stack.enter_context(local.server_url())
        engine = stack.enter_context(database.connect(url, pin=True))
        if writes:
            with engine.connect() as connection:
                database.require_primary(connection, display_url(connection_options(url)))
        yield engine
