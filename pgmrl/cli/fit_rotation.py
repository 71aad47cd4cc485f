"""`pgmrl fit-rotation`: learn a rotation from the vectors of a column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import ColumnPath, DatabaseUrl, Json, Metric, RotationFolder, metric_name
from pgmrl.cli.output import console, counted, escaped, print_table, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.database.reflection import reflect
from pgmrl.measure.fit_rotation import fit_rotation as fit_to

if TYPE_CHECKING:
    from pgmrl.measure.fit_rotation import Fit

__all__ = ["fit_rotation"]


def fit_rotation(
    column: ColumnPath,
    sample: Annotated[int, typer.Option(help="Rows to learn from.")] = 20_000,
    axes: Annotated[int | None, typer.Option(help="Axes to keep; default 256.")] = None,
    rotation_dir: RotationFolder = Path("rotations"),
    install: Annotated[bool, typer.Option("--install", help="Put the axes into this database as well.")] = False,
    metric: Metric = None,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Learn the principal axes of a column's vectors, save them, and say how much recall each short size keeps.

    Reads only; the axes go to a file named by their hash. Commit that file, pin the id in the model, and install the
    axes with a migration, so that every environment shortens alike.

    Example: `pgmrl fit-rotation packages.embedding --rotation-dir migrations/rotations`
    """
    with open_engine(url, writes=install) as engine:
        with engine.connect() as connection, progress_report(quiet=json) as report:
            fit = fit_to(
                connection,
                reflect(connection, column, metric=metric_name(metric)),
                sample=sample,
                axes=axes,
                progress=lambda done: report("reading rows to learn from", done, sample),
            )
        path = fit.rotation.save(rotation_dir)
        if install:
            with engine.begin() as connection:
                database.install_rotation(connection, fit.rotation)
    if json:
        write_json(_as_json(fit, path))
        return
    print_fit(fit)
    console.print(
        f"learned from {counted(fit.rows, 'row')} ({fit.skipped:,} without a usable vector left out); saved to "
        f'{escaped(path)}\npin it: Short(128, by=Rotation.load("{escaped(path)}"))',
        soft_wrap=True,
    )


def print_fit(fit: Fit) -> None:
    """What each number of short dimensions keeps, as a table."""
    rows = [
        (str(dims), f"{recall:.3f}", f"{fit.recall_by_dims_prefix[dims]:.3f}")
        for dims, recall in fit.recall_by_dims.items()
    ]
    head = ("short dimensions", "rotation keeps", "prefix keeps")
    print_table(head, rows, title="recall@10 of an exact shortlist of 100")


def _as_json(fit: Fit, path: Path) -> dict[str, Any]:
    return {
        "rotation": fit.rotation.id,
        "path": path,
        "rows": fit.rows,
        "skipped": fit.skipped,
        "recall_by_dims": fit.recall_by_dims,
        "recall_by_dims_prefix": fit.recall_by_dims_prefix,
    }
