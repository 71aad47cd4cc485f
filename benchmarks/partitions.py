"""A partitioned table beside one table: recall, time and the processor's time by the candidates of each partition.

    python -m benchmarks.partitions                       68,820 x 768 in 1, 4, 16 and 64 partitions by hash
    python -m benchmarks.partitions --rows 10000          a rehearsal
    python -m benchmarks.partitions --report              only the page, of the numbers that are there

Every table holds the same rows, short vectors of 128 rotated dimensions and indexes of the same parameters. The
statement is the library's own; what changes is `hnsw.ef_search`, which holds for the index of each partition. Queries
are asked of all tables and efforts in turns. The processor's time is that of the server process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.data import Truth, debian, principal_axes, stored
from benchmarks.measure import on_cpu
from benchmarks.server import Server, environment
from benchmarks.sides import Effort, gated, query_shortener
from benchmarks.tables import Shortened, copy, prewarm
from pgmrl.model.compat import HalfVector
from pgmrl.model.scan_settings import partition_ef_search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.data import Dataset
    from benchmarks.server import Connection

RESULTS: Final = Path(__file__).parent / "results"
COUNTS: Final = (1, 4, 16, 64)
SHORTLISTS: Final = (100, 400)
SHORT: Final = 128
INDEX: Final = "USING hnsw (short halfvec_cosine_ops) WITH (m = 16, ef_construction = 100)"


class Ask(NamedTuple):
    """One statement on one table.

    Attributes:
        partitions: of the table; 1 stands for one that has none.
        shortlist: rows that are ranked exactly.
        ef_search: candidates that the index of each partition keeps.
    """

    partitions: int
    shortlist: int
    ef_search: int

    @property
    def statement(self) -> str:
        """As the library writes it."""
        short = gated("%(short)b", Effort(self.ef_search, self.shortlist, "iterate"))
        return (
            "SELECT id FROM (SELECT id, embedding <=> %(query)b AS distance FROM ("
            f"SELECT id, embedding FROM {table(self.partitions)} ORDER BY short <=> {short} LIMIT {self.shortlist}"
            ") AS shortlist) AS ranked ORDER BY distance, id LIMIT 10"
        )


def table(partitions: int) -> str:
    """The table with so many partitions."""
    return f"items_{partitions}"


def asks(counts: Sequence[int], shortlists: Sequence[int]) -> Iterator[Ask]:
    """What is measured: the usual ef_search, less by the root of the partitions, and each partition's share.

    One table with as little shows what becomes of a search whose rows all lie in one partition.
    """
    for shortlist in shortlists:
        for partitions in counts:
            others = counts if partitions == 1 else [partitions]
            efforts = {shortlist, *(partition_ef_search(shortlist, count) for count in others)}
            if partitions > 1:
                efforts.add(int(np.ceil(shortlist / partitions)))
            for ef_search in sorted(efforts):
                yield Ask(partitions, shortlist, ef_search)


def load(connection: Connection, dataset: Dataset, short: Shortened, partitions: int) -> dict[str, Any]:
    """The table with its rows and indexes; what they weigh, and how long the indexes took."""
    name = table(partitions)
    with connection.transaction():
        columns = (
            f"id integer NOT NULL, embedding halfvec({dataset.dims}) STORAGE MAIN NOT NULL, "
            f"short halfvec({short.dims}) STORAGE MAIN NOT NULL"
        )
        connection.execute(f"CREATE TABLE {name} ({columns})" + (" PARTITION BY HASH (id)" if partitions > 1 else ""))
        for n in range(partitions if partitions > 1 else 0):
            bounds = f"WITH (MODULUS {partitions}, REMAINDER {n})"
            connection.execute(f"CREATE TABLE {name}_{n} PARTITION OF {name} FOR VALUES {bounds}")
        copy(connection, f"{name} (id, embedding, short)", dataset.rows, "halfvec", short.of)
    start = time.perf_counter()
    connection.execute(f"CREATE INDEX {name}_hnsw ON {name} {INDEX}")
    seconds = time.perf_counter() - start
    connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
    connection.execute(f"VACUUM (ANALYZE, FREEZE) {name}")
    leaves = [f"{name}_{n}" for n in range(partitions)] if partitions > 1 else [name]
    prewarm(connection, *leaves)
    size = connection.execute(
        "SELECT sum(pg_relation_size(x.indexrelid))::bigint FROM pg_index AS x "
        "JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS a ON a.oid = i.relam "
        "WHERE a.amname = 'hnsw' AND x.indrelid = ANY (%s::regclass[])",
        [leaves],
    ).fetchone()
    assert size is not None
    return {"partitions": partitions, "build_seconds": seconds, "index_bytes": size[0]}


def measure(rows: int | None, queries: int, counts: Sequence[int], work: Path) -> dict[str, Any]:
    """Everything, on a server of its own."""
    dataset = debian(rows, queries)
    short = Shortened("rotation", SHORT, principal_axes(dataset.sample(), SHORT))
    truth, shorten = Truth(stored(dataset.rows, "halfvec"), dataset.queries), query_shortener(short)
    with Server(work / "data") as server, server.connect() as connection:
        tables = [load(connection, dataset, short, partitions) for partitions in counts]
        process = Path(f"/proc/{connection.info.backend_pid}/schedstat")
        cursor = connection.cursor(binary=True)
        every = list(asks(counts, SHORTLISTS))
        results = {ask: ([], [], []) for ask in every}  # type: dict[Ask, tuple[list[int], list[float], list[int]]]

        def search(ask: Ask, query: Any) -> list[int]:
            parameters = {"query": HalfVector(query), "short": HalfVector(shorten(query))}
            return [row[0] for row in cursor.execute(ask.statement, parameters, prepare=True).fetchall()]

        for ask in every:
            for query in dataset.warm_up[:10]:
                search(ask, query)
        order = np.random.default_rng(5)
        for number, query in enumerate(dataset.queries):
            for place in order.permutation(len(every)):
                ask = every[place]
                before, start = on_cpu(process), time.perf_counter_ns()
                found = search(ask, query)
                passed = time.perf_counter_ns() - start
                hits, times, cpu = results[ask]
                cpu.append(on_cpu(process) - before)
                times.append(passed / 1e6)
                hits.append(truth.hits(number, found))
        about = environment(connection)
    return {
        "dataset": dataset.name,
        "queries": queries,
        "environment": about,
        "load average": os.getloadavg(),
        "tables": tables,
        "searches": [
            ask._asdict()
            | {"recall": sum(hits) / (10 * len(hits)), "p50_ms": median(times), "server_ms": median(cpu) / 1e6}
            for ask, (hits, times, cpu) in results.items()
        ],
    }


def page(measured: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# Partitions beside one table: {measured['dataset']}",
        "",
        (
            f"Made by `python -m benchmarks.partitions`; the numbers are in partitions.json. {measured['queries']} "
            "real queries, 128 rotated dimensions, m=16, ef_construction=100, all in memory; by hash, so that every "
            "search reads every partition. Load average at the end "
            f"{measured['load average'][0]:.1f}: read the processor's time."
        ),
        "",
        "| partitions | indexes MB | build s |",
        "|---|---|---|",
        *(
            f"| {made['partitions']} | {made['index_bytes'] / 1e6:.0f} | {made['build_seconds']:.1f} |"
            for made in measured["tables"]
        ),
        "",
        "| partitions | shortlist | ef_search of each | recall@10 | p50 ms | processor ms, server |",
        "|---|---|---|---|---|---|",
        *(
            f"| {found['partitions']} | {found['shortlist']} | {found['ef_search']} | {found['recall']:.3f} "
            f"| {found['p50_ms']:.2f} | {found['server_ms']:.2f} |"
            for found in measured["searches"]
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write, or write again what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of the real set (default all 68,820)")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--partitions", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only the page, of the numbers that are there")
    options = parser.parse_args()
    numbers = options.out / "partitions.json"
    if not options.report:
        with tempfile.TemporaryDirectory(prefix="pgmrl-partitions-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            measured = measure(options.rows, options.queries, options.partitions, Path(folder))
        numbers.write_text(json.dumps(measured, indent=1, default=str) + "\n")
    (options.out / "partitions.md").write_text(page(json.loads(numbers.read_text())))


if __name__ == "__main__":
    main()
