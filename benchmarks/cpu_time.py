"""The processor time of one search, of the client and of its server process, which other jobs change least.

Each way asks the same queries in turns, at efforts of about the same recall: 80 for the library and for `halfvec`, 120
for `vector`. The garbage collector runs as it does in an application.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from benchmarks.journal import read
from benchmarks.measure import BLOCK, WARM_UPS, on_cpu
from benchmarks.overhead import FRESH, PREBUILT, psycopg_ways
from benchmarks.sides import Effort
from benchmarks.stack import ASYNC, PREPARED, SYNC
from benchmarks.throughput import function_call
from pgmrl import SqlFunctions, install_functions
from pgmrl.model.compat import HalfVector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.data import Floats
    from benchmarks.measure import Bench
    from benchmarks.sides import PostgresSide, Search
    from benchmarks.stack import PgvectorSide, Sessions, StackSide

HEADINGS: Final = ("way", "client ms", "server ms", "together ms", "of `halfvec`'s, same stack", "of `vector`'s")
PLAIN: Final = {"halfvec": 80, "vector": 120}
SESSIONS: Final = {
    "pgmrl, a Session and its transaction for each": "READ COMMITTED",
    "pgmrl, a Session for each, autocommit": "AUTOCOMMIT",
}


class Way(NamedTuple):
    """One way to ask.

    Attributes:
        search: from the query to its rows.
        backend: process id of its server process.

    """

    search: Search
    backend: int


def cpu_times(
    bench: Bench, ours: StackSide, plain: Mapping[str, PgvectorSide], bare: PostgresSide, repeats: int
) -> None:
    """Ask in every way, in turns; one line of the journal for each way, repeat and block.

    Args:
        bench: the journal and the data.
        ours: the library's side.
        plain: the plain sides, by type.
        bare: the library's statement without its fallback, in bare SQL.
        repeats: how often every query is asked.

    """
    with ours.server.connect() as connection, ExitStack() as stack:
        ways = _ways(bench, ours, plain, bare, connection)
        for name, isolation in SESSIONS.items():
            ways[name] = _session_each(ours, isolation, stack)
        for repeat in range(1, repeats + 1):
            for first in range(0, bench.queries, BLOCK):
                order = list(ways)
                random.Random(f"{repeat} {first}").shuffle(order)  # noqa: S311 - an order to measure in
                for name in order:
                    ask(bench, "cpu", name, ways[name], repeat, first)
            bench.say(f"cpu: {repeat} of {repeats}")


def _ways(
    bench: Bench, ours: StackSide, plain: Mapping[str, PgvectorSide], bare: PostgresSide, connection: Any
) -> dict[str, Way]:
    psycopg = connection.info.backend_pid
    ways = {
        name: Way(search, psycopg) for name, search in psycopg_ways(ours, connection, bench.dataset.queries[0]).items()
    }
    for name, effort in {"": FRESH, "prebuilt": PREBUILT}.items():
        for kind in ("", ASYNC):
            variant = ", ".join(part for part in (kind, name) if part)
            search = ours.prepare(Effort(effort.ef_search, effort.shortlist, variant))
            ways[f"pgmrl, {variant or 'built each time'}"] = Way(search, _backend(ours.sessions, variant))
    for name, side in plain.items():
        for variant in ("", SYNC, ASYNC):
            search = side.prepare(Effort(PLAIN[name], variant=variant))
            backend = _backend(side.sessions, variant) if variant else side.connection.info.backend_pid
            ways[f"{name}, {variant or 'bare SQL'}"] = Way(search, backend)
    install_functions(ours.connection, ours.mapped.embedding, SqlFunctions())
    cursor, sql = connection.cursor(binary=True), function_call(ours, FRESH)
    called = partial(_called, cursor, sql)
    ways["pgmrl, SQL function"] = Way(called, psycopg)  # the server shortens the query
    ways["pgmrl, bare SQL without fallback"] = Way(bare.prepare(Effort(80, 80)), bare.connection.info.backend_pid)
    return ways


def _session_each(ours: StackSide, isolation: str, stack: ExitStack) -> Way:
    """A Session for each search, on a pool that has one connection: as a request of a web application has it."""
    options: dict[str, Any] = {"isolation_level": isolation, "pool_size": 1, "connect_args": PREPARED}
    engine = create_engine(ours.server.sqlalchemy_url, **options)
    stack.callback(engine.dispose)

    def ask(query: Floats) -> list[int]:
        with Session(engine) as session:
            return [row[0].id for row in session.execute(ours.select(query, FRESH))]

    with engine.connect() as connection:
        return Way(ask, int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))


def _called(cursor: Any, sql: bytes, query: Floats) -> list[int]:
    return [row[0] for row in cursor.execute(sql, {"query": HalfVector(query)}, prepare=True).fetchall()]


def _backend(sessions: Sessions, variant: str) -> int:
    return int(sessions.execute(variant, text("SELECT pg_backend_pid()"))[0][0])


def ask(bench: Bench, kind: str, name: str, way: Way, repeat: int, first: int) -> None:
    """Ask a block of queries, and write the nanoseconds of each as a line of this kind."""
    stat, clock, client, server = Path(f"/proc/{way.backend}/schedstat"), time.process_time_ns, [], []
    for query in bench.dataset.warm_up[:WARM_UPS]:
        way.search(query)
    for query in bench.dataset.queries[first : min(first + BLOCK, bench.queries)]:
        before, start = on_cpu(stat), clock()
        way.search(query)
        client.append(clock() - start)
        server.append(on_cpu(stat) - before)
    bench.journal.write(kind, name=name, repeat=repeat, first=first, client_ns=client, server_ns=server)


# -- report ----------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[tuple[str, ...]]:
    """The table: medians, the cheapest first."""
    records = [record for record in read(path) if record["kind"] == "cpu"]
    newest = [record for record in records if record["run"] == records[-1]["run"]]  # none of none
    times: dict[str, tuple[list[int], list[int]]] = {}
    for record in newest:
        client, server = times.setdefault(record["name"], ([], []))
        client += record["client_ns"]
        server += record["server_ns"]
    found = {name: (median(client) / 1e6, median(server) / 1e6) for name, (client, server) in times.items()}
    together = {name: client + server for name, (client, server) in found.items()}
    return [
        (
            name,
            *(f"{milliseconds:.2f}" for milliseconds in (*found[name], together[name])),
            *(f"{together[name] / together[_peer(name, kind)]:.2f}" for kind in PLAIN),
        )
        for name in sorted(together, key=lambda name: together[name])
    ]


def _peer(name: str, kind: str) -> str:
    """What a way is compared with: plain pgvector in the same stack."""
    if name.startswith("psycopg") or "SQL " in f"{name} ":
        return f"{kind}, bare SQL"
    return f"{kind}, {ASYNC if ASYNC in name else SYNC}"
