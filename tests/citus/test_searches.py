"""Searches over shards as SQLAlchemy's users compose them: each shard has their settings, none loses what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, bindparam, create_engine, delete, insert, select, text
from sqlalchemy.orm import Session

from pgmrl import Nearest, Short, check_schema, more_like_this, search_hybrid
from pgmrl.doctor import doctor
from pgmrl.errors import NotMigrated
from pgmrl.model.columns import Matryoshka
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups
from pgmrl.searching.search import search
from tests.citus.proof import DIMS, DOCUMENTS, NEEDS_CITUS, QUERIES, Document, Package, truth

pytestmark = NEEDS_CITUS


class Notices(list[str]):
    """What the server of a session says from now on."""

    def __init__(self, session: Session, settings: str) -> None:
        super().__init__()
        connection = session.connection()
        connection.exec_driver_sql(f"SET LOCAL client_min_messages = notice; SET LOCAL {settings}")
        driver: Any = connection.connection.dbapi_connection
        driver.add_notice_handler(self.add)
        self.driver = driver

    def add(self, notice: Any) -> None:
        """Keep its first line."""
        self.append(notice.message_primary)

    def stop(self) -> None:
        """Keep no more."""
        self.driver.remove_notice_handler(self.add)


def commands(session: Session, statement: Any) -> list[str]:
    """The commands that go to shards for a search, which read them."""
    notices = Notices(session, "citus.log_remote_commands = on")
    try:
        assert session.execute(statement).all()
    finally:
        notices.stop()
    return [notice for notice in notices if "FROM public.pgmrl_proof_" in notice]


NUMBER = Package.id
EMBEDDING = Package.embedding
SHAPES: dict[str, Callable[[Any], Any]] = {
    "columns": lambda q: search(select(NUMBER), EMBEDDING, q),
    "entity": lambda q: search(select(Package).where(Package.part < 80), EMBEDDING, q),
    "vector": lambda q: search(select(NUMBER, EMBEDDING), EMBEDDING, q, counts=True),
    "parameter": lambda q: search(select(NUMBER), EMBEDDING, bindparam("mine")).params(mine=q),
    "groups": lambda q: search_groups(select(NUMBER), EMBEDDING, q, Package.part, k=3),
    "diverse": lambda q: search_diverse(select(NUMBER), EMBEDDING, q),
    "funnel": lambda q: search_funnel(select(NUMBER), EMBEDDING, q, [(128, 100)]),
    "hybrid": lambda q: search_hybrid(select(NUMBER), [Nearest(EMBEDDING, q), Nearest(EMBEDDING, QUERIES[9])]),
    "examples": lambda _: search(select(NUMBER), EMBEDDING, more_like_this(EMBEDDING, [5, 9])),
    "examples of a filter": lambda _: search(
        select(NUMBER).where(Package.part == 3), EMBEDDING, more_like_this(EMBEDDING, [5])
    ),
    "expression": lambda _: search(select(NUMBER), EMBEDDING, select(EMBEDDING).where(NUMBER == 11).scalar_subquery()),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_shard_sets_the_scans_parameters(session: Session, name: str) -> None:
    """In the command that reads its short index: set on the coordinator they would be without effect."""
    scans = [
        sql for sql in commands(session, SHAPES[name](QUERIES[0])) if "ORDER BY" in sql and "embedding_short" in sql
    ]
    assert len({sql.split("FROM public.")[1].split()[0] for sql in scans}) == 4
    assert all("set_config('hnsw.ef_search'" in sql for sql in scans)


def test_an_expression_finds_what_its_vector_finds(session: Session) -> None:
    """As many rows as are asked for: more than each shard's default of `ef_search` would give."""
    expression = select(EMBEDDING).where(NUMBER == 11).scalar_subquery()
    numbers, same = (
        session.scalars(search(select(NUMBER), EMBEDDING, query, k=700, shortlist=700)).all()
        for query in (expression, DOCUMENTS[11])
    )
    assert len(numbers) == 700
    assert len(set(numbers) & set(same)) >= 690


@pytest.mark.parametrize(
    "condition",
    [
        Document.tenant == 3,
        Document.tenant.in_([3]),
        Document.tenant == bindparam("t", 3),
        (Document.tenant == 3) & (Document.id > 50),
    ],
)
def test_a_tenants_search_is_one_command(session: Session, condition: Any) -> None:
    """To the tenant's shard, however the tenant is asked for."""
    assert len(commands(session, search(select(Document.id).where(condition), Document.embedding, QUERIES[0]))) == 1


def test_a_search_sees_what_its_transaction_wrote(session: Session) -> None:
    """Rows of several shards, inserted and deleted, also in a savepoint that is rolled back."""
    query, own = QUERIES[3], [90_000 + n for n in range(6)]
    rows = [{"id": n, "name": "new", "part": 3, "embedding": query * (1 + n % 5)} for n in own]
    session.execute(insert(Package), rows)
    for statement in (select(NUMBER), select(NUMBER).where(Package.part == 3)):
        assert set(session.scalars(search(statement, EMBEDDING, query, k=6))) == set(own)
        with session.begin_nested() as savepoint:
            session.execute(delete(Package).where(NUMBER >= 90_003))
            numbers = set(session.scalars(search(statement, EMBEDDING, query, k=6)))
            assert numbers & set(own) == set(own[:3])
            savepoint.rollback()
        assert set(session.scalars(search(statement, EMBEDDING, query, k=6))) == set(own)
    session.rollback()
    assert not set(session.scalars(search(select(NUMBER), EMBEDDING, query, k=6))) & set(own)


def test_prepared_statements(citus: Engine) -> None:
    """Each value anew, long after the server would take a generic plan: Citus makes none over shards."""
    engine = create_engine(citus.url, connect_args={"prepare_threshold": 0})
    with Session(engine) as session:
        for number in range(9):
            part = select(NUMBER).where(Package.part == number)
            rows = session.scalars(search(part, EMBEDDING, QUERIES[number], exact=True)).all()
            assert rows == truth(QUERIES[number], 10, range(number, len(DOCUMENTS), 100))
            tenant = select(Document.id).where(Document.tenant == number)
            own = session.scalars(search(tenant, Document.embedding, QUERIES[number], shortlist=400)).all()
            assert len(set(own) & set(truth(QUERIES[number], 10, range(number, len(DOCUMENTS), 20)))) >= 9
    engine.dispose()


@pytest.fixture
def plain(citus: Engine) -> Any:
    """A table of one node, and what makes another of it."""
    tables = [
        Table(
            "pgmrl_proof_plain",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("embedding", Matryoshka(DIMS, Short(64), distributed=distributed)),
        )
        for distributed in (False, "id")
    ]
    with citus.begin() as connection:
        tables[0].create(connection)
        connection.execute(insert(tables[0]), [{"id": n, "embedding": DOCUMENTS[n]} for n in range(400)])
    yield tables
    tables[0].drop(citus)


@pytest.mark.parametrize("kind", ["local", "reference", "distributed"])
def test_a_table_of_one_node(citus: Engine, plain: list[Table], kind: str) -> None:
    """The ordinary statement answers over it in whole; what Citus has otherwise than declared is reported."""
    function = {"reference": "create_reference_table('{}')", "distributed": "create_distributed_table('{}', 'id')"}
    with citus.begin() as connection:
        if kind in function:
            connection.execute(text(f"SELECT {function[kind].format(plain[0].name)}"))
    actual = kind == "distributed"
    for declared, table in enumerate(plain):
        with citus.connect() as connection:
            reports = doctor(connection, table.c.embedding, only=["distribution-declared"])
            assert len(list(reports)) == (declared != actual)
            if declared != actual:
                with pytest.raises(NotMigrated, match="distributed"):
                    check_schema(connection, table.c.embedding)
                connection.rollback()
            if declared or not actual:
                statement = select(table.c.id).where(table.c.id >= 0)
                rows = connection.scalars(search(statement, table.c.embedding, QUERIES[0], shortlist=400)).all()
                assert rows == truth(QUERIES[0], 10, range(400))
