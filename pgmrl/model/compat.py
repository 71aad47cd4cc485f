"""What older versions of the libraries have elsewhere or otherwise, each with the version that it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from psycopg.types.numeric import Int4, Int8

if TYPE_CHECKING:
    from pgvector import Bit, HalfVector, SparseVector, Vector
    from sqlalchemy import Select
else:
    try:
        from pgvector import Bit, HalfVector, SparseVector, Vector
    except ImportError:  # before pgvector-python 0.4
        from pgvector.utils import Bit, HalfVector, SparseVector, Vector
    if not sqlalchemy.__version__.startswith("2.0."):
        from sqlalchemy import Select
    else:

        class Select:
            """For annotations: a Select of SQLAlchemy 2.0 has one type for a row, and not one for each column."""

            def __class_getitem__(cls, _columns: Any) -> type[sqlalchemy.Select]:
                return sqlalchemy.Select


__all__ = ["RANGE_BOUNDS", "Bit", "HalfVector", "Select", "SparseVector", "Vector"]

# psycopg 3.1 sends an integer bound as narrow as the number allows, and not as the range's type has it
RANGE_BOUNDS: Final[dict[str, Callable[[int], Any]]] = {"int4": Int4, "int8": Int8}
"""What makes of an integer a bound of a range of that type."""
