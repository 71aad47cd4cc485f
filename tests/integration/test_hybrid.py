"""Hybrid searches on 10,000 real passages, against lists fetched one by one and fused in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    Column,
    Computed,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship, undefer

from pgmrl import (
    FullText,
    Matryoshka,
    Nearest,
    Rrf,
    Short,
    Trigrams,
    VectorArray,
    Weighted,
    Words,
    add_side_table,
    compile_sql,
    database,
    full_text,
    ingest,
    matryoshka,
    search,
    search_hybrid,
    trigram_index,
)
from pgmrl.errors import NotMigrated
from pgmrl.model.metrics import METRICS
from tests.corpus import facts
from tests.databases import create_extension, indexed_afterwards

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Select

    from pgmrl.model.rotation import Rotation
    from tests.corpus import Corpus
    from tests.integration.conftest import Plan
else:
    Plan = Corpus = Any

ROWS = 10_000
QUERIES = ["close the event loop", "message header", "path of a temporary file", "gzip"]


class Base(DeclarativeBase):
    """The models of this file."""


class Package(Base):
    """Words of name, text and docstring; a vector by prefix; `part` is the number modulo 100."""

    __tablename__ = "texts"
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - as SQLAlchemy reads it
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    text: Mapped[str | None] = mapped_column(Text)
    docstring: Mapped[str] = mapped_column(Text)
    part: Mapped[int]
    embedding: Mapped[VectorArray] = matryoshka(256, Short(64))
    words: Mapped[str] = full_text({"name": "A", "text": "B", "docstring": None}, config="english")
    labels: Mapped[list[Label]] = relationship()


class Label(Base):
    """Three for every second package."""

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    package_id: Mapped[int] = mapped_column(ForeignKey("texts.id"), index=True)
    name: Mapped[str]


trigram_index(Package.name)


def _composite(rotation: Rotation) -> Table:
    """Core, a key of two columns, a rotation, words in another configuration that pgmrl did not declare."""
    made: Table = Table(
        "notes",
        MetaData(),
        Column("tenant", Integer, primary_key=True, autoincrement=False),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("text", Text),
        Column("e", Matryoshka(256, Short(64, by=rotation))),
        Column("flat", Matryoshka(256, Short(32), "l2", full="vector")),
        Column("own", TSVECTOR, Computed("to_tsvector('simple'::regconfig, coalesce(text, ''))", persisted=True)),
        Column("words", FullText("text", config="english")),
    )
    return made


@pytest.fixture(scope="module")
def notes(rotation: Rotation) -> Table:
    """The table of `_composite`."""
    return _composite(rotation)


@pytest.fixture(scope="module")
def loaded(module_engine: Engine, corpus: Corpus, rotation: Rotation, notes: Table) -> Engine:
    """The first passages, in both tables (3,000 of them in the second)."""
    vectors = corpus.documents[:ROWS]
    rows = [
        {"id": n, "part": n % 100} | facts(passage, "name", "text", "docstring")
        for n, passage in enumerate(corpus.passages[:ROWS])
    ]
    with module_engine.begin() as connection:
        create_extension(connection, "pg_trgm")
        Base.metadata.create_all(connection)
        database.install_rotation(connection, rotation)
        notes.create(connection)
        with indexed_afterwards(connection, Base.metadata.tables["texts"], notes):
            ingest(connection, Package.embedding, rows, vectors=vectors)
            ingest(
                connection,
                notes.c.e,
                ({"tenant": n % 3, "number": n, "text": row["text"]} for n, row in enumerate(rows[:3000])),
                vectors=vectors[:3000],
            )
            connection.execute(notes.update().values(flat=text("e::vector")))
        connection.exec_driver_sql(
            "INSERT INTO labels SELECT p * 3 + t, p, 'label ' || t "
            "FROM generate_series(0, 9998, 2) AS p, generate_series(0, 2) AS t"
        )
    with module_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return module_engine


@pytest.fixture
def session(loaded: Engine) -> Iterator[Session]:
    """A session on the module's database."""
    with Session(loaded) as opened:
        yield opened


# -- by hand -------------------------------------------------------------------------------------------------------

List = list[tuple[Any, float]]
"""Keys with their values, best first."""


def by_vector(session: Session, statement: Select[Any], column: Any, query: Any, limit: int, **options: Any) -> List:
    """A vector's list, as `search` finds it."""
    found = search(statement, column, query, k=limit, **{"shortlist": limit, **options})
    return [(_key(row), -row.distance) for row in session.execute(found)]


def by_words(session: Session, query: str, where: str = "true", rank: str = "ts_rank", limit: int = 100) -> List:
    """A text's list by plain SQL; `query` is a SQL expression."""
    found = session.execute(
        text(
            f"SELECT id, {rank}(words, q)::float8 AS value FROM texts, (SELECT {query} AS q) AS given "
            f"WHERE words @@ q AND {where} ORDER BY value DESC, id LIMIT {limit}"
        )
    )
    return [(_key(row), row.value) for row in found]


def _key(row: Any) -> Any:
    *key, _ = row
    return key[0] if len(key) == 1 else tuple(key)


def fused(lists: Sequence[List], k: int = 10, weights: Sequence[float] = (), rrf: float | None = 60) -> list[Any]:
    """Keys, scores and ranks of the k best: by ranks, or by values where `rrf` is None."""
    weights = weights or [1.0] * len(lists)
    ranks = [{key: rank for rank, (key, _) in enumerate(one, 1)} for one in lists]
    parts = []
    for weight, one in zip(weights, lists, strict=True):
        values = [value for _, value in one]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)
        scaled = {key: 1.0 if high == low else (value - low) / (high - low) for key, value in one}
        parts.append(
            {key: weight * scaled[key] if rrf is None else weight / (rrf + n) for n, key in enumerate(scaled, 1)}
        )
    keys = {key for one in parts for key in one}
    scores = {key: sum(part.get(key, 0.0) for part in parts) for key in keys}
    best = sorted(keys, key=lambda key: (-scores[key], key))[:k]
    return [(key, scores[key], *(one.get(key) for one in ranks)) for key in best]


def same(rows: Sequence[Any], expected: Sequence[Any], keys: int = 1) -> bool:
    """Keys and ranks are equal, scores to the last bits."""
    found = [(row[0] if keys == 1 else tuple(row[:keys]), *row[keys:]) for row in rows]
    assert [one[1] for one in found] == pytest.approx([one[1] for one in expected], rel=1e-12)
    assert [(one[0], *one[2:]) for one in found] == [(one[0], *one[2:]) for one in expected]
    return True


# -- the fusion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rrf", [60, 0, None], ids=["ranks", "ranks without k", "values"])
@pytest.mark.parametrize("words", QUERIES)
def test_the_lists_are_fused_as_by_hand(session: Session, corpus: Corpus, words: str, rrf: float | None) -> None:
    """A row of one list only is kept; weights count; any of the words."""
    vector = corpus.queries[QUERIES.index(words)]
    retrievers = [Nearest(Package.embedding, vector, weight=0.7), Words(Package.words, words, weight=1.5, match="any")]
    fuse = Weighted() if rrf is None else Rrf(rrf)
    rows = session.execute(search_hybrid(select(Package.id), retrievers, k=30, fuse=fuse)).all()
    any_word = f"replace(plainto_tsquery('english', '{words}')::text, ' & ', ' | ')::tsquery"
    lists = [
        by_vector(session, select(Package.id), Package.embedding, vector, 300),
        by_words(session, any_word, limit=300),
    ]
    assert same(rows, fused(lists, 30, [0.7, 1.5], rrf))
    assert any(row.rank_1 is None for row in rows) or any(row.rank_2 is None for row in rows)


@pytest.mark.parametrize("rank", ["ts_rank", "ts_rank_cd"])
@pytest.mark.parametrize(
    ("match", "typed", "query"),
    [
        ("all", "message header", "to_tsquery('english', 'message & header')"),
        ("any", "message header", "to_tsquery('english', 'message | header')"),
        ("web", "message header -date", "to_tsquery('english', 'message & header & !date')"),
        ("web", '"command line arguments"', "to_tsquery('english', 'command <-> line <-> arguments')"),
        ("web", "encoder or gzip", "to_tsquery('english', 'encoder | gzip')"),
    ],
)
def test_how_words_match(session: Session, match: Any, typed: str, query: str, rank: Any) -> None:
    """As the tsquery that they stand for; one retriever alone is a search by words."""
    made = search_hybrid(select(Package.id), [Words(Package.words, typed, match=match, rank=rank, limit=50)], k=40)
    expected = by_words(session, query, rank=rank, limit=50)
    assert len(expected) > 20
    assert same(session.execute(made).all(), fused([expected], 40))


@pytest.mark.parametrize("exact", [False, True])
def test_a_vector_alone_is_a_search(session: Session, corpus: Corpus, exact: bool) -> None:
    """In its order; exactly, in NumPy's."""
    vector = corpus.queries[7]
    retriever = Nearest(Package.embedding, vector, exact=exact, label="place")
    rows = session.execute(search_hybrid(select(Package.id), [retriever])).all()
    found = session.execute(search(select(Package.id), Package.embedding, vector, exact=exact)).all()
    assert [row.id for row in rows] == [row.id for row in found]
    assert [row.place for row in rows] == list(range(1, 11))
    if exact:
        stored = corpus.documents[:ROWS].astype(np.float16).astype(np.float32)
        distances = METRICS["cosine"].distances(stored, vector.astype(np.float16).astype(np.float32))
        assert [row.id for row in rows] == list(np.argsort(distances, kind="stable")[:10])


def test_filters_hold_inside_every_list(session: Session, corpus: Corpus) -> None:
    """One row of a hundred: each list is full all the same."""
    vector, filtered = corpus.queries[1], select(Package.id).where(Package.part == 3)
    retrievers = [
        Nearest(Package.embedding, vector, shortlist=50),
        Words(Package.words, "file", limit=50),
        Trigrams(Package.name, "asyncio", limit=50, threshold=0.1),
    ]
    rows = session.execute(search_hybrid(filtered, retrievers, k=25)).all()
    similar = session.execute(
        text(
            "SELECT id, word_similarity('asyncio', name)::float8 AS value FROM texts WHERE part = 3 "
            "AND word_similarity('asyncio', name) >= 0.1 ORDER BY value DESC, id LIMIT 50"
        )
    )
    lists = [
        by_vector(session, filtered, Package.embedding, vector, 50),
        by_words(session, "plainto_tsquery('english', 'file')", "part = 3", limit=50),
        [(row.id, row.value) for row in similar],
    ]
    assert [len(one) > 10 for one in lists] == [True] * 3
    assert same(rows, fused(lists, 25))


def test_joins_hold_inside_every_list(session: Session, corpus: Corpus) -> None:
    """A join to many takes one place in each list, and gives a row for each match."""
    vector = corpus.queries[2]
    joined = select(Package.id, Label.name).join(Package.labels)
    retrievers = [Nearest(Package.embedding, vector), Words(Package.words, "file")]
    rows = session.execute(search_hybrid(joined, retrievers)).all()
    even = select(Package.id).where(Package.id % 2 == 0)
    lists = [
        by_vector(session, even, Package.embedding, vector, 100),
        by_words(session, "plainto_tsquery('english', 'file')", "id % 2 = 0"),
    ]
    expected = fused(lists)
    assert len(rows) == 30
    assert same([(row.id, *row[2:]) for row in rows[::3]], expected)


@pytest.mark.parametrize("rrf", [60, None], ids=["ranks", "values"])
def test_a_composite_key_a_rotation_and_core(session: Session, notes: Table, corpus: Corpus, rrf: float | None) -> None:
    """Words that were declared elsewhere, and a second vector under another metric."""
    vector = corpus.queries[3]
    statement = select(notes.c.tenant, notes.c.number).where(notes.c.tenant < 2)
    retrievers = [
        Nearest(notes.c.e, vector),
        Words(notes.c.own, "the file for", match="any", rank="ts_rank_cd", config="simple"),
        Nearest(notes.c.flat, vector[::-1].copy(), shortlist=200, limit=60, ef_search=150),
    ]
    fuse = Weighted() if rrf is None else Rrf(rrf)
    rows = session.execute(search_hybrid(statement, retrievers, k=20, fuse=fuse)).all()
    plain = session.execute(
        text(
            "SELECT tenant, number, ts_rank_cd(own, 'the | file | for'::tsquery)::float8 AS value FROM notes "
            "WHERE tenant < 2 AND own @@ 'the | file | for'::tsquery ORDER BY value DESC, tenant, number LIMIT 200"
        )
    )
    lists = [
        by_vector(session, statement, notes.c.e, vector, 200),
        [(tuple(row[:2]), row.value) for row in plain],
        by_vector(session, statement, notes.c.flat, vector[::-1].copy(), 60, shortlist=200, ef_search=150),
    ]
    assert len(lists[1]) == 200
    assert same(rows, fused(lists, 20, rrf=rrf), keys=2)


def test_two_queries_on_one_column(session: Session, corpus: Corpus) -> None:
    """Each with a scan of its own."""
    first, second = corpus.queries[4], corpus.queries[5]
    given = [Nearest(Package.embedding, first, shortlist=300), Nearest(Package.embedding, second, shortlist=400)]
    rows = session.execute(search_hybrid(select(Package.id), given, k=300)).all()
    lists = [
        by_vector(session, select(Package.id), Package.embedding, vector, limit)
        for vector, limit in ((first, 300), (second, 400))
    ]
    assert same(rows, fused(lists, 300))


def test_an_alias_and_entities(session: Session, corpus: Corpus) -> None:
    """The columns are those of the alias; entities come with their score."""
    other = aliased(Package)
    vector = corpus.queries[6]
    plain = [Nearest(Package.embedding, vector), Words(Package.words, "file"), Trigrams(Package.name, "lib")]
    given = [Nearest(other.embedding, vector), Words(other.words, "file"), Trigrams(other.name, "lib")]
    expected = session.execute(search_hybrid(select(Package.id), plain)).all()
    rows = session.execute(search_hybrid(select(other), given)).all()
    assert [(row[0].id, *row[1:]) for row in rows] == [tuple(row) for row in expected]


def test_a_select_built_once(session: Session, corpus: Corpus) -> None:
    """Vector and text are the caller's own parameters; the text is one for two retrievers."""
    given = [
        Nearest(Package.embedding, bindparam("v")),
        Words(Package.words, bindparam("t")),
        Trigrams(Package.name, bindparam("t")),
    ]
    prepared = search_hybrid(select(Package.id), given)
    for vector, words in zip(corpus.queries, QUERIES, strict=False):
        now = [Nearest(Package.embedding, vector), Words(Package.words, words), Trigrams(Package.name, words)]
        fresh = session.execute(search_hybrid(select(Package.id), now)).all()
        assert session.execute(prepared, {"v": vector, "t": words}).all() == fresh


@pytest.mark.parametrize("exact", [False, True])
def test_a_rotation_and_a_parameter(session: Session, notes: Table, corpus: Corpus, exact: bool) -> None:
    """Of which the client sends both vectors in one value."""

    def make(query: Any) -> Select[Any]:
        given = [Nearest(notes.c.e, query, exact=exact), Words(notes.c.words, "file")]
        return search_hybrid(select(notes.c.number), given, k=100)

    prepared = make(bindparam("v"))
    for vector in corpus.queries[:3]:
        fresh = session.execute(make(vector)).all()
        assert session.execute(prepared, {"v": vector}).all() == fresh
        found = search(select(notes.c.number), notes.c.e, vector, exact=exact)
        first = session.scalars(found).all()[0]
        assert {row.rank_1: row.number for row in fresh}[1] == first


def test_a_side_table(engine: Engine) -> None:
    """Vectors beside, words in the table itself."""
    metadata = MetaData()
    made: Table = Table(
        "articles",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("title", Text),
        Column("embedding", VECTOR(8)),
        Column("words", FullText("title", config="english")),
    )
    add_side_table(made.c.embedding, Short(4))
    vectors = np.random.default_rng(1).normal(size=(50, 8)).round(2)
    with engine.begin() as connection:
        metadata.create_all(connection)
        rows = [{"id": n, "title": f"number{n % 5}", "embedding": list(v)} for n, v in enumerate(vectors)]
        connection.execute(made.insert(), rows)
        given = [Nearest(made.c.embedding, vectors[7], exact=True), Words(made.c.words, "number2")]
        found = connection.execute(search_hybrid(select(made.c.id), given, k=50)).all()
    stored = vectors.astype(np.float16).astype(np.float32)
    order = np.argsort(METRICS["cosine"].distances(stored, stored[7]), kind="stable")[:50]
    values = [(int(n), -float(place)) for place, n in enumerate(order)]
    assert same(found, fused([values, [(n, 0.0) for n in range(2, 50, 5)]], 50))
    assert found[0].id == 7


# -- words that find nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "match"),
    [("the of and", "all"), ("the of and", "any"), ("the of", "web"), ("-file", "web"), ("?!", "all")],
)
@pytest.mark.parametrize("fuse", [Rrf(), Weighted()])
def test_words_that_leave_nothing_contribute_nothing(
    session: Session, corpus: Corpus, typed: str, match: Any, fuse: Any
) -> None:
    """Stop words, punctuation, and words that are only excluded."""
    vector = corpus.queries[0]
    given = [Nearest(Package.embedding, vector), Words(Package.words, typed, match=match)]
    rows = session.execute(search_hybrid(select(Package.id), given, fuse=fuse)).all()
    expected = [row.id for row in session.execute(search(select(Package.id), Package.embedding, vector))]
    assert [row.id for row in rows] == expected
    assert {row.rank_2 for row in rows} == {None}
    assert not session.execute(search_hybrid(select(Package.id), given[1:], fuse=fuse)).all()


HOSTILE = [
    "'; DROP TABLE texts; --",
    "$$ $1 $tag$ x $tag$",
    "gzip & | ! ( ) <-> :* 'quoted''twice'",
    "100% %s %(words_1)s %%",
    "a:b :words_1 ::regclass",
    "back\\slash \\' E'\\x00'",
    '"unbalanced or -',
    "file' & 'other",
    "http://x.org/?a=1&b=2 | c",
    "<a href='x & y'>tag</a>",
    "ünïcödé \U0001f409 \u202e",
    "x " * 499,
]


@pytest.mark.parametrize("typed", HOSTILE)
@pytest.mark.parametrize("match", ["any", "all", "web"])
def test_a_text_is_never_syntax(session: Session, typed: str, match: Any) -> None:
    """It finds what PostgreSQL's own parser makes of it, or nothing; and nothing breaks."""
    given = [Words(Package.words, typed, match=match), Trigrams(Package.name, typed)]
    rows = session.execute(search_hybrid(select(Package.id), given, k=20)).all()
    parser = "websearch_to_tsquery" if match == "web" else "plainto_tsquery"
    lexemes = session.execute(text(f"SELECT {parser}('english', :typed)::text"), {"typed": typed}).scalar_one()
    query = lexemes.replace(" & ", " | ") if match == "any" else lexemes
    there = (
        session.execute(text("SELECT id FROM texts WHERE words @@ CAST(:q AS tsquery)"), {"q": query}).scalars().all()
    )
    assert {row.id for row in rows if row.rank_1 is not None} <= set(there)
    assert bool(there) == any(row.rank_1 is not None for row in rows)


def test_plain_psycopg(session: Session, corpus: Corpus) -> None:
    """Text and parameters, without SQLAlchemy; percent signs in both."""
    given = [
        Nearest(Package.embedding, corpus.queries[0]),
        Words(Package.words, "50% 'x'"),
        Trigrams(Package.name, "g%"),
    ]
    made = search_hybrid(select(Package.id).where(Package.name.like("%g%")), given)
    expected = [tuple(row) for row in session.execute(made)]
    cursor: Any = session.connection().connection.cursor()
    assert cursor.execute(*compile_sql(made)).fetchall() == expected
    assert len(expected) == 10


# -- plans ---------------------------------------------------------------------------------------------------------


def test_every_index_is_used(loaded: Engine, plan: Plan) -> None:
    """With bind parameters and no enable_* switch; the payload is read by key."""
    vector = np.ones(256, np.float32)
    given = [Nearest(Package.embedding, vector), Words(Package.words, "gzip"), Trigrams(Package.name, "gzip")]
    with loaded.connect() as connection:
        nodes = plan(connection, search_hybrid(select(Package), given))
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert indexes == {"texts_embedding_short_64_hnsw", "texts_words_gin", "texts_name_trgm", "texts_pkey"}
    assert [node["Node Type"] for node in nodes].count("Seq Scan") == 1  # of the exact fallback


def test_every_index_is_used_by_a_generic_plan(loaded: Engine) -> None:
    """A driver that prepares statements gets one after a few executions."""
    given = [
        Nearest(Package.embedding, np.ones(256)),
        Words(Package.words, "gzip file"),
        Trigrams(Package.name, "gzip"),
    ]
    sent, params = compile_sql(search_hybrid(select(Package.id), given))
    with loaded.connect() as connection:
        cursor: Any = connection.connection.cursor()
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        first = cursor.execute(sent, params).fetchall()
        for _ in range(7):
            assert cursor.execute(sent, params, prepare=True).fetchall() == first
        lines = "\n".join(line for (line,) in cursor.execute(f"EXPLAIN {sent}", params, prepare=True).fetchall())
    for index in ("texts_embedding_short_64_hnsw", "texts_words_gin", "texts_name_trgm"):
        assert index in lines


def test_the_threshold_is_the_statements_own(session: Session) -> None:
    """And is gone with the transaction."""
    for by, query in (("word", "asynco"), ("whole", "asyncio.tranports.Transport")):
        found = []
        for threshold in (0.2, 0.4, 0.6):
            retriever = Trigrams(Package.name, query, by=by, threshold=threshold)  # type: ignore[arg-type]
            rows = session.execute(search_hybrid(select(Package.id), [retriever], k=100)).all()
            function = "word_similarity(:q, name)" if by == "word" else "similarity(name, :q)"
            truth = text(f"SELECT id FROM texts WHERE {function} >= :t ORDER BY {function} DESC, id LIMIT 1000")
            expected = session.execute(truth, {"q": query, "t": threshold}).scalars().all()
            assert [row.id for row in rows] == expected[:100]
            found.append(len(expected))
        assert found[0] > found[1] > found[2]
        session.commit()
        assert session.execute(text("SHOW pg_trgm.word_similarity_threshold")).scalar_one() == "0.6"


@pytest.mark.parametrize("thresholds", [(0.9, 0.3), (0.3, 0.9)])
def test_two_thresholds_in_one_statement(session: Session, thresholds: tuple[float, float]) -> None:
    """Each list is made under its own."""
    given = [Trigrams(Package.name, "asyncio", threshold=one, limit=1000) for one in thresholds]
    rows = session.execute(search_hybrid(select(Package.id), given, k=2000)).all()
    truth = text("SELECT count(*) FROM texts WHERE word_similarity('asyncio', name) >= :t")
    expected = [session.execute(truth, {"t": one}).scalar_one() for one in thresholds]
    assert [sum(row[n] is not None for row in rows) for n in (2, 3)] == expected
    assert expected[0] != expected[1]


# -- the declaration -----------------------------------------------------------------------------------------------


def test_writing_a_row_does_not_fetch_its_words(engine: Engine, statements: list[str]) -> None:
    """PostgreSQL makes them; they are read when they are asked for."""
    with engine.begin() as connection:
        create_extension(connection, "pg_trgm")
        Base.metadata.create_all(connection)
    with Session(engine) as session:
        session.add(Package(id=1, name="Gimp's", text=None, docstring="image editor", part=1, embedding=np.ones(256)))
        session.flush()
        assert "words" not in next(sent for sent in statements if sent.startswith("INSERT INTO texts"))
        package = session.get(Package, 1)
        assert package is not None
        assert "words" not in package.__dict__
        assert package.words == "'editor':3 'gimp':1A 'imag':2"
        package.text = "paints"
        session.commit()
        again = session.scalars(select(Package).options(undefer(Package.words))).one()
        assert again.words == "'editor':4 'gimp':1A 'imag':3 'paint':2B"


def test_hostile_names(engine: Engine) -> None:
    """Of table, columns, configuration; created from a copy of the table as well."""
    config = "we\"ird %:c'x"
    made: Table = Table(
        'we"ird %:t',
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column('te"xt %:x', Text, key="text"),
        Column('wo"rds %:w', FullText({"text": "A"}, config='"{}"'.format(config.replace('"', '""'))), key="words"),
    )
    trigram_index(made.c.text)
    copied = made.to_metadata(MetaData(), name='co"py %:t')
    with engine.begin() as connection:
        create_extension(connection, "pg_trgm")
        quoted = '"{}"'.format(config.replace('"', '""').replace("%", "%%"))
        connection.exec_driver_sql(f"CREATE TEXT SEARCH CONFIGURATION {quoted} (COPY = english)")
        for table in (made, copied):
            table.create(connection)
            connection.execute(table.insert(), [{"id": 1, "text": "two trains"}, {"id": 2, "text": None}])
            given = [Words(table.c.words, "train"), Trigrams(table.c.text, "trains")]
            rows = connection.execute(search_hybrid(select(table.c.id), given)).all()
            assert [tuple(row) for row in rows] == [(1, pytest.approx(2 / 61), 1, 1)]
            assert len(inspect(connection).get_indexes(table.name)) == 2
            table.drop(connection)  # with its indexes, which are called alike


def test_trigrams_need_their_extension(engine: Engine) -> None:
    """Said before the table is made, with what to run."""
    with engine.connect() as connection, pytest.raises(NotMigrated, match="CREATE EXTENSION pg_trgm"):
        Base.metadata.create_all(connection)


def test_a_configuration_that_does_not_exist(engine: Engine) -> None:
    """PostgreSQL says so when the table is made."""
    made: Table = Table(
        "t", MetaData(), Column("id", Integer), Column("a", Text), Column("w", FullText("a", config="no"))
    )
    with engine.connect() as connection, pytest.raises(DBAPIError, match='"no" does not exist') as caught:
        made.create(connection)
    assert isinstance(caught.value.orig, psycopg.errors.UndefinedObject)


# -- others in the same database -----------------------------------------------------------------------------------


def test_a_tenant_sees_its_own_rows_in_every_list(engine: Engine, plan: Plan) -> None:
    """Row-level security holds inside each list, before its limit."""
    role = f"tenant_{engine.url.database}"
    made: Table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant", Text),
        Column("body", Text),
        Column("e", Matryoshka(8, Short(4))),
        Column("words", FullText("body", config="english")),
    )
    trigram_index(made.c.body)
    vectors = np.random.default_rng(0).normal(size=(4000, 8))
    with engine.begin() as connection:
        create_extension(connection, "pg_trgm")
        made.create(connection)
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        rows = [{"id": n, "tenant": "x" if n % 200 else role, "body": "a train", "e": v} for n, v in enumerate(vectors)]
        connection.execute(made.insert(), rows)
        connection.exec_driver_sql("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql("CREATE POLICY own ON docs USING (tenant = current_user)")
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {role}")
    tenant = create_engine(engine.url, connect_args={"options": f"-c role={role}"})
    given = [Nearest(made.c.e, vectors[3]), Words(made.c.words, "train"), Trigrams(made.c.body, "train")]
    try:
        with tenant.connect() as connection:
            found = connection.execute(search_hybrid(select(made.c.id), given, k=40)).all()
            connection.exec_driver_sql("SET enable_seqscan = off")
            nodes = plan(connection, search_hybrid(select(made.c.id), given, k=40))
        assert sorted(row.id for row in found) == list(range(0, 4000, 200))
        assert all(None not in row for row in found)
        # as the page says: `@@` is not leakproof, so that the policy is asked first
        indexes = {node.get("Index Name") for node in nodes}
        assert "docs_e_short_4_hnsw" in indexes
        assert "docs_words_gin" not in indexes
    finally:
        tenant.dispose()
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
