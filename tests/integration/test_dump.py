"""Dump and restore: the same results and working triggers on the other side."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, select

from pgmrl import database
from pgmrl.columns import Matryoshka, add_side_table
from pgmrl.local.programs import Programs
from pgmrl.search import search
from pgmrl.shortening import Prefix, Short
from pgmrl.types import NumpyVector

if TYPE_CHECKING:
    from pathlib import Path

    from pgmrl.shortening import Rotation


@pytest.mark.parametrize("by", ["prefix", "rotation", "side table"])
def test_dump_and_restore(engine: Engine, server: Any, tmp_path: Path, small_rotation: Rotation, by: str) -> None:
    """Table, short column, index, trigger and axes; restored as by an administrator, with errors fatal."""
    rule = Prefix() if by == "prefix" else small_rotation
    metadata = MetaData()
    key = Column("id", Integer, primary_key=True)
    if by == "side table":
        docs = Table("docs", metadata, key, Column("e", NumpyVector(8, "vector")))
        add_side_table(docs.c.e, Short(4, rule))
    else:
        docs = Table("docs", metadata, key, Column("e", Matryoshka(8, Short(4, rule, name="short"), full="vector")))
    vectors = np.random.default_rng(0).normal(size=(300, 8))
    statement = search(select(docs.c.id), docs.c.e, vectors[0], k=20)
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        metadata.create_all(connection)
        connection.execute(docs.insert(), [{"id": n, "e": v} for n, v in enumerate(vectors)])
        before = connection.execute(statement).all()
    name = f"{engine.url.database}_restored"
    dump = tmp_path / "dump"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    run("pg_dump", "-Fc", "-f", dump, server.url(engine.url.database))
    run("pg_restore", "--exit-on-error", "-d", server.url(name), dump)
    restored = create_engine(database.sqlalchemy_url(server.url(name)))
    with restored.begin() as connection:
        assert connection.execute(statement).all() == before
        connection.execute(docs.insert(), {"id": 1000, "e": vectors[0] * 1.01})
        connection.execute(docs.update().where(docs.c.id == before[1][0]).values(e=-vectors[0]))
        after = [row.id for row in connection.execute(statement)]
        assert after[:2] == [0, 1000]
        assert before[1][0] not in after
        assert len(database.columns(connection)) == 1
        assert database.installed_rotation(connection, str(small_rotation.id)) == small_rotation
    restored.dispose()


def run(program: str, *arguments: Any) -> None:
    """Run one of the server's own programs."""
    done = subprocess.run(  # noqa: S603 - the wheel's
        [Programs.installed().folder / program, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
