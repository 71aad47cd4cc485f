"""The condition of a partial index: what is one expression, and what could end the statement it is put into."""

from __future__ import annotations

from typing import Any

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, and_, column, func
from sqlalchemy.dialects.postgresql import asyncpg, psycopg
from sqlalchemy.orm import mapped_column
from sqlalchemy.schema import CreateIndex

from pgmrl import Hnsw, Matryoshka, Short, add_short
from pgmrl.errors import DefinitionError
from pgmrl.model.hnsw import index_list, is_index_name, main_index
from pgmrl.model.index_predicate import loose_predicate, predicate_text


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (" deleted_at IS NULL\n", "deleted_at IS NULL"),
        ("title = 'a;b--c' AND (id > 0)", "title = 'a;b--c' AND (id > 0)"),
        ("title = E'a\\';b'", "title = E'a\\';b'"),
        ("\"a;b\" = 'it''s'", "\"a;b\" = 'it''s'"),
        ("size::int = $1", "size::int = $1"),  # which the server refuses
        (column("deleted_at").is_(None), "deleted_at IS NULL"),
        (and_(column("title") == "it's 100%", column("id", Integer) > 3), "title = 'it''s 100%' AND id > 3"),
        (Table("t", MetaData(), Column("Ä b", Text)).c["Ä b"].like("x%"), "\"Ä b\" LIKE 'x%'"),
    ],
)
def test_one_expression_is_taken(where: Any, expected: str) -> None:
    """As text as it is; a criterion with its values, without the table's name."""
    assert predicate_text(where) == expected
    assert Hnsw(where=where).predicate == expected


@pytest.mark.parametrize(
    "where",
    [
        "",
        "  ",
        "true; DROP TABLE documents",
        "true) WHERE (true",
        "(true",
        "true -- and",
        "true /* and */",
        "title = 'it''s",
        "title = 'a' || '",
        "title = $$a$$",
        "title = $x$a$x$",
        "title = $é$;$é$",
        "title = 'a\\'';DROP TABLE documents;--'",  # one text, or a text and a statement, by a setting
        "title = \u00a0E'\\';DROP TABLE documents;--'",  # to the server `E` belongs to the name before it
        "a\0b",
        "title = '\ud800'",
        '"title',
        3,
        b"true",
        True,
        ["true"],
        func.now() == mapped_column(DateTime),
        Matryoshka,
    ],
)
def test_everything_else_is_refused(where: Any) -> None:
    """At the declaration, by one error that names the argument."""
    with pytest.raises(DefinitionError, match=r"^where=[^\n]*$"):
        Hnsw(where=where)


def test_names_differ_by_condition_and_fit() -> None:
    """The same on every machine; spaces make no difference."""
    names = {Hnsw(where=where).index_name("t" * 63, "c" * 63) for where in (None, "id > 1", "id > 2")}
    assert len(names) == 3
    assert all(len(name.encode()) <= 63 for name in names)
    assert Hnsw(where="id  >\n1").index_name("t", "c") == Hnsw(where="id > 1").index_name("t", "c")
    assert all(is_index_name(name, "t" * 63, "c" * 63) for name in names)
    assert not is_index_name("t_c_hnsw_other", "t", "c")
    printed = Hnsw(8, 32, where="id>1").printed("(id > 1)")
    assert (printed.predicate, printed.m) == ("(id > 1)", 8)
    assert printed == Hnsw(8, 32, where="(id > 1)")
    assert printed.index_name("t", "c") == Hnsw(where="id>1").index_name("t", "c")


def test_one_several_or_none() -> None:
    """Two for the same rows are refused; the one of all rows is the main one."""
    alive = Hnsw(where="deleted_at IS NULL")
    assert index_list(None) == index_list([]) == ()
    assert index_list([alive, Hnsw(24, 100)]) == (alive, Hnsw(24, 100))
    assert main_index((alive, Hnsw(24, 100))) == Hnsw(24, 100)
    assert main_index((alive,)) == alive
    for index in ([Hnsw(), Hnsw(24, 100)], [alive, "x"], "Hnsw", alive.where):
        with pytest.raises(DefinitionError, match=r"^index="):
            index_list(index)


@pytest.mark.parametrize("driver", [psycopg, asyncpg], ids=["psycopg", "asyncpg"])
def test_the_model_declares_them(driver: Any) -> None:
    """Percent signs and colons are the driver's matter; a copied table has the same indexes."""
    other = Table("o", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(8)))
    add_short(other.c.embedding, Short(4), index=[Hnsw(), Hnsw(where="title LIKE 'a:b%c'")], stored=False)
    for owner in (other, other.to_metadata(MetaData())):
        statements = [
            str(CreateIndex(index).compile(dialect=driver.dialect())).replace("%%", "%") for index in owner.indexes
        ]
        assert sorted(statement.endswith(" WHERE (title LIKE 'a:b%c')") for statement in statements) == [False, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("deleted_at is null", "(deleted_at IS NULL)", True),
        ("section = 'Games' and id>3", "((section = 'Games'::text) AND (id > 3))", True),
        ("section = 'games'", "(section = 'Games'::text)", False),
        ('"Id" != 1', '("Id" <> 1)', True),
        ('"Id" = 1', "(id = 1)", False),
        ("kind = 'a'", "((kind)::text = 'a'::text)", True),
    ],
)
def test_a_printed_condition_is_recognised(one: str, other: str, same: bool) -> None:
    """Where the server cannot be asked: without what it adds."""
    assert (loose_predicate(one) == loose_predicate(other)) is same
    assert loose_predicate(None) is None
