"""A Citus whose URL is given, with the tables of the proof in four shards each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, create_engine, insert
from sqlalchemy.orm import Session

from pgmrl.database import sqlalchemy_url
from pgmrl.online.distributing import distribution_statements
from tests.citus.proof import DOCUMENTS, ROWS, TENANTS, URL, Base, Damaged, Document, Package

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def citus() -> Iterator[Engine]:
    """An Engine on the coordinator, with the tables made, distributed over four shards and filled."""
    assert URL is not None
    engine = create_engine(sqlalchemy_url(URL))  # not pgmrl's own, whose search_path is pinned
    Base.metadata.drop_all(engine)
    try:
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
        for model, by in ((Package, "id"), (Document, "tenant"), (Damaged, "id")):
            with engine.begin() as connection:
                for statement in distribution_statements(connection, None, model.__tablename__, by, 4):
                    connection.exec_driver_sql(statement)
        with Session(engine) as session:
            for first in range(0, ROWS, 1000):
                own = range(first, min(first + 1000, ROWS))
                rows = [{"id": n, "name": f"package {n}", "part": n % 100, "embedding": DOCUMENTS[n]} for n in own]
                session.execute(insert(Package), rows)
                tenants = [{"tenant": n % TENANTS, "id": n, "embedding": DOCUMENTS[n]} for n in own]
                session.execute(insert(Document), tenants)
            session.execute(insert(Damaged), [{"id": n, "embedding": DOCUMENTS[n]} for n in range(100)])
            session.commit()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE pgmrl_proof_packages, pgmrl_proof_documents")
        yield engine
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()


@pytest.fixture
def session(citus: Engine) -> Iterator[Session]:
    """On the coordinator."""
    with Session(citus) as opened:
        yield opened
