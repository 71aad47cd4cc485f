"""Others in the same database: tenants, and roles that put objects of their own in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, select

from pgmrl import database
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Prefix, Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.model.shortening import Rotation

QUERY = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """An ordinary role."""
    name = f"tenant_{engine.url.database}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
    yield name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")


def make(engine: Engine, rule: Any, **options: Any) -> Table:
    """A table `docs` of tenants."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant", Text),
        Column("e", Matryoshka(8, Short(4, rule, **options))),
    )
    with engine.begin() as connection:
        if not isinstance(rule, Prefix):
            database.install_rotation(connection, rule)
        table.create(connection)
    return table


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_a_tenant_with_few_rows_gets_k_of_its_own(engine: Engine, role: str, small_rotation: Rotation, by: str) -> None:
    """Row-level security filters after the index scan, which must go on: 12 of 6,000 rows are the tenant's."""
    table = make(engine, small_rotation if by == "rotation" else Prefix())
    vectors = np.random.default_rng(0).normal(size=(6000, 8))
    with engine.begin() as connection:
        rows = [{"id": n, "tenant": "x" if n % 500 else role, "e": v} for n, v in enumerate(vectors)]
        connection.execute(table.insert(), rows)
        connection.exec_driver_sql("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql("CREATE POLICY own ON docs USING (tenant = current_user)")
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {role}")
        connection.exec_driver_sql("ANALYZE docs")
    tenant = create_engine(engine.url, connect_args={"options": f"-c role={role}"})
    with tenant.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")  # with so few rows the planner would rightly sort
        for exact in (False, True):
            found = connection.execute(search(select(table.c.id), table.c.e, vectors[3], exact=exact)).scalars().all()
            assert len(found) == 10
            assert all(n % 500 == 0 for n in found)
    tenant.dispose()


DECOYS = [
    "CREATE FUNCTION {place}.l2_normalize(vector) RETURNS vector LANGUAGE sql RETURN '[9,9,9,9]'::vector",
    "CREATE FUNCTION {place}.l2_normalize(halfvec) RETURNS halfvec LANGUAGE sql RETURN '[9,9,9,9]'::halfvec",
    "CREATE FUNCTION {place}.inner_product(halfvec, halfvec) RETURNS float8 LANGUAGE sql RETURN 9",
    "CREATE FUNCTION {place}.array_agg(float8) RETURNS float8[] LANGUAGE sql RETURN '{{9,9,9,9}}'::float8[]",
    "CREATE FUNCTION {place}.same(halfvec, halfvec) RETURNS bool LANGUAGE sql RETURN true",
    "CREATE FUNCTION {place}.far(halfvec, halfvec) RETURNS float8 LANGUAGE sql RETURN 9",
    "CREATE OPERATOR {place}.= (LEFTARG = halfvec, RIGHTARG = halfvec, FUNCTION = {place}.same)",
    "CREATE TABLE {place}.axes AS SELECT 'r'::text AS rotation_id, 1 AS n, '[9,9,9,9,9,9,9,9]'::halfvec AS axis",
    "CREATE TABLE {place}.rotations (id text)",
]


@pytest.mark.parametrize("place", ["decoy", "pg_temp"])
def test_objects_in_front_of_ours_change_no_short_vector(engine: Engine, small_rotation: Rotation, place: str) -> None:
    """On the search_path of whoever writes: the triggers fix their own."""
    table = make(engine, small_rotation, name="short")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO docs (id, e) VALUES (1, '[1,2,3,4,5,6,7,8]')")
        if place != "pg_temp":
            connection.exec_driver_sql(f"CREATE SCHEMA {place}")
        for decoy in DECOYS:
            connection.exec_driver_sql(decoy.format(place=place))
        connection.exec_driver_sql(f"SET LOCAL search_path = {place}, pg_catalog, public")
        connection.exec_driver_sql("INSERT INTO docs (id, e) VALUES (2, '[1,2,3,4,5,6,7,8]')")
        connection.exec_driver_sql("UPDATE docs SET short = '[7,7,7,7]' WHERE id = 1")
        connection.exec_driver_sql("SET LOCAL search_path = public")
        shorts = connection.exec_driver_sql("SELECT short::vector::real[] FROM docs ORDER BY id").scalars().all()
    definition = table.c.e.info["pgmrl"].definition
    assert shorts[0] == pytest.approx(definition.shorten(QUERY).astype(float), abs=1e-3)
    assert shorts[1] == shorts[0]


def test_a_generated_column_keeps_pgvectors_own_functions(engine: Engine) -> None:
    """They were resolved when the table was made."""
    make(engine, Prefix(), name="short")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA decoy")
        for decoy in DECOYS:
            connection.exec_driver_sql(decoy.format(place="decoy"))
        connection.exec_driver_sql("SET LOCAL search_path = decoy, pg_catalog, public")
        connection.exec_driver_sql("INSERT INTO docs (id, e) VALUES (2, '[1,2,3,4,5,6,7,8]')")
        connection.exec_driver_sql("SET LOCAL search_path = public")
        short = connection.exec_driver_sql("SELECT short::vector::real[] FROM docs").scalar_one()
    assert short == pytest.approx(QUERY[:4] / np.linalg.norm(QUERY[:4]), abs=1e-3)


def test_with_pgvectors_schema_given_a_search_names_its_operators(engine: Engine) -> None:
    """`vector_schema` makes also the query independent of the search_path."""
    table = Table(
        "docs",
        MetaData(schema="public"),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4), vector_schema="public")),
    )
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"id": 1, "e": -QUERY}, {"id": 2, "e": QUERY}])
        connection.exec_driver_sql("CREATE SCHEMA decoy")
        for decoy in DECOYS:
            connection.exec_driver_sql(decoy.format(place="decoy"))
        operator = "CREATE OPERATOR decoy.<=> (LEFTARG = halfvec, RIGHTARG = halfvec, FUNCTION = decoy.far)"
        connection.exec_driver_sql(operator)
        connection.exec_driver_sql("SET LOCAL search_path = decoy")
        found = connection.execute(search(select(table.c.id), table.c.e, QUERY)).all()
    assert [row.id for row in found] == [2, 1]
    assert [row.distance for row in found] == pytest.approx([0, 2], abs=1e-6)
