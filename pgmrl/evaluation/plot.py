"""The plot that everybody knows from the papers on Matryoshka embeddings: quality against dimensions."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgmrl.errors import MeasureError
from pgmrl.evaluation.evaluation import EXACT, SHORT_ONLY, TWO_STAGE
from pgmrl.measure.drawing import check_path, figure, saved, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pgmrl.evaluation.evaluation import Evaluation

__all__ = ["SUFFIXES", "plot"]

SUFFIXES: Final = (".png", ".svg", ".pdf", ".html")
COLOURS: Final = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3")


def plot(evaluation: Evaluation, path: str | Path, measure: str | None = None) -> None:
    """Draw quality against short dimensions: short only, two stages, and the exact search as a horizontal line.

    Args:
        evaluation: with dimensions.
        path: a `.png`, `.svg`, `.pdf` or `.html` file; nothing in it is fetched from elsewhere.
        measure: default the first one.

    Raises:
        MeasureError: another suffix, an unknown measure, no dimensions, a file that cannot be written, or matplotlib
            is not installed.

    """
    path = Path(path)
    check_path(path, SUFFIXES)
    name = measure or evaluation.measures[0]
    if name not in evaluation.measures:
        raise MeasureError(f"{name} was not measured: there is {', '.join(evaluation.measures)}")
    if not evaluation.dims:
        raise MeasureError("no dimensions were tried: there is nothing to draw")
    drawn, form = _drawn(evaluation, name), path.suffix.lower()[1:]
    write(
        path, _page(evaluation, name, saved(drawn, "svg").decode()).encode() if form == "html" else saved(drawn, form)
    )


def _drawn(evaluation: Evaluation, measure: str) -> Figure:
    drawn = figure(figsize=(7.2, 4.6))
    axes = drawn.subplots()
    exact = evaluation.systems[0]
    assert exact.name == EXACT  # noqa: S101 - as it is made
    axes.axhline(exact.means[measure].mean, color="black", linewidth=1, label="exact, full vectors")
    rules = list(dict.fromkeys(row.by for row in evaluation.dims))
    for number, rule in enumerate(rules):
        own = [row for row in evaluation.dims if row.by == rule]
        sizes = [row.dims for row in own]
        called = "leading dimensions" if rule == "prefix" else "rotation"
        colour = COLOURS[number % len(COLOURS)]
        both, short = [row.two_stage[measure] for row in own], [row.short_only[measure] for row in own]
        axes.plot(sizes, both, marker="o", color=colour, label=f"{TWO_STAGE}, {called}")
        axes.plot(sizes, short, marker="s", linestyle="--", color=colour, label=f"{SHORT_ONLY}, {called}")
    ticks = sorted({row.dims for row in evaluation.dims})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="short dimensions", ylabel=measure, title=_title(evaluation))
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8)
    return drawn


def _title(evaluation: Evaluation) -> str:
    title = f"{evaluation.column}: {len(evaluation.queries):,} queries, {evaluation.rows:,} documents"
    return title.replace("$", r"\$")  # else the beginning of a formula


def _page(evaluation: Evaluation, measure: str, drawing: str) -> str:
    """A page with the drawing in it and the numbers below."""
    rows = "".join(
        f"<tr><td>{html.escape(row.by)}</td><td>{row.dims}</td><td>{row.short_only[measure]:.4f}</td>"
        f"<td>{row.two_stage[measure]:.4f}</td></tr>"
        for row in evaluation.dims
    )
    title = html.escape(f"{measure} of {evaluation.column}")
    exact = evaluation.systems[0].means[measure]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>'
        "body{font-family:sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}svg{max-width:100%}"
        f"</style></head><body><h1>{title}</h1>\n{drawing[drawing.index('<svg') :]}\n"
        f"<p>Exact search of the full vectors: {exact.mean:.4f} ({exact.low:.4f} to {exact.high:.4f})</p>\n"
        f"<table><tr><th>shortened by</th><th>dimensions</th><th>{SHORT_ONLY}</th><th>{TWO_STAGE}</th></tr>{rows}"
        "</table>\n</body></html>\n"
    )
