"""`pgmrl model …`: models that embed text in the database itself, for search by words in plain SQL."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import text

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import ColumnPath, DatabaseUrl, Json
from pgmrl.cli.output import console, counted, escaped, write_json
from pgmrl.cli.text_template import unescaped
from pgmrl.embedders.token_model import load_token_model
from pgmrl.functions.text_models import install_model, models, remove_model
from pgmrl.model.argument_types import is_unicode
from pgmrl.names import column_parts, qualified
from pgmrl.online.text_fill import embed_rows

__all__ = ["app"]

app = typer.Typer(help="Models that embed text in the database itself.", no_args_is_help=True)

ModelName = Annotated[str, typer.Argument(help="The model's name.")]


@app.command()
def install(
    source: Annotated[
        str, typer.Argument(help="`static`, the bundled one, or a folder with a static model.")
    ] = "static",
    name: Annotated[
        str | None, typer.Option(help="Its name in the database; default `static` or the folder's.")
    ] = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Put a static model into pgmrl's schema, so that `pgmrl.embed_text` and `…_search_text` need no Python.

    A model that is there already is left as it is. Takes some 26 MB. Needs pgmrl's schema (`pgmrl upgrade`), and its
    owner's rights.

    Example: `pgmrl model install static`
    """
    model_name = name or Path(source).name
    model = load_token_model(source)
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        new = install_model(connection, model_name, model)
    if json:
        write_json({"name": model_name, "hash": model.hash, "dims": model.dims, "new": new})
    else:
        what = f"{counted(len(model.tokens), 'token')}, {model.dims} dimensions, {model.hash}"
        console.print(f"{'installed' if new else 'there already:'} {escaped(model_name)} ({what})", soft_wrap=True)


@app.command("list")
def list_(url: DatabaseUrl = None, json: Json = False) -> None:
    """List the models in this database; the table pgmrl.models has the same.

    Example: `pgmrl model list --json`
    """
    with open_engine(url) as engine, engine.connect() as connection:
        installed = models(connection)
    if json:
        write_json([asdict(model) for model in installed])
        return
    lines = [
        f"[bold]{escaped(model.name)}[/]  {counted(model.tokens, 'token')}, {model.dims} dimensions, {model.hash}"
        for model in installed
    ]
    console.print("\n".join(lines) or "There are no models here: `pgmrl model install` adds one.", soft_wrap=True)


@app.command()
def remove(name: ModelName, url: DatabaseUrl = None, json: Json = False) -> None:
    """Remove a model; refused while search functions or a trigger of `pgmrl model keep` need it.

    Example: `pgmrl model remove static`
    """
    with open_engine(url, writes=True) as engine, engine.begin() as connection:
        removed = remove_model(connection, name)
    if json:
        write_json({"name": name, "removed": removed})
    else:
        console.print(f"removed {escaped(name)}" if removed else f"there is no model {escaped(name)}", soft_wrap=True)
    if not removed:
        raise typer.Exit(1)


@app.command()
def keep(
    column: ColumnPath,
    template: Annotated[
        str | None, typer.Option("--text", help='What is embedded: columns in braces, such as "{title}: {body}".')
    ] = None,
    model: Annotated[str, typer.Option(help="A model in this database.")] = "static",
    fill: Annotated[bool, typer.Option("--fill", help="Then embed the rows that are there without a vector.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End it; the vectors stay.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Have the database embed each row's text into its vector, whoever writes; in SQL, `pgmrl.keep_text` does the same.

    Rows that are there are embedded when their text or their vector is next written. `--fill` writes those without a
    vector, in short transactions; it can be ended and run again.

    Example: `pgmrl model keep packages.embedding --text "{name}: {summary}"`
    """
    if stop == (template is not None):
        raise typer.BadParameter("expected either --text or --stop")
    if stop and fill:
        raise typer.BadParameter("expected --fill with --text, got it with --stop")
    if not all(map(is_unicode, (column, template or "", model))):
        raise typer.BadParameter("expected Unicode, got half of a surrogate pair")
    template = None if template is None else unescaped(template)
    with open_engine(url, writes=True) as engine:
        with engine.begin() as connection:
            schema, name, vector_column = column_parts(column)
            table = database.relation_name(connection, qualified(schema, name))
            with database.pinned(connection):
                connection.execute(
                    text("SELECT pgmrl.keep_text(CAST(CAST(:table AS text) AS regclass), :column, :template, :model)"),
                    {"table": table, "column": vector_column, "template": template, "model": model},
                )
        embedded = sum(embed_rows(engine, table, vector_column)) if fill else 0
    if json:
        values = {"table": table, "column": vector_column, "text": template, "model": model}
        write_json({**values, "embedded": embedded} if fill else values)
    elif stop:
        console.print(f"{escaped(table)} no longer embeds its text", soft_wrap=True)
    else:
        rows = f"; {counted(embedded, 'row')} embedded" if fill else ""
        console.print(f"{escaped(table)} embeds its text into {escaped(vector_column)}{rows}", soft_wrap=True)
