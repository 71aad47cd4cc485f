"""Words in SQL: what `pgmrl.embed_text` takes, whether it is the Python model, and what its answers are worth.

    python -m benchmarks.text_sql

On the server in DATABASE_URL, with the rights to install pgmrl and the model `static`, which stay. It makes the table
`text_packages` and drops it afterwards; without the shared Debian set that part is left out. The report goes to
results/text_sql.md.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Computed, Engine, Integer, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from tokenizers import Tokenizer

from benchmarks.data import DataMissingError
from benchmarks.data import packages as debian_packages
from benchmarks.relevance import by_tags, tagged
from pgmrl import Matryoshka, Short, SqlFunctions, database, ingest, install_functions
from pgmrl.cli.connect import open_engine
from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import load_embedder
from pgmrl.embedders.static import bundled_files
from pgmrl.embedders.token_model import load_token_model
from pgmrl.evaluation.measures import Scorer, parsed
from pgmrl.functions.text_models import install_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

TEXTS, REPEATS, INSERTED, QUERIES, DEPTH = 20_000, 200, 5_000, 1_000, 10
REPORT = Path(__file__).parent / "results" / "text_sql.md"
SIZE = (
    "SELECT sum(pg_total_relation_size(t))::bigint "
    "FROM unnest('{pgmrl.models,pgmrl.tokens,pgmrl.merges,pgmrl.joints}'::regclass[]) AS t"
)
QUESTIONS = {
    "3 words": "game with trains",
    "10 words": "the difference between two dates and a time in seconds",
    "30 words": " ".join(["how can I parse the command line options of a program"] * 3),
    "3 unusual words": "PostgreSQL internationalization autovacuum",
}
SCRIPTS = [
    (1, 0x7F),
    (0x80, 0x250),
    (0x370, 0x600),
    (0x900, 0x1200),
    (0x2000, 0x2C00),
    (0x4E00, 0x9000),
    (0x1F300, 0x1F700),
]
WAYS = {
    "the model, `_search_text`": "text_packages_search_text(:words, 11)",
    "words, full text search": (
        "(SELECT t.id, row_number() OVER (ORDER BY ts_rank_cd(t.words, q) DESC, t.id) AS rank FROM text_packages AS t, "
        "CAST(replace(CAST(plainto_tsquery('english', :words) AS text), '&', '|') AS tsquery) AS q "
        "WHERE t.words @@ q ORDER BY 2 LIMIT 11)"
    ),
    "both, `_hybrid_text`": "text_packages_hybrid_text(:words, 11, match => 'any')",
}


def texts() -> Iterator[str]:
    """Docstrings, then words of letters of all scripts, with control characters and emoji among them."""
    chosen = random.Random(1)  # noqa: S311 - the same texts each time
    yield from (docstring.text for docstring in docstrings())
    while True:
        low, high = chosen.choice(SCRIPTS)
        words = ["".join(chr(chosen.randrange(low, high)) for _ in range(chosen.randrange(1, 12))) for _ in range(12)]
        yield chosen.choice([" ", "  ", "\n", ""]).join(words)


def different_tokens(connection: Connection) -> int:
    """The number of texts whose tokens are other than Python's."""
    tokenizer, different = Tokenizer.from_file(str(bundled_files()[1])), 0
    statement = text(
        "SELECT pgmrl.token_ids_v1('static', t) FROM unnest(CAST(:texts AS text[])) "
        "WITH ORDINALITY AS r (t, n) ORDER BY n"
    )
    compared = [words for words, _ in zip(texts(), range(TEXTS), strict=False)]
    for first in range(0, TEXTS, 500):
        batch = compared[first : first + 500]
        token_ids = connection.execute(statement, {"texts": batch}).scalars()
        for ids, encoding in zip(token_ids, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True):
            different += list(ids) != [number for number in encoding.ids if number]
    return different


def milliseconds(connection: Connection, statement: str, **values: Any) -> float:
    """Of one statement, with the way to the server and back."""
    start = time.perf_counter_ns()
    connection.execute(text(statement), values).all()
    return (time.perf_counter_ns() - start) / 1e6


def processor_time(connection: Connection) -> int:
    """Nanoseconds of the connection's server process, which other jobs change least; it runs on this machine."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def question_times(engine: Engine) -> Iterator[str]:
    """Rows of a table: the first question of a connection, and later ones with the server's processor time."""
    yield from ("| question | first of a connection | later | server's processor time |", "|---|---|---|---|")
    embed = "SELECT pgmrl.embed_text('static', :words)"
    for title, words in QUESTIONS.items():
        cold = []
        for _ in range(10):
            with engine.connect() as connection:
                connection.detach()  # closed afterwards
                connection.execute(text("SELECT 1"))
                cold.append(milliseconds(connection, embed, words=words))
        with engine.connect() as connection:
            before = processor_time(connection)
            warm = [milliseconds(connection, embed, words=words) for _ in range(REPEATS)]
            server = (processor_time(connection) - before) / REPEATS / 1e6
        yield f"| {title} | {statistics.median(cold):.1f} ms | {statistics.median(warm):.2f} ms | {server:.2f} ms |"


def insert_rates(connection: Connection, bodies: list[str]) -> Iterator[str]:
    """Rows a second by the trigger of `pgmrl.keep_text`, and without it; in a transaction that is rolled back."""
    rows = [{"id": n, "body": body} for n, body in enumerate(bodies)]
    words = statistics.mean(len(body.split()) for body in bodies)
    for title, keep in (("embedded by the trigger", True), ("without it", False)):
        with connection.begin_nested() as savepoint:
            connection.exec_driver_sql(
                "CREATE TABLE text_inserted (id integer PRIMARY KEY, body text, embedding vector(256), "
                "short halfvec(64) GENERATED ALWAYS AS "
                "(l2_normalize(subvector(embedding, 1, 64))::halfvec(64)) STORED)"
            )
            if keep:
                connection.exec_driver_sql("SELECT pgmrl.keep_text('text_inserted', 'embedding', '{body}')")
            insert = (
                "INSERT INTO text_inserted (id, body) "
                "SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r (id integer, body text) RETURNING id"
            )
            before = processor_time(connection)
            seconds = milliseconds(connection, insert, rows=json.dumps(rows)) / 1e3
            busy = (processor_time(connection) - before) / 1e9
            savepoint.rollback()
        yield (
            f"- {words:.0f} words each, {title}: {len(rows) / busy:,.0f} rows a second of one core's time, "
            f"{len(rows) / seconds:,.0f} a second by the clock"
        )


def loaded(connection: Connection, packages: list[dict[str, Any]]) -> Table:
    """The Debian packages by the model `static`, with their functions."""
    table = Table(
        "text_packages",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("body", Text),
        Column("words", TSVECTOR, Computed("to_tsvector('english'::regconfig, body)", persisted=True)),
        Column("embedding", Matryoshka(256, Short(64))),
    )
    bodies = [f"{package['name']}: {package['synopsis']}" for package in packages]
    vectors = load_embedder("static").embed_documents(bodies)
    (index,) = table.indexes
    table.indexes.remove(index)
    table.create(connection)
    ingest(connection, table.c.embedding, ({"id": n, "body": body} for n, body in enumerate(bodies)), vectors=vectors)
    index.create(connection)
    connection.exec_driver_sql("CREATE INDEX ON text_packages USING gin (words)")
    install_functions(connection, table.c.embedding, SqlFunctions(words="words", model="static"))
    connection.exec_driver_sql("ANALYZE text_packages")
    return table


def search_times(connection: Connection, questions: list[str]) -> Iterator[str]:
    """A search by words beside one by their vector, which is there already."""
    vectors = [str(vector.tolist()) for vector in load_embedder("static").embed_queries(questions)]
    by_text, by_vector = [], []
    for question, vector in zip(questions, vectors, strict=True):
        by_text.append(milliseconds(connection, "SELECT * FROM text_packages_search_text(:words)", words=question))
        search = "SELECT * FROM text_packages_search(CAST(:vector AS vector)::halfvec)"
        by_vector.append(milliseconds(connection, search, vector=vector))
    for title, times in (("words", by_text), ("their vector, sent as text", by_vector)):
        times.sort()
        p95 = times[int(0.95 * len(times))]
        yield f"- ten rows nearest to {title}: median {statistics.median(times):.2f} ms, p95 {p95:.2f} ms"


def quality(connection: Connection, packages: list[dict[str, Any]], asked: list[int]) -> Iterator[str]:
    """nDCG@10 by tags that no way has seen; the package that a question was made of is left out."""
    scorer = Scorer(parsed([f"nDCG@{DEPTH}"]), by_tags(packages, asked))
    yield from ("| way | nDCG@10 |", "|---|---|")
    for title, source in WAYS.items():
        run = {}
        for n in asked:
            statement = text(f"SELECT s.id FROM {source} AS s ORDER BY s.rank")
            ids = connection.execute(statement, {"words": packages[n]["synopsis"]}).scalars()
            run[str(n)] = [str(id_) for id_ in ids if id_ != n][:DEPTH]
        yield f"| {title} | {scorer.values({DEPTH: run})[f'nDCG@{DEPTH}'].mean():.3f} |"


def report(engine: Engine) -> Iterator[str]:
    """All of it as Markdown, line by line."""
    with engine.begin() as connection:
        database.upgrade(connection)
        install_model(connection, "static", load_token_model("static"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        version = connection.execute(text("SELECT split_part(version(), ' on ', 1)")).scalar_one()
        load = os.getloadavg()[0]
        yield from ("# Words in SQL", "", "    python -m benchmarks.text_sql", "")
        yield f"{version}, {os.cpu_count()} cores, a load of {load:.1f}; the bundled model. Times go with"
        yield "the load; the processor time of the server does less."
        yield from ("", "## The time of a question's vector", "", *question_times(engine), "")
        yield f"- {connection.execute(text(SIZE)).scalar_one() / 1e6:.0f} MB in the tables of all models"
        yield f"- {different_tokens(connection)} of {TEXTS:,} texts have other tokens than in Python"
    with engine.connect() as connection:
        yield from insert_rates(connection, [docstring.text for docstring in docstrings()[:INSERTED]])
        connection.rollback()
        try:
            packages = debian_packages()
        except DataMissingError as error:
            print(error)
            return
        yield from insert_rates(connection, [package["synopsis"] for package in packages[:INSERTED]])
        connection.rollback()
        asked = tagged(packages, QUERIES)
        table = loaded(connection, packages)
        connection.commit()
        try:
            yield from ("", f"## A search among {len(packages):,} Debian packages", "")
            yield from search_times(connection, [packages[n]["synopsis"] for n in asked])
            yield from ("", f"{len(asked):,} synopses as questions, relevant by shared tags:", "")
            yield from quality(connection, packages, asked)
        finally:
            connection.rollback()
            table.drop(connection)
            connection.commit()


def main() -> None:
    """Measure, and write the report."""
    lines = []
    with open_engine(None) as pinned:
        engine = pinned.execution_options(**{database.UNPINNED[0]: True})
        for line in report(engine):
            print(line, flush=True)
            lines.append(line)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
