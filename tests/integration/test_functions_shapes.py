"""SQL functions that end a search otherwise: groups, rows that differ, words beside the vector; the truth by NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Computed, Connection, Index, Integer, MetaData, Table, Text, select, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DBAPIError

from pgmrl import (
    Nearest,
    SqlFunctions,
    install_functions,
    load_settings,
    reflect,
    search,
    search_diverse,
    search_groups,
    search_hybrid,
)
from pgmrl.database.settings import Setting, store_setting
from pgmrl.errors import DefinitionError, MigrationError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.conftest import WORDS, vector_text
from tests.databases import indexed_afterwards, vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tests.corpus import Corpus
else:
    Corpus = Engine = Any

ROWS, DIMS = 3_000, 96


@pytest.fixture(scope="module")
def made(module_engine: Engine, corpus: Corpus) -> Engine:
    """Passages with their words; grouped by package."""
    table = Table(
        "passages",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", Text),
        Column("text", Text),
        Column("package", Text),
        Column("words", TSVECTOR, Computed(WORDS, persisted=True)),
        Column("embedding", Matryoshka(DIMS, Short(48))),
    )
    Index("passages_words", table.c.words, postgresql_using="gin")
    rows = [
        {name: one[name] for name in ("name", "text", "package")} | {"id": n, "embedding": vector}
        for n, (one, vector) in enumerate(zip(corpus.passages[:ROWS], corpus.documents[:ROWS, :DIMS], strict=True))
    ]
    rows += [{"id": ROWS + n, "name": "alone", "text": "unheard", "package": None, "embedding": None} for n in range(3)]
    with module_engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), rows)
        functions = SqlFunctions(filters=("package",), group_by="package", words="words")
        install_functions(connection, table.c.embedding, functions)
    vacuum(module_engine, table.name)
    return module_engine


@pytest.fixture
def asked(made: Engine) -> Iterator[Connection]:
    """A connection that only reads."""
    with made.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def stored(corpus: Corpus) -> Any:
    """The vectors as the column has them, of unit length."""
    rows = corpus.documents[:ROWS, :DIMS].astype(np.float16).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def unit(query: Any) -> Any:
    """A query as the server has it, of unit length."""
    one = np.asarray(query, np.float16).astype(np.float64)
    return one / np.linalg.norm(one)


# -- what tuning chose ---------------------------------------------------------------------------------------------


def test_what_is_tuned_holds_for_the_nearest_rows_only(asked: Connection, corpus: Corpus) -> None:
    """Where the shortlist is what there is to group, pick from or fuse, a short one changes what comes back."""
    given = {"q": vector_text(corpus.queries[0, :DIMS]), "words": "loop"}
    calls = (
        "passages_search_groups(:q, 4, 3)",
        "passages_search_diverse(:q, 5)",
        "passages_hybrid(:q, :words, 5)",
    )

    def found() -> list[list[int]]:
        asked.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return [list(asked.execute(text(f"SELECT id FROM {one} ORDER BY rank"), given).scalars()) for one in calls]

    column = reflect(asked, "passages.embedding")
    before, nearest = found(), text("SELECT count(*) FROM passages_search(:q, 12)")
    store_setting(asked, column, Setting(12, 12, 12))
    assert found() == before
    assert load_settings(asked, column) == {"passages.embedding": Setting(12, 12, 12)}
    query, rows = corpus.queries[0, :DIMS], select(column.table.c.id)
    for made in (
        search_groups(rows, column, query, by=column.table.c.package, k=4, per_group=3),
        search_diverse(rows, column, query, k=12),
        search_hybrid(rows, [Nearest(column, query)], k=12),
    ):
        assert " LIMIT 120)" in str(made.compile())
    assert " LIMIT 12)" in str(search(rows, column, query, k=12).compile())
    assert asked.execute(nearest, given).scalar_one() == 12


# -- groups --------------------------------------------------------------------------------------------------------


def groups_of(distances: Any, passages: list[Any], k: int, per_group: int) -> list[int]:
    """The nearest groups and their nearest rows, by brute force."""
    members: dict[str, list[int]] = {}
    for n in np.argsort(distances, kind="stable"):
        if passages[n]["package"] is not None:
            members.setdefault(passages[n]["package"], []).append(int(n))
    return [n for rows in list(members.values())[:k] for n in rows[:per_group]]


@pytest.mark.parametrize(("k", "per_group"), [(1, 1), (4, 1), (4, 3), (40, 2)])
def test_groups(asked: Connection, corpus: Corpus, stored: Any, k: int, per_group: int) -> None:
    """As many groups as there are, by their best row; `exact` and a long shortlist agree with brute force."""
    for number in range(4):
        query = corpus.queries[number, :DIMS]
        expected = groups_of(1 - stored @ unit(query), corpus.passages, k, per_group)
        for more in ("exact => true", "shortlist => 3000"):
            rows = asked.execute(
                text(f"SELECT * FROM passages_search_groups(:q, :k, :n, {more}) ORDER BY rank"),
                {"q": vector_text(query), "k": k, "n": per_group},
            ).all()
            assert [row.id for row in rows] == expected
            assert {(row.requested, row.returned) for row in rows} == {(k, k)}


def test_no_group_is_lost_to_a_short_shortlist(asked: Connection, corpus: Corpus) -> None:
    """Forty groups do not fit among the forty rows that a shortlist has: all rows are read."""
    given = {"q": vector_text(corpus.queries[3, :DIMS])}
    rows = asked.execute(text("SELECT * FROM passages_search_groups(:q, 30, shortlist => 30)"), given).all()
    assert len(rows) == 30
    packages = {one["package"] for one in corpus.passages[:ROWS]}
    rows = asked.execute(text("SELECT * FROM passages_search_groups(:q, 1000)"), given).all()
    assert len(rows) == len(packages) == rows[0].returned
    assert rows[0].requested == 1000


# -- rows that differ ----------------------------------------------------------------------------------------------


def greedy(distances: Any, between: Any, k: int, relevance: float) -> list[int]:
    """Maximal marginal relevance, word for word as Carbonell and Goldstein have it, with similarity 1 - distance."""
    taken = [0]
    while len(taken) < k:
        left = [n for n in range(len(distances)) if n not in taken]
        value = [
            relevance * (1 - distances[n]) - (1 - relevance) * max(1 - between[n][other] for other in taken)
            for n in left
        ]
        taken.append(left[int(np.argmax(value))])
    return taken


@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.7, 1.0])
def test_diverse(asked: Connection, corpus: Corpus, stored: Any, relevance: float) -> None:
    """The same picks as in NumPy, of the same candidates."""
    for number in range(5):
        query = corpus.queries[number, :DIMS]
        distances = 1 - stored @ unit(query)
        best = np.argsort(distances, kind="stable")[:60]
        picks = greedy(distances[best], 1 - stored[best] @ stored[best].T, 8, relevance)
        rows = asked.execute(
            text("SELECT * FROM passages_search_diverse(:q, 8, :r, shortlist => 60, exact => true) ORDER BY rank"),
            {"q": vector_text(query), "r": relevance},
        ).all()
        assert [row.id for row in rows] == [int(best[n]) for n in picks]
        assert np.allclose([row.distance for row in rows], distances[best][picks], atol=1e-6)


def test_only_relevance_is_the_plain_order(asked: Connection, corpus: Corpus) -> None:
    """And a filter holds, and few rows are no error."""
    given = {"q": vector_text(corpus.queries[2, :DIMS])}
    plain = asked.execute(text("SELECT id FROM passages_search(:q, 10) ORDER BY rank"), given).scalars().all()
    other = text("SELECT id FROM passages_search_diverse(:q, 10, 1) ORDER BY rank")
    assert asked.execute(other, given).scalars().all() == plain
    some = text("SELECT id FROM passages_search_diverse(:q, 10, package => 'asyncio')")
    assert all(corpus.passages[n]["package"] == "asyncio" for n in asked.execute(some, given).scalars())
    assert asked.execute(text("SELECT id FROM passages_search_diverse(:q, package => 'none')"), given).all() == []


# -- words ---------------------------------------------------------------------------------------------------------

MATCH = {
    "any": "replace(plainto_tsquery('english', :w)::text, ' & ', ' | ')::tsquery",
    "all": "plainto_tsquery('english', :w)",
    "web": "websearch_to_tsquery('english', :w)",
}


@pytest.mark.parametrize("match", MATCH)
@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
@pytest.mark.parametrize("package", [None, "asyncio"])
def test_hybrid(asked: Connection, corpus: Corpus, match: str, fusion: str, package: str | None) -> None:
    """The fused order of two lists that are fetched one by one."""
    words = {"any": "loop with transports", "all": "event loop", "web": '"event loop" or transport -protocol'}[match]
    given = {"q": vector_text(corpus.queries[1, :DIMS]), "w": words, "s": package, "m": match, "f": fusion}
    near = asked.execute(text("SELECT * FROM passages_search(:q, 50, 50, package => :s) ORDER BY rank"), given).all()
    listed = asked.execute(
        text(
            f"SELECT id, ts_rank(words, {MATCH[match]})::float8 AS value FROM passages WHERE words @@ {MATCH[match]} "
            "AND (package = :s OR CAST(:s AS text) IS NULL) ORDER BY value DESC, id LIMIT 50"
        ),
        given,
    ).all()
    assert listed
    lists = [[(row.id, -row.distance) for row in near], [(row.id, row.value) for row in listed]]
    expected = fused(lists, [1, 0.5], fusion)[:5]
    rows = asked.execute(
        text(
            "SELECT * FROM passages_hybrid(:q, :w, 5, match => :m, fusion => :f, words_weight => 0.5, package => :s) "
            "ORDER BY rank"
        ),
        given,
    ).all()
    assert [(row.id, row.vector_rank, row.words_rank) for row in rows] == [one[:3] for one in expected]
    assert np.allclose([row.score for row in rows], [one[3] for one in expected])
    assert [row.rank for row in rows] == [1, 2, 3, 4, 5]
    assert {(row.requested, row.returned) for row in rows} == {(5, 5)}


def fused(lists: Any, weights: Any, fusion: str) -> list[tuple[int, int | None, int | None, float]]:
    """Id, both ranks and score, best first."""
    scores: dict[int, float] = {}
    ranks: list[dict[int, int]] = [{}, {}]
    for place, (rows, weight) in enumerate(zip(lists, weights, strict=True)):
        values = [value for _, value in rows]
        spread = max(values) - min(values)
        for rank, (id_, value) in enumerate(rows, 1):
            part = 1 / (60 + rank) if fusion == "rrf" else (value - min(values)) / spread if spread else 1
            scores[id_] = scores.get(id_, 0) + weight * part
            ranks[place][id_] = rank
    order = sorted(scores, key=lambda id_: (-scores[id_], id_))
    return [(id_, ranks[0].get(id_), ranks[1].get(id_), scores[id_]) for id_ in order]


def test_hybrid_finds_rows_without_a_vector(asked: Connection, corpus: Corpus) -> None:
    """By their words; they have no distance."""
    given = {"q": vector_text(corpus.queries[1, :DIMS])}
    rows = asked.execute(text("SELECT * FROM passages_hybrid(:q, 'unheard', 100, words_weight => 9)"), given).all()
    alone = [row for row in rows if row.id >= ROWS]
    assert [row.distance for row in alone] == [row.similarity for row in alone] == [None] * 3
    assert [row.rank for row in alone] == [1, 2, 3]


def test_words_that_say_nothing(asked: Connection, corpus: Corpus) -> None:
    """Stop words, or words only excluded: what is left is the vector's list."""
    given = {"q": vector_text(corpus.queries[1, :DIMS])}
    plain = asked.execute(text("SELECT id FROM passages_search(:q, 10, 100) ORDER BY rank"), given).scalars().all()
    for words, match in (("the of and", "any"), ("the", "all"), ("-protocol", "web")):
        statement = text("SELECT id, words_rank FROM passages_hybrid(:q, :w, match => :m) ORDER BY rank")
        rows = asked.execute(statement, given | {"w": words, "m": match}).all()
        assert [row.id for row in rows] == plain
        assert {row.words_rank for row in rows} == {None}


HOSTILE = [
    "'",
    "''",
    "$$",
    "$pgmrl$",
    "%s %I",
    ":x",
    "\\",
    "a & | ! b",
    "<->",
    "a:*",
    "'); DROP TABLE passages; --",
    "\n",
]


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("match", MATCH)
def test_no_text_is_syntax(asked: Connection, corpus: Corpus, words: str, match: str) -> None:
    """Whatever somebody types is words, or none."""
    statement = text("SELECT count(*) FROM passages_hybrid(:q, :w, match => :m)")
    given = {"q": vector_text(corpus.queries[1, :DIMS]), "w": f"{words} loop", "m": match}
    assert asked.execute(statement, given).scalar_one() == 10


BAD = [
    ("passages_hybrid(:q, NULL)", "22004", "words is NULL"),
    ("passages_hybrid(:q, ' ')", "22023", "words is empty"),
    ("passages_hybrid(:q, repeat('a ', 600))", "22023", "words has 1200 characters"),
    ("passages_hybrid(:q, 'a', 0)", "22023", "k is 0"),
    ("passages_hybrid(:q, 'a', 9, 8)", "22023", "shortlist is 8, k is 9"),
    ("passages_hybrid(:q, 'a', match => 'some')", "22023", "match is 'some'"),
    ("passages_hybrid(:q, 'a', fusion => NULL)", "22023", "fusion is NULL"),
    ("passages_hybrid(:q, 'a', words_weight => -1)", "22023", "words_weight is -1"),
    ("passages_hybrid(:q, 'a', words_weight => 'NaN')", "22023", "words_weight is NaN"),
    ("passages_hybrid(NULL, 'a')", "22004", "query is NULL"),
    ("passages_hybrid('[1]', 'a')", "22000", "query has 1 dimensions"),
    ("passages_search_diverse(:q, 3, 1.1)", "22023", "relevance is 1.1"),
    ("passages_search_diverse(:q, 3, 'NaN')", "22023", "relevance is NaN"),
    ("passages_search_diverse(:q, 3, NULL)", "22023", "relevance is NULL"),
    ("passages_search_groups(:q, 3, 0)", "22023", "per_group is 0"),
    ("passages_search_groups(:q, 3, NULL)", "22023", "per_group is NULL"),
    ("passages_search_groups(:q, -3)", "22023", "k is -3"),
]


@pytest.mark.parametrize(("call", "state", "message"), BAD, ids=lambda one: str(one)[:50])
def test_bad_input(asked: Connection, corpus: Corpus, call: str, state: str, message: str) -> None:
    """The argument's name, a code and a hint."""
    with pytest.raises(DBAPIError) as raised:
        asked.execute(text(f"SELECT * FROM {call}"), {"q": vector_text(corpus.queries[1, :DIMS])})
    said: Any = raised.value.orig
    assert (said.sqlstate, message in said.diag.message_primary) == (state, True)
    assert said.diag.message_hint


def test_words_need_their_configuration(connection: Connection) -> None:
    """Where the column does not say it, somebody has to: another one finds nothing."""
    plain = Table(
        "plain",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("words", TSVECTOR),
        Column("e", Matryoshka(8, Short(4))),
    )
    plain.create(connection)
    with pytest.raises(DefinitionError, match="config='english'"):
        install_functions(connection, plain.c.e, SqlFunctions(words="words"))
    with pytest.raises(DefinitionError, match="no column 'nothing'"):
        install_functions(connection, plain.c.e, SqlFunctions(words="nothing", config="simple"))
    install_functions(connection, plain.c.e, SqlFunctions(words="words", config="simple"))
    connection.execute(text("INSERT INTO plain VALUES (1, to_tsvector('simple', 'the trains'), '[1,2,3,4,5,6,7,8]')"))
    found = connection.execute(text("SELECT words_rank FROM plain_hybrid('[1,0,0,0,0,0,0,0]', 'the')")).scalars()
    assert list(found) == [1]


def test_a_connection_that_commits_each_statement(engine: Engine) -> None:
    """All functions or none, also there; everybody may read the related rows, and not what is stored of them."""
    table = Table("plain", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        table.create(connection)
        connection.exec_driver_sql("CREATE VIEW plain_related_stored AS SELECT 1 AS one")
        with pytest.raises(MigrationError, match="plain_related_stored"):
            install_functions(connection, table.c.e, SqlFunctions(related=3, stored=True))
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM pg_proc WHERE proname = 'plain_search'").scalar_one() == 0
        )
        connection.exec_driver_sql("DROP VIEW plain_related_stored")
        install_functions(connection, table.c.e, SqlFunctions(related=3, stored=True))
        plan = connection.exec_driver_sql("EXPLAIN (FORMAT JSON) SELECT * FROM plain_related WHERE id = 1").scalar_one()
        assert plan[0]["Plan"]["Plan Rows"] == 3
        may = "SELECT has_table_privilege('pg_monitor', 'plain_related%s', 'SELECT')"
        assert [connection.exec_driver_sql(may % name).scalar_one() for name in ("", "_stored")] == [True, False]
