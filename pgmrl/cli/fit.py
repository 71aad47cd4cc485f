"""`pgmrl fit`: learn a rotation from the vectors of a column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pgmrl import database
from pgmrl.cli.common import Json, Metric, Searched, Url, console, engine, metric_name, progress, write_json
from pgmrl.database.reflection import reflect
from pgmrl.measure.fit_rotation import Fit
from pgmrl.measure.fit_rotation import fit_rotation as learn
from pgmrl.model.columns import attachment_of
from pgmrl.model.hnsw import Hnsw, create_index
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["fit", "fit_and_add"]


def fit(
    column: Searched,
    sample: Annotated[int, typer.Option(help="Rows to learn from.")] = 20_000,
    axes: Annotated[int | None, typer.Option(help="Axes to keep; default 256.")] = None,
    directory: Annotated[
        Path, typer.Option("--directory", help="Where the axes are saved; beside your migrations.")
    ] = Path("rotations"),
    install: Annotated[bool, typer.Option(help="Put the axes into this database as well.")] = False,
    metric: Metric = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Learn the principal axes of a column's vectors, save them, and say how much recall each short size keeps.

    Reads only; the axes go to a file named by their hash. Commit that file, pin the id in the model, and install the
    axes with a migration, so that every environment shortens alike.

    Example: `pgmrl fit packages.embedding --directory migrations/rotations`
    """
    with engine(url) as opened:
        with opened.connect() as connection, progress(quiet=json) as bars:
            task = bars.add_task("learning", total=sample)
            target = reflect(connection, column, metric=metric_name(metric))
            found = learn(
                connection, target, sample=sample, axes=axes, progress=lambda done: bars.update(task, completed=done)
            )
        path = found.rotation.save(directory)
        if install:
            with opened.begin() as connection:
                database.install_rotation(connection, found.rotation)
    if json:
        write_json(_as_json(found, path))
        return
    console.print(_table(found))
    console.print(
        f"learned from {found.rows:,} rows ({found.skipped:,} without a usable vector left out); saved to {path}\n"
        f'pin it: Short(128, by=Rotation.load("{path}"))',
        soft_wrap=True,
    )


def fit_and_add(opened: Engine, column: str, dims: int, directory: Path, *, quiet: bool) -> str:
    """Learn a rotation, install it, and add its short column with its index; the rotation's id."""
    with opened.connect() as connection, progress(quiet=quiet) as bars:
        task = bars.add_task("learning a rotation", total=None)
        target = reflect(connection, column)
        found = learn(connection, target, progress=lambda done: bars.update(task, completed=done))
    found.rotation.save(directory)
    given = attachment_of(target).definition
    short = Short(dims, by=found.rotation)
    definition = Definition(given.dims, short, given.metric, given.full, given.vector_schema)
    place = Target(target.table.name, target.name, definition, target.table.schema)
    index = create_index(definition, place.schema, place.table, place.short, Hnsw())
    with progress(quiet=quiet) as bars, opened.begin() as connection:
        database.upgrade(connection)
        database.install_rotation(connection, found.rotation)
        statements = [*steps.add_in_place(place), index]
        for statement in bars.track(statements, description="short column and index"):
            database.execute_plain(connection, statement)
    return str(found.rotation.id)


def _table(found: Fit) -> Table:
    table = Table("short dimensions", "rotation keeps", "prefix keeps", title="recall@10 of an exact shortlist of 100")
    for dims, kept in found.recall_by_dims.items():
        table.add_row(str(dims), f"{kept:.3f}", f"{found.recall_by_dims_prefix[dims]:.3f}")
    return table


def _as_json(found: Fit, path: Path) -> dict[str, Any]:
    return {
        "rotation": found.rotation.id,
        "path": path,
        "rows": found.rows,
        "skipped": found.skipped,
        "recall_by_dims": found.recall_by_dims,
        "recall_by_dims_prefix": found.recall_by_dims_prefix,
    }
