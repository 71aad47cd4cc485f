"""The best of each group, against NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, select
from sqlalchemy.orm import Session, aliased

from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Short
from pgmrl.searching.groups import search_groups
from tests.integration.test_complete import branches, ran

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.conftest import Plan, Shop
else:
    Plan = Shop = Any

INDEX = "packages_embedding_short_64_hnsw"


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def truth(shop: Shop, query: Any, k: int, each: int, numbers: Sequence[int] | None = None) -> list[int]:
    """The nearest of each part (the number modulo 100), parts by their nearest."""
    known = np.arange(len(shop.documents)) if numbers is None else np.asarray(numbers)
    distances = METRICS["cosine"].distances(shop.documents[known], query.astype(np.float16).astype(np.float32))
    groups: dict[int, list[int]] = {}
    for at in np.argsort(distances, kind="stable"):
        groups.setdefault(int(known[at]) % 100, []).append(int(known[at]))
    return [number for group in list(groups.values())[:k] for number in group[:each]]


@pytest.mark.parametrize("each", [1, 3])
def test_exact_groups_are_the_truth(session: Session, shop: Shop, each: int) -> None:
    """Groups by their nearest row, rows by distance."""
    package = shop.package
    for query in shop.queries[:3]:
        made = search_groups(
            select(package.id), package.embedding, query, package.part, k=7, per_group=each, exact=True
        )
        assert session.scalars(made).all() == truth(shop, query, 7, each)


def test_groups_through_the_index(session: Session, shop: Shop) -> None:
    """The shortlist suffices, so nothing else is read; nearly always it finds the truth."""
    package, hits = shop.package, 0
    for query in shop.queries[:10]:
        made = search_groups(select(package), package.embedding, query, package.part, k=5, shortlist=200)
        found = [row[0].id for row in session.execute(made)]
        assert len(found) == 5
        hits += len(set(found) & set(truth(shop, query, 5, 1)))
    assert hits >= 47
    nodes = ran(session, made)
    assert INDEX in [node.get("Index Name") for node in nodes]
    assert branches(nodes) == [0]
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]


def test_too_few_groups_in_the_shortlist(session: Session, shop: Shop) -> None:
    """All rows are asked then: forty near ones have not a hundred parts; without that, fewer groups come."""
    package, query = shop.package, shop.queries[0]
    few = search_groups(
        select(package.id), package.embedding, query, package.part, k=100, shortlist=100, complete=False
    )
    assert len(session.scalars(few).all()) < 100
    made = search_groups(select(package.id), package.embedding, query, package.part, k=100, shortlist=100)
    assert session.scalars(made).all() == truth(shop, query, 100, 1)
    assert branches(ran(session, made)) == [1]


def test_groups_with_filters_joins_and_aliases(session: Session, shop: Shop) -> None:
    """As `search`: the column is that of the Select."""
    package, query = shop.package, shop.queries[1]
    expected = truth(shop, query, 5, 2, range(0, 20_000, 4))
    joined = select(package.id).join(package.tags).where(shop.tag.name == "tag 1")
    made = search_groups(joined, package.embedding, query, package.part, k=5, per_group=2, shortlist=2000)
    assert session.scalars(made).all() == expected
    other = aliased(package)
    filtered = select(other.id).where(other.id % 4 == 0)
    made = search_groups(filtered, other.embedding, query, other.part, k=5, per_group=2, exact=True)
    assert session.scalars(made).all() == expected
    table = package.__table__
    core = select(table.c.id).where(table.c.id % 4 == 0)
    made = search_groups(core, table.c.embedding, query, table.c.part, k=5, per_group=2, exact=True)
    assert session.scalars(made).all() == expected


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"complete": False}])
def test_ties_composite_keys_and_rows_of_no_group(connection: Connection, options: dict[str, Any]) -> None:
    """All rows are at one distance; NULL is no group."""
    docs = Table(
        "docs",
        MetaData(),
        Column("place", Text, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("topic", Text),
        Column("e", Matryoshka(4, Short(2))),
    )
    docs.create(connection)
    rows = [
        {"place": place, "number": number, "topic": [None, "x", "y"][number % 3], "e": [1, 1, 0, 1]}
        for place in "ba"
        for number in range(9)
    ]
    connection.execute(docs.insert(), rows)
    made = search_groups(select(docs), docs.c.e, [1, 1, 0, 1], docs.c.topic, k=2, per_group=2, **options)
    found = [(row.topic, row.place, row.number) for row in connection.execute(made)]
    assert found == [("x", "a", 1), ("x", "a", 4), ("y", "a", 2), ("y", "a", 5)]
