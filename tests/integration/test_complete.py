"""Never fewer rows than exist: the exact fallback behind a shortlist that fell short, and only there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, with_loader_criteria

from pgmrl import Nearest, more_like_this, search_hybrid
from pgmrl.errors import SearchError
from pgmrl.model.metrics import METRICS
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Shop
else:
    Shop = Any

INDEX = "packages_embedding_short_64_hnsw"


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop, whose transaction is rolled back."""
    with Session(shop.engine) as opened:
        yield opened


@pytest.fixture
def misled(session: Session) -> Session:
    """A planner that takes the vector index whatever the filter, and a scan that gives up early."""
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        session.connection().exec_driver_sql(f"SET LOCAL {setting} = off")
    session.connection().exec_driver_sql("SET LOCAL hnsw.max_scan_tuples = 200")
    return session


def truth(shop: Shop, query: Any, k: int, numbers: Any) -> list[int]:
    """The k nearest of these packages, by NumPy."""
    numbers = np.asarray(numbers)
    distances = METRICS["cosine"].distances(shop.documents[numbers], query.astype(np.float16).astype(np.float32))
    return [int(n) for n in numbers[np.argsort(distances, kind="stable")[:k]]]


def ran(session: Session, statement: Any) -> list[dict[str, Any]]:
    """The nodes of a plan after it was executed, those of CTEs with their name in `within`."""
    text, params = compile_sql(statement)
    found: Any = session.connection().exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", params).scalar_one()
    nodes: list[dict[str, Any]] = []

    def walk(node: dict[str, Any], within: str) -> None:
        within = node.get("Subplan Name", within)
        nodes.append(node | {"within": within})
        for inner in node.get("Plans", []):
            walk(inner, within)

    walk((json.loads(found) if isinstance(found, str) else found)[0]["Plan"], "")
    return nodes


def branches(nodes: list[dict[str, Any]]) -> list[int]:
    """How often the limits above the exact fallbacks let their rows be read: loops of the node below."""
    limits = [node for node in nodes if node["Node Type"] == "Limit" and _is_fallback(node)]
    return [inner["Actual Loops"] for node in limits for inner in node["Plans"] if inner["Node Type"] == "Limit"]


def _is_fallback(node: dict[str, Any]) -> bool:
    """Whether the limit of a Limit is computed by the statement, and that of the Limit below it is none."""
    kinds = [inner["Node Type"] for inner in node["Plans"] if inner["Parent Relationship"] == "Outer"]
    return kinds == ["Limit"] and any(inner["Parent Relationship"] == "InitPlan" for inner in node["Plans"])


def test_the_exact_branch_is_never_executed_where_the_shortlist_suffices(session: Session, shop: Shop) -> None:
    """It is in the plan, and nothing of it ran."""
    package = shop.package
    filtered = select(package.id).where(package.part < 50)
    nodes = ran(session, search(filtered, package.embedding, shop.queries[0]))
    assert INDEX in [node.get("Index Name") for node in nodes]
    assert branches(nodes) == [0]
    plain = search(select(package.id), package.embedding, shop.queries[0], complete=True)
    assert branches(ran(session, plain)) == [0]


def test_it_is_executed_where_the_scan_gave_up(misled: Session, shop: Shop) -> None:
    """All rows that exist come back, the nearest first, as NumPy has them."""
    package = shop.package
    statement = select(package.id).where(package.id.between(11_000, 11_006))
    numbers = range(11_000, 11_007)
    for query in shop.queries[:5]:
        short = misled.scalars(search(statement, package.embedding, query, complete=False)).all()
        assert len(short) < 7, "the planner was not misled: this test shows nothing"
        found = search(statement, package.embedding, query)
        assert misled.scalars(found).all() == truth(shop, query, 7, numbers)
        assert branches(ran(misled, found)) == [1]
        assert misled.scalars(search(statement, package.embedding, query, k=3)).all() == truth(shop, query, 3, numbers)


def test_a_list_of_a_hybrid_search_is_complete_too(misled: Session, shop: Shop) -> None:
    """Also two of them in one statement."""
    package, (one, other) = shop.package, shop.queries[:2]
    statement = select(package.id).where(package.id.between(11_000, 11_006))
    both = [Nearest(package.embedding, one), Nearest(package.embedding, other)]
    rows = misled.execute(search_hybrid(statement, both)).all()
    assert sorted(row.id for row in rows) == list(range(11_000, 11_007))
    for rank, query in (("rank_1", one), ("rank_2", other)):
        expected = truth(shop, query, 7, range(11_000, 11_007))
        assert [row.id for row in sorted(rows, key=lambda row: getattr(row, rank))] == expected


def test_examples_in_a_hybrid_search(session: Session, shop: Shop) -> None:
    """Two lists of examples in one statement; each is what `search` finds, and no example is in its own list."""
    package = shop.package
    queries = [more_like_this(package.embedding, [1, 2]), more_like_this(package.embedding, [7], unlike=[3])]
    both = [Nearest(package.embedding, query, shortlist=80, limit=20) for query in queries]
    rows = session.execute(search_hybrid(select(package.id), both, k=40)).all()
    for number, query in enumerate(queries, 1):
        listed = sorted((row[number + 1], row.id) for row in rows if row[number + 1] is not None)
        found = session.scalars(search(select(package.id), package.embedding, query, k=20, shortlist=80)).all()
        assert [id_ for _, id_ in listed] == list(found)
    with pytest.raises(SearchError, match="like"):
        search_many(select(package.id), package.embedding, queries[0])


def test_a_join_and_a_criterion_filter_too(misled: Session, shop: Shop) -> None:
    """Whatever leaves out rows that Python can see."""
    package, query = shop.package, shop.queries[1]
    numbers = range(500, 20_000, 4000)
    joined = select(package.id).join(package.tags).where(shop.tag.name == "tag 3", package.id.in_(numbers))
    assert misled.scalars(search(joined, package.embedding, query)).all() == truth(shop, query, 10, numbers)
    criteria = select(package.id).options(with_loader_criteria(package, package.id.in_(numbers)))
    assert misled.scalars(search(criteria, package.embedding, query)).all() == truth(shop, query, 10, numbers)


def test_many_queries_are_complete_each(misled: Session, shop: Shop) -> None:
    """Those that fell short, and only those."""
    package, queries = shop.package, shop.queries[:4]
    numbers = range(11_000, 11_007)
    statement = select(package.id).where(package.id.in_(numbers))
    many = misled.execute(search_many(statement, package.embedding, queries)).all()
    expected = [(n, q) for q, query in enumerate(queries) for n in truth(shop, query, 10, numbers)]
    assert [(row.id, row.query) for row in many] == expected
    few = misled.execute(search_many(statement, package.embedding, queries, complete=False)).all()
    assert len(few) < len(many)
    wide = search_many(select(package.id), package.embedding, queries, complete=True)
    assert branches(ran(misled, wide)) == [0]


def test_row_level_security_is_a_filter_that_python_cannot_see(misled: Session, shop: Shop) -> None:
    """Nobody has to know of it: the statement counts its shortlist."""
    package, query = shop.package, shop.queries[0]
    for write in (
        "CREATE ROLE complete_tenant",
        "GRANT SELECT ON packages TO complete_tenant",
        "ALTER TABLE packages ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON packages TO complete_tenant USING (mod(id, 4000) = 17)",
        "SET LOCAL ROLE complete_tenant",
    ):
        misled.connection().exec_driver_sql(write)
    scanned = search(select(package.id), package.embedding, query, complete=False)
    assert len(misled.scalars(scanned).all()) < 5, "the planner was not misled: this test shows nothing"
    statement = search(select(package.id), package.embedding, query)
    assert misled.scalars(statement).all() == truth(shop, query, 5, range(17, 20_000, 4000))


def test_ten_rows_of_a_scan_that_gave_up_are_not_enough(misled: Session, shop: Shop) -> None:
    """A filter that goes against the query: the scan meets ten rows of it, and not the nearest."""
    package = shop.package
    statement = select(package.id).where(package.id % 20 == 3)
    numbers = range(3, len(shop.documents), 20)
    missed = 0
    for query in shop.queries[:10]:
        expected = truth(shop, query, 10, numbers)
        scanned = misled.scalars(search(statement, package.embedding, query, complete=False)).all()
        missed += len(scanned) == 10 and set(scanned) != set(expected)
        assert misled.scalars(search(statement, package.embedding, query)).all() == expected
    assert missed, "every scan found the nearest: this test shows nothing"


def test_rows_without_a_distance_do_not_count(session: Session, shop: Shop) -> None:
    """A filter of 203 rows of which three have a vector: through the index or not, three."""
    package = shop.package
    statement = select(package.id).where(package.id >= len(shop.documents) - 3)
    rows = session.execute(search(statement, package.embedding, shop.queries[0], k=50, counts=True)).all()
    assert sorted(row.id for row in rows) == [19_997, 19_998, 19_999]
    assert {(row.requested, row.returned) for row in rows} == {(50, 3)}


# -- counts, thresholds, similarity --------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_counts_are_of_the_searched_rows(session: Session, shop: Shop, exact: bool) -> None:
    """Thirty tags for each package; the order is not disturbed."""
    package, query = shop.package, shop.queries[0]
    joined = select(package.id, shop.tag.name).join(package.tags)
    rows = session.execute(search(joined, package.embedding, query, k=5, exact=exact, counts=True)).all()
    assert {(row.requested, row.returned) for row in rows} == {(5, 5)}
    assert len(rows) == 150
    assert [row.distance for row in rows] == sorted(row.distance for row in rows)
    plain = session.execute(search(select(package.id), package.embedding, query, exact=exact, counts=True)).all()
    uncounted = session.execute(search(select(package.id), package.embedding, query, exact=exact)).all()
    assert [row[:2] for row in plain] == [tuple(row) for row in uncounted]
    assert {(row.requested, row.returned) for row in plain} == {(10, 10)}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("complete", [False, True])
def test_a_threshold_is_outside_the_shortlist(session: Session, shop: Shop, exact: bool, complete: bool) -> None:
    """It takes rows away from the k nearest, and makes no exact search of them."""
    package, query = shop.package, shop.queries[0]
    options: dict[str, Any] = {"k": 20, "exact": exact, "complete": complete}
    everything = session.execute(search(select(package.id), package.embedding, query, **options)).all()
    limit = everything[7].distance
    near = search(select(package.id), package.embedding, query, max_distance=limit, counts=True, **options)
    rows = session.execute(near).all()
    assert [row[:2] for row in rows] == [tuple(row) for row in everything if row.distance <= limit]
    assert {(row.requested, row.returned) for row in rows} == {(20, len(rows))}
    assert session.execute(search(select(package.id), package.embedding, query, max_distance=-1, **options)).all() == []
    if complete and not exact:
        assert branches(ran(session, near)) == [0]


@pytest.mark.parametrize("exact", [False, True])
def test_similarity_is_the_metrics_own(session: Session, shop: Shop, exact: bool) -> None:
    """Under cosine, one minus the distance."""
    package = shop.package
    statement = search(select(package.id), package.embedding, shop.queries[0], exact=exact, similarity="score")
    rows = session.execute(statement).all()
    expected = METRICS["cosine"].similarity(np.array([row.distance for row in rows]))
    assert [row.score for row in rows] == list(expected)
