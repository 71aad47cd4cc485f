"""The shape of the statement, and every argument that is refused, without a database."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    bindparam,
    func,
    join,
    literal_column,
    not_,
    or_,
    select,
    union,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, relationship

from pgmrl.errors import DefinitionError, ExactSearchWarning, PgmrlError, SearchError, VectorError
from pgmrl.model.columns import Matryoshka, matryoshka
from pgmrl.model.shortening import Rotation, Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.options import shortlist_size
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from tests.versions import distinct_on

QUERY = np.arange(1.0, 9.0)


class Base(DeclarativeBase):
    """The models of this file."""


class Item(Base):
    """A prefix under cosine, and a rotation that has not been learned."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4))
    early: Mapped[VectorArray] = matryoshka(8, Short(4, Rotation()))
    flat: Mapped[VectorArray] = matryoshka(8, Short(4), metric="l2")
    pinned: Mapped[VectorArray] = matryoshka(8, Short(4, Rotation("r0123456789ab")))
    held: Mapped[VectorArray] = matryoshka(8, Short(4, Rotation.of(np.eye(4, 8))))
    tags: Mapped[list[Tag]] = relationship()
    twins: Mapped[list[Item]] = relationship(
        primaryjoin="foreign(Item.section) == remote(Item.section)", uselist=True, viewonly=True
    )


class Tag(Base):
    """Many for one item."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    name: Mapped[str]


def compiled(statement: Any) -> str:
    """The statement as it is sent."""
    text = str(statement.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]
    return re.sub(r"\s+", " ", text)


def test_a_search_is_one_statement_of_two_stages() -> None:
    """Shortlist by the short vector, results by the full one, payload by key."""
    text = compiled(search(select(Item.id), Item.embedding, QUERY, k=3, shortlist=50, complete=False))
    distance, shortlist, results, payload = re.fullmatch(  # type: ignore[union-attr]
        r"WITH pgmrl_reranked AS \(SELECT key_1, full_vector <=> (.*) AS distance FROM "
        r"\((SELECT .*)\) AS pgmrl_shortlist\), pgmrl_results AS \((.*)\) (SELECT .*)",
        text,
    ).groups()
    assert "query_1" in distance
    order, settings = re.fullmatch(  # type: ignore[union-attr]
        r".* ORDER BY items\.embedding_short_4 <=> \(SELECT (.*) WHERE \((.*)\) IS NOT NULL\) LIMIT 50", shortlist
    ).groups()
    assert order.startswith("l2_normalize(subvector(")
    assert "set_config('hnsw.ef_search', '50', true)" in settings
    assert "'relaxed_order'" in settings
    assert results == "SELECT key_1, distance FROM pgmrl_reranked ORDER BY distance, key_1 LIMIT 3"
    assert payload.endswith("ORDER BY pgmrl_results.distance, items.id")
    assert text.count("LIMIT") == 2


def test_under_a_filter_the_shortlist_is_found_by_its_keys() -> None:
    """Only the filter, the key and the short vector are read, for ten times the rows; full vectors of the first."""
    filtered = select(Item.id).where(Item.section == "games")
    text = compiled(search(filtered, Item.embedding, QUERY, k=3, shortlist=50, complete=False))
    candidates, shortlist, payload = re.fullmatch(  # type: ignore[union-attr]
        r"WITH pgmrl_candidates AS MATERIALIZED \((.*)\), pgmrl_reranked AS \(SELECT [^()]* <=> .* AS distance FROM "
        r"\((SELECT items.*)\) AS pgmrl_shortlist\), pgmrl_results AS \(.*\) (SELECT .*)",
        text,
    ).groups()
    assert candidates.startswith("SELECT items.id AS key_1 FROM items WHERE items.section = ")
    assert candidates.endswith("LIMIT 500")
    assert shortlist == (
        "SELECT items.id AS key_1, items.embedding AS full_vector FROM items JOIN "
        "(SELECT key_1 FROM pgmrl_candidates LIMIT 50) AS nearest ON items.id = nearest.key_1 LIMIT 50"
    )
    assert "items.section = " in payload


def test_the_limits_are_literals() -> None:
    """A bound LIMIT changes the plan once the server plans generically."""
    statement = search(select(Item), Item.embedding, QUERY, k=7, shortlist=77)
    parameters = statement.compile(dialect=postgresql.psycopg.dialect()).params  # type: ignore[no-untyped-call]
    assert not {7, 77} & {value for value in parameters.values() if isinstance(value, int)}


def test_no_vector_is_fetched() -> None:
    """Both vector columns are deferred; the payload names neither."""
    payload = compiled(search(select(Item), Item.embedding, QUERY)).rpartition(") SELECT ")[2]
    assert "items.section" in payload
    assert "embedding" not in payload


def test_beyond_a_thousand_candidates_the_scan_may_go_on() -> None:
    """The server caps ef_search, and stops an iterating scan after 20,000 tuples."""
    text = compiled(search(select(Item), Item.embedding, QUERY, k=10, shortlist=30_000))
    assert "'hnsw.ef_search', '1000'" in text
    assert "'hnsw.max_scan_tuples', '120000'" in text


def test_an_exact_search_reads_no_short_vector_and_sets_nothing() -> None:
    """And keeps an index on the full column out."""
    text = compiled(search(select(Item.id), Item.embedding, QUERY, exact=True))
    assert "set_config" not in text
    assert "embedding_short" not in text
    assert re.search(
        r"items\.embedding <=> .* OFFSET 0\) AS candidates ORDER BY candidates\.distance, candidates\.key_1 LIMIT 10",
        text,
    )


def test_axes_held_by_the_client_shorten_the_query_there() -> None:
    """Otherwise the server does, once, in a scalar subquery."""
    assert "rotate_v1" not in compiled(search(select(Item.id), Item.held, QUERY))
    assert "(SELECT l2_normalize(pgmrl.rotate_v1(" in compiled(search(select(Item.id), Item.pinned, QUERY))


def test_a_join_to_many_only_asks_whether_the_row_is_among_them() -> None:
    """So that a row takes one place of the shortlist."""
    text = compiled(search(select(Item.id).join(Item.tags).where(Tag.name == "x"), Item.embedding, QUERY))
    assert "EXISTS (SELECT 1 FROM items JOIN tags" in text


PARENT = aliased(Item, name="parents")
SECTIONS = select(Tag.name).distinct()


@pytest.mark.parametrize(
    ("statement", "direct"),
    [
        (select(Item.id), True),
        (select(func.upper(Item.section), Item.id + 1, literal_column("3")), True),
        (select(Item.id).select_from(Item), True),
        (select(Item.id).where(Item.section == "x", or_(Item.id > 3, Item.section.in_(["a", "b"]))), True),
        (select(Item.id).where(Item.tags.any(Tag.name == "x")), True),
        (select(Item.id).where(Item.section.in_(SECTIONS)), True),
        (select(Item.id).where(Item.section == SECTIONS.limit(1).scalar_subquery()), True),
        (select(Item.id, SECTIONS.limit(1).scalar_subquery()), True),
        (select(Item.__table__.c.id), True),
        (select(Item.id, Tag.name).where(Tag.item_id == Item.id), False),
        (select(Item.id).where(Tag.item_id == Item.id), False),
        (select(Item.id).where(or_(Item.id == 3, not_(func.upper(Tag.name) == "X"))), False),
        (select(Item.id).join(Item.tags), False),
        (select(Item.id).join(Tag), False),
        (select(Item.id).outerjoin(Tag, Tag.item_id == Item.id), False),
        (select(Item.id).select_from(join(Item, Tag)), False),
        (select(Item.id).join(PARENT, PARENT.id == Item.id), False),
        (select(Item.id).join(Item.twins.of_type(PARENT)), False),
        (select(Item.id).where(Item.id == select(Tag.item_id).subquery().c.item_id), False),
        (select(Item.id, func.unnest(func.array([1, 2])).table_valued("n").c.n), False),
    ],
)
def test_a_select_of_one_table_is_taken_as_it_is(statement: Any, direct: bool) -> None:
    """Whatever its subqueries read; any other table may bring a row more than once."""
    text = compiled(search(statement, Item.embedding, QUERY, complete=False))
    shortlist = text[: text.index("pgmrl_results AS (")]
    assert ("EXISTS (SELECT 1 FROM" in shortlist and " AS items_1" in shortlist) != direct


def test_an_alias_is_searched_under_its_name() -> None:
    """The operator must find the alias's columns, not the table's."""
    other = aliased(Item, name="other")
    text = compiled(search(select(other.id), other.embedding, QUERY))
    assert "other.embedding_short_4 <=> " in text
    assert "FROM items AS other" in text


def test_a_statement_is_built_alike_each_time() -> None:
    """SQLAlchemy's cache of compiled statements holds one entry for all queries."""
    first, second = (search(select(Item), Item.embedding, QUERY * n) for n in (1, 2))
    assert first._generate_cache_key() == second._generate_cache_key()
    assert first._generate_cache_key() is not None
    assert first._generate_cache_key() != search(select(Item), Item.embedding, QUERY, k=9)._generate_cache_key()


def test_an_unlearned_rotation_warns_and_is_exact() -> None:
    """Said at the caller's line; exact=True asks for it and is silent."""
    with pytest.warns(ExactSearchWarning, match="pgmrl fit-rotation") as caught:
        text = compiled(search(select(Item.id), Item.early, QUERY))
    assert caught[0].filename == __file__
    assert "set_config" not in text
    search(select(Item.id), Item.early, QUERY, exact=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0: expected at least 1"),
        ({"k": -1}, "k=-1"),
        ({"k": 2.5}, r"k=2\.5: expected a whole number"),
        ({"k": True}, "k=True: expected a whole number"),
        ({"k": "10"}, "k='10': expected a whole number"),
        ({"k": None}, "k=None: expected a whole number"),
        ({"shortlist": 0}, "shortlist=0"),
        ({"k": 50, "shortlist": 49}, "smaller than k=50"),
        ({"shortlist": 100_001}, "expected at most 100,000"),
        ({"shortlist": 10, "oversample": 2}, "give one of them"),
        ({"oversample": 0}, "oversample=0"),
        ({"oversample": 0.5}, r"oversample=0\.5"),
        ({"oversample": -3}, "oversample=-3"),
        ({"oversample": float("nan")}, "oversample=nan"),
        ({"oversample": float("inf")}, "oversample=inf"),
        ({"oversample": "4"}, "oversample='4'"),
        ({"ef_search": 0}, "ef_search=0"),
        ({"ef_search": 1001}, "1 to 1000"),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_numbers_that_make_no_sense(options: dict[str, Any], message: str, exact: bool) -> None:
    """Each names the argument and its value, for one query and for many."""
    with pytest.raises(SearchError, match=message):
        search(select(Item), Item.embedding, QUERY, exact=exact, **options)
    with pytest.raises(SearchError, match=message):
        search_many(select(Item), Item.embedding, [QUERY], exact=exact, **options)


def test_the_size_of_the_shortlist() -> None:
    """Ten times k, at least 40; NumPy's integers are integers."""
    assert [shortlist_size(k) for k in (1, 4, 5, 100)] == [40, 40, 50, 1000]
    assert shortlist_size(10, oversample=30) == 300
    assert shortlist_size(10, oversample=1) == 40
    assert shortlist_size(np.int64(10), np.int32(20)) == 20  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: select(Tag), "does not read items"),
        (lambda: select(aliased(Item)), "does not read items"),
        (lambda: select(Item).limit(5), "has LIMIT"),
        (lambda: select(Item).fetch(5), "has LIMIT"),
        (lambda: select(Item).offset(5), "has OFFSET"),
        (lambda: select(Item.section, func.count()).group_by(Item.section), "has GROUP BY"),
        (lambda: select(Item.id).having(func.count() > 1), "has GROUP BY"),
        (lambda: select(Item).distinct(), "has DISTINCT"),
        (lambda: distinct_on(select(Item), Item.section), "has DISTINCT"),
        (lambda: select(Item).order_by(Item.id), "has ORDER BY"),
        (lambda: select(Item).with_for_update(), "has FOR UPDATE"),
        (lambda: union(select(Item.id), select(Item.id)), "expected a Select"),
        (lambda: Item, "expected a Select"),
        (lambda: "SELECT 1", "expected a Select"),
        (lambda: None, "expected a Select"),
    ],
)
def test_a_select_that_cannot_be_searched(make: Callable[[], Any], message: str) -> None:
    """Each names the clause and what to do with it."""
    with pytest.raises(SearchError, match=message):
        search(make(), Item.embedding, QUERY)
    with pytest.raises(SearchError, match=message):
        search_many(make(), Item.embedding, [QUERY])


@pytest.mark.parametrize("column", [Item.section, Item.id, Item.tags, Item, "embedding", None, 3])
def test_what_is_no_matryoshka_column(column: Any) -> None:
    """Declared otherwise, or no column at all."""
    with pytest.raises(DefinitionError, match=r"is not a Matryoshka column.*add_short"):
        search(select(Item), column, QUERY)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (None, "is NULL"),
        (QUERY[:7], "8 dimensions"),
        ([*QUERY, 1.0], "8 dimensions"),
        ([QUERY], "8 dimensions"),
        ("text", "not made of numbers"),
        (QUERY * np.nan, "nan at dimension 1"),
        ([*QUERY[:7], float("inf")], "inf at dimension 8"),
        (QUERY * 0, "all zeros"),
        (np.ma.masked_equal(QUERY, QUERY[0]), "masked"),
        (QUERY * 1j, "complex"),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_query_that_the_server_would_answer_wrongly(query: Any, message: str, exact: bool) -> None:
    """Named with the column it was meant for."""
    with pytest.raises(VectorError, match=message) as caught:
        search(select(Item), Item.embedding, query, exact=exact)
    assert "items.embedding" in str(caught.value)


def test_a_zero_query_is_a_point_under_l2() -> None:
    """Only a direction is undefined."""
    assert "<->" in compiled(search(select(Item.id), Item.flat, QUERY * 0))


@pytest.mark.parametrize("exact", [False, True])
def test_a_query_beyond_half_precision_is_none_under_l2(exact: bool) -> None:
    """Where its length counts it cannot be scaled; under cosine it is."""
    with pytest.raises(VectorError, match="half precision's 65504"):
        search(select(Item), Item.flat, QUERY * 1e5, exact=exact)
    assert "<=>" in compiled(search(select(Item.id), Item.embedding, QUERY * 1e5, exact=exact))


def test_the_short_vectors_of_many_queries_come_from_who_has_the_axes() -> None:
    """Behind the full ones, from a client that holds a rotation; else the server shortens."""
    held, pinned, flat = (
        compiled(search_many(select(Item.id), column, [QUERY, QUERY])) for column in (Item.held, Item.pinned, Item.flat)
    )
    assert "(flat.items[number * 12 + 9 : (number + 1) * 12])::halfvec(4) AS short_query" in held
    assert "rotate_v1" not in held
    assert "rotate_v1(full_query" in pinned
    assert "subvector(full_query, 1, 4)" in flat


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.stack([QUERY, QUERY * np.nan]), "query 1 .*nan at dimension 1"),
        (np.stack([QUERY, QUERY * 0]), "query 1 .*all zeros"),
        (QUERY, r"expected \(n, 8\)"),
        (np.empty((0, 8)), "there are no queries"),
        (None, "queries"),
    ],
)
def test_the_first_wrong_query_of_many_is_named(queries: Any, message: str) -> None:
    """By its number."""
    with pytest.raises(PgmrlError, match=message):
        search_many(select(Item), Item.embedding, queries)


@pytest.mark.parametrize("value", [None, QUERY * np.nan, QUERY * 0, QUERY[:3]])
def test_a_query_given_at_execution_is_checked_then(value: Any) -> None:
    """A Select built once, executed with the caller's own parameter."""
    statement = search(select(Item), Item.embedding, bindparam("mine"))
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    made = statement.compile(dialect=dialect)
    process = made._bind_processors["mine"]
    assert callable(process)
    with pytest.raises(VectorError):
        process(value)


def test_a_query_without_a_short_direction_is_refused() -> None:
    """The index would answer with any rows; the exact search may still be asked."""
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    tail = np.array([0, 0, 0, 0, 1, 2, 3, 4], np.float32)
    with pytest.raises(VectorError, match="leading 4 dimensions"):
        search(select(table), table.c.e, tail)
    with pytest.raises(VectorError, match="query 1 for"):
        search_many(select(table), table.c.e, [np.ones(8), tail])
    assert search(select(table), table.c.e, tail, exact=True) is not None
    by_length = Table(
        "u", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4), "l2"))
    )
    assert search(select(by_length), by_length.c.e, tail) is not None
