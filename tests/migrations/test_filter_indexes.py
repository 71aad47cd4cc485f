"""Covering indexes built while others write, on partitions too; carried along by a reshape; seen by checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, bindparam, select

from pgmrl import FilterIndex, Matryoshka, Short, check_schema, explain, search
from pgmrl.database.connection import execute_plain as run
from pgmrl.database.index_states import filter_index_states
from pgmrl.errors import MigrationError, NotMigrated, PolicyIndexWarning
from pgmrl.online import plan
from pgmrl.online.contract import contract, pending_contraction
from pgmrl.online.expand import expand, plan_expand
from pgmrl.online.index_builds import build, rebuild
from pgmrl.online.index_statements import Build, create_statement
from pgmrl.online.reshape import reshape
from tests.databases import vacuum
from tests.migrations.processes import interrupt_build
from tests.migrations.test_indexes import TARGET, table

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD = 'the "filter" %s'
BY_FILTER = FilterIndex(ODD)
NAME = BY_FILTER.index_name("documents", TARGET.short)


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def filtered(connection: Connection, **options: Any) -> None:
    """A table with short vectors and a column to filter by."""
    table(connection, **options)
    run(connection, 'ALTER TABLE documents ADD COLUMN "the ""filter"" %s" int, ADD COLUMN data json')
    run(connection, 'UPDATE documents SET "the ""filter"" %s" = id % 7')


def built(connection: Connection) -> dict[str, tuple[FilterIndex, bool]]:
    """The covering indexes of all tables that are no partitions."""
    return {state.name: (state.index, state.valid) for state in filter_index_states(connection, None)}


def test_build_and_rebuild(auto: Connection) -> None:
    """With the key included by itself; once more it does nothing; another one replaces it."""
    filtered(auto)
    build(auto, TARGET, BY_FILTER)
    expected = FilterIndex(ODD, include=["id"])
    assert built(auto) == {NAME: (expected, True)}
    build(auto, TARGET, BY_FILTER)
    wider = FilterIndex(ODD, include=["embedding"])
    with pytest.raises(MigrationError, match=r"is there with the columns of FilterIndex.*op\.rebuild_short_index"):
        build(auto, TARGET, wider)
    rebuild(auto, TARGET, wider)
    assert built(auto) == {NAME: (FilterIndex(ODD, include=["id", "embedding"]), True)}


def test_an_invalid_leftover(auto: Connection) -> None:
    """It is removed, and the index built; the old one serves while another is built beside it."""
    filtered(auto)
    interrupt_build(auto.engine, "documents", create_statement(TARGET, BY_FILTER, concurrently=True))
    assert [valid for _, valid in built(auto).values()] == [False]
    build(auto, TARGET, BY_FILTER)
    assert built(auto) == {NAME: (FilterIndex(ODD, include=["id"]), True)}


@pytest.mark.parametrize("index", [BY_FILTER, FilterIndex(ODD, name="by filter")])
def test_partitions(auto: Connection, index: FilterIndex) -> None:
    """One for each partition, on two levels, attached; rebuilt with other columns, nothing is left beside them."""
    filtered(auto, parts=2, levels=2)
    build(auto, TARGET, index)
    name = index.index_name("documents", TARGET.short)
    assert built(auto) == {name: (FilterIndex(ODD, include=["id"]), True)}
    rebuild(auto, TARGET, FilterIndex(ODD, include=["id", "embedding"], name=index.name))
    assert built(auto) == {name: (FilterIndex(ODD, include=["id", "embedding"]), True)}
    everywhere = "SELECT count(*), count(*) FILTER (WHERE indisvalid) FROM pg_index WHERE indnatts > indnkeyatts"
    assert tuple(run(auto, everywhere).one()) == (5, 5)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (FilterIndex("gone"), r"table documents has no column gone; it has id, embedding, embedding_short_8, the"),
        (FilterIndex("embedding"), "documents.embedding is a vector: expected what searches filter by"),
        (FilterIndex("data"), "data type json has no default operator class"),
    ],
)
def test_bad_input(auto: Connection, index: FilterIndex, message: str) -> None:
    """Said before anything is written."""
    filtered(auto, rows=3)
    with pytest.raises(MigrationError, match=message):
        build(auto, TARGET, index)
    assert built(auto) == {}


def test_too_wide(auto: Connection) -> None:
    """With the numbers."""
    filtered(auto, rows=3)
    run(auto, "ALTER TABLE documents ADD COLUMN wide vector(700)")
    with pytest.raises(MigrationError, match=r"takes at least 2,8\d\d bytes, 24 of them the short vector; .* 2,704"):
        build(auto, TARGET, FilterIndex(ODD, include=["wide"]))
    assert built(auto) == {}


# -- the model's side ----------------------------------------------------------------------------------------------


def model(short: int = 4, *filters: FilterIndex) -> Table:
    """What the application says of its table."""
    return Table(
        "items",
        MetaData(),
        Column("embedding", Matryoshka(8, Short(short), filters=filters)),
        Column("id", Integer, primary_key=True),
        Column("section", Text),
        Column("size", Integer),
    )


@pytest.fixture
def items(engine: Engine) -> Table:
    """A table with rows, as `create_all` makes it."""
    made = model(4, FilterIndex("section", include=["size"]))
    random = np.random.default_rng(11)
    rows = [{"id": n, "section": f"s{n % 40}", "size": n, "embedding": random.normal(size=8)} for n in range(4_000)]
    made.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(made.insert(), rows)
    vacuum(engine)
    return made


def test_search_reads_it_alone(engine: Engine, items: Table) -> None:
    """An index-only scan on the filter's columns and those that ride along, with bind parameters; exact results."""
    query = np.random.default_rng(3).normal(size=8)
    rows = select(items.c.id).where(items.c.section == bindparam("section"), items.c.size > 100)
    statement = search(rows, items.c.embedding, query, k=5)
    with engine.connect() as connection:
        nearest = connection.execute(statement, {"section": "s7"}).scalars().all()
        exact = search(rows, items.c.embedding, query, k=5, exact=True)
        assert nearest == connection.execute(exact, {"section": "s7"}).scalars().all()
        explained = explain(connection, statement, {"section": "s7"})
    assert "items_embedding_short_4_by_section" in str(explained)


def test_check_schema(engine: Engine, items: Table) -> None:
    """Says what is missing, what is INVALID; an index that somebody made by hand is as good."""
    with engine.begin() as connection:
        assert check_schema(connection, items.c.embedding) is not None
        run(connection, "UPDATE pg_index SET indisvalid = false WHERE indnatts > indnkeyatts")
        with pytest.raises(NotMigrated, match="index items_embedding_short_4_by_section is invalid: REINDEX"):
            check_schema(connection, items.c.embedding)
        run(connection, "DROP INDEX items_embedding_short_4_by_section")
        with pytest.raises(
            NotMigrated, match=r"items has no index on section that includes embedding_short_4 and id, s"
        ):
            check_schema(connection, items.c.embedding)
        run(connection, "CREATE INDEX by_hand ON items (section) INCLUDE (id, size, embedding_short_4)")
        check_schema(connection, items.c.embedding)


def test_row_level_security(engine: Engine, items: Table) -> None:
    """A policy whose columns no covering index begins with is warned of, with the declaration that helps."""
    with engine.begin() as connection:
        run(connection, "ALTER TABLE items ENABLE ROW LEVEL SECURITY")
        run(connection, "CREATE POLICY sections ON items USING (section = current_setting('app.section'))")
        check_schema(connection, items.c.embedding)
        run(connection, "CREATE POLICY sizes ON items FOR SELECT USING (size > 5)")
        expected = r"the policy sizes filters each search of items by size.*filters=\[FilterIndex\('size'\)\]"
        with pytest.warns(PolicyIndexWarning, match=expected):
            check_schema(connection, items.c.embedding)


@pytest.mark.usefixtures("items")
def test_reshape(engine: Engine) -> None:
    """The new short column gets the old one's covering indexes before it is switched to."""
    with engine.connect() as connection:
        change = reshape(connection, "items", "embedding", dims=2)
        titles = [step.title for step in plan_expand(connection, change, Build())[0]]
    assert "build the index on section that includes items.embedding_short_2" in titles
    assert "filters=[FilterIndex('section', include=['id', 'size'])]" in change.model
    assert expand(engine, change, Build())
    with engine.connect() as connection:
        check_schema(connection, model(2, FilterIndex("section", include=["size"])).c.embedding)
        names = [state.name for state in filter_index_states(connection, "items")]
    assert names == ["items_embedding_short_2_by_section", "items_embedding_short_4_by_section"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        contract(connection, pending_contraction(connection, "items", "embedding"), watch=0)
        assert [s.name for s in filter_index_states(connection, "items")] == ["items_embedding_short_2_by_section"]


def test_estimated_size(engine: Engine, items: Table) -> None:
    """What check-migration says is near what is there."""
    with engine.connect() as connection:
        [state] = filter_index_states(connection, "items")
        size = plan.size_of(connection, "items")
    target = TARGET.__class__("items", "embedding", items.c.embedding.info["pgmrl"].definition)
    step = plan.index(target, state.index, Build(), size)
    assert 0.5 < step.room / state.bytes < 2
    assert "about 1 s" in step.held
