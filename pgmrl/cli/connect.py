"""The database that a command works on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgmrl import database, local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

__all__ = ["open_engine"]


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An Engine on the database of `--database-url`, else of DATABASE_URL, else of the embedded server.

    Raises:
        Unreachable: the server does not answer.
        LocalServerError: the embedded server cannot be used.
    """
    if url is not None:
        with database.connect(url) as engine:
            yield engine
    else:
        with local.server_url() as server_url, database.connect(server_url) as engine:
            yield engine
