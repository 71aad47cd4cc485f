"""Every kind of search is built once for a shape, and keeps nothing of the searches of it; no database."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import String, Text, bindparam, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import (
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
    search,
    search_diverse,
    search_funnel,
    search_groups,
    search_hybrid,
    search_many,
)
from pgmrl.searching.search_result import SearchResult
from pgmrl.searching.templates import CAPACITY, TEMPLATES, PendingSearch, become_built

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Search = Callable[[Any, NDArray[np.float32]], Any]


class Base(DeclarativeBase):
    """The model of this file."""


class Item(Base):
    """A prefix, a rotation that the client holds, and words."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(Text)
    words: Mapped[str] = full_text("name", config="english")
    flat: Mapped[VectorArray] = matryoshka(8, Short(4))
    held: Mapped[VectorArray] = matryoshka(8, Short(4, by=Rotation.of(np.eye(8)[:4])))


def hybrid(statement: Any, query: Any, **options: Any) -> Any:
    """Of three retrievers; what is asked for goes by the query."""
    lists = [Nearest(Item.held, query), Nearest(Item.flat, query, weight=float(query[0]))]
    return search_hybrid(statement, [*lists, Words(Item.words, f"n{query[0]}"), Trigrams(Item.name, "x")], **options)


KINDS: dict[str, Search] = {
    "search": lambda statement, query: search(statement, Item.held, query),
    "prefix": lambda statement, query: search(statement, Item.flat, query, counts=True, similarity="s"),
    "exact": lambda statement, query: search(statement, Item.flat, query, exact=True),
    "offset": lambda statement, query: search(statement, Item.held, query, offset=10),
    "after": lambda statement, query: search(statement, Item.held, query, after=(float(query[0]), int(query[1]))),
    "exact, after": lambda statement, query: search(statement, Item.flat, query, after=(0.1, 5), exact=True),
    "threshold": lambda statement, query: search(statement, Item.held, query, max_distance=float(query[0])),
    "many": lambda statement, query: search_many(statement, Item.flat, [query] * (1 + int(query[0]) % 3)),
    "many, exact": lambda statement, query: search_many(statement, Item.flat, [query], exact=True),
    "groups": lambda statement, query: search_groups(statement, Item.held, query, Item.section, per_group=2),
    "diverse": lambda statement, query: search_diverse(statement, Item.held, query, relevance=1 / float(query[0])),
    "funnel": lambda statement, query: search_funnel(statement, Item.flat, query, [(6, 100)]),
    "hybrid": hybrid,
    "weighted": lambda statement, query: hybrid(statement, query, fuse=Weighted()),
    "rrf": lambda statement, query: hybrid(statement, query, fuse=Rrf(float(query[0]))),
}


def query_of(number: int) -> NDArray[np.float32]:
    """A query vector, another one for each number."""
    return np.arange(number + 1, number + 9, dtype=np.float32)


def sent(statement: Any) -> tuple[str, dict[str, Any]]:
    """The statement's text and the values of its parameters."""
    compiled = statement.compile(dialect=postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]
    values = {name: np.asarray(value).tolist() for name, value in compiled.params.items()}
    return str(compiled), values


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_shape_is_not_built_again(kind: str) -> None:
    """With other values it has the key of the same search built anew, with these values in their places."""
    texts, values = set(), []
    for number in range(3):
        statement = select(Item.id, Item.name).where(Item.section == f"s{number}")
        KINDS[kind](statement, query_of(90))
        pending, anew = (KINDS[kind](statement, query_of(number)) for _ in range(2))
        assert (type(pending), type(anew)) == (PendingSearch, PendingSearch)
        become_built(anew)
        assert type(anew) is SearchResult
        key, expected = pending._generate_cache_key(), anew._generate_cache_key()
        assert key == expected
        assert type(pending) is PendingSearch
        bound, rebuilt = ([np.asarray(own.value).tolist() for own in one.bindparams] for one in (key, expected))
        assert bound == rebuilt
        assert pending.selected_columns.keys() == anew.selected_columns.keys()
        text, parameters = sent(pending)
        assert (text, parameters) == sent(anew)
        texts.add(text)
        values.append(str(parameters))
    assert len(texts) == 1
    assert len(set(values)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_another_option_is_another_shape(kind: str) -> None:
    """Nothing but values may differ between searches of one shape."""
    statement = select(Item.id)
    known = sent(KINDS[kind](statement, query_of(0)))[0]
    for other in (select(Item.id, Item.name), statement.where(Item.section == "x")):
        assert sent(KINDS[kind](other, query_of(0)))[0] != known
    by_section, by_name = (search_groups(statement, Item.held, query_of(0), by) for by in (Item.section, Item.name))
    assert sent(by_section)[0] != sent(by_name)[0]
    assert list(search(statement, Item.held, query_of(0), label="far").selected_columns.keys()) == ["id", "far"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_search_outlives_it(kind: str) -> None:
    """Neither of the first of its shape nor of later ones: vectors are large."""
    statement, kept = select(Item.id, literal(1).label(f"of {kind}")), []
    for number in range(3):
        query = query_of(number)
        kept.append(weakref.ref(query))
        made = KINDS[kind](statement, query)
        vectors = [weakref.ref(own.value) for own in made._generate_cache_key().bindparams if hasattr(own.value, "T")]
        assert vectors
        kept += vectors
        del query, made, vectors
    gc.collect()
    assert [reference() for reference in kept] == [None] * len(kept)


def test_memory_is_flat() -> None:
    """Over 100,000 searches of 1,000 shapes, which are more than are kept."""
    queries = [query_of(number) / 100 for number in range(30, 130)]

    def run(searches: int) -> int:
        for label in range(1_000):
            statement = select(Item.id, literal(1).label(f"label_{label}"))
            for number in range(searches):
                search(statement, Item.flat, queries[number])
        gc.collect()
        return sys.getallocatedblocks()

    first = run(1)
    assert run(100) < first * 1.01
    assert len(TEMPLATES) == CAPACITY


def test_a_prebuilt_search_hashes_its_key_once() -> None:
    """The key of a search that executes many times is as long as the statement."""
    statement = search(select(Item.id), Item.held, bindparam("q"))
    key = statement._generate_cache_key()
    assert key is statement._generate_cache_key()
    assert key is not None
    assert type(key.key) is not tuple
    assert hash(key.key) == hash(tuple(key.key))
