"""More than two stages, against the same cuts in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Computed, Connection, Integer, MetaData, Table, select
from sqlalchemy.orm import Session

from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Short
from pgmrl.model.types import NumpyVector
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.search import search
from tests.integration.test_complete import branches, ran

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


def cut(vectors: Any, numbers: Any, query: Any, dims: int, rows: int) -> Any:
    """The nearest by leading dimensions."""
    distances = METRICS["cosine"].distances(vectors[numbers][:, :dims], query[:dims])
    return numbers[np.argsort(distances, kind="stable")[:rows]]


@pytest.mark.parametrize("stages", [[(128, 50)], [(96, 60), (192, 30)], []])
def test_each_stage_cuts_what_the_one_before_left(session: Session, shop: Shop, stages: list[tuple[int, int]]) -> None:
    """From the same shortlist, by NumPy."""
    package = shop.package
    for query in shop.queries[:4]:
        shortlist = session.scalars(search(select(package.id), package.embedding, query, k=200, shortlist=200)).all()
        left, half = np.array(sorted(shortlist)), query.astype(np.float16).astype(np.float32)
        for dims, rows in [*stages, (256, 10)]:
            left = cut(shop.documents, left, half, dims, rows)
        found = session.scalars(search_funnel(select(package.id), package.embedding, query, stages, shortlist=200))
        assert list(found) == list(left)


def test_a_funnel_of_few_rows_is_complete(session: Session, shop: Shop) -> None:
    """With a filter the exact fallback stands behind it, and is not executed where there are rows enough."""
    package, query = shop.package, shop.queries[0]
    half, stages = select(package.id).where(package.part < 50), [(128, 100)]
    nodes = ran(session, search_funnel(half, package.embedding, query, stages))
    assert branches(nodes) == [0]
    few = select(package.id).join(package.maker).where(package.id.in_([3, 5, 7]))
    for exact in (False, True):
        found = session.scalars(search_funnel(few, package.embedding, query, stages, exact=exact)).all()
        assert sorted(found) == [3, 5, 7]


def test_a_stored_middle_vector(connection: Connection) -> None:
    """Of the searched table, in half precision or single."""
    for kind in ("halfvec", "vector"):
        docs = Table(
            f"docs_{kind}",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("middle", NumpyVector(6, kind), Computed(f"subvector(e, 1, 6)::{kind}(6)", persisted=True)),
            Column("e", Matryoshka(8, Short(4))),
        )
        docs.create(connection)
        stored = np.random.default_rng(4).normal(size=(300, 8)).astype(np.float16).astype(np.float32)
        connection.execute(docs.insert(), [{"id": n, "e": vector} for n, vector in enumerate(stored)])
        query = np.arange(1, 9).astype(np.float32)
        made = search_funnel(select(docs.c.id), docs.c.e, query, [(docs.c.middle, 20)], shortlist=300, k=5)
        left = cut(stored, np.arange(300), query, 6, 20)
        assert list(connection.scalars(made)) == list(cut(stored, left, query, 8, 5))
        assert "subvector(full_vector" not in str(made)
