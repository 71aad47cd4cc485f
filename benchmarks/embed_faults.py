"""Workers of `pgmrl embed` under faults for minutes: `python -m benchmarks.embed_faults --minutes 5 --kills 100`.

Workers beside writers; workers are killed (kill -9) at random, every two seconds a connection to the server is ended,
and three in ten answers of the model's HTTP server are late, 429, 503, garbage, not finite, too few, too many, too
short or none; all others have their vectors in another order than the texts. At the end every row must have the vector
of its latest text, and at no moment may one have had another text's.
"""

from __future__ import annotations

import argparse

from sqlalchemy import create_engine

from benchmarks.embed_results import keep, new_server
from pgmrl import database
from tests.embedding_faults import under_faults


def main() -> None:
    """Run, put the numbers into the results, and fail where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with new_server({"fsync": "on", "autovacuum": "on"}) as server:
        engine = create_engine(server.sqlalchemy_url)
        with engine.begin() as connection:
            database.upgrade(connection)
        engine.dispose()
        outcome = under_faults(
            server.sqlalchemy_url,
            60 * options.minutes,
            options.kills,
            workers=options.workers,
            rows=options.rows,
            seed=options.seed,
        )
        keep("faults", {"workers": options.workers, **outcome.as_dict()}, server)
    if outcome.stored_wrong or outcome.rows_wrong or outcome.entries_left:
        raise SystemExit("a row has another vector than that of its text, or was never embedded")


if __name__ == "__main__":
    main()
