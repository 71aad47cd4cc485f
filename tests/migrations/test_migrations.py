"""pgmrl's own schema: up, down, twice at once, without superuser rights, printed instead of run."""

from __future__ import annotations

import io
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.errors import DefinitionError, NotMigrated, PgvectorMissing
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Rotation, Short

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOGUE = """
SELECT 'function', p.oid::regprocedure::text, md5(concat_ws(' ', p.prosrc, p.provolatile, p.proparallel, p.proisstrict,
    p.prosecdef, p.proconfig, obj_description(p.oid, 'pg_proc')))
FROM pg_proc AS p WHERE p.pronamespace = 'pgmrl'::regnamespace
UNION ALL
SELECT 'column', a.attrelid::regclass || '.' || a.attname,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attacl)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'pgmrl'::regnamespace AND a.attnum > 0 AND c.relkind IN ('r', 'v', 'i')
UNION ALL
SELECT 'relation', c.oid::regclass::text, concat_ws(' ', c.relkind, c.relacl, obj_description(c.oid, 'pg_class'))
FROM pg_class AS c WHERE c.relnamespace = 'pgmrl'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'pgmrl'::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid)
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'version', version_num, '' FROM pgmrl.alembic_version
ORDER BY 1, 2, 3
"""


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with engine.connect() as opened:
        yield opened


def catalogue(connection: Connection) -> list[tuple[Any, ...]]:
    """Everything in pgmrl's schema."""
    return [tuple(row) for row in connection.exec_driver_sql(CATALOGUE)]


def test_up_down_up(empty: Engine) -> None:
    """The second time gives what the first gave; down leaves no object but Alembic's own table."""
    with empty.begin() as opened:
        assert database.installed_revision(opened) is None
        database.upgrade(opened)
        assert database.installed_revision(opened) == database.NEWEST_REVISION
        first = catalogue(opened)
    with empty.begin() as opened:
        database.upgrade(opened)
        assert catalogue(opened) == first
        database.downgrade(opened)
        assert database.installed_revision(opened) is None
        assert {row[1] for row in catalogue(opened) if row[0] == "relation"} == {
            "pgmrl.alembic_version",
            "pgmrl.alembic_version_pkc",
        }
    with empty.begin() as opened:
        database.upgrade(opened)
        assert catalogue(opened) == first
    assert len(first) > 30


def test_two_at_once(empty: Engine) -> None:
    """The second waits, finds all done, and fails nowhere: CREATE EXTENSION is raced too."""
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def run() -> None:
        try:
            with empty.begin() as opened:
                start.wait(20)
                database.upgrade(opened)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    with empty.connect() as opened:
        assert database.installed_revision(opened) == database.NEWEST_REVISION


def test_an_owner_without_superuser_rights(empty: Engine) -> None:
    """Managed PostgreSQL: pgvector is installed by somebody else, or the error says to ask for it."""
    role = f"owner_{empty.url.database}"
    with empty.begin() as opened:
        opened.exec_driver_sql(f"CREATE ROLE {role}")
        opened.exec_driver_sql(f"ALTER DATABASE {empty.url.database} OWNER TO {role}")
    owner = create_engine(empty.url, connect_args={"options": f"-c role={role}"})
    with empty.connect() as opened:
        trusted = opened.exec_driver_sql("SELECT trusted FROM pg_available_extension_versions WHERE name = 'vector'")
        may_install = bool(trusted.scalars().first())
    try:
        if not may_install:
            with owner.begin() as opened, pytest.raises(PgvectorMissing, match="Ask for `CREATE EXTENSION vector`"):
                database.upgrade(opened)
        with empty.begin() as opened:
            opened.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        with owner.begin() as opened:
            database.upgrade(opened)
            database.install_rotation(opened, Rotation.of(np.eye(4, 8)))
            table = Table("t", MetaData(), Column("id", Integer, primary_key=True))
            table.append_column(Column("e", Matryoshka(8, Short(4, Rotation.of(np.eye(4, 8))))))
            opened.exec_driver_sql("CREATE SCHEMA app")
            opened.exec_driver_sql("SET LOCAL search_path = app, public")
            table.create(opened)
            opened.execute(table.insert(), {"id": 1, "e": np.arange(1, 9)})
        with owner.begin() as opened:
            opened.exec_driver_sql("DROP SCHEMA app CASCADE")
            database.downgrade(opened)
    finally:
        owner.dispose()
        with empty.begin() as opened:
            opened.exec_driver_sql(f"ALTER DATABASE {empty.url.database} OWNER TO postgres")
            opened.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
            opened.exec_driver_sql(f"DROP ROLE {role}")


def test_printed_sql_gives_the_same_catalogue(empty: Engine, connection: Connection) -> None:
    """`alembic upgrade head --sql`, run by whoever runs SQL."""
    printed = io.StringIO()
    config = Config(output_buffer=printed)
    config.set_main_option("script_location", str(database.migrations_path()))
    command.upgrade(config, "head", sql=True)
    with empty.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        opened.exec_driver_sql("CREATE EXTENSION vector")
        cursor: Any = opened.connection.cursor()
        cursor.execute(printed.getvalue())
        assert catalogue(opened) == catalogue(connection)


def test_down_is_refused_while_in_use(connection: Connection) -> None:
    """A trigger's function is text to the server, which would not notice."""
    rotation = Rotation.of(np.eye(4, 8))
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True))
    docs.append_column(Column("e", Matryoshka(8, Short(4, rotation))))
    database.install_rotation(connection, rotation)
    docs.create(connection)
    connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
    with connection.begin_nested() as savepoint:
        with pytest.raises(DBAPIError, match=r"pgmrl is in use by the triggers of public.docs(?s:.*)op\.drop_short"):
            database.downgrade(connection)
        savepoint.rollback()
    docs.drop(connection)
    database.downgrade(connection)


def test_every_function_says_what_it_is(connection: Connection) -> None:
    """Comment, fixed search_path with pg_temp last, parallel safety where queries call it, the caller's rights."""
    rows = connection.exec_driver_sql(
        "SELECT proname, obj_description(oid, 'pg_proc') AS comment, coalesce(proconfig[1], '') AS path, prosecdef, "
        "provolatile, proparallel, prorettype::regtype::text AS returns "
        "FROM pg_proc WHERE pronamespace = 'pgmrl'::regnamespace"
    ).all()
    assert len(rows) >= 8
    # a catalogue's helper catches errors, which no parallel process may, and two others read that catalogue
    alone = {"marker_v1", "functions_of_v1", "views_of_v1"}
    for row in rows:
        assert row.comment, row.proname
        assert row.path.startswith("search_path=pg_catalog"), row.proname
        assert row.path.endswith("pg_temp"), row.proname
        assert not row.prosecdef, row.proname
        # what people call by hand has no version in its name, as the functions of a table
        assert re.search(r"_v[1-9]$", row.proname) or row.proname in {"embed_text", "keep_text"}, row.proname
        if row.proname == "ask_v1":  # which waits for what another session commits
            assert (row.provolatile, row.proparallel) == ("v", "u")
        elif row.returns not in {"trigger", "void"} and not row.proname.startswith(("drop_", "queue_")):
            assert (row.provolatile, row.proparallel) == ("s", "u" if row.proname in alone else "s"), row.proname


def test_every_relation_is_explained_and_readable(connection: Connection) -> None:
    """By every role, since triggers run with the writer's rights; but for what holds keys of the application's rows."""
    rows = connection.exec_driver_sql(
        "SELECT relname, obj_description(oid, 'pg_class') AS comment, relacl::text AS acl FROM pg_class "
        "WHERE relnamespace = 'pgmrl'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'alembic_version'"
    ).all()
    assert {row.relname for row in rows} >= {"rotations", "axes", "columns"}
    for row in rows:
        assert row.comment, row.relname
        for_all = ",=r/" in (row.acl or "") or "{=r/" in (row.acl or "")
        assert for_all == (row.relname not in {"backfills", "backfill_ranges", "embedding_queue"}), row.relname


def test_the_newest_revision() -> None:
    """The constant is the migrations' only head: a second would break `alembic upgrade head`."""
    assert ScriptDirectory(str(database.migrations_path())).get_heads() == [database.NEWEST_REVISION]


@pytest.mark.parametrize("up", [True, False])
def test_no_colon_is_taken_for_a_parameter(up: bool) -> None:
    """Alembic takes a colon before a word for one, as in `ids[:n]`; the bound is written out, `ids[1:n]`."""
    for revision in database.REVISIONS:
        for statement in database.revision_statements(revision, up):
            assert text(statement).compile().params == {}, statement


@pytest.mark.parametrize(("revision", "remedy"), [("0000", "run `pgmrl upgrade`"), ("9999", "install the version")])
def test_another_revision_is_refused(connection: Connection, revision: str, remedy: str) -> None:
    """Of an older pgmrl, or a newer one; what to do about it differs."""
    database.require_schema(connection)
    connection.exec_driver_sql(f"UPDATE pgmrl.alembic_version SET version_num = '{revision}'")
    with pytest.raises(NotMigrated, match=f"expected revision 0001, got {revision}: {remedy}"):
        database.require_schema(connection)


def test_a_newer_schema_is_left_alone(connection: Connection) -> None:
    """Of a newer pgmrl: neither brought further nor taken down by what does not know it."""
    before = catalogue(connection)
    connection.exec_driver_sql("UPDATE pgmrl.alembic_version SET version_num = '9999'")
    with pytest.raises(NotMigrated, match="got 9999: install the version of pgmrl that brought it"):
        database.upgrade(connection)
    with pytest.raises(DefinitionError, match=r"expected one of the revisions 0001, got '9999'"):
        database.downgrade(connection)
    connection.exec_driver_sql(f"UPDATE pgmrl.alembic_version SET version_num = '{database.NEWEST_REVISION}'")
    assert catalogue(connection) == before


def test_an_unknown_revision_is_refused(empty: Engine) -> None:
    """By the names of those that there are, and before anything is made."""
    with empty.begin() as opened:
        with pytest.raises(DefinitionError, match=r"expected one of the revisions 0001, head, got '0000'"):
            database.upgrade(opened, "0000")
        assert database.installed_revision(opened) is None
