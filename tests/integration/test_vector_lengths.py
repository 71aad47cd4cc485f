"""Very short and very long vectors: either refused, or searched as NumPy ranks them in double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, bindparam, select, text, type_coerce
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DataError, DBAPIError

from pgmrl import SqlFunctions, database, install_functions
from pgmrl.errors import IngestError, VectorError
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Prefix, Short
from pgmrl.model.types import NumpyVector
from pgmrl.searching.more_like_this import average_vectors, more_like_this
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from tests.conftest import vector_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pgmrl.model.rotation import Rotation

    Found = list[tuple[int, float]]

DIMS, ROWS, K = 8, 60, 5
SCALES = (1e-300, 1e-40, 1e-25, 1e-20, 1e-14, 1e-9, 1e-4, 1.0, 1e4, 1e9, 1e17, 1e20, 1e25, 1e37, 1e300)
STORED: dict[Any, tuple[float, float]] = {"vector": (1e-14, 1e17), "halfvec": (1e-3, 1e4)}
"""Scales of rows that every column takes."""


def rows_of(scale: float) -> NDArray[np.float64]:
    """Random directions at about one length; the last one is that of the query."""
    return np.random.default_rng(7).normal(size=(ROWS, DIMS)) * scale


def table_of(connection: Connection, full: Any, metric: Any, by: Any = Prefix(), type: Any = "halfvec") -> Table:  # noqa: A002, B008
    """An empty table; its short vectors order as the full ones do, but for rounding."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(DIMS, Short(DIMS if isinstance(by, Prefix) else 4, by, type), metric, full)),
    )
    if not isinstance(by, Prefix):
        database.install_rotation(connection, by)
    table.create(connection)
    return table


def stored_rows(connection: Connection, table: Table) -> NDArray[np.float64]:
    """What the column holds, by id."""
    return np.stack(list(connection.execute(select(table.c.e).order_by(table.c.id)).scalars())).astype(np.float64)


def searches(table: Table, query: NDArray[np.float64]) -> Iterator[Callable[[], tuple[Any, dict[str, Any]]]]:
    """Each way to ask with this vector: what makes the statement and its parameters."""
    rows, column, type_ = select(table.c.id), table.c.e, NumpyVector(DIMS, "vector")
    wide = sql_cast(bindparam("given", query, type_=type_), type_)
    for exact in (False, True):
        options: Any = {"k": K, "exact": exact} if exact else {"k": K, "shortlist": 3 * K}
        yield lambda options=options: (search(rows, column, query, **options), {})  # type: ignore[misc]
        yield lambda options=options: (search(rows, column, bindparam("q"), **options), {"q": query})  # type: ignore[misc]
        yield lambda options=options: (search_many(rows, column, [query], **options), {})  # type: ignore[misc]
        if 1e-30 < np.abs(query).max() < 1e30:  # in a type of SQL's that holds it
            yield lambda options=options: (search(rows, column, wide, **options), {})  # type: ignore[misc]


def check(metric: str, found: Found, stored: NDArray[np.float64], query: NDArray[np.float64], precision: float) -> None:
    """The distances are NumPy's for these rows, and no other row is nearer."""
    scale = np.abs(query).max() if metric == "cosine" else 1.0
    truth = METRICS[metric].distances(stored, query / scale)
    assert len(found) == K
    distances = np.array([distance for _, distance in found])
    tolerance = precision * max(1.0 if metric == "cosine" else 0.0, float(np.abs(truth).max()))
    np.testing.assert_allclose(distances, truth[[row for row, _ in found]], rtol=0, atol=tolerance)
    # rows that are alike but for the last digits may change places in the shortlist
    np.testing.assert_allclose(distances, np.sort(truth)[:K], rtol=0, atol=100 * tolerance)


def says_why(error: Exception) -> bool:
    """Whether it names the length, or the number that does not fit."""
    return any(part in str(error) for part in ("length", "must be finite", "half precision", "out of range for type"))


@pytest.mark.parametrize("way", ["insert", "ingest"])
@pytest.mark.parametrize("full", ["vector", "halfvec"])
@pytest.mark.parametrize("metric", list(METRICS))
def test_every_length_is_refused_or_right(connection: Connection, metric: Any, full: Any, way: str) -> None:
    """Rows and queries of every length, through every way to write and to ask."""
    accepted, asked = set(), set()
    for scale in SCALES:
        table = table_of(connection, full, metric, type=full)
        given = rows_of(scale)
        rows = [{"id": number, "e": vector} for number, vector in enumerate(given)]
        try:
            with connection.begin_nested():
                if way == "insert":
                    connection.execute(table.insert(), rows)
                else:
                    ingest(connection, table.c.e, rows)
        except (VectorError, IngestError) as error:
            assert says_why(error)  # noqa: PT017
            table.drop(connection)
            continue
        accepted.add(scale)
        stored = stored_rows(connection, table)
        if full == "vector" or scale >= 1e-3:
            np.testing.assert_allclose(stored, given, rtol=1e-3)
        for query_scale in SCALES:
            query = np.random.default_rng(9).normal(size=DIMS) * query_scale
            for make in searches(table, query):
                try:
                    with connection.begin_nested():
                        statement, values = make()
                        found = [(row[0], row[-1]) for row in connection.execute(statement, values)]
                except (VectorError, DataError) as error:  # an expression's is the server's
                    assert metric != "cosine"
                    assert says_why(error)  # noqa: PT017
                    continue
                asked.add((scale, query_scale))
                check(metric, found, stored, query, 1e-6 if full == "vector" else 2e-3)
        table.drop(connection)
    low, high = STORED[full]
    assert {scale for scale in SCALES if low <= scale <= high} <= accepted
    assert not {1e-300, 1e-40, 1e-25, 1e20, 1e25, 1e37, 1e300} & accepted
    if metric == "cosine":
        assert asked == {(scale, query_scale) for scale in accepted for query_scale in SCALES}
    else:
        assert {query_scale for _, query_scale in asked} >= {scale for scale in SCALES if low <= scale <= high}


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
@pytest.mark.parametrize("rule", ["prefix", "rotation"])
def test_short_vectors_beyond_half_precision(
    connection: Connection, small_rotation: Rotation, metric: Any, rule: str
) -> None:
    """Rows and queries are refused before the server does it, or stores infinity; a short `vector` takes them."""
    by: Any = Prefix() if rule == "prefix" else small_rotation
    table = table_of(connection, "vector", metric, by)
    for write in (
        lambda: connection.execute(table.insert(), [{"id": 1, "e": rows_of(1e6)[0]}]),
        lambda: search(select(table.c.id), table.c.e, rows_of(1e6)[0], k=1),
        lambda: search_many(select(table.c.id), table.c.e, rows_of(1e6), k=1),
        lambda: connection.execute(search(select(table.c.id), table.c.e, bindparam("q"), k=1), {"q": rows_of(1e6)[0]}),
    ):
        with pytest.raises(
            VectorError, match=r"short vector with a value beyond half precision's 65504.*type='vector'"
        ):
            write()
    with pytest.raises(IngestError, match=r"row 1 \(id=1\): the vector has a short vector with a value beyond half"):
        ingest(connection, table.c.e, [{"id": 1, "e": rows_of(1e6)[0]}])
    assert connection.execute(search(select(table.c.id), table.c.e, rows_of(1e6)[0], k=1, exact=True)).all() == []
    table.drop(connection)
    table = table_of(connection, "vector", metric, by, type="vector")
    ingest(connection, table.c.e, [{"id": number, "e": vector} for number, vector in enumerate(rows_of(1e6))])
    query = rows_of(1e6)[3] * 1.1
    found = connection.execute(search(select(table.c.id), table.c.e, query, k=K, shortlist=ROWS)).all()
    check(metric, [(int(row[0]), float(row[1])) for row in found], stored_rows(connection, table), query, 1e-6)


def test_leading_dimensions_that_the_column_rounds_to_zero(connection: Connection) -> None:
    """Such a query has no short vector, and such a row is counted as one that the index does not hold."""
    table = table_of(connection, "halfvec", "cosine")
    value = np.array([1e-9] * DIMS)
    value[-1] = 1.0
    narrow = Table(
        "narrow", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(DIMS, Short(4)))
    )
    narrow.create(connection)
    assert ingest(connection, narrow.c.e, [{"id": 1, "e": value}]).zero_vectors == 1
    assert ingest(connection, table.c.e, [{"id": 1, "e": value}]).zero_vectors == 0
    with pytest.raises(VectorError, match="zero in its leading 4 dimensions"):
        search(select(narrow.c.id), narrow.c.e, value)
    assert connection.execute(search(select(narrow.c.id), narrow.c.e, value, exact=True)).one()[1] == pytest.approx(0)


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("full", ["vector", "halfvec"])
def test_an_expression_of_a_row_is_the_row(connection: Connection, metric: Any, full: Any) -> None:
    """A row's own vector as the query, in SQL, and its distance to itself to the last bit."""
    table = table_of(connection, full, metric)
    connection.execute(table.insert(), [{"id": number, "e": vector} for number, vector in enumerate(rows_of(1.0))])
    own = select(table.c.e).where(table.c.id == 7).scalar_subquery()
    nearest = connection.execute(search(select(table.c.id), table.c.e, own, k=1)).one()
    if metric != "inner_product":
        assert nearest[0] == 7
    if metric == "l2":
        assert nearest[1] == 0
    stored = stored_rows(connection, table)
    assert nearest[1] == pytest.approx(METRICS[metric].distances(stored, stored[7]).min(), abs=1e-6)


def test_examples_of_every_length(connection: Connection) -> None:
    """Under cosine each has the same say; what nearly cancels keeps its direction in half precision."""
    for full in ("vector", "halfvec"):
        table = table_of(connection, full, "cosine")
        low, high = STORED[full]
        scales = np.geomspace(low, high, ROWS)[:, np.newaxis]
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(rows_of(1.0) * scales)])
        stored = stored_rows(connection, table)
        query = more_like_this(table.c.e, [0, 30, 59], unlike=[10])
        found = connection.execute(search(select(table.c.id), table.c.e, query, k=K, exact=True)).all()
        average = average_vectors(stored[[0, 30, 59]], stored[[10]])
        truth = METRICS["cosine"].distances(stored, average)
        others = [number for number in np.argsort(truth) if number not in {0, 30, 59, 10}]
        assert [row[0] for row in found] == others[:K]
        table.drop(connection)


def test_averages_of_every_length() -> None:
    """In NumPy, too; under the other metrics an average beyond single precision is refused."""
    pair = np.array([[3.0, 4.0], [4.0, 3.0]])
    for scale in SCALES:
        found = average_vectors(pair * scale, weights=[1e-300, 1e-300])
        np.testing.assert_allclose(found / np.linalg.norm(found), np.array([1, 1]) / np.sqrt(2), rtol=1e-6)
    with pytest.raises(VectorError, match="average of the vectors has inf"):
        average_vectors([[3e38, 0.0]], [[-3e38, 0.0]], metric="l2")
    found = average_vectors([[1e30, 0.0], [0.0, 1e30]], weights=[1e308, 1e308], metric="l2")
    np.testing.assert_allclose(found, [5e29, 5e29], rtol=1e-6)


def test_bounds_are_where_the_server_computes(connection: Connection) -> None:
    """At the bounds of VECTOR_LENGTHS and of half precision pgvector is right, far outside it is not: why they are."""
    from pgmrl.model.vectors import HALF_LENGTH, VECTOR_LENGTHS  # noqa: PLC0415 - beside what it is about

    pair = np.random.default_rng(1).normal(size=(2, 1000))
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)

    def distances(kind: Any, scale: float) -> NDArray[np.float64]:
        values = [bindparam(f"v{n}", vector * scale, type_=NumpyVector(1000, kind)) for n, vector in enumerate(pair)]
        one, other = (type_coerce(value, NumpyVector(1000, kind)) for value in values)
        compared = (one.cosine_distance(other), one.l2_distance(other), one.max_inner_product(other))
        row = connection.execute(select(*compared)).one()
        return np.array([row[0], row[1] / scale, row[2] / scale**2])

    truth = np.array([METRICS[name].distances(pair[:1], pair[1])[0] for name in ("cosine", "l2", "inner_product")])
    for scale in VECTOR_LENGTHS:
        np.testing.assert_allclose(distances("vector", scale), truth, rtol=1e-4)
        worse = distances("vector", scale**1.7)
        assert not np.isfinite(worse).all() or np.abs(worse - truth).max() > 0.1
    np.testing.assert_allclose(distances("halfvec", 16 * HALF_LENGTH)[:2], truth[:2], rtol=0.01)


@pytest.mark.parametrize("full", ["vector", "halfvec"])
@pytest.mark.parametrize("metric", list(METRICS))
def test_sql_functions(connection: Connection, metric: Any, full: Any) -> None:
    """A query as text, as a BI tool has it: the column's type reads it before pgmrl does."""
    table = table_of(connection, full, metric, type=full)
    connection.exec_driver_sql("ALTER TABLE docs ADD words tsvector DEFAULT 'word'")
    table.append_column(Column("words", TSVECTOR))
    connection.execute(table.insert(), [{"id": n, "e": vector} for n, vector in enumerate(rows_of(1.0))])
    install_functions(connection, table.c.e, SqlFunctions(words="words", config="english", group_by="id"))
    stored, searched = stored_rows(connection, table), set()
    calls = (
        "docs_search(:q, 5, shortlist => 15)",
        "docs_search(:q, 5, exact => true)",
        "docs_search_diverse(:q, 5, shortlist => 5)",
        "docs_search_groups(:q, 5, 1, shortlist => 60)",
        "docs_hybrid(:q, 'word', 60, shortlist => 60)",
    )
    for scale in SCALES:
        query = np.random.default_rng(9).normal(size=DIMS) * scale
        for call in calls:
            try:
                with connection.begin_nested():
                    statement = text(f"SELECT id, distance FROM {call} ORDER BY distance LIMIT {K}")
                    found = connection.execute(statement, {"q": vector_text(query)}).all()
            except DBAPIError as error:
                told = str(error.orig)
                assert any(
                    part in told for part in ("has the length", "zero vector", "out of range", "infinite value")
                ), told
                continue
            searched.add(scale)
            if metric == "inner_product" and not query.astype(np.float16 if full == "halfvec" else np.float32).any():
                assert {row[1] for row in found} == {0}  # the text that the server read is a zero vector
                continue
            check(metric, [(row[0], row[1]) for row in found], stored, query, 1e-6 if full == "vector" else 2e-3)
    low, high = STORED[full]
    assert searched >= {scale for scale in SCALES if low <= scale <= high}
    if metric == "cosine" and full == "vector":
        assert searched >= {1e-25, 1e-20, 1e20, 1e25}
