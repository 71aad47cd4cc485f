"""What only Citus can show: distributing, loading, every shape's recall over shards, tenants, bad input, the doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, select, text

from pgmrl import Nearest, check_schema, more_like_this, search_hybrid
from pgmrl.database.shards import DistributedTable, distributed_table, nodes, shards
from pgmrl.doctor import doctor
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.online.distributing import distribution_statements
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups
from pgmrl.searching.plans import explained_text
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from tests.citus.proof import NEEDS_CITUS, QUERIES, ROWS, TENANTS, Damaged, Document, Package, truth

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytestmark = NEEDS_CITUS


# -- the operator --------------------------------------------------------------------------------------------------


def test_the_catalogue(citus: Engine) -> None:
    """Distributed as asked; four shards that answer, each with its valid index; every node with pgvector."""
    with citus.connect() as connection:
        assert distributed_table(connection, "pgmrl_proof_packages") == DistributedTable("id", 4)
        states = shards(connection, "pgmrl_proof_packages")
        assert [shard.error for shard in states] == [None] * 4
        assert all(index.valid for shard in states for index in shard.indexes)
        assert all(len(shard.indexes) == 1 for shard in states)
        assert all(node.error is None and node.pgvector for node in nodes(connection))
        assert distribution_statements(connection, None, "pgmrl_proof_packages", "id") == []
        for model in (Package, Document):
            assert check_schema(connection, model.embedding) is not None


def test_the_doctor(citus: Engine) -> None:
    """Nothing critical of sound tables."""
    with citus.connect() as connection:
        report = doctor(connection, Package.embedding, Document.embedding)
    assert [finding for finding in report if finding.severity == "critical"] == []


def test_a_shard_without_its_index(citus: Engine) -> None:
    """The doctor and check_schema say which."""
    drop = (
        "DO $do$ DECLARE own regclass; BEGIN FOR own IN SELECT indexrelid FROM pg_index AS x JOIN pg_class AS i "
        "ON i.oid = x.indexrelid JOIN pg_am AS m ON m.oid = i.relam WHERE m.amname = 'hnsw' AND x.indrelid = "
        "%1$L::regclass LOOP EXECUTE format('DROP INDEX %%s', own); END LOOP; END $do$"
    )
    with citus.begin() as connection:
        command = text("SELECT success, result FROM run_command_on_shards('pgmrl_proof_damaged', :command)")
        answers = connection.execute(command, {"command": drop}).all()
        assert all(answer.success for answer in answers), answers
    with citus.connect() as connection:
        with pytest.raises(NotMigrated, match="has no HNSW index"):
            check_schema(connection, Damaged.embedding)
        checks = [finding.check for finding in doctor(connection, Damaged.embedding)]
    assert "shards-differ" in checks


def test_bad_input(citus: Engine) -> None:
    """A distribution column that is not in the key; another column than the table is distributed by."""
    with citus.connect() as connection:
        with pytest.raises(MigrationError, match="expected the distribution column part in the primary key"):
            distribution_statements(connection, None, "pgmrl_proof_packages", "part")
        with pytest.raises(MigrationError, match="expected an ordinary table, got distributed by tenant"):
            distribution_statements(connection, None, "pgmrl_proof_documents", "id")


# -- searches ------------------------------------------------------------------------------------------------------


def recall(session: Session, k: int = 10, **options: Any) -> float:
    """Of 50 queries."""
    found = 0
    for query in QUERIES:
        rows = session.execute(search(select(Package.id), Package.embedding, query, k=k, **options)).all()
        assert len(rows) == k
        found += len({row[0] for row in rows} & set(truth(query, k)))
    return found / (k * len(QUERIES))


def test_recall_grows_with_the_shortlist(session: Session) -> None:
    """`ef_search` reaches the shards: without it each would give 40 rows, whatever is asked."""
    low, high = recall(session, shortlist=40), recall(session, shortlist=800)
    print(f"recall@10: shortlist 40 {low:.3f}, 800 {high:.3f}, exact {recall(session, exact=True):.3f}")
    assert high > low
    assert high > 0.9
    assert recall(session, exact=True) > 0.999
    whole = session.execute(search(select(Package.id), Package.embedding, QUERIES[0], k=800, shortlist=800)).all()
    assert len(whole) == 800


@pytest.mark.parametrize("entity", [False, True])
def test_filters_pages_and_thresholds(session: Session, entity: bool) -> None:
    """What a filter leaves, all of it; pages that follow on one another; the columns of the caller."""
    columns = (Package,) if entity else (Package.id, Package.name)
    query = QUERIES[1]
    for part in (3, 77):
        own = [n for n in range(ROWS) if n % 100 == part]
        rows = session.execute(search(select(*columns).where(Package.part == part), Package.embedding, query)).all()
        numbers = [row[0].id if entity else row[0] for row in rows]
        assert len(numbers) == 10
        assert len(set(numbers) & set(truth(query, 10, own))) >= 8
    few = session.execute(search(select(*columns).where(Package.id.in_([5, 9, 700])), Package.embedding, query)).all()
    assert len(few) == 3
    assert (few[0][0].name if entity else few[0][1]).startswith("package ")
    whole = session.execute(search(select(Package.id), Package.embedding, query, k=30, shortlist=400)).all()
    first = session.execute(search(select(Package.id), Package.embedding, query, k=10, shortlist=400)).all()
    last = (first[-1][1], first[-1][0])
    second = session.execute(search(select(Package.id), Package.embedding, query, after=last, shortlist=400)).all()
    third = session.execute(search(select(Package.id), Package.embedding, query, offset=20, shortlist=400)).all()
    assert [row[0] for row in (*first, *second, *third)] == [row[0] for row in whole]
    near = whole[4][1]
    limited = session.execute(search(select(Package.id), Package.embedding, query, max_distance=near, shortlist=400))
    assert [row[0] for row in limited] == [row[0] for row in whole[:5]]
    counted = session.execute(
        search(select(Package.id).where(Package.id < 3), Package.embedding, query, counts=True)
    ).all()
    assert [tuple(row[-2:]) for row in counted] == [(10, 3)] * 3


def shape(name: str, query: Any, **options: Any) -> Any:
    """A search of another shape."""
    column = Package.embedding
    statement = select(Package.id).where(Package.part < 80)
    if name == "groups":
        return search_groups(statement, column, query, Package.part, k=5, per_group=2, **options)
    if name == "diverse":
        return search_diverse(statement, column, query, k=5, **options)
    if name == "funnel":
        return search_funnel(statement, column, query, [(128, 100)], k=10, **options)
    if name == "hybrid":
        return search_hybrid(statement, [Nearest(column, query, **options), Nearest(column, QUERIES[9], **options)])
    if name == "examples":
        return search(statement, column, more_like_this(column, [5, 9]), **options)
    expression = select(Package.embedding).where(Package.id == 11).scalar_subquery()
    return search(statement, column, expression, **options)


@pytest.mark.parametrize("name", ["groups", "diverse", "funnel", "hybrid", "examples", "expression"])
def test_every_shape(session: Session, name: str) -> None:
    """Most of what the exact search of the same shape gives."""
    made = [row[0] for row in session.execute(shape(name, QUERIES[2], shortlist=800))]
    exact = [row[0] for row in session.execute(shape(name, QUERIES[2], shortlist=800, exact=True))]
    assert len(made) == len(exact) > 4
    if name == "diverse":  # one row less to pick from changes all picks but the first
        assert made[0] == exact[0]
    else:
        assert len(set(made) & set(exact)) >= 0.6 * len(exact)


def test_tenants(session: Session) -> None:
    """One shard each; also many queries at once."""
    found = 0
    for number, query in enumerate(QUERIES[:20]):
        own = [n for n in range(ROWS) if n % TENANTS == number]
        statement = select(Document.id).where(Document.tenant == number)
        rows = session.execute(search(statement, Document.embedding, query, shortlist=200)).all()
        assert len(rows) == 10
        found += len({row[0] for row in rows} & set(truth(query, 10, own)))
    assert found >= 180
    many = search_many(select(Document.id).where(Document.tenant == 3), Document.embedding, QUERIES[:4])
    assert len(session.execute(many).all()) == 40


def test_the_plan(session: Session) -> None:
    """Of a statement whose values are literals, since Citus sends EXPLAIN on without parameters."""
    plan = explained_text(session.connection(), search(select(Package.id), Package.embedding, QUERIES[0]))
    assert "Citus" in plan
