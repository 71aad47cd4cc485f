"""Missing rights are one clear error before anything is written, which says who may and how to grant it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, text

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import database
from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import plan, preflight
from pgmrl.online.index_statements import Build
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFINITION = Definition.of(8, Short(4), full="vector")
UNSTORED = Definition.of(8, Short(4), full="vector", stored=False)
WHERE = ("documents", "embedding", DEFINITION)


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """A role without rights, and somebody else's table with a short column and its index."""
    name = f"pgmrl_rights_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
        connection.execute(text("CREATE TABLE documents (id int PRIMARY KEY, embedding vector(8))"))
        value = DEFINITION.sql("embedding")
        connection.execute(
            text(f"ALTER TABLE documents ADD embedding_short_4 halfvec(4) GENERATED ALWAYS AS ({value}) STORED")
        )
        connection.execute(text("CREATE INDEX ours ON documents USING hnsw (embedding_short_4 halfvec_cosine_ops)"))
        connection.execute(text(f"GRANT SELECT ON documents TO {name}"))
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def as_role(engine: Engine, role: str) -> Iterator[Connection]:
    """A connection as that role; its statements since are in `statements`."""
    with engine.connect() as connection:
        connection.execute(text(f"SET ROLE {role}"))
        yield connection


OPERATIONS: dict[str, Callable[[Any], None]] = {
    "add_short": lambda op: op.add_short("documents", "embedding", Definition.of(8, Short(2), full="vector")),
    "create_short_index": lambda op: op.create_short_index(*WHERE, concurrently=False),
    "create_expression_index": lambda op: op.create_short_index("documents", "embedding", UNSTORED, concurrently=False),
    "drop_short_index": lambda op: op.drop_short_index(*WHERE, name="ours", concurrently=False),
    "drop_short": lambda op: op.drop_short("documents", "embedding_short_4"),
    "set_storage": lambda op: op.set_storage("documents", "embedding", "main"),
    "keep_side": lambda op: op.keep_side("documents", "side", ["id"], "embedding"),
    "mark_short": lambda op: op.mark_short("documents", "embedding_short_4", "retired"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_of_somebody_elses_table(as_role: Connection, statements: list[str], role: str, name: str) -> None:
    """The owner is named; no statement that writes was sent."""
    op: Any = Operations(MigrationContext.configure(as_role))
    statements.clear()
    with pytest.raises(MigrationError, match=rf"belongs to \w+: run this as \w+ \(SET ROLE\), not as {role}"):
        OPERATIONS[name](op)
    assert not [sent for sent in statements if sent.lstrip().split()[0] not in {"SELECT", "WITH"}]


@pytest.mark.parametrize("name", ["add_short", "create_short_index", "create_expression_index"])
def test_without_create_on_the_schema(engine: Engine, as_role: Connection, role: str, name: str) -> None:
    """As in a PostgreSQL of today, where `public` is nobody's: the GRANT is printed."""
    with engine.begin() as connection:
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.execute(text(f"ALTER TABLE documents OWNER TO {role}"))
    op: Any = Operations(MigrationContext.configure(as_role))
    with pytest.raises(MigrationError, match=rf"GRANT CREATE ON SCHEMA public TO {role}") as caught:
        OPERATIONS[name](op)
    as_role.rollback()
    with engine.begin() as connection:
        connection.execute(text(str(caught.value).partition(": ")[2]))  # the remedy as it is printed
    as_role.execute(text(f"SET ROLE {role}"))
    OPERATIONS[name](Operations(MigrationContext.configure(as_role)))


def test_pgmrls_schema(engine: Engine, as_role: Connection, role: str) -> None:
    """Making it needs CREATE on the database; somebody else's is not changed."""
    op: Any = Operations(MigrationContext.configure(as_role))
    with engine.begin() as connection:
        database.downgrade(connection)
    with pytest.raises(MigrationError, match=r"the schema pgmrl belongs to \w+: run this as \w+ \(SET ROLE\)"):
        database.upgrade(as_role)
    as_role.rollback()  # it holds locks
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA pgmrl CASCADE"))
    as_role.execute(text(f"SET ROLE {role}"))
    message = rf"GRANT CREATE ON DATABASE \w+ TO {role}, or run `pgmrl upgrade` once as a role that may"
    with pytest.raises(MigrationError, match=message):
        op.upgrade_pgmrl(database.NEWEST_REVISION)
    with pytest.raises(MigrationError, match=message):
        database.upgrade(as_role)


def test_check_migration_says_it_before(as_role: Connection) -> None:
    """Also where only an index is built."""
    target = Target("documents", "embedding", UNSTORED)
    size = plan.size_of(as_role, target.owner)
    planned = [plan.index(target, Hnsw(), Build(), size)]
    findings = preflight.check(as_role, target, planned, by_trigger=False, index=Hnsw(), build=Build(), kept=True)
    assert (findings[0].level, findings[0].subject) == ("error", "rights")


def test_check_migration_names_the_indexes_that_a_rewrite_rebuilds(engine: Engine, role: str) -> None:
    """They are built anew under the rewrite's lock, which takes most of its time."""
    assert role
    target = Target("documents", "embedding", Definition.of(8, Short(2), full="vector"))
    with engine.connect() as connection:
        size = plan.size_of(connection, target.owner)
        planned = [plan.add(target, online=False, size=size)]
        findings = preflight.check(connection, target, planned, by_trigger=False)
        message = next(finding.message for finding in findings if finding.subject == "rewrite")
    assert "the indexes there are rebuilt under the same lock: " in message
    assert "documents_pkey (" in message
    assert "ours (" in message
