"""Covering indexes through autogenerate: missing, changed, INVALID, gone; carried along with their short column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text

from pgmrl import FilterIndex, Matryoshka, Rotation, Short, add_short, add_side_table
from tests.migrations.test_autogenerate import HOSTILE, ONE, Case, both, plain, there_and_back, unrelated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.migrations.conftest import Application

    Model = Callable[[MetaData], object]

TENANT, SECTION = FilterIndex("tenant"), FilterIndex("title", include=["tenant"])
NAMED = FilterIndex("tenant", name="by tenant %")
CREATE, REBUILD, DROP = "op.create_short_index(", "op.rebuild_short_index(", "op.drop_short_index("
BY_TENANT = "documents_embedding_short_4_by_tenant"


def documents(
    *filters: FilterIndex,
    dims: int = 4,
    by: Rotation | None = None,
    full: Any = VECTOR,
    name: str = "documents",
    keys: int = 1,
    later: bool = True,
    without: str = "",
    **options: Any,
) -> Model:
    """A table that searches filter by tenant and title; its short column by `add_short`, or by its type."""

    def make(metadata: MetaData) -> object:
        short = Short(dims, **options) if by is None else Short(dims, by=by, **options)
        type_ = full(8) if later else Matryoshka(8, short, filters=filters)
        # the vector before the columns that its indexes name
        table = Table(
            name,
            metadata,
            Column("embedding", type_),
            *(Column(f"id{n or ''}", Integer, primary_key=True, autoincrement=False) for n in range(keys)),
            Column("title", Text),
            *(Column(name, Integer) for name in ("tenant",) if name != without),
        )
        if later:
            add_short(table.c.embedding, short, filters=filters)
        return table

    return make


def own(*filters: FilterIndex, dims: int = 4) -> Model:
    """The application's own covering index beside those."""

    def make(metadata: MetaData) -> None:
        documents(*filters, dims=dims, name="documents")(metadata)
        table = metadata.tables["documents"]
        Index("own", table.c.title, postgresql_include=[f"embedding_short_{dims}"])

    return make


def aside(*filters: FilterIndex) -> Model:
    """A side table, whose key is all that it can be filtered by."""

    def make(metadata: MetaData) -> None:
        keys = [Column(name, Integer, primary_key=True, autoincrement=False) for name in ("id", "id1")]
        table = Table("documents", metadata, *keys, Column("title", Text), Column("embedding", VECTOR(8)))
        add_side_table(table.c.embedding, Short(4), filters=filters)

    return make


CASES = [
    Case("new table", unrelated, documents(TENANT, later=False), ("FilterIndex('tenant', include=['id'])",)),
    Case("added", documents(), documents(TENANT), (f"{CREATE}'documents', 'embedding'",)),
    Case("added with its short column", plain(), documents(TENANT), ("op.add_short(", CREATE)),
    Case("removed", documents(TENANT, SECTION), documents(SECTION), (DROP, "FilterIndex('tenant', include=['id'])")),
    Case("removed with its short column", documents(TENANT), plain(), ("op.drop_short(",)),
    Case("removed with its table", both(unrelated, documents(TENANT)), unrelated, ("op.drop_table(",), loses=True),
    Case("another include", documents(TENANT), documents(FilterIndex("tenant", include=["title"])), (REBUILD,)),
    Case("other dimensions", documents(TENANT), documents(TENANT, dims=2), ("op.add_short(", CREATE, "op.drop_short(")),
    Case("to a rotation", documents(TENANT), documents(TENANT, by=ONE), ("op.install_rotation(", CREATE)),
    Case("another type of the full", documents(TENANT), documents(TENANT, full=HALFVEC), ("type_=HALFVEC(8)", CREATE)),
    Case("bits", documents(type="bit"), documents(TENANT, type="bit"), (CREATE,)),
    Case("another name", documents(TENANT), documents(NAMED), silent=True),
    Case(
        "hostile names, two keys",
        documents(name=HOSTILE, keys=2),
        documents(NAMED, name=HOSTILE, keys=2),
        (repr(HOSTILE), "name='by tenant %'", "include=['id', 'id1']"),
    ),
    Case(
        "invalid",
        documents(TENANT),
        documents(TENANT),
        (REBUILD,),
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{BY_TENANT}'::regclass",
    ),
    Case(
        "removed with its column", documents(TENANT), documents(without="tenant"), (DROP, "op.drop_column("), loses=True
    ),
    Case("fewer columns", documents(FilterIndex("tenant", "title")), documents(TENANT), (CREATE, DROP)),
    Case("the application's own added", documents(), own(), ("op.create_index('own'",)),
    Case("the application's own kept", own(TENANT), own(TENANT), silent=True),
    Case("the application's own, other dimensions", own(TENANT), own(TENANT, dims=2), ("op.create_index('own'",)),
    Case("of a side table", plain(keys=2), aside(FilterIndex("id1")), ("FilterIndex('id1', include=['id'])",)),
    Case("nothing changed", documents(TENANT, SECTION, NAMED), documents(TENANT, SECTION, NAMED), silent=True),
]


ONLINE = {"added with its short column", "to a rotation"}


@pytest.mark.parametrize(
    "case", [*CASES, *(case.online() for case in CASES if case.name in ONLINE)], ids=lambda case: case.name
)
def test_there_and_back(case: Case, project: Application) -> None:
    """Written, run, complete; undone, as before; run again; printed, the same on another database."""
    there_and_back(case, project)


def test_gone(project: Application) -> None:
    """An index that somebody has dropped is built again; one of his own that does the same is as good."""
    engine, model = project.new_database(), documents(TENANT)
    project.revise(engine, model, "a1")
    project.upgrade(engine, model, "a1")
    project.fill(engine, model)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {BY_TENANT}")
    assert CREATE in project.revise(engine, model, "a2")
    project.upgrade(engine, model)
    project.check(engine, model)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {BY_TENANT}")
        connection.exec_driver_sql("CREATE INDEX by_hand ON documents (tenant) INCLUDE (title, id, embedding_short_4)")
    project.check(engine, model)
