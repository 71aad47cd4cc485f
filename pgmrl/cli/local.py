"""`pgmrl local …`: the embedded server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pgmrl import local
from pgmrl.cli.common import Json, console, write_json
from pgmrl.errors import LocalServerError

__all__ = ["app"]

app = typer.Typer(help="The embedded PostgreSQL, for trying things out without a server.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Its folder; before PGMRL_DATA_DIR and the user's data folder.")]


@app.command()
def start(data_dir: DataDir = None, json: Json = False) -> None:
    """Start it and leave it running, for psql and other programs.

    Example: `psql "$(pgmrl local url)"` after `pgmrl local start`
    """
    server = local.start(data_dir, keep=True)
    try:
        found = {"url": server.url(), "data_dir": str(server.data_dir), "pid": server.pid}
    finally:
        server.stop()
    if json:
        write_json(found)
    else:
        console.print(f"running: {found['url']}\nin {found['data_dir']}; `pgmrl local stop` stops it", soft_wrap=True)


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
    found = local.status(data_dir)
    if json:
        write_json(None if found is None else asdict(found))
    elif found is None:
        console.print("not running")
    else:
        console.print(f"running since {found.started:%Y-%m-%d %H:%M}: {found.url}", soft_wrap=True)
    if found is None:
        raise typer.Exit(1)


@app.command()
def url(data_dir: DataDir = None) -> None:
    """Print the URL of the running server's database, for other programs.

    Example: `export DATABASE_URL="$(pgmrl local url)"`
    """
    found = local.status(data_dir)
    if found is None:
        raise LocalServerError("the embedded server does not run: start it with `pgmrl local start`")
    typer.echo(found.url)
