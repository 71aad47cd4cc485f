"""The command line: `pgmrl`; one module for each command, of the command's name."""

from __future__ import annotations

import sys
from typing import Final

import typer
from sqlalchemy.exc import DBAPIError

from pgmrl.cli import (
    backfill,
    check_migration,
    chunk,
    columns,
    compare,
    demo,
    distribute,
    doctor,
    embed,
    evaluate,
    explain,
    fit_rotation,
    functions,
    load,
    local,
    model,
    output,
    progress,
    query,
    recall,
    reshape,
    search,
    tune,
    upgrade,
)
from pgmrl.errors import PgmrlError, SearchError

__all__ = ["app", "main"]

SEARCH: Final = "Load and search"
MEASURE: Final = "Measure and tune"
CHANGE: Final = "Change a table"
SERVE: Final = "SQL functions and the embedded server"

app = typer.Typer(
    name="pgmrl",
    help="Two-stage (Matryoshka) vector search in PostgreSQL.\n\n"
    "Commands use the server in DATABASE_URL; where that is not set, an embedded one that is started on demand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would show the URL among the variables
    rich_markup_mode="markdown",
)
app.command("demo", rich_help_panel=SEARCH)(demo.demo)
app.command("load", rich_help_panel=SEARCH)(load.load)
app.command("embed", rich_help_panel=SEARCH)(embed.embed)
app.command("chunk", rich_help_panel=SEARCH)(chunk.chunk)
app.command("search", rich_help_panel=SEARCH)(search.search)
app.command("columns", rich_help_panel=SEARCH)(columns.columns)
app.command("recall", rich_help_panel=MEASURE)(recall.recall)
app.command("explain", rich_help_panel=MEASURE)(explain.explain)
app.command("tune", rich_help_panel=MEASURE)(tune.tune)
app.command("compare", rich_help_panel=MEASURE)(compare.compare)
app.command("evaluate", rich_help_panel=MEASURE)(evaluate.evaluate)
app.command("doctor", cls=doctor.MonitoringCommand, rich_help_panel=MEASURE)(doctor.doctor)
app.command("upgrade", rich_help_panel=CHANGE)(upgrade.upgrade)
app.command("fit-rotation", rich_help_panel=CHANGE)(fit_rotation.fit_rotation)
app.command("check-migration", rich_help_panel=CHANGE)(check_migration.check_migration)
app.command("backfill", rich_help_panel=CHANGE)(backfill.backfill)
app.command("distribute", rich_help_panel=CHANGE)(distribute.distribute)
app.command("progress", rich_help_panel=CHANGE)(progress.progress)
app.add_typer(reshape.app, name="reshape", rich_help_panel=CHANGE)
app.add_typer(functions.app, name="functions", rich_help_panel=SERVE)
app.add_typer(model.app, name="model", rich_help_panel=SERVE)
app.add_typer(query.app, name="query", rich_help_panel=SERVE)
app.add_typer(local.app, name="local", rich_help_panel=SERVE)


def main() -> None:
    """Run; an error of pgmrl's own is one message and exit code 1; a wrong option is 2, as are numbers out of range."""
    try:
        app()
    except PgmrlError as error:
        output.errors.print(f"[bold red]error:[/] {output.escaped(error)}", soft_wrap=True)
        sys.exit(2 if isinstance(error, SearchError) else 1)
    except DBAPIError as error:  # what the server says of the user's own SQL, tables and rights
        output.errors.print(f"[bold red]error:[/] {output.escaped(str(error.orig).strip())}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
