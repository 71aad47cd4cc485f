"""FilterIndex: what a declaration becomes in a Table, and what is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import JSON, Column, Integer, MetaData, Table, Text, create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex

from pgmrl import FilterIndex, Matryoshka, Rotation, Short, VectorArray, add_short, add_side_table, matryoshka
from pgmrl.errors import DefinitionError
from pgmrl.model.columns import attachment_of

PLAIN = "items_embedding_short_4_by_tenant_id"


def statements(table: Table) -> dict[str, str]:
    """The covering indexes of a Table, as they are created."""
    return {
        str(index.name): str(CreateIndex(index).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        for index in table.indexes
        if not str(index.name).endswith("_hnsw")
    }


def items(*filters: FilterIndex, short: Short | None = None, dims: int = 8, **options: Any) -> Table:
    """A Table whose vector stands before the columns that its indexes name."""
    return Table(
        "items",
        MetaData(),
        Column("embedding", Matryoshka(dims, short or Short(4), filters=filters, **options)),
        Column("region", Integer, primary_key=True),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Integer, key="tenant"),
        Column("section", Text),
        Column("data", JSON),
        Column("documents", postgresql.JSONB),
    )


def test_a_table() -> None:
    """By the names of the database or the keys of the Table; the key's columns are included by themselves."""
    table = items(FilterIndex("tenant"), FilterIndex("section", "id", include=["tenant_id"], name="by section"))
    assert statements(table) == {
        PLAIN: f"CREATE INDEX {PLAIN} ON items (tenant_id) INCLUDE (embedding_short_4, region, id)",
        "by section": 'CREATE INDEX "by section" ON items (section, id) INCLUDE (embedding_short_4, region, tenant_id)',
    }
    assert statements(table.to_metadata(MetaData())) == statements(table)
    filters = attachment_of(table.c.embedding).filters
    assert repr(filters[0]) == "FilterIndex('tenant_id', include=['region', 'id'])"
    assert repr(filters[1]) == "FilterIndex('section', 'id', include=['region', 'tenant_id'], name='by section')"


def test_declarative() -> None:
    """Also of a mixin, and where the attribute has another name than its column."""

    class Base(DeclarativeBase):
        pass

    class Embedded:
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4), filters=[FilterIndex("tenant_id")])
        tenant: Mapped[int] = mapped_column("tenant_id")

    class Item(Embedded, Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Other(Embedded, Base):
        __tablename__ = "others"
        id: Mapped[int] = mapped_column(primary_key=True)

    table = Base.metadata.tables["items"]
    assert statements(table) == {PLAIN: f"CREATE INDEX {PLAIN} ON items (tenant_id) INCLUDE (embedding_short_4, id)"}
    assert list(statements(Base.metadata.tables["others"])) == ["others_embedding_short_4_by_tenant_id"]


def test_later() -> None:
    """`add_short` on a class or Table that is complete, and a column that is appended to a Table."""
    columns = Column("id", Integer, primary_key=True), Column("section", Text)
    table = Table("items", MetaData(), *columns)
    table.append_column(Column("plain", HALFVEC(8)))
    add_short(table.c.plain, Short(2), filters=[FilterIndex("section")])
    assert list(statements(table)) == ["items_plain_short_2_by_section"]
    table.append_column(Column("late", Matryoshka(8, Short(2), filters=[FilterIndex("section")])))
    engine = create_engine("sqlite://")
    table.create(engine)
    assert "items_late_short_2_by_section" in statements(table)


def test_elsewhere() -> None:
    """Another database, as unit tests create them, has neither the short column nor its indexes."""
    table = Table(
        "items",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(8, Short(4), filters=[FilterIndex("id")]).with_variant(Text(), "sqlite")),
    )
    engine = create_engine("sqlite://")
    table.create(engine)
    assert inspect(engine).get_indexes("items") == []


def test_side_table() -> None:
    """It has the key alone to filter by."""
    table = items()
    table.append_column(Column("plain", HALFVEC(8)))
    side = add_side_table(table.c.plain, Short(4), filters=[FilterIndex("region")])
    assert list(statements(side).values()) == [
        "CREATE INDEX items_plain_plain_short_4_by_region ON items_plain (region) INCLUDE (plain_short_4, id)"
    ]
    other = items()
    other.append_column(Column("plain", HALFVEC(8)))
    with pytest.raises(DefinitionError, match=r"table items_plain has no column section; its columns: region, id, pl"):
        add_side_table(other.c.plain, Short(4), filters=[FilterIndex("section")])


def test_before_a_rotation_is_learned() -> None:
    """There is no short column yet that an index could include."""
    assert statements(items(FilterIndex("section"), short=Short(4, by=Rotation()))) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (FilterIndex, r"FilterIndex\(\) names no column: expected those that searches filter by"),
        (lambda: FilterIndex(""), "column='': expected the name of a column, a text of at least one"),
        (lambda: FilterIndex("x" * 64), "expected the name of a column of 1 to 63 bytes"),
        (lambda: FilterIndex(7), "column=7: expected the name of a column"),  # type: ignore[arg-type]
        (lambda: FilterIndex("a", include="section"), "include='section': expected a list of column names"),
        (lambda: FilterIndex("a", name=""), "name='': expected a name"),
        (lambda: items("section"), "filters=.*expected a list of indexes"),  # type: ignore[arg-type]
        (lambda: items(FilterIndex("section"), FilterIndex("section", include=["id"])), "expected one, with all that"),
        (lambda: items(FilterIndex("no such")), "table items has no column no such; its columns: embedding, "),
        (lambda: items(FilterIndex("section", include=["gone"])), "table items has no column gone"),
        (lambda: items(FilterIndex("embedding")), "items.embedding is a vector: expected the columns that searches"),
        (lambda: items(FilterIndex("embedding_short_4")), "items.embedding_short_4 is a vector"),
        (lambda: items(FilterIndex("data")), "items.data is JSON, which has no order that a B-tree needs"),
        (lambda: items(FilterIndex("section"), stored=False), "stored=False has none for the short vectors"),
        (
            lambda: items(FilterIndex("section"), dims=2_000, short=Short(1_340)),
            r"an entry of items takes at least 2,712 bytes, 2,688 of them the short vector; .* takes 2,704",
        ),
        (lambda: items(FilterIndex("section", include=["embedding"]), dims=2_000), "takes at least 4,0.. bytes"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    """One error that names it and the remedy, when it is declared."""
    with pytest.raises(DefinitionError, match=message):
        make()


def test_what_fits() -> None:
    """The widest short vector, and JSONB, which has an order."""
    assert len(statements(items(FilterIndex("documents"), dims=2_000, short=Short(1_330)))) == 1


def test_serves() -> None:
    """One index does what another is declared for."""
    declared = FilterIndex("a", include=["id"])
    assert FilterIndex("a", include=["b", "id"]).serves(declared)
    assert not FilterIndex("a").serves(declared)
    assert not FilterIndex("a", "b", include=["id"]).serves(declared)
    assert FilterIndex("a", include=["id", "b"]).same(FilterIndex("a", include=["b", "id"], name="x"))
    assert FilterIndex("a", include=["a", "b", "b"]).include == ("b",)
