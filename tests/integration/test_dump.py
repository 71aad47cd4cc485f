"""Dump and restore: the same results and working triggers on the other side."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, select

from pgmrl import Embed, SqlFunctions, database, install_functions
from pgmrl.embedding_queue import embedded_column, run_worker
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import functions
from pgmrl.local.programs import Programs
from pgmrl.model.columns import Matryoshka, add_side_table
from pgmrl.model.shortening import Prefix, Short
from pgmrl.model.types import NumpyVector
from pgmrl.searching.search import search
from tests.letters import Letters

if TYPE_CHECKING:
    from pathlib import Path

    from pgmrl.model.shortening import Rotation


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
    done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
        [Programs.installed().folder / program, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_marks_survive_a_dump(engine: Engine, server: Any, tmp_path: Path) -> None:
    """Rows that are to be embedded, and the triggers that mark them."""
    full = Matryoshka(8, Short(4), embed=Embed("{it's} \\000 {body}", "static"))
    docs = Table("docs", MetaData(), *(Column(name, Text) for name in ("it's", "body")), Column("e", full))
    docs.append_column(Column("id", Integer, primary_key=True))
    name, dump = f"{engine.url.database}_restored", tmp_path / "dump"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        docs.create(connection)
        connection.execute(docs.insert(), [{"body": "one"}, {"body": "two"}])
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    run("pg_dump", "-Fc", "-f", dump, server.url(engine.url.database))
    run("pg_restore", "--exit-on-error", "-d", server.url(name), dump)
    restored = create_engine(database.sqlalchemy_url(server.url(name)))
    with restored.begin() as connection:
        column = embedded_column(connection, "docs.e")
        assert column.embed == full.embed
        connection.execute(docs.insert(), [{"body": "three"}])
    done = run_worker(restored, column, Letters())
    assert (done.written, done.waiting) == (3, 0)
    restored.dispose()


def test_functions_survive_a_dump(engine: Engine, server: Any, tmp_path: Path, small_rotation: Rotation) -> None:
    """As an administrator dumps and restores: functions, views, grants, named queries, and the user's view of them."""
    docs = make_functions(engine, small_rotation, "postgres")
    name = f"{engine.url.database}_restored"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    before = answers(engine)
    run("pg_dump", "-Fc", "-f", tmp_path / "dump", server.url(engine.url.database))
    run("pg_restore", "--exit-on-error", "-d", server.url(name), tmp_path / "dump")
    check_restored(server, name, before, docs)


@pytest.mark.parametrize("by", ["prefix", "rotation"])
def test_functions_survive_a_dump_by_an_ordinary_role(
    engine: Engine, server: Any, tmp_path: Path, small_rotation: Rotation, by: str
) -> None:
    """An owner without a superuser's rights restores into a database where an administrator has made the extension."""
    role, name = f"owner_{engine.url.database}", f"{engine.url.database}_restored"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(f"CREATE DATABASE {name}_from OWNER {role} TEMPLATE template0")
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {role} TEMPLATE template0")
    for one in (f"{name}_from", name):
        admin = create_engine(database.sqlalchemy_url(server.url(one)))
        with admin.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION vector")
        admin.dispose()
    url = server.url(f"{name}_from").replace("postgres@", f"{role}@")
    source = create_engine(database.sqlalchemy_url(url))
    with source.begin() as connection:
        database.upgrade(connection)
    docs = make_functions(source, small_rotation if by == "rotation" else Prefix(), role)
    before = answers(source)
    run("pg_dump", "-Fc", "-f", tmp_path / "dump", url)
    source.dispose()
    listed = tmp_path / "list"
    run("pg_restore", "-l", "-f", listed, tmp_path / "dump")
    # the extension is the administrator's, and so is what is said of it
    kept = [line for line in listed.read_text().splitlines() if " EXTENSION " not in line]
    listed.write_text("\n".join(kept))
    target = server.url(name).replace("postgres@", f"{role}@")
    run("pg_restore", "--exit-on-error", "-L", listed, "-d", target, tmp_path / "dump")
    check_restored(server, name, before, docs, role)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for one in (f"{name}_from", name):
            connection.exec_driver_sql(f"DROP DATABASE {one} WITH (FORCE)")
        connection.exec_driver_sql(f"DROP ROLE {role}")


CALLS = [
    "docs_search(docs_vector(5), 7, kind => 'a')",
    "docs_similar(5, 7)",
    "docs_search_named('q', 3, exact => true)",
    "docs_related WHERE id < 9",
    "docs_related_stored",
    "mine",
]


def make_functions(engine: Engine, rule: Any, role: str) -> Table:
    """A table with functions, a view of the user's that calls one, and a named query."""
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("kind", Text),
                 Column("e", Matryoshka(8, Short(4, rule))))  # fmt: skip
    vectors = np.random.default_rng(0).normal(size=(300, 8))
    with engine.begin() as connection:
        if not isinstance(rule, Prefix):
            database.install_rotation(connection, rule)
        docs.create(connection)
        connection.execute(docs.insert(), [{"id": n, "kind": "ab"[n % 2], "e": v} for n, v in enumerate(vectors)])
        declared = SqlFunctions(filters=("kind",), related=3, stored=True, grant_to=(role,))
        install_functions(connection, docs.c.e, declared)
        connection.exec_driver_sql("CREATE VIEW mine AS SELECT id, distance FROM docs_search(docs_vector(1), 4)")
        connection.exec_driver_sql(
            "INSERT INTO pgmrl.queries VALUES ('docs', 'e', 'q', NULL, NULL, '[1,2,3,4,5,6,7,8]')"
        )
        connection.exec_driver_sql("REFRESH MATERIALIZED VIEW docs_related_stored")
    return docs


def answers(engine: Engine) -> list[Any]:
    """What every call returns, and what is installed."""
    with engine.connect() as connection:
        found: list[Any] = [connection.exec_driver_sql(f"SELECT * FROM {call} ORDER BY 1, 2").all() for call in CALLS]
        return [*found, functions(connection)]


def check_restored(server: Any, name: str, before: list[Any], docs: Table, role: str = "postgres") -> None:
    """The same answers, and functions that can be replaced and dropped."""
    restored = create_engine(database.sqlalchemy_url(server.url(name).replace("postgres@", f"{role}@")))
    assert answers(restored) == before
    with restored.begin() as connection:
        connection.exec_driver_sql("DROP VIEW mine")
        install_functions(connection, docs.c.e, SqlFunctions(related=2))
        assert drop_functions(connection, docs.c.e) == ["public.docs"]
        assert functions(connection) == []
    restored.dispose()
