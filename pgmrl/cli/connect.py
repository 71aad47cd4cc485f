"""The database that a command works on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pgmrl import database, local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

__all__ = ["open_engine"]


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An Engine on the database of `--database-url`, else of DATABASE_URL, else of the embedded server.

    Names mean the server's own objects on its connections: see `database.connect`.

    Raises:
        Unreachable: the server does not answer.
        LocalServerError: the embedded server cannot be used.
    """
    with ExitStack() as stack:
        if url is None:
            url = stack.enter_context(local.server_url())
        yield stack.enter_context(database.connect(url, pin=True))
