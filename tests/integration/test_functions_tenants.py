"""Ten tenants in one table under row-level security: each gets its own nearest rows, all of them, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import SqlFunctions, install_functions, search
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tests.corpus import Corpus
else:
    Corpus = Any

ROWS, TENANTS, DIMS = 5000, 10, 96


class Tenants(NamedTuple):
    """A database of tenants.

    Attributes:
        engine: of a role whose rows are those of `app.tenant`.
        owner: of the table's owner, a superuser.
        table: the table `docs`.
        vectors: as stored, by id; the tenant of an id is the id modulo 10.
        queries: real query vectors.
    """

    engine: Engine
    owner: Engine
    table: Table
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]

    def nearest(self, query: Any, tenant: int, k: int, kind: str | None = None) -> list[int]:
        """A tenant's k nearest rows, by NumPy."""
        ids = np.array([n for n in range(tenant, ROWS, TENANTS) if kind is None or kind_of(n) == kind])
        rows, one = self.vectors[ids].astype(np.float64), np.asarray(query, np.float16).astype(np.float64)
        distances = 1 - rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
        return [int(n) for n in ids[np.argsort(distances, kind="stable")[:k]]]


def kind_of(number: int) -> str:
    """One row of a hundred is rare: five of each tenant."""
    return "rare" if number // TENANTS % 100 == 3 else "usual"


@pytest.fixture(scope="module", params=["setting", "role"])
def tenants(module_engine: Engine, corpus: Corpus, request: pytest.FixtureRequest) -> Iterator[Tenants]:
    """A policy by a setting or by the role's name; the planner is kept from sorting all rows."""
    role = f"app_{module_engine.url.database}_{request.param}"
    docs = Table(
        "docs",
        MetaData(schema=request.param),
        Column("id", Integer, primary_key=True),
        Column("tenant", Text),
        Column("kind", Text),
        Column("e", Matryoshka(DIMS, Short(32))),
    )
    vectors = corpus.documents[:ROWS, :DIMS]
    who = "current_setting('app.tenant')" if request.param == "setting" else "right(current_user, 1)"
    with module_engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {request.param}")
        docs.create(connection)
        rows = [{"id": n, "tenant": str(n % TENANTS), "kind": kind_of(n), "e": v} for n, v in enumerate(vectors)]
        connection.execute(docs.insert(), rows)
        name = f"{request.param}.docs"
        connection.exec_driver_sql(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"CREATE POLICY own ON {name} USING (tenant = {who})")
        for one in [role] if request.param == "setting" else [f"{role}_{n}" for n in range(TENANTS)]:
            connection.exec_driver_sql(f"CREATE ROLE {one}")
            connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {request.param} TO {one}")
            connection.exec_driver_sql(f"GRANT SELECT ON {name} TO {one}")
        install_functions(connection, docs.c.e, SqlFunctions(filters=("kind",), related=4, group_by="kind"))
        connection.exec_driver_sql(f"GRANT SELECT ON {request.param}.docs_related TO PUBLIC")
        given = {"vector": "[" + ",".join(map(repr, map(float, corpus.queries[0, :DIMS]))) + "]"}
        connection.execute(
            text(f"INSERT INTO pgmrl.queries VALUES ('{name}', 'e', 'q', 'what?', NULL, :vector)"), given
        )
        connection.exec_driver_sql(f"ANALYZE {name}")
    path = f"-c search_path={request.param},public -c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off"
    engine = create_engine(module_engine.url, connect_args={"options": path}, execution_options={"role": role})
    stored = vectors.astype(np.float16).astype(np.float32)
    yield Tenants(engine, module_engine, docs, stored, corpus.queries[:, :DIMS])
    engine.dispose()
    with module_engine.begin() as connection:
        for one in [role] if request.param == "setting" else [f"{role}_{n}" for n in range(TENANTS)]:
            connection.exec_driver_sql(f"DROP OWNED BY {one}")
            connection.exec_driver_sql(f"DROP ROLE {one}")


def become(connection: Connection, tenants: Tenants, number: int) -> None:
    """One of the tenants, until the transaction ends."""
    role = tenants.engine.get_execution_options()["role"]
    if str(role).endswith("setting"):
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        connection.exec_driver_sql(f"SET LOCAL app.tenant = '{number}'")
    else:
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}_{number}")


def ask(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    """All rows of a statement."""
    return list(connection.execute(text(statement), parameters))


def literal(vector: Any) -> str:
    """As SQL has it."""
    return "[" + ",".join(map(repr, map(float, vector))) + "]"


@pytest.mark.parametrize("number", range(TENANTS))
def test_each_tenant_gets_its_own_nearest_rows(tenants: Tenants, number: int) -> None:
    """Exactly those, whether the shortlist is exact, everything, or what the index gives; and as many as it has."""
    query = tenants.queries[number]
    with tenants.engine.connect() as connection:
        become(connection, tenants, number)
        for k in (10, 60, 600):  # a tenant has 500
            expected = tenants.nearest(query, number, k)
            for options in ("exact => true", "shortlist => 5000"):
                rows = ask(connection, f"SELECT * FROM docs_search(:q, {k}, {options})", q=literal(query))
                assert [row.id for row in rows] == expected
                assert {(row.requested, row.returned) for row in rows} == {(k, min(k, 500))}
            rows = ask(connection, f"SELECT * FROM docs_search(:q, {k})", q=literal(query))
            assert len(rows) == min(k, 500)
            assert all(row.id % TENANTS == number for row in rows)
            assert {(row.requested, row.returned) for row in rows} == {(k, min(k, 500))}
        # few rows under a policy and a filter: all are read, so that none is missing
        rows = ask(connection, "SELECT * FROM docs_search(:q, 10, kind => 'rare')", q=literal(query))
        assert [row.id for row in rows] == tenants.nearest(query, number, 10, "rare")
        assert len(rows) == 5


@pytest.mark.parametrize("number", [0, 7])
def test_the_other_functions_keep_to_the_tenant(tenants: Tenants, number: int) -> None:
    """Similar, named, diverse, groups, related: a row of another tenant looks like one that is not there."""
    mine, theirs = 100 + number, 100 + (number + 1) % TENANTS
    with tenants.engine.connect() as connection:
        become(connection, tenants, number)
        expected = [n for n in tenants.nearest(tenants.vectors[mine], number, 9) if n != mine][:8]
        similar = ask(connection, f"SELECT id FROM docs_similar({mine}, 8, 5000)")
        assert [row.id for row in similar] == expected
        named = ask(connection, "SELECT id FROM docs_search_named('q', 8, exact => true)")
        assert [row.id for row in named] == tenants.nearest(tenants.queries[0], number, 8)
        for call in ("docs_search_diverse(:q, 20)", "docs_search_groups(:q, 2, 20)"):
            rows = ask(connection, f"SELECT * FROM {call}", q=literal(tenants.queries[1]))
            assert len(rows) >= 20
            assert all(row.id % TENANTS == number for row in rows)
        related = ask(connection, f"SELECT related_id FROM docs_related WHERE id = {mine}")
        assert len(related) == 4
        assert all(row.related_id % TENANTS == number for row in related)
        assert ask(connection, f"SELECT * FROM docs_related WHERE id = {theirs}") == []
        messages = []
        for missing in (theirs, ROWS + theirs):
            with pytest.raises(DBAPIError) as caught, connection.begin_nested():
                ask(connection, f"SELECT * FROM docs_similar({missing})")
            diagnostic = getattr(caught.value.orig, "diag", None)
            messages.append(str(getattr(diagnostic, "message_primary", None)).replace(str(missing), "N"))
            assert getattr(diagnostic, "sqlstate", None) == "P0002"
        assert messages[0] == messages[1]


def test_python_and_sql_find_the_same(tenants: Tenants) -> None:
    """`search` as a tenant."""
    with tenants.engine.connect() as connection:
        become(connection, tenants, 4)
        for query in tenants.queries[:3]:
            rows = connection.execute(
                search(select(tenants.table.c.id), tenants.table.c.e, query, k=20, shortlist=400)
            ).all()
            assert len(rows) == 20
            assert all(row.id % TENANTS == 4 for row in rows)
            exact = connection.execute(
                search(select(tenants.table.c.id), tenants.table.c.e, query, k=20, exact=True)
            ).all()
            assert [row.id for row in exact] == tenants.nearest(query, 4, 20)


def test_the_owner_sees_all(tenants: Tenants) -> None:
    """The functions have no rows of their own to hide."""
    schema = tenants.table.schema
    with tenants.owner.connect() as connection:
        query = literal(tenants.queries[0])
        rows = ask(connection, f"SELECT id FROM {schema}.docs_search(:q, 100, exact => true)", q=query)
    assert len({row.id % TENANTS for row in rows}) == TENANTS


def test_a_prepared_statement_follows_the_tenant(tenants: Tenants) -> None:
    """One plan, several tenants in one connection."""
    with tenants.engine.connect() as connection:
        connection.exec_driver_sql("PREPARE asked (halfvec) AS SELECT id FROM docs_search($1, 5, exact => true)")
        for number in (1, 2, 3, 1, 5, 6, 7, 8):
            with connection.begin_nested():
                become(connection, tenants, number)
                found = ask(connection, f"EXECUTE asked('{literal(tenants.queries[0])}')")
                assert [row.id for row in found] == tenants.nearest(tenants.queries[0], number, 5)
                connection.exec_driver_sql("RESET ROLE")
        connection.exec_driver_sql("DEALLOCATE asked")
