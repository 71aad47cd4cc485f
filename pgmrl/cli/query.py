"""`pgmrl query …`: named queries, for SQL functions and those who have no model at hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pgmrl.cli.common import Json, Searched, Url, console, engine, escaped, write_json
from pgmrl.cli.search import QueryModel, QueryVector, Question, query_vector
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT
from pgmrl.functions.named_queries import add_query, queries, remove_query

__all__ = ["app"]

app = typer.Typer(help="Named queries: questions embedded once, for `…_search_named` in SQL.", no_args_is_help=True)


@app.command()
def add(
    column: Searched,
    question: Question = None,
    name: Annotated[str | None, typer.Option(help="Its name; default the question itself.")] = None,
    vector: QueryVector = None,
    model: QueryModel = DEFAULT,
    url: Url = None,
    json: Json = False,
) -> None:
    """Embed a question and keep it under a name; one of this name is replaced.

    Needs INSERT and UPDATE on pgmrl.queries.

    Example: `pgmrl query add packages.embedding "a game with trains" --name trains`
    """
    called = name or question
    if called is None:
        raise typer.BadParameter("a vector needs --name")
    found = query_vector(question, vector, model)
    with engine(url) as opened, opened.begin() as connection:
        searched = reflect(connection, column)
        embedder = model if question is not None else None
        new = add_query(connection, searched, called, found, question=question, embedder=embedder)
    if json:
        write_json({"name": called, "new": new})
    else:
        console.print(f"{'added' if new else 'replaced'} {escaped(called)}", soft_wrap=True)


@app.command("list")
def list_(url: Url = None, json: Json = False) -> None:
    """List the named queries for tables that this role may read.

    Example: `pgmrl query list`
    """
    with engine(url) as opened, opened.connect() as connection:
        found = queries(connection)
    if json:
        write_json([asdict(one) for one in found])
        return
    lines = [
        f"[bold]{escaped(one.name)}[/]  {escaped(one.table)}.{escaped(one.column)}"
        + (f": {escaped(one.question)}" if one.question and one.question != one.name else "")
        for one in found
    ]
    console.print("\n".join(lines) or "There are no named queries: `pgmrl query add` adds one.", soft_wrap=True)


@app.command()
def remove(
    column: Searched,
    name: Annotated[str, typer.Argument(help="The query's name.")],
    url: Url = None,
    json: Json = False,
) -> None:
    """Forget a named query.

    Example: `pgmrl query remove packages.embedding trains`
    """
    with engine(url) as opened, opened.begin() as connection:
        removed = remove_query(connection, reflect(connection, column), name)
    if json:
        write_json({"name": name, "removed": removed})
    else:
        console.print(f"removed {escaped(name)}" if removed else f"there is no query {escaped(name)}", soft_wrap=True)
    if not removed:
        raise typer.Exit(1)
