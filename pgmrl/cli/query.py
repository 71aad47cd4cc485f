"""`pgmrl query …`: named queries, for SQL functions and those who have no model at hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pgmrl.cli.backfill_options import stop_requested
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import ColumnPath, DatabaseUrl, EmbedderName, Json
from pgmrl.cli.output import console, counted, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.cli.search_input import QueryVector, Question, query_vector
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT, load_embedder
from pgmrl.functions.named_queries import add_query, queries, remove_query
from pgmrl.functions.question_worker import answer_questions

__all__ = ["app"]

app = typer.Typer(help="Named queries: questions embedded once, for `…_search_named` in SQL.", no_args_is_help=True)


@app.command()
def add(
    column: ColumnPath,
    question: Question = None,
    name: Annotated[str | None, typer.Option(help="The query's name; default the question itself.")] = None,
    vector: QueryVector = None,
    model: EmbedderName = DEFAULT,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Embed a question and keep it under a name; one of this name is replaced.

    Needs INSERT and UPDATE on pgmrl.queries.

    Example: `pgmrl query add packages.embedding "a game with trains" --name trains`
    """
    query_name = name or question
    if query_name is None:
        raise typer.BadParameter("a vector needs --name")
    query = query_vector(question, vector, model)
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        searched = reflect(connection, column)
        embedder = model if question is not None else None
        new = add_query(connection, searched, query_name, query, question=question, embedder=embedder)
    if json:
        write_json({"name": query_name, "new": new})
    else:
        console.print(f"{'added' if new else 'replaced'} {escaped(query_name)}", soft_wrap=True)


@app.command()
def serve(
    column: ColumnPath,
    model: EmbedderName,
    poll: Annotated[float, typer.Option(help="Seconds between two looks for questions.")] = 0.05,
    keep: Annotated[int, typer.Option(help="The latest answers that are kept for the next time, at least.")] = 10_000,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Answer the questions that `…_search_text` asks of a model outside the database, until it is stopped.

    For functions of `pgmrl functions install --model`. Needs SELECT on the column, all rights on pgmrl.questions, and a
    connection of its own: not through a pooler in transaction mode.

    Example: `pgmrl query serve packages.embedding --embedder sentence-transformers:all-mpnet-base-v2`
    """
    embedder = load_embedder(model)
    with open_engine(url, writes=True) as engine, stop_requested() as over, progress_report(quiet=json) as report:
        with engine.connect() as connection:
            searched = reflect(connection, column)
        done = answer_questions(
            engine, searched, embedder, model=model, poll=poll, keep=keep, stop_event=over,
            progress=lambda so_far: report("questions answered", so_far.answered + so_far.failed, None),
        )  # fmt: skip
    if json:
        write_json(asdict(done))
    else:
        failed = f", {done.failed:,} without a vector" if done.failed else ""
        console.print(f"{counted(done.answered, 'question')} answered{failed}")


@app.command("list")
def list_(url: DatabaseUrl = None, json: Json = False) -> None:
    """List the named queries for tables that this role may read.

    Example: `pgmrl query list`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        named = queries(connection)
    if json:
        write_json([asdict(query) for query in named])
        return
    lines = [
        f"[bold]{escaped(query.name)}[/]  {escaped(query.table)}.{escaped(query.column)}"
        + (f": {escaped(query.question)}" if query.question and query.question != query.name else "")
        for query in named
    ]
    console.print("\n".join(lines) or "There are no named queries: `pgmrl query add` adds one.", soft_wrap=True)


@app.command()
def remove(
    column: ColumnPath,
    name: Annotated[str, typer.Argument(help="The query's name.")],
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Forget a named query.

    Example: `pgmrl query remove packages.embedding trains`
    """
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        removed = remove_query(connection, reflect(connection, column), name)
    if json:
        write_json({"name": name, "removed": removed})
    else:
        console.print(f"removed {escaped(name)}" if removed else f"there is no query {escaped(name)}", soft_wrap=True)
    if not removed:
        raise typer.Exit(1)
