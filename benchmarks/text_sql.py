"""`pgmrl.embed_text` beside the Python model: 20,000 texts compared token for token, and the time of a question.

    python -m benchmarks.text_sql

On the server in DATABASE_URL, in a database where `pgmrl model install static` has run; reads only.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING

from sqlalchemy import text
from tokenizers import Tokenizer

from pgmrl.cli.connect import open_engine
from pgmrl.demo.corpus import docstrings
from pgmrl.embedders.static import bundled_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

TEXTS, REPEATS = 20_000, 200
SIZE = (
    "SELECT sum(pg_total_relation_size(t))::bigint "
    "FROM unnest('{pgmrl.models,pgmrl.tokens,pgmrl.merges,pgmrl.joints}'::regclass[]) AS t"
)
QUESTIONS = (
    "game with trains",
    "the difference between two dates and a time in seconds",
    " ".join(["how can I parse the command line options of a program"] * 3),
    "PostgreSQL internationalization autovacuum",
)
SCRIPTS = [
    (1, 0x7F),
    (0x80, 0x250),
    (0x370, 0x600),
    (0x900, 0x1200),
    (0x2000, 0x2C00),
    (0x4E00, 0x9000),
    (0x1F300, 0x1F700),
]


def texts() -> Iterator[str]:
    """Docstrings, then words of letters of all scripts, with control characters and emoji among them."""
    chosen = random.Random(1)  # noqa: S311 - the same texts each time
    yield from (docstring.text for docstring in docstrings())
    while True:
        low, high = chosen.choice(SCRIPTS)
        words = ["".join(chr(chosen.randrange(low, high)) for _ in range(chosen.randrange(1, 12))) for _ in range(12)]
        yield chosen.choice([" ", "  ", "\n", ""]).join(words)


def compare(connection: Connection) -> int:
    """The number of texts whose tokens differ."""
    tokenizer, different = Tokenizer.from_file(str(bundled_files()[1])), 0
    statement = text(
        "SELECT pgmrl.token_ids_v1('static', t) FROM unnest(CAST(:texts AS text[])) "
        "WITH ORDINALITY AS r (t, n) ORDER BY n"
    )
    compared = [words for words, _ in zip(texts(), range(TEXTS), strict=False)]
    for first in range(0, TEXTS, 500):
        batch = compared[first : first + 500]
        found = connection.execute(statement, {"texts": batch}).scalars()
        for ids, encoding in zip(found, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True):
            different += list(ids) != [number for number in encoding.ids if number]
    return different


def main() -> None:
    """Print times, size and differences."""
    with open_engine(None) as engine, engine.connect() as connection:
        for question in QUESTIONS:
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                connection.execute(text("SELECT pgmrl.embed_text('static', :words)"), {"words": question}).scalar_one()
                seconds.append(time.perf_counter() - start)
            cold, warm = seconds[0] * 1e3, statistics.median(seconds) * 1e3
            print(f"{len(question.split())} words: first {cold:.2f} ms, median {warm:.2f} ms: {question[:60]}")
        size = connection.execute(text(SIZE)).scalar_one()
        print(f"{size / 1e6:.0f} MB in the tables of all models")
        print(f"{compare(connection)} of {TEXTS} texts have other tokens than in Python")


if __name__ == "__main__":
    main()
