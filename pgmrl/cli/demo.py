"""`pgmrl demo`: from nothing to answers, on text that every machine has."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, inspect, select, text

from pgmrl import database
from pgmrl.cli.common import Json, Url, console, engine, errors, progress, write_json
from pgmrl.cli.load import analyze
from pgmrl.cli.runs import Run, run
from pgmrl.cli.search import as_json, print_run
from pgmrl.demo import corpus
from pgmrl.embedders import DEFAULT, embed_batches, embed_query, load_embedder
from pgmrl.errors import EmbedderError
from pgmrl.functions import SqlFunctions
from pgmrl.functions.install import drop_functions, install_functions
from pgmrl.functions.named_queries import add_query
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from pgmrl.urls import connection_options, display_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from pgmrl.embedders import Embedder

__all__ = ["demo"]

SCHEMA = "pgmrl_demo"
SHORT = 64
QUESTIONS = (
    "read a file line by line",
    "wait for several threads to finish",
    "the difference between two dates",
    "send an email over an encrypted connection",
)

IN_SQL = (  # constants of ours
    f"SELECT name, similarity FROM {SCHEMA}.docstrings_search_named('{QUESTIONS[0]}', 5, kind => 'function') "  # noqa: S608
    f"JOIN {SCHEMA}.docstrings USING (id) ORDER BY rank;"
)

documents = Table(
    "docstrings",
    MetaData(schema=SCHEMA),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("package", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("embedding", Matryoshka(256, Short(SHORT)), nullable=False),
)


def demo(
    question: Annotated[list[str] | None, typer.Option(help="Ask this; repeat for more.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits to show.")] = 5,
    shortlist: Annotated[int, typer.Option(help="Rows that are ranked exactly.")] = 100,
    fresh: Annotated[bool, typer.Option(help="Load again, also when an earlier run has loaded.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Search the docstrings of Python's standard library by meaning, and see what each answer costs.

    Starts an embedded PostgreSQL (or uses DATABASE_URL; everything goes to its schema `pgmrl_demo`), embeds some ten
    thousand docstrings with a small model that needs no network, builds a short index, and asks it a few questions,
    each beside the exact search. Then it takes yours.

    Example: `pgmrl demo --question "parse command line options"`
    """
    model = load_embedder()
    with engine(url) as opened:
        took = _prepare(opened, model, fresh=fresh, quiet=json)
        with opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            answers = {
                asked: _ask(connection, model, asked, k, shortlist, quiet=json) for asked in question or QUESTIONS
            }
            if not json and not question and sys.stdin.isatty():
                _converse(connection, model, k, shortlist)
            where = display_url(connection_options(opened.url.render_as_string(hide_password=False)))
    if json:
        write_json({"seconds": took, "answers": {asked: as_json(found) for asked, found in answers.items()}})
    else:
        console.print(
            f"\nThe table is {SCHEMA}.docstrings in {where}\n"
            f'Next: pgmrl search {SCHEMA}.docstrings.embedding "your question" --compare\n'
            f"What it misses, and why: pgmrl recall {SCHEMA}.docstrings.embedding\n"
            "What is broken: pgmrl doctor; every command: pgmrl --help\n"
            f"In SQL: {IN_SQL}",
            style="dim",
            soft_wrap=True,
        )


def _prepare(opened: Engine, model: Embedder, *, fresh: bool, quiet: bool) -> dict[str, float]:
    """Load what is not there; the seconds of each step."""
    texts = corpus.docstrings()
    if not fresh and _loaded(opened) == len(texts):
        errors.print(f"{len(texts):,} docstrings are there from an earlier run", style="dim")
        return {}
    took: dict[str, float] = {}
    later = set(documents.indexes)
    documents.indexes.clear()
    with opened.begin() as connection:
        database.upgrade(connection)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        drop_functions(connection, documents.c.embedding)
        documents.drop(connection, checkfirst=True)
        documents.create(connection)
    documents.indexes.update(later)
    with progress(quiet=quiet) as bars:
        task = bars.add_task("embedding and loading", total=len(texts))
        start = time.perf_counter()
        with opened.connect() as connection:
            rows = _embedded(texts, model)
            ingest(connection, documents.c.embedding, rows, progress=lambda done: bars.update(task, completed=done))
        took["embed and load"] = time.perf_counter() - start
        with opened.begin() as connection:  # what a BI tool calls
            install_functions(connection, documents.c.embedding, SqlFunctions(filters=("kind", "package")))
            for asked in QUESTIONS:
                vector = embed_query(model, asked)
                add_query(connection, documents.c.embedding, asked, vector, question=asked, embedder=DEFAULT)
        start = time.perf_counter()
        with opened.begin() as connection:
            for index in bars.track(documents.indexes, description="building the short index"):
                index.create(connection)
        took["index"] = time.perf_counter() - start
    analyze(opened, documents.c.embedding)
    if not quiet:
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in took.items())
        console.print(f"{len(texts):,} docstrings of Python's standard library: {steps}")
    return took


def _loaded(opened: Engine) -> int:
    if not inspect(opened).has_table(documents.name, schema=SCHEMA):
        return 0
    with opened.connect() as connection:
        valid = any(
            info.index_valid and (info.table_schema, info.short_dims) == (SCHEMA, SHORT)
            for info in database.columns(connection)
        )
        return int(connection.execute(select(func.count()).select_from(documents)).scalar_one()) if valid else 0


def _embedded(texts: list[corpus.Docstring], model: Embedder) -> Iterator[dict[str, Any]]:
    described = (f"{one.name}: {one.text}" for one in texts)
    vectors = (vector for _, array in embed_batches(model, described) for vector in array)
    for number, (one, vector) in enumerate(zip(texts, vectors, strict=True), 1):
        yield {
            "id": number,
            "name": one.name,
            "kind": one.kind,
            "package": one.package,
            "summary": one.summary,
            "embedding": vector,
        }


def _ask(connection: Connection, model: Embedder, question: str, k: int, shortlist: int, *, quiet: bool) -> Run:
    start = time.perf_counter_ns()
    query = embed_query(model, question)
    embedding = (time.perf_counter_ns() - start) / 1e6
    statement = select(documents.c.name, documents.c.kind, documents.c.summary)
    found = run(connection, statement, documents.c.embedding, query, compare=True, k=k, shortlist=shortlist)
    if not quiet:
        console.print(f"\n[bold]{question}[/]  [dim](embedded in {embedding:.1f} ms)[/]")
        print_run(found)
    return found


def _converse(connection: Connection, model: Embedder, k: int, shortlist: int) -> None:
    console.print("\nNow yours (an empty line ends):")
    while question := console.input("[bold]? [/]").strip():
        try:
            _ask(connection, model, question, k, shortlist, quiet=False)
        except EmbedderError as error:
            console.print(str(error))
