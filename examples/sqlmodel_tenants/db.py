"""Connections through PgBouncer in transaction mode, as a role to which row-level security applies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import NullPool, func, select
from sqlmodel import Session, create_engine

# PgBouncer is the pool, and hands out another connection for each transaction: nothing may stay in one
engine = create_engine(os.environ["DATABASE_URL"], poolclass=NullPool, connect_args={"prepare_threshold": None})


@contextmanager
def team_session(tenant: str, team: str) -> Iterator[Session]:
    """One transaction of a team: what it reads and writes is the tenant's schema, the policy leaves the team's rows."""
    with Session(engine.execution_options(schema_translate_map={None: tenant})) as session, session.begin():
        session.execute(select(func.set_config("app.team", team, True)))  # until the transaction ends
        yield session
