"""The SQL that pgmrl runs in the database, one .sql file for each thing, loaded once.

An installed function is never changed: a new version of it gets a new name (`_v2`) and the old one goes in a later
migration. `{vector}` stands for the schema pgvector lives in.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from pgmrl.names import quoted

__all__ = ["load"]


@cache
def load(name: str, vector_schema: str = "public") -> str:
    """The text of `<name>.sql`, with pgvector's schema put in.

    Raises:
        FileNotFoundError: there is no such file.

    """
    text = resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return text.replace("{vector}", quoted(vector_schema))
