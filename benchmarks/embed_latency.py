"""From commit to searchable: `python -m benchmarks.embed_latency`.

Writers change texts at a steady rate while `pgmrl embed --watch` runs in a process of its own with the static model.
For each committed text: when was its vector stored? A trigger of the table writes that down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from sqlalchemy import create_engine

from benchmarks.embed_results import keep, new_server
from pgmrl import database
from pgmrl.embedding_queue import embedded_column, install_embedding
from pgmrl.model.embed import Embed

if TYPE_CHECKING:
    from benchmarks.server import Server

WORDS = ("search", "vectors", "texts", "rows", "tables", "servers", "workers", "model", "index", "query", "planner")


def prepare(server: Server, rows: int) -> None:
    """A table with its triggers, filled, and one that says when each vector was stored."""
    engine = create_engine(server.sqlalchemy_url)
    with engine.begin() as connection:
        database.upgrade(connection)
    with server.connect() as bare:
        bare.execute("CREATE TABLE texts (id int PRIMARY KEY, body text, at timestamptz, embedding halfvec(256))")
        bare.execute("CREATE TABLE seen (id int, written timestamptz, stored timestamptz)")
        bare.execute(f"INSERT INTO texts SELECT n, 'text ' || n, NULL FROM generate_series(1, {rows}) AS n")
        bare.execute(
            "CREATE FUNCTION stored() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO seen VALUES (NEW.id, NEW.at, clock_timestamp()); RETURN NULL; END $$"
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        install_embedding(connection, embedded_column(connection, "texts.embedding"), Embed("body", "static"))
    engine.dispose()


def write(server: Server, rate: float, seconds: float, rows: int, seed: int) -> int:
    """Change texts, each in a transaction, at times that do not wait for anybody; how many."""
    random, due, count = np.random.default_rng(seed), time.monotonic(), 0
    end = due + seconds
    with server.connect() as connection:
        while due < end:
            due += random.exponential(1 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            body = " ".join(random.choice(WORDS, 12))
            connection.execute(
                "UPDATE texts SET body = %s, at = clock_timestamp() WHERE id = %s",
                [body, int(random.integers(1, rows + 1))],
            )
            count += 1
    return count


def run(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """The latencies, with NOTIFY."""
    prepare(server, options.rows)
    command = [sys.executable, "-m", "pgmrl.cli", "embed", "texts.embedding", "--watch", "--json"]
    environ = {**os.environ, "DATABASE_URL": server.sqlalchemy_url}
    worker = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        with server.connect() as connection:
            _until_none_waits(connection)
            connection.execute(
                "CREATE TRIGGER stored AFTER UPDATE OF embedding ON texts FOR EACH ROW EXECUTE FUNCTION stored()"
            )
            written: list[int] = []

            def writer_of(seed: int) -> None:
                share = options.rate / options.writers
                written.append(write(server, share, options.seconds, options.rows, seed))

            writers = [threading.Thread(target=writer_of, args=(seed,)) for seed in range(options.writers)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            _until_none_waits(connection)
            waits = [
                row[0]
                for row in connection.execute(
                    "SELECT extract(epoch FROM min(stored) - written)::float8 FROM seen WHERE written IS NOT NULL "
                    "GROUP BY id, written"
                )
            ]
    finally:
        worker.terminate()
        worker.wait(60)
    p50, p99 = np.percentile(waits, [50, 99])
    return {
        "writes": sum(written),
        "writes a second": round(sum(written) / options.seconds, 1),
        "texts embedded": len(waits),
        "p50 seconds": round(float(p50), 3),
        "p99 seconds": round(float(p99), 3),
        "longest seconds": round(max(waits), 3),
    }


def _until_none_waits(connection: psycopg.Connection[Any]) -> None:
    for _ in range(1_200):
        if connection.execute("SELECT count(*) FROM pgmrl.embedding_queue").fetchone() == (0,):
            return
        time.sleep(0.1)
    raise SystemExit("no worker embeds what is marked")


def main() -> None:
    """Measure, and put the numbers into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="writes a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=5_000)
    options = parser.parse_args()
    with new_server({"fsync": "on", "autovacuum": "on"}) as server:
        keep("latency", {"rate": options.rate, **run(server, options)}, server)


if __name__ == "__main__":
    main()
