"""Searches a second with none, one and two standbys, and how long a commit takes to reach a standby.

    python -m benchmarks.replicas                 20,000 x 768, four clients, ten seconds each
    python -m benchmarks.replicas --report        only the page, of the numbers that are there

All servers are on this machine and share its processors, so that standbys cannot add any: what is to be seen is what a
standby costs, not what it brings where it has a machine of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from sqlalchemy import create_engine, text

from benchmarks.data import debian, principal_axes
from benchmarks.sides import Effort, gated, query_shortener
from benchmarks.tables import Shortened, copy
from pgmrl.database import sqlalchemy_url
from pgmrl.model.compat import HalfVector
from tests.standbys import catch_up, primary_server, streaming_standby

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.data import Dataset

RESULTS: Final = Path(__file__).parent / "results"
SHORTLIST, SHORT = 100, 128
STATEMENT: Final = (
    "SELECT id FROM (SELECT id, embedding <=> %(query)b AS distance FROM (SELECT id, embedding FROM items "
    f"ORDER BY short <=> {gated('%(short)b', Effort(SHORTLIST, SHORTLIST, 'iterate'))} LIMIT {SHORTLIST}"
    ") AS shortlist) AS ranked ORDER BY distance, id LIMIT 10"
)
COMMITS: Final = 200
BATCH: Final = 20
"""Rows of each commit, whose vectors enter the index."""


def connected(url: str) -> psycopg.Connection[Any]:
    """A connection in autocommit with pgvector's types."""
    connection = psycopg.connect(url, autocommit=True)
    register_vector(connection)
    return connection


def load(url: str, dataset: Dataset, short: Shortened) -> None:
    """The table and its index."""
    connection = connected_with_extension(url)
    connection.execute(
        f"CREATE TABLE items (id integer NOT NULL, embedding halfvec({dataset.dims}) STORAGE MAIN, "
        f"short halfvec({SHORT}) STORAGE MAIN)"
    )
    copy(connection, "items (id, embedding, short)", dataset.rows, "halfvec", short.of)
    connection.execute("CREATE INDEX ON items USING hnsw (short halfvec_cosine_ops)")
    connection.execute("VACUUM ANALYZE items")
    connection.close()


def connected_with_extension(url: str) -> psycopg.Connection[Any]:
    """As `connected`, where pgvector is not there yet."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return connected(url)


def client(url: str, pairs: Sequence[tuple[Any, Any]], seconds: float, ready: Any, counts: Any) -> None:
    """Search for some seconds from when all are ready, and say how often."""
    cursor, count = connected(url).cursor(binary=True), 0
    ready.wait()
    until = time.monotonic() + seconds
    for query, short in cycle(pairs):
        if time.monotonic() >= until:
            break
        parameters = {"query": HalfVector(query), "short": HalfVector(short)}
        cursor.execute(STATEMENT, parameters, prepare=True).fetchall()
        count += 1
    counts.put(count)


class Clients:
    """Processes that search on servers in turn, for some seconds."""

    def __init__(self, urls: Sequence[str], pairs: Sequence[tuple[Any, Any]], clients: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.seconds, self._counts = seconds, context.Queue()
        self._ready = context.Barrier(clients)  # kept until the processes, which begin slowly, have it
        self._processes = [
            context.Process(target=client, args=(url, pairs[number::clients], seconds, self._ready, self._counts))
            for number, url in enumerate(islice(cycle(urls), clients))
        ]
        for process in self._processes:
            process.start()

    def searches_a_second(self) -> float:
        """Wait for their end."""
        total = sum(self._counts.get() for _ in self._processes)
        for process in self._processes:
            process.join()
        return float(total / self.seconds)


def delays(primary: str, standby: str, dataset: Dataset, short: Shortened) -> list[float]:
    """Milliseconds from each commit of new rows until a standby has replayed it."""
    found, first = [], len(dataset.rows)
    replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    with connected(primary) as writer, connected(standby) as reader:
        for number in range(COMMITS):
            rows = dataset.rows[BATCH * number : BATCH * (number + 1)]
            with writer.transaction(), writer.cursor() as cursor:
                for row, vector in zip(rows, short.of(rows), strict=True):
                    first += 1
                    values = (first, HalfVector(row.astype(np.float32)), HalfVector(vector.astype(np.float32)))
                    cursor.execute("INSERT INTO items VALUES (%s, %s, %s)", values)
            start = time.perf_counter()
            position = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            while reader.execute(replayed, position).fetchone() != (True,):
                pass
            found.append((time.perf_counter() - start) * 1e3)
    return found


def measure(rows: int, clients: int, seconds: float) -> dict[str, Any]:
    """Everything, on servers of their own."""
    dataset = debian(rows, 400)
    short = Shortened("rotation", SHORT, principal_axes(dataset.sample(), SHORT))
    shorten = query_shortener(short)
    pairs = [(query, np.asarray(shorten(query), np.float32)) for query in dataset.queries]
    rates, waits = [], {}
    with ExitStack() as stack:
        primary = stack.enter_context(primary_server("bench"))
        load(primary.url(), dataset, short)
        urls = [primary.url()]
        for standbys in range(3):
            if standbys:
                standby = stack.enter_context(streaming_standby(primary, "bench"))
                urls.append(standby.url())
                catch_up(*(create_engine(sqlalchemy_url(url)) for url in (urls[0], urls[-1])))
            for url in urls:
                Clients([url], pairs, 1, 1).searches_a_second()  # its pages are read
            rates.append({"standbys": standbys, "rate": Clients(urls, pairs, clients, seconds).searches_a_second()})
        waits["nobody searches"] = delays(urls[0], urls[1], dataset, short)
        searching = Clients(urls[1:], pairs, clients, 4 * seconds)
        waits[f"{clients} clients search on the standbys"] = delays(urls[0], urls[1], dataset, short)
        searching.searches_a_second()
        with create_engine(sqlalchemy_url(urls[1])).connect() as connection:
            version = connection.scalar(text("SELECT version()"))
    return {
        "dataset": dataset.name,
        "clients": clients,
        "cores": os.cpu_count(),
        "server": version,
        "load average": os.getloadavg(),
        "rates": rates,
        "delays": {
            name: {"median": float(np.median(times)), "p99": float(np.percentile(times, 99)), "most": max(times)}
            for name, times in waits.items()
        },
    }


def page(measured: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# Standbys: {measured['dataset']}",
        "",
        (
            "Made by `python -m benchmarks.replicas`; the numbers are in replicas.json. All servers and "
            f"{measured['clients']} clients share {measured['cores']} cores, which searches keep busy: a standby here "
            "adds no processor. A search has a shortlist of 100. Load average at the end "
            f"{measured['load average'][0]:.1f}."
        ),
        "",
        "| standbys | searches a second, on all servers |",
        "|---|---|",
        *(f"| {found['standbys']} | {found['rate']:,.0f} |" for found in measured["rates"]),
        "",
        f"From a commit of {BATCH} rows, whose vectors enter the index, until a standby has replayed it:",
        "",
        "| meanwhile | median ms | 99 of 100 within, ms | longest, ms |",
        "|---|---|---|---|",
        *(
            f"| {name} | {found['median']:.1f} | {found['p99']:.0f} | {found['most']:.0f} |"
            for name, found in measured["delays"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write, or write again what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only the page, of the numbers that are there")
    options = parser.parse_args()
    numbers = options.out / "replicas.json"
    if not options.report:
        numbers.write_text(json.dumps(measure(options.rows, options.clients, options.seconds), indent=1) + "\n")
    (options.out / "replicas.md").write_text(page(json.loads(numbers.read_text())))


if __name__ == "__main__":
    main()
