"""Where two stages lose to one HNSW index on the full vectors as `halfvec`, at 256 dimensions.

The time of a search is split: what an element of the graph costs, how many more a shorter vector has to visit for the
same recall (a larger ef_search), and what the statement adds to the scan. Times are the server process's on the
processor, which other jobs change least; queries are texts that are not in the table. It is the last step
of `benchmarks.million`.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import create_engine, select

from benchmarks.measure import on_cpu
from pgmrl import compile_sql, reflect, search
from pgmrl.embedders import load_embedder
from pgmrl.measure.recall_by_distance import recall_at_k

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.server import Connection, Server

    Search = Callable[[int], list[float]]
    Text = dict[str, Any]

__all__ = ["compare", "section"]

QUERIES: Final = 200
BLOCK: Final = 20  # queries of one way before it is another's turn
K: Final = 10
EFS: Final = (20, 40, 60, 80, 120, 160, 240, 320, 480)
TARGETS: Final = (0.95, 0.98)
PLAIN: Final = (
    "CREATE INDEX texts_embedding_hnsw ON texts USING hnsw (embedding halfvec_cosine_ops) "
    "WITH (m=16, ef_construction=100)"
)
GATE: Final = "(SELECT %(query)s::halfvec WHERE set_config('hnsw.ef_search', '{ef}', true) IS NOT NULL)"
SCAN: Final = "SELECT {columns} FROM texts ORDER BY {column} <=> " + GATE + " LIMIT {limit}"
SIZES: Final = (
    "SELECT i.relname, pg_relation_size(i.oid)::bigint FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid "
    "JOIN pg_am AS a ON a.oid = i.relam WHERE x.indrelid = 'texts'::regclass AND a.amname = 'hnsw'"
)


def compare(server: Server, new_texts: Iterator[Text]) -> dict[str, Any]:
    """Build the plain index, and ask both.

    Args:
        server: with the table of `benchmarks.million`.
        new_texts: that are not in the table.

    """
    texts = [text["name"] for text in islice(new_texts, QUERIES)]
    vectors = load_embedder().embed_documents(texts)
    with server.connect() as connection:
        connection.execute("SET max_parallel_workers_per_gather = 1")
        connection.execute(PLAIN)
        connection.execute("SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'texts%%'")
        sides = Sides(server, connection, vectors)
        sizes: dict[str, int] = dict(connection.execute(SIZES).fetchall())
        curves = {name: [sides.measured(name, ef) for ef in EFS] for name in ("plain", "two stages")}
        chosen = {target: {name: _least(curve, target) for name, curve in curves.items()} for target in TARGETS}
        parts = {target: sides.parts(efs) for target, efs in chosen.items() if None not in efs.values()}
        (count,) = connection.execute("SELECT count(*) FROM texts").fetchall()[0]
    return {
        "rows": count,
        "queries": len(vectors),
        "sizes": sizes,
        "curves": curves,
        "efs": chosen,
        "parts": parts,
    }


def _least(curve: list[dict[str, float]], target: float) -> int | None:
    return next((int(point["ef_search"]) for point in curve if point["recall"] >= target), None)


class Sides:
    """Both ways to search, and the scans that they are made of.

    Args:
        server: with the table.
        connection: to it; its searches are counted.
        vectors: queries, shape (n, 256).

    """

    def __init__(self, server: Server, connection: Connection, vectors: Any) -> None:
        self.connection, self.vectors = connection, vectors
        self.short = vectors[:, :128] / np.linalg.norm(vectors[:, :128], axis=1, keepdims=True)
        self.engine = create_engine(server.sqlalchemy_url)
        with self.engine.connect() as session:
            self.column = reflect(session, "texts.embedding")
        exact = SCAN.format(columns="embedding <=> %(query)s::halfvec", column="embedding", ef=40, limit=K)
        connection.execute("SET enable_indexscan = off")
        self.truth = [self._ask(exact, {"query": _text(vector)}) for vector in vectors]
        connection.execute("SET enable_indexscan = on")

    def measured(self, name: str, ef: int) -> dict[str, float]:
        """Recall of one way; a shortlist is as long as ef_search."""
        ask = self.two_stages(ef) if name == "two stages" else self.plain(ef)
        recalls = [recall_at_k(ask(number), truth) for number, truth in enumerate(self.truth)]
        return {"ef_search": ef, "recall": float(np.mean(recalls))}

    def parts(self, efs: dict[str, int | None]) -> dict[str, float]:
        """Milliseconds of the server's processor for each search and for the scans alone, in turns."""
        plain, ours = int(efs["plain"] or 0), int(efs["two stages"] or 0)
        ways = {
            "plain": self.plain(plain),
            "two stages": self.two_stages(ours),
            "scan of the short index": self.scan(ours),
            "scan of the short index, with plain's ef_search": self.scan(plain),
        }
        stat = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")
        times: dict[str, list[int]] = {name: [] for name in ways}
        for first in range(0, len(self.vectors), BLOCK):
            for name, ask in ways.items():
                ask(first)  # the statement is planned
                for number in range(first, min(first + BLOCK, len(self.vectors))):
                    before = on_cpu(stat)
                    ask(number)
                    times[name].append(on_cpu(stat) - before)
        return {name: median(own) / 1e6 for name, own in times.items()}

    def plain(self, ef: int) -> Search:
        """Key and distance through the index on the full vectors."""
        columns = "id, embedding <=> %(query)s::halfvec"
        statement = SCAN.format(columns=columns, column="embedding", ef=ef, limit=K)
        return lambda number: self._ask(statement, {"query": _text(self.vectors[number])})

    def scan(self, ef: int) -> Search:
        """The keys of the shortlist alone."""
        statement = SCAN.format(columns="id", column="embedding_short_128", ef=ef, limit=ef)
        return lambda number: self._ask(statement, {"query": _text(self.short[number])})

    def two_stages(self, ef: int) -> Search:
        """The library's statement, with a shortlist as long as ef_search."""
        keys = select(*self.column.table.primary_key)
        compiled = compile_sql(search(keys, self.column, self.vectors[0], k=K, shortlist=ef, ef_search=ef))

        def ask(number: int) -> list[float]:
            own = compile_sql(search(keys, self.column, self.vectors[number], k=K, shortlist=ef, ef_search=ef))
            return self._ask(compiled.text, own.params)

        return ask

    def _ask(self, statement: str, parameters: dict[str, Any]) -> list[float]:
        rows = self.connection.execute(statement.encode(), parameters, prepare=True).fetchall()
        return [float(row[-1]) for row in rows]


def _text(vector: Any) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in vector.astype(np.float16).astype(float)) + "]"


def section(result: dict[str, Any]) -> list[str]:
    """The lines of the page."""
    about = (
        f"{result['rows']:,} rows, {result['queries']} texts that are not among them; milliseconds of the server's "
        "processor, the median, in turns (`benchmarks/million_plain.py`). A shortlist is as long as `ef_search`."
    )
    lines = [
        "## Beside plain `halfvec`",
        "",
        about,
        "",
        "| ef_search | recall@10, plain | recall@10, two stages |",
        "|---|---|---|",
    ]
    lines += [
        f"| {plain['ef_search']} | {plain['recall']:.3f} | {ours['recall']:.3f} |"
        for plain, ours in zip(result["curves"]["plain"], result["curves"]["two stages"], strict=True)
    ]
    lines += ["", "| recall of at least | way | ef_search | ms |", "|---|---|---|---|"]
    for target, times in result["parts"].items():
        efs = result["efs"][target]
        for name, ms in times.items():
            ef = efs["plain"] if "plain" in name else efs["two stages"]
            lines.append(f"| {target} | {name} | {ef} | {ms:.2f} |")
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in result["sizes"].items())
    return [*lines, "", f"Indexes: {sizes}.", ""]
