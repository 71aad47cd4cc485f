"""`pgmrl functions …`: SQL functions that search a table from BI tools and psql."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import ColumnPath, DatabaseUrl, Json, WordsConfig
from pgmrl.cli.output import console, escaped, write_json
from pgmrl.database.reflection import reflect
from pgmrl.functions import SqlFunctions, installed
from pgmrl.functions.install import drop_functions, install_functions, searched_column_in
from pgmrl.functions.install_statements import printed_statements
from pgmrl.model.columns import attachment_of
from pgmrl.names import qualified

__all__ = ["app"]

app = typer.Typer(help="SQL functions that search a table from BI tools and psql.", no_args_is_help=True)


@app.command()
def install(
    column: ColumnPath,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="A column that becomes an argument; repeat for more. `section`, `size >=`, `size <=`, `section in` "
            "or `tags contains`.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the functions' names begin with; default the table's name.")
    ] = None,
    related: Annotated[int | None, typer.Option(help="Also a view of so many rows most like each row.")] = None,
    stored: Annotated[bool, typer.Option(help="Also the same as a materialised view.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="A column: also a function for the nearest groups of rows that share its value.")
    ] = None,
    words: Annotated[str | None, typer.Option(help="A tsvector column: also a function for hybrid search.")] = None,
    words_config: WordsConfig = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model that embedded the column, if `pgmrl model install` put it here: search by words."),
    ] = None,
    grant: Annotated[
        list[str] | None, typer.Option(help="A role that may call them; repeat for more. Default: every role.")
    ] = None,
    schema: Annotated[str | None, typer.Option(help="Where they are made; default the table's schema.")] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements and run nothing.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Install typed functions that search a column from plain SQL, or replace those that are there.

    They run with the rights of whoever calls them. Needs pgmrl's schema (`pgmrl upgrade`) and CREATE on the schema.

    Example: `pgmrl functions install packages.embedding --filter section --filter "installed_kb <="`
    """
    declared = SqlFunctions(
        filters=tuple(filters or ()),
        name=name,
        related=related,
        stored=stored,
        group_by=group_by,
        words=words,
        config=words_config,
        model=model,
        grant_to=tuple(grant or ()),
        schema=schema,
    )
    with open_engine(url, writes=not sql) as engine, engine.begin() as connection:
        searched = reflect(connection, column)
        if sql:
            statements = printed_statements(
                searched_column_in(connection, searched, declared), attachment_of(searched).index
            )
            typer.echo(";\n\n".join(statements) + ";")
            return
        installed_set = install_functions(connection, searched, declared)
        made = [
            function
            for function in installed.functions(connection)
            if function.function_name in installed_set.marker()["functions"]
            and function.function_schema == installed_set.functions_schema
        ]
    if json:
        write_json([asdict(function) for function in made])
        return
    for function in made:
        console.print(_described(function), soft_wrap=True)
    for view in installed_set.view_names:
        is_stored = view == installed_set.object_name("related_stored")
        what = "a materialised view, empty until REFRESH MATERIALIZED VIEW" if is_stored else "a view"
        console.print(f"[bold]{escaped(qualified(installed_set.functions_schema, view))}[/]  {what}", soft_wrap=True)


@app.command("list")
def list_(url: DatabaseUrl = None, json: Json = False) -> None:
    """List the functions that pgmrl made in this database; the view pgmrl.functions has the same.

    Example: `pgmrl functions list --json`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        functions = installed.functions(connection)
    if json:
        write_json([asdict(function) for function in functions])
        return
    none = ["There are no functions of pgmrl in this database: `pgmrl functions install table.column` makes them."]
    console.print("\n".join([_described(function) for function in functions] or none), soft_wrap=True)


@app.command()
def drop(column: ColumnPath, url: DatabaseUrl = None, json: Json = False) -> None:
    """Drop the functions of a column, with their views; refused while something else uses them.

    Example: `pgmrl functions drop packages.embedding`
    """
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        dropped = drop_functions(connection, reflect(connection, column))
    if json:
        write_json(dropped)
    else:
        console.print("\n".join(f"dropped {escaped(name)}_…" for name in dropped) or "there were none", soft_wrap=True)


def _described(function: installed.FunctionInfo) -> str:
    name = qualified(function.function_schema, function.function_name)
    return f"[bold]{escaped(name)}[/]({escaped(function.arguments)})\n  {escaped(function.description or '')}"
