"""What the triggers of `pgmrl embed` cost an UPDATE: `python -m benchmarks.embed_cost`.

Processor time of the server process, which other jobs change least, for tables with and without the triggers, in turns.
`noise` is a second table without them.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine

from benchmarks.embed_results import keep, new_server
from pgmrl import database
from pgmrl.embedding_queue import embedded_column, install_embedding
from pgmrl.model.embed import Embed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.server import Connection, Server

ONE_ROW: Final = 1_000  # UPDATEs of one row, each a transaction
TABLES: Final = {
    "plain": None,
    "noise": None,
    "notify": Embed("{title}\n{body}", "static"),
    "no_notify": Embed("{title}\n{body}", "static", notify=False),
    "every_update": Embed("{title}\n{body}", "static"),
    "plain_trigger": None,
}
"""The last two have a BEFORE trigger that may change the text, so that every UPDATE is looked at."""
CHANGES: Final = {
    "another column": "stars = stars + 1",
    "all columns, the text as it was": "title = title, body = body, stars = stars + 1",
    "text": "title = title || '!'",
}


def prepare(server: Server, connection: Connection, rows: int) -> None:
    """The tables, with vectors."""
    engine = create_engine(server.sqlalchemy_url)
    with engine.begin() as upgraded:
        database.upgrade(upgraded)
    connection.execute(
        "CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.stars < 0 THEN NEW.body := ''; END IF; RETURN NEW; END $$"
    )
    for table, embed in TABLES.items():
        connection.execute(
            f"CREATE TABLE {table} (id int PRIMARY KEY, title text, body text, stars int, embedding halfvec(256)) "
            "WITH (fillfactor = 45)"
        )
        connection.execute(
            f"INSERT INTO {table} SELECT n, 'title ' || md5(n::text), "
            "(SELECT string_agg(md5((n + m)::text), ' ') FROM generate_series(1, 10) AS m), 0, "
            "(SELECT array_agg(random()) FROM generate_series(1, 256))::vector::halfvec "
            f"FROM generate_series(1, {rows}) AS n"
        )
        if table in {"every_update", "plain_trigger"}:
            connection.execute(f"CREATE TRIGGER b BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION rewrite()")
        if embed is not None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
                install_embedding(own, embedded_column(own, f"{table}.embedding"), embed)
        connection.execute(f"VACUUM ANALYZE {table}")
    engine.dispose()


def measure(connection: Connection, rows: int, repeats: int) -> dict[tuple[str, str, str], list[float]]:
    """Microseconds of processor time of an UPDATE of one row, by way, change and table."""
    times: dict[tuple[str, str, str], list[float]] = {}
    stat = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def timed(step: Callable[[], Any], updates: int) -> float:
        before = int(stat.read_text().split()[0])
        step()
        return (int(stat.read_text().split()[0]) - before) / updates / 1_000

    for repeat in range(repeats):
        for change, assignments in CHANGES.items():
            order = list(TABLES)
            random.Random(f"{repeat} {change}").shuffle(order)  # noqa: S311 - an order to measure in
            for table in order:
                update = f"UPDATE {table} SET {assignments}"
                keys = random.Random(repeat).sample(range(1, rows + 1), ONE_ROW)  # noqa: S311

                def one_row(update: str = update, keys: list[int] = keys) -> None:
                    for key in keys:
                        connection.execute(f"{update} WHERE id = %s", [key], prepare=True)

                bulk = timed(lambda update=update: connection.execute(update), rows)  # type: ignore[misc]
                connection.execute(f"VACUUM {table}")
                single = timed(one_row, ONE_ROW)
                times.setdefault(("all rows", change, table), []).append(bulk)
                times.setdefault(("one row", change, table), []).append(single)
                connection.execute(f"VACUUM {table}")
                connection.execute("TRUNCATE pgmrl.embedding_queue")
    return times


def main() -> None:
    """Measure, and put the numbers into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with new_server({}) as server, server.connect() as connection:
        prepare(server, connection, options.rows)
        times = measure(connection, options.rows, options.repeats)
        numbers: dict[str, Any] = {"rows": options.rows, "repeats": options.repeats}
        for way in ("one row", "all rows"):
            for change in CHANGES:
                micros = {table: median(times[way, change, table]) for table in TABLES}
                numbers[f"{way}, {change}"] = {
                    "microseconds": {table: round(value, 2) for table, value in micros.items()},
                    "more, by the median of the pairs": {
                        table: f"{100 * (_ratio(times, way, change, table) - 1):+.1f} %"
                        for table in ("noise", "notify", "no_notify", "every_update")
                    },
                }
        keep("cost", numbers, server)


def _ratio(times: dict[tuple[str, str, str], list[float]], way: str, change: str, table: str) -> float:
    """Median of what an UPDATE took, of what it took without the triggers in the same turn."""
    plain = "plain_trigger" if table == "every_update" else "plain"
    pairs = zip(times[way, change, table], times[way, change, plain], strict=True)
    return median(value / without for value, without in pairs)


if __name__ == "__main__":
    main()
