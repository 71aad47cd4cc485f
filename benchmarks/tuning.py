"""Tuning: what it predicts beside what the column then does, and how long it takes: `python -m benchmarks.tuning`.

For each case a table has full vectors only; `tune` proposes a setting; the proposed column is built by the library, and
searched with queries that tuning never saw: rows that are in no table (where tuning asked rows), or the other half of
the real queries (where it was given those). Latency is that of the statement through psycopg, prepared, on both sides.

A machine whose processors are shared changes its pace: the median of one and the same search may double within minutes,
and between a prediction and its measurement a column is built. So a search that never changes is timed in turns with
both, and what is measured is also told at the pace that the machine had when it was predicted.

Each case is written to results/tuning.json as soon as it is measured; results/tuning.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select

from benchmarks.data import Truth, debian, packages, spread
from benchmarks.server import Server, environment
from pgmrl import Matryoshka, Rotation, Short, compile_sql, database, ingest, reflect, search
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.measure import mean_interval, vector_queries
from pgmrl.tune import tune
from pgmrl.tune.index_trials import TIMING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Engine

    from benchmarks.server import Connection
    from pgmrl.model.shortening import Definition
    from pgmrl.tune import Option, Tuning

HERE = Path(__file__).parent
K = 10
UNSEEN = 750  # queries to measure with
BLOCK = 20  # searches in a turn
WARM_UP = 3  # searches before a turn that are not counted
PACE_ROWS = 50_000
VECTORS = {"halfvec": np.float16, "vector": np.float32}

Rule = Literal["prefix", "rotation"]


class Case(NamedTuple):
    """One line of the table.

    Attributes:
        data: `mpnet`, `wordllama` or `spread`.
        rule: how it may shorten.
        ask: `rows` of the table, or `real` queries.
        recall: to reach.

    """

    data: str
    rule: Rule
    ask: str
    recall: float

    @property
    def name(self) -> str:
        """As it is recorded."""
        return f"{self.data}, {self.rule}, {self.ask}, {self.recall:g}"


CASES = (
    *(Case("mpnet", rule, ask, 0.95) for rule in ("prefix", "rotation") for ask in ("rows", "real")),
    *(Case("wordllama", rule, "rows", 0.95) for rule in ("prefix", "rotation")),
    *(Case(data, "rotation", "rows", 0.98) for data in ("mpnet", "wordllama")),
    Case("spread", "rotation", "rows", 0.95),
    Case("spread", "rotation", "real", 0.95),
)


@dataclass(frozen=True)
class Data:
    """Vectors to load, rows of the same kind that are not loaded, and real queries.

    Attributes:
        rows: shape (n, dims).
        unseen: shape (m, dims).
        real: shape (q, dims); of none, empty.

    """

    rows: NDArray[Any]
    unseen: NDArray[np.float32]
    real: NDArray[np.float32]


def say(line: str) -> None:
    """Progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def load(name: str, rows: int | None, many: int) -> Data:
    """A data set, with some of its rows left out."""
    if name == "wordllama":
        vectors, real = wordllama(), np.empty((0, 256), np.float32)
        if rows is not None:
            vectors = vectors[np.random.default_rng(2).choice(len(vectors), min(rows, len(vectors)), replace=False)]
    else:
        found = debian(rows, 1200) if name == "mpnet" else spread(many, 1200)
        vectors, real = found.rows, np.vstack([found.queries, found.warm_up])
    order = np.random.default_rng(9).permutation(len(vectors))
    out = np.sort(order[:UNSEEN])
    kept = np.ones(len(vectors), np.bool_)
    kept[out] = False
    return Data(vectors[kept], vectors[out].astype(np.float32), real)


def wordllama() -> NDArray[np.float32]:
    """The texts by the bundled static model, 256 dimensions, trained with a Matryoshka loss."""
    texts = [f"{one['name']}: {one['synopsis']}" for one in packages()]
    found = np.asarray(load_embedder(DEFAULT).embed_documents(texts), np.float32)
    return found[found.any(axis=1)]


# -- the machine's pace ----------------------------------------------------------------------------------------------


class Pace:
    """The time of a search that is always the same: leading 128 dimensions, 40 rows ranked."""

    def __init__(self, server: Server, engine: Engine, data: Data) -> None:
        dims = data.rows.shape[1]
        short = Matryoshka(dims, Short(min(128, dims // 2)))
        table = Table("pace", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", short))
        fill(engine, table, data.rows[:PACE_ROWS])
        self.connection = server.connect()
        self.statements = list(statements_for(table, short.definition, 40, 40, data.unseen))
        self.asked = 0
        self.times: list[float] = []

    def take(self) -> None:
        """One turn; half of it is not counted, or it would tell how much the others displaced from the caches."""
        for number in range(2 * BLOCK):
            took, _ = timed(self.connection, self.statements[self.asked % len(self.statements)])
            self.asked += 1
            if number >= BLOCK:
                self.times.append(took)

    @property
    def ms(self) -> float:
        """The median of the turns since this was last asked."""
        taken, self.times = self.times, []
        return statistics.median(taken) * 1e3


def timed(connection: Connection, statement: tuple[bytes, dict[str, Any]]) -> tuple[float, list[Any]]:
    """Seconds that a search takes, and its rows."""
    text, given = statement
    begun = time.perf_counter()
    rows = connection.execute(text, given, prepare=True, binary=True).fetchall()
    return time.perf_counter() - begun, rows


# -- one case ------------------------------------------------------------------------------------------------------


def fill(engine: Engine, table: Table, vectors: NDArray[Any]) -> None:
    """Load a new table."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table.name} CASCADE")
        table.create(connection)
        ingest(connection, table.c.embedding, ({"id": n} for n in range(len(vectors))), vectors=vectors)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")


def plain(dims: int) -> Table:
    """The table that is tuned: no short column."""
    kind = Matryoshka(dims, Short(1, by=Rotation()))
    return Table("packages", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", kind))


def tuned(engine: Engine, case: Case, data: Data, pace: Pace) -> tuple[Tuning, float]:
    """What is found, and the seconds it took."""
    with engine.connect() as connection:
        column = reflect(connection, "packages.embedding")
        connection.rollback()
        asked: Any = {}
        if case.ask == "real":
            asked = {"queries": vector_queries(column, data.real[: len(data.real) - UNSEEN])}
        begun = time.perf_counter()
        found = tune(
            connection,
            column,
            case.recall,
            k=K,
            by=(case.rule,),
            maintenance_work_mem="2GB",
            progress=_Told(pace),
            **asked,
        )
        return found, time.perf_counter() - begun


class _Told:
    """Says what is begun, and takes the pace between the turns of the searches that are timed."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.last = ""

    def __call__(self, what: str, _done: int, whole: int) -> None:
        if what == TIMING:
            self.pace.take()
        if what != self.last and not what.startswith(("searching", "checking")):
            say(f"  {what} ({whole:,})")
        self.last = what


def measured(server: Server, engine: Engine, case: Case, data: Data, choice: Option, pace: Pace) -> dict[str, Any]:
    """The proposed column, built and searched."""
    definition, index = choice.candidate.definition, choice.candidate.index
    column: Column[Any] = Column("embedding", Matryoshka(definition.dims, definition.short, index=index))
    built = Table("built", MetaData(), Column("id", Integer, primary_key=True), column)
    hnsw = next(iter(built.indexes))
    built.indexes.clear()
    if isinstance(definition.short.by, Rotation):
        with engine.begin() as connection:
            database.install_rotation(connection, definition.short.by)
    fill(engine, built, data.rows)
    begun = time.perf_counter()
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '2GB'")
        hnsw.create(connection)
    seconds = time.perf_counter() - begun
    queries = data.real[-UNSEEN:] if case.ask == "real" else data.unseen
    with server.connect() as connection:
        connection.execute("ANALYZE built")
        size = connection.execute("SELECT pg_relation_size(%s::regclass)", (str(hnsw.name),)).fetchone()
        statements = list(statements_for(built, definition, choice.shortlist, choice.ef_search, queries))
        truth = Truth(data.rows.astype(VECTORS[definition.full]), definition.stored(queries), K)
        recalls, ms = asked(connection, statements, truth, pace)
    interval = mean_interval(recalls)
    return {
        "recall": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p50_ms": ms,
        "index_bytes": size[0] if size else None,
        "build_seconds": seconds,
    }


def asked(
    connection: Connection, statements: list[tuple[bytes, dict[str, Any]]], truth: Truth, pace: Pace
) -> tuple[list[float], float]:
    """Recall of each query, and the median time of a search."""
    recalls, times = [], []
    for block in range(0, len(statements), BLOCK):
        pace.take()
        for before in range(WARM_UP):
            timed(connection, statements[block - before - 1])
        for number in range(block, min(block + BLOCK, len(statements))):
            took, rows = timed(connection, statements[number])
            times.append(took)
            recalls.append(truth.hits(number, [row[0] for row in rows]) / K)
    return recalls, statistics.median(times) * 1e3


def statements_for(
    table: Table, definition: Definition, shortlist: int, ef_search: int, queries: NDArray[np.float32]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """What an application sends."""
    for query in definition.stored(queries):
        text, given = compile_sql(
            search(select(table.c.id), table.c.embedding, query, k=K, shortlist=shortlist, ef_search=ef_search)
        )
        yield text.encode(), given


def run(server: Server, engine: Engine, case: Case, data: Data, pace: Pace) -> dict[str, Any]:
    """Tune, build, measure."""
    say(case.name)
    found, seconds = tuned(engine, case, data, pace)
    result: dict[str, Any] = {"tuning": found.as_json(), "seconds": seconds, "rows": len(data.rows)}
    if found.choice is not None:
        before = pace.ms
        result["measured"] = measured(server, engine, case, data, found.choice, pace)
        result["pace_ms"] = {"predicted": before, "measured": pace.ms}
    return result


# -- report --------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """The tables."""
    lines = ["# Tuning", "", "Made by `python -m benchmarks.tuning`; the numbers are in tuning.json.", ""]
    if "setting" in results:
        lines += [results["setting"], ""]
    told = (
        "Predicted by `tune` on a table without a short column, and measured on the column that it proposed, with "
        f"{UNSEEN} queries that it never saw. *rows*: rows of the table as queries, measured with rows that are in no "
        "table; *real*: descriptions of packages as queries, one half to tune with. *spread*: noisy recombinations of "
        "the Debian set; its indexes were tried on 100,000 rows. *Pace*: the time of a search that is always the same, "
        "in turns with those that the prediction is made of (then) and with the measured ones (now)."
    )
    lines += [
        told,
        "",
        *_recalls(results["cases"]),
        "",
        "## Size and build",
        "",
        *_sizes(results["cases"]),
        "",
        "## Time to tune, in seconds",
        "",
        *_seconds(results["cases"]),
        "",
        "## How the models held",
        "",
        "The largest size that was measured, predicted from the two smaller ones (a fourth and a sixteenth of it).",
        "",
        *_models(results["cases"]),
    ]
    return "\n".join(lines) + "\n"


def _recalls(cases: dict[str, Any]) -> Iterable[str]:
    yield (
        "| case | rows | choice | recall predicted | measured | off by | ms predicted | measured | off by | "
        "pace then, ms | pace now | off by at one pace |"
    )
    yield f"|{'---|' * 12}"
    for name, one in cases.items():
        choice, found = one["tuning"]["choice"], one.get("measured")
        if choice is None or found is None:
            yield f"| {name} | {one['rows']:,} | not reached: {one['tuning']['limit']['cause']} |{' |' * 9}"
            continue
        kind = "" if choice["type"] == "halfvec" else f" {choice['type']}"
        what = f"{choice['shortening']} {choice['dims']}{kind}, {choice['shortlist']} of {choice['ef_search']}"
        recall, ms, pace = choice["recall"]["mean"], choice["latency_ms"], one["pace_ms"]
        off, slower = found["p50_ms"] / ms, pace["measured"] / pace["predicted"]
        yield (
            f"| {name} | {one['rows']:,} | {what} | {recall:.3f} | {found['recall']:.3f} | "
            f"{found['recall'] - recall:+.3f} | {ms:.2f} | {found['p50_ms']:.2f} | {off - 1:+.0%} | "
            f"{pace['predicted']:.2f} | {pace['measured']:.2f} | {off / slower - 1:+.0%} |"
        )


def _sizes(cases: dict[str, Any]) -> Iterable[str]:
    yield "| case | index predicted, MB | measured | build predicted, s | measured |"
    yield "|---|---|---|---|---|"
    for name, one in cases.items():
        choice, found = one["tuning"]["choice"], one.get("measured")
        if choice is not None and found is not None:
            sizes = f"{choice['index_bytes'] / 1e6:.1f} | {found['index_bytes'] / 1e6:.1f}"
            yield f"| {name} | {sizes} | {choice['build_seconds']:.1f} | {found['build_seconds']:.1f} |"


def _seconds(cases: dict[str, Any]) -> Iterable[str]:
    parts = ("truth", "truncation", "indexes", "check")
    yield f"| case | rows | all | {' | '.join(parts)} |"
    yield f"|---|---|---|{'---|' * len(parts)}"
    for name, one in cases.items():
        each = " | ".join(f"{one['tuning']['seconds'].get(part, 0):.0f}" for part in parts)
        yield f"| {name} | {one['rows']:,} | {one['seconds']:.0f} | {each} |"


def _models(cases: dict[str, Any]) -> Iterable[str]:
    names = ("recall", "truncation", "HNSW", "latency", "index size", "build time")
    yield f"| case | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for name, one in cases.items():
        models = {model["name"]: model for model in one["tuning"]["models"]}
        if models:
            yield f"| {name} | {' | '.join(_error(models.get(what)) for what in names)} |"


def _error(model: dict[str, Any] | None) -> str:
    if model is None or model["error"] is None:
        return ""
    return f"{model['error']:.0%}" if model["relative"] else f"{model['error']:.3f}"


# -- the command ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", nargs="*", default=["mpnet", "wordllama", "spread"], help="mpnet, wordllama, spread")
    parser.add_argument("--only", default="", help="cases whose name contains this, such as 'rotation, rows, 0.95'")
    parser.add_argument("--rows", type=int, help="rows of the real set (default all 68,820)")
    parser.add_argument("--many", type=int, default=500_000, help="rows of the spread set")
    parser.add_argument("--work", type=Path, default=Path("/tmp/pgmrl-bench"), help="folder for data directories")  # noqa: S108
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    unknown = set(given.data) - {"mpnet", "wordllama", "spread"}
    if unknown:
        parser.error(f"no data {sorted(unknown)[0]!r}: choose of mpnet, wordllama, spread")
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    before = given.out / "tuning.json"
    results: dict[str, Any] = json.loads(before.read_text()) if before.exists() else {}
    cases = results.setdefault("cases", {})
    with Server(given.work / "tuning", {"log_min_messages": "fatal"}) as server:
        engine = create_engine(server.sqlalchemy_url)
        with engine.begin() as connection:
            database.upgrade(connection)
        with server.connect() as connection:
            told = environment(connection)
        results["setting"] = (
            f"{told['machine']['cores']} cores; {str(told['server']).split(' on ')[0]}, "
            f"pgvector {told['pgvector']}; k={K}."
        )
        for name in given.data:
            data = load(name, given.rows, given.many)
            fill(engine, plain(data.rows.shape[1]), data.rows)
            pace = Pace(server, engine, data)
            for case in (one for one in CASES if one.data == name and given.only in one.name):
                cases[case.name] = run(server, engine, case, data, pace)
                before.write_text(json.dumps(results, indent=1, default=str))
                (given.out / "tuning.md").write_text(report(results))
        engine.dispose()


if __name__ == "__main__":
    main()
