"""What one statement can ask, measured: `python -m benchmarks.asking`.

A scan under a filter that gives up; vectors and words together, judged by tags and by known items; what the SQL
function adds to the statement; many queries at once; throughput of 1 to 64 connections by pgbench. Filters are asked by
`python -m benchmarks filters`.

Each part is written to results/asking.json as soon as it is measured; results/asking.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, select

from benchmarks import relevance
from benchmarks.data import debian as debian_set
from benchmarks.data import packages as debian_packages
from benchmarks.data import principal_axes
from benchmarks.server import Server, environment, machine, pgbench
from pgmrl import (
    FullText,
    Hnsw,
    Matryoshka,
    Rotation,
    Short,
    SqlFunctions,
    compile_sql,
    database,
    ingest,
    install_functions,
    search,
    search_many,
)
from pgmrl.model.binary import encode
from pgmrl.model.compat import HalfVector
from pgmrl.model.parameters import binary_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray


HERE = Path(__file__).parent
PARTS = ("walk", "hybrid", "function", "many", "throughput")
K, SHORTLIST = 10, 100


def say(line: str) -> None:
    """Progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


@dataclass
class Bench:
    """What every part needs.

    Attributes:
        server: running.
        table: `packages`, as a model has it.
        rows: the vectors as stored, unit length.
        queries: query vectors.
        packages: what the rows say.
        lots: a random number of each row, to filter by.
        results: what was measured so far.
        out: where it is written.
        seconds: of each pgbench run.
    """

    server: Server
    table: Table
    rows: NDArray[np.float32]
    queries: NDArray[np.float32]
    packages: list[dict[str, Any]]
    lots: NDArray[np.int64]
    results: dict[str, Any]
    out: Path
    seconds: int

    def keep(self, name: str, value: Any) -> None:
        """Write a result down."""
        self.results[name] = value
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "asking.json").write_text(json.dumps(self.results, indent=1))
        (self.out / "asking.md").write_text(report(self.results))
        say(f"{name}: done")


# -- the tables ----------------------------------------------------------------------------------------------------


def prepare(server: Server, rows: int | None) -> tuple[Table, NDArray[np.float32], NDArray[np.float32], Any, Any]:
    """`packages` with a rotated short vector of 128 under HNSW, and `plain`: the same halfvec under HNSW itself."""
    dataset = debian_set(rows)
    count = len(dataset.rows)
    rotation = Rotation.of(principal_axes(dataset.sample(), 128))
    pinned = Rotation(rotation.id)  # without its axes: the server shortens, as it does for a SQL function
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", Text),
        Column("synopsis", Text),
        Column("lot", Integer),
        Column("words", FullText("name", "synopsis", config="english")),
        Column("embedding", Matryoshka(768, Short(128, by=pinned), index=Hnsw(16, 100))),
    )
    packages = debian_packages()
    if count < len(packages):  # the same rows as the data set takes
        kept = np.sort(np.random.default_rng(2).choice(len(packages), count, replace=False))
        packages = [packages[n] for n in kept]
    lots = np.random.default_rng(8).integers(0, 10_000, count)
    engine = create_engine(server.sqlalchemy_url)
    with engine.begin() as connection:
        database.upgrade(connection)
    with server.connect() as plain:
        there = plain.execute("SELECT to_regclass('plain')").fetchone()
        loaded = (
            bool(there and there[0]) and (plain.execute("SELECT count(*) FROM plain").fetchone() or [0])[0] == count
        )
    if not loaded:
        say(f"loading {count:,} rows")
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS plain, packages CASCADE")
            database.install_rotation(connection, rotation)
            index = next(one for one in table.indexes if one.name and one.name.endswith("_hnsw"))
            table.indexes.remove(index)
            table.create(connection)
            given = (
                {"id": n, "name": one["name"], "synopsis": one["synopsis"], "lot": int(lots[n])}
                for n, one in enumerate(packages)
            )
            ingest(connection, table.c.embedding, given, vectors=dataset.rows)
            index.create(connection)
            connection.exec_driver_sql("CREATE TABLE plain AS SELECT id, lot, embedding FROM packages ORDER BY id")
            connection.exec_driver_sql("ALTER TABLE plain ADD PRIMARY KEY (id)")
            connection.exec_driver_sql("CREATE INDEX plain_hnsw ON plain USING hnsw (embedding halfvec_cosine_ops)")
        with server.connect() as plain:
            plain.execute("VACUUM ANALYZE packages")
            plain.execute("VACUUM ANALYZE plain")
    with engine.begin() as connection:
        install_functions(connection, table.c.embedding, SqlFunctions(filters=("lot <=",), words="words"))
    engine.dispose()
    stored = dataset.rows.astype(np.float16).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    return table, stored, dataset.queries, packages, lots


def nearest(rows: NDArray[np.float32], query: NDArray[np.float32]) -> list[int]:
    """The ids of the ten nearest, by NumPy."""
    products = rows @ query.astype(np.float16).astype(np.float32)
    return [int(n) for n in np.argsort(-products, kind="stable")[:K]]


# -- ways in turns ----------------------------------------------------------------------------------------------------


def _ask_in_turns(
    bench: Bench, ways: dict[str, Callable[[Any], list[int]]], truths: Sequence[set[int]], count: int
) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    rows: dict[str, list[int]] = {name: [] for name in ways}
    right: dict[str, list[float]] = {name: [] for name in ways}
    for first in range(0, count, 20):
        order = list(ways)
        random.Random(first).shuffle(order)  # noqa: S311 - an order to measure in
        for name in order:
            for query in bench.queries[-3:]:
                ways[name](query)
            for number in range(first, min(first + 20, count)):
                start = time.perf_counter()
                ids = ways[name](bench.queries[number])
                times[name].append(time.perf_counter() - start)
                rows[name].append(len(ids))
                right[name].append(len(truths[number] & set(ids)) / max(1, len(truths[number])))
    return {
        name: {
            "rows": statistics.mean(rows[name]),
            "least": min(rows[name]),
            "recall": statistics.mean(right[name]),
            "p50_ms": statistics.median(times[name]) * 1e3,
        }
        for name in ways
    }


# -- a scan that gives up -------------------------------------------------------------------------------------------


def walk(bench: Bench, count: int) -> dict[str, Any]:
    """A filter that leaves few rows, with the planner misled into the index: what is found, and how long it takes."""
    passing = len(np.flatnonzero(bench.lots < 1))
    short = f"(SELECT {_short_column(bench)} FROM packages WHERE id = %(id)s)"
    listed = f"SELECT id FROM packages WHERE lot + 0 < 1 ORDER BY {_short_column(bench)} <=> {short} LIMIT 100"
    exact = (
        "SELECT id FROM packages WHERE lot + 0 < 1 "
        "ORDER BY (embedding <=> (SELECT embedding FROM packages WHERE id = %(id)s)) + 0 LIMIT 10"
    )
    index = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET hnsw.ef_search = 100; "
    index += "SET hnsw.iterative_scan = relaxed_order; SET work_mem = '4MB'; "
    whole = "SET hnsw.max_scan_tuples = 2147483647; SET hnsw.scan_mem_multiplier = 1000"
    ways = {
        "index, pgvector's limits": (f"RESET ALL; {index}", listed),
        "index, walked to its end": (f"RESET ALL; {index}{whole}", listed),
        "exact": ("RESET ALL", exact),
    }
    found: dict[str, Any] = {"passing": passing, "ways": {}}
    with bench.server.connect() as connection:
        for name, (settings, statement) in ways.items():
            connection.execute(settings)
            rows, seconds = [], []
            for n in range(0, len(bench.rows), max(1, len(bench.rows) // count)):
                start = time.perf_counter()
                rows.append(len(connection.execute(statement.encode(), {"id": n}).fetchall()))
                seconds.append(time.perf_counter() - start)
            found["ways"][name] = {
                "rows": statistics.mean(rows),
                "least": min(rows),
                "p50_ms": statistics.median(seconds) * 1e3,
            }
    return found


def _short_column(bench: Bench) -> str:
    return next(column.name for column in bench.table.columns if column.name.startswith("embedding_r"))


def _walk_table(found: dict[str, Any]) -> Iterable[str]:
    yield from ("## A scan that gives up", "")
    yield f"A filter that {found['passing']} rows pass, with the planner kept from reading the table (`walk`)."
    yield from ("", "| way | rows, mean | rows, least | p50 ms |", "|---|---|---|---|")
    for name, one in found["ways"].items():
        yield f"| {name} | {one['rows']:.1f} | {one['least']} | {one['p50_ms']:.1f} |"


# -- the function's overhead, and many queries ---------------------------------------------------------------------


def function(bench: Bench, count: int) -> dict[str, Any]:
    """The statement in the client's text beside the same search as a SQL function; both shorten on the server."""
    statement = search(select(bench.table.c.id), bench.table.c.embedding, bench.queries[0], k=K, shortlist=SHORTLIST)
    text, sent = compile_sql(statement)
    found = {}
    with bench.server.connect() as connection:
        for prepared in (False, True):

            def inline(query: Any, prepared: bool = prepared) -> list[int]:
                given = dict.fromkeys(sent, binary_value(encode(query, "halfvec"), "halfvec"))
                return [row[0] for row in connection.execute(text.encode(), given, prepare=prepared).fetchall()]

            def called(query: Any, prepared: bool = prepared) -> list[int]:
                asked = "SELECT id, distance FROM packages_search(%s, 10, 100)"
                return [row[0] for row in connection.execute(asked, (HalfVector(query),), prepare=prepared).fetchall()]

            truths = [set(nearest(bench.rows, query)) for query in bench.queries[:count]]
            ways: dict[str, Callable[[Any], list[int]]] = {"inline statement": inline, "SQL function": called}
            found["prepared" if prepared else "not prepared"] = _ask_in_turns(bench, ways, truths, count)
    return found


def many(bench: Bench, count: int) -> dict[str, Any]:
    """The same queries in one statement and in as many."""
    table, engine = bench.table, create_engine(bench.server.sqlalchemy_url)
    rng = np.random.default_rng(4)
    asked = bench.rows[np.sort(rng.choice(len(bench.rows), min(count, len(bench.rows)), replace=False))]
    found: dict[str, Any] = {"queries": len(asked)}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def once() -> int:
            return len(connection.execute(search_many(select(table.c.id), table.c.embedding, asked, k=K)).all())

        def each() -> int:
            one = (search(select(table.c.id), table.c.embedding, query, k=K) for query in asked)
            return sum(len(connection.execute(statement).all()) for statement in one)

        def lateral() -> int:
            text = (
                "SELECT count(*) FROM (SELECT id, embedding FROM packages ORDER BY md5(id::text) LIMIT "
                f"{len(asked)}) AS p CROSS JOIN LATERAL packages_search(p.embedding, 10) AS s"
            )
            return int(connection.exec_driver_sql(text).scalar_one())

        for name, way in {"search_many": once, "search, one by one": each, "SQL function, LATERAL": lateral}.items():
            way()
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                assert way() == K * len(asked)
                seconds.append(time.perf_counter() - start)
            found[name] = min(seconds)
    engine.dispose()
    return found


# -- throughput ----------------------------------------------------------------------------------------------------


def throughput(bench: Bench) -> dict[str, Any]:
    """Searches a second by pgbench, at 1 to 64 connections; recall of each way beside it."""
    last = len(bench.rows) - 1
    scripts = {
        "pgmrl, SQL function": "SELECT id, distance "
        "FROM packages_search((SELECT embedding FROM packages WHERE id = :id), 10, 80);",
        "plain halfvec": "SELECT id, embedding <=> (SELECT embedding FROM plain WHERE id = :id) AS distance FROM plain "
        "ORDER BY embedding <=> (SELECT embedding FROM plain WHERE id = :id) LIMIT 10;",
    }
    found: dict[str, Any] = {}
    with bench.server.connect() as connection:
        connection.execute("SET hnsw.ef_search = 80")
        for name, script in scripts.items():
            numbers = range(0, last, max(1, last // 200))
            right = []
            for n in numbers:
                rows = connection.execute(script.rstrip(";").replace(":id", str(n)).encode()).fetchall()
                right.append(len({row[0] for row in rows} & set(nearest(bench.rows, bench.rows[n]))) / K)
            found[name] = {"recall": statistics.mean(right), "per_second": {}}
    for clients in (1, 4, 16, 64):
        for name, script in scripts.items():
            timed = f"\\set id random(0, {last})\n{script}\n"
            options = "-c hnsw.ef_search=80"
            found[name]["per_second"][str(clients)] = pgbench(bench.server, timed, clients, bench.seconds, options)
        say(f"throughput: {clients} connections")
    return found


# -- report --------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """The tables."""
    setting = results.get("setting", {})
    lines = [
        "# What one statement can ask",
        "",
        "Made by `python -m benchmarks.asking`; the numbers are in asking.json.",
        "",
    ]
    if setting:
        told = (
            f"{setting['rows']:,} Debian packages, 768 dimensions (`halfvec`), short vector of 128 by rotation, m=16, "
            "ef_construction=100; `plain` is the same `halfvec` under an HNSW index of its own (m=16, 64). k=10. "
            f"{setting['machine']}; {setting['server']}."
        )
        lines += [told, ""]
    for name, table in (
        ("walk", _walk_table),
        ("hybrid", relevance.table),
        ("function", _function_table),
        ("many", _many_table),
        ("throughput", _throughput_table),
    ):
        if name in results:
            lines += [*table(results[name]), ""]
    return "\n".join(lines)


def _function_table(found: dict[str, Any]) -> Iterable[str]:
    yield from ("## The SQL function beside the inline statement", "")
    yield "| protocol | inline p50 ms | function p50 ms | the function adds |"
    yield "|---|---|---|---|"
    for protocol, ways in found.items():
        inline, called = ways["inline statement"]["p50_ms"], ways["SQL function"]["p50_ms"]
        yield f"| {protocol} | {inline:.2f} | {called:.2f} | {called - inline:+.2f} ms |"


def _many_table(found: dict[str, Any]) -> Iterable[str]:
    yield from (f"## {found['queries']:,} queries", "", "| way | seconds | of one by one |", "|---|---|---|")
    for name, seconds in found.items():
        if name != "queries":
            yield f"| {name} | {seconds:.2f} | {seconds / found['search, one by one']:.2f} |"


def _throughput_table(found: dict[str, Any]) -> Iterable[str]:
    clients = list(next(iter(found.values()))["per_second"])
    yield from ("## Throughput", "", "Searches a second by pgbench (prepared), a row of the table as the query.", "")
    yield f"| way | recall@10 | {' | '.join(f'{n} connections' for n in clients)} |"
    yield f"|---|---|{'---|' * len(clients)}"
    for name, one in found.items():
        cells = [f"{one['per_second'][n]:,.0f}" for n in clients]
        yield f"| {name} | {one['recall']:.3f} | {' | '.join(cells)} |"


# -- the command ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--rows", type=int, help="rows of the real set (default all 68,820)")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--many", type=int, default=1_000, help="queries in one statement")
    parser.add_argument("--seconds", type=int, default=10, help="of each pgbench run")
    parser.add_argument("--work", type=Path, default=Path("/tmp/pgmrl-bench"), help="folder for data directories")  # noqa: S108
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {sorted(unknown)[0]!r}: choose of {', '.join(PARTS)}")
    given.work.mkdir(parents=True, exist_ok=True)
    before = given.out / "asking.json"
    results = json.loads(before.read_text()) if before.exists() else {}
    with Server(given.work / "asking", {"log_min_messages": "fatal", "max_connections": "120"}) as server:
        table, rows, queries, packages, lots = prepare(server, given.rows)
        bench = Bench(server, table, rows, queries, packages, lots, results, given.out, given.seconds)
        with server.connect() as connection:
            told = environment(connection)
        results["setting"] = {
            "rows": len(rows),
            "machine": f"{machine().get('cores', os.cpu_count())} cores",
            "server": f"{str(told['server']).split(' on ')[0]}, pgvector {told['pgvector']}",
        }
        if "walk" in given.parts:
            bench.keep("walk", walk(bench, 40))
        if "hybrid" in given.parts:
            bench.keep("hybrid", relevance.hybrid(server, table, rows, packages, given.queries))
        if "function" in given.parts:
            bench.keep("function", function(bench, given.queries))
        if "many" in given.parts:
            bench.keep("many", many(bench, given.many))
        if "throughput" in given.parts:
            bench.keep("throughput", throughput(bench))


if __name__ == "__main__":
    main()
