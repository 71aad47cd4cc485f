"""The SQL that pgmrl runs in the database, one .sql file for each thing, loaded once.

An installed function is never changed: a new version of it gets a new name (`_v2`) and the old one goes in a later
migration. `{vector}` stands for the schema pgvector lives in, `{expression_indexes}` for the text of that file.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

from pgmrl.names import quoted

__all__ = ["load", "statements"]

_COMMENT: Final = r"--[^\n]*"
_QUOTED: Final = r"'[^']*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$"  # a doubled quote is the end of one and the begin of another
_PARTS: Final = re.compile(f"(?:{_COMMENT}|{_QUOTED}|[^;])+", re.DOTALL)


@cache
def load(name: str, vector_schema: str = "public") -> str:
    """The text of `<name>.sql`, with pgvector's schema put in.

    Raises:
        FileNotFoundError: there is no such file.

    """
    text = resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    if "{expression_indexes}" in text:
        text = text.replace("{expression_indexes}", load("expression_indexes"))
    return text.replace("{vector}", quoted(vector_schema))


def statements(script: str) -> list[str]:
    """The statements of a script, each for itself: asyncpg takes one at a time.

    Args:
        script: of pgmrl's own SQL: a semicolon ends a statement, unless it is in quotes, in `$$` or in a `--` comment.

    """
    parts = (match.group().strip() for match in _PARTS.finditer(script))
    return [part for part in parts if part]
