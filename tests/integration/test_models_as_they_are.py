"""Models as applications have them: wrapped types, SQLite in unit tests, a schema per tenant, lists, row security."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import VECTOR
from pydantic import BaseModel, BeforeValidator, ConfigDict
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, undefer
from sqlmodel import Field, SQLModel
from sqlmodel import Session as SQLModelSession
from sqlmodel import select as sqlmodel_select

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import Definition, Matryoshka, Short, add_short, check_schema, database, ingest, matryoshka, search
from pgmrl.errors import MigrationError, SearchError
from pgmrl.model.columns import attachment_of
from pgmrl.model.vectors import VectorArray
from tests.vector_types import Embedding, Sub

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation


@pytest.mark.parametrize(
    "type_",
    [VECTOR(8).with_variant(JSON(), "sqlite"), Text().with_variant(VECTOR(8), "postgresql"), Embedding(8), Sub(8)],
    ids=["vector with a variant", "variant that is a vector", "TypeDecorator", "subclass"],
)
def test_wrapped_types(engine: Engine, type_: Any) -> None:
    """The short column is there on PostgreSQL, and nothing of it on SQLite."""
    table = Table("wrapped", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", type_))
    add_short(table.c.embedding, Short(4))
    short = attachment_of(table.c.embedding).short
    assert attachment_of(table.c.embedding).definition.dims == 8
    elsewhere = create_engine("sqlite://")
    for target, expected in ((elsewhere, False), (engine, True), (elsewhere, False)):
        table.drop(target, checkfirst=True)
        table.create(target)
        assert (short in {column["name"] for column in inspect(target).get_columns("wrapped")}) == expected
        assert bool(inspect(target).get_indexes("wrapped")) == expected
    elsewhere.dispose()


def test_a_schema_for_each_tenant(engine: Engine, small_rotation: Rotation) -> None:
    """Triggers, storage, rows and checks land where the connection's schema_translate_map says."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("embedding", Matryoshka(8, Short(4, by=small_rotation))),
    )
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA t1")
        database.install_rotation(connection, small_rotation)
    with engine.connect().execution_options(schema_translate_map={None: "t1"}) as connection:
        table.create(connection)
        ingest(connection, table.c.embedding, [{"id": n, "embedding": vector} for n, vector in enumerate(vectors)])
        connection.execute(table.insert(), [{"id": 100, "embedding": vectors[3]}])
        connection.commit()
        info = check_schema(connection, table.c.embedding)
        assert info is not None
        assert info.table_schema == "t1"
        nearest = search(select(table.c.id), table.c.embedding, vectors[3], k=2)
        assert [row.id for row in connection.execute(nearest)] == [3, 100]
        short = attachment_of(table.c.embedding).short
        assert connection.exec_driver_sql(f"SELECT count({short}) FROM t1.docs").scalar() == 41
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('public.docs')").scalar() is None


class Base(DeclarativeBase):
    """The models of this module."""


class Doc(Base):
    """Loads lists, at once."""

    __tablename__ = "listed"
    id: Mapped[int] = mapped_column(primary_key=True)
    embedding: Mapped[list[float]] = matryoshka(8, Short(4), as_list=True, deferred=False)


class Late(Base):
    """Loads an array when it is asked for."""

    __tablename__ = "late"
    id: Mapped[int] = mapped_column(primary_key=True)
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4))


class OutArray(BaseModel):
    """What an endpoint returns, of an array."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    embedding: Annotated[list[float], BeforeValidator(list)]


class Out(BaseModel):
    """What an endpoint returns."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    embedding: list[float]


def test_lists_for_json_and_pydantic(database_url: str) -> None:
    """Under an AsyncSession, too, where nothing can be loaded later."""

    async def work() -> str:
        engine = create_async_engine(database_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(Doc(id=1, embedding=[1.0] * 8))
            await session.commit()
            found = (await session.execute(search(select(Doc), Doc.embedding, np.ones(8)))).one()
            assert json.loads(json.dumps(found[0].embedding)) == [1.0] * 8
            answer = Out.model_validate(found[0]).model_dump_json()
        await engine.dispose()
        return answer

    assert json.loads(asyncio.run(work())) == {"id": 1, "embedding": [1.0] * 8}


def test_dataclasses_without_the_vector() -> None:
    """Arrays have no truth value to compare by; lists do."""

    class Dataclasses(MappedAsDataclass, DeclarativeBase):
        """Models that compare by their values."""

    class Array(Dataclasses):
        __tablename__ = "arrays"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4), compare=False)

    class Listed(Dataclasses):
        __tablename__ = "lists"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[list[float]] = matryoshka(8, Short(4), as_list=True)

    ones = np.ones(8, np.float32)
    assert Array(1, ones) == Array(1, ones)
    assert Array(1, ones) != Array(2, ones)
    assert Listed(1, [1.0] * 8) == Listed(1, [1.0] * 8)
    assert Listed(1, [1.0] * 8) != Listed(1, [2.0] * 8)


def test_a_deferred_vector_under_an_async_session(database_url: str) -> None:
    """Is loaded by the Select that says so, as the documentation does."""

    async def work() -> list[float]:
        engine = create_async_engine(database_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(Late(id=1, embedding=np.ones(8, np.float32)))
            await session.commit()
            session.expunge_all()
            query = search(select(Late), Late.embedding, np.ones(8))
            late = (await session.execute(query)).one()[0]
            with pytest.raises((StatementError, MissingGreenlet), match=r"greenlet_spawn|MissingGreenlet"):  # 2.1, 2.0
                _ = late.embedding
            session.expunge_all()
            loaded = (await session.execute(query.options(undefer(Late.embedding)))).one()[0]
        await engine.dispose()
        return OutArray.model_validate(loaded).embedding

    assert asyncio.run(work()) == [1.0] * 8


class Item(SQLModel, table=True):
    """As SQLModel declares it."""

    id: int | None = Field(default=None, primary_key=True)
    embedding: Any = Field(sa_type=VECTOR(8))


add_short(Item.embedding, Short(4))


def test_sqlmodels_exec_keeps_the_distance(engine: Engine) -> None:
    """Its own select() takes first columns only; a search of it does not."""
    SQLModel.metadata.tables["item"].create(engine)
    with SQLModelSession(engine) as session:
        session.add_all(Item(embedding=vector) for vector in np.eye(8) + 1)
        session.commit()
        query = search(sqlmodel_select(Item), Item.embedding, np.eye(8)[0] + 1, k=2)
        (item, distance), _ = session.exec(query).all()  # type: ignore[call-overload]
    assert (item.id, distance) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.where(Doc.id == 1),
        lambda result: result.filter(Doc.id == 1),
        lambda result: result.filter_by(id=1),
        lambda result: result.having(func.count() > 1),
        lambda result: result.limit(3),
        lambda result: result.offset(3),
        lambda result: result.slice(1, 3),
        lambda result: result.fetch(3),
        lambda result: result.add_columns(Doc.id + 1).where(Doc.id == 1),
    ],
)
def test_a_result_cannot_be_cut_in_silence(change: Any) -> None:
    """The error names what to do instead."""
    with pytest.raises(SearchError, match=r"result\.subquery\(\)"):
        change(search(select(Doc.id), Doc.embedding, np.ones(8)))


def test_for_update_goes_on_the_result(engine: Engine) -> None:
    """And locks the rows that were found."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Doc(id=n, embedding=list(vector)) for n, vector in enumerate(np.eye(8) + 1))
        session.commit()
        with pytest.raises(SearchError, match="with_for_update"):
            search(select(Doc).with_for_update(), Doc.embedding, np.ones(8))
        locked = search(select(Doc), Doc.embedding, np.eye(8)[2] + 1, k=1).with_for_update(of=Doc)
        assert [row[0].id for row in session.execute(locked)] == [2]


@pytest.fixture
def walled(connection: Connection, small_rotation: Rotation) -> Connection:
    """A table of 50 rows whose owner, who is this connection's role, sees none of them."""
    database.install_rotation(connection, small_rotation)
    connection.execute(
        text(
            "CREATE ROLE walled; GRANT ALL ON SCHEMA public, pgmrl TO walled; "
            "GRANT ALL ON ALL TABLES IN SCHEMA pgmrl TO walled; "
            "CREATE TABLE walled (id int PRIMARY KEY, embedding vector(8)); "
            "INSERT INTO walled SELECT n, ARRAY[n, 1, 2, 3, 4, 5, 6, 7]::vector FROM generate_series(1, 50) AS n; "
            "CREATE POLICY p ON walled USING (current_setting('app.ok', true) = 'yes'); "
            "ALTER TABLE walled OWNER TO walled; ALTER TABLE walled ENABLE ROW LEVEL SECURITY; "
            "ALTER TABLE walled FORCE ROW LEVEL SECURITY; SET ROLE walled"
        )
    )
    return connection


def test_rows_that_row_security_hides_are_not_left_out(walled: Connection, small_rotation: Rotation) -> None:
    """Adding, validating and copying refuse, with what to do; then every row is filled."""
    definition = Definition.of(8, Short(4, by=small_rotation), "cosine", "vector")
    with Operations.context(MigrationContext.configure(walled)) as op:
        with pytest.raises(MigrationError, match="NO FORCE"):
            op.add_short("walled", "embedding", definition)  # type: ignore[attr-defined]
        walled.exec_driver_sql("ALTER TABLE walled NO FORCE ROW LEVEL SECURITY")
        op.add_short("walled", "embedding", definition)  # type: ignore[attr-defined]
        short = definition.short_name("embedding")
        assert walled.exec_driver_sql(f"SELECT count({short}) FROM walled").scalar() == 50
        walled.exec_driver_sql("ALTER TABLE walled FORCE ROW LEVEL SECURITY")
        with pytest.raises(MigrationError, match="row-level security"):
            op.validate_short("walled", "embedding", definition)  # type: ignore[attr-defined]


def test_alembics_asynchronous_template(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An index is built over an asynchronous engine without a traceback in the log."""
    definition = Definition.of(8, Short(4), "cosine", "vector")

    def migrate(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context) as op:
            op.execute("CREATE TABLE later (id int PRIMARY KEY, embedding vector(8))")
            op.add_short("later", "embedding", definition)  # type: ignore[attr-defined]
            op.create_short_index("later", "embedding", definition)  # type: ignore[attr-defined]

    async def work() -> None:
        engine = create_async_engine(database_url)
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
        await engine.dispose()

    with caplog.at_level(logging.INFO):
        asyncio.run(work())
    assert not [record for record in caplog.records if record.exc_info]
    with database.connect(database_url) as engine, engine.connect() as connection:
        assert [info.index_valid for info in database.columns(connection)] == [True]
