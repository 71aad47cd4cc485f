"""The expression of an index in a statement: its text is the definition's, its cache key says which it is."""

from __future__ import annotations

from typing import Any

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from pgmrl import Definition, Short, add_short
from pgmrl.model.columns import attachment_of
from pgmrl.model.short_expression import short_element

POSTGRESQL: Any = postgresql.dialect()  # type: ignore[no-untyped-call]


def squeezed(sql: str) -> str:
    """On one line."""
    return " ".join(sql.split())


def short_of(dims: int, full: Any, type_: Any = "halfvec", schema: str | None = None) -> Any:
    """The element of short vectors that no column holds."""
    definition = Definition.of(8, Short(dims, type=type_), "cosine", "vector", schema, stored=False)
    return short_element(definition, definition.short_name("embedding"), full, literal_column)


@pytest.mark.parametrize(
    ("type_", "schema", "expected"),
    [
        ("halfvec", None, "(subvector(d.embedding, 1, 4)::halfvec(4))"),
        ("vector", "Ext", '("Ext".subvector(d.embedding, 1, 4)::"Ext".vector(4))'),
        ("bit", "ext", "(ext.binary_quantize(ext.subvector(d.embedding, 1, 4))::bit(4))"),
    ],
)
def test_the_text(type_: Any, schema: str | None, expected: str) -> None:
    """Literals only, under whatever name the table has in the statement."""
    table = Table("documents", MetaData(), Column("embedding", VECTOR(8))).alias("d")
    compiled = (
        select(table.c.embedding).order_by(short_of(4, table.c.embedding, type_, schema)).compile(dialect=POSTGRESQL)
    )
    assert squeezed(str(compiled)).endswith(f"ORDER BY {expected}")
    assert not compiled.params


def test_the_cache_key_says_which_it_is() -> None:
    """A compiled statement is not taken for one of other dimensions, and is for the same."""
    column = Table("documents", MetaData(), Column("embedding", VECTOR(8))).c.embedding
    keys = [select(column).order_by(short_of(dims, column))._generate_cache_key() for dims in (4, 4, 2)]
    assert keys[0] is not None
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_the_index_and_the_rule_are_one() -> None:
    """What CREATE INDEX says is what the definition says; unlike a column's, it is not scaled."""
    table = Table("documents", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(8)))
    add_short(table.c.embedding, Short(4), stored=False)
    definition = attachment_of(table.c.embedding).definition
    (index,) = table.indexes
    made = squeezed(str(CreateIndex(index).compile(dialect=POSTGRESQL)))
    assert f"USING hnsw ({definition.short_sql('embedding')} halfvec_cosine_ops)" in made
    assert "l2_normalize" not in made
    assert not definition.scaled
    assert "l2_normalize" in Definition.of(8, Short(4)).sql("embedding")
