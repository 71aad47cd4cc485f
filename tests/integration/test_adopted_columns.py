"""Reflected tables and automap: what the database has already is taken over, and not made a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Column, Engine, Integer, MetaData, Table, inspect, select, text
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Session

from pgmrl import add_short, assert_index_used, check_schema, database, search
from pgmrl.errors import DefinitionError
from pgmrl.model.columns import attachment_of
from pgmrl.model.shortening import Prefix, Short
from pgmrl.names import quoted

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation
else:
    Rotation = Any

VECTORS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


def documents(metadata: MetaData, short: Short | None, **options: Any) -> Table:
    """A table as an application made it."""
    table = Table("documents", metadata, Column("id", Integer, primary_key=True), Column("embedding", VECTOR(8)))
    if short is not None:
        add_short(table.c.embedding, short, **options)
    return table


def filled(engine: Engine, short: Short | None, **options: Any) -> str:
    """The table with rows; the names of its columns and indexes."""
    table = documents(MetaData(), short, **options)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"embedding": vector} for vector in VECTORS])
    return structure(engine)


def structure(engine: Engine) -> str:
    """Columns, indexes and triggers."""
    inspector = inspect(engine)
    with engine.connect() as connection:
        triggers = connection.execute(text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"))
        return str(
            (
                [column["name"] for column in inspector.get_columns("documents")],
                sorted(str(index["name"]) for index in inspector.get_indexes("documents")),
                list(triggers.scalars()),
            )
        )


@pytest.mark.parametrize("kind", ["prefix", "rotation", "bits", "named", "expression"])
def test_automap(engine: Engine, small_rotation: Rotation, kind: str) -> None:
    """`add_short` on a class that automap made: nothing new, and searches go through what is there."""
    shorts = {
        "prefix": Short(4),
        "rotation": Short(4, by=small_rotation),
        "bits": Short(8, type="bit"),
        "named": Short(4, by=Prefix(), name="Mine"),
        "expression": Short(4),
    }
    short, stored = shorts[kind], kind != "expression"
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
    before = filled(engine, short, stored=stored)
    base: Any = automap_base()
    base.prepare(autoload_with=engine)
    mapped = base.classes.documents
    add_short(mapped.embedding, short, stored=stored)
    base.metadata.create_all(engine)
    assert structure(engine) == before
    with Session(engine) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        assert check_schema(session, mapped.embedding) is not None
        statement = search(select(mapped), mapped.embedding, VECTORS[7], k=1)
        assert_index_used(session, statement)
        ((row, distance),) = session.execute(statement).all()
        assert (row.id, round(distance, 3)) == (8, 0)
        session.add(mapped(id=100, embedding=VECTORS[7] * 2))
        session.flush()
        assert session.execute(select(mapped.id).order_by(mapped.id.desc())).scalars().first() == 100
        session.execute(text("SET LOCAL enable_indexscan = off"))
        near = session.execute(search(select(mapped.id), mapped.embedding, VECTORS[7], k=2)).scalars().all()
        assert set(near) == {8, 100}


def test_a_reflected_table_makes_the_same_elsewhere(engine: Engine, small_rotation: Rotation) -> None:
    """Its metadata creates what it was reflected from: one short column, one index, what keeps it in step."""
    short = Short(4, by=small_rotation)
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
    before = filled(engine, short)
    reflected = MetaData()
    reflected.reflect(engine)
    table = reflected.tables["documents"]
    add_short(table.c.embedding, short)
    with engine.begin() as connection:
        table.drop(connection)
        table.create(connection)
    assert structure(engine) == before


def test_a_column_of_another_type_is_in_the_way(engine: Engine) -> None:
    """It says what was expected."""
    name = attachment_of(documents(MetaData(), Short(4)).c.embedding).short
    table = documents(MetaData(), None)
    table.append_column(Column(str(name), HALFVEC(2)))
    with pytest.raises(DefinitionError, match=r"already has a column .* of type HALFVEC\(2\), expected halfvec\(4\)"):
        add_short(table.c.embedding, Short(4))
    with engine.begin() as connection:
        table.create(connection)
        assert connection.execute(text(f"SELECT count({quoted(str(name))}) FROM documents")).scalar_one() == 0
