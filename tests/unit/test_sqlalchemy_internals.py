"""What is read from SQLAlchemy without a public name: each test says which function a new version has broken."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Computed, Integer, MetaData, Select, Table, Text, func, insert, literal_column, select
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
    OPTIONS,
    TableType,
    adds_schema,
    all_columns_of,
    cache_key,
    clauses_of,
    columns_of,
    conflict_clause,
    has_loader_criteria,
    has_options,
    hashed_once,
    is_left_out,
    keep_until_changed,
    limit_of,
    memoize_cache_key,
    selected_names,
    set_computed,
    structure_names,
    unbuilt,
    unselected_column,
    with_conflict_values,
    with_select,
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


@pytest.mark.parametrize(
    ("translated", "adds"), [(None, False), ({}, False), ({"a": "b"}, False), ({None: "b"}, True), ({None: None}, True)]
)
def test_schemas_are_translated(translated: Any, adds: bool) -> None:
    """Which a compiler knows."""
    compiled = select(literal_column("1")).compile(schema_translate_map=translated)
    assert adds_schema(compiled) is adds


def test_options_of_loading() -> None:
    """They may want columns that a search does not carry."""
    assert has_options(select(Item).options(joinedload(Item.parent))), broken(has_options)
    assert not has_options(select(Item)), broken(has_options)
    assert not has_options(select(Item).execution_options(stream_results=True)), broken(has_options)


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


# -- INSERT --------------------------------------------------------------------------------------------------------


def test_a_column_left_out_is_told_from_others() -> None:
    """In its table."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), unselected_column("hidden", Text()))
    assert [is_left_out(column) for column in table.c] == [False, True], broken(is_left_out)


def test_what_an_insert_takes_from_a_select() -> None:
    """Its names, and the same INSERT from another Select."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))
    made = insert(table).from_select(["id", "n"], select(table))
    assert selected_names(made) == ["id", "n"], broken(selected_names)
    assert selected_names(insert(table).values(id=1)) == [], broken(selected_names)
    other = with_select(made, ["id"], select(table.c.n))
    assert str(other) == "INSERT INTO docs (id) SELECT docs.n \nFROM docs", broken(with_select)
    assert selected_names(made) == ["id", "n"], broken(with_select)


def test_what_an_insert_sets_on_a_conflict() -> None:
    """In the form that this version has; the INSERT that it was taken from stays."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))
    plain = postgresql.insert(table)
    assert conflict_clause(plain) is None, broken(conflict_clause)
    made = plain.on_conflict_do_update(index_elements=["id"], set_={"id": plain.excluded.id, "n": 3})
    values = conflict_clause(made).update_values_to_set
    pairs = dict(values)
    del pairs["id"]
    fewer = with_conflict_values(made, pairs if isinstance(values, dict) else list(pairs.items()))
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    assert "DO UPDATE SET n = %(param_1)s" in str(fewer.compile(dialect=dialect)), broken(with_conflict_values)
    assert "SET id = excluded.id, n = " in str(made.compile(dialect=dialect)), broken(with_conflict_values)


# -- the key of a compiled statement -------------------------------------------------------------------------------


def test_the_key_of_a_statement() -> None:
    """Alike for other values, which stand beside it; none for what cannot be cached, or holds values of its own."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    first, second = (cache_key(select(table).where(table.c.id == n)) for n in (1, 2))
    assert first.key == second.key, broken(cache_key)
    assert [[value.value for value in key.bindparams] for key in (first, second)] == [[1], [2]], broken(cache_key)
    assert cache_key(select(table).where(table.c.id == 3)).key != cache_key(select(table)).key, broken(cache_key)


def test_a_key_that_is_given() -> None:
    """Is taken for the statement's own, and is gone from a statement made of it."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    statement, other = select(table), select(table.c.id).where(table.c.id > 4)
    memoize_cache_key(statement, cache_key(other))
    assert cache_key(statement) is cache_key(other), broken(memoize_cache_key)
    assert cache_key(statement.limit(3)).key == cache_key(select(table).limit(3)).key, broken(memoize_cache_key)


def test_a_key_with_its_hash() -> None:
    """Is the same key to a dict, and asks its parts for their hashes once."""
    table, asked = Table("docs", MetaData(), Column("id", Integer, primary_key=True)), []

    class Part(str):
        __slots__ = ()

        def __hash__(self) -> int:
            asked.append(self)
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            return super().__eq__(other)

    key = cache_key(select(table))
    assert {key.key: 1}[hashed_once(key).key] == 1, broken(hashed_once)
    assert hashed_once(key).bindparams is key.bindparams, broken(hashed_once)
    once = hashed_once(key._replace(key=(Part("a"), 1)))
    assert hash(once.key) == hash(once.key) == hash(("a", 1)), broken(hashed_once)
    assert len(asked) == 1


def test_an_attribute_that_no_copy_has() -> None:
    """Whatever is added makes a copy, also one of a copy; the statement itself keeps it."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    statement = select(table)
    keep_until_changed(statement, "own", 3)
    assert statement.__dict__["own"] == 3, broken(keep_until_changed)
    for other in (statement.add_columns(literal_column("1")), statement.execution_options(x=1), statement._clone()):
        assert "own" not in other.__dict__, broken(keep_until_changed)
    assert statement.__dict__["own"] == 3, broken(keep_until_changed)


def test_what_a_select_is_made_of() -> None:
    """Whatever its key is made of is a part, or is read by an execution."""
    parts, copying = structure_names()
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    changed = select(table).where(table.c.id > 1).order_by(table.c.id).limit(2).distinct().add_cte(select(table).cte())
    own = {name for name in changed.__dict__ if name in dict(type(changed)._traverse_internals)}
    assert own <= {*parts, "_raw_columns", *OPTIONS}, broken(structure_names)
    assert {"_where_criteria", "_order_by_clauses", "_limit_clause", "_independent_ctes"} <= set(parts)
    for name in copying:
        assert callable(getattr(changed, name)), broken(structure_names)


def test_a_select_that_is_not_built() -> None:
    """Has the options and columns of another one, and more columns, and nothing else."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    statement = select(table.c.id).where(table.c.id > 1).execution_options(label="x")
    added: Any = literal_column("1").label("one")
    made = unbuilt(Select, statement, [added])
    assert columns_of(made) == [*columns_of(statement), added], broken(unbuilt)
    assert made.get_execution_options() == statement.get_execution_options(), broken(unbuilt)
    assert made.whereclause is None, broken(unbuilt)
    assert all_columns_of(made) == [*all_columns_of(statement), added], broken(all_columns_of)
