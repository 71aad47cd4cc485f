"""`pgmrl demo`: from nothing to answers, on text that every machine has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json, K
from pgmrl.cli.output import console, errors, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.cli.search_output import as_json, print_search
from pgmrl.demo.corpus import docstrings
from pgmrl.demo.docstring_table import DOCSTRINGS, SCHEMA, loaded_rows, prepare
from pgmrl.demo.questions import QUESTIONS, Answer, answer
from pgmrl.embedders import load_embedder
from pgmrl.errors import EmbedderError
from pgmrl.urls import connection_options, display_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from pgmrl.embedders import Embedder

__all__ = ["IN_SQL", "demo"]

IN_SQL: Final = (  # constants of ours
    f"SELECT name, similarity FROM {SCHEMA}.docstrings_search_text('{QUESTIONS[0]}', 5, kind => 'function') "  # noqa: S608
    f"JOIN {SCHEMA}.docstrings USING (id) ORDER BY rank;"
)


def demo(
    question: Annotated[list[str] | None, typer.Option(help="Ask this; repeat for more.")] = None,
    k: K = 5,
    shortlist: Annotated[int, typer.Option(help="Rows that are ranked exactly.")] = 100,
    fresh: Annotated[bool, typer.Option("--fresh", help="Load again, also when an earlier run has loaded.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Search the docstrings of Python's standard library by meaning, and see what each answer costs.

    Starts an embedded PostgreSQL (or uses DATABASE_URL; the table goes to its schema `pgmrl_demo`), embeds some ten
    thousand docstrings with a small model that needs no network, builds a short index, and asks it a few questions,
    each beside the exact search. Then it takes yours.

    Example: `pgmrl demo --question "parse command line options"`
    """
    model = load_embedder()
    with open_engine(url, writes=True) as pinned:
        engine = pinned.execution_options(**{database.UNPINNED[0]: True})  # a model's table, as an application's
        seconds = _prepared(engine, model, fresh=fresh, quiet=json)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

            def ask(words: str) -> Answer:
                return answer(connection, DOCSTRINGS.c.embedding, model, words, k=k, shortlist=shortlist)

            answers = {}
            for words in question or QUESTIONS:
                answers[words] = ask(words)
                if not json:
                    _print_answer(words, answers[words])
            if not json and not question and sys.stdin.isatty():
                _converse(ask)
        shown_url = display_url(connection_options(engine.url.render_as_string(hide_password=False)))
    if json:
        hits = {words: as_json(answered.search) for words, answered in answers.items()}
        write_json({"seconds": seconds, "answers": hits})
        return
    console.print(
        f"\nThe table is {SCHEMA}.docstrings in {shown_url}\n"
        f'Next: pgmrl search {SCHEMA}.docstrings.embedding "your question" --compare\n'
        f"What it misses, and why: pgmrl recall {SCHEMA}.docstrings.embedding\n"
        "What is broken: pgmrl doctor; every command: pgmrl --help\n"
        f"In SQL, with any words: {IN_SQL}",
        style="dim",
        soft_wrap=True,
    )


def _prepared(engine: Engine, model: Embedder, *, fresh: bool, quiet: bool) -> dict[str, float]:
    """Load what is not there; the seconds of each step."""
    rows = docstrings()
    with engine.connect() as connection:
        if not fresh and loaded_rows(connection) == len(rows):
            errors.print(f"{len(rows):,} docstrings are there from an earlier run", style="dim")
            return {}
        connection.rollback()
        with progress_report(quiet=quiet) as report:
            seconds = prepare(connection, rows, model, report)
    if not quiet:
        steps = ", ".join(f"{step} {time:.1f} s" for step, time in seconds.items())
        console.print(f"{len(rows):,} docstrings of Python's standard library: {steps}")
    return seconds


def _print_answer(question: str, answered: Answer) -> None:
    console.print(f"\n[bold]{escaped(question)}[/]  [dim](embedded in {answered.embedding_ms:.1f} ms)[/]")
    print_search(answered.search)


def _converse(ask: Callable[[str], Answer]) -> None:
    console.print("\nNow yours (an empty line ends):")
    while question := console.input("[bold]? [/]").strip():
        try:
            _print_answer(question, ask(question))
        except EmbedderError as error:
            console.print(escaped(error))
