"""The SQL functions and the Python searches give the same rows, also where distances tie and for every metric.

Those of a table declared as distributed too, on one server; what only Citus can show is in tests/citus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import (
    FullText,
    Nearest,
    Rrf,
    SqlFunctions,
    Weighted,
    Words,
    install_functions,
    search,
    search_diverse,
    search_groups,
    search_hybrid,
)
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.conftest import vector_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from pgmrl.model.metrics import MetricName
else:
    Engine = MetricName = Any

ROWS, DIMS = 400, 16
METRICS: dict[str, MetricName] = {
    "cosine": "cosine", "l2": "l2", "inner_product": "inner_product", "shards": "cosine", "shards_l2": "l2"
}  # fmt: skip
"""By what the tables are called."""


@pytest.fixture(scope="module")
def tables(module_engine: Engine) -> dict[str, Table]:
    """For each metric a table in which every vector is there twice, in groups whose names order unlike their keys."""
    rng = np.random.default_rng(7)
    vectors = np.repeat(rng.integers(-3, 4, (ROWS // 2, DIMS)).astype(np.float32) + 0.5, 2, axis=0)
    groups = [f"g{(ROWS - n) % 37:02}" for n in range(ROWS)]
    rows = [
        {"id": n, "part": group, "title": f"word{n % 5} word{n % 7}", "embedding": vector}
        for n, (vector, group) in enumerate(zip(vectors, groups, strict=True))
    ]
    tables: dict[str, Table] = {}
    for name, metric in METRICS.items():
        tables[name] = table = Table(
            f"alike_{name}",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("part", Text),
            Column("title", Text),
            Column("words", FullText("title", config="simple")),
            Column("embedding", Matryoshka(DIMS, Short(8), metric=metric, distributed=name.startswith("shards"))),
        )
        with module_engine.begin() as connection:
            table.create(connection)
            connection.execute(table.insert(), rows)
            install_functions(connection, table.c.embedding, SqlFunctions(group_by="part", words="words"))
    return tables


@pytest.fixture
def asked(module_engine: Engine) -> Iterator[Connection]:
    """A connection that only reads."""
    with module_engine.connect() as connection:
        yield connection


def queries() -> Any:
    """A few; the vectors' own ones tie with their doubles."""
    rng = np.random.default_rng(8)
    return [*rng.standard_normal((3, DIMS)), np.arange(DIMS) - 3.0]


def called(asked: Connection, function: str, query: Any, arguments: str) -> list[int]:
    """The keys in order."""
    made = text(f"SELECT id FROM {function}(:q, {arguments}) ORDER BY rank")
    return list(asked.execute(made, {"q": vector_text(query)}).scalars())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("exact", [True, False])
def test_search(asked: Connection, tables: dict[str, Table], metric: str, exact: bool) -> None:
    """Ties by key in both."""
    table = tables[metric]
    for query in queries():
        made = search(select(table.c.id), table.c.embedding, query, k=9, shortlist=ROWS, exact=exact)
        expected = list(asked.execute(made).scalars())
        assert called(asked, f"{table.name}_search", query, f"9, shortlist => {ROWS}, exact => {exact}") == expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("relevance", [0, 0.25, 0.6, 1])
def test_diverse(asked: Connection, tables: dict[str, Table], metric: str, relevance: float) -> None:
    """The picks weigh similarities, which for L2 is not the same as weighing distances."""
    table = tables[metric]
    for query in queries():
        made = search_diverse(
            select(table.c.id), table.c.embedding, query, k=9, shortlist=80, relevance=relevance, exact=True
        )
        expected = list(asked.execute(made).scalars())
        arguments = f"9, {relevance}, shortlist => 80, exact => true"
        assert called(asked, f"{table.name}_search_diverse", query, arguments) == expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("per_group", [1, 3])
def test_groups(asked: Connection, tables: dict[str, Table], metric: str, per_group: int) -> None:
    """Groups with equally near rows are ordered by the key of that row."""
    table = tables[metric]
    for query in queries():
        made = search_groups(
            select(table.c.id), table.c.embedding, query, table.c.part, k=8, per_group=per_group, exact=True
        )
        expected = list(asked.execute(made).scalars())
        assert called(asked, f"{table.name}_search_groups", query, f"8, {per_group}, exact => true") == expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("fuse", [Rrf(), Weighted()])
@pytest.mark.parametrize("match", ["any", "all"])
def test_hybrid(
    asked: Connection, tables: dict[str, Table], metric: str, fuse: Rrf | Weighted, match: Literal["any", "all"]
) -> None:
    """The same scores to the last bit, and the same ranks in both lists."""
    table = tables[metric]
    for query in queries():
        retrievers = [
            Nearest(table.c.embedding, query, exact=True),
            Words(table.c.words, "word1 word2", weight=0.7, match=match),
        ]
        made = search_hybrid(select(table.c.id), retrievers, k=30, fuse=fuse)
        expected = [tuple(row) for row in asked.execute(made)]
        function = text(
            f"SELECT id, score, vector_rank, words_rank FROM {table.name}_hybrid(:q, 'word1 word2', 30, "
            "match => :match, fusion => :fusion, words_weight => 0.7, exact => true) ORDER BY rank"
        )
        given = {"q": vector_text(query), "match": match, "fusion": type(fuse).__name__.lower()}
        assert [tuple(row) for row in asked.execute(function, given)] == expected
        assert len(expected) == 30


def test_a_shortlist_that_cannot_hold_the_groups(asked: Connection, tables: dict[str, Table]) -> None:
    """Is refused by the function as it is in Python."""
    with pytest.raises(DBAPIError, match="shortlist is 20, k is 10, per_group is 3"):
        called(asked, f"{tables['l2'].name}_search_groups", queries()[0], "10, 3, shortlist => 20")
