"""A table that Citus distributes beside the same rows on the coordinator alone: `python -m benchmarks.citus URL`.

URL is the coordinator's, of a database that may be written to, with citus and vector on every node. Debian packages
with a prefix of 128 of 768 dimensions, `halfvec`, in four shards: median milliseconds as the client sees them, in
turns, and recall@10 by NumPy. Then twenty queries by `search_many` beside the same one by one.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, select

from benchmarks.data import Dataset, debian
from pgmrl import Matryoshka, Short, database, ingest, search, search_many
from pgmrl.online.distributing import distribution_statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

SHORTLISTS: Final = (100, 400)
SHARDS: Final = 4
MANY: Final = 20
K: Final = 10


def main() -> None:
    """Load, search, print; the tables are dropped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    dataset = debian(options.rows, options.queries)
    engine = create_engine(database.sqlalchemy_url(options.url))
    metadata = MetaData()
    tables = {
        "one server": _table(metadata, "bench_one_server", dataset.dims, distributed=False),
        f"{SHARDS} shards": _table(metadata, "bench_shards", dataset.dims, distributed=True),
    }
    metadata.drop_all(engine)
    try:
        for table in tables.values():
            _load(engine, table, dataset)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            print(f"{len(dataset.rows):,} x {dataset.dims}, {len(dataset.queries)} queries, {options.repeats} repeats")
            _measure(connection, tables, dataset, options.repeats)
            _measure_many(connection, tables[f"{SHARDS} shards"], dataset, options.repeats)
    finally:
        metadata.drop_all(engine)
        engine.dispose()


def _table(metadata: MetaData, name: str, dims: int, *, distributed: bool) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", Text),
        Column("e", Matryoshka(dims, Short(128), distributed=distributed)),
    )


def _load(engine: Engine, table: Table, dataset: Dataset) -> None:
    with engine.begin() as connection:
        table.create(connection)
    if table.name == "bench_shards":
        with engine.begin() as connection:
            for statement in distribution_statements(connection, None, table.name, "id", SHARDS):
                connection.exec_driver_sql(statement)
    rows = ({"id": number, "name": f"package {number}"} for number in range(len(dataset.rows)))
    with engine.begin() as connection:
        ingest(connection, table.c.e, rows, vectors=np.asarray(dataset.rows, np.float32))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")


def _measure(connection: Connection, tables: dict[str, Table], dataset: Dataset, repeats: int) -> None:
    times: dict[tuple[str, int], list[float]] = {}
    hits: dict[tuple[str, int], list[float]] = {}
    truth = _truth(dataset)
    for repeat in range(-1, repeats):  # the first to warm up
        for number, query in enumerate(dataset.queries):
            order = [(name, shortlist) for name in tables for shortlist in SHORTLISTS]
            random.Random(f"{repeat} {number}").shuffle(order)  # noqa: S311 - an order to measure in
            for name, shortlist in order:
                table = tables[name]
                started = time.perf_counter()
                statement = search(select(table.c.id, table.c.name), table.c.e, query, k=K, shortlist=shortlist)
                rows = connection.execute(statement).all()
                if repeat >= 0:
                    times.setdefault((name, shortlist), []).append(1000 * (time.perf_counter() - started))
                    hits.setdefault((name, shortlist), []).append(len({row[0] for row in rows} & truth[number]) / K)
    for (name, shortlist), own in sorted(times.items()):
        recall = np.mean(hits[name, shortlist])
        print(f"  {name:12} shortlist {shortlist:4}: {np.median(own):7.2f} ms, recall@{K} {recall:.3f}")
    for shortlist in SHORTLISTS:
        one, shards = (np.median(times[name, shortlist]) for name in tables)
        print(f"  shards take {shards / one:.2f} times as long, shortlist {shortlist}")


def _measure_many(connection: Connection, table: Table, dataset: Dataset, repeats: int) -> None:
    queries, columns = dataset.queries[:MANY], select(table.c.id, table.c.name)
    for shortlist in SHORTLISTS:

        def single(size: int = shortlist) -> None:
            for query in queries:
                connection.execute(search(columns, table.c.e, query, k=K, shortlist=size)).all()

        def many(size: int = shortlist) -> None:
            connection.execute(search_many(columns, table.c.e, queries, k=K, shortlist=size)).all()

        medians = [float(np.median(own)) for own in zip(*_in_turns([single, many], 3 * repeats), strict=True)]
        text = ", ".join(
            f"{name} {1000 * own:.0f} ms" for name, own in zip(("one by one", "many"), medians, strict=True)
        )
        print(f"  {MANY} queries, shortlist {shortlist}: {text} ({medians[1] / medians[0]:.2f})")


def _in_turns(calls: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    """Seconds of each call, in a row for each repeat but the first."""
    rows = []
    for _ in range(repeats + 1):
        row = []
        for call in calls:
            started = time.perf_counter()
            call()
            row.append(time.perf_counter() - started)
        rows.append(row)
    return rows[1:]


def _truth(dataset: Dataset) -> list[set[Any]]:
    """The nearest rows of each query by cosine, of the vectors as they are stored."""
    rows = np.asarray(dataset.rows, np.float16).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [set(np.argsort(-(rows @ query), kind="stable")[:K].tolist()) for query in np.asarray(dataset.queries)]


if __name__ == "__main__":
    main()
