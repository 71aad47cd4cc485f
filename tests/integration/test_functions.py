"""The SQL functions of a column: the truth by NumPy, types, and the ways SQL can use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, select, text
from sqlalchemy.dialects.postgresql import CITEXT

from pgmrl import SqlFunctions, database, install_functions, reflect, search
from pgmrl.model.columns import Matryoshka, add_side_table
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Prefix, Short
from tests.databases import create_extension

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation
    from tests.conftest import Wares
    from tests.corpus import Corpus
    from tests.integration.conftest import Principal
else:
    Corpus = Principal = Rotation = Wares = Any

DIMS, ROWS = 48, 1500


def ask(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    """All rows of a statement."""
    return list(connection.execute(text(statement), parameters))


def ids(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    """The first column of a statement."""
    return [row[0] for row in ask(connection, statement, **parameters)]


# -- the truth -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def axes(principal: Principal, corpus: Corpus) -> Rotation:
    """32 axes of the leading dimensions of real vectors."""
    return principal(corpus.documents[::4][:3000, :DIMS], 32)


SHORTS = [
    ("prefix", "halfvec", 16),
    ("prefix", "vector", 16),
    ("prefix", "bit", 48),
    ("rotation", "halfvec", 16),
    ("rotation", "vector", 16),
    ("rotation", "bit", 32),
]


@pytest.mark.parametrize(("by", "kind", "dims"), SHORTS)
@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_results_are_the_truth(
    connection: Connection, corpus: Corpus, axes: Rotation, by: str, kind: Any, dims: int, full: Any, metric: Any
) -> None:
    """Exact, with a shortlist of everything, and with a short one as `search` finds it."""
    type_ = Matryoshka(DIMS, Short(dims, axes if by == "rotation" else Prefix(), kind), metric, full)
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", type_))
    database.install_rotation(connection, axes)
    docs.create(connection)
    # different norms, so that the metrics differ
    vectors = corpus.documents[:ROWS, :DIMS] * np.random.default_rng(0).uniform(0.5, 2, (ROWS, 1))
    connection.execute(docs.insert(), [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
    install_functions(connection, docs.c.e)
    definition = type_.definition
    stored = definition.stored(vectors)
    for query in corpus.queries[:4, :DIMS]:
        sent = {"query": "[" + ",".join(map(repr, map(float, query))) + "]"}
        distances = METRICS[metric].distances(stored, definition.stored(query))
        expected = np.argsort(distances, kind="stable")[:12]
        for options in ("exact => true", f"shortlist => {ROWS}"):
            rows = ask(connection, f"SELECT * FROM docs_search(:query, 12, {options})", **sent)
            assert [row.id for row in rows] == list(expected)
            assert [row.distance for row in rows] == pytest.approx(distances[expected], abs=2e-5)
            assert [(row.rank, row.requested, row.returned) for row in rows] == [(n, 12, 12) for n in range(1, 13)]
        for size in (12, 60):
            found = ask(connection, f"SELECT id, distance FROM docs_search(:query, 12, {size})", **sent)
            same = connection.execute(search(select(docs.c.id), docs.c.e, query, k=12, shortlist=size)).all()
            assert [tuple(row) for row in found] == [tuple(row) for row in same]


@pytest.mark.parametrize(("metric", "of"), [
    ("cosine", lambda d: 1 - d), ("l2", lambda d: 1 / (1 + d)), ("inner_product", lambda d: -d),
])  # fmt: skip
def test_similarity(connection: Connection, metric: Any, of: Any) -> None:
    """Larger is nearer, whatever the metric."""
    docs = Table(
        "docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(4, Short(2), metric))
    )
    docs.create(connection)
    rows = [{"id": n, "e": [1, n, 2, n * n]} for n in range(5)]
    connection.execute(docs.insert(), rows)
    install_functions(connection, docs.c.e)
    found = ask(connection, "SELECT * FROM docs_search('[1,2,3,4]', 5)")
    assert [row.similarity for row in found] == pytest.approx([of(row.distance) for row in found])
    assert [row.similarity for row in found] == sorted((row.similarity for row in found), reverse=True)


@pytest.mark.parametrize("number", range(4))
def test_similar_is_the_truth_without_the_row_itself(wares: Wares, number: int) -> None:
    """And `…_vector` is the row's vector."""
    one = number * 700 + 3
    with wares.engine.connect() as connection:
        found = ids(connection, "SELECT id FROM passages_similar(:one, 8, exact => true)", one=one)
        shortlisted = ids(connection, "SELECT id FROM passages_similar(:one, 8, 4000)", one=one)
        vector = ids(connection, "SELECT passages_vector(:one)::vector::real[]", one=one)[0]
    assert found == shortlisted == [n for n in wares.nearest(wares.vectors[one], 9) if n != one][:8]
    assert vector == pytest.approx(wares.vectors[one])


@pytest.mark.parametrize(("number", "name"), [(0, "asyncio"), (1, "it's"), (2, "büro")])
def test_a_named_query_is_its_vector(wares: Wares, number: int, name: str) -> None:
    """Looked up, then searched with as any other."""
    with wares.engine.connect() as connection:
        found = ask(connection, "SELECT * FROM passages_search_named(:name, 7, package => 'email')", name=name)
        same = ask(
            connection, "SELECT * FROM passages_search(:query, 7, package => 'email')", query=wares.literal(number)
        )
        exact = ids(connection, "SELECT id FROM passages_search_named(:name, exact => true)", name=name)
    assert found == same
    assert exact == wares.nearest(wares.queries[number])


# -- shapes of tables ----------------------------------------------------------------------------------------------


def test_a_composite_key(connection: Connection, corpus: Corpus) -> None:
    """Both parts come back, and both say which row is meant."""
    docs = Table(
        "docs",
        MetaData(),
        Column("place", Text, primary_key=True),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(DIMS, Short(16))),
    )
    docs.create(connection)
    vectors = corpus.documents[:300, :DIMS]
    connection.execute(docs.insert(), [{"place": "ab"[n % 2], "id": n // 2, "e": v} for n, v in enumerate(vectors)])
    searched = install_functions(connection, docs.c.e, SqlFunctions(related=3))
    stored = vectors.astype(np.float16)
    order = np.argsort(METRICS["cosine"].distances(stored, stored[7]), kind="stable")
    expected = [("ab"[n % 2], n // 2) for n in order]
    assert searched.key_columns == (("place", "text"), ("id", "integer"))
    rows = ask(connection, "SELECT place, id FROM docs_search(docs_vector('b', 3), 5, exact => true)")
    assert [tuple(row) for row in rows] == expected[:5]
    rows = ask(connection, "SELECT place, id FROM docs_similar('b', 3, 5, exact => true)")
    assert [tuple(row) for row in rows] == expected[1:6]
    view = "SELECT related_place, related_id FROM docs_related WHERE place = 'b' AND id = 3 ORDER BY rank"
    similar = ask(connection, "SELECT place, id FROM docs_similar('b', 3, 3)")
    assert ask(connection, view) == similar


def test_a_side_table(connection: Connection, corpus: Corpus) -> None:
    """Filters and keys are the table's, vectors its side table's."""
    metadata = MetaData()
    docs = Table(
        "docs", metadata, Column("id", Integer, primary_key=True), Column("part", Integer), Column("e", VECTOR(DIMS))
    )
    docs.create(connection)
    vectors = corpus.documents[:500, :DIMS]
    connection.execute(
        docs.insert(), [{"id": n, "part": n % 5, "e": list(map(float, v))} for n, v in enumerate(vectors)]
    )
    add_side_table(docs.c.e, Short(16))
    metadata.create_all(connection)
    install_functions(connection, docs.c.e, SqlFunctions(filters=("part",), related=2))
    stored = vectors.astype(np.float16)
    mine = np.arange(500)[np.arange(500) % 5 == 2]
    expected = mine[np.argsort(METRICS["cosine"].distances(stored[mine], stored[2]), kind="stable")]
    assert ids(connection, "SELECT id FROM docs_search(docs_vector(2), 6, 500, part => 2)") == list(expected[:6])
    assert ids(connection, "SELECT id FROM docs_similar(2, 6, part => 2, exact => true)") == list(expected[1:7])
    assert len(ids(connection, "SELECT related_id FROM docs_related WHERE id IN (1, 2, 3)")) == 6


def test_a_partitioned_table(connection: Connection, corpus: Corpus) -> None:
    """Each partition has an index of its own; rows come from all."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(DIMS, Short(16))),
        postgresql_partition_by="RANGE (id)",
    )
    docs.create(connection)
    for n in range(3):
        connection.exec_driver_sql(
            f"CREATE TABLE docs_{n} PARTITION OF docs FOR VALUES FROM ({n * 500}) TO ({n * 500 + 500})"
        )
    vectors = corpus.documents[:ROWS, :DIMS]
    connection.execute(docs.insert(), [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
    install_functions(connection, docs.c.e, SqlFunctions(related=3))
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    stored = vectors.astype(np.float16)
    expected = list(np.argsort(METRICS["cosine"].distances(stored, stored[9]), kind="stable"))
    for options in ("exact => true", f"shortlist => {ROWS}"):
        assert ids(connection, f"SELECT id FROM docs_search(docs_vector(9), 20, {options})") == expected[:20]
    assert len(ids(connection, "SELECT id FROM docs_search(docs_vector(9), 20)")) == 20
    related = ids(connection, "SELECT related_id FROM docs_related WHERE id = 9 ORDER BY rank")
    assert related == ids(connection, "SELECT id FROM docs_similar(9, 3)")
    assert len(set(related)) == 3


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_pgvector_in_another_schema(elsewhere: Engine, small_rotation: Rotation, by: str) -> None:
    """And not on the search_path of whoever installs or calls."""
    query = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    rule = small_rotation if by == "rotation" else Prefix()
    with elsewhere.begin() as connection:
        database.install_rotation(connection, small_rotation)
        for kind, metric, full in (
            ("halfvec", "cosine", "halfvec"),
            ("vector", "l2", "vector"),
            ("bit", "cosine", "vector"),
        ):
            type_ = Matryoshka(8, Short(4, rule, kind), metric, full, vector_schema="extensions")  # type: ignore[arg-type]
            docs = Table(f"t_{kind}", MetaData(), Column("id", Integer, primary_key=True), Column("e", type_))
            docs.create(connection)
            connection.execute(
                docs.insert(), [{"id": 1, "e": -query}, {"id": 2, "e": query}, {"id": 3, "e": query + 1}]
            )
            install_functions(connection, docs.c.e, SqlFunctions(related=2, stored=True))
            connection.execute(
                text(f"INSERT INTO pgmrl.queries VALUES ('t_{kind}', 'e', 'q', NULL, NULL, '[1,2,3,4,5,6,7,8]')")
            )
            for call in ("search('[1,2,3,4,5,6,7,8]')", "search_named('q', exact => true)", "similar(2)"):
                found = ids(connection, f"SELECT id FROM t_{kind}_{call}")
                assert found == ([3, 1] if "similar" in call else [2, 3, 1])
            assert ids(connection, f"SELECT related_id FROM t_{kind}_related WHERE id = 2") == [3, 1]
            connection.exec_driver_sql(f"REFRESH MATERIALIZED VIEW t_{kind}_related_stored")


# -- types ---------------------------------------------------------------------------------------------------------


def test_the_columns_have_the_types_of_the_table(wares: Wares) -> None:
    """As a BI tool sees them."""
    names = ("id", "distance", "similarity", "rank", "requested", "returned")
    asked = ", ".join(f"pg_typeof({name})::text" for name in names)
    with wares.engine.connect() as connection:
        (row,) = ask(connection, f"SELECT {asked} FROM passages_search(:query, 1)", query=wares.literal(0))
        assert list(row) == ["integer", "double precision", "double precision", "integer", "integer", "integer"]
        result = connection.execute(text("SELECT * FROM passages_similar(1)"))
        assert tuple(result.keys()) == names
        assert ids(connection, "SELECT pg_typeof(passages_vector(1))::text") == ["halfvec"]


@pytest.mark.parametrize(("type_", "values", "named"), [
    ("uuid", ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"], "uuid"),
    ("bigint", [2**40, 2**41], "bigint"),
    ("varchar(9)", ["one", "two"], "character varying"),
    ("char(5)", ["one", "two"], "character"),
    ("numeric(6,2)", ["1.50", "2.25"], "numeric"),
    ("timestamptz", ["2024-01-01 00:00:00+00", "2025-01-01 00:00:00+00"], "timestamp with time zone"),
    ('"MOOD"', ["ok", "bad"], '"MOOD"'),
    ("citext", ["One", "tWo"], "citext"),
])  # fmt: skip
def test_keys_and_filters_of_other_types(connection: Connection, type_: str, values: list[Any], named: str) -> None:
    """The key's own type comes back, and takes part in the filter."""
    connection.exec_driver_sql("CREATE TYPE \"MOOD\" AS ENUM ('ok', 'bad')")
    create_extension(connection, "citext")
    connection.exec_driver_sql(
        f"CREATE TABLE docs (id {type_} PRIMARY KEY, kind {type_}, e vector(8), s halfvec(4) "
        "GENERATED ALWAYS AS (l2_normalize(subvector(e, 1, 4))::halfvec(4)) STORED)"
    )
    for value, vector in zip(values, ("[1,2,3,4,5,6,7,8]", "[8,7,6,5,4,3,2,1]"), strict=True):
        connection.execute(
            text(f"INSERT INTO docs VALUES (CAST(:v AS {type_}), CAST(:v AS {type_}), :e)"), {"v": value, "e": vector}
        )
    install_functions(
        connection, reflect(connection, "docs.e"), SqlFunctions(filters=("kind", "kind in"), related=1, stored=True)
    )
    query = "[1,2,3,4,5,6,7,8]"
    found = ask(connection, "SELECT id::text, pg_typeof(id)::text FROM docs_search(:q)", q=query)
    assert [tuple(row) for row in found] == [(str(value), named) for value in values]
    for which in ("kind", "kind_any"):
        given = f"CAST(:v AS {type_})" if which == "kind" else f"ARRAY[CAST(:v AS {type_})]"
        statement = f"SELECT id::text FROM docs_search(:q, {which} => {given})"
        assert ids(connection, statement, q=query, v=values[1]) == [str(values[1])]
    assert ids(connection, f"SELECT id::text FROM docs_similar(CAST(:v AS {type_}))", v=values[0]) == [str(values[1])]
    connection.exec_driver_sql("REFRESH MATERIALIZED VIEW docs_related_stored")
    assert len(ids(connection, "SELECT * FROM docs_related_stored")) == 2


def test_filters_on_citext_ignore_case(connection: Connection) -> None:
    """Though its operators are not on the search_path that the functions fix."""
    create_extension(connection, "citext")
    kinds = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("kind", CITEXT),
        Column("e", Matryoshka(8, Short(4))),
    )
    kinds.create(connection)
    rows = [{"id": n, "kind": kind, "e": [1] * 8} for n, kind in enumerate(["Games", "MAIL", None, "web"])]
    connection.execute(kinds.insert(), rows)
    install_functions(connection, kinds.c.e, SqlFunctions(filters=("kind", "kind in", "kind >=", "kind <=")))
    for given, expected in (
        ("kind => 'gAMES'", [0]),
        ("kind_any => '{games,mail}'", [0, 1]),
        ("kind_min => 'MAIL'", [1, 3]),
        ("kind_max => 'mail'", [0, 1]),
        ("kind => 'it''s'", []),
    ):
        assert ids(connection, f"SELECT id FROM docs_search('[1,2,3,4,5,6,7,8]', {given})") == expected
