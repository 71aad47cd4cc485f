"""Options, pages and thresholds: the statement's parts, and every argument that is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import ForeignKey, bindparam, select, text, union_all
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, with_loader_criteria

from pgmrl.errors import SearchError
from pgmrl.model.columns import matryoshka
from pgmrl.model.shortening import Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups
from pgmrl.searching.hybrid import search_hybrid
from pgmrl.searching.options import OPTION_NAMES, SearchOptions
from pgmrl.searching.retrievers import Nearest
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

QUERY = np.arange(1.0, 9.0)


class Base(DeclarativeBase):
    """The models of this file."""


class Item(Base):
    """A prefix under cosine and under L2."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4))
    flat: Mapped[VectorArray] = matryoshka(8, Short(4), metric="l2")


class Tag(Base):
    """Many for one item; a composite key."""

    __tablename__ = "tags"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4))


def compiled(statement: Any) -> str:
    """The statement as it is sent."""
    made = str(statement.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]
    return re.sub(r"\s+", " ", made)


def names_of(statement: Any) -> list[str]:
    """The CTEs of a statement, in order."""
    return re.findall(r"(pgmrl_\w+) AS (?:MATERIALIZED )?\(", compiled(statement))


GAMES = select(Item.id).where(Item.section == "games")
SEARCHES: dict[str, Callable[..., Any]] = {
    "search": lambda **options: search(GAMES, Item.embedding, QUERY, **options),
    "search_many": lambda **options: search_many(GAMES, Item.embedding, [QUERY], **options),
    "search_groups": lambda **options: search_groups(GAMES, Item.embedding, QUERY, Item.section, **options),
    "search_diverse": lambda **options: search_diverse(GAMES, Item.embedding, QUERY, **options),
    "search_funnel": lambda **options: search_funnel(GAMES, Item.embedding, QUERY, [(6, 20)], **options),
    "Nearest": lambda **options: search_hybrid(GAMES, [Nearest(Item.embedding, QUERY, **options)]),
}
SHORT = ["pgmrl_reranked", "pgmrl_results"]
COMPLETE = ["pgmrl_reranked", "pgmrl_exact", "pgmrl_results"]
FILTERED = ["pgmrl_candidates", *COMPLETE]


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_takes_the_options(name: str) -> None:
    """By keyword or as a dict that is kept; None is the default."""
    make = SEARCHES[name]
    options = SearchOptions(shortlist=200, ef_search=150, complete=False)
    made = compiled(make(**options))
    assert made == compiled(make(shortlist=200, ef_search=150, complete=False))
    assert "LIMIT 200)" in made
    assert "'hnsw.ef_search', '150'" in made
    assert "pgmrl_exact" not in made
    assert "pgmrl_exact" in compiled(make())
    assert "set_config" not in compiled(make(exact=True))
    assert "LIMIT 250)" in compiled(make(oversample=25))
    assert compiled(make(**dict.fromkeys(OPTION_NAMES))) == compiled(make())


@pytest.mark.parametrize("name", SEARCHES)
def test_an_unknown_option(name: str) -> None:
    """As any unknown keyword of Python, and it says which there are."""
    message = "unexpected keyword argument 'shortlits': .*shortlist, oversample, ef_search, exact, complete"
    with pytest.raises(TypeError, match=message):
        SEARCHES[name](shortlits=200)


def test_no_option_is_undocumented() -> None:
    """Each is in the one description of them."""
    described = re.findall(r"^    (\w+): ", inspect.getdoc(SearchOptions) or "", flags=re.MULTILINE)
    assert set(described) == OPTION_NAMES


# -- the exact fallback --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "options", "expected"),
    [
        (select(Item.id), {}, COMPLETE),
        (select(Item.id), {"complete": False}, SHORT),
        (select(Item.id), {"complete": None}, COMPLETE),
        (select(Item.id), {"offset": 0}, COMPLETE),
        (select(Item.id), {"max_distance": 0.3}, COMPLETE),
        (select(Item.id), {"after": (0.5, 3)}, COMPLETE),
        (select(Item.id), {"after": (0.5, 3), "complete": False}, SHORT),
        (GAMES, {}, FILTERED),
        (GAMES, {"complete": False}, ["pgmrl_candidates", *SHORT]),
        (GAMES, {"exact": True}, ["pgmrl_results"]),
        (GAMES, {"exact": True, "after": (0.5, 3)}, ["pgmrl_exact", "pgmrl_results"]),
        (select(Item.id).join(Tag), {}, FILTERED),
        (select(Item.id).options(with_loader_criteria(Item, Item.section == "games")), {}, FILTERED),
    ],
)
def test_the_exact_fallback_is_there_unless_it_is_declined(
    statement: Any, options: dict[str, Any], expected: list[str]
) -> None:
    """Python cannot see row-level security, so it is there without a filter too."""
    assert names_of(search(statement, Item.embedding, QUERY, **options)) == expected


def test_the_exact_fallback_asks_whether_the_shortlist_is_full() -> None:
    """Both branches by the same number, which depends on no row; no index on the full column orders the exact one."""
    made = compiled(search(GAMES, Item.embedding, QUERY, k=3, shortlist=50))
    short = r"\(SELECT count\(\*\) FROM pgmrl_reranked\) < 50"
    assert re.search(r"pgmrl_exact AS \(SELECT [^()]* AS key_1, .* LIMIT \(SELECT CAST\(NULL AS bigint\)\)\)", made)
    assert re.search(rf"FROM \(SELECT \* FROM pgmrl_reranked WHERE NOT \({short}\) UNION ALL", made)
    assert re.search(rf"\(SELECT \* FROM pgmrl_exact LIMIT \(SELECT CASE WHEN {short} THEN NULL ELSE 0 END\)\)", made)


def test_all_pages_come_from_one_ranking() -> None:
    """The shortlist is full or not used, whatever the page."""
    for options in ({"offset": 0}, {"offset": 40}, {"after": (0.5, 3)}):
        made = compiled(search(GAMES, Item.embedding, QUERY, k=20, shortlist=100, **options))
        assert made.count("(SELECT count(*) FROM pgmrl_reranked) < 100") == 2
        assert ("LIMIT 20 OFFSET 40)" in made) == (options == {"offset": 40})


def test_values_are_bound() -> None:
    """A threshold and a last row may be other ones each time, and the text stays."""
    texts = set()
    for number in (1, 2):
        made = search(GAMES, Item.embedding, QUERY, after=(number / 10, number), max_distance=number / 3)
        assert made._generate_cache_key() is not None
        texts.add(compiled(made))
    assert len(texts) == 1
    parameters = made.compile(dialect=postgresql.psycopg.dialect()).params  # type: ignore[no-untyped-call]
    assert {0.2, 2, 2 / 3} <= {value for value in parameters.values() if isinstance(value, int | float)}


def test_a_callers_own_parameters_do_not_meet_ours() -> None:
    """Whatever they are called."""
    for name in ("pgmrl", "distance", "after", "max_distance", "key_1"):
        statement = select(Item.id).where(text(f"items.id > :{name}_1").bindparams(**{f"{name}_1": 3}))
        made = search(statement, Item.embedding, bindparam(name), after=(0.1, 2), max_distance=3.0)
        assert f"%({name})s" in compiled(made)


def test_columns_are_added_in_order() -> None:
    """Distance, similarity, counts; each by its label."""
    made = search(select(Item.id), Item.flat, QUERY, similarity="score", counts=True, label="far")
    assert list(made.selected_columns.keys()) == ["id", "far", "score", "requested", "returned"]
    assert (
        "(CAST(1 AS double precision) / (CAST(1 AS double precision) + pgmrl_results.distance)) AS score"
        in compiled(made)
    )


def test_two_searches_do_not_meet() -> None:
    """Their parts have the same names, each within its own Select."""
    first, second = (search(select(Item.id), Item.embedding, QUERY * n).subquery() for n in (1, 2))
    for both in (union_all(select(first), select(second)), select(first).join(second, first.c.id == second.c.id)):
        made = compiled(both)
        assert len(re.findall(r"\(WITH pgmrl_reranked AS MATERIALIZED", made)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "offset=-1: expected 0 or more"),
        ({"offset": 1.5}, r"offset=1\.5: expected a whole number"),
        ({"offset": True}, "offset=True: expected a whole number"),
        ({"offset": 3, "after": (0.1, 1)}, "give one of them"),
        ({"offset": 91}, "beyond the shortlist of 100: give a larger shortlist, the same for every page"),
        ({"offset": 40, "shortlist": 45}, "beyond the shortlist of 45"),
        ({"after": 0.5}, r"after=0\.5: expected \(distance, \*key\)"),
        ({"after": "ab"}, r"expected \(distance, \*key\)"),
        ({"after": (0.5,)}, r"expected \(distance, \*key\), the distance and the key"),
        ({"after": (0.5, 1, 2)}, r"expected \(distance, \*key\)"),
        ({"after": (None, 1)}, "the distance in after=None: expected a finite number"),
        ({"after": (float("nan"), 1)}, "the distance in after=nan"),
        ({"after": ("0.5", 1)}, "the distance in after='0.5'"),
        ({"after": (0.5, None)}, "expected a key without None"),
        ({"max_distance": float("nan")}, "max_distance=nan: expected a finite number"),
        ({"max_distance": float("inf")}, "max_distance=inf"),
        ({"max_distance": True}, "max_distance=True"),
        ({"max_distance": "0.3"}, "max_distance='0.3'"),
        ({"similarity": "distance"}, "two columns of the result would be called 'distance'"),
        ({"similarity": "returned", "counts": True}, "would be called 'returned'"),
        ({"similarity": ""}, "label '': expected a text"),
        ({"similarity": True}, "label True: expected a text"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    """Each names the argument, its value and the remedy."""
    with pytest.raises(SearchError, match=message):
        search(select(Item.id), Item.embedding, QUERY, **options)


def test_a_composite_key_comes_whole() -> None:
    """With the distance before it."""
    with pytest.raises(SearchError, match=r"the distance and the 2 parts of the key of the last row"):
        search(select(Tag), Tag.embedding, QUERY, after=(0.5, 1))
    made = compiled(search(select(Tag), Tag.embedding, QUERY, after=(0.5, 1, "x")))
    assert re.search(r"\(distance, key_1, key_2\) > \(%\(pgmrl_distance_\d+\)s", made)


def test_an_exact_search_has_no_shortlist_to_leave() -> None:
    """So its pages go on."""
    assert "LIMIT 10010)" in compiled(search(select(Item.id), Item.embedding, QUERY, offset=10_000, exact=True))


def test_many_queries_have_an_exact_fallback_each() -> None:
    """Inside the LATERAL."""
    assert "pgmrl_exact" in compiled(search_many(GAMES, Item.embedding, [QUERY]))
    assert "pgmrl_exact" not in compiled(search_many(GAMES, Item.embedding, [QUERY], complete=False))
    assert "pgmrl_exact" in compiled(search_many(select(Item.id), Item.embedding, [QUERY]))
