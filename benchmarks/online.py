"""Migrations under load: `python -m benchmarks.online`.

A short vector is added to a table that others read and write all the time, once with pgmrl's online path, once naively
(a generated column in place, then a plain CREATE INDEX). How long did anybody wait? How much did the backfill slow the
others? Is any row lost or out of step? And: killed at random points, does the job complete?

Each part is written to results/online.json as soon as it is measured; results/online.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.psycopg import register_vector
from sqlalchemy import create_engine

import pgmrl.alembic  # noqa: F401 - registers the operations
from benchmarks.data import packages
from benchmarks.load import WRITES, Load
from benchmarks.server import Server, environment, machine
from pgmrl import Definition, Hnsw, Short, database
from pgmrl.embedders import load_embedder
from pgmrl.model.compat import Vector as PgVector
from pgmrl.online import backfill, index_statements, steps
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFINITION = Definition.of(256, Short(64), full="vector")
TARGET = Target("documents", "embedding", DEFINITION)
INDEX = Hnsw(16, 100)
HERE = Path(__file__).parent
# as a server in use has them, not as the other benchmarks: WAL, fsync and autovacuum
SETTINGS = {
    "shared_buffers": "4GB",
    "maintenance_work_mem": "2GB",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "fsync": "on",
    "autovacuum": "on",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "5min",
    "log_min_messages": "fatal",
}


@dataclass
class Bench:
    """What every part needs.

    Attributes:
        server: running.
        rows: of the table.
        rate: operations a second of the load.
        results: what was measured so far.
        out: where it is written.
    """

    server: Server
    rows: int
    rate: float
    results: dict[str, Any]
    out: Path

    def keep(self, name: str, value: Any) -> None:
        """Write a result down."""
        self.results[name] = value
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "online.json").write_text(json.dumps(self.results, indent=1))
        (self.out / "online.md").write_text(report(self.results))
        say(f"{name}: done")

    def fresh(self) -> None:
        """The table as it was before anybody touched it."""
        with psycopg.connect(self.server.conninfo, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS documents CASCADE")
            connection.execute("DROP FUNCTION IF EXISTS zz_pgmrl_documents_embedding_short_64 CASCADE")
            connection.execute("DELETE FROM pgmrl.backfills")
            connection.execute("CREATE TABLE documents (LIKE source INCLUDING ALL)")
            connection.execute("INSERT INTO documents SELECT * FROM source ORDER BY id")
            connection.execute("VACUUM ANALYZE documents")
            connection.execute("CHECKPOINT")


def say(line: str) -> None:
    """Progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


# -- data ----------------------------------------------------------------------------------------------------------


def prepare(server: Server, rows: int) -> None:
    """Debian's package descriptions by the static model, 256 dimensions; more rows are noisy combinations of two."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        there = connection.execute("SELECT to_regclass('source')").fetchone()
        if there and there[0] and (connection.execute("SELECT count(*) FROM source").fetchone() or [0])[0] == rows:
            return
        say(f"loading {rows:,} rows")
        connection.execute("DROP TABLE IF EXISTS source")
        connection.execute("CREATE TABLE source (id bigint PRIMARY KEY, title text, embedding vector(256))")
        register_vector(connection)
        titles, vectors = texts(rows)
        numbers = np.random.default_rng(1)
        with connection.cursor().copy("COPY source FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "vector"])
            for number in range(rows):
                one, other = vectors[number % len(vectors)], vectors[numbers.integers(len(vectors))]
                mixed = one if number < len(vectors) else one + 0.5 * other
                copy.write_row((number + 1, titles[number % len(titles)], PgVector(mixed)))
        connection.execute("VACUUM ANALYZE source")


def texts(rows: int) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Titles and vectors of as many packages as there are, at most `rows`."""
    found = packages(rows)
    titles = [f"{one['name']}: {one['synopsis']}" for one in found]
    return titles, np.asarray(load_embedder("static").embed_documents(titles))


# -- two ways ------------------------------------------------------------------------------------------------------

Phase = tuple[str, float, float]  # name, begin, end


def online(bench: Bench) -> list[Phase]:
    """Pgmrl's operations, as a migration runs them."""
    phases: list[Phase] = []
    engine = create_engine(bench.server.sqlalchemy_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        op: Any = Operations(context)
        with context.begin_transaction():
            place = ("documents", "embedding", DEFINITION)
            ways: list[tuple[str, Callable[[], None]]] = [
                ("add the column and its trigger", lambda: op.add_short(*place, online=True)),
                ("backfill", lambda: op.backfill_short(*place)),
                ("index", lambda: op.create_short_index(*place, index=INDEX)),
                ("validate", lambda: op.validate_short(*place)),
            ]
            for name, run in ways:
                began = time.time()
                run()
                phases.append((name, began, time.time()))
    engine.dispose()
    return phases


def naive(bench: Bench) -> list[Phase]:
    """What one writes without thinking of others."""
    phases: list[Phase] = []
    with psycopg.connect(bench.server.conninfo, autocommit=True) as connection:
        for name, statement in (
            ("add the generated column", steps.add_in_place(TARGET)[0]),
            ("index", index_statements.create_statement(TARGET, INDEX, concurrently=False)),
        ):
            began = time.time()
            connection.execute(statement.encode())
            phases.append((name, began, time.time()))
    return phases


def under_load(bench: Bench, way: Callable[[Bench], list[Phase]], *, before: float = 15.0) -> dict[str, Any]:
    """Run one way while others work; how long each of them waited, phase by phase, and whether anything is wrong."""
    bench.fresh()
    with Load(bench.server.conninfo, bench.rows, rate=bench.rate) as load:
        began = time.time()
        time.sleep(before)
        phases = [("before", began, time.time()), *way(bench)]
        end = time.time()
        time.sleep(5)
        phases.append(("after", end, time.time()))
    found: dict[str, Any] = {"phases": []}
    for name, start, stop in phases:
        inside = [(kind, seconds) for kind, due, seconds in load.done if start - 1e-9 <= due < stop]
        found["phases"].append(
            {
                "name": name,
                "seconds": stop - start,
                **_waits("reader", [s for kind, s in inside if kind == "read"]),
                **_waits("writer", [s for kind, s in inside if kind in WRITES]),
            }
        )
    during = [p for p in found["phases"] if p["name"] not in {"before", "after"}]
    found["seconds"] = sum(p["seconds"] for p in during)
    for who in ("reader", "writer"):
        found[f"longest_{who}"] = max(p[f"{who}_longest"] or 0.0 for p in during)
    found["wrong"] = wrong(bench, load.own)
    return found


def _waits(who: str, seconds: list[float]) -> dict[str, Any]:
    found = np.asarray(seconds or [np.nan])
    return {
        f"{who}_operations": len(seconds),
        f"{who}_median": float(np.median(found)),
        f"{who}_p99": float(np.quantile(found, 0.99)),
        f"{who}_longest": float(found.max()),
    }


def wrong(bench: Bench, own: list[int]) -> dict[str, int]:
    """Rows lost, and rows whose short vector is not what the definition says; every row is compared."""
    with psycopg.connect(bench.server.conninfo, autocommit=True) as connection:

        def one(query: str, *parameters: Any) -> int:
            row = connection.execute(query.encode(), parameters or None).fetchone()
            assert row is not None
            return int(row[0])

        return {
            "rows_lost": bench.rows + len(own) - one("SELECT count(*) FROM documents"),
            "own_rows_lost": len(own) - one("SELECT count(*) FROM documents WHERE id = ANY(%s)", own),
            "out_of_step": one(
                f"SELECT count(*) FROM documents WHERE embedding_short_64 IS DISTINCT FROM {TARGET.value}"
            ),
            "invalid_indexes": one("SELECT count(*) FROM pg_index WHERE NOT indisvalid"),
        }


# -- throughput ----------------------------------------------------------------------------------------------------


def throughput(bench: Bench, seconds: float = 20.0) -> dict[str, Any]:
    """Clients that do as much as they can, without and with a backfill, as fast as it can and held back."""
    found: dict[str, Any] = {}
    engine = create_engine(bench.server.sqlalchemy_url)
    for name, most in (("none", None), ("default", None), ("held back", 2_000.0)):
        bench.fresh()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in steps.add_online(TARGET):
                database.execute_plain(connection, statement)
            fill = backfill.short_fill(connection, TARGET)
        with Load(bench.server.conninfo, bench.rows, rate=0) as load:
            time.sleep(2)
            began = time.time()
            filled = 0
            if name == "none":
                time.sleep(seconds)
            else:
                filled = _fill_for(engine, fill, backfill.Throttle(max_rows_per_second=most), seconds)
            stop = time.time()
        done = sum(began <= due < stop for _, due, _ in load.done)
        found[name] = {"operations_per_second": done / (stop - began), "rows_per_second": filled / (stop - began)}
    engine.dispose()
    return found


def _fill_for(engine: Any, fill: backfill.Fill, how: backfill.Throttle, seconds: float) -> int:
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    job = backfill.backfill(engine, fill, how, stop_event=over)
    timer.cancel()
    return job.rows_seen  # the triggers of the clients' own updates fill some of them


# -- kills ---------------------------------------------------------------------------------------------------------


def kills(bench: Bench, count: int, rows: int) -> dict[str, Any]:
    """Kill the job at random points, `count` times in all, and start it again each time.

    Two of three kills are SIGKILL to the client; the others end its connection at the server, and now and then a
    SIGKILL to its backend takes the whole server down, which recovers.
    """
    chance = random.Random(7)  # noqa: S311 - no secret
    small = Bench(bench.server, rows, bench.rate, {}, bench.out)
    done = {"client": 0, "connection": 0, "server": 0}
    problems: list[str] = []
    longest, completed = 10.0, 0
    _smaller(small)
    while sum(done.values()) < count:
        process, began = _start(bench), time.monotonic()
        wait = chance.uniform(0.5, longest)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            how = "client" if (n := sum(done.values())) % 3 else ("server" if n % 9 == 0 else "connection")
            _kill(bench, process, how)
            done[how] += 1
            continue
        if process.returncode != 0:
            problems.append(f"exit code {process.returncode}")
        longest = max(2.0, min(longest, time.monotonic() - began))
        completed += 1
        problems += _problems(small)
        _smaller(small)
    process = _start(bench)
    if process.wait() != 0:
        problems.append("the last run failed")
    problems += _problems(small)
    return {"kills": done, "rows": rows, "completed": completed + 1, "problems": problems}


def _smaller(bench: Bench) -> None:
    with psycopg.connect(bench.server.conninfo, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS documents CASCADE")
        connection.execute("DROP FUNCTION IF EXISTS zz_pgmrl_documents_embedding_short_64 CASCADE")
        connection.execute("CREATE TABLE documents (LIKE source INCLUDING ALL)")
        connection.execute("INSERT INTO documents SELECT * FROM source ORDER BY id LIMIT %s", [bench.rows])
        connection.execute("ANALYZE documents")


def _start(bench: Bench) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.online", "--job", bench.server.sqlalchemy_url]
    return subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.DEVNULL)  # noqa: S603


def job(url: str) -> None:
    """What is killed: the online path, run again as often as it takes."""
    engine = create_engine(url, connect_args={"application_name": "job"})
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        op: Any = Operations(context)
        with context.begin_transaction():
            op.add_short("documents", "embedding", DEFINITION, online=True)
            op.backfill_short("documents", "embedding", DEFINITION, max_rows_per_second=20_000)
            op.create_short_index("documents", "embedding", DEFINITION, index=INDEX)
            op.validate_short("documents", "embedding", DEFINITION)


def _kill(bench: Bench, process: subprocess.Popen[bytes], how: str) -> None:
    if how == "client":
        process.kill()
        process.wait()
        return
    with psycopg.connect(bench.server.conninfo, autocommit=True) as connection:
        pids = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'job'").fetchall()
        for (pid,) in pids:
            if how == "connection":
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            else:
                os.kill(pid, signal.SIGKILL)
                break
    process.wait()
    _wait_for(bench)


def _wait_for(bench: Bench) -> None:
    for _ in range(600):
        try:
            with psycopg.connect(bench.server.conninfo) as connection:
                connection.execute("SELECT 1")
                return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("the server did not come back")


def _problems(bench: Bench) -> list[str]:
    found = [f"{name}: {count}" for name, count in wrong(bench, []).items() if count]
    with psycopg.connect(bench.server.conninfo, autocommit=True) as connection:
        valid = connection.execute(
            "SELECT count(*) FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid "
            "WHERE x.indrelid = 'documents'::regclass AND x.indisvalid "
            "AND i.relname = 'documents_embedding_short_64_hnsw'"
        ).fetchone()
        ranges = connection.execute("SELECT count(*) FROM pgmrl.backfill_ranges").fetchone()
    if valid != (1,):
        found.append(f"valid indexes: {valid}")
    if ranges != (0,):
        found.append(f"ranges left: {ranges}")
    return found


# -- report --------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "## Numbers",
        "",
        "Made by `python -m benchmarks.online`; the numbers are in online.json.",
        "",
    ]
    setting = results.get("setting", {})
    if setting:
        told = (
            f"{setting['rows']:,} rows of 256 dimensions (`vector`), short vector of 64, {setting['rate']:.0f} "
            f"operations a second by two readers and two writers. {setting['machine']}; {setting['server']}."
        )
        lines += [told, ""]
    lines += _waits_table(results)
    if "throughput" in results:
        lines += ["### Clients that do as much as they can, beside a backfill", ""]
        lines += [
            "| backfill | its rows a second | clients' operations a second | of those without |",
            "|---|---|---|---|",
        ]
        base = results["throughput"]["none"]["operations_per_second"]
        for name, one in results["throughput"].items():
            done = one["operations_per_second"]
            lines.append(f"| {name} | {one['rows_per_second']:,.0f} | {done:,.0f} | {done / base:.0%} |")
        lines.append("")
    if "kills" in results:
        one = results["kills"]
        how = ", ".join(f"{count} {name}" for name, count in one["kills"].items())
        told = (
            f"{sum(one['kills'].values())} kills ({how}) of add, backfill and index build on {one['rows']:,} rows; "
            f"started again each time, it completed {one['completed']} times. Problems found afterwards (rows lost or "
            f"out of step, indexes missing or INVALID, ranges left over): {len(one['problems'])}."
        )
        lines += ["### Killed at random points", "", told, "", *one["problems"]]
    return "\n".join(lines) + "\n"


def _waits_table(results: dict[str, Any]) -> Iterator[str]:
    for way, title in (("online", "pgmrl's online path"), ("naive", "Generated column in place, plain CREATE INDEX")):
        if way not in results:
            continue
        one = results[way]
        yield from (f"### {title}", "", "| phase | seconds | writers: median | p99 | longest | readers: longest |")
        yield "|---|---|---|---|---|---|"
        for phase in one["phases"]:
            cells = [_ms(phase[name]) for name in ("writer_median", "writer_p99", "writer_longest", "reader_longest")]
            yield f"| {phase['name']} | {phase['seconds']:.1f} | {' | '.join(cells)} |"
        yield ""
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in one["wrong"].items())
        longest = f"Longest wait of a writer {_ms(one['longest_writer'])}, of a reader {_ms(one['longest_reader'])}."
        yield f"{longest} At the end: {told}."
        yield ""


def _ms(seconds: float | None) -> str:
    if seconds is None or np.isnan(seconds):
        return "-"
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1000:,.1f} ms"


# -- the command ---------------------------------------------------------------------------------------------------


@contextmanager
def _server(work: Path) -> Iterator[Server]:
    work.mkdir(parents=True, exist_ok=True)
    with Server(work / "online", SETTINGS) as server:
        with create_engine(server.sqlalchemy_url).begin() as connection:
            database.upgrade(connection)
        yield server


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", default=["online", "naive", "throughput", "kills"])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rate", type=float, default=200.0, help="operations a second of the load")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kill-rows", type=int, default=50_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/pgmrl-bench"), help="folder for data directories")  # noqa: S108
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job(given.job)
        return
    before = given.out / "online.json"
    results = json.loads(before.read_text()) if before.exists() else {}
    with _server(given.work) as server:
        prepare(server, given.rows)
        with server.connect() as connection:
            told = environment(connection)
        here = machine()
        results["setting"] = {
            "rows": given.rows,
            "rate": given.rate,
            "machine": f"{here.get('cores', os.cpu_count())} cores",
            "server": f"{str(told['server']).split(' on ')[0]}, pgvector {told['pgvector']}",
        }
        bench = Bench(server, given.rows, given.rate, results, given.out)
        if "online" in given.parts:
            bench.keep("online", under_load(bench, online))
        if "naive" in given.parts:
            bench.keep("naive", under_load(bench, naive))
        if "throughput" in given.parts:
            bench.keep("throughput", throughput(bench))
        if "kills" in given.parts:
            bench.keep("kills", kills(bench, given.kills, given.kill_rows))


if __name__ == "__main__":
    main()
