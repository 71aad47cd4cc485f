"""Maximal marginal relevance, against a greedy NumPy loop on the same shortlist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, select
from sqlalchemy.orm import Session

from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS, Metric, MetricName
from pgmrl.model.shortening import Short
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.more_like_this import more_like_this
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Shop
else:
    Shop = Any


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def greedy(metric: Metric, pool: Any, query: Any, k: int, relevance: float) -> tuple[list[int], list[float]]:
    """Places in the pool, which is in the order of distance, and their scores."""
    to_query = metric.similarity(metric.distances(pool, query))
    picked, scores = [0], [relevance * to_query[0]]
    while len(picked) < min(k, len(pool)):
        to_picked = np.max([metric.similarity(metric.distances(pool, pool[one])) for one in picked], axis=0)
        score = relevance * to_query - (1 - relevance) * to_picked
        score[picked] = -np.inf
        picked.append(int(np.argmax(score)))
        scores.append(score[picked[-1]])
    return picked, scores


@pytest.mark.parametrize("relevance", [0, 0.3, 0.5, 0.9, 1])
def test_the_picks_are_the_greedy_ones(session: Session, shop: Shop, relevance: float) -> None:
    """The same rows, in the same order, with the same scores."""
    package = shop.package
    for query in shop.queries[:4]:
        pool = session.scalars(search(select(package.id), package.embedding, query, k=100, shortlist=100)).all()
        made = search_diverse(select(package), package.embedding, query, k=10, shortlist=100, relevance=relevance)
        rows = session.execute(made).all()
        half = query.astype(np.float16).astype(np.float32)
        picked, scores = greedy(METRICS["cosine"], shop.documents[pool], half, 10, relevance)
        assert [row[0].id for row in rows] == [pool[one] for one in picked]
        assert [row.score for row in rows] == pytest.approx(scores, abs=1e-5)
        assert [row.rank for row in rows] == list(range(1, 11))
        if relevance == 1:
            assert [row[0].id for row in rows] == pool[:10]


@pytest.mark.parametrize("exact", [False, True])
def test_filters_joins_and_examples(session: Session, shop: Shop, exact: bool) -> None:
    """What leaves fewer rows than a shortlist is picked from as a whole."""
    package, query = shop.package, shop.queries[5]
    joined = select(package.id).join(package.tags).where(shop.tag.name == "tag 1", package.id.between(8000, 8099))
    rows = session.execute(search_diverse(joined, package.embedding, query, k=20, exact=exact)).all()
    pool = session.scalars(search(joined, package.embedding, query, k=25, exact=True)).all()
    half = query.astype(np.float16).astype(np.float32)
    picked, _ = greedy(METRICS["cosine"], shop.documents[pool], half, 20, 0.5)
    assert [row.id for row in rows] == [pool[one] for one in picked]
    few = joined.where(package.id < 8010)
    assert len(session.execute(search_diverse(few, package.embedding, query, k=20, exact=exact)).all()) == 3
    by_example = search_diverse(
        select(package.id), package.embedding, more_like_this(package.embedding, [17]), exact=exact
    )
    found = session.scalars(by_example).all()
    assert len(found) == 10
    assert 17 not in found


@pytest.mark.parametrize("metric", get_args(MetricName))
@pytest.mark.parametrize("exact", [False, True])
def test_every_metric_and_a_composite_key(connection: Connection, metric: MetricName, exact: bool) -> None:
    """Rows without a distance are not picked, and there may be fewer than k."""
    docs = Table(
        "docs",
        MetaData(),
        Column("place", Text, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4), metric)),
    )
    docs.create(connection)
    stored = np.random.default_rng(4).normal(size=(30, 8)).astype(np.float16).astype(np.float32)
    rows = [{"place": "ab"[n % 2], "number": n, "e": vector} for n, vector in enumerate(stored)]
    connection.execute(docs.insert(), [*rows, {"place": "c", "number": 99, "e": None}])
    query = np.arange(1, 9).astype(np.float32)
    found = connection.execute(search_diverse(select(docs), docs.c.e, query, k=40, shortlist=60, exact=exact)).all()
    order = np.argsort(METRICS[metric].distances(stored, query), kind="stable")
    picked, scores = greedy(METRICS[metric], stored[order], query, 40, 0.5)
    assert [row.number for row in found] == [int(order[one]) for one in picked]
    assert [row.score for row in found] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    assert len(found) == 30
