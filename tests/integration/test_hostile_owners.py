"""Objects under pgmrl's names that belong to somebody else, what strangers see, and what they cannot hide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import (
    SqlFunctions,
    check_schema,
    database,
    fit_rotation,
    ingest,
    install_functions,
    load_settings,
    search,
)
from pgmrl.database.settings import Setting, store_setting
from pgmrl.doctor import doctor
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.functions.named_queries import add_query, queries
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.history import recall_history
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.shortening import Prefix, Rotation, Short
from pgmrl.names import quoted
from pgmrl.online.backfill import backfill, short_fill
from pgmrl.online.jobs import jobs
from pgmrl.online.target import Target
from tests.cli import ok, ok_json, run
from tests.databases import connected, new_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgmrl.local import LocalServer

VECTOR = np.arange(1.0, 9)
Role = str


@pytest.fixture
def mallory(engine: Engine) -> Iterator[Role]:
    """An ordinary role that may create in `public` and in the database."""
    name = f"mallory_{engine.url.database}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
        connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {name}")
    yield name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")


def table_of(rule: Rotation | Prefix | None = None, name: str = "docs", schema: str | None = None) -> Table:
    """A table with rows for everybody."""
    return Table(
        name,
        MetaData(schema=schema),
        Column("id", Integer, primary_key=True),
        Column("kind", Text),
        Column("e", Matryoshka(8, Short(4, rule or Prefix(), name="short"))),
    )


def make(engine: Engine, table: Table, rows: int = 20) -> None:
    """The table with rows, and its rotation."""
    by = attachment_of(table.c.e).definition.short.by
    with engine.begin() as connection:
        if isinstance(by, Rotation):
            database.install_rotation(connection, by)
        table.create(connection)
        vectors = np.random.default_rng(0).normal(size=(rows, 8))
        connection.execute(table.insert(), [{"id": n, "kind": "ab"[n % 2], "e": v} for n, v in enumerate(vectors)])


def as_role(engine: Engine, role: Role, *statements: str) -> None:
    """Statements of a role."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        for statement in statements:
            database.execute_plain(connection, statement)


def trigger_function(name: str) -> str:
    """A trigger function of this name, with a body that its owner may change."""
    return f"CREATE FUNCTION public.{quoted(name)}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"


# -- refused -------------------------------------------------------------------------------------------------------

INSTALLERS = {
    "zz_pgmrl_docs_short": "SELECT pgmrl.sync_short_v1('public.docs', 'zz_pgmrl_docs_short', 'e', 'short', 'prefix', "
    "'cosine', 'NULL')",
    "zz_pgmrl_side": "SELECT pgmrl.sync_side_v1('public.docs', 'public.docs_e', 'zz_pgmrl_side', ARRAY['id'], 'e')",
    "zy_pgmrl_docs": "SELECT pgmrl.mirror_full_v1('public.docs', 'zy_pgmrl_docs', 'e', 'other')",
}


@pytest.mark.parametrize("name", INSTALLERS)
def test_a_strangers_trigger_function_is_refused(engine: Engine, mallory: Role, name: str) -> None:
    """Also by a superuser, for whom pg_has_role says yes to everything; and taken where it is one's own."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE docs (id int PRIMARY KEY, e vector(8), short halfvec(4), other vector(8))"
        )
        connection.exec_driver_sql("CREATE TABLE docs_e (id int PRIMARY KEY, e vector(8))")
    as_role(engine, mallory, trigger_function(name))
    with (
        pytest.raises(DBAPIError, match=rf"function public.{name}\(\) belongs to {mallory}") as caught,
        engine.begin() as connection,
    ):
        connection.exec_driver_sql(INSTALLERS[name])
    assert caught.value.orig.sqlstate == "42501"  # type: ignore[union-attr]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER FUNCTION {name}() OWNER TO CURRENT_USER")
        connection.exec_driver_sql(INSTALLERS[name])


def test_create_all_refuses_it(engine: Engine, mallory: Role, small_rotation: Rotation) -> None:
    """The triggers of a model are made by the same function."""
    as_role(engine, mallory, trigger_function("zz_pgmrl_docs_short"))
    with pytest.raises(DBAPIError, match=f"belongs to {mallory}"):
        make(engine, table_of(small_rotation))


def test_a_strangers_side_table_is_refused(engine: Engine, mallory: Role) -> None:
    """Everybody's vectors would be copied into it."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id int PRIMARY KEY, e vector(8))")
    as_role(engine, mallory, "CREATE TABLE public.docs_e (id int PRIMARY KEY, e vector(8))")
    with (
        pytest.raises(DBAPIError, match=f"side table (public.)?docs_e belongs to {mallory}"),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql(INSTALLERS["zz_pgmrl_side"])


def test_strangers_sql_functions_are_refused(engine: Engine, mallory: Role) -> None:
    """Installed by pgmrl itself, in somebody else's name, before a superuser does."""
    docs = table_of()
    make(engine, docs)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {mallory}")
    declared = SqlFunctions(filters=("kind",))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        install_functions(connection, docs.c.e, declared)
    with pytest.raises(MigrationError, match=f"belongs to {mallory}, not to"), engine.begin() as connection:
        install_functions(connection, docs.c.e, declared)
    with engine.begin() as connection:  # as a member of that role they are one's own
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        install_functions(connection, docs.c.e, declared)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("CREATE SCHEMA pgmrl", "schema pgmrl belongs to"),
        ("CREATE TABLE pgmrl.alembic_version (version_num varchar(32) PRIMARY KEY)", "alembic_version in schema pgmrl"),
        (
            "CREATE FUNCTION pgmrl.owns_v1(oid) RETURNS bool LANGUAGE sql RETURN true",
            "function owns_v1 in schema pgmrl",
        ),
    ],
)
def test_a_strangers_schema_is_refused(server: LocalServer, statement: str, what: str) -> None:
    """A superuser's `pgmrl upgrade` would install into it, and whoever owns it could change each function."""
    with new_database(server, "owners", template="template0") as url, connected(url) as engine:
        role = f"mallory_{engine.url.database}"
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role}")
            connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {engine.url.database} TO {role}")
            if "SCHEMA" not in statement:
                connection.exec_driver_sql("CREATE SCHEMA pgmrl")
                connection.exec_driver_sql(f"GRANT ALL ON SCHEMA pgmrl TO {role}")
        as_role(engine, role, statement)
        with pytest.raises(DBAPIError, match=f"{what}.*{role}"), engine.begin() as connection:
            database.upgrade(connection)
        with engine.begin() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_class WHERE relname = 'axes'").scalar_one() == 0
            if "SCHEMA" in statement:  # a member of that role, who is no superuser, installs into what is the role's
                connection.exec_driver_sql("CREATE EXTENSION vector")
                connection.exec_driver_sql(f"CREATE ROLE {role}_member IN ROLE {role}")
                connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {engine.url.database} TO {role}_member")
                connection.exec_driver_sql(f"SET LOCAL ROLE {role}_member")
                database.upgrade(connection)
        with engine.begin() as connection:
            for name in (f"{role}_member", role) if "SCHEMA" in statement else (role,):
                connection.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
                connection.exec_driver_sql(f"DROP ROLE {name}")


# -- found ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("ALTER FUNCTION zz_pgmrl_docs_short() OWNER TO {role}", "function public.zz_pgmrl_docs_short()"),
        ("ALTER SCHEMA pgmrl OWNER TO {role}", "schema pgmrl"),
        ("ALTER FUNCTION pgmrl.rotation_id_v1(text) OWNER TO {role}", "function pgmrl.rotation_id_v1(text)"),
        ("ALTER TABLE pgmrl.axes OWNER TO {role}", "table pgmrl.axes"),
    ],
)
def test_a_strangers_object_is_found(
    engine: Engine, mallory: Role, small_rotation: Rotation, statement: str, what: str
) -> None:
    """By an application's start and by the doctor, each naming object, owner and remedy."""
    docs = table_of(small_rotation)
    make(engine, docs)
    with engine.begin() as connection:
        check_schema(connection, docs.c.e)
        assert not [finding for finding in doctor(connection) if finding.check == "ownership"]
        connection.exec_driver_sql(statement.format(role=mallory))
        pattern = f"{re.escape(what)} belongs to {mallory}.*OWNER TO"
        with pytest.raises(NotMigrated, match=pattern):
            check_schema(connection, docs.c.e)
        found = [finding for finding in doctor(connection) if finding.check == "ownership"]
    assert [finding.values["owner"] for finding in found if re.search(pattern, finding.message + finding.remedy)]


# -- what strangers see --------------------------------------------------------------------------------------------


def test_a_stranger_sees_of_a_backfill_numbers_only(engine: Engine, mallory: Role) -> None:
    """Keys and failing rows' values are the table's; also for a tenant who may read it under row-level security."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id text PRIMARY KEY, e vector(8))")
        connection.exec_driver_sql(
            "INSERT INTO pgmrl.backfills (table_schema, table_name, source_column, target_column, rule, key_columns, "
            "table_oid, target_number, position, rows_estimated, rows_seen, state) SELECT 'public', 'docs', 'e', 's', "
            "'prefix', ARRAY['id text'], 'docs'::regclass, 2, ARRAY['secret'], 100, 50, 'failed: row secret'"
        )
    ask = "SELECT rows_seen, state FROM pgmrl.backfill_progress"
    with engine.begin() as connection:
        assert connection.exec_driver_sql(ask).one() == (50, "failed: row secret")
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        assert connection.exec_driver_sql(ask).one() == (50, "failed")
        assert [job.state for job in jobs(connection)] == ["failed"]
        for table in ("backfills", "backfill_ranges"):
            with pytest.raises(DBAPIError, match="permission denied"), connection.begin_nested():
                connection.exec_driver_sql(f"SELECT * FROM pgmrl.{table}")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {mallory}")
        connection.exec_driver_sql("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        assert connection.exec_driver_sql(ask).one() == (50, "failed")


def test_queries_and_filters_are_for_those_who_may_read_it_all(engine: Engine, mallory: Role) -> None:
    """A question by the vectors' column; a filter, which names values, not under row-level security."""
    docs = table_of()
    make(engine, docs, 60)
    with engine.begin() as connection:
        add_query(connection, docs.c.e, "one", VECTOR, question="who?")
        statement = select(docs.c.id).where(docs.c.kind == "a")
    with engine.connect() as connection:
        recall = measure_recall(connection, docs.c.e, statement, queries=5)
        record_recall(connection, docs.c.e, recall)
        connection.exec_driver_sql(f"GRANT SELECT (id, kind) ON docs TO {mallory}")
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        assert queries(connection) == []
        assert len(recall_history(connection, docs.c.e)) == 1
        connection.exec_driver_sql("RESET ROLE")
        connection.exec_driver_sql(f"GRANT SELECT ON docs TO {mallory}")
        connection.exec_driver_sql("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"SET LOCAL ROLE {mallory}")
        assert [query.name for query in queries(connection)] == ["one"]
        assert recall_history(connection, docs.c.e) == []


# -- what strangers cannot hide ------------------------------------------------------------------------------------

ARRAYS = (
    '"filters": [], "functions": [], "workers": [], "results": [], "views": [], "grant_to": [], "keys": [], "types": []'
)
ODD: dict[str, list[str]] = {
    "no arguments": ["zz_pgmrl_x", "()"],
    "one that is no name": ["zz_pgmrl_x", "('not \"a name')"],
    "one": ["zz_pgmrl_x", "('nowhere')"],
    "three": ["zz_pgmrl_x", "('a', 'b', 'c')"],
    "five": ["zz_pgmrl_x", "('a', 'b', 'c', 'd', 'e')"],
    "another rule": ["zz_pgmrl_x", "('e', 'short', 'rxyz', 'cosine')"],
    "another metric": ["zz_pgmrl_x", "('e', 'short', 'prefix', 'nonsense')"],
    "of the generated column": ["zz_pgmrl_x", "('e', 'short', 'r000000000000', 'cosine')"],
    "of a column that is not there": ["zz_pgmrl_x", "('a', 'b', 'prefix', 'cosine')"],
    "backslashes": ["zz_pgmrl_x", "('e\\', '\\000', '\\x01', 'cosine')"],
    "an embedding of three": ["zx_pgmrl_x", "('e', '{kind}', 'static')"],
    "an embedding of nothing": ["zx_pgmrl_x", "('nowhere', '{\\000', '', 'notify')"],
    "an embedding that notifies otherwise": ["zx_pgmrl_x", "('e', '{kind}', 'static', 'x')"],
    "chunks of six": ["zw_pgmrl_x", "('public', 'docs', '{kind}', 'static', '9', '0')"],
    "chunks of nothing": ["zw_pgmrl_x", "('no', 'where', '{\\000', '', '9', '0', 'notify')"],
    "chunks without numbers": ["zw_pgmrl_x", "('public', 'docs', '{kind}', 'static', 'nine', '', '')"],
    "a mirror of four": ["zy_pgmrl_x", "('a', 'b', 'prefix', 'cosine')"],
    "a mirror of nothing": ["zy_pgmrl_x", "('a', 'b')"],
    "a name with control characters": ["zz_pgmrl_\n\x1b[31m\u202e", "('a', 'b', 'c')"],
}
MARKERS = [
    "{}",
    "{bad}",
    '{"version": 1}',
    f'{{"version": "x", {ARRAYS}}}',
    f'{{"version": 4, {ARRAYS}}}',
    f'{{"version": 4, "name": 1, "schema": [], "table": null, "column": {{}}, "short": 2, {ARRAYS}}}',
    f'{{"version": 1e400, "name": "a", "schema": "a", "table": "a", "column": "a", "short": "a", {ARRAYS}}}',
    '{"version": 4, "filters": {"a": 1}}',
    '{"version": 4, "filters": [[[[[[[[[[1]]]]]]]]]]}',
]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ODD)
def test_an_odd_trigger_blinds_nobody(engine: Engine, name: str) -> None:
    """It is one finding of a check at most, and everything else is checked."""
    docs = table_of()
    make(engine, docs)
    function, arguments = ODD[name]
    with engine.begin() as connection:
        before = {(finding.check, finding.subject) for finding in doctor(connection)}
        database.execute_plain(connection, trigger_function(function))
        database.execute_plain(
            connection,
            f"CREATE TRIGGER {quoted(function)} BEFORE INSERT ON docs FOR EACH ROW "
            f"EXECUTE FUNCTION public.{quoted(function)}{arguments}",
        )
    with engine.connect() as connection:
        report = doctor(connection)
        assert report.not_checked == ()
        said = {(finding.check, finding.subject) for finding in report} - before
        about = {subject for check, subject in said if check == "embeddings"}  # no trigger of it marks an UPDATE's rows
        assert said - {("embeddings", subject) for subject in about} <= {("not-understood", "database")}
        assert len(about) <= function.startswith(("zx_", "zw_"))
        assert [info.short_column for info in database.columns(connection)] == ["short"]
        info = check_schema(connection, docs.c.e)
        assert info is not None
        assert (info.rotation, info.kept_by) == (None, "generated")
    for command in (["doctor"], ["doctor", "--nagios"], ["doctor", "--prometheus"], ["columns"], ["doctor", "--json"]):
        output = run(*command).output
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", output), command
    assert len(ok_json("columns")) == 1


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("marker", MARKERS)
def test_an_odd_marker_blinds_nobody(engine: Engine, marker: str) -> None:
    """A function that begins as a set of pgmrl's does."""
    docs = table_of()
    make(engine, docs)
    with engine.begin() as connection:
        install_functions(connection, docs.c.e)
        body = f"\n-- pgmrl functions {marker}\nBEGIN RETURN 1; END"
        database.execute_plain(connection, f"CREATE FUNCTION odd() RETURNS int LANGUAGE plpgsql AS $odd${body}$odd$")
    with engine.connect() as connection:
        report = doctor(connection)
        assert report.not_checked == ()
        assert "functions" not in [finding.check for finding in report]
        assert [finding.values["function"] for finding in report if finding.check == "not-understood"] == [
            "public.odd()"
        ]
    assert len(ok_json("functions", "list")) > 3


@pytest.mark.usefixtures("place")
def test_a_monitor_is_told_unknown_whatever_fails(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own exit code would say WARNING."""
    for url in ("postgresql://nobody@127.0.0.1:1/nothing", "nonsense"):
        monkeypatch.setenv("DATABASE_URL", url)
        result = run("doctor", "--nagios")
        assert result.exit_code == 3
        assert result.stdout.startswith("PGMRL UNKNOWN - ")
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    assert run("doctor", "--nagios", "no.such\x1b[31m.thing").exit_code == 3
    assert "\x1b" not in run("doctor", "--nagios", "no.such\x1b[31m.thing").output


@pytest.mark.usefixtures("place")
def test_names_reach_no_terminal_and_no_monitor_raw(engine: Engine) -> None:
    """A newline begins a line of its own; an escape sequence rewrites what is there."""
    evil = "a\nb\x1b[2J\x9b\u202e"
    docs = Table(evil, MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with engine.begin() as connection:
        docs.create(connection)
    for command in (
        ["columns"],
        ["columns", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["doctor", "--nagios"],
        ["doctor", "--prometheus"],
        ["search", f"{evil}.e", "--vector", "[1,2,3,4,5,6,7,8]"],
        ["explain", f"{evil}.e", "--vector", "[1,2,3,4,5,6,7,8]"],
    ):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", run(*command).output), command
    assert ok_json("columns")[0]["table_name"] == evil
    assert ok("columns").count(r"\x1b") >= 1


# -- what a DBA grants ---------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_grants_of_the_page_are_enough(server: LocalServer, small_rotation: Rotation) -> None:
    """Its statements for fresh roles, none of which is a superuser; each then does its jobs."""
    with new_database(server, "grants", template="template0") as url, connected(url) as admin:
        prefix = f"shop_{admin.url.database}"
        page = PAGE.replace("shop_", f"{prefix}_")
        setup, defaults = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
        roles = {name: f"{prefix}_{name}" for name in ("owner", "app", "watch")}
        engines = {
            name: create_engine(url, connect_args={"options": f"-c role={role}"}) for name, role in roles.items()
        }
        with admin.begin() as connection:
            database.execute_plain(connection, setup)
        with engines["owner"].begin() as connection:
            database.upgrade(connection)
        with admin.begin() as connection:
            database.execute_plain(connection, defaults)
        try:
            _work(engines, re.findall(r"\| `(GRANT [^`]*)`", page), small_rotation)
        finally:
            for engine in engines.values():
                engine.dispose()
            with admin.begin() as connection:
                for role in roles.values():
                    connection.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
                    connection.exec_driver_sql(f"DROP ROLE {role}")


def _work(engines: dict[str, Engine], grants: list[str], rotation: Rotation) -> None:
    docs, notes = table_of(schema="shop"), table_of(rotation, "notes", "shop")
    with engines["owner"].begin() as connection:
        database.install_rotation(connection, rotation)
        docs.create(connection)
        notes.create(connection)
        install_functions(connection, docs.c.e)
    vectors = np.random.default_rng(0).normal(size=(600, 8))
    with engines["app"].connect() as connection:
        for table in (docs, notes):
            ingest(connection, table.c.e, [{"id": n, "e": vector} for n, vector in enumerate(vectors)])
            assert len(connection.execute(search(select(table.c.id), table.c.e, VECTOR)).all()) == 10
        assert connection.execute(text("SELECT * FROM shop.docs_search(:v)"), {"v": str([*map(float, VECTOR)])}).all()
        check_schema(connection, notes.c.e)
    with engines["watch"].connect() as connection:
        report = doctor(connection)
        assert [entry for entry in report.not_checked if "pg_monitor" not in entry.reason] == []
        assert len(report.columns) == 2
        recall = measure_recall(connection, docs.c.e, queries=10)
    refused: dict[str, Callable[[], Any]] = {
        "recall_history": lambda: _do(engines["watch"], lambda c: record_recall(c, docs.c.e, recall)),
        "settings": lambda: _do(engines["watch"], lambda c: store_setting(c, docs.c.e, Setting(10, 100, 100))),
        "queries": lambda: _do(engines["app"], lambda c: add_query(c, docs.c.e, "one", VECTOR)),
        "axes": lambda: _fit_and_install(engines["app"], docs),
        "backfills": lambda: _backfilled(engines["app"], notes),
    }
    for name, job in refused.items():
        with pytest.raises((DBAPIError, MigrationError), match=r"permission denied|may not"):
            job()
        with engines["owner"].begin() as connection:
            (grant,) = [grant for grant in grants if f"pgmrl.{name}" in grant]
            connection.exec_driver_sql(grant)
        job()
    with engines["app"].connect() as connection:
        assert load_settings(connection, docs.c.e)


def _do(engine: Engine, job: Callable[[Any], Any]) -> None:
    with engine.begin() as connection:
        job(connection)


def _fit_and_install(engine: Engine, table: Table) -> None:
    with engine.connect() as connection:
        rotation = fit_rotation(connection, table.c.e, axes=4).rotation
        connection.rollback()
        database.install_rotation(connection, rotation)
        connection.commit()


def _backfilled(engine: Engine, table: Table) -> None:
    target = Target(table.name, "e", attachment_of(table.c.e).definition, table.schema)
    with engine.connect() as connection:
        fill = short_fill(connection, target)
    assert backfill(engine, fill).finished
