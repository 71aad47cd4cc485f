"""`pgmrl explain`: what a search costs, stage by stage, and which index serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import select

from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import (
    ColumnPath,
    DatabaseUrl,
    EfSearch,
    EmbedderName,
    Exact,
    Json,
    K,
    Metric,
    ShortlistSize,
    metric_name,
)
from pgmrl.cli.output import console, escaped, print_table, write_json
from pgmrl.cli.search_input import (
    QueryVector,
    Question,
    Show,
    Where,
    check_filter,
    filtered,
    query_vector,
    shown_columns,
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
    column: ColumnPath,
    question: Question = None,
    vector: QueryVector = None,
    model: EmbedderName = DEFAULT,
    k: K = 10,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    where: Where = None,
    show: Show = None,
    metric: Metric = None,
    exact: Exact = False,
    analyze: Annotated[bool, typer.Option(help="Execute the search, or only plan it.")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="The server's own plan as text instead.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Execute a search once and say what each stage took, which index served it, and why.

    Nothing is changed; a hot standby will do. Times are those of EXPLAIN ANALYZE, whose own clock costs some.

    Example: `pgmrl explain packages.embedding "a game with trains" --where "section = 'games'"`
    """
    if plan and json:
        raise typer.BadParameter("--plan is text and --json has the plan in it: give one of them")
    query = query_vector(question, vector, model)
    with open_engine(url) as engine, engine.connect() as connection:
        searched = reflect(connection, column, metric=metric_name(metric))
        check_filter(connection, searched, where)
        rows = filtered(select(*shown_columns(searched, show)), where)
        statement = search(rows, searched, query, k=k, shortlist=shortlist, ef_search=ef_search, exact=exact)
        if plan:
            console.print(escaped(plan_text(connection, statement, analyze=analyze)), soft_wrap=True)
            return
        explanation = explain_search(connection, statement, analyze=analyze)
    if json:
        write_json(explanation.as_json())
    else:
        print_explanation(explanation)


def print_explanation(explanation: Explanation) -> None:
    """An explanation as a page: the stages, what happened and why, the settings."""
    print_table(explanation.headings, explanation.table(), right=range(1, len(explanation.headings)), wrapped=[0])
    console.print()
    for sentence in explanation.verdict:
        console.print(escaped(sentence), soft_wrap=True)
    settings = ", ".join(f"{name} = {value}" for name, value in explanation.settings.items())
    console.print(f"\nsettings: {escaped(settings)}", style="dim", soft_wrap=True)
