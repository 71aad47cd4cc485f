"""The command line: `pgmrl`."""

from __future__ import annotations

import sys

import typer
from sqlalchemy.exc import DBAPIError

from pgmrl.cli import (
    common,
    demo,
    doctor,
    evaluate,
    explain,
    fit,
    functions,
    load,
    local,
    online,
    plans,
    query,
    recall,
    schema,
    search,
    tune,
)
from pgmrl.errors import PgmrlError, SearchError

__all__ = ["app", "main"]

app = typer.Typer(
    name="pgmrl",
    help="Two-stage (Matryoshka) vector search in PostgreSQL.\n\n"
    "Commands use the server in DATABASE_URL; where that is not set, an embedded one that is started on demand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would show the URL among the variables
    rich_markup_mode="markdown",
)
app.command("demo")(demo.demo)
app.command("load")(load.load)
app.command("fit")(fit.fit)
app.command("search")(search.search)
app.command("recall")(recall.recall)
app.command("doctor")(doctor.doctor)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("tune")(tune.tune)
app.command("upgrade")(schema.upgrade)
app.command("columns")(schema.columns)
app.command("check-migration")(plans.check_migration)
app.command("backfill")(online.backfill)
app.command("progress")(online.running)
app.command("reshape")(plans.reshape)
app.add_typer(functions.app, name="functions")
app.add_typer(query.app, name="query")
app.add_typer(local.app, name="local")


def main() -> None:
    """Run; an error of pgmrl's own is one message and exit code 1; a wrong option is 2, as are numbers out of range."""
    try:
        app()
    except PgmrlError as error:
        common.errors.print(f"[bold red]error:[/] {common.escaped(error)}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, SearchError) else 1)
    except DBAPIError as error:  # what the server says of the user's own SQL, tables and rights
        common.errors.print(f"[bold red]error:[/] {common.escaped(str(error.orig).strip())}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
