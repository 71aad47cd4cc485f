"""Two searches in one statement: each has its own parts, and finds what it finds alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, union_all
from sqlalchemy.orm import Session, aliased

from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Plan, Shop
else:
    Plan = Shop = Any

INDEX = "packages_embedding_short_64_hnsw"


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def one(shop: Shop, number: int, *where: Any, **options: Any) -> Any:
    """A search for one of the queries."""
    return search(select(shop.package.id).where(*where), shop.package.embedding, shop.queries[number], **options)


def test_a_union_of_two_searches(session: Session, shop: Shop, plan: Plan) -> None:
    """Each through the index, with a shortlist of its own size."""
    first, second = one(shop, 0, k=5), one(shop, 1, shop.package.part < 50, k=7, shortlist=70)
    both = union_all(select(first.subquery()), select(second.subquery()))
    rows = session.execute(both).all()
    assert sorted(rows) == sorted([*session.execute(first), *session.execute(second)])
    assert len(rows) == 12
    indexes = [node.get("Index Name") for node in plan(session.connection(), both)]
    assert indexes.count(INDEX) == 2


def test_a_join_of_two_searches(session: Session, shop: Shop) -> None:
    """The rows near to both queries, by the sum of their distances."""
    query = shop.queries[0]
    near = search(select(shop.package.id), shop.package.embedding, query, k=50).subquery()
    other = (query + shop.queries[1]) / 2
    also = search(select(shop.package.id), shop.package.embedding, other, k=50).subquery()
    total = (near.c.distance + also.c.distance).label("total")
    joined = select(near.c.id, total).join(also, also.c.id == near.c.id).order_by(total, near.c.id)
    rows = session.execute(joined).all()
    first, second = ({row.id: row.distance for row in session.execute(select(one))} for one in (near, also))
    expected = sorted((first[n] + second[n], n) for n in first.keys() & second.keys())
    assert len(expected) > 5
    assert [(row.total, row.id) for row in rows] == expected


def test_a_search_within_a_searchs_filter(session: Session, shop: Shop) -> None:
    """Of the hundred nearest to one query, those nearest to another."""
    package = shop.package
    pool = one(shop, 0, k=100)
    inside = select(pool.subquery().c.id)
    found = session.scalars(one(shop, 1, package.id.in_(inside), k=10, shortlist=100)).all()
    hundred = session.scalars(pool).all()
    assert found == session.scalars(one(shop, 1, package.id.in_(hundred), k=10, exact=True)).all()


def test_a_searched_select_joined_to_another_search(session: Session, shop: Shop) -> None:
    """The neighbours of the filter's rows: a search whose Select joins the result of another."""
    package, query = shop.package, shop.queries[2]
    other = aliased(package)
    pool = search(select(other.id), other.embedding, query, k=30).subquery()
    joined = select(package.id, pool.c.distance.label("before")).join(pool, pool.c.id == package.id)
    rows = session.execute(search(joined, package.embedding, shop.queries[3], k=5)).all()
    before = session.execute(search(select(package.id), package.embedding, query, k=30))
    alone = {row.id: row.distance for row in before}
    assert len(rows) == 5
    assert {row.id: row.before for row in rows}.items() <= alone.items()


def test_two_times_many_queries(session: Session, shop: Shop) -> None:
    """Their numbers stay their own."""
    package = shop.package
    few = search_many(select(package.id), package.embedding, shop.queries[:2], k=3)
    more = search_many(select(package.id).where(package.part < 50), package.embedding, shop.queries[2:5], k=3)
    rows = session.execute(union_all(select(few.subquery()), select(more.subquery()))).all()
    assert sorted(rows) == sorted([*session.execute(few), *session.execute(more)])
    assert len(rows) == 15
