"""A table's name without a schema, on the command line: the role's search_path finds it, also to count its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table

from pgmrl import Matryoshka, Short
from tests.cli import ok_json

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("place")

COMMANDS = [
    ("check-migration", "never_analyzed.embedding", "--short-dims", "2"),
    ("check-migration", "never_analyzed.embedding", "--short-dims", "2", "--in-place"),
    ("reshape", "start", "never_analyzed.embedding", "--short-dims", "2", "--dry-run"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_rows_of_a_table_without_statistics_are_counted(engine: Engine, command: Sequence[str]) -> None:
    """Its statistics say nothing about their number."""
    vector_column: Column[Any] = Column("embedding", Matryoshka(8, Short(4)))
    table = Table("never_analyzed", MetaData(), Column("id", Integer, primary_key=True), vector_column)
    vectors = np.random.default_rng(0).standard_normal((20, 8), dtype=np.float32)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
    assert ok_json(*command)
