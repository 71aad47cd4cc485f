"""explain: stages that add up, TOAST as it was read, reasons that are true, and nothing left behind."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgmrl import (
    FullText,
    Nearest,
    Trigrams,
    Words,
    add_side_table,
    assert_index_used,
    database,
    explain,
    more_like_this,
    reflect,
    search,
    search_diverse,
    search_funnel,
    search_groups,
    search_hybrid,
    search_many,
)
from pgmrl.errors import SearchError, WrongConnection
from pgmrl.explanation import plan_text
from pgmrl.explanation.stages import stages
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.names import quoted
from pgmrl.searching.plans import nodes
from tests.cli import failed, ok, ok_json, run
from tests.corpus import wide
from tests.databases import create_extension, indexed_afterwards, vacuum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgmrl.explanation import Explanation
    from tests.corpus import Corpus
    from tests.integration.conftest import Principal, Shop
else:
    Corpus = Principal = Shop = Any

ROWS, DIMS = 6_000, 768
INDEX = "items_embedding_short_64_hnsw"


class Items:
    """6,000 passages whose full vectors lie in TOAST; tests change them in transactions that they roll back."""

    def __init__(self, engine: Engine, table: Table, vectors: Any, queries: Any) -> None:
        self.engine = engine
        self.table = table
        self.column = table.c.embedding
        self.vectors = vectors
        self.queries = queries
        self.all = select(table.c.id, table.c.name)

    def nearest(self, *where: Any, query: int = 0, **options: Any) -> Select[*tuple[Any, ...]]:
        """A search for one of the queries."""
        return search(self.all.where(*where), self.column, self.queries[query], **options)


@pytest.fixture(scope="module")
def items(module_engine: Engine, corpus: Corpus) -> Items:
    """`lot` is the number modulo 100, `half` whether it is even."""
    table = Table(
        "items",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("lot", Integer),
        Column("half", Integer),
        Column("name", Text),
        Column("summary", Text),
        Column("words", FullText("summary", config="english")),
        Column("embedding", Matryoshka(DIMS, Short(64), full="vector", storage="external")),
    )
    passages = corpus.passages[:ROWS]
    vectors = wide(passages)
    with module_engine.begin() as connection:
        create_extension(connection, "pg_trgm")
        table.create(connection)
        rows = [
            {
                "id": n,
                "lot": n % 100,
                "half": n % 2,
                "name": one["name"],
                "summary": one["text"],
                "embedding": vector,
            }
            for n, (one, vector) in enumerate(zip(passages, vectors, strict=True))
        ]
        with indexed_afterwards(connection, table):
            connection.execute(table.insert(), rows)
    vacuum(module_engine, table.name)
    return Items(module_engine, table, vectors, wide(corpus.asked[:10]))


@pytest.fixture
def opened(items: Items) -> Iterator[Connection]:
    """A connection whose transaction is rolled back, whatever a test changed in it."""
    with items.engine.connect() as connection:
        yield connection


def names(found: Explanation) -> list[str]:
    """The stages."""
    return [stage.name if stage.retriever is None else f"{stage.name} {stage.retriever}" for stage in found.stages]


def stage(found: Explanation, name: str) -> Any:
    """One of them."""
    return next(one for one in found.stages if one.name == name)


def said(found: Explanation) -> str:
    """The verdict as one text."""
    return "\n".join(found.verdict)


# -- stages --------------------------------------------------------------------------------------------------------

Shape = tuple["Callable[[Items], Any]", list[str]]
SHAPES: dict[str, Shape] = {
    "search": (lambda i: i.nearest(), ["query", "shortlist", "rerank", "exact", "fetch", "send"]),
    "exact": (lambda i: i.nearest(exact=True), ["exact", "fetch", "send"]),
    "filtered": (
        lambda i: i.nearest(i.table.c.half == 0, counts=True),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "rare": (
        lambda i: i.nearest(i.table.c.lot == 3, i.table.c.id < 500),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "page": (
        lambda i: i.nearest(offset=20, max_distance=0.9, similarity="score"),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "after": (
        lambda i: i.nearest(after=(0.1, 5), max_distance=0.9),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "exact page": (lambda i: i.nearest(exact=True, offset=20, max_distance=0.9), ["exact", "fetch", "send"]),
    "like": (
        lambda i: search(i.all, i.column, more_like_this(i.column, [7, 8], unlike=[9])),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "many": (
        lambda i: search_many(i.all, i.column, i.queries[:3]),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "many, filtered": (
        lambda i: search_many(i.all.where(i.table.c.lot == 3), i.column, i.queries[:3]),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "many, exact": (
        lambda i: search_many(i.all, i.column, i.queries[:3], exact=True),
        ["query", "exact", "fetch", "send"],
    ),
    "groups": (
        lambda i: search_groups(i.all, i.column, i.queries[0], i.table.c.lot),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
    "groups, exact": (
        lambda i: search_groups(i.all, i.column, i.queries[0], i.table.c.lot, exact=True),
        ["exact", "fetch", "send"],
    ),
    "diverse": (
        lambda i: search_diverse(i.all, i.column, i.queries[0]),
        ["query", "shortlist", "rerank", "pick", "exact", "fetch", "send"],
    ),
    "diverse, filtered": (
        lambda i: search_diverse(i.all.where(i.table.c.id < 7), i.column, i.queries[0]),
        ["query", "shortlist", "rerank", "pick", "exact", "fetch", "send"],
    ),
    "funnel": (
        lambda i: search_funnel(i.all, i.column, i.queries[0], [(256, 100), (512, 50)]),
        ["query", "shortlist", "cut", "rerank", "exact", "fetch", "send"],
    ),
    "hybrid": (
        lambda i: search_hybrid(
            i.all,
            [
                Nearest(i.column, i.queries[0]),
                Words(i.table.c.words, "the file", config="english"),
                Trigrams(i.table.c.name, "encoder"),
                Nearest(i.column, i.queries[1], exact=True),
            ],
        ),
        ["query 1", "shortlist 1", "rerank 1", "exact 1", "words 2", "trigrams 3", "exact 4", "fuse", "fetch", "send"],
    ),
    "hybrid, filtered": (
        lambda i: search_hybrid(
            i.all.where(i.table.c.lot == 3),
            [Words(i.table.c.words, "the file", config="english"), Nearest(i.column, i.queries[0])],
        ),
        ["words 1", "query 2", "shortlist 2", "rerank 2", "exact 2", "fuse", "fetch", "send"],
    ),
    "words alone": (
        lambda i: search_hybrid(i.all, [Words(i.table.c.words, "the file", config="english")]),
        ["words 1", "fuse", "fetch", "send"],
    ),
    "inside another": (
        lambda i: select(func.count()).select_from(i.nearest().subquery()),
        ["query", "shortlist", "rerank", "exact", "fetch", "send"],
    ),
}


def timed_by_blocks(explained: Any) -> Any:
    """The same plan where a block takes a millisecond: a machine's own times may be rounded, or those of other work."""
    timed = deepcopy(explained)
    for node in nodes(timed["Plan"]):
        blocks = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        node["Actual Total Time"] = blocks / max(1, node["Actual Loops"])
    return timed


@pytest.mark.parametrize(("make", "expected"), SHAPES.values(), ids=SHAPES)
def test_the_stages_add_up(opened: Connection, items: Items, make: Any, expected: list[str]) -> None:
    """Of every shape: the stages there are, each block counted once, and the rows of the result."""
    statement = make(items)
    found = explain(opened, statement)
    assert names(found) == expected
    top = found.document["Plan"]
    blocks = sum(one.usage.hit + one.usage.read for one in found.stages if one.usage and one.name != "send")
    assert blocks == top["Shared Hit Blocks"] + top["Shared Read Blocks"] > 0
    took = sum(one.usage.ms for one in stages(timed_by_blocks(found.document)) if one.usage and one.name != "send")
    assert took == pytest.approx(blocks)
    assert stage(found, "fetch").rows == len(opened.execute(statement).all())
    assert re.match(r"The search took [\d,.]+ ms, \d+% of it for ", found.verdict[0])
    assert f"{found}".endswith(said(found))


def test_a_search_through_the_index(opened: Connection, items: Items) -> None:
    """Which index, how many rows, what the gate has set."""
    found = explain(opened, items.nearest(shortlist=120, ef_search=150))
    assert found.index_used
    (shortlist,) = found.shortlists
    assert (shortlist.indexes, shortlist.size, shortlist.rows, shortlist.scan_end) == ((INDEX,), 120, 120, "full")
    assert found.reasons == ()
    assert found.settings["hnsw.ef_search"] == "150"
    assert found.settings["hnsw.iterative_scan"] == "relaxed_order"
    assert f"The short index {INDEX} served the shortlist: 120 rows in " in said(found)
    assert found.row_counts["public.items"] == ROWS
    assert stage(found, "shortlist").scans[0].ordered


def test_many_queries_fill_a_shortlist_each(opened: Connection, items: Items) -> None:
    """Rows and limits are of all of them."""
    found = explain(opened, search_many(items.all, items.column, items.queries[:4], shortlist=50))
    assert (found.shortlists[0].size, found.shortlists[0].rows, found.shortlists[0].scan_end) == (50, 200, "full")
    assert stage(found, "rerank").rows == 40


def test_two_vector_lists_are_told_apart(opened: Connection, items: Items) -> None:
    """Each with its own size."""
    lists = [Nearest(items.column, items.queries[0], shortlist=60), Nearest(items.column, items.queries[1])]
    found = explain(opened, search_hybrid(items.all, lists))
    assert [(one.retriever, one.size, one.rows) for one in found.shortlists] == [(1, 60, 60), (2, 100, 100)]
    assert "the shortlist of retriever 2: 100 rows" in said(found)


def test_two_searches_in_one_statement(opened: Connection, items: Items) -> None:
    """Their stages are told together, and no block twice."""
    one, other = (items.nearest(query=n).subquery() for n in (0, 1))
    found = explain(opened, select(one.c.id).join(other, other.c.id == one.c.id, full=True))
    assert found.shortlists[0].rows == found.shortlists[0].size == 200
    top = found.document["Plan"]
    blocks = sum(s.usage.hit + s.usage.read for s in found.stages if s.usage and s.name != "send")
    assert blocks == top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def test_the_models_of_an_application(shop: Shop) -> None:
    """A Session, a mapped class, a join; vectors in the rows."""
    package, maker = shop.package, shop.maker
    asked = select(package, maker.name).join(package.maker).where(maker.name != "maker 3")
    with Session(shop.engine) as session:
        found = explain(session, search(asked, package.embedding, shop.queries[0]))
        assert found.index_used
        assert found.toast_reads is not None
        assert found.toast_reads.values == 0
        assert "Nothing was read out of TOAST" in said(found)
        assert {scan.table for scan in stage(found, "fetch").scans} == {"packages", "makers"}


def test_a_side_table_and_a_rotation(opened: Connection, items: Items, principal: Principal) -> None:
    """The shortlist reads the side table, and the query is turned on the server where the client has no axes."""
    rotation = principal(items.vectors, 64)
    opened.exec_driver_sql("CREATE TABLE plain AS SELECT id, name, embedding FROM items")
    opened.exec_driver_sql("ALTER TABLE plain ADD PRIMARY KEY (id)")
    database.install_rotation(opened, rotation)
    metadata = MetaData()
    plain = Table("plain", metadata, autoload_with=opened)
    side = add_side_table(plain.c.embedding, Short(64, by=type(rotation)(rotation.id)))
    side.create(opened)
    opened.exec_driver_sql("ANALYZE plain; ANALYZE plain_embedding")
    found = explain(opened, search(select(plain.c.id), plain.c.embedding, items.queries[0]))
    assert found.index_used
    assert [scan.table for scan in stage(found, "shortlist").scans if scan.ordered] == ["plain_embedding"]
    assert stage(found, "query").usage.hit > 0
    assert [scan.table for scan in stage(found, "fetch").scans] == ["plain"]


# -- TOAST ---------------------------------------------------------------------------------------------------------


def test_what_is_read_out_of_toast(opened: Connection, items: Items) -> None:
    """Of the shortlist each full vector once: 768 numbers of four bytes and a header, in two chunks."""
    found = explain(opened, items.nearest(shortlist=150)).toast_reads
    assert found is not None
    assert (found.values, found.chunks, found.bytes, found.at_most) == (150, 300, 150 * (4 * DIMS + 4), False)
    assert found.hit + found.read >= 300


def test_toast_is_in_the_reranks_blocks(opened: Connection, items: Items) -> None:
    """The rerank reads nothing else, so EXPLAIN's count of its blocks and the counter of TOAST agree."""
    found = explain(opened, items.nearest())
    usage = stage(found, "rerank").usage
    assert found.toast_reads is not None
    assert usage.hit + usage.read == found.toast_reads.hit + found.toast_reads.read


def test_vectors_in_the_result_are_read_once_more(opened: Connection, items: Items) -> None:
    """Of the ten winners."""
    vectors = search(select(items.table.c.id, items.column), items.column, items.queries[0])
    found = explain(opened, vectors)
    assert found.toast_reads is not None
    assert found.toast_reads.values == 110


def test_values_of_other_sizes_are_an_upper_bound(opened: Connection, items: Items) -> None:
    """A long text of a row of the result is no vector."""
    opened.exec_driver_sql("CREATE TABLE long (LIKE items INCLUDING ALL)")
    opened.exec_driver_sql("ALTER TABLE long ALTER summary SET STORAGE EXTERNAL")
    opened.exec_driver_sql(
        "INSERT INTO long (id, summary, embedding) "
        "SELECT id, repeat('word ', 1500), embedding FROM items WHERE id < 300"
    )
    long = items.table.to_metadata(MetaData(), name="long")
    explained = explain(opened, search(select(long.c.summary), long.c.embedding, items.queries[0]))
    sent, found = stage(explained, "send").usage, explained.toast_reads
    assert sent.hit + sent.read > 0
    assert found is not None
    assert found.values == 110
    assert found.at_most
    assert 100 * (4 * DIMS + 4) + 10 * 7500 <= found.bytes <= found.chunks * 1996


def test_a_server_that_does_not_count(opened: Connection, items: Items) -> None:
    """It is said, and not taken for nothing."""
    opened.exec_driver_sql("SET LOCAL track_counts = off")
    found = explain(opened, items.nearest())
    assert found.toast_reads is None
    assert "track_counts is off" in said(found)


def test_parallel_workers_count_for_themselves(opened: Connection, items: Items) -> None:
    """Their blocks are in the plan; what they read out of TOAST is more than this process knows, and that is said."""
    for setting in ("min_parallel_table_scan_size", "parallel_setup_cost", "parallel_tuple_cost"):
        opened.exec_driver_sql(f"SET LOCAL {setting} = 0")
    found = explain(opened, items.nearest(exact=True))
    assert any(node.get("Workers Launched") for node in nodes(found.document["Plan"]))
    assert found.toast_reads is not None
    assert found.toast_reads.partial
    assert "reads by parallel workers are not counted" in said(found)
    assert stage(found, "exact").scans[0].rows == ROWS


# -- the end of a scan ---------------------------------------------------------------------------------------------


def through_the_index(connection: Connection) -> None:
    """Have the planner take the index also where a filter leaves few rows."""
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    connection.exec_driver_sql("SET LOCAL enable_sort = off")


def test_a_scan_that_gives_up_at_its_rows(opened: Connection, items: Items) -> None:
    """The exact fallback is executed, and the verdict says why."""
    through_the_index(opened)
    opened.exec_driver_sql("SET hnsw.max_scan_tuples = 500")
    found = explain(opened, items.nearest(items.table.c.lot == 3))
    (shortlist,) = found.shortlists
    assert shortlist.scan_end == "max_scan_tuples"
    assert shortlist.rows is not None
    assert shortlist.rows < 10
    assert shortlist.examined is not None
    assert 500 <= shortlist.examined < ROWS
    assert stage(found, "exact").executed
    assert stage(found, "exact").rows == 60
    assert "The index scan stopped at hnsw.max_scan_tuples (500) with" in said(found)
    assert "had too few rows, so the exact fallback ranked every row that passes the filter: 60 rows" in said(found)


def test_a_scan_that_gives_up_at_its_memory(opened: Connection, items: Items) -> None:
    """Which is work_mem times a factor."""
    through_the_index(opened)
    opened.exec_driver_sql("SET LOCAL work_mem = '64kB'")
    found = explain(opened, items.nearest(items.table.c.lot == 3))
    assert found.shortlists[0].scan_end == "scan_mem"
    assert "work_mem (64kB) times hnsw.scan_mem_multiplier (1)" in said(found)


def test_a_scan_that_comes_to_the_end(opened: Connection, items: Items) -> None:
    """Sixty rows pass, a hundred were asked for: the statement cannot know that there are no more."""
    through_the_index(opened)
    found = explain(opened, items.nearest(items.table.c.lot == 3))
    assert (found.shortlists[0].scan_end, found.shortlists[0].rows, found.shortlists[0].examined) == (
        "exhausted",
        60,
        ROWS,
    )
    assert (stage(found, "exact").executed, stage(found, "exact").rows) == (True, 60)
    assert "had too few rows, so the exact fallback ranked every row that passes the filter: 60 rows" in said(found)
    assert f"The index returned {ROWS:,} rows, of which the filter removed {ROWS - 60:,}." in found.verdict


def test_scans_with_limits_of_their_own(opened: Connection, items: Items) -> None:
    """Of a hybrid search: each list is told by its own, whatever the other's gate has set."""
    through_the_index(opened)
    few = items.all.where(items.table.c.lot == 3)

    def lists(*sizes: int) -> list[Nearest]:
        return [Nearest(items.column, items.queries[0], shortlist=size) for size in sizes]

    found = explain(opened, search_hybrid(items.all.where(items.table.c.half == 0), lists(2000, 6000)))
    assert [(one.scan_end, one.max_scan_tuples) for one in found.shortlists] == [
        ("full", 20_000),
        ("exhausted", 24_000),
    ]
    assert found.settings["hnsw.max_scan_tuples"] == "20000, 24000"
    assert f"{found}".endswith(said(found))
    opened.exec_driver_sql("SET hnsw.max_scan_tuples = 500")
    found = explain(opened, search_hybrid(few, lists(100, 6000)))
    assert [one.scan_end for one in found.shortlists] == ["max_scan_tuples", "exhausted"]
    assert "The index scan stopped at hnsw.max_scan_tuples (500) with" in said(found)
    assert found.settings["hnsw.max_scan_tuples"] == "500, 24000"


def test_a_limit_holds_for_each_partition(opened: Connection, items: Items) -> None:
    """Each index is scanned for itself: two that end before their limit do not reach it together."""
    through_the_index(opened)
    opened.exec_driver_sql(
        "CREATE TABLE halves (LIKE items INCLUDING GENERATED, PRIMARY KEY (id, half)) PARTITION BY LIST (half)"
    )
    for half in (0, 1):
        opened.exec_driver_sql(f"CREATE TABLE halves_{half} PARTITION OF halves FOR VALUES IN ({half})")
    opened.exec_driver_sql(
        "INSERT INTO halves (id, lot, half, embedding) SELECT id, lot, half, embedding FROM items WHERE id < 2000"
    )
    opened.exec_driver_sql("CREATE INDEX ON halves USING hnsw (embedding_short_64 halfvec_cosine_ops)")
    opened.exec_driver_sql("ANALYZE halves")
    opened.exec_driver_sql("SET hnsw.max_scan_tuples = 1500")
    halves = items.table.to_metadata(MetaData(), name="halves")
    statement = search(select(halves.c.id).where(halves.c.lot < 2), halves.c.embedding, items.queries[0])
    (shortlist,) = explain(opened, statement).shortlists
    assert (shortlist.rows, shortlist.examined, shortlist.scan_end) == (40, 2000, "exhausted")


# -- reasons -------------------------------------------------------------------------------------------------------


def reason(connection: Connection, statement: Any, **options: Any) -> str:
    """What the assertion says, up to the plan."""
    with pytest.raises(AssertionError) as caught:
        assert_index_used(connection, statement, **options)
    message, plan = str(caught.value).split("\n\n", 1)
    assert message.startswith("the short index does not serve this search: ")
    assert "cost=" in plan
    assert len(plan) < 20_000  # vectors are cut
    return message


def test_the_assertion_holds_where_the_index_serves(opened: Connection, items: Items) -> None:
    """And leaves the next statement as it was."""
    assert_index_used(opened, items.nearest())
    assert_index_used(opened, items.nearest(items.table.c.lot == 3), ignore_cost=True)
    assert opened.exec_driver_sql("SHOW enable_sort").scalar_one() == "on"


def test_no_index(opened: Connection, items: Items) -> None:
    """Also where costs are ignored."""
    opened.exec_driver_sql(f"DROP INDEX {INDEX}")
    for ignore_cost in (False, True):
        found = reason(opened, items.nearest(), ignore_cost=ignore_cost)
        assert "the whole table items is read, and the distances are sorted" in found
        assert "there is no HNSW index on items.embedding_short_64: create one" in found
    explained = explain(opened, items.nearest())
    assert not explained.index_used
    assert explained.reasons == ("there is no HNSW index on items.embedding_short_64: create one",)
    assert "No index served the shortlist: the whole table items is read" in said(explained)


def test_an_invalid_index(opened: Connection, items: Items) -> None:
    """As an interrupted build leaves it."""
    opened.exec_driver_sql(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass")
    found = reason(opened, items.nearest())
    assert f"{INDEX} is INVALID" in found
    assert f"REINDEX INDEX CONCURRENTLY public.{INDEX}" in found


def test_an_index_of_another_metric(opened: Connection, items: Items) -> None:
    """It is there and valid, and cannot answer."""
    opened.exec_driver_sql(f"DROP INDEX {INDEX}")
    opened.exec_driver_sql("CREATE INDEX other ON items USING hnsw (embedding_short_64 halfvec_l2_ops)")
    found = reason(opened, items.nearest())
    assert (
        "the index other has the operator class halfvec_l2_ops, which does not support the search's operator <=>"
        in found
    )


def test_index_scans_that_are_off(opened: Connection, items: Items) -> None:
    """By a setting of the session."""
    opened.exec_driver_sql("SET LOCAL enable_indexscan = off")
    assert "enable_indexscan is off in this session" in reason(opened, items.nearest())
    found = explain(opened, items.nearest())
    assert found.settings["enable_indexscan"] == "off"


def test_a_partial_index(opened: Connection, items: Items) -> None:
    """It serves a search that says its condition, and no other."""
    opened.exec_driver_sql(f"DROP INDEX {INDEX}")
    opened.exec_driver_sql(
        "CREATE INDEX even ON items USING hnsw (embedding_short_64 halfvec_cosine_ops) WHERE half = 0"
    )
    assert_index_used(opened, items.nearest(text("half = 0")))
    found = reason(opened, items.nearest())
    assert (
        "even is a partial index on (half = 0), which does not follow from the constants of the statement's filter"
        in found
    )


def test_a_filter_that_leaves_few_rows(opened: Connection, items: Items) -> None:
    """The planner's costs of both plans are given, and what it expects of the filter."""
    statement = items.nearest(items.table.c.lot == 3)
    found = reason(opened, statement)
    assert "the planner estimated a plan without the index to be cheaper: cost " in found
    assert f"with {INDEX}" in found
    assert "it expects 60 of the 6,000 rows of items to pass the filter" in found
    costs = re.search(r"cost ([\d,]+) against ([\d,]+) with", found)
    assert costs is not None
    chosen, other = (int(cost.replace(",", "")) for cost in costs.groups())
    assert chosen < other
    assert_index_used(opened, statement, ignore_cost=True)


def test_an_index_of_the_filter_is_named(opened: Connection, items: Items) -> None:
    """What the plan does instead is what it does."""
    opened.exec_driver_sql("CREATE INDEX items_lot ON items (lot)")
    found = reason(opened, items.nearest(items.table.c.lot == 3))
    assert "rows of items are read through items_lot, and the distances are sorted" in found
    explained = explain(opened, items.nearest(items.table.c.lot == 3))
    assert [scan.index for scan in stage(explained, "shortlist").scans] == [("items_lot",), ("items_pkey",)]


def test_an_index_that_includes_the_short_vectors(opened: Connection, items: Items) -> None:
    """It answers the shortlist alone, and what it has to look up in the table while VACUUM is behind is said."""
    (short,) = [column.name for column in items.table.c if column.name.endswith("_64")]
    opened.exec_driver_sql(f"CREATE INDEX items_cover ON items (lot) INCLUDE ({short}, id)")
    statement = items.nearest(items.table.c.lot == 3)
    assert "entries of items_cover are read, and the distances are sorted" in said(explain(opened, statement))
    opened.exec_driver_sql("UPDATE items SET half = half WHERE lot = 3")
    found = said(explain(opened, statement))
    assert re.search(r"entries of items_cover are read, and \d+ rows of items, since VACUUM is behind", found)


def test_a_small_table(opened: Connection, items: Items) -> None:
    """Reading it is right; the index could serve all the same."""
    opened.exec_driver_sql("CREATE TABLE small (LIKE items INCLUDING ALL)")
    opened.exec_driver_sql("INSERT INTO small (id, embedding) SELECT id, embedding FROM items WHERE id < 50")
    small = items.table.to_metadata(MetaData(), name="small")
    statement = search(select(small.c.id), small.c.embedding, items.queries[0])
    opened.exec_driver_sql("ANALYZE small")
    assert re.search(r"small has 50 rows in [\d.]+ kB: it costs little to read all of it", reason(opened, statement))
    assert_index_used(opened, statement, ignore_cost=True)


def test_a_table_that_was_never_analyzed(opened: Connection, items: Items) -> None:
    """Its row count is unknown, which is said before anything about its size."""
    opened.exec_driver_sql("CREATE TABLE fresh (LIKE items INCLUDING ALL)")
    opened.exec_driver_sql("INSERT INTO fresh (id, lot, embedding) SELECT id, lot, embedding FROM items WHERE id < 500")
    fresh = items.table.to_metadata(MetaData(), name="fresh")
    statement = search(select(fresh.c.id).where(fresh.c.lot == 1), fresh.c.embedding, items.queries[0])
    assert "fresh was never analyzed, so the planner guesses: run ANALYZE fresh" in reason(opened, statement)


def test_no_number_of_rows_is_made_up(opened: Connection, items: Items) -> None:
    """Without statistics nothing is said of an estimate; with old ones the rows are those of the table as it is."""
    opened.exec_driver_sql("CREATE TABLE fresh (LIKE items INCLUDING ALL)")
    opened.exec_driver_sql("INSERT INTO fresh (id, embedding) SELECT id, embedding FROM items WHERE id < 3000")
    fresh = items.table.to_metadata(MetaData(), name="fresh")
    statement = search(select(fresh.c.id), fresh.c.embedding, items.queries[0], shortlist=200)
    through_the_index(opened)
    found = explain(opened, statement)
    assert found.index_used
    assert found.row_counts["public.fresh"] == -1
    assert "of fresh to pass" not in said(found)
    opened.exec_driver_sql("ANALYZE fresh")
    opened.exec_driver_sql("INSERT INTO fresh (id, embedding) SELECT id, embedding FROM items WHERE id >= 3000")
    found = explain(opened, statement)
    assert found.row_counts["public.fresh"] == pytest.approx(ROWS, rel=0.05)
    assert "of fresh to pass" not in said(found)


def test_an_index_that_this_transaction_may_not_use_yet(opened: Connection, items: Items) -> None:
    """Built over rows that the same transaction has changed: PostgreSQL leaves it to later transactions."""
    opened.exec_driver_sql("CREATE TABLE young (LIKE items INCLUDING ALL)")
    opened.exec_driver_sql("INSERT INTO young (id, embedding) SELECT id, embedding FROM items WHERE id < 1500")
    opened.exec_driver_sql("DROP INDEX young_embedding_short_64_idx")
    opened.exec_driver_sql("ALTER TABLE young SET (fillfactor = 10)")
    opened.exec_driver_sql("UPDATE young SET lot = 1 WHERE id > 1400")
    opened.exec_driver_sql("CREATE INDEX new ON young USING hnsw (embedding_short_64 halfvec_cosine_ops)")
    young = items.table.to_metadata(MetaData(), name="young")
    found = reason(opened, search(select(young.c.id), young.c.embedding, items.queries[0]), ignore_cost=True)
    assert "new was built while running transactions had changed its rows: only later transactions can use it" in found


def test_a_filter_that_no_row_can_pass(opened: Connection, items: Items) -> None:
    """The planner knows, and reads nothing at all."""
    found = explain(opened, items.nearest(text("false")))
    assert not found.index_used
    assert "the planner proved that no row can pass the filter, and reads nothing" in said(found)


def test_partitions(opened: Connection, items: Items) -> None:
    """Each partition has an index of its own; where one lacks it, the reason names that one."""
    opened.exec_driver_sql(
        "CREATE TABLE parts (LIKE items INCLUDING GENERATED, PRIMARY KEY (id, half)) PARTITION BY LIST (half)"
    )
    for half in (0, 1):
        opened.exec_driver_sql(f"CREATE TABLE parts_{half} PARTITION OF parts FOR VALUES IN ({half})")
        opened.exec_driver_sql(
            f"CREATE INDEX hnsw_{half} ON parts_{half} USING hnsw (embedding_short_64 halfvec_cosine_ops)"
        )
    opened.exec_driver_sql(
        "INSERT INTO parts (id, lot, half, name, summary, embedding) "
        "SELECT id, lot, half, name, summary, embedding FROM items"
    )
    opened.exec_driver_sql("ANALYZE parts")
    parts = items.table.to_metadata(MetaData(), name="parts")
    statement = search(select(parts.c.id), parts.c.embedding, items.queries[0])
    found = explain(opened, statement)
    assert sorted(found.shortlists[0].indexes) == ["hnsw_0", "hnsw_1"]
    assert found.index_used
    assert found.toast_reads is not None
    assert found.toast_reads.values == 100
    opened.exec_driver_sql("DROP INDEX hnsw_1")
    missing = reason(opened, statement)
    assert "the whole table parts_1 is read, and the distances are sorted" in missing
    assert "there is no HNSW index on parts_1.embedding_short_64" in missing


def test_an_exact_search_has_no_shortlist(opened: Connection, items: Items) -> None:
    """Nor has a list of words."""
    assert "the statement has no shortlist" in reason(opened, items.nearest(exact=True))
    words = search_hybrid(items.all, [Words(items.table.c.words, "lines", config="english")])
    assert "the statement has no shortlist" in reason(opened, words)


def test_names_that_need_quotes_and_another_schema(elsewhere: Engine, corpus: Corpus) -> None:
    """Of the table, the column and pgvector's operator."""
    odd = Table(
        'Odd "Table" 1',
        MetaData(),
        Column("Id", Integer, primary_key=True, autoincrement=False),
        Column('The "Vector"', Matryoshka(96, Short(32, name='Short "one"'), vector_schema="extensions")),
    )
    column = odd.c['The "Vector"']
    with elsewhere.connect() as connection:
        odd.create(connection)
        rows = [{"Id": n, 'The "Vector"': vector} for n, vector in enumerate(corpus.documents[:3000, :96])]
        connection.execute(odd.insert(), rows)
        connection.exec_driver_sql('ANALYZE "Odd ""Table"" 1"')
        statement = search(select(odd.c.Id), column, corpus.queries[0, :96])
        found = explain(connection, statement)
        assert found.index_used
        assert found.row_counts['public.Odd "Table" 1'] == 3000
        database.execute_plain(connection, f"DROP INDEX {quoted(found.shortlists[0].indexes[0])}")
        assert 'there is no HNSW index on Odd "Table" 1.Short "one": create one' in reason(connection, statement)


# -- what is left behind, and where it runs ------------------------------------------------------------------------


def test_nothing_is_left_behind(opened: Connection, items: Items) -> None:
    """No setting, no read-only transaction; what the transaction wrote before is still there."""
    before = opened.exec_driver_sql("SHOW hnsw.ef_search").scalar_one()
    opened.exec_driver_sql("UPDATE items SET name = 'mine' WHERE id = 1")
    explain(opened, items.nearest(items.table.c.lot == 3))
    with pytest.raises(AssertionError):
        assert_index_used(opened, items.nearest(items.table.c.lot == 3))
    assert opened.exec_driver_sql("SHOW hnsw.ef_search").scalar_one() == before
    assert opened.exec_driver_sql("SHOW enable_sort").scalar_one() == "on"
    assert opened.exec_driver_sql("UPDATE items SET name = name WHERE id = 1").rowcount == 1
    assert opened.exec_driver_sql("SELECT name FROM items WHERE id = 1").scalar_one() == "mine"


def test_a_connection_in_autocommit(items: Items) -> None:
    """It has no transaction to put a savepoint in, and has none afterwards."""
    with items.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = explain(connection, items.nearest())
        assert found.toast_reads is not None
        assert found.toast_reads.values == 100
        assert "Limit" in plan_text(connection, items.nearest())
        assert connection.exec_driver_sql("SHOW hnsw.ef_search").scalar_one() == "40"
        connection.exec_driver_sql("CREATE TABLE after_it (id int)")
        connection.exec_driver_sql("DROP TABLE after_it")


def test_a_role_that_may_only_read(opened: Connection, items: Items) -> None:
    """It sees TOAST's counters and the catalogue; row-level security is a filter like any other."""
    opened.exec_driver_sql("CREATE ROLE reader_of_items")
    opened.exec_driver_sql("GRANT SELECT ON items TO reader_of_items")
    opened.exec_driver_sql("ALTER TABLE items ENABLE ROW LEVEL SECURITY")
    opened.exec_driver_sql("CREATE POLICY even ON items USING (half = 0)")
    opened.exec_driver_sql("SET LOCAL ROLE reader_of_items")
    found = explain(opened, items.nearest(complete=True))
    assert found.index_used
    assert found.toast_reads is not None
    assert found.toast_reads.values == 100
    assert stage(found, "shortlist").scans[0].filtered > 0
    opened.exec_driver_sql("SET LOCAL enable_indexscan = off")
    assert "enable_indexscan is off" in reason(opened, items.nearest())


def test_a_statement_that_writes_is_refused(opened: Connection, items: Items) -> None:
    """A function in a filter may do anything; here it may not. The transaction goes on."""
    opened.exec_driver_sql("CREATE TABLE notes (id int)")
    opened.exec_driver_sql(
        "CREATE FUNCTION noted(int) RETURNS bool LANGUAGE sql VOLATILE AS "
        "'INSERT INTO notes VALUES ($1) RETURNING true'"
    )
    statement = items.nearest(text("noted(items.id)"))
    with pytest.raises(DBAPIError, match="read-only transaction"):
        explain(opened, statement)
    explain(opened, statement, analyze=False)
    assert opened.exec_driver_sql("SELECT count(*) FROM notes").scalar_one() == 0


def test_a_plan_alone(opened: Connection, items: Items) -> None:
    """No times, no rows that came; the index and what is set are known."""
    found = explain(opened, items.nearest(shortlist=70), analyze=False)
    assert found.index_used
    assert (found.execution_ms, found.planning_ms, found.toast_reads) == (None, None, None)
    assert {(one.usage, one.rows, one.executed) for one in found.stages} == {(None, None, None)}
    assert found.settings["hnsw.ef_search"] == "70"
    assert found.verdict == (f"The short index {INDEX} serves the shortlist.",)


def test_parameters_of_the_statements_own(opened: Connection, items: Items) -> None:
    """A Select that is built once."""
    statement = search(items.all, items.column, bindparam("asked"), k=5)
    found = explain(opened, statement, {"asked": items.queries[0]})
    assert stage(found, "fetch").rows == 5
    assert_index_used(opened, statement, {"asked": items.queries[1]})


def test_statements_that_are_no_search(opened: Connection, items: Items) -> None:
    """One clear error, also for those who hold the wrong kind of connection."""
    for statement in (items.all, text("SELECT 1"), "SELECT 1", None):
        with pytest.raises(SearchError, match=r"expected a statement that search\(\) or another search function"):
            explain(opened, statement)  # type: ignore[arg-type]
    with pytest.raises(WrongConnection, match="got Engine"):
        explain(items.engine, items.nearest())  # type: ignore[arg-type]


async def test_an_async_session(items: Items) -> None:
    """Through run_sync; the session itself is told how."""
    engine = create_async_engine(items.engine.url)
    async with AsyncSession(engine) as session:
        with pytest.raises(WrongConnection, match="run_sync"):
            explain(session, items.nearest())  # type: ignore[arg-type]
        found = await session.run_sync(lambda sync: explain(sync, items.nearest()))
        assert found.index_used
    await engine.dispose()


def test_a_hot_standby(standby: Engine, corpus: Corpus) -> None:
    """Where nothing can be written at all."""
    with standby.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one()
        column = reflect(connection, "packages.embedding")
        statement = search(select(column.table.c.id), column, corpus.queries[0, :96])
        found = explain(connection, statement)
        assert found.index_used
        assert stage(found, "fetch").rows == 10
        assert_index_used(connection, statement)


def test_jit(opened: Connection, items: Items) -> None:
    """Said where the server was built with it, and where it was not there is nothing to say."""
    available = opened.exec_driver_sql("SELECT pg_jit_available()").scalar_one()
    opened.exec_driver_sql("SET LOCAL jit = on")
    opened.exec_driver_sql("SET LOCAL jit_above_cost = 0")
    found = explain(opened, items.nearest())
    assert (found.jit_ms is not None) == available
    assert ("JIT compilation took" in said(found)) == available


# -- what the verdict notices --------------------------------------------------------------------------------------


def test_an_estimate_that_is_far_off(opened: Connection, items: Items) -> None:
    """Two conditions that depend on each other: the planner multiplies."""
    opened.exec_driver_sql("SET LOCAL enable_indexscan = off")
    where = [items.table.c.half == 0, text("id % 2 = 0"), text("lot % 2 = 0")]
    found = explain(opened, items.nearest(*where))
    assert "of items to pass the filter, got 3,000: run ANALYZE" in said(found)


def test_files_on_disk(shop: Shop) -> None:
    """A shortlist that is kept with its vectors does not fit into work_mem; a search keeps distances only."""
    package, query = shop.package, shop.queries[0]
    with shop.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL work_mem = '64kB'")
        diverse = explain(connection, search_diverse(select(package.id), package.embedding, query, k=2, shortlist=500))
        nearest = explain(connection, search(select(package.id), package.embedding, query, shortlist=500))
    assert "of temporary files were written: raise work_mem (64kB)" in said(diverse)
    assert "temporary files" not in said(nearest)


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def query_file(items: Items, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A query vector as a file; DATABASE_URL is the items' database."""
    monkeypatch.setenv("DATABASE_URL", items.engine.url.render_as_string(hide_password=False))
    path = place / "query.json"
    path.write_text(json.dumps(items.queries[0].tolist()), encoding="utf-8")
    return path


def test_on_the_command_line(query_file: Path) -> None:
    """A table of the stages, the verdict, the settings."""
    shown = ok("explain", "items.embedding", "--vector", query_file)
    assert [line.split()[0] for line in shown.splitlines()[1:6]] == ["query", "shortlist", "rerank", "exact", "fetch"]
    assert f"The short index {INDEX} served the shortlist: 100 rows" in shown
    assert "hnsw.ef_search = 100" in shown


def test_as_json_and_as_a_plan(query_file: Path) -> None:
    """Both leave the vector out."""
    found = ok_json("explain", "items.embedding", "--vector", query_file, "--where", "lot = 3", "--show", "id")
    assert found["index_used"] is False
    assert "it expects 60 of the 6,000 rows of items to pass the filter" in found["reasons"]
    assert [one["name"] for one in found["stages"]][:2] == ["query", "shortlist"]
    assert len(json.dumps(found)) < 100_000
    plan = ok("explain", "items.embedding", "--vector", query_file, "--plan")
    assert "Subquery Scan on pgmrl_shortlist" in plan
    assert "Buffers: shared" in plan
    assert len(plan) < 10_000
    planned = ok("explain", "items.embedding", "--vector", query_file, "--plan", "--no-analyze")
    assert "actual time" not in planned


def test_the_command_line_says_what_is_wrong(
    query_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that exclude each other, a filter that is none, a table that is not there."""
    assert run("explain", "items.embedding", "--vector", query_file, "--plan", "--json").exit_code == 2
    message = failed(capsys, monkeypatch, "explain", "items.embedding", "--vector", query_file, "--where", "nix = 1")
    assert 'column "nix" does not exist' in message
    message = failed(capsys, monkeypatch, "explain", "nix.embedding", "--vector", query_file)
    assert "there is no table" in message
