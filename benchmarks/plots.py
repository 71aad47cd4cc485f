"""Plots of the raw results, as SVG for the docs and PNG for the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.stats import Line

MARKERS: Final = {"two stages": "o", "plain": "s", "exact": "*", "in process": "D"}
STYLES: Final = {"two stages": "-", "plain": "--", "exact": "", "in process": ":"}
WORST: Final = 0.1
"""Losses of recall beyond this are off the plot."""


def recall_plot(path: Path, title: str, lines: Sequence[Line]) -> list[str]:
    """Recall against p50 for all sides; names of the files."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    colours = mpl.colormaps["tab20"]
    for number, line in enumerate(sorted(lines, key=lambda one: (one.family, one.name))):
        points = [point for point in line.typical() if 1 - point.recall <= WORST]
        axes.plot(
            [max(1 - point.recall, 5e-4) for point in points],
            [point.p50 for point in points],
            marker=MARKERS.get(line.family, "."),
            linestyle=STYLES.get(line.family, "-"),
            color=colours(number % 20),
            linewidth=3 if line.side == "pgmrl" else 1.3,
            label=line.name,
        )
    axes.set(xscale="log", yscale="log", xlabel="recall@10", ylabel="p50, milliseconds", title=title)
    ticks = [0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001]
    axes.set_xticks(ticks, [f"{1 - tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.invert_xaxis()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=7, ncols=2)
    return _save(figure, path)


def curve_plot(path: Path, lines: Sequence[Line], recall: float) -> list[str]:
    """Latency at equal recall, index and build over the number of rows; names of the files."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for side in sorted({line.side for line in lines}):
        mine = sorted((line for line in lines if line.side == side), key=lambda line: line.rows)
        for panel, label, values in (
            (panels[0], f"p50 at recall {recall:g}, ms", [line.value(recall) for line in mine]),
            (panels[1], "index, MB", [line.fact("index_bytes", 1e-6) for line in mine]),
            (panels[2], "build, s", [line.fact("seconds") for line in mine]),
        ):
            known = [(line.rows, value.median) for line, value in zip(mine, values, strict=True) if value]
            panel.plot(*zip(*known, strict=True) if known else ((), ()), marker="o", label=side)
            panel.set(xscale="log", yscale="log", xlabel="rows", title=label)
            panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].legend()
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "pgmrl"}):  # the same results give the same file
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=110)
    return [path.with_suffix(".svg").name, path.with_suffix(".png").name]
