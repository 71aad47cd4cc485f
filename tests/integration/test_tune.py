"""Tuning on real vectors: what it predicts of a column that does not exist is what that column then does."""

from __future__ import annotations

import itertools
import json
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from pgmrl import Hnsw, Matryoshka, Rotation, Short, add_side_table, database, ingest, load_settings, reflect, search
from pgmrl.database import vector_reader
from pgmrl.database.settings import stored_setting
from pgmrl.errors import DatabaseError, DefinitionError, MeasureError, NotMigrated, RotationError, SearchError
from pgmrl.measure import recall_at_k, vector_queries
from pgmrl.model.shortening import Definition, Prefix
from pgmrl.searching.plans import explained, index_serving, shortlist_scans
from pgmrl.tune import Tuning, table_passes, tune
from pgmrl.tune.applied_migration import migration
from pgmrl.tune.applying import apply_tuning, model
from pgmrl.tune.candidates import Candidate
from pgmrl.tune.nested_samples import NestedSamples, nested_truth
from pgmrl.tune.plots import figure, kept_rows, write_html, write_png
from pgmrl.tune.short_ranks import count_short_ranks
from pgmrl.tune.time_budget import TimeBudget
from pgmrl.tune.tuned_table import TunedTable
from pgmrl.tune.tuning_transaction import snapshot
from tests.databases import indexed_afterwards

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.corpus import Corpus

ROWS = 5_000
FRESH = 600
QUICK: dict[str, Any] = {"queries": 300, "finalists": 1, "types": ("halfvec",)}


def parted(corpus: Corpus) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows to load, and others of the same kind to ask for."""
    order = np.random.default_rng(1).permutation(len(corpus.documents))[: ROWS + FRESH]
    some = corpus.documents[order]
    return some[:ROWS], some[ROWS:]


def bare(connection: Connection, name: str = "packages") -> Any:
    """The column without a short one, as the catalogue has it; the connection is outside a transaction."""
    column = reflect(connection, f"{name}.embedding")
    connection.rollback()
    return column


@pytest.fixture(scope="module")
def packages(module_engine: Engine, corpus: Corpus) -> Engine:
    """5,000 real vectors, ten rows without one and ten with a zero one; no short column."""
    with module_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(256))")
        fill(connection, "packages", parted(corpus)[0])
        connection.exec_driver_sql(
            "INSERT INTO packages SELECT n, CASE WHEN mod(n, 2) = 0 THEN array_fill(0, ARRAY[256])::halfvec(256) END "
            f"FROM generate_series({ROWS + 1}, {ROWS + 20}) AS n"
        )
    with module_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE packages")
    return module_engine


def fill(connection: Connection, name: str, vectors: NDArray[np.float32], full: str = "halfvec") -> None:
    """Load vectors, numbered from 0."""
    dims = vectors.shape[1]
    column = Table(
        name,
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(dims, Short(1, by=Rotation()), full=full)),  # type: ignore[arg-type]
    ).c.embedding
    ingest(connection, column, ({"id": n} for n in range(len(vectors))), vectors=vectors)


@pytest.fixture(scope="module")
def found(packages: Engine) -> Tuning:
    """Tuned for .95."""
    with packages.connect() as connection:
        return tune(connection, bare(connection), 0.95, queries=1_000, dims=(32, 64, 128), finalists=2)


# -- what it promises ----------------------------------------------------------------------------------------------


def test_it_finds_the_cheapest_that_reaches_the_target(found: Tuning) -> None:
    """By the lower end of the interval, and of what costs the same the smaller."""
    choice = found.choice
    assert choice is not None
    assert (found.limit, found.best, found.current) == (None, None, None)
    assert not found.keeps_column
    assert choice.recall.low >= 0.95
    assert choice.shortlist <= choice.ef_search
    for other in found.front:
        if other.recall.low >= 0.95:
            assert choice.latency_ms <= other.latency_ms * 1.06
    assert found.rows == ROWS + 10  # those with a vector, also a zero one
    assert found.rows_read == ROWS - 1_000  # without the queries, and without zero vectors
    assert (found.queries, found.k, found.target) == (500, 10, 0.95)


def test_what_it_predicts_is_what_the_column_does(found: Tuning, packages: Engine, corpus: Corpus) -> None:
    """Built by the library, searched by the statement that applications send, with queries that tuning never saw."""
    choice = found.choice
    assert choice is not None
    assert isinstance(found.rotation, Rotation)
    rows, fresh = parted(corpus)
    short, index = choice.candidate.definition.short, choice.candidate.index
    built = Table(
        "built",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(256, short, index=index)),
    )
    recalls = []
    with packages.connect() as connection:
        database.install_rotation(connection, found.rotation)
        built.create(connection)
        with indexed_afterwards(connection, built):
            ingest(connection, built.c.embedding, ({"id": n} for n in range(ROWS)), vectors=rows)
        connection.exec_driver_sql("ANALYZE built")
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        numbers: dict[str, Any] = {"shortlist": choice.shortlist, "ef_search": choice.ef_search}
        first = search(select(built.c.id), built.c.embedding, fresh[0], **numbers)
        assert index_serving(explained(connection, first)["Plan"]).used
        stored = rows.astype(np.float16).astype(np.float32)
        for query in fresh.astype(np.float16).astype(np.float32):  # as the server compares them
            statement = search(select(built.c.id), built.c.embedding, query, **numbers)
            distances = [row.distance for row in connection.execute(statement)]
            truth = np.sort(1 - stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query))[:10]
            recalls.append(recall_at_k(distances, truth.tolist()))
        size = connection.scalar(select(func.pg_relation_size(f"built_{built.c.keys()[-1]}_hnsw")))
    assert np.mean(recalls) == pytest.approx(choice.recall.mean, abs=0.02)
    assert size == pytest.approx(choice.index_bytes, rel=0.03)


def test_the_check_is_made_with_other_queries(found: Tuning) -> None:
    """And agrees."""
    [check] = found.checks
    assert check.queries == 500
    assert check.measured.mean == pytest.approx(check.predicted, abs=0.025)
    assert check.measured_ms > 0


def test_models_are_checked_at_another_size(found: Tuning) -> None:
    """Three sizes, each a fourth of the one before; the largest predicted from the others."""
    models = {one.name: one for one in found.models}
    assert set(models) == {"recall", "truncation", "HNSW", "latency", "index size", "build time"}
    for one in models.values():
        large, middle, small = one.sizes
        assert middle == pytest.approx(large / 4, rel=0.2)
        assert small == pytest.approx(large / 16, rel=0.3)
        assert one.error is not None
    assert (models["recall"].error or 0) < 0.06
    assert (models["index size"].error or 0) < 0.05
    later = found.tenfold
    assert later is not None
    assert found.choice is not None
    assert later.index_bytes == pytest.approx(10 * found.choice.index_bytes, rel=0.01)
    assert (later.build_seconds or 0) > 10 * (found.choice.build_seconds or 0)
    assert found.tenfold_needed is not None
    assert found.tenfold_needed.recall.low >= 0.95


def test_nothing_is_left_behind(found: Tuning, packages: Engine) -> None:
    """No table, no temporary one."""
    assert found.choice is not None
    with packages.connect() as connection:
        left = connection.scalars(text("SELECT relname FROM pg_class WHERE relname LIKE 'pgmrl_tune%'")).all()
    assert left == []


# -- truth and ranks -----------------------------------------------------------------------------------------------

KINDS = {
    "cosine, prefix": ("cosine", "halfvec", "prefix", "halfvec", 64),
    "cosine, rotation, of vector": ("cosine", "vector", "rotation", "halfvec", 64),
    "cosine, prefix, vector of halfvec": ("cosine", "halfvec", "prefix", "vector", 64),
    "l2, rotation": ("l2", "halfvec", "rotation", "halfvec", 64),
    "inner product, prefix": ("inner_product", "vector", "prefix", "vector", 64),
    "bits": ("cosine", "halfvec", "prefix", "bit", 256),
    "bits, l2": ("l2", "vector", "rotation", "bit", 64),
}


@pytest.mark.parametrize(("metric", "full", "rule", "kind", "dims"), KINDS.values(), ids=KINDS)
def test_ranks_are_those_of_the_server(
    engine: Engine, corpus: Corpus, rotation: Rotation, metric: Any, full: Any, rule: str, kind: Any, dims: int
) -> None:
    """The place of each true neighbour in the order that the server computes from its own short vectors."""
    vectors = corpus.documents[:1_500] * np.random.default_rng(0).uniform(0.5, 2, (1_500, 1)).astype(np.float32)
    definition = Definition.of(256, Short(dims, rotation if rule == "rotation" else Prefix(), kind), metric, full)
    queries = definition.stored(corpus.queries[:8])
    with engine.connect() as connection:
        database.install_rotation(connection, rotation)
        connection.exec_driver_sql(f"CREATE TABLE packages (id integer PRIMARY KEY, embedding {full}(256))")
        fill(connection, "packages", vectors, full)
        connection.commit()
        table = bare(connection).table
        with snapshot(connection):
            tuned = TunedTable(connection, table, "packages", "embedding", definition)
            samples = NestedSamples((1.0,), 0)
            truths = nested_truth(tuned.batches(), definition, queries, 10, samples)
            [[ranks]] = count_short_ranks(tuned, [Candidate(definition, Hnsw())], queries, truths, samples)
            assert truths[0].rows == 1_500
            for number, query in enumerate(queries):
                nearest, order = orders(connection, definition, query)
                place = {int(p): n for n, p in enumerate(tuned.places_of([(one,) for one in range(1_500)]))}
                neighbours = [place[int(p)] for p in truths[0].ids[number, :10]]
                assert set(neighbours) == set(nearest[:10])
                for column, neighbour in enumerate(neighbours):
                    own = order[neighbour]
                    nearer = sum(distance < own for distance in order.values())
                    level = sum(distance == own for distance in order.values())
                    counted = int(ranks.nearer[number, column])
                    # the client's and the server's last bits differ: two rows may change places
                    assert abs(counted - nearer) <= (1 if kind != "bit" or rule == "rotation" else 0)
                    if kind == "bit" and rule == "prefix":
                        assert ranks.equal[number, column] == level


def orders(
    connection: Connection, definition: Definition, query: NDArray[np.float32]
) -> tuple[list[int], dict[int, float]]:
    """Ids by the full distance, and the short distance of each, as the server has them."""
    given = "[" + ",".join(repr(float(x)) for x in query) + f"]'::{definition.full_type}"
    full = f"embedding {definition.full_operator} '{given}"
    one, other = definition.sql("embedding"), definition.sql(f"('{given})")
    found = connection.exec_driver_sql(
        f"SELECT id, {full} AS f, ({one}) {definition.short_operator} ({other}) AS s FROM packages ORDER BY f"
    ).all()
    return [row[0] for row in found], {row[0]: row[2] for row in found}


def test_batches_of_every_remainder(engine: Engine, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left for the last batch, and though none of it is in the smallest part: all give the same."""
    definition = Definition.of(256, Short(16))
    queries = definition.stored(corpus.queries[:5])
    monkeypatch.setattr(vector_reader, "FEWEST", 1)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(256))")
        fill(connection, "packages", corpus.documents[:61])
        connection.commit()
        table = bare(connection).table
        samples = NestedSamples((1.0, 0.5, 0.1), 0)
        with snapshot(connection):
            tuned = TunedTable(connection, table, "packages", "embedding", definition)
            results = []
            for rows in [*range(1, 12), 20, 30, 31, 59, 60, 61, 62]:
                monkeypatch.setattr(vector_reader, "ROWS", rows)
                truths = nested_truth(tuned.batches(), definition, queries, 3, samples)
                [ranks] = count_short_ranks(tuned, [Candidate(definition, Hnsw())], queries, truths, samples)
                results.append([*(truth.ids.tolist() for truth in truths), *(one.nearer.tolist() for one in ranks)])
    assert truths[0].rows == 61
    assert 0 < truths[2].rows < truths[1].rows < 61
    assert all(result == results[0] for result in results)


# -- unreachable targets -------------------------------------------------------------------------------------------


def test_too_few_dimensions(packages: Engine) -> None:
    """However long the shortlist."""
    with packages.connect() as connection:
        found = tune(connection, bare(connection), 0.99, dims=(4,), by=("prefix",), **QUICK)
    assert found.choice is None
    assert found.best is not None
    assert found.limit is not None
    assert found.limit.cause == "dimensions"
    assert "--dims" in found.limit.remedy
    assert "rotation" in found.limit.remedy
    assert found.best.recall.mean < 0.99


def test_too_short_a_shortlist(packages: Engine) -> None:
    """That a longer one would mend."""
    with packages.connect() as connection:
        column = bare(connection)
        limited: dict[str, Any] = {"dims": (32,), "by": ("rotation",), **QUICK}
        found = tune(connection, column, 0.97, max_shortlist=20, **limited)
        longer = tune(connection, column, 0.97, **limited)
    assert found.choice is None
    assert found.limit is not None
    assert found.limit.cause == "shortlist"
    assert "--max-shortlist" in found.limit.remedy
    assert longer.choice is not None
    assert longer.choice.shortlist > 20


def test_a_bad_graph(packages: Engine) -> None:
    """That other build parameters would mend; `graph` tries them."""
    with packages.connect() as connection:
        column = bare(connection)
        planted: dict[str, Any] = {"dims": (128,), "by": ("rotation",), "index": Hnsw(2, 4), **QUICK, "queries": 200}
        found = tune(connection, column, 0.98, **planted)
        mended = tune(connection, column, 0.98, graph=True, **planted)
    assert found.choice is None
    assert found.limit is not None
    assert found.limit.cause == "graph"
    assert "m=2" in found.limit.message
    assert "ef_construction" in found.limit.remedy
    assert mended.choice is not None
    assert mended.choice.candidate.index.m >= 16


# -- the column there is -------------------------------------------------------------------------------------------


@pytest.fixture
def shop(engine: Engine, corpus: Corpus) -> Table:
    """5,000 rows with a prefix of 128 dimensions under an index."""
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(256, Short(128), index=Hnsw(12, 60))),
    )
    with engine.begin() as connection:
        table.create(connection)
        with indexed_afterwards(connection, table):
            ingest(connection, table.c.embedding, ({"id": n} for n in range(ROWS)), vectors=parted(corpus)[0])
        connection.exec_driver_sql("ANALYZE packages")
    return table


def test_the_choice_becomes_the_default(engine: Engine, shop: Table, corpus: Corpus) -> None:
    """Of a column that stays: only numbers change, and searches take them."""
    with engine.connect() as connection:
        found = tune(connection, shop.c.embedding, 0.9, dims=(128,), by=("prefix",), **QUICK)
        assert found.keeps_column
        assert found.choice is not None
        assert found.current is not None
        assert (found.current.shortlist, found.current.ef_search) == (100, 100)
        assert found.choice.candidate.index == Hnsw(12, 60)
        assert found.choice.shortlist < 100
        (real,) = found.checks
        assert real.what == "the column there is"
        assert real.measured.mean == pytest.approx(real.predicted, abs=0.03)
        assert migration(connection, shop.c.embedding, found) is None
        connection.rollback()
        assert apply_tuning(connection, shop.c.embedding, found) == "embedding_short_128"
        connection.commit()
        load_settings(connection, shop.c.embedding)
        plan = explained(connection, search(select(shop.c.id), shop.c.embedding, corpus.queries[0]))
        (shortlist,) = shortlist_scans(plan["Plan"])
        assert shortlist["Plan Rows"] == found.choice.shortlist
        connection.rollback()
        again = tune(connection, shop.c.embedding, 0.9, dims=(128,), by=("prefix",), **QUICK)
    assert again.current is not None
    assert (again.current.shortlist, again.current.ef_search) == (found.choice.shortlist, found.choice.ef_search)
    assert any("as it is today" in row[0] for row in kept_rows(again)[1])


def test_a_table_of_the_same_name(engine: Engine, shop: Table) -> None:
    """In another schema, without an index: the one that the search_path finds counts."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA a_tenant")
        connection.exec_driver_sql("CREATE TABLE a_tenant.packages (LIKE public.packages INCLUDING GENERATED)")
    with engine.connect() as connection:
        found = tune(connection, shop.c.embedding, 0.9, dims=(128,), by=("prefix",), **QUICK)
    assert found.current is not None
    assert found.keeps_column


@pytest.mark.parametrize("opened", [Engine.begin, lambda engine: sessionmaker(engine).begin()])
def test_the_callers_transaction_goes_on(engine: Engine, shop: Table, opened: Any) -> None:
    """One that has begun and sent nothing yet; what is stored in it after tuning is there after its commit."""
    with opened(engine) as own:
        found = tune(own, shop.c.embedding, 0.9, dims=(128,), by=("prefix",), **QUICK)
        apply_tuning(own, shop.c.embedding, found)
    assert found.choice is not None
    with engine.connect() as connection:
        setting = stored_setting(connection, shop.c.embedding)
    assert setting is not None
    assert (setting.shortlist, setting.ef_search) == (found.choice.shortlist, found.choice.ef_search)


def test_another_column_comes_by_a_migration(engine: Engine, shop: Table, tmp_path: Path) -> None:
    """Which is written as a reshape's is, runs, and finds its numbers waiting."""
    with engine.connect() as connection:
        found = tune(
            connection,
            shop.c.embedding,
            0.9,
            dims=(64,),
            by=("rotation",),
            index=Hnsw(8, 40),
            optimize_for="size",
            **QUICK,
        )
        assert found.choice is not None
        assert found.rotation is not None
        assert not found.keeps_column
        body = migration(connection, shop.c.embedding, found, str(tmp_path))
        connection.rollback()
        apply_tuning(connection, shop.c.embedding, found)
        connection.commit()
    assert body is not None
    path = found.rotation.save(tmp_path)
    name = f"embedding_{found.rotation.id}_64"
    assert "op.mark_short('packages', 'embedding_short_128', 'retired'" in body
    assert path.name in model(shop.c.embedding, found)
    run(engine, body)
    with engine.connect() as connection:
        column = reflect(connection, "packages.embedding")
        setting = stored_setting(connection, column)
        there = connection.scalars(
            text("SELECT reloptions::text FROM pg_class WHERE relname = :name"), {"name": f"packages_{name}_hnsw"}
        ).all()
    assert there == ["{m=8,ef_construction=40}"]
    assert setting is not None
    assert (setting.shortlist, setting.ef_search) == (found.choice.shortlist, found.choice.ef_search)
    assert (setting.target, setting.row_count) == (0.9, ROWS)


def run(engine: Engine, body: str) -> None:
    """A migration's body, as Alembic would."""
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.operations import Operations  # noqa: PLC0415

    names: dict[str, Any] = {}
    exec(body, names)  # noqa: S102 - what is tested
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            names["upgrade"]()


def test_the_index_alone_changes(engine: Engine, shop: Table) -> None:
    """Then it is rebuilt: with half as many links it is smaller."""
    small: dict[str, Any] = {"dims": (128,), "by": ("prefix",), "index": Hnsw(6, 40), "optimize_for": "size", **QUICK}
    with engine.connect() as connection:
        found = tune(connection, shop.c.embedding, 0.9, **small)
        assert found.choice is not None
        assert found.choice.candidate.index == Hnsw(6, 40)
        body = migration(connection, shop.c.embedding, found)
    assert body is not None
    assert "op.rebuild_short_index(" in body
    assert "Hnsw(m=6, ef_construction=40)" in body
    assert {one.candidate.index for one in found.tried} == {Hnsw(6, 40), Hnsw(12, 60)}


def test_a_side_table(engine: Engine, corpus: Corpus) -> None:
    """The vectors are in another table than the one that is searched."""
    metadata = MetaData()
    table = Table("docs", metadata, Column("id", Integer, primary_key=True), Column("e", reflectable(256)))
    add_side_table(table.c.e, Short(64))
    with engine.begin() as connection:
        metadata.create_all(connection)
        ingest(connection, table.c.e, ({"id": n} for n in range(2_000)), vectors=corpus.documents[:2_000])
    with engine.connect() as connection:
        found = tune(connection, table.c.e, 0.8, dims=(64,), by=("prefix",), queries=200, types=("halfvec",))
    assert found.choice is not None
    assert found.keeps_column
    assert [check.what for check in found.checks] == ["the column there is"]


def reflectable(dims: int) -> Any:
    """A plain vector type."""
    from pgvector.sqlalchemy import VECTOR  # noqa: PLC0415

    return VECTOR(dims)


# -- where little may be done --------------------------------------------------------------------------------------


def test_a_standby(standby: Engine) -> None:
    """Nothing can be built there: the index there is, is what can be tuned, and it says so."""
    with standby.connect() as connection:
        found = tune(connection, bare(connection), 0.9, queries=300)
        prefixed = tune(connection, bare(connection), 0.9, queries=300, dims=(16,), by=("prefix",))
    assert any("standby" in note for note in found.notes)
    assert found.choice is not None
    assert found.keeps_column
    assert found.choice.candidate.dims == 32
    assert found.choice.build_seconds is None
    assert len(found.exact_shortlists) > 2
    assert {one.candidate.dims for one in prefixed.tried} == {32}


def test_a_role_that_may_only_read(packages: Engine) -> None:
    """No rights to create anything: without a column there is nothing to search."""
    name = packages.url.database
    with packages.begin() as connection:
        connection.exec_driver_sql(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
        connection.exec_driver_sql("CREATE ROLE tune_reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON packages TO tune_reader")
    try:
        reader = create_engine(packages.url.set(username="tune_reader"))
        with reader.connect() as connection, pytest.raises(MeasureError, match="neither tables nor temporary"):
            tune(connection, bare(connection), dims=(64,), **QUICK)
        with packages.begin() as connection:
            connection.exec_driver_sql(f'GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC')
        with reader.connect() as connection:  # a temporary table is enough
            found = tune(connection, bare(connection), dims=(64,), **QUICK)
        assert found.choice is not None
        assert any("temporary tables" in note for note in found.notes)
        reader.dispose()
    finally:
        with packages.begin() as connection:
            connection.exec_driver_sql(f'GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC')
            connection.exec_driver_sql("DROP OWNED BY tune_reader")
            connection.exec_driver_sql("DROP ROLE tune_reader")


def partitioned(connection: Connection, dims: int, short: int, first: int, end: int) -> None:
    """Packages in two partitions, with an index on their short vectors."""
    computed = Definition.of(dims, Short(short)).sql("embedding")
    connection.exec_driver_sql(
        f"CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec({dims}), embedding_short_{short} "
        f"halfvec({short}) GENERATED ALWAYS AS ({computed}) STORED) PARTITION BY RANGE (id)"
    )
    connection.exec_driver_sql(f"CREATE TABLE low PARTITION OF packages FOR VALUES FROM (0) TO ({first})")
    connection.exec_driver_sql(f"CREATE TABLE high PARTITION OF packages FOR VALUES FROM ({first}) TO ({end})")
    connection.exec_driver_sql(f"CREATE INDEX ON packages USING hnsw (embedding_short_{short} halfvec_cosine_ops)")


def test_partitions(engine: Engine, corpus: Corpus) -> None:
    """Each has an index of its own; they are tuned as they are."""
    with engine.begin() as connection:
        partitioned(connection, 256, 64, 1_000, 3_000)
        fill(connection, "packages", corpus.documents[:3_000])
        connection.exec_driver_sql("ANALYZE packages")
    with engine.connect() as connection:
        found = tune(connection, bare(connection), 0.8, dims=(32,), queries=200)
    assert any("partition" in note for note in found.notes)
    assert found.rows_read == 2_800
    assert found.choice is not None
    assert found.choice.candidate.dims == 64


def test_partitions_of_which_one_holds_equal_vectors(engine: Engine) -> None:
    """Rows of the other lie at the same places: only those that the scan listed count, once each."""
    with engine.begin() as connection:
        partitioned(connection, 96, 32, 300, 600)
        same = np.tile(np.linspace(0.1, 1, 96, dtype=np.float32), (300, 1))
        others = np.random.default_rng(0).standard_normal((300, 96)).astype(np.float32)
        fill(connection, "packages", np.concatenate([same, others]))
        connection.exec_driver_sql("ANALYZE packages")
    with engine.connect() as connection:
        column = bare(connection)
        found = tune(connection, column, 0.9, queries=vector_queries(column, same[:40]))
    assert found.choice is not None
    assert (found.choice.shortlist, found.choice.recall.mean) == (10, 1.0)


# -- while others work ---------------------------------------------------------------------------------------------


def test_rows_that_come_meanwhile_are_not_seen(engine: Engine, corpus: Corpus) -> None:
    """All passes read one snapshot."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(256))")
        fill(connection, "packages", corpus.documents[:2_000])
    seen: set[str] = set()

    def meddle(what: str, _done: int, _whole: int) -> None:
        if what in seen:
            return
        seen.add(what)
        with engine.begin() as other:
            other.exec_driver_sql("DELETE FROM packages WHERE mod(id, 7) = 0")
            other.exec_driver_sql(
                f"INSERT INTO packages SELECT id + {10_000 * len(seen)}, embedding FROM packages WHERE id < 300"
            )

    with engine.connect() as connection:
        found = tune(connection, bare(connection), 0.9, dims=(64,), progress=meddle, queries=200)
    assert len(seen) > 3
    assert found.rows_read == 1_800
    assert found.choice is not None
    assert all(rows <= 1_800 for one in found.models for rows in one.sizes)


@pytest.mark.parametrize("when", ["exact search", "2 ways to shorten", "trying", "searching"])
def test_a_connection_that_drops(packages: Engine, when: str) -> None:
    """One error, and nothing left."""
    with packages.connect() as connection:
        column = bare(connection)
        own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.rollback()

        def cut(what: str, _done: int, _whole: int) -> None:
            if what.startswith(when):
                with packages.begin() as other:
                    other.execute(text("SELECT pg_terminate_backend(:own)"), {"own": own})

        with pytest.raises(DatabaseError, match="tuning was stopped by the server"):
            tune(connection, column, dims=(32,), progress=cut, **QUICK)
    with packages.connect() as connection:
        left = connection.scalars(text("SELECT relname FROM pg_class WHERE relname LIKE 'pgmrl_tune%'")).all()
        assert left == []
        assert connection.scalar(text("SELECT count(*) FROM packages")) == ROWS + 20


def test_pgvector_in_another_schema(elsewhere: Engine, corpus: Corpus) -> None:
    """Types and operators with their schema, also of signs."""
    with elsewhere.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding extensions.halfvec(256))")
        column = reflect(connection, "packages.embedding")
        ingest(connection, column, ({"id": n} for n in range(800)), vectors=corpus.documents[:800])
    with elsewhere.connect() as connection:
        for kind in ("halfvec", "bit"):
            found = tune(connection, column, 0.5, dims=(128,), by=("prefix",), types=(kind,), queries=60)
            assert found.choice is not None


def test_in_a_transaction_of_the_callers(packages: Engine) -> None:
    """READ COMMITTED would see other rows in each pass; REPEATABLE READ goes on afterwards, untouched."""
    with packages.connect() as connection:
        column = bare(connection)
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(MeasureError, match="REPEATABLE READ"):
            tune(connection, column, dims=(32,), **QUICK)
        connection.rollback()
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("CREATE TEMPORARY TABLE mine (n integer)")
        found = tune(connection, column, 0.5, dims=(64,), **QUICK)
        assert found.choice is not None
        assert connection.exec_driver_sql("SELECT count(*) FROM mine").scalar_one() == 0
        assert connection.exec_driver_sql("SHOW enable_seqscan").scalar_one() == "on"
        connection.rollback()
    with packages.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert tune(connection, bare(connection), 0.5, dims=(64,), **QUICK).choice is not None
        assert connection.exec_driver_sql("SHOW enable_seqscan").scalar_one() == "on"
    with Session(packages) as session:
        assert tune(session, column, 0.5, dims=(64,), **QUICK).choice is not None
        assert session.scalar(text("SHOW enable_seqscan")) == "on"


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"recall": 0}, SearchError, "above 0 and at most 1"),
        ({"recall": 1.01}, SearchError, "at most 1"),
        ({"k": 0}, SearchError, "k=0"),
        ({"k": 2_000}, SearchError, "max_shortlist"),
        ({"max_shortlist": 5}, SearchError, "max_shortlist=5"),
        ({"dims": (0,)}, DefinitionError, "1 to 256"),
        ({"dims": (257,)}, DefinitionError, "1 to 256"),
        ({"by": ("magic",)}, DefinitionError, "magic"),
        ({"types": ()}, DefinitionError, "halfvec"),
        ({"optimize_for": "money"}, DefinitionError, "money"),
        ({"seconds": 0}, SearchError, "seconds=0"),
        ({"queries": 0}, MeasureError, "at least 1"),
        ({"finalists": 0}, SearchError, "finalists=0"),
        ({"rotation": Rotation()}, RotationError, "neither axes nor an id"),
    ],
)
def test_bad_input(packages: Engine, given: dict[str, Any], error: type[Exception], said: str) -> None:
    """One clear error."""
    with packages.connect() as connection, pytest.raises(error, match=re.escape(said)):
        tune(connection, bare(connection), **{"k": 10, **given})


def test_tables_with_little_in_them(engine: Engine, corpus: Corpus) -> None:
    """No rows, fewer than k, and just enough."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(256))")
    with engine.connect() as connection:
        with pytest.raises(MeasureError, match="no row"):
            tune(connection, bare(connection))
        fill(connection, "packages", corpus.documents[:8])
        connection.commit()
        with pytest.raises(MeasureError, match="8 rows with a vector, too few for k=10"):
            tune(connection, bare(connection))
        connection.exec_driver_sql("DELETE FROM packages")
        fill(connection, "packages", corpus.documents[:40])
        connection.commit()
        found = tune(connection, bare(connection), 0.5, dims=(16,))
    assert found.rows_read == 32
    assert found.choice is not None  # a shortlist of all rows is exact


def test_all_vectors_alike(engine: Engine) -> None:
    """Each is as near as any other: recall is by distance, so nothing is lost."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(96))")
        fill(connection, "packages", np.tile(np.linspace(0.1, 1, 96, dtype=np.float32), (1_000, 1)))
    with engine.connect() as connection:
        found = tune(connection, bare(connection), 0.99, dims=(32,), by=("prefix",), queries=100)
    assert found.choice is not None
    assert found.choice.recall.mean == 1.0
    assert all(value == 1.0 for one in found.exact_shortlists for value in one.recall.values())


def test_unknown_columns(packages: Engine) -> None:
    """By name."""
    gone = Table("gone", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with packages.connect() as connection:
        with pytest.raises(NotMigrated, match="gone"):
            tune(connection, gone.c.e)
        connection.rollback()
        with pytest.raises(DefinitionError, match="not a Matryoshka column"):
            tune(connection, gone.c.id)


def test_names_that_need_quotes(engine: Engine, corpus: Corpus) -> None:
    """Of table, column and key."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE packages (id integer PRIMARY KEY, embedding halfvec(256))")
        database.execute_plain(
            connection, 'CREATE TABLE "My :t %s" ("Order" integer PRIMARY KEY, "from 100%" halfvec(256))'
        )
        fill(connection, "packages", corpus.documents[:600])
        database.execute_plain(connection, 'INSERT INTO "My :t %s" SELECT id, embedding FROM packages')
    with engine.connect() as connection:
        column = reflect(connection, "My :t %s.from 100%")
        connection.rollback()
        found = tune(connection, column, 0.5, dims=(32,), queries=60)
    assert found.choice is not None


# -- what it shows -------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(found: Tuning, tmp_path: Path) -> None:
    """No reference that a browser would follow, and the numbers are in it."""
    page, picture = tmp_path / "tuning.html", tmp_path / "tuning.png"
    write_html(found, page)
    write_png(found, picture)
    written = page.read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=(\S{0,19})|url\(", written) == ['"data:image/svg+xml']
    assert "<script" not in written
    assert "http" not in re.sub(r'src="data:[^"]*"', "", written)
    assert found.choice is not None
    assert found.choice.candidate.title in written
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(MeasureError, match="cannot be written"):
        write_html(found, tmp_path / "no" / "such.html")


def test_the_picture_says_what_is_marked(found: Tuning) -> None:
    """The choice, the target, and what lines and points are."""
    drawn = figure(found)
    for axes, wanted in zip(drawn.axes, ({"the choice", "target: 0.95"}, {"target: 0.95"}), strict=True):
        legend = axes.get_legend()
        assert legend is not None
        assert wanted <= {label.get_text() for label in legend.get_texts()}
    assert "a point for each shortlist" in drawn.get_supxlabel()


def test_the_json_document(found: Tuning) -> None:
    """All of it, in types that JSON has."""
    document = json.loads(json.dumps(found.as_json()))
    assert document["choice"]["recall"]["low"] >= 0.95
    assert document["tenfold"]["index_bytes"] > document["choice"]["index_bytes"]
    assert document["limit"] is None
    assert len(document["exact_shortlists"]) >= 7
    assert {one["name"] for one in document["models"]} >= {"truncation", "latency"}


# -- less than all -------------------------------------------------------------------------------------------------


def test_a_sample_of_the_rows(packages: Engine, found: Tuning) -> None:
    """Predicts what reading all found, and indexes on fewer rows too."""
    with packages.connect() as connection:
        few = tune(
            connection, bare(connection), 0.95, queries=1_000, dims=(64, 128), finalists=1, rows=3_000, graph_rows=1_500
        )
    assert few.rows_read == pytest.approx(3_000 * 0.8, rel=0.1)
    assert any("%" in note for note in few.incomplete)
    for one in few.exact_shortlists:
        whole = next(o for o in found.exact_shortlists if o.candidate.title == one.candidate.title)
        for size in (40, 100):
            assert one.recall[size] == pytest.approx(whole.recall[size], abs=0.05)
    assert few.choice is not None
    assert few.models[0].sizes[0] == pytest.approx(1_500 * 0.8, rel=0.15)


def test_little_time(packages: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something comes of it, and it says what was left out: the first batches took a thousand seconds."""
    clock = SimpleNamespace(perf_counter=itertools.count(0, 1_000).__next__, process_time=time.process_time)
    monkeypatch.setattr(table_passes, "time", clock)
    with packages.connect() as connection:
        found = tune(connection, bare(connection), 0.9, seconds=600, queries=400)
    assert 0 < found.rows_read < ROWS - 400
    assert any("of the rows were read" in note for note in found.incomplete)


def test_the_time_is_foreseen_of_what_is_tried(packages: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many short vectors of the same dimensions, though no rotation has been learned yet."""
    foreseen: list[Candidate] = []
    measured = table_passes._shorten_seconds

    def seconds(tried: list[Candidate], vectors: NDArray[np.float32]) -> float:
        foreseen.extend(tried)
        return measured(tried, vectors)

    monkeypatch.setattr(table_passes, "_shorten_seconds", seconds)
    with packages.connect() as connection:
        done = tune(connection, bare(connection), 0.5, dims=(32, 64), seconds=600, **QUICK)
    tried = [one.candidate.title for one in done.exact_shortlists]
    assert sorted(candidate.title for candidate in foreseen) == sorted(tried)
    assert len(tried) == 4


def test_no_time_for_the_sweep(packages: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it ended, and not the graph, is what kept it from the target."""
    told: list[str] = []
    monkeypatch.setattr(TimeBudget, "exhausted", property(lambda _: "searching" in told))
    with packages.connect() as connection:
        given: dict[str, Any] = {"dims": (32,), "by": ("rotation",), **QUICK}
        found = tune(connection, bare(connection), 0.97, progress=lambda what, *_: told.append(what), **given)
    assert found.choice is None
    assert found.limit is not None
    assert found.limit.cause == "time"
    assert "time ran out at ef_search " in found.limit.message
    assert "--seconds" in found.limit.remedy
    assert any("time ran out at ef_search" in one for one in found.incomplete)
    assert found.as_json()["limit"]["cause"] == "time"


def test_vectors_as_queries(packages: Engine, corpus: Corpus) -> None:
    """Which are no rows: no row is left out."""
    with packages.connect() as connection:
        column = bare(connection)
        asked = vector_queries(column, corpus.queries[:300])
        found = tune(connection, column, 0.9, queries=asked, dims=(128,), finalists=1)
    assert found.rows_read == ROWS
    assert found.queries == 150
    assert found.choice is not None


def test_progress(packages: Engine) -> None:
    """What is done, of how much."""
    seen: list[tuple[str, int, int]] = []
    with packages.connect() as connection:
        tune(connection, bare(connection), 0.5, dims=(32,), progress=lambda *told: seen.append(told), **QUICK)
    assert all(0 <= done <= whole for _, done, whole in seen)
    assert {"exact search", "2 ways to shorten"} <= {what for what, _, _ in seen}
