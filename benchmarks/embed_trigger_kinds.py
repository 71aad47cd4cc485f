"""What any trigger costs an UPDATE that it is not for: `python -m benchmarks.embed_trigger_kinds`.

Processor time of the server process for an UPDATE of another column in every row, by the kind of an empty trigger on
the text's columns, beside pgmrl's own. It prints, and keeps nothing.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import create_engine

from benchmarks.embed_results import new_server
from pgmrl import database
from pgmrl.embedding_queue import embedded_column, install_embedding
from pgmrl.model.embed import Embed

CONDITION: Final = "WHEN (record_image_ne(ROW(OLD.title, OLD.body), ROW(NEW.title, NEW.body)))"
TRIGGERS: Final = {
    "plain": None,
    "noise": None,
    "pgmrl": None,
    "after": "AFTER UPDATE OF title, body ON {} FOR EACH ROW",
    "after_condition": f"AFTER UPDATE OF title, body ON {{}} FOR EACH ROW {CONDITION}",
    "before": "BEFORE UPDATE OF title, body ON {} FOR EACH ROW",
    "before_condition": f"BEFORE UPDATE OF title, body ON {{}} FOR EACH ROW {CONDITION}",
    "statement": "AFTER UPDATE OF title, body ON {} FOR EACH STATEMENT",
    "statement_rows": "AFTER UPDATE ON {} REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT",
}
"""By table; those without a statement have no trigger, or pgmrl's. `noise` is a second table without one."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    with new_server({}) as server, server.connect() as connection:
        engine = create_engine(server.sqlalchemy_url)
        with engine.begin() as upgraded:
            database.upgrade(upgraded)
        connection.execute("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
        for table, trigger in TRIGGERS.items():
            connection.execute(
                f"CREATE TABLE {table} (id int PRIMARY KEY, title text, body text, stars int, e halfvec(256)) "
                "WITH (fillfactor = 45)"
            )
            connection.execute(
                f"INSERT INTO {table} SELECT n, md5(n::text), repeat(md5(n::text), 10), 0, "
                "(SELECT array_agg(random()) FROM generate_series(1, 256))::vector::halfvec "
                f"FROM generate_series(1, {options.rows}) AS n"
            )
            if trigger is not None:
                connection.execute(f"CREATE TRIGGER t {trigger.format(table)} EXECUTE FUNCTION nothing()")
            if table == "pgmrl":
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
                    install_embedding(own, embedded_column(own, f"{table}.e"), Embed("{title}\n{body}", "static"))
            connection.execute(f"VACUUM ANALYZE {table}")
        engine.dispose()
        stat = Path(f"/proc/{connection.info.backend_pid}/schedstat")
        times: dict[str, list[float]] = {table: [] for table in TRIGGERS}
        for repeat in range(options.repeats):
            for table in random.Random(repeat).sample(list(TRIGGERS), len(TRIGGERS)):  # noqa: S311 - an order
                before = int(stat.read_text().split()[0])
                connection.execute(f"UPDATE {table} SET stars = stars + 1")
                times[table].append((int(stat.read_text().split()[0]) - before) / options.rows / 1_000)
                connection.execute(f"VACUUM {table}")
    for table, values in times.items():
        more = 100 * (median(value / plain for value, plain in zip(values, times["plain"], strict=True)) - 1)
        print(f"{table:18}{median(values):6.2f} µs a row  {more:+.1f} %")


if __name__ == "__main__":
    main()
