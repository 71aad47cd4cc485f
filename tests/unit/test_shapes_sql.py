"""Groups, diverse results and funnels: the statement's parts, and every argument that is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sqlalchemy import ForeignKey, Text, select, union_all
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, relationship

from pgmrl.errors import ExactSearchWarning, SearchError, VectorError
from pgmrl.model.columns import matryoshka
from pgmrl.model.shortening import Rotation, Short
from pgmrl.model.types import NumpyVector
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups

QUERY = np.arange(1.0, 9.0)


class Base(DeclarativeBase):
    """The models of this file."""


class Book(Base):
    """What passages belong to."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Passage(Base):
    """A prefix, a rotation that is pinned, one that has not been learned, and signs."""

    __tablename__ = "passages"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"))
    embedding: Mapped[VectorArray] = matryoshka(8, Short(3))
    pinned: Mapped[VectorArray] = matryoshka(8, Short(3, Rotation("r0123456789ab")))
    early: Mapped[VectorArray] = matryoshka(8, Short(3, Rotation()))
    signs: Mapped[VectorArray] = matryoshka(8, Short(8, type="bit"))
    middle: Mapped[VectorArray] = mapped_column(NumpyVector(5, "vector"))
    words: Mapped[str] = mapped_column(Text)
    book: Mapped[Book] = relationship()


def compiled(statement: Any) -> str:
    """The statement as it is sent."""
    made = str(statement.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]
    return re.sub(r"\s+", " ", made)


def names_of(statement: Any) -> list[str]:
    """The CTEs of a statement, in order."""
    return re.findall(r"(pgmrl_\w+) AS (?:MATERIALIZED )?\(", compiled(statement))


PLAIN = select(Passage.id)
FILTERED = PLAIN.where(Passage.words == "x")


def groups(statement: Any = PLAIN, by: Any = Passage.book_id, **options: Any) -> Any:
    """Passages by book."""
    return search_groups(statement, Passage.embedding, QUERY, by, **options)


def diverse(statement: Any = PLAIN, **options: Any) -> Any:
    """Passages that differ."""
    return search_diverse(statement, Passage.embedding, QUERY, **options)


def funnel(stages: Any = ((5, 20),), statement: Any = PLAIN, column: Any = Passage.embedding, **options: Any) -> Any:
    """Passages through more stages."""
    return search_funnel(statement, column, QUERY, stages, **options)


@pytest.mark.parametrize("make", [groups, diverse, funnel])
def test_built_alike_each_time_and_nested(make: Any) -> None:
    """One entry in the cache; two in a statement."""
    first, second = make(), make()
    assert first._generate_cache_key() == second._generate_cache_key() is not None
    text = compiled(union_all(select(first.subquery()), select(second.subquery())))
    name = "pgmrl_shortlist" if make is funnel else "pgmrl_reranked"
    assert text.count(f"(WITH {name} AS MATERIALIZED") == 2


@pytest.mark.parametrize("make", [groups, diverse, funnel])
def test_limits_are_literals_and_an_exact_search_sets_nothing(make: Any) -> None:
    """As in `search`."""
    assert "LIMIT %" not in compiled(make())
    text = compiled(make(exact=True))
    assert "set_config" not in text
    assert "embedding_short" not in text


@pytest.mark.parametrize("make", [groups, diverse, funnel])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0: expected at least 1"),
        ({"k": True}, "k=True: expected a whole number"),
        ({"shortlist": 5}, "shortlist=5 is smaller than k=10"),
        ({"shortlist": 0}, "shortlist=0"),
        ({"ef_search": 1001}, "1 to 1000"),
    ],
)
def test_numbers_that_make_no_sense(make: Any, options: dict[str, Any], message: str) -> None:
    """Each names the argument and its value."""
    with pytest.raises(SearchError, match=message):
        make(**options)


@pytest.mark.parametrize("make", [groups, diverse])
def test_a_select_or_a_query_that_cannot_be_searched(make: Any) -> None:
    """As in `search`."""
    with pytest.raises(SearchError, match="has LIMIT"):
        make(PLAIN.limit(3))
    with pytest.raises(SearchError, match="does not read passages"):
        make(select(Book))
    with pytest.raises(VectorError, match="all zeros"):
        search_diverse(PLAIN, Passage.embedding, QUERY * 0)


def test_an_unlearned_rotation_warns_at_the_callers_line() -> None:
    """And is exact."""
    with pytest.warns(ExactSearchWarning) as caught:
        search_groups(PLAIN, Passage.early, QUERY, Passage.book_id)
    assert caught[0].filename == __file__
    with pytest.warns(ExactSearchWarning) as caught:
        search_diverse(PLAIN, Passage.early, QUERY)
    assert caught[0].filename == __file__


# -- groups --------------------------------------------------------------------------------------------------------


def test_groups_are_complete_unless_told_otherwise() -> None:
    """With a filter or without."""
    complete = ["pgmrl_reranked", "pgmrl_grouped", "pgmrl_all", "pgmrl_exact", "pgmrl_results"]
    assert names_of(groups()) == complete
    assert names_of(groups(complete=False)) == ["pgmrl_reranked", "pgmrl_results"]
    assert names_of(groups(exact=True)) == ["pgmrl_all", "pgmrl_results"]


def test_the_shortlist_of_groups_grows_with_the_rows_of_each() -> None:
    """Ten times as many as may come back, at least 40."""
    assert "LIMIT 300)" in compiled(groups(per_group=3))
    assert "LIMIT 40)" in compiled(groups(k=2))
    with pytest.raises(SearchError, match=r"shortlist=20 is smaller than k=10 times per_group=3"):
        groups(per_group=3, shortlist=20)
    with pytest.raises(SearchError, match="per_group=0"):
        groups(per_group=0)


@pytest.mark.parametrize(
    "by", [Book.id, Passage.book, aliased(Passage).book_id, Passage.book_id + 1, "book_id", None, Passage]
)
def test_what_rows_cannot_be_grouped_by(by: Any) -> None:
    """Only a column of what is searched, under its name in the Select."""
    with pytest.raises(SearchError, match="expected a column of passages, as it is named in the Select"):
        groups(by=by)


def test_groups_of_a_joined_select_take_the_column_of_the_inner_table() -> None:
    """The shortlist reads the table under another name then."""
    text = compiled(groups(PLAIN.join(Passage.book)))
    assert "passages_1.book_id AS group_key" in text
    other = aliased(Passage, name="other")
    text = compiled(search_groups(select(other.id), other.embedding, QUERY, other.book_id))
    assert "other.book_id AS group_key" in text


# -- diverse -------------------------------------------------------------------------------------------------------


def test_relevance_is_bound() -> None:
    """Another one is the same text."""
    assert compiled(diverse(relevance=0.2)) == compiled(diverse(relevance=0.8))


@pytest.mark.parametrize("relevance", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_relevance_that_makes_no_sense(relevance: Any) -> None:
    """It is a share."""
    with pytest.raises(SearchError, match="relevance="):
        diverse(relevance=relevance)


def test_labels_of_the_picks() -> None:
    """Distance, number and score, each by its name."""
    assert list(diverse(label="d", rank_label="r", score_label="s").selected_columns.keys()) == ["id", "d", "r", "s"]
    with pytest.raises(SearchError, match="two columns of the result would be called 'rank'"):
        diverse(score_label="rank")


@pytest.mark.parametrize("make", [diverse, funnel])
def test_the_exact_branch_of_diverse_and_funnel(make: Any) -> None:
    """As in `search`."""
    for statement in ({}, {"statement": FILTERED}):
        assert "pgmrl_exact" in compiled(make(**statement))
        assert "pgmrl_exact" not in compiled(make(**statement, complete=False))


# -- funnel --------------------------------------------------------------------------------------------------------


def test_each_stage_reads_the_one_before() -> None:
    """Computed from the full vector, or stored."""
    text = compiled(funnel([(4, 200), (6, 50)]))
    assert names_of(funnel([(4, 200), (6, 50)])) == [
        "pgmrl_shortlist", "pgmrl_stage_1", "pgmrl_stage_2", "pgmrl_reranked", "pgmrl_exact", "pgmrl_results",
    ]  # fmt: skip
    assert re.search(r"FROM pgmrl_shortlist ORDER BY subvector\(full_vector, 1, 4\) <=> .* LIMIT 200\)", text)
    assert re.search(r"FROM pgmrl_stage_1 ORDER BY subvector\(full_vector, 1, 6\) <=> .* LIMIT 50\)", text)
    assert "AS distance FROM pgmrl_stage_2 OFFSET 0" in text
    stored = compiled(funnel([(Passage.middle, 50)]))
    assert "ORDER BY stage_1 <=> (SELECT subvector(CAST(%(query_1)s AS halfvec(8)), 1, 5)::vector(5))" in stored
    assert "LIMIT 20)" in compiled(funnel([(2, 20)], column=Passage.signs))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([(3, 50)], "a stage of 3 dimensions: expected dimensions that rise from .* 3 to less than the full one's 8"),
        ([(8, 50)], "a stage of 8 dimensions"),
        ([(5, 50), (5, 20)], "a stage of 5 dimensions"),
        ([(5, 500)], "leaves 500 rows of 500"),
        ([(5, 50), (6, 50)], "leaves 50 rows of 50"),
        ([(5, 9)], "leaves 9 rows of 500: expected fewer, and at least k=10"),
        ([(0, 50)], "the dimensions of a stage=0"),
        ([(True, 50)], "the dimensions of a stage=True"),
        ([(5, "50")], "the rows of a stage='50'"),
        ([5], r"the stage 5: expected \(dimensions, rows\)"),
        ("abc", "stages='abc': expected a list"),
        (5, "stages=5: expected a list"),
        ([(Passage.words, 50)], r"expected a column of halfvec\(n\) or vector\(n\), got Text"),
        ([("middle", 50)], "the dimensions of a stage='middle': expected a whole number"),
    ],
)
def test_stages_that_are_none(stages: Any, message: str) -> None:
    """Each says what is wrong with it."""
    with pytest.raises(SearchError, match=message):
        funnel(stages)


def test_a_rotation_has_no_funnel() -> None:
    """With the remedy; learned or not."""
    for column in (Passage.pinned, Passage.early):
        with pytest.raises(SearchError, match="use search\\(\\) with a larger shortlist"):
            funnel(column=column)
