"""`pgmrl progress`: the backfills and index builds of a database."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.job_lines import build_line, job_line
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import write_json
from pgmrl.cli.repeat import Watch, repeated
from pgmrl.database.index_states import build_progress
from pgmrl.online.backfill import jobs

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.online.backfill import Job

__all__ = ["progress"]


def progress(watch: Watch = False, url: DatabaseUrl = None, json: Json = False) -> None:
    """Show the backfills of the database and the index builds that run now, from any terminal.

    Example: `pgmrl progress --watch`
    """
    if watch and json:
        raise typer.BadParameter("--watch goes on for ever and --json writes one document: give one of them")
    with open_engine(url) as engine, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if json:
            backfills, builds = _backfills(connection), build_progress(connection)
            write_json(
                {"backfills": [asdict(job) for job in backfills], "indexes": [asdict(build) for build in builds]}
            )
        else:
            repeated(lambda: _page(connection), watch=watch)


def _page(connection: Connection) -> str:
    lines = [*map(job_line, _backfills(connection)), *map(build_line, build_progress(connection))]
    return "\n".join(lines) or "No backfill was ever started here, and no index is being built."


def _backfills(connection: Connection) -> list[Job]:
    return jobs(connection) if database.installed_revision(connection) is not None else []
