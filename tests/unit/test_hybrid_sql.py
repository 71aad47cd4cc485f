"""The shape of the hybrid statement, the full-text declaration, and every argument that is refused; no database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Enum, ForeignKey, Integer, MetaData, String, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, relationship
from sqlalchemy.schema import CreateIndex, CreateTable

from pgmrl import (
    FullText,
    Matryoshka,
    Nearest,
    Rotation,
    Rrf,
    Short,
    Trigrams,
    VectorArray,
    Weighted,
    Words,
    full_text,
    matryoshka,
    search_hybrid,
    trigram_index,
)
from pgmrl.errors import DefinitionError, ExactSearchWarning, SearchError, VectorError

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY = np.arange(1.0, 9.0)


class Base(DeclarativeBase):
    """The models of this file."""


class Item(Base):
    """Two vectors, words of two columns, and words that somebody else declared."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    body: Mapped[str] = mapped_column(Text)
    words: Mapped[str] = full_text({"name": "A", "body": None}, config="english")
    other_words: Mapped[str] = mapped_column(TSVECTOR, deferred=True)
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4))
    second: Mapped[VectorArray] = matryoshka(8, Short(4), metric="l2")
    early: Mapped[VectorArray] = matryoshka(8, Short(4, Rotation()))
    tags: Mapped[list[Tag]] = relationship()


class Tag(Base):
    """Many for one item."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    words: Mapped[str] = mapped_column(TSVECTOR)


def compiled(statement: Any) -> str:
    """The statement as it is sent."""
    text = str(statement.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]
    return re.sub(r"\s+", " ", text)


def vector(**options: Any) -> Nearest:
    """A retriever by vectors."""
    return Nearest(Item.embedding, QUERY, **options)


def words(text: Any = "train game", **options: Any) -> Words:
    """A retriever by words."""
    return Words(Item.words, text, **options)


# -- the statement -------------------------------------------------------------------------------------------------


def test_each_retriever_is_a_list_and_the_lists_are_fused() -> None:
    """Filters are in each; the payload is read for the results alone."""
    near = vector(shortlist=50, complete=False)
    text = compiled(search_hybrid(select(Item.id).where(Item.name == "x"), [near, words()], k=3))
    shortlist, nearest, by_words, fused, payload = re.fullmatch(  # type: ignore[union-attr]
        r"WITH pgmrl_list_1 AS \(WITH pgmrl_candidates AS MATERIALIZED \((.*)\), pgmrl_results AS \((.*)\), "
        r"pgmrl_list_2 AS \((.*)\), pgmrl_fused AS \((.*)\) (SELECT items.*)",
        text,
    ).groups()
    for part in (shortlist, by_words, payload):
        assert "items.name = " in part
    assert shortlist.endswith("AS nearest ON items.id = nearest.key_1 LIMIT 50) AS pgmrl_shortlist")
    results, rows = nearest.split(") SELECT ")
    assert results.endswith("FROM pgmrl_reranked ORDER BY distance, key_1 LIMIT 50")
    assert rows.endswith(" WHERE pgmrl_results.distance != 'NaN'")
    assert "'english'::pg_catalog.regconfig" in by_words
    assert by_words.endswith("ORDER BY value DESC, items.id LIMIT 40")
    assert fused.endswith("GROUP BY key_1 ORDER BY score DESC, key_1 LIMIT 3")
    assert payload.endswith("ORDER BY pgmrl_fused.score DESC, items.id")


def test_the_columns_of_the_result() -> None:
    """The caller's, the score, a rank for each retriever by number or label."""
    made = search_hybrid(select(Item.id, Item.name), [vector(), words(label="by words")], label="fused")
    assert [column.name for column in made.selected_columns] == ["id", "name", "fused", "rank_1", "by words"]


def test_no_words_are_fetched() -> None:
    """They are deferred."""
    payload = compiled(search_hybrid(select(Item), [words()])).rpartition(") SELECT ")[2]
    assert "items.body" in payload
    assert "words" not in payload


@pytest.mark.parametrize("fuse", [Rrf(), Weighted()])
def test_a_statement_is_built_alike_each_time(fuse: Any) -> None:
    """SQLAlchemy's cache holds one entry whatever the vector, the text and the weights are."""

    def make(n: int) -> Any:
        given: list[Any] = [
            Nearest(Item.embedding, QUERY * n, weight=n),
            words(f"text {n}", weight=n),
            Trigrams(Item.name, f"t{n}"),
        ]
        return search_hybrid(select(Item), given, fuse=fuse)

    assert make(1)._generate_cache_key() == make(2)._generate_cache_key()
    assert make(1)._generate_cache_key() is not None


def test_the_text_is_a_parameter() -> None:
    """Never part of the statement."""
    hostile = "'); DROP TABLE items; -- $$ :x %(y)s & | ! <-> \\"
    made = search_hybrid(select(Item.id), [words(hostile), words(hostile, match="web"), Trigrams(Item.name, hostile)])
    assert "DROP" not in compiled(made)
    parameters = made.compile(dialect=postgresql.psycopg.dialect()).params  # type: ignore[no-untyped-call]
    assert list(parameters.values()).count(hostile) == 3


def test_two_retrievers_of_a_kind() -> None:
    """Names of theirs do not clash."""
    text = compiled(search_hybrid(select(Item.id), [vector(), Nearest(Item.second, QUERY), words(), words("other")]))
    for name in (f"pgmrl_list_{n}" for n in range(1, 5)):
        assert text.count(f"{name} AS") == 1
    assert text.count("(WITH pgmrl_reranked AS MATERIALIZED") == 2  # each in a list of its own
    assert "%(query_1)s" in text
    assert "%(query_2)s" in text


def test_a_join_to_many_only_asks_whether_the_row_is_among_them() -> None:
    """In every list."""
    text = compiled(search_hybrid(select(Item.id).join(Item.tags), [vector(), words(), Trigrams(Item.name, "x")]))
    assert text.count("EXISTS (SELECT 1 FROM items JOIN tags") == 4  # the vector's list has an exact fallback


def test_an_unlearned_rotation_warns_and_is_exact() -> None:
    """Said at the caller's line; exact=True asks for it and is silent."""
    with pytest.warns(ExactSearchWarning, match="pgmrl fit-rotation") as caught:
        text = compiled(search_hybrid(select(Item.id), [Nearest(Item.early, QUERY)]))
    assert caught[0].filename == __file__
    assert "set_config" not in text
    search_hybrid(select(Item.id), [Nearest(Item.early, QUERY, exact=True)])


def test_trigrams_in_another_schema() -> None:
    """Operator and function are qualified."""
    text = compiled(search_hybrid(select(Item.id), [Trigrams(Item.name, "gimp", extension_schema="Ext", by="whole")]))
    assert 'OPERATOR("Ext".%%)' in text
    assert 'OPERATOR("Ext".<->)' in text


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search_hybrid(select(Item), []), "there are no retrievers"),
        (lambda: search_hybrid(select(Item), vector()), "expected a list of Nearest"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), "words"), "expected a list of Nearest"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), [Item.words]), "retriever 1: expected"),  # type: ignore[list-item]
        (lambda: search_hybrid(select(Item), [words()], k=0), "k=0"),
        (lambda: search_hybrid(select(Item), [words()], k=True), "k=True"),
        (lambda: search_hybrid(select(Item), [words()], k=2.5), r"k=2\.5"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), [words()], fuse="rrf"), "fuse='rrf'"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), [words()], fuse=Rrf), "Rrf"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), [words(), words(label="rank_1")]), "would be called 'rank_1'"),
        (lambda: search_hybrid(select(Item), [words()], label="rank_1"), "would be called 'rank_1'"),
        (lambda: search_hybrid(select(Item), [words(weight=-1)]), "weight=-1 of retriever 1"),
        (lambda: search_hybrid(select(Item), [vector(), words(weight=0)]), "weight=0 of retriever 2"),
        (lambda: search_hybrid(select(Item), [words(weight=float("nan"))]), "weight=nan"),
        (lambda: search_hybrid(select(Item), [words(weight=float("inf"))]), "weight=inf"),
        (lambda: search_hybrid(select(Item), [words(weight=True)]), "weight=True"),
        (lambda: search_hybrid(select(Item), [words(weight="1")]), "weight='1'"),
        (lambda: search_hybrid(select(Item), [words(limit=0)]), "limit=0"),
        (lambda: search_hybrid(select(Item), [words(limit=True)]), "limit=True"),
        (lambda: search_hybrid(select(Item), [Trigrams(Item.name, "x", limit=-1)]), "limit=-1"),
        (lambda: search_hybrid(select(Item), [vector(limit=101)]), "limit=101 is larger than shortlist=100"),
        (lambda: search_hybrid(select(Item), [vector(shortlist=5)]), "smaller than k=10"),
        (lambda: search_hybrid(select(Item), [vector(ef_search=1001)]), "1 to 1000"),
        (lambda: search_hybrid(select(Item), [vector(ef_search=True)]), "ef_search=True"),
        (lambda: search_hybrid(select(Item), [words(match="some")]), "match='some'"),
        (lambda: search_hybrid(select(Item), [words(rank="bm25")]), "rank='bm25'"),
        (lambda: search_hybrid(select(Item), [Trigrams(Item.name, "x", by="letter")]), "by='letter'"),  # type: ignore[arg-type]
        (lambda: search_hybrid(select(Item), [Trigrams(Item.name, "x", threshold=0)]), "threshold=0"),
        (lambda: search_hybrid(select(Item), [Trigrams(Item.name, "x", threshold=1.1)]), r"threshold=1\.1"),
        (lambda: search_hybrid(select(Item), [Trigrams(Item.name, "x", threshold=float("nan"))]), "threshold=nan"),
        (lambda: search_hybrid(select(Item), [words(config="simple")]), "made with 'english'"),
        (lambda: search_hybrid(select(Item).limit(5), [words()]), "has LIMIT"),
        (lambda: search_hybrid(select(Item).order_by(Item.id), [words()]), "has ORDER BY"),
        (lambda: search_hybrid(select(func.count()).group_by(Item.id), [words()]), "has GROUP BY"),
        (lambda: search_hybrid(select(Tag), [words()]), "does not read items"),
        (lambda: search_hybrid(select(Item).join(Item.tags), [vector(), Words(Tag.words, "x", config="a")]), "same"),
        (lambda: search_hybrid(select(Item, aliased(Item)), [vector(), Nearest(aliased(Item).embedding, QUERY)]), "e"),
        (lambda: search_hybrid(Item, [words()]), "expected a Select"),  # type: ignore[arg-type]
        (lambda: Rrf(-1), "Rrf"),
        (lambda: Rrf(float("nan")), "Rrf"),
        (lambda: Rrf(True), "Rrf"),
        (lambda: Rrf("60"), "Rrf"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense(make: Callable[[], Any], message: str) -> None:
    """Each names the argument and its value."""
    with pytest.raises(SearchError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        (None, "expected str, got NoneType"),
        (3, "expected str, got int"),
        (b"bytes", "expected str, got bytes"),
        ("a\0b", "NUL character at 1"),
        ("x" * 1_000_000, "expected at most 1,000 characters, got 1,000,000"),
        ("a\udc80", "no valid Unicode at 1"),
    ],
)
def test_a_text_that_cannot_be_searched(text: Any, message: str) -> None:
    """Named with the column; when it is the caller's own parameter, once it is sent."""
    makers: list[Callable[[], Any]] = [lambda: words(text), lambda: Trigrams(Item.name, text)]
    for make in makers:
        with pytest.raises(SearchError, match=message) as caught:
            search_hybrid(select(Item), [make()])
        assert "items." in str(caught.value)
    made: Any = search_hybrid(select(Item), [words(bindparam("mine"))])
    process = made.compile(dialect=postgresql.psycopg.dialect())._bind_processors["mine"]  # type: ignore[no-untyped-call]
    assert callable(process)
    with pytest.raises(SearchError, match=message):
        process(text)


@pytest.mark.parametrize("query", [None, QUERY * 0, QUERY[:7], QUERY * np.nan])
def test_a_vector_that_cannot_be_searched(query: Any) -> None:
    """As `search` refuses it."""
    with pytest.raises(VectorError, match=r"items\.embedding"):
        search_hybrid(select(Item), [words(), Nearest(Item.embedding, query)])


@pytest.mark.parametrize(
    ("retriever", "message"),
    [
        (Nearest(Item.name, QUERY), "not a Matryoshka column"),
        (Words(Item.name, "x"), "not tsvector"),
        (Words("words", "x"), "expected a mapped attribute or a Table's column"),
        (Words(Item.other_words, "x"), "say config="),
        (Words(Item.other_words, "x", config=""), "config=''"),
        (Trigrams(Item.id, "x"), "expected a text column"),
    ],
)
def test_a_column_of_another_kind(retriever: Any, message: str) -> None:
    """Each says what would be one."""
    with pytest.raises(DefinitionError, match=message):
        search_hybrid(select(Item), [retriever])


def test_one_parameter_for_two_vectors_of_different_kinds() -> None:
    """It has one value, and would be sent in one of the two forms."""
    both = [Nearest(Item.embedding, bindparam("v")), Nearest(Item.second, bindparam("v"))]
    with pytest.raises(SearchError, match="parameter 'v'"):
        search_hybrid(select(Item), both)
    shared: list[Any] = [
        words(bindparam("t")),
        Trigrams(Item.name, bindparam("t")),
        Nearest(Item.embedding, bindparam("v")),
    ]
    assert search_hybrid(select(Item), shared) is not None
    clash: list[Any] = [words(bindparam("v")), Nearest(Item.embedding, bindparam("v"))]
    with pytest.raises(SearchError, match="parameter 'v'"):
        search_hybrid(select(Item), clash)


# -- the declaration -----------------------------------------------------------------------------------------------


def ddl(table: Any) -> str:
    """What creates a table and its indexes."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made: list[Any] = [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))]
    return re.sub(r"\s+", " ", "; ".join(str(one.compile(dialect=dialect)) for one in made))


def test_the_generated_column() -> None:
    """A literal configuration, NULL as empty, the weights, an index."""
    text = ddl(Item.__table__)
    assert (
        "words TSVECTOR GENERATED ALWAYS AS ("
        "setweight(to_tsvector('english'::regconfig, COALESCE(name, ''::character varying)::text), 'A'::\"char\") || "
        "to_tsvector('english'::regconfig, COALESCE(body, ''::text))) STORED NOT NULL" in text
    )
    assert "CREATE INDEX items_words_gin ON items USING gin (words)" in text


def table(*columns: Any) -> Table:
    """A table with two text columns, `a` and `b"b`."""
    first: list[Any] = [Column("id", Integer, primary_key=True), Column("a", String(20)), Column('b"b', Text, key="b")]
    made: Table = Table("t", MetaData(), *first, *columns)
    return made


def test_a_table_and_its_copy() -> None:
    """Columns by key, quoted by name, wherever they stand; a copy has one of each."""
    made = table(Column("w", FullText("later", "b", config="it's")), Column("later", Text))
    text = ddl(made)
    assert "to_tsvector('it''s'::regconfig, COALESCE(later, ''::text)) || " in text
    assert 'COALESCE("b""b", \'\'::text)' in text
    copied = made.to_metadata(MetaData())
    assert ddl(copied) == text
    assert copied.c.w.info == made.c.w.info
    assert search_hybrid(select(copied), [Words(copied.c.w, "x")]) is not None
    assert "gin" not in ddl(table(Column("w", FullText("a", config="english", index=False))))


def test_a_mixin_brings_it_to_each_class() -> None:
    """Each with an expression and an index of its own."""

    class Own(DeclarativeBase):
        pass

    class Texts:
        title: Mapped[str]
        words: Mapped[str] = full_text("title", config="simple")

    class One(Texts, Own):
        __tablename__ = "one"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Two(Texts, Own):
        __tablename__ = "two"
        id: Mapped[int] = mapped_column(primary_key=True)

    for model in (One, Two):
        text = ddl(model.__table__)
        assert text.count("to_tsvector") == 1
        assert text.count("USING gin") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: table(Column("w", FullText("nam", config="english"))),
            r"t\.w is made of 'nam'.* has 'id', 'a', 'b'",
        ),
        (lambda: table(Column("w", FullText("w", config="english"))), "expected another column"),
        (lambda: table(Column("w", FullText("id", config="english"))), "expected a column of String"),
        (
            lambda: table(Column("e", Enum("x", name="e")), Column("w", FullText("e", config="english"))),
            "expected a column of String or Text",
        ),
        (
            lambda: table(Column("v", Matryoshka(8, Short(4))), Column("w", FullText("v", config="simple"))),
            "expected a column of String or Text",
        ),
        (lambda: FullText(config="english"), "name at least one"),
        (lambda: FullText({}, config="english"), "name at least one"),
        (lambda: FullText("a", "a", config="english"), "twice"),
        (lambda: FullText({"a": "E"}, config="english"), "weight of 'a' is 'E'"),  # type: ignore[dict-item]
        (lambda: FullText("a", {"b": "A"}, config="english"), "one mapping"),
        (lambda: FullText("a", config=""), "config=''"),
        (lambda: FullText("a", config=None), "config=None"),  # type: ignore[arg-type]
        (lambda: FullText("a", config="x\0"), "config="),
        (lambda: trigram_index(table().c.id), "expected a text column"),
    ],
)
def test_a_declaration_that_cannot_work(make: Callable[[], Any], message: str) -> None:
    """Said when it is made, at the latest with its table."""
    with pytest.raises(DefinitionError, match=message):
        make()


def test_a_table_that_could_not_be_made_is_not_there() -> None:
    """So that the corrected one can be."""
    metadata = MetaData()
    with pytest.raises(DefinitionError):
        Table("t", metadata, Column("w", FullText("a", config="english")))
    assert "t" not in metadata.tables
