"""Pages: by offset within one shortlist, and behind the last row of the page before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.orm import Session

from pgmrl.model.columns import Matryoshka
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.integration.conftest import Shop
else:
    Shop = Any


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    """A session on the shop."""
    with Session(shop.engine) as opened:
        yield opened


def pairs(session: Session, statement: Any) -> list[tuple[int, float]]:
    """Number and distance of each row."""
    return [(row.id, row.distance) for row in session.execute(statement)]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
def test_pages_by_offset_are_one_large_search(session: Session, shop: Shop, exact: bool, filtered: bool) -> None:
    """The shortlist is the same for all of them."""
    package, query = shop.package, shop.queries[0]
    statement = select(package.id).where(*((package.part < 30,) if filtered else ()))
    options: dict[str, Any] = {"shortlist": 100, "exact": exact}
    pages = [
        pairs(session, search(statement, package.embedding, query, k=20, offset=n, **options))
        for n in range(0, 100, 20)
    ]
    whole = pairs(session, search(statement, package.embedding, query, k=100, **options))
    assert [row for page in pages for row in page] == whole
    assert len(whole) == 100


def test_pages_of_a_filter_that_leaves_less_than_a_shortlist(session: Session, shop: Shop) -> None:
    """The exact fallback answers all of them, also the first, which the shortlist could have."""
    package, query = shop.package, shop.queries[0]
    session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
    session.connection().exec_driver_sql("SET LOCAL enable_bitmapscan = off")
    session.connection().exec_driver_sql("SET LOCAL enable_sort = off")
    session.connection().exec_driver_sql("SET LOCAL hnsw.max_scan_tuples = 5000")
    statement = select(package.id).where(package.part == 7, package.id < 6000)  # 60 rows
    pages = [
        pairs(session, search(statement, package.embedding, query, k=7, offset=n, shortlist=70))
        for n in range(0, 63, 7)
    ]
    numbers = np.arange(7, 6000, 100)
    distances = METRICS["cosine"].distances(shop.documents[numbers], query.astype(np.float16).astype(np.float32))
    truth = [int(n) for n in numbers[np.argsort(distances, kind="stable")]]
    assert [number for page in pages for number, _ in page] == truth
    assert len(pages[-1]) == 4


@pytest.mark.parametrize("exact", [False, True])
def test_pages_behind_the_last_row(session: Session, shop: Shop, exact: bool) -> None:
    """Within the shortlist as one large search; beyond it the exact fallback goes on, and no row comes twice."""
    package, query = shop.package, shop.queries[0]
    statement = select(package.id).where(package.part < 30)
    whole = pairs(session, search(statement, package.embedding, query, k=100, shortlist=100, exact=exact))
    pages: list[tuple[int, float]] = []
    for _ in range(7):
        after = (pages[-1][1], pages[-1][0]) if pages else None
        made = search(statement, package.embedding, query, k=20, shortlist=100, after=after, exact=exact)
        pages += pairs(session, made)
    assert pages[:100] == whole
    assert len({number for number, _ in pages}) == len(pages) == 140
    assert pages == sorted(pages, key=lambda row: (row[1], row[0]))
    truth = pairs(session, search(statement, package.embedding, query, k=6000, exact=True))
    behind = [row for row in truth if (row[1], row[0]) > (whole[-1][1], whole[-1][0])]
    assert pages[100:] == behind[:40]


def test_the_last_page_ends(session: Session, shop: Shop) -> None:
    """Fewer rows, then none."""
    package, query = shop.package, shop.queries[0]
    statement = select(package.id).where(package.part == 7, package.id < 1500)  # 15 rows
    first = pairs(session, search(statement, package.embedding, query, k=10))
    after = (first[-1][1], first[-1][0])
    second = pairs(session, search(statement, package.embedding, query, k=10, after=after))
    assert sorted(number for number, _ in first + second) == list(range(7, 1500, 100))
    after = (second[-1][1], second[-1][0])
    assert pairs(session, search(statement, package.embedding, query, k=10, after=after)) == []


def test_rows_that_come_and_go_between_pages(session: Session, shop: Shop) -> None:
    """No row comes twice and, of those that stay, none is left out."""
    package, query = shop.package, shop.queries[0]
    statement = select(package.id)
    before = [n for n, _ in pairs(session, search(statement, package.embedding, query, k=60, shortlist=400))]
    seen: list[tuple[int, float]] = []
    connection = session.connection()
    for page in range(6):
        after = (seen[-1][1], seen[-1][0]) if seen else None
        seen += pairs(session, search(statement, package.embedding, query, k=10, shortlist=400, after=after))
        gone = before[page * 10 + 3]
        connection.exec_driver_sql(f"DELETE FROM tags WHERE package_id = {gone}")
        connection.exec_driver_sql(f"DELETE FROM packages WHERE id = {gone}")
        copied = before[page * 10 + 1]
        connection.exec_driver_sql(
            "INSERT INTO packages (id, maker_id, part, embedding) "
            f"SELECT {-1 - page}, maker_id, part, embedding FROM packages WHERE id = {copied}"
        )
    numbers = [number for number, _ in seen]
    assert len(numbers) == len(set(numbers)) == 60
    assert numbers == before  # what was deleted had come already, and what was inserted lies before


# -- ties, composite keys ------------------------------------------------------------------------------------------


@pytest.fixture(params=["cosine", "inner_product"])
def table(connection: Connection, request: pytest.FixtureRequest) -> Table:
    """A composite key of a text and a number, two vectors only: all rows are ties."""
    docs = Table(
        "docs",
        MetaData(),
        Column("place", Text, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("e", Matryoshka(4, Short(2), metric=request.param)),
    )
    docs.create(connection)
    connection.exec_driver_sql(
        "INSERT INTO docs (place, number, e) "
        "SELECT p, n, (CASE p WHEN 'far' THEN '[1,-1,0,1]' ELSE '[1,1,0,1]' END)::halfvec "
        "FROM unnest('{b,a,far,B,ä}'::text[]) AS p, generate_series(9, 0, -1) AS n"
    )
    return docs


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"complete": False, "shortlist": 50}])
def test_pages_of_ties(connection: Connection, table: Table, options: dict[str, Any]) -> None:
    """The whole key decides, in the server's own order of texts, wherever the page begins."""
    whole = connection.execute(search(table.select(), table.c.e, [1, 1, 0, 1], k=50, exact=True)).all()
    seen: list[Any] = []
    while True:
        after = (seen[-1].distance, seen[-1].place, seen[-1].number) if seen else None
        page = connection.execute(search(table.select(), table.c.e, [1, 1, 0, 1], k=3, after=after, **options)).all()
        if not page:
            break
        seen += page
    assert [(row.place, row.number) for row in seen] == [(row.place, row.number) for row in whole]
    assert len(seen) == 50
    if "shortlist" not in options:
        pages = [
            connection.execute(search(table.select(), table.c.e, [1, 1, 0, 1], k=8, offset=n, **options)).all()
            for n in range(0, 32, 8)
        ]
        assert [(row.place, row.number) for page in pages for row in page] == [
            (row.place, row.number) for row in whole[:32]
        ]
