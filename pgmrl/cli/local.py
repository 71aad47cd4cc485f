"""`pgmrl local …`: the embedded server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pgmrl import local
from pgmrl.cli.options import Json
from pgmrl.cli.output import console, write_json
from pgmrl.errors import LocalServerError

__all__ = ["app"]

app = typer.Typer(help="The embedded PostgreSQL, for trying things out without a server.", no_args_is_help=True)

DataDir = Annotated[
    Path | None, typer.Option(help="The server's folder; before PGMRL_DATA_DIR and the user's data folder.")
]


@app.command()
def start(data_dir: DataDir = None, json: Json = False) -> None:
    """Start it and leave it running, for psql and other programs.

    Example: `pgmrl local start && psql "$(pgmrl local url)"`
    """
    server = local.start(data_dir, keep=True)
    try:
        running = {"url": server.url(), "data_dir": str(server.data_dir), "pid": server.pid}
    finally:
        server.stop()
    if json:
        write_json(running)
    else:
        console.print(
            f"running: {running['url']}\nin {running['data_dir']}; `pgmrl local stop` stops it", soft_wrap=True
        )


@app.command()
def stop(data_dir: DataDir = None) -> None:
    """Stop it, also while programs are connected.

    Example: `pgmrl local stop`
    """
    local.stop(data_dir)
    console.print("stopped")


@app.command()
def status(data_dir: DataDir = None, json: Json = False) -> None:
    """Say whether it runs; exit code 1 when it does not.

    Example: `pgmrl local status --json`
    """
    running = local.status(data_dir)
    if json:
        write_json(None if running is None else asdict(running))
    elif running is None:
        console.print("not running")
    else:
        console.print(f"running since {running.started:%Y-%m-%d %H:%M}: {running.url}", soft_wrap=True)
    if running is None:
        raise typer.Exit(1)


@app.command()
def url(data_dir: DataDir = None) -> None:
    """Print the URL of the running server's database, for other programs.

    Example: `export DATABASE_URL="$(pgmrl local url)"`
    """
    running = local.status(data_dir)
    if running is None:
        raise LocalServerError("the embedded server does not run: start it with `pgmrl local start`")
    typer.echo(running.url)
