"""Searches by examples: what NumPy finds with the combined vector, and errors instead of arbitrary rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session, aliased

from pgmrl import database
from pgmrl.errors import ExactSearchWarning
from pgmrl.model.columns import Matryoshka, add_side_table
from pgmrl.model.metrics import METRICS, MetricName
from pgmrl.model.shortening import Prefix, Rotation, Short
from pgmrl.searching.more_like_this import average_vectors, more_like_this
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


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("unlike", [[], [77, 9000]])
def test_examples_find_what_their_combination_finds(
    session: Session, shop: Shop, exact: bool, unlike: list[int]
) -> None:
    """With a filter, and without; the examples themselves stay away."""
    package, keys = shop.package, [12, 345, 6789]
    vector = average_vectors(shop.documents[keys], shop.documents[unlike] if unlike else ())
    for statement in (select(package.id), select(package.id).where(package.part < 50)):
        made = search(
            statement, package.embedding, more_like_this(package.embedding, keys, unlike), shortlist=300, exact=exact
        )
        rows = session.execute(made).all()
        apart = statement.where(package.id.not_in(keys + unlike))
        expected = session.execute(search(apart, package.embedding, vector, shortlist=300, exact=exact)).all()
        assert len({row.id for row in rows} & {row.id for row in expected}) >= 9  # its parts are rounded elsewhere
        assert [row.distance for row in rows] == pytest.approx([row.distance for row in expected], abs=2e-3)
        assert not {row.id for row in rows} & {*keys, *unlike}


def test_an_example_alone_is_its_own_query(session: Session, shop: Shop) -> None:
    """An alias and a join take it as well; the example need not pass the filter."""
    package = shop.package
    expected = session.scalars(
        search(select(package.id).where(package.id != 12), package.embedding, shop.documents[12])
    ).all()
    query = more_like_this(package.embedding, [12])
    assert session.scalars(search(select(package.id), package.embedding, query)).all() == expected
    other = aliased(package)
    assert session.scalars(search(select(other.id), other.embedding, query)).all() == expected
    joined = select(package.id).join(package.maker).where(shop.maker.id != 12)
    found = session.scalars(search(joined, package.embedding, query)).all()
    assert found
    assert all(n % 100 != 12 for n in found)


def test_an_expression_is_a_query(session: Session, shop: Shop) -> None:
    """The average that the server computes."""
    package = shop.package
    average = select(func.avg(package.embedding)).where(package.id < 20).scalar_subquery()
    rows = session.execute(search(select(package.id), package.embedding, average, shortlist=300)).all()
    vector = shop.documents[:20].mean(axis=0)
    expected = session.execute(search(select(package.id), package.embedding, vector, shortlist=300)).all()
    assert [row.distance for row in rows] == pytest.approx([row.distance for row in expected], abs=2e-3)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("keys", "unlike", "message"),
    [
        ([12, -5], [], "expected each of 2 examples to exist and to have a vector to search with, got 1"),
        ([12], [30_000], "expected each of 2 examples to exist"),
        ([20_001], [], "got 0"),  # without a vector
        ([12, 20_000], [], "got 1"),  # a zero vector
    ],
)
def test_an_example_without_a_vector_is_an_error(
    session: Session, shop: Shop, exact: bool, keys: list[int], unlike: list[int], message: str
) -> None:
    """And not ten arbitrary rows."""
    package = shop.package
    made = search(select(package.id), package.embedding, more_like_this(package.embedding, keys, unlike), exact=exact)
    with pytest.raises(DataError, match=message):
        session.execute(made)


@pytest.mark.parametrize("exact", [False, True])
def test_an_expression_without_a_vector_is_an_error(session: Session, shop: Shop, exact: bool) -> None:
    """NULL, and zero under cosine."""
    package = shop.package
    for number, message in ((-5, "is NULL"), (20_001, "is NULL"), (20_000, "all zeros")):
        expression = select(package.embedding).where(package.id == number).scalar_subquery()
        with pytest.raises(DataError, match=message):
            session.execute(search(select(package.id), package.embedding, expression, exact=exact))
        session.rollback()


# -- every kind of column ------------------------------------------------------------------------------------------

ROWS = 60


def vectors() -> Any:
    """Rows 0 to 59; 0 and 1 are opposite, 2 has only zeros in its leading half."""
    made = np.random.default_rng(8).normal(size=(ROWS, 8)).astype(np.float16).astype(np.float32)
    made[1] = -made[0]
    made[2, :4] = 0
    return made


def table_of(connection: Connection, kind: str, metric: MetricName, rotation: Rotation) -> Table:
    """Sixty rows with a composite key."""
    metadata = MetaData()
    key = (Column("place", Text, primary_key=True), Column("number", Integer, primary_key=True))
    if kind == "side":
        table = Table("docs", metadata, *key, Column("e", VECTOR(8)))
        table.create(connection)
        add_side_table(table.c.e, Short(4, Prefix()), metric=metric)
    else:
        shorts = {
            "prefix": Short(4),
            "rotation": Short(4, rotation),
            "pinned": Short(4, Rotation(str(rotation.id))),
            "bit": Short(8, type="bit"),
            "unlearned": Short(4, Rotation()),
        }
        table = Table("docs", metadata, *key, Column("e", Matryoshka(8, shorts[kind], metric)))
    database.install_rotation(connection, rotation)
    metadata.create_all(connection)
    rows = [{"place": "ab"[n % 2], "number": n, "e": vector} for n, vector in enumerate(vectors())]
    connection.execute(table.insert(), rows)
    return table


@pytest.mark.parametrize("metric", get_args(MetricName))
@pytest.mark.parametrize("kind", ["prefix", "rotation", "pinned", "bit", "side", "unlearned"])
def test_every_kind_of_column(connection: Connection, small_rotation: Rotation, kind: str, metric: MetricName) -> None:
    """A shortlist with room for everything: the truth, by NumPy, also of a row without a prefix."""
    table = table_of(connection, kind, metric, small_rotation)
    stored = vectors()
    query = more_like_this(table.c.e, [("b", 3), ("a", 4)], unlike=[("b", 5)])
    if kind == "unlearned":
        with pytest.warns(ExactSearchWarning):
            made = search(table.select(), table.c.e, query, k=20, shortlist=60)
    else:
        made = search(table.select(), table.c.e, query, k=20, shortlist=60)
    rows = connection.execute(made).all()
    vector = average_vectors(stored[[3, 4]], stored[[5]], metric=metric)
    half = vector if kind == "side" else vector.astype(np.float16).astype(np.float32)
    distances = METRICS[metric].distances(stored, half)
    order = [int(n) for n in np.argsort(distances, kind="stable") if n not in {3, 4, 5}]
    assert [row.number for row in rows] == order[:20]


@pytest.mark.parametrize("kind", ["prefix", "rotation", "bit", "side"])
def test_a_combination_without_a_direction_is_an_error(
    connection: Connection, small_rotation: Rotation, kind: str
) -> None:
    """Under cosine; and a prefix of zeros where the index goes by the prefix."""
    table = table_of(connection, kind, "cosine", small_rotation)
    with pytest.raises(DataError, match="the examples cancel each other"), connection.begin_nested():
        connection.execute(search(table.select(), table.c.e, more_like_this(table.c.e, [("a", 0), ("b", 1)])))
    by_prefix = search(table.select(), table.c.e, more_like_this(table.c.e, [("a", 2)]))
    if kind in {"prefix", "side"}:
        with pytest.raises(DataError, match="zero in its leading 4 dimensions: use exact=True"):
            connection.execute(by_prefix)
    else:
        assert len(connection.execute(by_prefix).all()) == 10


def test_examples_of_another_table(connection: Connection, small_rotation: Rotation) -> None:
    """Nothing is left out then, though keys are alike."""
    table = table_of(connection, "prefix", "cosine", small_rotation)
    other = Table("other", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    other.create(connection)
    connection.execute(other.insert(), [{"id": 1, "e": vectors()[7]}])
    rows = connection.execute(search(table.select(), table.c.e, more_like_this(other.c.e, [1]), shortlist=60)).all()
    assert rows[0].number == 7
