"""The log of what takes long: a child of Alembic's logger, so that what alembic.ini shows of that it shows of this."""

from __future__ import annotations

import logging

from pgmrl.reprs import printable

__all__ = ["log"]


class _Printable(logging.Filter):
    """Names of the database never reach a terminal or a log file raw."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            shown = (printable(value, keep="\n") if isinstance(value, str) else value for value in record.args)
            record.args = tuple(shown)
        return True


log = logging.getLogger("alembic.pgmrl")
log.addFilter(_Printable())
