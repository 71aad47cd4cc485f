"""What is read from SQLAlchemy without a public name: each test says which function a new version has broken."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Computed, Integer, MetaData, Table, Text, func, insert, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    configure_mappers,
    joinedload,
    mapped_column,
    relationship,
    with_loader_criteria,
)
from sqlalchemy.schema import CreateTable

from pgmrl.model.sqlalchemy_internals import (
    TableType,
    clauses_of,
    has_loader_criteria,
    limit_of,
    set_computed,
    unselected_column,
)
from tests.versions import distinct_on


class Base(DeclarativeBase):
    """The models of this file."""


class Item(Base):
    """What the Selects read."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(sqlalchemy.ForeignKey("items.id"))
    parent: Mapped[Item | None] = relationship(remote_side="Item.id")


def broken(function: Callable[..., Any]) -> str:
    """What a failure says."""
    name = f"{function.__module__}.{function.__name__}"
    return f"{name} relies on what SQLAlchemy {sqlalchemy.__version__} does otherwise: change that function"


@pytest.mark.parametrize(
    ("statement", "clauses"),
    [
        (select(Item), []),
        (select(Item).where(Item.id > 3).join(Item.parent).options(joinedload(Item.parent)), []),
        (select(Item).limit(3), ["LIMIT"]),
        (select(Item).fetch(3), ["LIMIT"]),
        (select(Item).offset(3), ["OFFSET"]),
        (select(Item).slice(3, 5), ["LIMIT", "OFFSET"]),
        (select(Item.name).group_by(Item.name), ["GROUP BY"]),
        (select(func.count(Item.id)).having(func.count() > 1), ["GROUP BY"]),
        (select(Item).distinct(), ["DISTINCT"]),
        (distinct_on(select(Item), Item.name), ["DISTINCT"]),
        (select(Item).order_by(Item.id), ["ORDER BY"]),
        (select(Item).with_for_update(), ["FOR UPDATE"]),
    ],
)
def test_the_clauses_of_a_select(statement: Any, clauses: list[str]) -> None:
    """Each clause that a search adds itself, and nothing else."""
    assert clauses_of(statement) == clauses, broken(clauses_of)


def test_a_limit() -> None:
    """As it was given: a literal stays one."""
    assert str(limit_of(select(Item).limit(literal_column("77")))) == "77", broken(limit_of)
    assert limit_of(select(Item)) is None, broken(limit_of)


def test_loader_criteria() -> None:
    """They filter at execution; other loader options do not."""
    criteria = with_loader_criteria(Item, Item.name == "x")
    assert has_loader_criteria(select(Item).options(criteria)), broken(has_loader_criteria)
    assert has_loader_criteria(select(Item).options(joinedload(Item.parent), criteria)), broken(has_loader_criteria)
    assert not has_loader_criteria(select(Item)), broken(has_loader_criteria)
    assert not has_loader_criteria(select(Item).options(joinedload(Item.parent))), broken(has_loader_criteria)


class Noting(Text, TableType):
    """A type that notes where it is."""

    def copy(self, **_: Any) -> Noting:
        """A copy for another column."""
        return Noting()

    def on_table(self, column: Column[Any], table: Table) -> None:
        """Note it in the table."""
        table.info["noted"] = column.name


@pytest.mark.parametrize("make", [Noting, lambda: copy.copy(Noting()), lambda: pickle.loads(pickle.dumps(Noting()))])  # noqa: S301
def test_a_type_learns_of_its_table(make: Callable[[], Any]) -> None:
    """In a Table, in a class over a mixin, and when it is added later; however the type was made."""
    made = Table("t", MetaData(), Column("a", Integer), Column("b", make()))
    assert made.info == {"noted": "b"}, broken(TableType.on_table)
    later = Table("u", MetaData(), Column("a", Integer))
    later.append_column(Column("c", make()))
    assert later.info == {"noted": "c"}, broken(TableType.on_table)

    class Own(DeclarativeBase):
        pass

    class Mixin:
        d: Mapped[str] = mapped_column(make())

    class Model(Mixin, Own):
        __tablename__ = "v"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert Own.metadata.tables["v"].info == {"noted": "d"}, broken(TableType.on_table)


def test_a_column_becomes_a_generated_one() -> None:
    """In the metadata, in CREATE TABLE, and in a copy."""
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("a", Text), Column("b", Text))
    set_computed(table.c.b, Computed("upper(a)", persisted=True))
    for made in (table, table.to_metadata(MetaData())):
        ddl = str(CreateTable(made).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        assert "b TEXT GENERATED ALWAYS AS (upper(a)) STORED" in ddl, broken(set_computed)
        assert made.c.b.computed is not None, broken(set_computed)


def test_a_column_that_statements_leave_out() -> None:
    """It is in CREATE TABLE alone; it can still be named, and a class over the table does not map it."""
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), unselected_column("hidden", Text))
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    assert "hidden TEXT" in str(CreateTable(table).compile(dialect=dialect)), broken(unselected_column)
    for statement in (select(table), insert(table), select(table.to_metadata(MetaData()))):
        assert "hidden" not in str(statement.compile(dialect=dialect)), broken(unselected_column)
    assert "hidden" in str(select(table.c.hidden)), broken(unselected_column)
    assert table.c.hidden.nullable, broken(unselected_column)

    class Own(DeclarativeBase):
        pass

    class Model(Own):
        __table__ = table

    configure_mappers()
    assert set(sqlalchemy.inspect(Model).column_attrs.keys()) == {"id"}, broken(unselected_column)
