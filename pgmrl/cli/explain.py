"""`pgmrl explain`: what a search costs, stage by stage, and which index serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pgmrl.cli.common import Json, Metric, Searched, Url, console, engine, escaped, metric_name, write_json
from pgmrl.cli.search import (
    EfSearch,
    Exact,
    K,
    QueryModel,
    QueryVector,
    Question,
    ShortlistSize,
    Where,
    check_condition,
    filtered,
    query_vector,
)
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT
from pgmrl.explanation import explain as explain_search
from pgmrl.explanation import plan_text
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from pgmrl.explanation import Explanation

__all__ = ["explain"]


def explain(
    column: Searched,
    question: Question = None,
    vector: QueryVector = None,
    model: QueryModel = DEFAULT,
    k: K = 10,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    where: Where = None,
    show: Annotated[list[str] | None, typer.Option(help="A column to fetch; repeat for more. Default: all.")] = None,
    metric: Metric = None,
    exact: Exact = False,
    analyze: Annotated[bool, typer.Option(help="Execute the search, or only plan it.")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="The server's own plan as text instead.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Execute a search once and say what each stage took, which index served it, and why.

    Nothing is changed; a hot standby will do. Times are those of EXPLAIN ANALYZE, whose own clock costs some.

    Example: `pgmrl explain packages.embedding "a game with trains" --where "section = 'games'"`
    """
    if plan and json:
        raise typer.BadParameter("--plan is text and --json has the plan in it: give one of them")
    query = query_vector(question, vector, model)
    with engine(url) as opened, opened.connect() as connection:
        searched = reflect(connection, column, metric=metric_name(metric))
        check_condition(connection, searched, where)
        rows = filtered(searched, show, where)
        statement = search(rows, searched, query, k=k, shortlist=shortlist, ef_search=ef_search, exact=exact)
        if plan:
            console.print(escaped(plan_text(connection, statement, analyze=analyze)), soft_wrap=True)
            return
        found = explain_search(connection, statement, analyze=analyze)
    if json:
        write_json(found.as_json())
    else:
        _print(found)


def _print(found: Explanation) -> None:
    table = Table(box=None, header_style="dim")
    table.add_column("stage")
    for name in found.headings[1:]:
        table.add_column(name, justify="right")
    for row in found.table():
        table.add_row(*map(escaped, row))
    console.print(table)
    console.print()
    for sentence in found.verdict:
        console.print(escaped(sentence), soft_wrap=True)
    settings = ", ".join(f"{name} = {value}" for name, value in found.settings.items())
    console.print(f"\nsettings: {escaped(settings)}", style="dim", soft_wrap=True)
