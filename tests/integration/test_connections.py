"""Every public function takes a Connection and a Session of any driver, or refuses with what to give instead."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgmrl import (
    Matryoshka,
    Short,
    SqlFunctions,
    assert_index_used,
    check_schema,
    database,
    evaluate,
    explain,
    fit_rotation,
    ingest,
    install_functions,
    load_settings,
    reflect,
    search,
)
from pgmrl.doctor import doctor, health, measure_columns
from pgmrl.errors import WrongConnection
from pgmrl.evaluation import Judged, Query, selected_judgements
from pgmrl.explanation import plan_text
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import functions
from pgmrl.functions.named_queries import add_query, queries, remove_query
from pgmrl.measure import measure_recall, recall_history, record_recall, sampled_queries, selected_queries
from pgmrl.tune import tune, tune_filtered
from pgmrl.tune.applied_migration import migration
from pgmrl.tune.applying import apply_tuning, reshape_commands
from tests.integration.test_drivers import DRIVERS, socket_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from pgmrl.model.rotation import Rotation

NOTES = Table(
    "notes",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("embedding", Matryoshka(16, Short(4))),
)
EMBEDDING = NOTES.c.embedding
VECTORS = np.random.default_rng(0).normal(size=(1_200, 16)).astype(np.float32)
NEAREST = search(select(NOTES.c.id), EMBEDDING, VECTORS[0])
JUDGED = Judged([Query("a", vector=VECTORS[1])], {"a": {"1": 1}})
NEW = itertools.count(10_000)  # on a Connection ingest commits
TUNED: dict[str, Any] = {"queries": 20, "finalists": 1, "dims": [4], "by": ["prefix"], "types": ["halfvec"]}

FUNCTIONS: dict[Any, Callable[[Any], Any]] = {
    add_query: lambda c: add_query(c, EMBEDDING, "first", VECTORS[0]),
    assert_index_used: lambda c: assert_index_used(c, NEAREST, ignore_cost=True),
    check_schema: lambda c: check_schema(c, EMBEDDING),
    database.check_pgvector: database.check_pgvector,
    database.columns: database.columns,
    database.create_pgvector: database.create_pgvector,
    database.downgrade: lambda c: database.downgrade(c, "0001"),
    database.installed_revision: database.installed_revision,
    database.installed_rotations: database.installed_rotations,
    database.require_schema: database.require_schema,
    database.upgrade: database.upgrade,
    doctor: lambda c: doctor(c, EMBEDDING),
    drop_functions: lambda c: drop_functions(c, EMBEDDING),
    evaluate: lambda c: evaluate(c, EMBEDDING, JUDGED),
    explain: lambda c: explain(c, NEAREST),
    fit_rotation: lambda c: fit_rotation(c, EMBEDDING, axes=4),
    functions: functions,
    health: health,
    install_functions: lambda c: install_functions(c, EMBEDDING, SqlFunctions()),
    load_settings: lambda c: load_settings(c, EMBEDDING),
    measure_recall: lambda c: measure_recall(c, EMBEDDING, queries=5),
    plan_text: lambda c: plan_text(c, NEAREST),
    queries: queries,
    recall_history: lambda c: recall_history(c, EMBEDDING),
    record_recall: lambda c: record_recall(c, EMBEDDING, measure_recall(c, EMBEDDING, queries=5)),
    reflect: lambda c: reflect(c, "notes.embedding"),
    remove_query: lambda c: remove_query(c, EMBEDDING, "first"),
    sampled_queries: lambda c: sampled_queries(c, EMBEDDING, 5),
    selected_judgements: lambda c: selected_judgements(c, "SELECT 'q' AS query, '1' AS document, 1 AS relevance"),
    selected_queries: lambda c: selected_queries(c, EMBEDDING, "SELECT embedding FROM notes", limit=5),
    tune_filtered: lambda c: tune_filtered(c, EMBEDDING, [select(NOTES.c.id).where(NOTES.c.id < 600)], queries=5),
}
OF_PSYCOPG: dict[Any, Callable[[Any], Any]] = {
    ingest: lambda c: ingest(c, EMBEDDING, [{"id": next(NEW), "embedding": VECTORS[0]}]),
    tune: lambda c: tune(c, EMBEDDING, **TUNED),
}
NEED_MORE = {  # they take what another function gave, and a connection as the others do
    apply_tuning,
    database.install_rotation,
    database.installed_rotation,
    database.psycopg_connection,
    database.sqlalchemy_connection,
    database.with_axes,
    measure_columns,  # commits: no Session
    migration,
    reshape_commands,
}
MODULES = (
    "pgmrl",
    "pgmrl.database",
    "pgmrl.doctor",
    "pgmrl.evaluation",
    "pgmrl.explanation",
    "pgmrl.functions.install",
    "pgmrl.functions.named_queries",
    "pgmrl.measure",
    "pgmrl.tune",
    "pgmrl.tune.applying",
)


def named(functions: Any) -> list[Any]:
    """For `parametrize`, by their names."""
    return [pytest.param(function, id=function.__name__) for function in functions]


def test_no_function_is_forgotten() -> None:
    """Each public one that takes a Connection or Session is tried here."""
    public = {
        value
        for module in map(importlib.import_module, MODULES)
        for name in module.__all__
        if inspect.isfunction(value := getattr(module, name))
        and "Connection | Session" in str(getattr(value, "__annotations__", {}).get("connection"))
    }
    assert public - {*FUNCTIONS, *OF_PSYCOPG, *NEED_MORE} == set()


@pytest.fixture(scope="module")
def notes(module_engine: Engine) -> Engine:
    """1,200 rows."""
    with module_engine.begin() as connection:
        NOTES.create(connection)
        connection.execute(NOTES.insert(), [{"id": n, "embedding": vector} for n, vector in enumerate(VECTORS)])
    return module_engine


def address(engine: Engine, driver: str) -> tuple[Any, dict[str, Any]]:
    """The URL for another driver, and what `connect` needs; each names the socket in its own way."""
    url = engine.url.set(drivername=f"postgresql+{driver}")
    if driver != "pg8000":
        return url, {}
    return url.set(query={}), {"unix_sock": socket_of(engine.url.render_as_string(hide_password=False))}


def through(engine: Engine, driver: str, function: Callable[[Any], Any]) -> list[Any]:
    """What a function gives for a Connection and for a Session of a driver; nothing is committed."""
    url, options = address(engine, driver)
    if driver in {"asyncpg", "psycopg_async"}:
        return asyncio.run(_asynchronously(url, function))
    other = create_engine(url, connect_args=options)
    try:
        with other.connect() as connection:
            results = [function(connection)]
        with Session(other) as session:
            return [*results, function(session)]
    finally:
        other.dispose()


async def _asynchronously(url: Any, function: Callable[[Any], Any]) -> list[Any]:
    other = create_async_engine(url)
    try:
        async with other.connect() as connection:
            results = [await connection.run_sync(function)]
        async with AsyncSession(other) as session:
            return [*results, await session.run_sync(function)]
    finally:
        await other.dispose()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("function", named(FUNCTIONS))
def test_every_driver_serves(notes: Engine, driver: str, function: Any) -> None:
    """By a Connection and by a Session, the asynchronous ones by `run_sync`."""
    results = through(notes, driver, FUNCTIONS[function])
    expected = through(notes, "psycopg", FUNCTIONS[function])
    assert [type(result) for result in results] == [type(result) for result in expected]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("function", named(OF_PSYCOPG))
def test_copy_needs_psycopg(notes: Engine, driver: str, function: Any) -> None:
    """One sentence names the driver, the function and the remedy; nothing was sent."""
    if driver == "psycopg":
        through(notes, driver, OF_PSYCOPG[function])
        return
    got = {"psycopg_async": "psycopg, asynchronous", "asyncpg": "asyncpg, asynchronous"}.get(driver, driver)
    expected = rf"{function.__name__} needs a connection of psycopg 3 .*, got one of {got}: with create_engine\("
    with pytest.raises(WrongConnection, match=expected):
        through(notes, driver, OF_PSYCOPG[function])


@pytest.mark.parametrize("function", named({**FUNCTIONS, **OF_PSYCOPG}))
def test_what_is_no_connection_is_refused(notes: Engine, function: Any) -> None:
    """Engines, URLs, drivers' own connections, everything asynchronous: before anything is sent."""
    call = {**FUNCTIONS, **OF_PSYCOPG}[function]
    url = notes.url.set(drivername="postgresql+psycopg_async")

    async def asynchronous() -> None:
        engine = create_async_engine(url)
        sessions = async_sessionmaker(engine)
        async with engine.connect() as connection, sessions() as session:
            scoped = async_scoped_session(sessions, asyncio.current_task)
            for given, remedy in (
                (engine, r"async with engine.connect\(\)"),
                (connection, r"await connection.run_sync\("),
                (session, r"await session.run_sync\("),
                (scoped, r"await session.run_sync\("),
            ):
                _refused(call, given, remedy, copies=function in OF_PSYCOPG)
        await engine.dispose()

    asyncio.run(asynchronous())
    plain = notes.url.set(drivername="postgresql").render_as_string(hide_password=False)
    _refused(call, notes, r"with engine.connect\(\)", copies=function in OF_PSYCOPG)
    _refused(call, plain, r"with create_engine\(", copies=function in OF_PSYCOPG)
    if function is not ingest:  # it takes a connection of psycopg's own
        with psycopg.connect(plain) as connection:
            _refused(call, connection, r"psycopg's Connection: with create_engine\(", copies=function in OF_PSYCOPG)


def _refused(call: Callable[[Any], Any], given: Any, remedy: str, *, copies: bool) -> None:
    with pytest.raises(WrongConnection, match=r"with create_engine\(" if copies else remedy) as raised:
        call(given)
    assert type(given).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_connection_that_is_closed(notes: Engine) -> None:
    """One sentence, instead of SQLAlchemy's."""
    with notes.connect() as connection:
        pass
    with pytest.raises(WrongConnection, match=r"closed: open one with engine.connect\(\)"):
        check_schema(connection, EMBEDDING)


def test_a_scoped_session_is_a_session(notes: Engine) -> None:
    """As Flask-SQLAlchemy has it."""
    session = scoped_session(sessionmaker(notes))
    assert check_schema(session, EMBEDDING) is not None  # type: ignore[arg-type]
    session.remove()


def test_rotations_through_every_driver(notes: Engine, small_rotation: Rotation) -> None:
    """Axes that are installed through one driver are read through it."""

    def there_and_back(connection: Any) -> Any:
        assert database.install_rotation(connection, small_rotation)
        return database.installed_rotation(connection, str(small_rotation.id)).id

    for driver in DRIVERS:
        assert through(notes, driver, there_and_back) == [small_rotation.id] * 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_servers_code_of_an_error(notes: Engine, driver: str) -> None:
    """By which locks are waited for and timeouts explained."""

    def fail(connection: Connection | Session) -> str | None:
        with pytest.raises(DBAPIError) as raised:
            database.sqlalchemy_connection(connection).exec_driver_sql("SELECT 1 / 0")
        return database.sqlstate(raised.value)

    assert through(notes, driver, fail) == ["22012"] * 2
