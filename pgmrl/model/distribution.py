"""Distributed tables: whose rows Citus keeps in shards on other nodes, by the hash of one column.

Citus is told by `create_distributed_table`; here is what a declaration says of it, `distributed="tenant_id"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgmrl.errors import DefinitionError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

__all__ = ["Distributed", "checked_distributed", "distribution_column"]

Distributed = str | bool
"""The distribution column's name in the database; True for the key's only column, False for an ordinary table."""


def checked_distributed(value: Any) -> Distributed:
    """The argument `distributed`.

    Raises:
        DefinitionError: it is neither a truth value nor a column's name.

    """
    if value is None:
        return False
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise DefinitionError(
        f"distributed={safe_repr(value)}: expected the name of the distribution column, or True where the primary key "
        "has a single column"
    )


def distribution_column(table: Table, distributed: Distributed) -> Column[Any]:
    """The distribution column of a table that is declared as distributed.

    Args:
        table: with all its columns.
        distributed: as declared.

    Raises:
        DefinitionError: it is no column of the primary key, as Citus wants it to be, or the key has several columns and
            the declaration does not say which.

    """
    keys = {column.name: column for column in table.primary_key.columns}
    if distributed is True:
        if len(keys) != 1:
            raise DefinitionError(
                f"table {table.fullname}: expected distributed='…', the name of the distribution column, since the "
                f"primary key has {len(keys)} columns"
            )
        return next(iter(keys.values()))
    if distributed not in keys:
        raise DefinitionError(
            f"table {table.fullname}: expected the distribution column {safe_repr(distributed)} in the primary key, "
            f"got ({', '.join(keys)}): Citus has unique keys only where they contain it"
        )
    return keys[str(distributed)]
