"""Operators, functions, types and views of somebody else's that fit better than the server's own: none of them runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, select
from sqlalchemy.exc import DBAPIError

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import (
    FilterIndex,
    FullText,
    Nearest,
    SqlFunctions,
    Weighted,
    Words,
    check_schema,
    database,
    evaluate,
    explain,
    fit_rotation,
    ingest,
    install_functions,
    load_settings,
    more_like_this,
    reflect,
    search,
    search_diverse,
    search_funnel,
    search_groups,
    search_hybrid,
    search_many,
)
from pgmrl.database.settings import Setting, forget_setting, store_setting
from pgmrl.doctor import Thresholds, doctor, health
from pgmrl.embedders.token_model import load_token_model
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.evaluation import Judged, Query
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import functions
from pgmrl.functions.named_queries import add_query, queries, remove_query
from pgmrl.functions.text_models import install_model, models, remove_model
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.history import recall_history
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short
from pgmrl.tune.tuning import tune
from tests.cli import run
from tests.databases import connected, new_database, shared_database
from tests.hostile import called, fill_with_strangers, temporary_strangers
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from pgmrl.local import LocalServer

HOSTILE = "hostile_names"
ROWS = 400
VECTOR = json.dumps([1, 2, 3, 4, 5, 6, 7, 8])


def tables(rotation: Rotation) -> tuple[Table, Table]:
    """Kept by the server, and by a trigger; each name has its schema."""
    metadata = MetaData(schema="public")
    docs, notes = (
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("section", Text),
            Column("words", FullText("section", config="simple")),
            Column("e", Matryoshka(8, Short(4, rule), vector_schema="extensions", filters=[FilterIndex("section")])),
        )
        for name, rule in (("docs", Prefix()), ("notes", rotation))
    )
    return docs, notes


def _fill(engine: Engine, rotation: Rotation) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, 8))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA extensions")
        connection.exec_driver_sql("CREATE EXTENSION vector SCHEMA extensions")
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = public, extensions")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET track_functions = 'all'")
        database.upgrade(connection)
        database.install_rotation(connection, rotation)
        for table in tables(rotation):
            table.create(connection)
            rows = [{"id": n, "section": "ab"[n % 2], "e": vector} for n, vector in enumerate(vectors)]
            connection.execute(table.insert(), rows)
        connection.exec_driver_sql(
            "CREATE TABLE public.parts (id bigserial PRIMARY KEY, doc int NOT NULL REFERENCES public.docs "
            "ON DELETE CASCADE, ordinal int, start int, stop int, text text)"
        )
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
        assert fill_with_strangers(connection, "extensions") > 1_000


@pytest.fixture(scope="module")
def hostile(server: LocalServer, small_rotation: Rotation) -> str:
    """The database that each test has a copy of: strangers in `public`, pgvector behind it on the path."""
    shared_database(server, HOSTILE, lambda engine: _fill(engine, small_rotation), template="template0")
    return HOSTILE


@pytest.fixture
def place(server: LocalServer, hostile: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """A copy for the command line; settings of the database do not come with the copy."""
    with new_database(server, "strangers", template=hostile) as url, connected(url) as engine:
        name = engine.url.database
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = public, extensions")
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET track_functions = 'all'")
        engine.dispose()
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        write_model(tmp_path / "small")
        (tmp_path / "rows.jsonl").write_text(json.dumps({"id": 1000, "section": "a", "v": [1, 2, 3, 4, 5, 6, 7, 8]}))
        yield engine


def test_the_strangers_are_found_where_nothing_is_pinned(place: Engine) -> None:
    """The canary sings: what the doctor asked once, asked as it was."""
    with place.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM pg_class AS c WHERE c.oid = 1259")
        connection.exec_driver_sql("SELECT e <=> e FROM docs LIMIT 1")
    place.dispose()
    assert {"public.= oid, integer", "public.<=> extensions.halfvec, extensions.halfvec"} <= {*called(place)}


COMMANDS: dict[str, list[list[Any]]] = {
    "columns": [["columns"], ["columns", "--json"]],
    "doctor": [["doctor"], ["doctor", "public.notes.e", "--json"], ["doctor", "docs.e", "--prometheus"]],
    "doctor --measure": [["doctor", "--measure", "--nagios"], ["doctor", "--history"]],
    "search": [["search", "docs.e", "--vector", VECTOR], ["search", "notes.e", "--vector", VECTOR, "--compare"]],
    "explain": [["explain", "docs.e", "--vector", VECTOR], ["explain", "notes.e", "--vector", VECTOR, "--plan"]],
    "recall": [["recall", "docs.e", "--sample", 10, "--record"], ["recall", "notes.e", "--sample", 10]],
    "tune": [["tune", "docs.e", "--sample", 20, "--dims", "2,4", "--seconds", 30, "--apply"]],
    "fit-rotation": [["fit-rotation", "docs.e", "--axes", 4, "--install"]],
    "upgrade": [["upgrade"]],
    "check-migration": [["check-migration", "docs.e", "--short-dims", 2]],
    "backfill": [["backfill", "notes.e"], ["progress"], ["backfill", "notes.e", "--status"]],
    "embed": [
        ["embed", "docs.e", "--install", "--text", "{section} {id}", "--by", "tests.letters:Letters", "--all"],
        ["embed", "docs.e", "--embedder", "tests.letters:Letters"],
        ["embed", "--status"],
        ["embed", "docs.e", "--parked"],
        ["embed", "docs.e", "--install", "--to", "e2", "--text", "{section} {id}", "--by", "tests.letters:Letters"],
        ["embed", "docs.e2", "--embedder", "tests.letters:Letters"],
        ["compare", "docs.e", "docs.e2", "--sample", 5, "--k", 3],
        ["embed", "docs.e", "--drop"],
    ],
    "chunk": [
        ["chunk", "parts", "--install", "--text", "{section} {id}", "--by", "characters", "--size", 4],
        ["chunk", "parts"],
        ["chunk", "parts", "--install", "--text", "{section} {id}!", "--by", "characters", "--size", 4],
        ["chunk", "parts"],
        ["embed", "--status"],
        ["chunk", "parts", "--drop"],
    ],
    "reshape": [
        ["reshape", "start", "docs.e", "--short-dims", 2],
        ["reshape", "status", "docs.e"],
        ["reshape", "contract", "docs.e", "--wait-seconds", 0.1],
    ],
    "--where": [
        ["search", "docs.e", "--vector", VECTOR, "--where", "section = 'a'"],
        ["explain", "docs.e", "--vector", VECTOR, "--where", "section = 'a'"],
        ["recall", "docs.e", "--sample", 10, "--where", "section = 'a'"],
    ],
    "functions": [
        ["functions", "install", "docs.e", "--filter", "section", "--related", 3],
        ["functions", "list"],
        ["functions", "drop", "docs.e"],
    ],
    "model": [
        ["model", "install", "small"],
        ["model", "keep", "docs.e", "--model", "small", "--text", "{section}: {id}"],
        ["functions", "install", "docs.e", "--model", "small"],
        ["model", "list"],
        ["functions", "drop", "docs.e"],
        ["model", "keep", "docs.e", "--stop"],
        ["model", "remove", "small"],
    ],
    "query": [
        ["query", "add", "docs.e", "--name", "one", "--vector", VECTOR],
        ["query", "list"],
        ["query", "remove", "docs.e", "one"],
    ],
    "load": [
        ["load", "rows.jsonl", "--table", "docs", "--vector-column", "v", "--column", "e", "--key", "id"],
        [
            "load",
            "rows.jsonl",
            "--table",
            "fresh",
            "--vector-column",
            "v",
            "--column",
            "e",
            "--key",
            "id",
            "--short-dims",
            4,
        ],
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_runs_them(place: Engine, name: str) -> None:
    """As a superuser whose path leads through a schema in which others may create."""
    for command in COMMANDS[name]:
        result = run(*command)
        assert result.exit_code in {0, 10, 20}, (command, result.output)
        assert "the check failed" not in result.output
        assert "does not exist" not in result.output, (command, result.output)
    own = "public.zz_pgmrl_docs_e2_"  # the trigger that keeps the new column's short vectors
    assert [function for function in called(place) if not function.startswith(own)] == []


def test_distribute_runs_none(place: Engine) -> None:
    """It looks for Citus first."""
    with pytest.raises(MigrationError, match="expected the extension citus"):
        run("distribute", "docs", "--by", "id", "--dry-run")
    assert called(place) == []


def test_a_worker_runs_none(place: Engine) -> None:
    """`pgmrl query serve`, and the function that asks it."""
    model = "tests.letters:Letters"
    assert run("functions", "install", "docs.e", "--model", model).exit_code == 0
    command = [sys.executable, "-m", "pgmrl.cli", "query", "serve", "docs.e", "--embedder", model]
    served = "SELECT count(*) FROM pg_locks WHERE classid = 1346830335"
    with subprocess.Popen(command) as process:  # noqa: S603
        with place.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET search_path = pg_catalog")
            while not connection.exec_driver_sql(served).scalar():
                assert process.poll() is None
                time.sleep(0.02)
            connection.exec_driver_sql("RESET search_path")
            connection.exec_driver_sql("SET pgmrl.question_seconds = 60")
            for words in ("game", "trains", "game"):
                assert connection.exec_driver_sql(f"SELECT * FROM public.docs_search_text('{words}', 3)").all()
        process.terminate()
        assert process.wait(60) == 0
    place.dispose()
    own = "public.docs_search"  # the functions that were installed just now
    assert [name for name in called(place) if not name.startswith(own)] == []


# -- in an application's own connection ----------------------------------------------------------------------------


def _measured(connection: Connection, docs: Table, _: Table) -> None:
    recall = measure_recall(connection, docs.c.e, queries=10)
    record_recall(connection, docs.c.e, recall)
    assert recall_history(connection, docs.c.e)


def _settings(connection: Connection, docs: Table, _: Table) -> None:
    store_setting(connection, docs.c.e, Setting(10, 100, 100))
    assert load_settings(connection, docs.c.e)
    forget_setting(connection, docs.c.e)


def _functions(connection: Connection, docs: Table, notes: Table) -> None:
    for table in (docs, notes):
        install_functions(connection, table.c.e, SqlFunctions(filters=("section", "id in"), related=2))
        calls = [
            f"{table.name}_search('{VECTOR}', 5, section => 'a')",
            f"{table.name}_search('{VECTOR}', 5, id_any => ARRAY[1, 2, 3])",
            f"{table.name}_search_diverse('{VECTOR}', 5)",
            f"{table.name}_similar(1)",
            f"{table.name}_related LIMIT 2",
        ]
        for call in calls:
            assert connection.exec_driver_sql(f"SELECT * FROM public.{call}").all()
    assert functions(connection)
    add_query(connection, docs.c.e, "one", np.arange(1.0, 9))
    assert queries(connection)
    assert connection.exec_driver_sql("SELECT * FROM public.docs_search_named('one')").all()
    remove_query(connection, docs.c.e, "one")
    assert drop_functions(connection, docs.c.e)


def _embedded(connection: Connection, docs: Table, _: Table) -> None:
    install_model(connection, "small", load_token_model("small"))
    connection.exec_driver_sql("SELECT pgmrl.keep_text('public.docs', 'e', '{section}: {id}', 'small')")
    connection.exec_driver_sql("INSERT INTO public.docs (id, section) VALUES (2000, 'game with trains')")
    connection.exec_driver_sql("UPDATE public.docs SET section = 'trains' WHERE id = 2000")
    install_functions(connection, docs.c.e, SqlFunctions(group_by="section", words="words", model="small"))
    for call in ("search_text('train Ж', 5)", "search_groups_text('<s>train', 2)", "hybrid_text('trains', 5)"):
        assert connection.exec_driver_sql(f"SELECT * FROM public.docs_{call}").all()
    drop_functions(connection, docs.c.e)
    connection.exec_driver_sql("SELECT pgmrl.keep_text('public.docs', 'e', NULL)")
    assert models(connection)
    assert remove_model(connection, "small")


def _migrated(connection: Connection, _docs: Table, _notes: Table) -> None:
    context = MigrationContext.configure(connection)
    op: Any = Operations(context)
    definition = Definition.of(8, Short(2), "cosine", vector_schema="extensions")
    with context.begin_transaction():
        op.add_short("docs", "e", definition, schema="public", online=True)
        op.backfill_short("docs", "e", definition, schema="public")
        op.validate_short("docs", "e", definition, schema="public")
        op.create_short_index("docs", "e", definition, schema="public")
        by_section = FilterIndex("section")
        op.create_short_index("docs", "e", definition, index=by_section, schema="public")
        op.rebuild_short_index("docs", "e", definition, index=FilterIndex("section", include=["e"]), schema="public")
        op.drop_short_index("docs", "e", definition, index=by_section, schema="public")
        op.drop_short("docs", definition.short_name("e"), schema="public")


def _searched(connection: Connection, docs: Table, notes: Table) -> None:
    for table in (docs, notes):
        statement = search(select(table.c.id).where(table.c.id > 5), table.c.e, np.arange(1.0, 9), k=5)
        assert len(connection.execute(statement).all()) == 5


def _shapes(connection: Connection, docs: Table, notes: Table) -> None:
    query, several = np.arange(1.0, 9), np.random.default_rng(1).normal(size=(3, 8))
    for table in (docs, notes):
        plain = select(table.c.id)
        for statement in (
            search(plain, table.c.e, query, exact=True),
            search(plain, table.c.e, query, k=300, shortlist=2_000),
            search(plain.where(table.c.id < 3), table.c.e, query),
            search_many(plain, table.c.e, several, k=3),
            search_groups(plain, table.c.e, query, table.c.section, k=2),
            search_diverse(plain, table.c.e, query, k=3),
            search_hybrid(plain, [Nearest(table.c.e, query), Nearest(table.c.e, several[0])], k=3),
            search_hybrid(plain, [Nearest(table.c.e, query), Nearest(table.c.e, several[0])], k=3, fuse=Weighted()),
            *(
                search_hybrid(plain, [Nearest(table.c.e, query), Words(table.c.words, "a", match=match)], k=3)
                for match in ("any", "all", "web")
            ),
            search(plain, table.c.e, more_like_this(table.c.e, [7, 8], unlike=[9]), similarity="alike", counts=True),
            search(plain, table.c.e, query, k=3, after=(0.0, 1), max_distance=2.0),
            *([] if table is notes else [search_funnel(plain, table.c.e, query, [(6, 20)], k=3)]),
        ):
            assert connection.execute(statement).all()


def _evaluated(connection: Connection, docs: Table, notes: Table) -> None:
    queries = [Query(str(n), None, np.arange(1.0, 9) * n) for n in (1, 2)]
    for table in (docs, notes):
        evaluate(connection, table.c.e, Judged(queries, {"1": {"3": 1}, "2": {"4": 1}}), dims=[2])


CALLS: dict[str, Callable[[Connection, Table, Table], object]] = {
    "columns": lambda c, _d, _n: database.columns(c),
    "check_schema": lambda c, d, n: (check_schema(c, d.c.e), check_schema(c, n.c.e)),
    "reflect": lambda c, _d, _n: (reflect(c, "docs.e"), reflect(c, "notes.e")),
    "settings": _settings,
    "doctor": lambda c, d, n: doctor(c, d.c.e, n.c.e, thresholds=Thresholds(small_rows=100, rotation_rows=100)),
    "doctor of all": lambda c, _d, _n: (doctor(c), health(c)),
    "recall": _measured,
    "fit_rotation": lambda c, _d, n: fit_rotation(c, n.c.e, axes=4),
    "tune": lambda c, d, _n: tune(c, d.c.e, queries=20, dims=[2, 4], seconds=20),
    "explain": lambda c, d, _n: explain(c, search(select(d.c.id), d.c.e, np.arange(1.0, 9))),
    "search": _searched,
    "shapes": _shapes,
    "evaluate": _evaluated,
    "ingest": lambda c, _d, n: ingest(c, n.c.e, [{"id": 2000, "section": "a", "e": np.arange(1.0, 9)}]),
    "functions": _functions,
    "models": _embedded,
    "operations": _migrated,
    "upgrade": lambda c, _d, _n: database.upgrade(c),
    "rotations": lambda c, _d, n: database.with_axes(c, Rotation(n.c.e.info["pgmrl"].definition.short.by.id)),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_runs_them(place: Engine, small_rotation: Rotation, name: str) -> None:
    """Temporary views in place of the catalogue's tables as well; and the caller's path is there again afterwards."""
    docs, notes = tables(small_rotation)
    with place.connect() as connection:
        temporary_strangers(connection)
        connection.commit()
        CALLS[name](connection, docs, notes)
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "public, extensions"
        assert not connection.info.keys() & {"pgmrl_caller_path"}
    place.dispose()
    assert called(place) == []


@pytest.mark.parametrize("autocommit", [False, True])
def test_the_path_comes_back_after_an_error(place: Engine, autocommit: bool) -> None:
    """Of Python's or of the server's, in a transaction, a savepoint, or in autocommit."""
    level = "AUTOCOMMIT" if autocommit else "READ COMMITTED"
    with place.connect().execution_options(isolation_level=level) as connection:
        path = connection.exec_driver_sql("SHOW search_path").scalar_one()
        with pytest.raises(NotMigrated):
            reflect(connection, "nothing.e")
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == path
        savepoint = nullcontext() if autocommit else connection.begin_nested()
        with pytest.raises(DBAPIError), savepoint, database.pinned(connection):
            connection.exec_driver_sql(
                "SELECT 1 / (CASE WHEN current_setting('search_path') = 'pg_catalog, pg_temp' THEN 0 END)"
            )
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == path
        if autocommit:
            connection.exec_driver_sql("BEGIN")  # of the application's own: it is not ended for it
            database.columns(connection)
            connection.exec_driver_sql("CREATE TABLE public.kept ()")
            connection.exec_driver_sql("ROLLBACK")
            assert connection.exec_driver_sql("SELECT pg_catalog.to_regclass('public.kept')").scalar_one() is None


def test_a_trigger_of_the_applications_finds_what_is_on_its_path(place: Engine) -> None:
    """Rows are written under the path of whoever runs the command, as by the application itself."""
    with place.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE extensions.log (id integer)")
        connection.exec_driver_sql(
            "CREATE FUNCTION public.logged() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END'"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER logged BEFORE INSERT OR UPDATE ON public.notes FOR EACH ROW EXECUTE FUNCTION logged()"
        )
        connection.exec_driver_sql("ALTER TABLE public.notes DISABLE TRIGGER USER")
        connection.exec_driver_sql(
            "UPDATE public.notes SET e_short = NULL WHERE id < 5".replace("e_short", _short(place))
        )
        connection.exec_driver_sql("ALTER TABLE public.notes ENABLE TRIGGER USER")
    for command in (
        ["load", "rows.jsonl", "--table", "notes", "--vector-column", "v", "--column", "e", "--key", "id"],
        ["backfill", "notes.e"],
    ):
        result = run(*command)
        assert result.exit_code == 0, result.output
    with place.connect() as connection:
        assert set(connection.exec_driver_sql("SELECT id FROM extensions.log").scalars()) == {1000, 0, 1, 2, 3, 4}


def _short(engine: Engine) -> str:
    with engine.connect() as connection:
        return next(info.short_column for info in database.columns(connection) if info.table_name == "notes")
