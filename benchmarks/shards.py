"""Shards without Citus: two databases behind foreign tables, and behind a function on each, beside one table.

    python -m benchmarks.shards                   20,000 x 768; prints its table

Three ways to ask the same queries, in turns: one table; a partitioned table whose two partitions are foreign tables
(postgres_fdw), by the library's statement; and a function on each shard that ranks its own rows, called through dblink
for both shards at once and merged. All databases are on one server: the network would come on top.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import psycopg
from pgvector.psycopg import register_vector

from benchmarks.data import Truth, debian, principal_axes, stored
from benchmarks.server import Server
from benchmarks.sides import Effort, gated, query_shortener
from benchmarks.tables import Shortened, copy
from pgmrl.model.compat import HalfVector

if TYPE_CHECKING:
    from benchmarks.data import Dataset
    from benchmarks.server import Connection

SHARDS, SHORT, SHORTLIST = 2, 128, 100
COLUMNS: Final = "(id integer NOT NULL, embedding halfvec(768) STORAGE MAIN, short halfvec(128) STORAGE MAIN)"


def statement(query: str, short: str) -> str:
    """As the library writes it."""
    gate = gated(short, Effort(SHORTLIST, SHORTLIST, "iterate"))
    return (
        f"SELECT id, distance FROM (SELECT id, embedding <=> {query} AS distance FROM (SELECT id, embedding FROM items "
        f"ORDER BY short <=> {gate} LIMIT {SHORTLIST}) AS shortlist) AS ranked ORDER BY distance, id LIMIT 10"
    )


WORKER: Final = (
    "CREATE FUNCTION nearest(query halfvec, short_query halfvec) RETURNS TABLE (id integer, distance float8) "
    f"LANGUAGE sql AS $$ {statement('query', 'short_query')} $$"
)
MERGE: Final = """
CREATE FUNCTION nearest(query halfvec, short_query halfvec) RETURNS TABLE (id integer, distance float8)
LANGUAGE plpgsql AS $$
DECLARE
    shard text;
    ask text := format('SELECT * FROM nearest(%L, %L)', query, short_query);
BEGIN
    FOREACH shard IN ARRAY ARRAY['shard_0', 'shard_1'] LOOP
        PERFORM dblink_send_query(shard, ask);
    END LOOP;
    RETURN QUERY SELECT r.* FROM unnest(ARRAY['shard_0', 'shard_1']) AS s (name)
        CROSS JOIN LATERAL dblink_get_result(s.name) AS r (id integer, distance float8) ORDER BY 2, 1 LIMIT 10;
    FOREACH shard IN ARRAY ARRAY['shard_0', 'shard_1'] LOOP
        PERFORM * FROM dblink_get_result(shard) AS r (id integer, distance float8);  -- none: it is over
    END LOOP;
END $$"""


def database(server: Server, name: str) -> Connection:
    """A connection to a new database."""
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = psycopg.connect(f"{server.conninfo} dbname={name}", autocommit=True)
    made.execute("CREATE EXTENSION vector")
    register_vector(made)
    return made


def fill(connection: Connection, dataset: Dataset, short: Shortened, parts: range) -> None:
    """The rows of some shards in one table, under an index; ids are the rows' numbers in the whole."""
    connection.execute(f"CREATE TABLE items {COLUMNS}")
    connection.execute(f"CREATE TEMPORARY TABLE loaded {COLUMNS}")
    copy(connection, "loaded (id, embedding, short)", dataset.rows, "halfvec", short.of)
    connection.execute(f"INSERT INTO items SELECT * FROM loaded WHERE mod(id, {SHARDS}) = ANY (%s)", [list(parts)])
    connection.execute("CREATE INDEX ON items USING hnsw (short halfvec_cosine_ops) WITH (ef_construction = 100)")
    connection.execute("VACUUM ANALYZE items")
    connection.execute(WORKER)


def front(server: Server) -> Connection:
    """The database that knows the shards by foreign tables, and by dblink."""
    connection = database(server, "front")
    connection.execute("CREATE EXTENSION postgres_fdw")
    connection.execute("CREATE EXTENSION dblink")
    connection.execute(f"CREATE TABLE items {COLUMNS} PARTITION BY LIST (mod(id, {SHARDS}))")
    for n in range(SHARDS):
        connection.execute(
            f"CREATE SERVER shard_{n} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{server.data}', "
            f"dbname 'shard_{n}', extensions 'vector', async_capable 'true', use_remote_estimate 'true', "
            "options '-c hnsw.ef_search=100 -c hnsw.iterative_scan=relaxed_order')"
        )
        connection.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER shard_{n} OPTIONS (user 'postgres')")
        connection.execute(
            f"CREATE FOREIGN TABLE items_{n} PARTITION OF items FOR VALUES IN ({n}) SERVER shard_{n} "
            "OPTIONS (table_name 'items')"
        )
        connection.execute("SELECT dblink_connect(%s, %s)", [f"shard_{n}", f"{server.conninfo} dbname=shard_{n}"])
    connection.execute(MERGE)
    return connection


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=150)
    options = parser.parse_args()
    dataset = debian(options.rows, options.queries)
    short = Shortened("rotation", SHORT, principal_axes(dataset.sample(), SHORT))
    truth, shorten = Truth(stored(dataset.rows, "halfvec"), dataset.queries), query_shortener(short)
    sent, called = statement("%(query)b", "%(short)b"), "SELECT * FROM nearest(%(query)b, %(short)b)"
    with tempfile.TemporaryDirectory(prefix="pgmrl-shards-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with Server(Path(folder) / "data") as server:
            one = database(server, "one")
            fill(one, dataset, short, range(SHARDS))
            for n in range(SHARDS):
                fill(database(server, f"shard_{n}"), dataset, short, range(n, n + 1))
            both = front(server)
            ways = {"one table": (one, sent), "foreign tables": (both, sent), "a function per shard": (both, called)}
            times: dict[str, list[float]] = {name: [] for name in ways}
            hits = dict.fromkeys(ways, 0)
            for number, query in enumerate(dataset.queries):
                parameters: Any = {"query": HalfVector(query), "short": HalfVector(shorten(query))}
                for name, (connection, text) in ways.items():
                    cursor = connection.cursor(binary=True)
                    start = time.perf_counter()
                    rows = cursor.execute(text, parameters, prepare=True).fetchall()
                    times[name].append((time.perf_counter() - start) * 1e3)
                    hits[name] += truth.hits(number, (row[0] for row in rows))
    print(f"| {dataset.name} | p50 ms | of one table | recall@10 |\n|---|---|---|---|")
    for name, measured in times.items():
        p50, base = median(measured), median(times["one table"])
        print(f"| {name} | {p50:.1f} | {p50 / base:.1f} | {hits[name] / (10 * options.queries):.3f} |")


if __name__ == "__main__":
    main()
