"""`pgmrl search`: ask a table a question."""

from __future__ import annotations

from typing import Annotated, Any

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
from pgmrl.cli.output import write_json
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
from pgmrl.cli.search_output import as_json, print_search
from pgmrl.database.reflection import reflect
from pgmrl.demo.timed_search import timed_search
from pgmrl.embedders import DEFAULT

__all__ = ["search"]


def search(
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
    compare: Annotated[bool, typer.Option(help="Search exactly as well, and say the recall.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Search a table by meaning.

    Example: `pgmrl search packages.embedding "a game with trains" --where "section = 'games'" --show name`
    """
    query = query_vector(question, vector, model)
    with open_engine(url) as engine, engine.connect() as connection:
        searched = reflect(connection, column, metric=metric_name(metric))
        check_filter(connection, searched, where)
        statement = filtered(select(*shown_columns(searched, show)), where)
        options: dict[str, Any] = {"k": k, "shortlist": shortlist, "ef_search": ef_search, "exact": exact}
        timed = timed_search(connection, statement, searched, query, compare=compare, **options)
    if json:
        write_json(as_json(timed))
    else:
        print_search(timed)
