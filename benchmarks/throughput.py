"""Searches a second with 1 to 64 connections, each in a process of its own; and many queries in one statement."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.orm import Session

from benchmarks.data import K
from benchmarks.journal import read
from benchmarks.library import bound
from benchmarks.measure import on_cpu
from pgmrl import SqlFunctions, install_functions, search_many
from pgmrl.model.binary import encode
from pgmrl.model.columns import attachment_of
from pgmrl.model.compat import HalfVector
from pgmrl.model.parameters import binary_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.data import Floats
    from benchmarks.measure import Bench
    from benchmarks.server import Server
    from benchmarks.sides import Effort
    from benchmarks.stack import PgvectorSide, StackSide

    Way = Callable[[str], Callable[[Floats], Any]]

CONNECTIONS: Final = (1, 4, 16, 64)
BATCHES: Final = (10, 100, 1_000)
SECONDS: Final = 3.0
BOUNCER_PORT: Final = 6543


# -- many queries ----------------------------------------------------------------------------------------------------


def many_times(bench: Bench, side: StackSide, effort: Effort, repeats: int) -> None:
    """The same queries in batches of each size and one by one, in turns; time and processor time for each."""
    column, session = side.mapped.embedding, side.session
    stat = Path(f"/proc/{session.execute(text('SELECT pg_backend_pid()')).scalar()}/schedstat")
    queries = np.resize(bench.dataset.queries, (max(BATCHES), bench.dataset.dims))

    def one_by_one() -> int:
        return sum(len(session.execute(side.select(query, effort)).all()) for query in queries)

    def batches(size: int) -> int:
        rows = 0
        for start in range(0, len(queries), size):
            options: Any = {"k": K, "shortlist": effort.shortlist, "ef_search": effort.ef_search}
            statement: Any = search_many(select(side.mapped), column, queries[start : start + size], **options)
            rows += len(session.execute(statement).all())
        return rows

    ways = {"one by one": one_by_one} | {f"batches of {size:,}": partial(batches, size) for size in BATCHES}
    for way in ways.values():
        way()
    for repeat in range(1, repeats + 1):
        for name, way in ways.items():
            start, before = time.perf_counter(), time.process_time_ns() + on_cpu(stat)
            rows = way()
            seconds, ns = time.perf_counter() - start, time.process_time_ns() + on_cpu(stat) - before
            if rows != K * len(queries):
                raise SystemExit(f"{name}: {rows} rows for {len(queries)} queries")
            key = {"name": name, "repeat": repeat, "queries": len(queries), "fingerprint": side.fingerprint}
            bench.journal.write("many", **key, seconds=seconds, cpu_ns=ns)
    bench.say("many queries in one statement: done")


# -- throughput ------------------------------------------------------------------------------------------------------


def throughput(bench: Bench, ours: StackSide, plain: PgvectorSide, efforts: tuple[Effort, Effort], turns: int) -> None:
    """Searches a second of each way and number of connections, in turns.

    Args:
        bench: the journal and the data.
        ours: the library's side.
        plain: the plain side.
        efforts: of each, with about the same recall.
        turns: how often.

    """
    own, other = efforts
    install_functions(ours.connection, ours.mapped.embedding, SqlFunctions())
    # a plain search takes it from its connection, which behind a pooler is anybody's; the library sets its own
    ours.connection.execute(text(f"ALTER DATABASE postgres SET hnsw.ef_search = {other.ef_search}"))
    ways: dict[str, Way] = {
        "pgmrl, built each time": partial(_library, ours, own),
        "halfvec, SQLAlchemy": partial(_pgvector, plain),
        "pgmrl, bare SQL": partial(_bare, _statement(ours, own), ours),
        "halfvec, bare SQL": partial(_plain, plain, other),
        "pgmrl, SQL function": partial(_function, ours, own),
    }
    direct = ours.server.sqlalchemy_url
    urls = dict.fromkeys(ways, direct)
    with _pgbouncer(ours.server) as pooled:
        if pooled is None:
            bench.say("throughput: PgBouncer is not installed, and left out")
        else:
            for name in ("pgmrl, built each time", "halfvec, SQLAlchemy"):
                ways[f"{name}, PgBouncer"], urls[f"{name}, PgBouncer"] = ways[name], pooled
        for turn in range(1, turns + 1):
            for connections in CONNECTIONS:
                for name, way in ways.items():
                    done = _run(way, urls[name], bench.dataset.queries, connections)
                    key = {"name": name, "connections": connections, "turn": turn, "fingerprint": ours.fingerprint}
                    bench.journal.write("throughput", **key, per_second=done / SECONDS)
                bench.say(f"throughput: {connections} connections, turn {turn} of {turns}")


def _run(way: Way, url: str, queries: Floats, connections: int) -> int:
    """How many searches so many processes make within `SECONDS`."""
    context = multiprocessing.get_context("fork")
    ready, counts = context.Barrier(connections), context.SimpleQueue()
    arguments = (way, url, queries, ready, counts)
    processes = [context.Process(target=_client, args=(*arguments, number)) for number in range(connections)]
    for process in processes:
        process.start()
    done = sum(int(counts.get()) for _ in processes)
    for process in processes:
        process.join()
    return done


def _client(way: Way, url: str, queries: Floats, ready: Any, counts: Any, number: int) -> None:
    done = 0
    try:
        ask = way(url)
        for query in queries[:10]:
            ask(query)
        ready.wait(120)
        end, place = time.perf_counter() + SECONDS, number * 7
        while time.perf_counter() < end:
            ask(queries[(place + done) % len(queries)])
            done += 1
    finally:
        counts.put(done)


def _session(url: str) -> Session:
    # a pooler's connection may have the statements of others: psycopg prepares none there
    prepared = {"prepare_threshold": None if make_url(url).port == BOUNCER_PORT else 0}
    engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=prepared)
    return Session(engine.connect())


def _library(side: StackSide, effort: Effort, url: str) -> Callable[[Floats], Any]:
    session = _session(url)
    return lambda query: session.execute(side.select(query, effort)).all()


def _pgvector(side: PgvectorSide, url: str) -> Callable[[Floats], Any]:
    session, item = _session(url), side.item

    def ask(query: Floats) -> Any:
        return session.execute(select(item).order_by(item.embedding.cosine_distance(query)).limit(K)).all()

    return ask


def _connection(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(f"host={make_url(url).query['host']} user=postgres dbname=postgres", autocommit=True)
    register_vector(connection)
    return connection


def _statement(side: StackSide, effort: Effort) -> tuple[str, list[str]]:
    compiled = side.select([1.0] * side.rotation.required_axes().shape[1], effort).compile(side.connection.engine)
    return str(compiled), list(bound(compiled))


def _bare(statement: tuple[str, list[str]], side: StackSide, url: str) -> Callable[[Floats], Any]:
    cursor = _connection(url).cursor(binary=True)
    sql, names = statement
    definition = attachment_of(side.mapped.embedding).definition

    def ask(query: Floats) -> Any:
        full = binary_value(encode(query, "halfvec"), "halfvec")
        short = binary_value(encode(definition.shorten(query), "halfvec"), "halfvec")
        values = {name: short if "short" in name else full for name in names}
        return cursor.execute(sql.encode(), values, prepare=True).fetchall()

    return ask


def _plain(side: PgvectorSide, effort: Effort, url: str) -> Callable[[Floats], Any]:
    cursor, sql = _connection(url).cursor(binary=True), side.statement(effort).encode()
    return lambda query: cursor.execute(sql, {"query": HalfVector(query)}, prepare=True).fetchall()


def function_call(side: StackSide, effort: Effort) -> bytes:
    """A search by the installed function."""
    return f"SELECT id, distance FROM {side.table.name}_search(%(query)b, {K}, {effort.shortlist})".encode()


def _function(side: StackSide, effort: Effort, url: str) -> Callable[[Floats], Any]:
    cursor, sql = _connection(url).cursor(binary=True), function_call(side, effort)
    return lambda query: cursor.execute(sql, {"query": HalfVector(query)}, prepare=True).fetchall()


@contextmanager
def _pgbouncer(server: Server) -> Iterator[str | None]:
    """The URL of a PgBouncer in transaction mode with 16 connections to the server; None where it is not installed."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        yield None
        return
    config = server.data.parent / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={server.data} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {BOUNCER_PORT}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
        "default_pool_size = 16\nmax_client_conn = 200\nlogfile =\npidfile =\n"
    )
    config.chmod(0o644)
    options = server.unprivileged()
    process = subprocess.Popen(  # noqa: S603 - the system's own program
        [program, "-q", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        time.sleep(1)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{BOUNCER_PORT}/postgres"
    finally:
        process.terminate()
        process.wait(20)


# -- report ----------------------------------------------------------------------------------------------------------

MANY_HEADINGS: Final = ("many queries", "ms for each", "of one by one", "processor ms for each", "of one by one")
HEADINGS: Final = ("searches a second", *(f"{connections} connections" for connections in CONNECTIONS))
NOTE: Final = """\
Each connection is a process of its own, on the machine of the server, at the least effort measured that reaches .98;
medians of the turns. PgBouncer pools transactions on 16 connections, behind it psycopg prepares nothing.
"""


def many_rows(path: Path) -> list[tuple[str, ...]]:
    """One row for each size of batch."""
    times: dict[str, list[tuple[float, float]]] = {}
    for record in read(path):
        if record["kind"] == "many" and "cpu_ns" in record:
            both = 1e3 * record["seconds"], record["cpu_ns"] / 1e6
            times.setdefault(record["name"], []).append((both[0] / record["queries"], both[1] / record["queries"]))
    medians = {name: [median(column) for column in zip(*values, strict=True)] for name, values in times.items()}
    single = medians.get("one by one", [])
    return [
        (name, *(part for own, one in zip(each, single, strict=True) for part in (f"{own:.2f}", f"{own / one:.2f}")))
        for name, each in medians.items()
    ]


def rows(path: Path) -> list[tuple[str, ...]]:
    """One row for each way."""
    rates: dict[str, dict[int, list[float]]] = {}
    for record in read(path):
        if record["kind"] == "throughput":
            rates.setdefault(record["name"], {}).setdefault(record["connections"], []).append(record["per_second"])
    return [(name, *(f"{median(found[number]):,.0f}" for number in CONNECTIONS)) for name, found in rates.items()]
