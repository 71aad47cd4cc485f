"""Quality of results for judged queries: systems, dimensions, bad input, against a real server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from pgmrl import FullText, Matryoshka, Rotation, Short, add_side_table, evaluate, reflect, search
from pgmrl.errors import DefinitionError, MeasureError, RotationError, SearchError, VectorError
from pgmrl.evaluation import (
    EXACT,
    HYBRID,
    SHORT_ONLY,
    TWO_STAGE,
    WORDS,
    Judged,
    Query,
    evaluate_column,
    plot,
    selected_judgements,
)
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine

    from pgmrl.evaluation import Evaluation
    from tests.corpus import Corpus, Passage
    from tests.integration.conftest import Principal, Shop
else:
    Principal = Shop = Corpus = Any

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon"]


def unit(*degrees: float) -> NDArray[np.float32]:
    """Vectors of four dimensions at these angles; the leading two have the double angle."""
    turns = np.radians(np.array(degrees))
    return np.stack([0.1 * np.cos(3 * turns), 0.1 * np.sin(3 * turns), np.cos(turns), np.sin(turns)], axis=1).astype(
        np.float32
    )


VECTORS = unit(0, 10, 25, 115, 135)
"""Of the first query, at 0: by full vectors alpha, beta, gamma, delta, epsilon; by the leading two dimensions alpha,
delta (at 345), beta (at 30), epsilon (at 45), gamma (at 75)."""


def little(metadata: MetaData, **kind: Any) -> Table:
    """Five documents, with words."""
    return Table(
        "little",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", Text, unique=True),
        Column("kind", Text),
        Column("words", FullText("name", "kind", config="simple")),
        Column("embedding", Matryoshka(4, Short(2), **kind)),
    )


@pytest.fixture
def table(connection: Connection) -> Table:
    """Loaded, in a transaction that is rolled back."""
    made = little(MetaData())
    made.create(connection)
    connection.execute(
        made.insert(),
        [
            {"id": n, "name": name, "kind": "letter", "embedding": vector}
            for n, (name, vector) in enumerate(zip(NAMES, VECTORS, strict=True), 1)
        ],
    )
    return made


def one_query(relevance: dict[str, int], **query: Any) -> Judged:
    """The query at 0."""
    return Judged([Query("q", **({"vector": unit(0)[0]} | query))], {"q": relevance})


def means(found: Evaluation, name: str) -> dict[str, float]:
    """A system's means."""
    system = found.system(name)
    assert system is not None
    return {measure: round(mean.mean, 4) for measure, mean in system.means.items()}


# -- what the numbers are ------------------------------------------------------------------------------------------


def test_systems_by_hand(connection: Connection, table: Table) -> None:
    """Each ranking has the value that its order gives by hand."""
    found = evaluate(
        connection,
        table.c.embedding,
        one_query({"3": 1}, text="delta gamma", vector=unit(0)[0]),
        measures=["RR@10", "P@2"],
        words="words",
        match="any",
        dims=[2, 4],
    )
    assert means(found, EXACT) == {"RR@10": round(1 / 3, 4), "P@2": 0}
    assert means(found, SHORT_ONLY) == {"RR@10": 1 / 5, "P@2": 0}
    assert means(found, TWO_STAGE) == means(found, EXACT)
    # both match one word, and of the same rank the key decides
    assert means(found, WORDS) == {"RR@10": 1.0, "P@2": 0.5}
    assert [(one.by, one.dims, one.short_only["RR@10"]) for one in found.dims] == [
        ("prefix", 2, 1 / 5),
        ("prefix", 4, pytest.approx(1 / 3)),
    ]
    assert [one.name for one in found.systems] == [EXACT, TWO_STAGE, SHORT_ONLY, WORDS, HYBRID]
    assert found.rows == 5
    assert (found.queries, found.judged) == (["q"], 1)


def test_a_shortlist_that_is_too_short_shows(connection: Connection, table: Table) -> None:
    """Two rows of the shortlist: alpha and delta; gamma is lost, and the worst query says so."""
    judged = one_query({"3": 1, "1": 1})
    found = evaluate(connection, table.c.embedding, judged, measures=["R@3"], shortlist=2, dims=[])
    assert means(found, TWO_STAGE) == {"R@3": 0.5}
    assert [(one.query, one.exact, one.two_stage, one.lost) for one in found.worst] == [("q", 1.0, 0.5, ["3"])]
    assert [one.two_stage["R@3"] for one in found.dims] == [0.5]
    two_stage = found.system(TWO_STAGE)
    assert two_stage is not None
    assert two_stage.differences["R@3"].mean == -0.5
    assert two_stage.differences["R@3"].kept == 0.5
    assert found.shortlists == {3: 2}


def test_documents_by_another_column(connection: Connection, table: Table) -> None:
    """Unique it must be."""
    judged = one_query({"gamma": 1})
    found = evaluate(connection, table.c.embedding, judged, measures=["RR"], document_id="name")
    assert means(found, EXACT) == {"RR": round(1 / 3, 4)}
    with pytest.raises(MeasureError, match=r"little\.kind has no unique index"):
        evaluate(connection, table.c.embedding, judged, document_id="kind")
    with pytest.raises(MeasureError, match="has no column 'title' to name documents by: it has id, name, kind"):
        evaluate(connection, table.c.embedding, judged, document_id="title")
    connection.exec_driver_sql("ALTER TABLE little DROP CONSTRAINT little_name_key")
    connection.exec_driver_sql("CREATE UNIQUE INDEX ON little (name) WHERE id > 2")
    with pytest.raises(MeasureError, match=r"little\.name has no unique index"):
        evaluate(connection, table.c.embedding, judged, document_id="name")


def test_a_document_as_its_own_query_can_be_left_out(connection: Connection, table: Table) -> None:
    """In every system, and without losing a place for it."""
    judged = Judged([Query("1", "alpha beta", VECTORS[0])], {"1": {"2": 1}})
    options: dict[str, Any] = {"measures": ["P@1"], "words": "words", "match": "any"}
    with_itself = evaluate(connection, table.c.embedding, judged, **options)
    without = evaluate(connection, table.c.embedding, judged, itself=False, **options)
    for name in (EXACT, TWO_STAGE, WORDS, HYBRID):
        assert (means(with_itself, name), means(without, name)) == ({"P@1": 0}, {"P@1": 1})


def test_ties_are_ranked_as_by_searches(connection: Connection) -> None:
    """By key: neither by what names a document, nor as they lie in the table."""
    table = Table(
        "same",
        MetaData(),
        Column("key", Text, primary_key=True),
        Column("name", Text, unique=True),
        Column("e", Matryoshka(4, Short(2))),
    )
    table.create(connection)
    rows = [{"key": key, "name": f"{9 - n}", "e": VECTORS[0]} for n, key in enumerate(("b", "A", "a", "10", "9"))]
    connection.execute(table.insert(), [*rows, {"key": "0", "name": "0", "e": VECTORS[2]}])
    statement = search(select(table.c.name), table.c.e, VECTORS[1], k=6, exact=True)
    order = [row.name for row in connection.execute(statement)]
    assert order == sorted(order, key=lambda name: (name == "0", [row["key"] for row in rows if row["name"] == name]))
    queries = [Query(name, vector=VECTORS[1]) for name in order]
    judged = Judged(queries, {name: {name: 1} for name in order})
    found = evaluate(connection, table.c.e, judged, measures=["RR"], document_id="name", dims=[2, 3])
    for name in (EXACT, TWO_STAGE):
        system = found.system(name)
        assert system is not None
        assert system.values["RR"] == pytest.approx(1 / np.arange(1, 7))
    assert {one.two_stage["RR"] for one in found.dims} == {found.systems[0].means["RR"].mean}


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_the_exact_ranking_is_that_of_an_exact_search(connection: Connection, corpus: Corpus, metric: Any) -> None:
    """Row by row, of real vectors with copies among them: every row in turn is the relevant one."""
    table = Table(
        "docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(96, Short(24), metric))
    )
    table.create(connection)
    vectors = np.concatenate([corpus.documents[:700, :96], corpus.documents[:100, :96]])
    connection.execute(table.insert(), [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
    for query in corpus.queries[:3, :96]:
        rows = connection.execute(search(select(table.c.id), table.c.e, query, k=100, exact=True)).all()
        queries = [Query(f"q{place}", vector=query) for place in range(100)]
        judged = Judged(queries, {f"q{place}": {str(row.id): 1} for place, row in enumerate(rows)})
        found = evaluate(connection, table.c.e, judged, measures=["RR"], dims=[])
        ranks = np.rint(1 / np.asarray(found.systems[0].values["RR"])).astype(int)
        assert sorted(ranks) == list(range(1, 101))
        for place, rank in enumerate(ranks):  # the server sums in single precision: what is nearer than that may swap
            apart = abs(rows[rank - 1].distance - rows[place].distance)
            assert rank == place + 1 or 0 < apart < 1e-6


# -- real judgements -----------------------------------------------------------------------------------------------


def by_tags(passages: list[Passage], count: int, queries: int) -> dict[str, dict[str, int]]:
    """Passages of the first `count` that share at least half of their tags with a query."""
    tags = [frozenset(passage["tags"]) for passage in passages[:count]]
    found: dict[str, dict[str, int]] = {}
    for n in range(0, count, 7):
        if len(found) == queries:
            break
        if len(tags[n]) < 4:
            continue
        shares = {m: len(tags[n] & other) / len(tags[n] | other) for m, other in enumerate(tags) if m != n}
        grades = {str(m): 2 if share >= 0.75 else 1 for m, share in shares.items() if share >= 0.5}
        if grades:
            found[str(n)] = grades
    return found


@pytest.fixture(scope="module")
def real(shop: Shop, corpus: Corpus, principal: Principal) -> Evaluation:
    """200 of the 20,000 passages as queries, relevant by tags, searched through a prefix of 64 under HNSW."""
    relevance = by_tags(corpus.passages, 20_000, 200)
    queries = [Query(one, corpus.passages[int(one)]["text"], shop.documents[int(one)]) for one in relevance]
    with Session(shop.engine) as session:
        rotation = principal(shop.documents[::4], 128)
        judged = Judged(queries, relevance)
        return evaluate(session, shop.package.embedding, judged, rotation=rotation, shortlist=500, itself=False)


def test_two_stages_keep_the_quality_of_exact_search(real: Evaluation) -> None:
    """At least 99.5 % of nDCG@10 on real judgements, through the index."""
    two_stage = real.system(TWO_STAGE)
    assert two_stage is not None
    found = two_stage.differences["nDCG@10"]
    assert found.kept is not None
    assert found.kept >= 0.995
    assert found.low <= found.mean <= found.high
    assert real.systems[0].means["nDCG@10"].mean > 0.2
    assert not [warning for warning in real.warnings if "planner" in warning]
    assert real.rows == 20_100  # the zero vectors are rows, and nothing finds them


def test_dimensions_are_what_a_column_of_theirs_would_give(real: Evaluation) -> None:
    """More dimensions are better, a second stage helps, a rotation helps, and the column's own are among them."""
    found = {(one.by == "prefix", one.dims): one for one in real.dims}
    assert {dims for _, dims in found} == {16, 32, 64, 128}
    prefix = [found[True, dims].short_only["nDCG@10"] for dims in (16, 32, 64, 128)]
    assert prefix == sorted(prefix)
    for (_, dims), one in found.items():
        if dims <= 64:
            assert one.two_stage["nDCG@10"] > one.short_only["nDCG@10"]
    assert found[False, 16].short_only["nDCG@10"] > found[True, 16].short_only["nDCG@10"] + 0.02
    own = real.system(SHORT_ONLY)
    assert own is not None
    assert own.means["nDCG@10"].mean == found[True, 64].short_only["nDCG@10"]


def test_the_plot_is_one_file(real: Evaluation, tmp_path: Path) -> None:
    """Of the form that its name says; in HTML nothing is fetched, and the numbers are there."""
    heads = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!DOCTYPE html>"}
    for suffix, head in heads.items():
        path = tmp_path / f"quality{suffix}"
        plot(real, path)
        written = path.read_bytes()
        assert written.startswith(head)
        plot(real, path)
        assert path.read_bytes() == written
    page = (tmp_path / "quality.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert not [tag for tag in ("<script", "<link", "<img", "<image", "@import", "url(http") if tag in page]
    assert f"{real.dims[0].short_only['nDCG@10']:.4f}" in page
    for path, message in ((tmp_path / "a.gif", "ends with none of"), (tmp_path / "no" / "a.png", "no folder")):
        with pytest.raises(MeasureError, match=message):
            plot(real, path)
    with pytest.raises(MeasureError, match=r"P@3 was not measured"):
        plot(real, tmp_path / "a.png", "P@3")


def test_bits_and_side_tables(engine: Engine, corpus: Corpus) -> None:
    """Hamming distances order the short list of bits; a side table's vectors are found by the table's documents."""
    metadata = MetaData()
    bits = Table(
        "bits",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(128, Short(128, type="bit"), full="vector")),
    )
    owner = Table(
        "Owner", metadata, Column("id", Integer, primary_key=True), Column("Name", Text, unique=True),
        Column("e", NumpyVector(128, "vector")),
    )  # fmt: skip
    add_side_table(owner.c.e, Short(128, type="bit"), full="vector")
    vectors = corpus.documents[:2_000, :128]
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(bits.insert(), [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
        rows = [{"id": n, "Name": f"doc {n}", "e": vector} for n, vector in enumerate(vectors)]
        connection.execute(owner.insert(), rows)
        relevance = by_tags(corpus.passages, 2_000, 40)
        queries = [Query(one, vector=vectors[int(one)]) for one in relevance]
        found = evaluate(connection, bits.c.e, Judged(queries, relevance), dims=[32], itself=False)
        named = {query: {f"doc {one}": grade for one, grade in grades.items()} for query, grades in relevance.items()}
        renamed = [Query(f"doc {query}", vector=vector) for query, _, vector in queries]
        named = {f"doc {query}": grades for query, grades in named.items()}
        aside = evaluate(connection, owner.c.e, Judged(renamed, named), dims=[32], itself=False, document_id="Name")
    exact, own = means(found, EXACT)["nDCG@10"], means(found, SHORT_ONLY)["nDCG@10"]
    assert means(found, "short only")["nDCG@10"] > 0
    assert abs(own - exact) < 0.1
    assert found.dims[0].short_only["nDCG@10"] < own
    assert means(aside, EXACT) == means(found, EXACT)
    assert [one.short_only for one in aside.dims] == [one.short_only for one in found.dims]
    assert means(aside, TWO_STAGE)["nDCG@10"] == pytest.approx(exact, abs=0.01)


# -- what is left out, and what is refused -------------------------------------------------------------------------


def test_what_does_not_match_is_counted_and_named(connection: Connection, table: Table) -> None:
    """Queries without judgements, judgements without queries, documents that are not there or have no vector."""
    connection.execute(table.insert(), [{"id": 6, "name": "zeta", "kind": "letter"}])
    queries = [
        Query("a", vector=unit(0)[0]),
        Query("b", vector=unit(9)[0]),
        Query("zero", vector=np.zeros(4)),
        Query("c", vector=unit(1)[0]),
        Query("null", vector=None),
    ]
    relevance = {
        "a": {"1": 1, "99": 1, "abc": 1, "6": 1, "007": 1},
        "zero": {"2": 1},
        "c": {"2": 0, "4": 0, "5": 0, "3": -1},
        "null": {"1": 1},
        "gone": {"1": 1},
    }
    found = evaluate(connection, table.c.embedding, Judged(queries, relevance), measures=["R@10"])
    assert found.queries == ["a", "c"]
    assert [round(value, 4) for value in found.systems[0].values["R@10"]] == [0.2, 0]
    notes = "\n".join(found.warnings)
    assert "1 query ('b') without judgements: not scored." in notes
    assert "1 judged query ('gone') not among the queries: not scored." in notes
    assert "2 queries ('zero', 'null') cannot be searched with" in notes
    assert "1 query ('c') without a relevant document: 0 for every system." in notes
    assert "3 judged documents ('99', 'abc', '007') not in the table: they count as not found" in notes
    assert "1 judged document ('6') without a vector: never found." in notes


def test_an_index_that_is_not_used_is_said(connection: Connection, table: Table) -> None:
    """Else `two stages` would be taken for what an application gets."""
    judged = one_query({"1": 1})
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    assert evaluate(connection, table.c.embedding, judged).warnings == []
    connection.exec_driver_sql("DROP INDEX little_embedding_short_2_hnsw")
    assert "The planner does not use an index" in " ".join(evaluate(connection, table.c.embedding, judged).warnings)


def test_unknown_documents_are_most_likely_a_mistake(connection: Connection, table: Table) -> None:
    """More than half of them: names, and where to look."""
    with pytest.raises(
        MeasureError, match=r"of 3 judged documents the table has 1, not 'alpha', 'beta': name another .*--document-id"
    ):
        evaluate(connection, table.c.embedding, one_query({"alpha": 1, "beta": 1, "1": 1}))
    with pytest.raises(MeasureError, match="of 1 judged documents the table has 0"):
        evaluate(connection, table.c.embedding, one_query({"99999999999999999999": 1}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"measures": ["nope"]}, MeasureError, "'nope' is no measure"),
        ({"measures": []}, MeasureError, "there is no measure"),
        ({"words": "kind"}, DefinitionError, "not tsvector"),
        ({"words": "gone"}, MeasureError, "no column 'gone' of words"),
        ({"words": "words", "config": "english"}, SearchError, "config='english'"),
        ({"words": "words", "match": "some"}, SearchError, "match='some'"),
        ({"dims": [0]}, MeasureError, "0 dimensions to try: the column has 4"),
        ({"dims": [8]}, MeasureError, "8 dimensions to try"),
        ({"words": "plain", "config": "klingon"}, DBAPIError, "configuration .klingon. does not exist"),
        ({"shortlist": 0}, SearchError, "shortlist=0"),
        ({"measures": ["P@200000"]}, SearchError, "k=200,000: expected at most 100,000"),
        ({"ef_search": 5_000}, SearchError, "ef_search=5000"),
        ({"limit_queries": 0}, SearchError, "limit_queries=0: expected at least 1"),
        ({"seconds": 0}, SearchError, "seconds=0: expected more than 0"),
        ({"seconds": float("nan")}, SearchError, "seconds=nan: expected a finite number"),
        ({"rotation": Rotation.of(np.eye(8)[:2])}, RotationError, "is for 8 dimensions, expected 4"),
        ({"rotation": Rotation.of(np.eye(4)[:1]), "dims": [2, 4]}, MeasureError, "has 1 axes"),
        ({"document_id": "id; DROP TABLE little"}, MeasureError, "has no column 'id; DROP TABLE little'"),
    ],
)
def test_arguments_that_cannot_be(
    connection: Connection, table: Table, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """One clear error each, before anything is embedded or read."""
    connection.exec_driver_sql("ALTER TABLE little ADD plain tsvector")
    table.append_column(Column("plain", TSVECTOR))
    judged = one_query({"1": 1}, text="alpha", vector=None)
    told: list[str] = []
    with pytest.raises(error, match=message):
        evaluate(
            connection,
            table.c.embedding,
            judged,
            embedder=Model(4),
            progress=lambda what, *_: told.append(what),
            **options,
        )
    assert told == []


def test_queries_that_cannot_be_searched_with(connection: Connection, table: Table) -> None:
    """Texts without a model, other dimensions, zeros alone, words without a text."""
    with pytest.raises(MeasureError, match="query 'q' has no vector: give its vector, or a model"):
        evaluate(connection, table.c.embedding, one_query({"1": 1}, text="alpha", vector=None))
    with pytest.raises(VectorError, match=r"query 1 of the judged queries has 3 dimensions, little.embedding has 4"):
        evaluate(connection, table.c.embedding, one_query({"1": 1}, vector=[1, 2, 3]))
    with pytest.raises(MeasureError, match="of 1 judged queries none can be searched with"):
        evaluate(connection, table.c.embedding, one_query({"1": 1}, vector=[0, 0, 0, 0]))
    with pytest.raises(MeasureError, match="query 'q' has no text"):
        evaluate(connection, table.c.embedding, one_query({"1": 1}), words="words")
    with pytest.raises(DefinitionError, match="not a Matryoshka column"):
        evaluate(connection, table.c.kind, one_query({"1": 1}))


class Model:
    """An embedder of as many dimensions as it is told."""

    def __init__(self, dims: int) -> None:
        self.name, self.dims, self.trained_dims = "own", dims, ()

    def embed_documents(self, texts: Any) -> Any:
        """Not asked for."""
        raise NotImplementedError

    def embed_queries(self, texts: Any) -> Any:
        """The vector at 0 for what it knows, zeros for others."""
        return np.stack([unit(0)[0] if one == "alpha" else np.zeros(self.dims) for one in texts])


def test_texts_are_embedded(connection: Connection, table: Table) -> None:
    """And a text that the model knows nothing of is left out."""
    queries = [Query("q", "alpha"), Query("r", "something"), Query("s", "given", unit(25)[0])]
    judged = Judged(queries, {"q": {"1": 1}, "r": {"1": 1}, "s": {"3": 1}})
    done: list[tuple[str, int, int]] = []
    found = evaluate(
        connection,
        table.c.embedding,
        judged,
        measures=["P@1"],
        embedder=Model(4),
        progress=lambda *step: done.append(step),
    )
    assert (found.queries, means(found, EXACT)) == (["q", "s"], {"P@1": 1})
    assert {("embedding", 2, 2), ("searching", 2, 2), ("reading the table", 5, 5)} <= set(done)
    with pytest.raises(VectorError, match=r"own gives 8 dimensions, little\.embedding has 4: use the model"):
        evaluate(connection, table.c.embedding, judged, embedder=Model(8))


def test_an_empty_table_and_a_key_of_two_columns(connection: Connection) -> None:
    """Nothing to search; and a document's name that has to be said."""
    table = Table(
        "pairs",
        MetaData(),
        Column("a", Integer, primary_key=True),
        Column("b", Text, primary_key=True),
        Column("name", Text, unique=True),
        Column("e", Matryoshka(4, Short(2))),
    )
    table.create(connection)
    with pytest.raises(
        MeasureError, match=r"the key of pairs has 2 columns \(a, b\).*with a unique index .*--document-id"
    ):
        evaluate(connection, table.c.e, one_query({"1": 1}))
    with pytest.raises(MeasureError, match="of 1 judged documents the table has 0"):
        evaluate(connection, table.c.e, one_query({"x": 1}), document_id="name")
    connection.execute(table.insert(), [{"a": 1, "b": "x", "name": "x"}])
    with pytest.raises(MeasureError, match="the table has no row with a vector"):
        evaluate(connection, table.c.e, one_query({"x": 1}), document_id="name")
    rows = [{"a": 1, "b": b, "name": b if b == "z" else None, "e": unit(0)[0]} for b in "yz"]
    connection.execute(table.insert(), rows)
    found = evaluate(connection, table.c.e, one_query({"z": 1}), document_id="name", measures=["RR"])
    assert found.rows == 2  # one without a name is found as well


def test_all_vectors_equal(connection: Connection) -> None:
    """Any order is as good as another; the library's is by key, and two stages have it as well."""
    table = little(MetaData())
    table.create(connection)
    connection.execute(
        table.insert(), [{"id": n, "name": str(n), "kind": "x", "embedding": VECTORS[0]} for n in range(60)]
    )
    found = evaluate(connection, table.c.embedding, one_query({"0": 1, "5": 1}), measures=["P@10"], dims=[])
    assert [means(found, name) for name in (EXACT, TWO_STAGE)] == [{"P@10": 0.2}, {"P@10": 0.2}]


def test_before_a_rotation_is_learned_there_is_no_two_stage(engine: Engine, corpus: Corpus) -> None:
    """Dimensions are tried all the same: that is when they are chosen."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(64, Short(16, by=Rotation()))),
    )
    with engine.connect() as connection:
        table.create(connection)
        connection.execute(
            table.insert(), [{"id": n, "e": vector} for n, vector in enumerate(corpus.documents[:300, :64])]
        )
        judged = Judged([Query("7", vector=corpus.documents[7, :64])], {"7": {"7": 1}})
        found = evaluate(connection, table.c.e, judged, measures=["P@1"], rotation=Rotation.of(np.eye(64)[:32]))
        bare = evaluate(connection, reflect(connection, "docs.e"), judged, measures=["P@1"])
    assert [one.name for one in found.systems] == [EXACT]
    assert [(one.by == "prefix", one.dims) for one in found.dims] == [
        (True, 16), (True, 32), (False, 16), (False, 32),
    ]  # fmt: skip
    assert any("no short vectors" in note for note in found.warnings)
    assert found.worst == []
    assert [one.dims for one in bare.dims] == [16, 32]


def test_nothing_is_written_or_left_behind(engine: Engine) -> None:
    """In a transaction of its own nothing can be written; settings end with it; the caller's goes on."""
    table = little(MetaData())
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"id": 1, "name": "a", "kind": "b", "embedding": VECTORS[0]}])
    seen: list[tuple[str, str]] = []

    def look(connection: Connection) -> Callable[[str, int, int], None]:
        def told(*_: Any) -> None:
            rows = connection.exec_driver_sql(
                "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation')"
            )
            seen.append(tuple(rows.one()))

        return told

    for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
        with engine.connect().execution_options(**options) as connection:
            evaluate(
                connection,
                table.c.embedding,
                one_query({"1": 1}),
                progress=look(connection),
                seconds=60,
                measures=["P@1"],
            )
            if options:
                assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
            else:
                assert not connection.in_transaction()
    assert set(seen) == {("on", "repeatable read")}
    with engine.connect() as connection:
        connection.execute(table.insert(), [{"id": 2, "name": "b", "kind": "b", "embedding": VECTORS[1]}])
        found = evaluate(connection, table.c.embedding, one_query({"2": 1}), measures=["P@1"], seconds=60)
        assert found.rows == 2  # what the caller's transaction sees
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert connection.execute(select(table.c.id)).scalars().all() == [1, 2]


def test_a_part_of_the_queries(connection: Connection, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen at random, the same for the same seed; with little time the queries that there was time for."""
    queries = [Query(str(n), vector=unit(n)[0]) for n in range(40)]
    judged = Judged(queries, {str(n): {"1": 1} for n in range(40)})
    first, again, other = (
        evaluate(connection, table.c.embedding, judged, limit_queries=5, seed=seed, measures=["P@1"]).queries
        for seed in (1, 1, 2)
    )
    assert first == again
    assert len(set(first)) == 5
    assert first != other
    late = 0.0
    monkeypatch.setattr(evaluate_column, "monotonic", lambda: time.monotonic() + late)

    def told(what: str, done: int, _: int) -> None:
        nonlocal late
        late = 60.0 if (what, done) == ("searching", 3) else late

    found = evaluate(connection, table.c.embedding, judged, seconds=60, measures=["P@1"], dims=[], progress=told)
    assert len(found.queries) == 3
    assert "enough for 3 of 40 queries" in " ".join(found.warnings)
    assert all(len(one.values["P@1"]) == 3 for one in found.systems)


# -- judgements of the database ------------------------------------------------------------------------------------


def test_judgements_of_a_table(connection: Connection, table: Table, tmp_path: Path) -> None:
    """The query is its own text, or has a text and a vector beside it, or a file has them."""
    connection.exec_driver_sql(
        "CREATE TABLE judged (query text, id integer, document bigint, relevance numeric, v halfvec(4))"
    )
    connection.exec_driver_sql(
        "INSERT INTO judged VALUES ('alpha', 7, 1, 1, '[0.1,0,1,0]'), ('alpha', 7, 2, 0, '[0.1,0,1,0]'), "
        "('gamma: 100%%', 8, 3, 2, '[0,0.1,0,1]')"
    )
    found = selected_judgements(connection, "SELECT query, document, relevance FROM judged WHERE query LIKE '%a%'")
    assert [tuple(one) for one in found.queries] == [("alpha", "alpha", None), ("gamma: 100%", "gamma: 100%", None)]
    assert found.relevance == {"alpha": {"1": 1, "2": 0}, "gamma: 100%": {"3": 2}}
    found = selected_judgements(connection, "SELECT id, document, relevance, query AS text, v AS vector FROM judged")
    result = evaluate(connection, table.c.embedding, found, measures=["RR"], words="words", match="any")
    assert result.queries == ["7", "8"]
    assert means(result, WORDS) == {"RR": 1.0}
    (tmp_path / "q.tsv").write_text("7\tone\n8\ttwo\n")
    np.save(tmp_path / "v.npy", unit(0, 25))
    given = "SELECT id, document, relevance FROM judged"
    found = selected_judgements(connection, given, tmp_path / "q.tsv", tmp_path / "v.npy")
    assert means(evaluate(connection, table.c.embedding, found, measures=["P@1"]), EXACT) == {"P@1": 1.0}
    with pytest.raises(MeasureError, match="vectors of a file need the queries' file"):
        selected_judgements(connection, given, vectors=tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT 1, 2", r"selects \?column\?, \?column\?: give a SELECT of query, document, relevance"),
        ("SELECT 'a', 'b', 1, 2 AS other", "selects .*other: give a SELECT"),
        ("SELECT 'a', 'b', 1.5", "row 1 of the judgements: relevance Decimal"),
        ("SELECT 'a', 'b', 'c'", "row 1 of the judgements: relevance 'c' is no whole number"),
        ("SELECT 'a', 'b', true", "relevance True is no whole number"),
        ("SELECT 'a', NULL, 1", "row 1 of the judgements has a NULL document"),
        ("VALUES ('a', 'b', 1), ('a', 'b', 2)", "row 2 of the judgements: document 'b' has relevance 2"),
        ("SELECT 'a', 'b', 1 WHERE false", "there are no queries"),
        ("SELECT * FROM nowhere", "relation .nowhere. does not exist"),
        ("SET LOCAL work_mem = '4MB'", "selects nothing"),
    ],
)
def test_statements_that_select_no_judgements(connection: Connection, statement: str, message: str) -> None:
    """What is wrong, and with which row."""
    with pytest.raises(MeasureError, match=message):
        selected_judgements(connection, statement)


# -- rights, and what the server ends -------------------------------------------------------------------------------


def test_rights_and_row_level_security(engine: Engine) -> None:
    """A role that may only read is enough, and judges what it may see; a policy that takes forever is given up."""
    table = little(MetaData())
    with engine.begin() as connection:
        table.create(connection)
        rows = [{"id": n, "name": str(n), "kind": "ab"[n % 2], "embedding": unit(n)[0]} for n in range(6)]
        connection.execute(table.insert(), rows)
        connection.exec_driver_sql("DROP ROLE IF EXISTS evaluate_reader")
        connection.exec_driver_sql("CREATE ROLE evaluate_reader")
        connection.exec_driver_sql("GRANT SELECT ON little TO evaluate_reader")
        connection.exec_driver_sql("ALTER TABLE little ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql("CREATE POLICY p ON little USING (kind = 'a')")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET ROLE evaluate_reader")
            found = evaluate(connection, table.c.embedding, one_query({"2": 1, "1": 1, "0": 1}), measures=["R@10"])
            assert found.rows == 3
            assert [means(found, name) for name in (EXACT, TWO_STAGE)] == [{"R@10": 0.6667}] * 2
            assert any("1 judged document ('1') not in the table" in note for note in found.warnings)
            connection.rollback()
            connection.exec_driver_sql("RESET ROLE")
            connection.exec_driver_sql("ALTER POLICY p ON little USING (pg_sleep(0.5) IS NOT NULL)")
            connection.exec_driver_sql("SET ROLE evaluate_reader")
            with pytest.raises(MeasureError, match=r"a single statement takes longer than 0\.3 seconds"):
                evaluate(connection, table.c.embedding, one_query({"2": 1}), seconds=0.3)
            connection.rollback()
            connection.exec_driver_sql("RESET ROLE")
            connection.exec_driver_sql(
                "CREATE FUNCTION conflict() RETURNS boolean LANGUAGE plpgsql COST 1000 AS $$ BEGIN RAISE EXCEPTION "
                "'canceling statement due to conflict with recovery' USING ERRCODE = '40001'; END $$"
            )
            connection.exec_driver_sql("ALTER POLICY p ON little USING (conflict())")
            connection.exec_driver_sql("SET ROLE evaluate_reader")
            with pytest.raises(MeasureError, match=r"the standby ended the snapshot.*hot_standby_feedback"):
                evaluate(connection, table.c.embedding, one_query({"2": 1}))
            connection.rollback()
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY evaluate_reader")
            connection.exec_driver_sql("DROP ROLE evaluate_reader")
