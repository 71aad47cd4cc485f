"""Queries made of examples: NumPy's answer, the statement's parts, what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, select
from sqlalchemy.dialects import postgresql

from pgmrl.errors import DefinitionError, SearchError, VectorError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.searching.more_like_this import average_vectors, more_like_this
from pgmrl.searching.search import search

DOCS = Table(
    "docs",
    MetaData(),
    Column("place", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("title", Text),
    Column("e", Matryoshka(8, Short(4))),
)
ITEMS = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
WIDE = Table("wide", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(16, Short(4))))


def compiled(statement: Any) -> str:
    """The statement as it is sent."""
    made = str(statement.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]
    return re.sub(r"\s+", " ", made)


# -- in NumPy ------------------------------------------------------------------------------------------------------


def test_one_vector_is_itself() -> None:
    """Scaled under cosine, as it is otherwise; float32."""
    assert average_vectors([[3.0, 4.0]]) == pytest.approx([0.6, 0.8])
    assert average_vectors([[3.0, 4.0]], metric="l2") == pytest.approx([3.0, 4.0])
    assert average_vectors([[3.0, 4.0]]).dtype == np.float32


def test_the_average_and_away_from_the_others() -> None:
    """That is p + (p - n), each vector of unit length under cosine."""
    assert average_vectors([[2, 0], [0, 3]]) == pytest.approx([0.5, 0.5])
    assert average_vectors([[2, 0], [0, 3]], metric="inner_product") == pytest.approx([1, 1.5])
    assert average_vectors([[2, 0]], [[0, 5]]) == pytest.approx([2, -1])
    assert average_vectors([[2, 0]], [[0, 5], [0, 1]], metric="l2") == pytest.approx([4, -3])


def test_weights_are_of_the_positive_vectors() -> None:
    """Only their ratios matter."""
    assert average_vectors([[2, 0], [0, 3]], weights=[3, 1]) == pytest.approx([0.75, 0.25])
    assert average_vectors([[2, 0], [0, 3]], weights=[30, 10]) == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "n at least 1"),
        (([1.0, 2.0],), "n at least 1"),
        (([[1.0, np.nan]],), "row 0 of the positive vectors has nan"),
        (([[1.0, 2.0]], [[1.0, 2.0, 3.0]]), r"the negative vectors have shape \(1, 3\)"),
        (([[1.0, 2.0]], [[np.inf, 2.0]]), "row 0 of the negative vectors has inf"),
        (([[1.0, 2.0], [0, 0]],), "row 1 of the positive vectors is all zeros"),
        (([[1.0, 2.0]], [[0, 0]]), "row 0 of the negative vectors is all zeros"),
        (([[1.0, 2.0], [-3.0, -6.0]],), "cancel each other"),
        (([[1.0, 2.0]], (), [1, 2]), "weights=.*expected 1 finite"),
        (([[1.0, 2.0]], (), [0]), "above 0"),
        (([[1.0, 2.0]], (), [np.nan]), "finite"),
        (([[1.0, 2.0]], (), ["a"]), "weights=.*expected numbers"),
        (("text",), "not made of numbers"),
    ],
)
def test_vectors_that_cannot_be_combined(arguments: tuple[Any, ...], message: str) -> None:
    """Each named."""
    with pytest.raises(VectorError, match=message):
        average_vectors(*arguments)


def test_a_zero_combination_is_a_point_under_l2() -> None:
    """Only a direction is undefined."""
    assert not average_vectors([[1, 2], [-1, -2]], metric="l2").any()


# -- in the statement ----------------------------------------------------------------------------------------------


def test_the_query_comes_first_and_once() -> None:
    """Both stages take it from there; the examples are left out of the candidates."""
    text = compiled(
        search(select(DOCS.c.title), DOCS.c.e, more_like_this(DOCS.c.e, [("a", 1)], unlike=[("b", 2), ("b", 3)]))
    )
    assert text.startswith(
        "WITH pgmrl_query AS MATERIALIZED (SELECT full_vector, l2_normalize(subvector(full_vector, 1, 4))"
    )
    assert text.count("(SELECT short_vector FROM pgmrl_query WHERE (pg_catalog.set_config(") == 1
    assert text.count("(SELECT full_vector FROM pgmrl_query)") == 2  # of the shortlist, or of all rows
    assert text.count("avg(") == 2
    shortlist = re.search(r"FROM \((SELECT docs.*)\) AS pgmrl_shortlist\), pgmrl_exact", text)
    assert shortlist is not None
    assert shortlist[1].count("NOT (docs.place = ") == 3
    assert "short_vector" not in compiled(
        search(select(DOCS.c.title), DOCS.c.e, more_like_this(DOCS.c.e, [("a", 1)]), exact=True)
    )


def test_statements_of_as_many_examples_are_alike() -> None:
    """SQLAlchemy compiles one for all keys."""
    first, second = (search(select(ITEMS), ITEMS.c.e, more_like_this(ITEMS.c.e, [n, n + 1])) for n in (1, 5))
    assert first._generate_cache_key() == second._generate_cache_key() is not None


def test_an_expression_of_ones_own() -> None:
    """Anything that is one vector."""
    average = select(func.avg(ITEMS.c.e)).where(ITEMS.c.id < 5).scalar_subquery()
    text = compiled(search(select(ITEMS.c.id), ITEMS.c.e, average))
    assert "CAST((SELECT avg(items.e) AS avg_1 FROM items WHERE items.id < " in text
    assert "THEN CAST(pg_catalog.concat('pgmrl: the query''s expression is NULL" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: more_like_this(ITEMS.c.e, []), "no keys"),
        (lambda: more_like_this(ITEMS.c.e, 3), "keys=3: expected a list"),  # type: ignore[arg-type]
        (lambda: more_like_this(ITEMS.c.e, "abc"), "expected a list"),
        (lambda: more_like_this(ITEMS.c.e, [None]), r"\(None,\) in keys: expected a primary key \(id\)"),
        (lambda: more_like_this(ITEMS.c.e, [(1, 2)]), r"\(1, 2\) in keys: expected a primary key"),
        (
            lambda: more_like_this(ITEMS.c.e, [[1]]),
            r"\[1\] in keys: expected a value of the key's column id, of type integer",
        ),
        (lambda: more_like_this(DOCS.c.e, ["a"]), r"\('a',\) in keys: expected a primary key \(place, number\)"),
        (lambda: more_like_this(DOCS.c.e, [("a", 1)], unlike=[("a", None)]), "in unlike: expected a primary key"),
        (lambda: more_like_this(ITEMS.c.e, [1], unlike=[1]), r"\(1,\) is in keys and in unlike"),
        (
            lambda: search(select(ITEMS), ITEMS.c.e, more_like_this(WIDE.c.e, [1])),
            "have 16 dimensions, expected 8",
        ),
    ],
)
def test_examples_that_make_no_sense(make: Any, message: str) -> None:
    """Each says what to give."""
    with pytest.raises(SearchError, match=message):
        make()


def test_examples_of_what_is_no_vector() -> None:
    """A column that was not declared."""
    with pytest.raises(DefinitionError, match="is not a Matryoshka column"):
        more_like_this(DOCS.c.title, [("a", 1)])
