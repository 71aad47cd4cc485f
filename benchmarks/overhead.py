"""What the library adds to bare psycopg: to a search, and to loading rows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, insert, text
from sqlalchemy.orm import Session

from benchmarks import tables
from benchmarks.data import Floats
from benchmarks.library import engine_of, install, model
from benchmarks.measure import BLOCK, WARM_UPS, timed
from benchmarks.sides import Effort, Index, gated
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.binary import encode
from pgmrl.model.columns import attachment_of
from pgmrl.model.parameters import binary_value
from pgmrl.model.shortening import Rotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.library import LibrarySide
    from benchmarks.measure import Bench
    from benchmarks.server import Connection, Server

FRESH: Final = Effort(80, 80)
PREBUILT: Final = Effort(80, 80, "prebuilt")
ORM_ROWS: Final = 3_000
INGEST: Final = "pgmrl_ingest"

Load = Callable[[int], None]


# -- search ----------------------------------------------------------------------------------------------------------


def search_times(bench: Bench, side: LibrarySide, repeats: int) -> None:
    """Ask the same queries in every way, in turns; one line for each way, repeat and block."""
    with side.server.connect() as bare:
        ways = _ways(side, bare, bench.dataset.queries[0])
        for repeat in range(1, repeats + 1):
            for first in range(0, bench.queries, BLOCK):
                order = list(ways)
                random.Random(f"{repeat} {first}").shuffle(order)  # noqa: S311 - an order to measure in
                for name in order:
                    if bench.budget.spent:
                        return
                    _ask(bench, name, ways[name], repeat, first, side.fingerprint)
            bench.say(f"overhead: {repeat} of {repeats}")
    side.close()


def _ask(bench: Bench, name: str, way: Callable[[Floats], Any], repeat: int, first: int, fingerprint: str) -> None:
    key = {"name": name, "repeat": repeat, "first": first, "fingerprint": fingerprint}
    if bench.journal.has("times", **key):
        return
    queries = bench.dataset.queries[first : min(first + BLOCK, bench.queries)]
    for query in bench.dataset.warm_up[:WARM_UPS]:
        way(query)
    nanoseconds, _ = timed(way, queries)
    bench.journal.write("times", **key, ns=nanoseconds)


def _ways(side: LibrarySide, bare: Connection, example: Floats) -> Mapping[str, Callable[[Floats], Any]]:
    """Each takes a query to its rows (or stops short of that, as its name says)."""
    cursor = bare.cursor()
    definition = attachment_of(side.mapped.embedding).definition
    fresh, by_client = _text(side, example, FRESH), _by_client(side, example)

    def run(statement: str, parameters: dict[str, Any]) -> list[Any]:
        cursor.execute(statement, parameters, prepare=True)
        return cursor.fetchall()

    short = definition.short_name("embedding")
    shortlist = (
        f"SELECT count(*) FROM (SELECT id FROM {side.table.name}"
        f" ORDER BY {short} <=> {gated(f'%(short)s::{definition.short_type}', FRESH)} LIMIT 80) AS shortlist"
    )
    return {
        "round trip": lambda _: run("SELECT 1", {}),
        "shortlist alone": lambda query: run(
            shortlist, {"short": binary_value(encode(definition.shorten(query), "halfvec"), "halfvec")}
        ),
        **psycopg_ways(side, bare, example),
        "SQLAlchemy, same text": lambda query: side.connection.exec_driver_sql(fresh[0], by_client(query)).all(),
        "Select built, not executed": lambda query: side.select(query, FRESH),
        "pgmrl, built each time": side.prepare(FRESH),
        "pgmrl, prebuilt": side.prepare(PREBUILT),
    }


def psycopg_ways(side: LibrarySide, bare: Connection, example: Floats) -> dict[str, Callable[[Floats], Any]]:
    """The library's statements in bare psycopg: of a Select that is built each time, and of one that is prebuilt."""
    cursor, definition = bare.cursor(), attachment_of(side.mapped.embedding).definition
    fresh, by_client = _text(side, example, FRESH), _by_client(side, example)
    built = _text(side, bindparam("q"), PREBUILT)

    def together(query: Floats) -> dict[str, Any]:
        both = np.concatenate([query, definition.shorten(query)]).astype(np.float32)
        return {name: binary_value(encode(both, "halfvec"), "halfvec") for name in built[1]}

    return {
        "psycopg, two parameters": lambda query: cursor.execute(fresh[0], by_client(query), prepare=True).fetchall(),
        "psycopg, one parameter": lambda query: cursor.execute(built[0], together(query), prepare=True).fetchall(),
    }


def _by_client(side: LibrarySide, example: Floats) -> Callable[[Floats], dict[str, Any]]:
    """What sends the full and the short vector as two parameters."""
    definition, names = attachment_of(side.mapped.embedding).definition, _text(side, example, FRESH)[1]

    def parameters(query: Floats) -> dict[str, Any]:
        sent = {
            "query": binary_value(encode(query, "halfvec"), "halfvec"),
            "short": binary_value(encode(definition.shorten(query), "halfvec"), "halfvec"),
        }
        return {name: sent["short" if "short" in name else "query"] for name in names}

    return parameters


def _text(side: LibrarySide, query: Any, effort: Effort) -> tuple[str, list[str]]:
    """The statement as SQLAlchemy sends it, and its parameters' names."""
    compiled = side.select(query, effort).compile(side.connection.engine)
    return str(compiled), list(compiled.params)


# -- loading ---------------------------------------------------------------------------------------------------------


def ingest_times(bench: Bench, server: Server, axes: NDArray[np.float16], repeats: int) -> None:
    """Load the same rows in every way into an empty table without an index; one line for each load."""
    rotation = Rotation.of(axes)
    mapped = model(axes.shape[1], rotation, axes.shape[0], Index(), INGEST)
    rows = bench.dataset.rows
    few = min(ORM_ROWS, len(rows))
    engine = engine_of(server)
    transactional = engine.execution_options(isolation_level="READ COMMITTED")
    install(server, rotation)
    with engine.connect() as connection:
        mapped.metadata.drop_all(connection)
        mapped.metadata.create_all(connection)
        next(iter(mapped.__table__.indexes)).drop(connection)  # type: ignore[attr-defined]

    def add_all(count: int) -> None:
        with Session(transactional) as session:
            session.add_all([mapped(id=number, embedding=rows[number]) for number in range(count)])
            session.commit()

    def bulk(count: int) -> None:
        with Session(transactional) as session:
            session.execute(insert(mapped), [{"id": n, "embedding": rows[n]} for n in range(count)])
            session.commit()

    def through_library(count: int) -> None:
        with server.connect() as bare:
            ingest(bare, mapped.embedding, ({"id": n} for n in range(count)), vectors=rows[:count])

    def copy(count: int) -> None:
        definition = attachment_of(mapped.embedding).definition
        with server.connect() as bare, bare.transaction():
            bare.execute("SET LOCAL session_replication_role = replica")
            names = f"id, embedding, {definition.short_name('embedding')}"
            tables.copy(bare, f'"{INGEST}" ({names})', rows[:count], "halfvec", definition.shorten)

    loads: dict[str, tuple[Load, int]] = {
        "ORM: Session.add_all": (add_all, few),
        "ORM: bulk insert": (bulk, few),
        "pgmrl.ingestion.ingest": (through_library, len(rows)),
        "psycopg: binary COPY from arrays": (copy, len(rows)),
    }
    for repeat in range(1, repeats + 1):
        for name, (load, count) in loads.items():
            key = {"name": name, "repeat": repeat, "rows": count}
            if bench.budget.spent or bench.journal.has("ingest", **key):
                continue
            with engine.connect() as connection:
                connection.execute(text(f"TRUNCATE {INGEST}"))
                connection.execute(text("CHECKPOINT"))
            start = time.perf_counter()
            load(count)
            seconds = time.perf_counter() - start
            bench.journal.write("ingest", **key, seconds=seconds)
            bench.say(f"{name}: {count} rows in {seconds:.2f} s")
    engine.dispose()
