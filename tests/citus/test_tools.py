"""The tools over shards: recall, explain, evaluate, many queries at once, the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, select, text

from pgmrl import Nearest, assert_index_used, database, evaluate, explain, fit_rotation, reflect, search_hybrid
from pgmrl.doctor import health, measure_columns
from pgmrl.errors import MeasureError
from pgmrl.evaluation import Judged, Query
from pgmrl.explanation import plan_text
from pgmrl.measure import measure_recall, recall_history, record_recall, vector_queries
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from pgmrl.tune import tune
from tests.citus.proof import NEEDS_CITUS, QUERIES, ROWS, TENANTS, URL, Document, Package, truth
from tests.cli import ok, ok_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

pytestmark = NEEDS_CITUS

INDEX = "pgmrl_proof_packages_embedding_short_64_hnsw"
LARGE = Package.part < 60


@pytest.fixture(scope="module")
def migrated(citus: Engine) -> Iterator[Engine]:
    """With pgmrl's schema on the coordinator, which is left as it was found."""
    with citus.begin() as connection:
        before = connection.scalar(text("SELECT to_regclass('pgmrl.rotations')"))
        database.upgrade(connection)
    yield citus
    if before is None:
        with citus.begin() as connection:
            database.downgrade(connection)


@pytest.fixture
def connection(citus: Engine) -> Iterator[Connection]:
    """On the coordinator, outside a transaction."""
    with citus.connect() as opened:
        yield opened


# -- recall --------------------------------------------------------------------------------------------------------


def test_recall(connection: Connection) -> None:
    """What is lost adds up; searches come through the index of every shard; the remedy is a longer shortlist."""
    short = measure_recall(connection, Package.embedding, queries=40, shortlist=40)
    longer = measure_recall(connection, Package.embedding, queries=40, shortlist=800)
    assert (short.index, short.instead, short.row_count) == (INDEX, None, ROWS)
    lost = short.truncation + short.ann + short.shortfall - short.completed
    assert short.recall.mean == pytest.approx(1 - lost)
    assert short.truncation > longer.truncation
    assert longer.recall.mean > max(0.95, short.recall.mean)
    assert all(worst.needed is not None and worst.needed > 40 for worst in short.worst if worst.loss.truncation > 0)


def test_recall_is_what_the_searches_give(session: Session) -> None:
    """Of the same queries, against NumPy."""
    vectors = QUERIES[:20]
    measured = measure_recall(session, Package.embedding, queries=vector_queries(Package.embedding, vectors))
    hits = 0
    for query in vectors:
        rows = session.execute(search(select(Package.id), Package.embedding, query)).all()
        hits += len({row[0] for row in rows} & set(truth(query, 10)))
    assert measured.recall.mean == pytest.approx(hits / 200, abs=0.011)  # rows that are as near as the tenth


def test_recall_of_filters_and_tenants(connection: Connection) -> None:
    """Under a filter nothing is missing; a tenant's searches are those of its shard."""
    filtered = measure_recall(connection, Package.embedding, select(Package.id).where(Package.part < 2), queries=20)
    assert filtered.filter == "pgmrl_proof_packages.part < 2"
    assert filtered.recall.mean > 0.97
    assert filtered.shortfall == filtered.completed == 0
    tenant = measure_recall(connection, Document.embedding, select(Document.id).where(Document.tenant == 3), queries=20)
    assert tenant.recall.mean > 0.97
    assert tenant.instead is not None
    assert "pgmrl_proof_documents" in tenant.instead


def test_recall_is_recorded(migrated: Engine) -> None:
    """In the history, for the health view and the doctor; of a column by its name, too."""
    with migrated.connect() as connection:
        column = reflect(connection, "pgmrl_proof_packages.embedding")
        connection.rollback()
        measured = measure_recall(connection, column, queries=20)
        with connection.begin():
            record_recall(connection, column, measured)
        (last,) = recall_history(connection, Package.embedding, limit=1)
        assert last.recall == measured.recall.mean
        (own,) = [row for row in health(connection) if row.table_name == "pgmrl_proof_packages"]
        assert own.recall == measured.recall.mean
        connection.rollback()
        (again,) = measure_columns(connection, Document.embedding, sample=20)
        assert (again.recorded, again.reason) == (True, None)


def test_other_measurements(connection: Connection) -> None:
    """Judged queries, and a rotation of a sample; what tells rows by their places is refused."""
    relevance = {str(n): dict.fromkeys(map(str, truth(QUERIES[n], 10)), 1) for n in range(8)}
    judged = Judged([Query(str(n), None, QUERIES[n]) for n in range(8)], relevance)
    means = {s.name: s.means["P@10"].mean for s in evaluate(connection, Package.embedding, judged, dims=[]).systems}
    assert means["exact full"] > 0.98
    assert means["short only"] < means["two stages"] <= means["exact full"]
    connection.rollback()
    assert fit_rotation(connection, Package.embedding, sample=1000).rows == 1000
    connection.rollback()
    with pytest.raises(MeasureError, match="tune a sample of its rows in an ordinary table"):
        tune(connection, Package.embedding)


# -- explain -------------------------------------------------------------------------------------------------------


def test_explain_a_search(connection: Connection) -> None:
    """One round over four shards, by their indexes; times add up to the execution's."""
    explanation = explain(connection, search(select(Package.id), Package.embedding, QUERIES[0]))
    assert [stage.name for stage in explanation.stages] == ["shortlist", "coordinator"]
    assert explanation.index_used
    assert explanation.shards == 4
    (shortlist,) = explanation.shortlists
    assert (shortlist.size, shortlist.rows, shortlist.indexes) == (100, 100, (INDEX,))
    assert explanation.execution_ms is not None
    took = sum(stage.usage.ms for stage in explanation.stages if stage.usage is not None)
    assert took == pytest.approx(explanation.execution_ms, rel=0.2)
    assert explanation.settings["hnsw.ef_search"] == "100"
    assert explanation.verdict[0].startswith("The search asked 4 shards once, in ")
    assert json.dumps(explanation.as_json())


def test_explain_the_fallback(connection: Connection) -> None:
    """Asked for under a filter; needed where the filter leaves fewer rows than the shortlist has."""
    statement = select(Package.id).where(Package.id < 30)
    few = explain(connection, search(statement, Package.embedding, QUERIES[0]))
    exact = next(stage for stage in few.stages if stage.name == "exact")
    assert (exact.executed, exact.rows) == (True, 10)
    assert any("exact fallback ranked" in sentence for sentence in few.verdict)
    many = explain(connection, search(select(Package.id).where(LARGE), Package.embedding, QUERIES[0]))
    assert next(stage for stage in many.stages if stage.name == "exact").executed is False
    assert many.verdict[0].startswith("The search asked 4 shards twice, in ")
    one_round = explain(connection, search(statement, Package.embedding, QUERIES[0], complete=False))
    assert "exact" not in {stage.name for stage in one_round.stages}
    planned = explain(connection, search(statement, Package.embedding, QUERIES[0]), analyze=False)
    assert planned.verdict[0] == "The search asked 4 shards twice."
    assert planned.execution_ms is None


def test_explain_other_shapes(connection: Connection) -> None:
    """A tenant's search is that of its shard; an exact one has no shortlist; a hybrid one has two."""
    tenant = explain(connection, search(select(Document).where(Document.tenant == 3), Document.embedding, QUERIES[0]))
    assert tenant.shards == 1
    assert {"shortlist", "rerank", "fetch", "coordinator"} <= {stage.name for stage in tenant.stages}
    assert tenant.reasons
    written = search(select(Document.id).where(text("tenant = 3")), Document.embedding, QUERIES[0], shortlist=60)
    by_text = explain(connection, written)  # of which only Citus knows that it is for one shard
    assert by_text.shards == 1
    assert [(shortlist.size, shortlist.rows) for shortlist in by_text.shortlists] == [(60, 60)]
    assert not any("exact: it ranks" in sentence for sentence in by_text.verdict)
    exact = explain(connection, search(select(Package.id), Package.embedding, QUERIES[0], exact=True))
    assert exact.shortlists == ()
    assert any("each shard its own" in sentence for sentence in exact.verdict)
    lists = [Nearest(Package.embedding, QUERIES[0]), Nearest(Package.embedding, QUERIES[1])]
    hybrid = explain(connection, search_hybrid(select(Package.id), lists))
    assert sum(shortlist.size for shortlist in hybrid.shortlists) == 200
    assert "Citus Adaptive" in plan_text(connection, search(select(Package.id), Package.embedding, QUERIES[0]))


def test_the_index_is_asserted(connection: Connection) -> None:
    """On all shards; also whether it could serve, for which their planners must not sort."""
    assert_index_used(connection, search(select(Package.id), Package.embedding, QUERIES[0]))
    rare = search(select(Package.id).where(Package.part == 3), Package.embedding, QUERIES[0])
    with pytest.raises(AssertionError, match=f"to be cheaper: cost .* with {INDEX}"):
        assert_index_used(connection, rare)
    assert_index_used(connection, rare, ignore_cost=True)
    assert connection.exec_driver_sql("SHOW enable_sort").scalar_one() == "on"


# -- many queries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all rows", "filter", "few", "exact", "objects", "two key columns"])
def test_many_queries(session: Session, name: str) -> None:
    """The rows, distances and order of one by one."""
    model: Any = Document if name == "two key columns" else Package
    statement = select(model) if name == "objects" else select(model.id)
    if name == "filter":
        statement = statement.where(LARGE)
    if name == "few":
        statement = statement.where(Package.part == 3)
    options: dict[str, Any] = {"k": 5, "shortlist": 200, "exact": name == "exact"}
    many = session.execute(search_many(statement, model.embedding, QUERIES[:4], **options)).all()
    single = [
        (row[0], number, row[1])
        for number, query in enumerate(QUERIES[:4])
        for row in session.execute(search(statement, model.embedding, query, **options))
    ]
    assert [tuple(row) for row in many] == single
    assert len(single) == 20


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("migrated")
def test_commands(tmp_path: Path) -> None:
    """They take the form for shards by Citus' catalogue: no model says that the column is distributed."""
    query, name = tmp_path / "query.json", "pgmrl_proof_packages.embedding"
    query.write_text(json.dumps(QUERIES[0].tolist()))
    vector = ["--vector", str(query), "--database-url", str(URL)]
    hits = ok_json("search", name, "--show", "id", "--compare", *vector)
    assert len({hit["id"] for hit in hits["hits"]} & set(truth(QUERIES[0], 10))) >= 8
    assert (hits["index"], hits["shortlist_ms"], hits["rerank_ms"]) == (INDEX, None, None)
    tenant = ["--where", "tenant = 3", "--show", "tenant"]
    own = ok_json("search", "pgmrl_proof_documents.embedding", *tenant, *vector)
    assert {hit["tenant"] for hit in own["hits"]} == {3 % TENANTS}
    assert "The search asked 4 shards" in ok("explain", name, *vector)
    assert "recall@10" in ok("recall", name, "--sample", "10", "--where", "part < 60", *vector[2:])
