"""Filters: pgmrl with and without a covering index beside plain pgvector, a B-tree and partial indexes.

Every way of searching sees the indexes that it is named after, and takes turns with the others in blocks of queries.
What the peers ask is prepared, with the filter's value in the text: a plan made once, for that value.
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select

from benchmarks.filter_report import report
from benchmarks.filter_tables import FILTER_COLUMNS, Filter, FilterSet, K, count_only, filter_dataset, partial_filters
from benchmarks.library import engine_of, library_commit
from benchmarks.server import CONFINED, Cgroup, Server, environment, pgbench
from pgmrl import compile_sql, search
from pgmrl.model.compat import HalfVector
from pgmrl.searching.plans import indexes, nodes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection as SqlConnection

    from benchmarks.filter_tables import FilteredTruth
    from benchmarks.parts import Options
    from benchmarks.server import Connection

SHORTLISTS: Final = (40, 60, 80, 100, 150, 200)
EF_SEARCH: Final = (40, 70, 100, 200, 400)
DEFAULT: Final = 100
BLOCK: Final = 20
WARM_UPS: Final = 3
SERVER: Final = {
    "random_page_cost": "1.1",  # as `pgmrl.local` sets it for local disks: the planner's choice depends on it
    "max_parallel_workers_per_gather": "0",  # a worker's time would not be counted
    "log_min_messages": "fatal",
    "max_connections": "40",
}


@dataclass
class Way:
    """One way to ask, with how hard it tries.

    Attributes:
        name: as the report has it.
        effort: shortlist or ef_search; 0 where there is none.
        table: `packages` or `plain`.
        indexes: that the planner may see.
        ask: from a query's number to ids.
        settings: of the session, as SQL.
        plan: the statement for EXPLAIN with its parameters, where a client sends it.
    """

    name: str
    effort: int
    table: str
    indexes: Sequence[str]
    ask: Callable[[int], list[int]]
    settings: str = ""
    plan: tuple[str, Any] | None = None


def filters(options: Options, results: Path) -> None:
    """Measure and write `filters.json` and `filters.md`; what is there of the same library is not measured again."""
    dataset = filter_dataset(options.rows, min(options.queries, 100))
    path = results / "filters.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = everything.get(dataset.name, {})
    if found.get("setting", {}).get("library") != library_commit():
        found = {}

    def keep(name: str, value: Any) -> None:
        found[name] = value
        everything[dataset.name] = found
        results.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(everything, indent=1))
        (results / "filters.md").write_text(report(everything))

    with Server(options.work / f"filters-{dataset.name}", SERVER) as server:
        rows = FilterSet.of(server, dataset)
        rows.load(options)
        if "setting" not in found:
            with server.connect() as connection:
                about: dict[str, Any] = {"rows": len(dataset.rows), "dims": dataset.dims, "note": dataset.note}
                about |= {**environment(connection), "library": library_commit(), "busy": os.getloadavg()[0]}
                keep("setting", about)
        keep("builds", rows.builds)
        for filter_ in rows.filters:
            if filter_.name not in found.get("memory", {}):
                keep("memory", {**found.get("memory", {}), filter_.name: in_memory(rows, filter_)})
                options.say(f"filter {filter_.name}: measured")
        for name, measure in PARTS.items():
            reason = Cgroup.available() if name.startswith("confined") else None
            if reason is not None:
                options.say(f"{name}: skipped, {reason}")
            elif name not in found:
                keep(name, measure(rows, options))


# -- the ways ------------------------------------------------------------------------------------------------------


@dataclass
class Ways:
    """Every way to ask, of one server.

    Attributes:
        rows: the tables.
        bare: psycopg's connection.
        library: SQLAlchemy's.
    """

    rows: FilterSet
    bare: Connection
    library: SqlConnection

    def of(self, filter_: Filter) -> list[Way]:
        """All of them, with their sweeps."""
        found = [self.statement(filter_, size, covering) for covering in (True, False) for size in SHORTLISTS]
        found += [self.prebuilt(filter_), self.built(filter_), self.function(filter_)]
        found += [self.plain(filter_, ef_search) for ef_search in EF_SEARCH]
        if len(self.rows.passing(filter_)) * 20 <= len(self.rows.dataset.rows):
            found += [self.plain(filter_, ef_search, len(self.rows.dataset.rows)) for ef_search in (100, 400)]
        found.append(self.exact(filter_))
        if filter_ in partial_filters(self.rows):
            found += [self.partial(filter_, ef_search) for ef_search in EF_SEARCH[:4]]
        return found

    def default(self, filter_: Filter) -> list[Way]:
        """Of each kind one."""
        ways = [self.statement(filter_, DEFAULT, covering=True), self.statement(filter_, DEFAULT, covering=False)]
        ways += [self.plain(filter_, 100), self.exact(filter_)]
        return [*ways, self.partial(filter_, 100)] if filter_ in partial_filters(self.rows) else ways

    def statement(self, filter_: Filter, size: int, covering: bool) -> Way:
        """The statement through psycopg."""
        text = ""
        parameters = []
        for query in self.rows.dataset.queries:
            text, sent = compile_sql(self._select(filter_, query, size))
            parameters.append(sent)
        name = "pgmrl, covering index" if covering else "pgmrl, no index on the filter"

        def ask(number: int) -> list[int]:
            return [row[0] for row in self.bare.execute(text.encode(), parameters[number], prepare=True).fetchall()]

        return Way(name, size, "packages", self._own(filter_, covering), ask, plan=(text, parameters[0]))

    def prebuilt(self, filter_: Filter) -> Way:
        """Through SQLAlchemy, the Select built once."""
        statement = self._select(filter_, bindparam("q"), DEFAULT)

        def ask(number: int) -> list[int]:
            return [row[0] for row in self.library.execute(statement, {"q": self.rows.dataset.queries[number]})]

        return Way("pgmrl, SQLAlchemy, prebuilt", DEFAULT, "packages", self._own(filter_), ask)

    def built(self, filter_: Filter) -> Way:
        """Through SQLAlchemy, the Select built for each query."""

        def ask(number: int) -> list[int]:
            statement = self._select(filter_, self.rows.dataset.queries[number], DEFAULT)
            return [row[0] for row in self.library.execute(statement)]

        return Way("pgmrl, SQLAlchemy, built each time", DEFAULT, "packages", self._own(filter_), ask)

    def function(self, filter_: Filter) -> Way:
        """The SQL function."""
        argument = "lot_max" if filter_.column == "lot" else filter_.column
        text = f"SELECT id FROM packages_search(%s, {K}, {DEFAULT}, {argument} => %s)"

        def ask(number: int) -> list[int]:
            sent = (HalfVector(self.rows.dataset.queries[number]), filter_.value)
            return [row[0] for row in self.bare.execute(text.encode(), sent, prepare=True).fetchall()]

        return Way("pgmrl, SQL function", DEFAULT, "packages", self._own(filter_), ask)

    def plain(self, filter_: Filter, ef_search: int, max_scan_tuples: int = 20_000) -> Way:
        """Plain pgvector through its graph."""
        settings = f"SET hnsw.ef_search = {ef_search}; SET hnsw.iterative_scan = relaxed_order; "
        settings += f"SET hnsw.max_scan_tuples = {max_scan_tuples}"
        more = "" if max_scan_tuples == 20_000 else ", max_scan_tuples all rows"
        return self._plain(f"plain HNSW{more}", filter_, ef_search, ["plain_hnsw"], settings)

    def exact(self, filter_: Filter) -> Way:
        """Every row of the filter by its B-tree."""
        return self._plain("B-tree, exact", filter_, 0, [f"plain_{filter_.column}"], "")

    def partial(self, filter_: Filter, ef_search: int) -> Way:
        """A graph of the filter's rows alone."""
        settings = f"SET hnsw.ef_search = {ef_search}; SET hnsw.iterative_scan = off"
        return self._plain("partial HNSW", filter_, ef_search, [filter_.index], settings)

    def _plain(self, name: str, filter_: Filter, ef_search: int, seen: Sequence[str], settings: str) -> Way:
        text = f"SELECT id FROM plain WHERE {filter_.sql} ORDER BY embedding <=> %s LIMIT {K}"
        queries = [HalfVector(query) for query in self.rows.dataset.queries]

        def ask(number: int) -> list[int]:
            return [row[0] for row in self.bare.execute(text.encode(), [queries[number]], prepare=True).fetchall()]

        return Way(name, ef_search, "plain", seen, ask, settings, (text, [queries[0]]))

    def _select(self, filter_: Filter, query: Any, size: int) -> Any:
        table = self.rows.table
        column = table.c[filter_.column]
        condition = column <= filter_.value if filter_.column == "lot" else column == filter_.value
        return search(select(table.c.id).where(condition), table.c.embedding, query, k=K, shortlist=size)

    def _own(self, filter_: Filter, covering: bool = True) -> list[str]:
        return [self.rows.hnsw, *([f"packages_{filter_.column}"] if covering else [])]

    def see(self, way: Way) -> None:
        """What a way needs of the session before it is asked; a plan that was kept may have another index."""
        count_only(self.bare, way.table, way.indexes)
        self.bare.execute(("RESET ALL; " + (way.settings or "SELECT 1")).encode())
        self.bare.execute("DISCARD PLANS")
        self.library.exec_driver_sql("DISCARD PLANS")

    def clock(self) -> int:
        """Nanoseconds that this process and its two backends have spent on a processor."""
        return time.process_time_ns() + sum(map(time.clock_gettime_ns, self._backend_clocks))

    @cached_property
    def _backend_clocks(self) -> list[int]:
        pids = (self.bare.info.backend_pid, self.library.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        return [~pid << 3 | 2 for pid in pids]  # clock_getcpuclockid(3)

    def served(self, way: Way) -> str:
        """The indexes of its plan, or how a table is read without one."""
        if way.plan is None:
            return ""
        text, parameters = way.plan
        row = self.bare.execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), parameters).fetchone()
        assert row is not None
        scans = [node for node in nodes(row[0][0]["Plan"]) if "Relation Name" in node or "Index Name" in node]
        first = next((node for node in scans if not str(node.get("Index Name", "")).endswith("_pkey")), scans[0])
        return f"{first['Node Type']} {', '.join(indexes(first))}".strip()


# -- measuring -----------------------------------------------------------------------------------------------------


def ask_in_turns(ways: Ways, each: Sequence[Way], truth: FilteredTruth, queries: range) -> list[dict[str, Any]]:
    """Times, recall and fewest rows of each way; in a new random order for each block of queries.

    Beside the time of a query stands what of it was spent on a processor, by client and server: on a busy machine the
    one number that is comparable.
    """
    times: dict[int, list[float]] = defaultdict(list)
    cpu: dict[int, list[int]] = defaultdict(list)
    recalls: dict[int, list[float]] = defaultdict(list)
    counts: dict[int, list[int]] = defaultdict(list)
    plans: dict[int, str] = {}
    for first in queries[::BLOCK]:
        turns = list(enumerate(each))
        random.Random(first).shuffle(turns)  # noqa: S311 - an order to measure in
        for number, way in turns:
            ways.see(way)
            for warm_up in range(WARM_UPS):
                way.ask(queries[-1 - warm_up])
            gc.disable()
            for query in queries[first - queries[0] :][:BLOCK]:
                started, used = time.perf_counter(), ways.clock()
                ids = way.ask(query)
                cpu[number].append(ways.clock() - used)
                times[number].append(time.perf_counter() - started)
                recalls[number].append(truth.recall(query, ids))
                counts[number].append(len(ids))
            gc.enable()
            plans.setdefault(number, ways.served(way))
    return [
        {
            "way": way.name,
            "effort": way.effort,
            "p50_ms": statistics.median(times[number]) * 1e3,
            "cpu_ms": statistics.median(cpu[number]) / 1e6,
            "recall": statistics.mean(recalls[number]),
            "fewest": min(counts[number]),
            "expected": truth.rows,
            "served": plans[number],
        }
        for number, way in enumerate(each)
    ]


def in_memory(rows: FilterSet, filter_: Filter) -> list[dict[str, Any]]:
    """Every way, at one filter."""
    with closing(rows.server.connect()) as bare, closing(engine_of(rows.server).connect()) as library:
        ways = Ways(rows, bare, library)
        return ask_in_turns(ways, ways.of(filter_), rows.truth(filter_), range(len(rows.dataset.queries)))


def confined(rows: FilterSet, options: Options) -> dict[str, list[dict[str, Any]]]:
    """As `in_memory`, one way after the other, each on a server that starts cold in little memory."""
    asked = [filter_ for filter_ in rows.filters if len(rows.passing(filter_)) * 5 <= len(rows.dataset.rows)]
    found: dict[str, list[dict[str, Any]]] = {filter_.name: [] for filter_ in asked}
    truths = {filter_: rows.truth(filter_) for filter_ in asked}
    rows.server.stop()
    settings = {**SERVER, **CONFINED}
    limited = replace(rows.server, settings=settings, memory=options.memory << 20)
    queries = range(min(40, len(rows.dataset.queries)))
    try:
        for number in range(5):
            rows.server.evict()
            with limited, closing(limited.connect()) as bare, closing(engine_of(limited).connect()) as library:
                ways = Ways(rows, bare, library)
                for filter_ in asked:
                    each = ways.default(filter_)[number : number + 1]
                    found[filter_.name] += ask_in_turns(ways, each, truths[filter_], queries)
            options.say(f"confined: {number + 1} of 5")
    finally:
        rows.server.start()
    return found


def confined_tenants(rows: FilterSet, options: Options) -> list[dict[str, Any]]:
    """As `confined`, another tenant for each query: its rows have not been read before."""
    settings = {**SERVER, **CONFINED}
    limited = replace(rows.server, settings=settings, memory=options.memory << 20)
    tenants = [Filter(f"tenant {number}", "tenant", number) for number in range(min(40, len(rows.dataset.queries)))]
    truths = [rows.truth(tenant) for tenant in tenants]
    found = []
    rows.server.stop()
    try:
        for number in range(4):
            rows.server.evict()
            times, recalls, name = [], [], ""
            with limited, closing(limited.connect()) as bare, closing(engine_of(limited).connect()) as library:
                ways = Ways(rows, bare, library)
                for query, tenant in enumerate(tenants):
                    way = ways.default(tenant)[number]
                    name = way.name
                    ways.see(way)
                    started = time.perf_counter()
                    ids = way.ask(query)
                    times.append(time.perf_counter() - started)
                    recalls.append(truths[query].recall(query, ids))
            found.append({"way": name, "p50_ms": statistics.median(times) * 1e3, "recall": statistics.mean(recalls)})
            options.say(f"confined, tenants: {found[-1]}")
    finally:
        rows.server.start()
    return found


# -- tenants -------------------------------------------------------------------------------------------------------


def tenants(rows: FilterSet, options: Options, clients: int = 16, seconds: int = 10) -> dict[str, Any]:
    """Searches a second by pgbench: a random tenant and a random row of the table as the query."""
    last, count = len(rows.dataset.rows) - 1, int(rows.columns["tenant"].max()) + 1
    found: dict[str, Any] = {"tenants": count, "clients": clients, "per_second": {}}
    vector = "(SELECT embedding FROM {table} WHERE id = :id)"
    plain = f"SELECT id FROM plain WHERE tenant = :t ORDER BY embedding <=> {vector.format(table='plain')} LIMIT {K};"
    own = f"SELECT id FROM packages_search({vector.format(table='packages')}, {K}, {DEFAULT}, tenant => :t);"
    some, scan = min(10, count), "-c hnsw.ef_search=100 -c hnsw.iterative_scan=relaxed_order"
    scripts = {
        "pgmrl, covering index": (own, [rows.hnsw, "packages_tenant"], count),
        "plain HNSW": (plain, ["plain_hnsw"], count),
        "B-tree, exact": (plain, ["plain_tenant"], count),
        f"partial HNSW of {some} tenants": (plain, [f"plain_tenant_{n}" for n in range(some)], some),
    }
    with rows.server.connect() as connection:
        for tenant in range(some):
            index = f"plain_tenant_{tenant} ON plain USING hnsw (embedding halfvec_cosine_ops) WHERE tenant = {tenant}"
            connection.execute(f"CREATE INDEX IF NOT EXISTS {index}")
        for turn in range(2):
            for name, (script, seen, number) in scripts.items():
                for table in ("packages", "plain"):
                    count_only(connection, table, seen)
                text = f"\\set id random(0, {last})\n\\set t random(0, {number - 1})\n{script}\n"
                protocol = "simple" if "partial" in name else "prepared"  # a parameter does not imply a predicate
                speed = pgbench(rows.server, text, clients, seconds, scan, protocol)
                found["per_second"].setdefault(name, []).append(speed)
                options.say(f"tenants, turn {turn + 1}: {name}: {speed:,.0f} a second")
    return found


# -- writes --------------------------------------------------------------------------------------------------------


def writes(rows: FilterSet, options: Options, count: int = 1_000, turns: int = 5) -> dict[str, dict[str, float]]:
    """The server's milliseconds for a row of INSERT and of UPDATE of the filter's column, by what is indexed."""
    copied = f'id + 10000000, lot, section, tenant, embedding, "{rows.short}"'
    statements = {
        "insert": f"INSERT INTO packages SELECT {copied} FROM packages WHERE id < {count}",
        "update": f"UPDATE packages SET tenant = tenant + 1 WHERE id < {count}",
    }
    covering = [f"packages_{name}" for name in FILTER_COLUMNS]
    variants = {
        "the primary key alone": ([rows.hnsw, *covering], ""),
        "and a B-tree": ([rows.hnsw, *covering], "CREATE INDEX ON packages (tenant)"),
        "and a covering index": ([rows.hnsw, *(name for name in covering if name != "packages_tenant")], ""),
        "and the short vectors' HNSW index": (covering, ""),
    }
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in statements} for name in variants}
    with rows.server.connect() as connection:
        clock = ~connection.info.backend_pid << 3 | 2
        count_only(connection, "packages", [rows.hnsw, *covering])
        for _ in range(turns):
            for name, (dropped, made) in variants.items():
                for kind, statement in statements.items():
                    connection.execute("BEGIN")
                    connection.execute("DROP INDEX " + ", ".join(f'"{index}"' for index in dropped))
                    connection.execute(made or "SELECT 1")
                    started = time.clock_gettime_ns(clock)
                    connection.execute(statement)
                    times[name][kind].append((time.clock_gettime_ns(clock) - started) / count / 1e6)
                    connection.execute("ROLLBACK")
        connection.execute("VACUUM ANALYZE packages")
    options.say("writes: measured")
    return {name: {kind: statistics.median(each) for kind, each in kinds.items()} for name, kinds in times.items()}


PARTS: Final[dict[str, Callable[[FilterSet, Options], Any]]] = {
    "tenants": tenants,
    "confined": confined,
    "confined_tenants": confined_tenants,
    "writes": writes,  # the last: they leave pages half empty
}
"""What is measured behind the filters in memory."""
