"""Recall against the exact search of the same column: every metric, both rules, every short type.

Each case first shows that the short index is used: recall of a sequential scan would prove nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from pgmrl.measure import recall_at_k
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Prefix, Short
from pgmrl.searching.search import search
from tests.databases import indexed_afterwards

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation
    from tests.integration.conftest import Plan, Shop
else:
    Plan = Shop = Any

CASES = {
    "cosine, 64 leading": ("cosine", "prefix", "halfvec", 64, 0.96),
    "cosine, 64 rotated": ("cosine", "rotation", "halfvec", 64, 0.98),
    "cosine, 48 rotated, single precision": ("cosine", "rotation", "vector", 48, 0.95),
    "cosine, 256 bits": ("cosine", "prefix", "bit", 256, 0.98),
    "cosine, 128 bits rotated": ("cosine", "rotation", "bit", 128, 0.8),
    "l2, 64 leading": ("l2", "prefix", "halfvec", 64, 0.95),
    "l2, 64 rotated": ("l2", "rotation", "halfvec", 64, 0.97),
    "inner product, 64 leading": ("inner_product", "prefix", "vector", 64, 0.91),
    "inner product, 64 rotated": ("inner_product", "rotation", "halfvec", 64, 0.97),
}
"""Metric, rule, short type and dimensions, and the recall@10 that a shortlist of 200 of 8,000 must have."""


@pytest.mark.parametrize(("metric", "rule", "kind", "dims", "bound"), CASES.values(), ids=CASES)
def test_recall(
    shop: Shop, rotation: Rotation, plan: Plan, metric: Any, rule: str, kind: Any, dims: int, bound: float
) -> None:
    """Vectors whose lengths differ, since under L2 and inner product lengths count."""
    by = rotation if rule == "rotation" else Prefix()
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(256, Short(dims, by, kind), metric)),
    )
    recalls: list[float] = []
    with shop.engine.connect() as connection:
        docs.create(connection)
        with indexed_afterwards(connection, docs):
            connection.exec_driver_sql(
                "INSERT INTO docs (id, e) "
                "SELECT id, embedding * array_fill((0.75 + mod(id, 11) * 0.05)::real, ARRAY[256])::halfvec(256) "
                "FROM packages WHERE id < 8000"
            )
        connection.exec_driver_sql("ANALYZE docs")
        for query in shop.queries[:40]:
            statement = search(docs.select(), docs.c.e, query, k=10, shortlist=200)
            if not recalls:
                assert any("hnsw" in node.get("Index Name", "") for node in plan(connection, statement))
            found = [row.distance for row in connection.execute(statement)]
            exact = search(docs.select(), docs.c.e, query, k=10, exact=True)
            recalls.append(recall_at_k(found, [row.distance for row in connection.execute(exact)]))
            assert len(found) == 10
    assert np.mean(recalls) >= bound
