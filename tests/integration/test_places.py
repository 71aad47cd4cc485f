"""Names that need quoting, and pgvector in a schema that is not on the search_path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select

from pgmrl import database
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Prefix, Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgmrl.model.shortening import Rotation

QUERY = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])


@pytest.mark.parametrize("by", ["prefix", "rotation"])
@pytest.mark.parametrize("names", [
    ("my.schema", "order", 'a"b'),
    ("100%", "50%s", "%(x)s"),
    ("a:b", ":name", "::c"),
    ("$$", "$1", "$body$"),
    ("größe", "Größe", "表" * 21),
    ("s" * 63, "t" * 63, "c" * 63),
    ("back\\slash", "it's", "a\\'b"),
])  # fmt: skip
def test_hostile_names(engine: Engine, small_rotation: Rotation, names: tuple[str, str, str], by: str) -> None:
    """Schema, table and column, in every statement that pgmrl makes of them."""
    schema, name, column = names
    rule = small_rotation if by == "rotation" else Prefix()
    table = Table(
        name,
        MetaData(schema=schema),
        Column("the key", Integer, primary_key=True),
        Column(column, Matryoshka(8, Short(4, rule), forbid_zero=True)),
    )
    quote = engine.dialect.identifier_preparer.quote_identifier
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        connection.exec_driver_sql(f"CREATE SCHEMA {quote(schema)}")
        table.create(connection)
        connection.execute(table.insert().values({"the key": 1, column: QUERY}))
        connection.execute(table.insert(), [{"the key": 2, column: -QUERY}, {"the key": 3, column: None}])
        found = connection.execute(search(select(table.c["the key"]), table.c[column], QUERY)).scalars().all()
        assert found == [1, 2]
        (info,) = database.columns(connection)
        assert (info.table_schema, info.table_name, info.full_column) == names
        table.drop(connection)
        left = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = %s::regnamespace", (quote(schema).replace("%%", "%"),)
        )
        assert left.scalar_one() == 0


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_pgvector_in_another_schema(server: Any, small_rotation: Rotation, by: str) -> None:
    """As on some managed servers, and not on the search_path."""
    name = f"elsewhere_{by}"
    admin = create_engine(database.sqlalchemy_url(server.url("postgres")), isolation_level="AUTOCOMMIT")
    engine = create_engine(database.sqlalchemy_url(server.url(name)))
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA extensions")
            connection.exec_driver_sql("CREATE EXTENSION vector SCHEMA extensions")
            database.upgrade(connection)
            database.install_rotation(connection, small_rotation)
            rule = small_rotation if by == "rotation" else Prefix()
            for kind, metric in (("halfvec", "cosine"), ("vector", "l2"), ("bit", "cosine")):
                short = Short(4, rule, kind)  # type: ignore[arg-type]
                type_ = Matryoshka(8, short, metric, "vector", forbid_zero=True, vector_schema="extensions")  # type: ignore[arg-type]
                table = Table(f"t_{kind}", MetaData(), Column("id", Integer, primary_key=True), Column("e", type_))
                table.create(connection)
                connection.execute(table.insert(), [{"id": 1, "e": -QUERY}, {"id": 2, "e": QUERY}])
                for exact in (False, True):
                    found = connection.execute(search(table.select(), table.c.e, QUERY, exact=exact)).all()
                    assert [row.id for row in found] == [2, 1]
                assert np.array_equal(connection.execute(select(table.c.e).where(table.c.id == 2)).scalar_one(), QUERY)
                table.drop(connection)
            assert database.installed_rotation(connection, str(small_rotation.id)) == small_rotation
        with engine.begin() as connection:
            database.downgrade(connection)
            assert database.installed_revision(connection) is None
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()
