"""The same search through SQLAlchemy by each driver, in turns: psycopg, asyncpg, psycopg2, pg8000.

An ORM Session (or AsyncSession) executes a Select that is built for each query, as an application does. Each driver has
its own defaults, one connection and autocommit; asynchronous ones ask all queries of a block within one coroutine.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks.journal import read
from benchmarks.measure import BLOCK, WARM_UPS
from benchmarks.sides import Effort

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from benchmarks.library import LibrarySide
    from benchmarks.measure import Bench
    from benchmarks.server import Server

RECALL: Final = 0.98
SIZES: Final = (20, 30, 40, 60, 80, 120, 160, 200, 320, 480)
BASE: Final = "psycopg"
DRIVERS: Final = (BASE, "psycopg_async", "asyncpg", "psycopg2", "pg8000")
HEADINGS: Final = ("driver", "p50", "p95", "p50 beside psycopg's")


def driver_times(bench: Bench, side: LibrarySide, repeats: int) -> None:
    """Ask the same queries by each driver; one line of the journal for each driver, repeat and block."""
    effort = _effort(bench, side)
    with asyncio.Runner() as runner, ExitStack() as stack:
        ways = {driver: _way(side, effort, driver, stack, runner) for driver in DRIVERS}
        for repeat in range(1, repeats + 1):
            for first in range(0, bench.queries, BLOCK):
                order = list(DRIVERS)
                random.Random(f"{repeat} {first}").shuffle(order)  # noqa: S311 - an order to measure in
                for driver in order:
                    ways[driver](bench.dataset.warm_up[:WARM_UPS])
                    key = {"name": driver, "repeat": repeat, "first": first, "fingerprint": side.fingerprint}
                    queries = bench.dataset.queries[first : min(first + BLOCK, bench.queries)]
                    bench.journal.write("times", **key, effort=effort.record, ns=ways[driver](queries))
            bench.say(f"drivers: {repeat} of {repeats}")
    side.close()


def _effort(bench: Bench, side: LibrarySide) -> Effort:
    """The smallest shortlist that reaches the recall."""
    truth = bench.truth("halfvec")
    for size in SIZES:
        effort = Effort(size, size)
        search = side.prepare(effort)
        hits = sum(truth.hits(number, search(query)) for number, query in enumerate(bench.dataset.queries))
        recall = hits / (10 * len(bench.dataset.queries))
        bench.say(f"shortlist {size}: recall@10 {recall:.4f}")
        if recall >= RECALL:
            bench.journal.write("effort", effort=effort.record, recall=recall, load=os.getloadavg()[0])
            return effort
    raise SystemExit(f"no shortlist up to {SIZES[-1]} reaches a recall of {RECALL}")


def _way(side: LibrarySide, effort: Effort, driver: str, stack: ExitStack, runner: asyncio.Runner) -> Any:
    """What asks some queries by a driver and gives the nanoseconds of each."""
    url, options = _address(side.server, driver)
    if driver not in {"asyncpg", "psycopg_async"}:
        engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=options)
        stack.callback(engine.dispose)
        session = stack.enter_context(Session(engine))
        return partial(_ask, session, side, effort)
    async_engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    opened = AsyncSession(async_engine)
    stack.callback(lambda: runner.run(_close(async_engine, opened)))
    return lambda queries: runner.run(_ask_async(opened, side, effort, queries))


def _address(server: Server, driver: str) -> tuple[Any, dict[str, Any]]:
    url = make_url(server.sqlalchemy_url).set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        return url.set(query={}), {"unix_sock": f"{server.data}/.s.PGSQL.5432"}
    return url, {}


def _ask(session: Session, side: LibrarySide, effort: Effort, queries: Iterable[Any]) -> list[int]:
    nanoseconds = []
    gc.disable()
    for query in queries:
        start = time.perf_counter_ns()
        session.execute(side.select(query, effort)).all()
        nanoseconds.append(time.perf_counter_ns() - start)
    gc.enable()
    return nanoseconds


async def _ask_async(session: AsyncSession, side: LibrarySide, effort: Effort, queries: Iterable[Any]) -> list[int]:
    nanoseconds = []
    gc.disable()
    for query in queries:
        start = time.perf_counter_ns()
        (await session.execute(side.select(query, effort))).all()
        nanoseconds.append(time.perf_counter_ns() - start)
    gc.enable()
    return nanoseconds


async def _close(engine: AsyncEngine, session: AsyncSession) -> None:
    await session.close()
    await engine.dispose()


# -- the report --------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[tuple[str, ...]]:
    """A table of the newest run: milliseconds, and the ratio to psycopg of blocks of the same queries and turn."""
    blocks = _blocks(path)
    table: list[tuple[str, ...]] = []
    for driver in DRIVERS:
        own = blocks.get(driver, {})
        if not own:
            continue
        times = sorted(ns / 1e6 for block in own.values() for ns in block)
        ratios = [median(block) / median(blocks[BASE][place]) for place, block in own.items()]
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        table.append(
            (
                driver,
                f"{median(times):.2f}",
                f"{times[int(0.95 * len(times))]:.2f}",
                f"{middle:.2f} ({low:.2f} to {high:.2f})" if driver != BASE else "1",
            )
        )
    return table


def repeats(path: Path) -> int:
    """How often the newest run asked each query by each driver."""
    return max(repeat for repeat, _ in _blocks(path)[BASE])


def note(path: Path) -> str:
    """What the shortlist is, and how the ratios are made."""
    efforts = [record for record in read(path) if record["kind"] == "effort"]
    if not efforts:
        return ""
    found = efforts[-1]
    return (
        f"The least shortlist for a recall@10 of {RECALL} is {found['effort']['shortlist']}: {found['recall']:.3f}. "
        f"Other jobs ran (load average {found['load']:.1f} as it began): read the ratios and not the milliseconds. "
        "The ratio is the median over blocks of 100 queries that psycopg and the other driver asked in the same turn, "
        "with the quartiles in brackets; psycopg sends vectors in binary form, the others as text.\n"
    )


def _blocks(path: Path) -> Mapping[str, dict[tuple[int, int], list[int]]]:
    records = [record for record in read(path) if record["kind"] == "times"]
    blocks: dict[str, dict[tuple[int, int], list[int]]] = {}
    for record in records:
        if record["run"] == records[-1]["run"]:
            blocks.setdefault(record["name"], {})[record["repeat"], record["first"]] = record["ns"]
    return blocks
