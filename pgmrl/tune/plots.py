"""The result of tuning as a picture and as a page that needs nothing else."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

from pgmrl.measure import drawing
from pgmrl.units import shown as size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

    from pgmrl.tune.index_trial import Option
    from pgmrl.tune.result import Tuning

__all__ = ["about", "figure", "front_rows", "today", "write_html", "write_png"]

TICKS: Final = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)
CAPTION: Final = (
    "Left: a line for each index that was tried, a point for each shortlist and ef_search that no other of it beats in "
    "recall and time.\nRight: a line for each way to shorten, a point for each shortlist, ranked without an index."
)
LEAST: Final = 5e-4  # losses below are drawn here: a logarithm has no zero


def write_png(tuning: Tuning, path: str | Path) -> None:
    """The figure as a PNG.

    Raises:
        MeasureError: matplotlib is not installed, or the file cannot be written.

    """
    drawing.check_path(path)
    drawing.write(path, drawing.saved(figure(tuning), "png"))


def write_html(tuning: Tuning, path: str | Path) -> None:
    """The figure, the tables and the models as one HTML file that fetches nothing.

    Raises:
        MeasureError: as `write_png`.

    """
    drawing.check_path(path)
    image = base64.b64encode(drawing.saved(figure(tuning), "svg")).decode()
    drawing.write(path, page(tuning, f"data:image/svg+xml;base64,{image}").encode())


def figure(tuning: Tuning) -> Figure:
    """Recall against latency of what was tried, and what exact shortlists keep."""
    drawn = drawing.figure(figsize=(14, 5.4))
    left, right = drawn.subplots(1, 2)
    _draw_tried(left, tuning)
    _draw_exact_shortlists(right, tuning)
    drawn.supxlabel(CAPTION, fontsize=8, color="#666")
    drawn.suptitle(f"{tuning.column}: {tuning.rows:,} rows, recall@{tuning.k} of {tuning.target:g}")
    return drawn


LINES: Final = 12
"""Of the front at most so many are shown."""


def about(tuning: Tuning) -> list[Option]:
    """What of the front is worth reading: a page of it about the target, and always the choice."""
    least = tuning.target - max(0.01, (1 - tuning.target) / 2)
    near = [option for option in tuning.front if option.recall.mean >= least]
    near = near or sorted(tuning.front, key=lambda option: option.recall.mean)[-LINES:]
    near = near[:: max(1, -(-len(near) // LINES))]
    shown = tuning.choice or tuning.best
    added = near if shown is None or shown in near else [*near, shown]
    return sorted(added, key=lambda option: option.latency_ms)


def front_rows(options: Iterable[Option], current: Option | None = None) -> list[tuple[str, ...]]:
    """A table's rows: short vector, index, shortlist, ef_search, recall, latency, index size, build time.

    The size is that of the index that was tried, in proportion to the rows. The column and index there are, are marked.
    """
    return [
        (
            option.candidate.title
            + (TODAY if current is not None and option.candidate.same(current.candidate) else ""),
            f"m={option.candidate.index.m}, {option.candidate.index.ef_construction}",
            str(option.shortlist),
            str(option.ef_search),
            f"{option.recall.mean:.3f}",
            f"{option.recall.low:.3f} to {option.recall.high:.3f}",
            f"{option.latency_ms:.2f} ms",
            size(option.index_bytes),
            "" if option.build_seconds is None else f"{option.build_seconds:.1f} s",
        )
        for option in options
    ]


TODAY: Final = " (as it is today)"


def today(current: Option) -> str:
    """What searches of the column there is do now, in a line."""
    return (
        f"today: {current.candidate.title}, shortlist {current.shortlist}, ef_search {current.ef_search}: "
        f"recall {current.recall.mean:.3f}, {current.latency_ms:.2f} ms"
    )


FRONT: Final = (
    "short vector",
    "index",
    "shortlist",
    "ef_search",
    "recall",
    "95 %",
    "latency",
    "index size, tried",
    "build",
)


# -- the figure ----------------------------------------------------------------------------------------------------


def _draw_tried(axes: Any, tuning: Tuning) -> None:
    names = list(dict.fromkeys((option.candidate.title, option.candidate.graph) for option in tuning.tried))
    for name in names:
        line = [option for option in tuning.tried if (option.candidate.title, option.candidate.graph) == name]
        line.sort(key=lambda option: option.recall.mean)
        losses = [max(LEAST, 1 - option.recall.mean) for option in line]
        label = f"{name[0]}, {name[1]}: {size(line[0].index_bytes)}"
        axes.plot(losses, [option.latency_ms for option in line], marker=".", label=label)
    shown = tuning.choice or tuning.best
    if shown is not None:
        at = max(LEAST, 1 - shown.recall.mean)
        label = "the choice" if tuning.choice is not None else "the nearest to the target"
        ring = {"marker": "o", "markersize": 13, "fillstyle": "none", "color": "black", "linestyle": ""}
        axes.plot([at], [shown.latency_ms], label=label, **ring)
    axes.axvline(max(LEAST, 1 - tuning.target), color="grey", linestyle=":", label=f"target: {tuning.target:g}")
    _as_recall(axes)
    axes.set(yscale="log", xlabel=f"recall@{tuning.k}", ylabel="median of a search, ms", title="what was tried")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(fontsize=8)


def _draw_exact_shortlists(axes: Any, tuning: Tuning) -> None:
    for candidate, recall in tuning.exact_shortlists:
        style = {"prefix": "--", "rotation": "-"}[candidate.rule]
        losses = [max(LEAST, 1 - value) for value in recall.values()]
        axes.plot(list(recall), losses, style, marker=".", linewidth=1.2, label=candidate.title)
    axes.axhline(max(LEAST, 1 - tuning.target), color="grey", linestyle=":", label=f"target: {tuning.target:g}")
    axes.set(yscale="log", xscale="log", xlabel="shortlist", ylabel=f"recall@{tuning.k} of an exact shortlist")
    axes.set_yticks(TICKS, [f"{1 - tick:g}" for tick in TICKS])
    axes.set_yticks([], minor=True)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("what the short vectors keep")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _as_recall(axes: Any) -> None:
    """An axis of losses, told as recall: what counts is how near it is to 1."""
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{1 - tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.invert_xaxis()
    axes.grid(visible=True, which="both", alpha=0.25)


# -- the page ------------------------------------------------------------------------------------------------------

PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; }
th { font-weight: 600; }
img { max-width: 100%; background: white; }
.answer { font-size: 1.15em; }
.note { color: #666; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="answer">$answer</p>
$incomplete
$today
$facts
<img alt="Recall against latency, and what exact shortlists keep" src="$image">
<h2>What no other setting beats in recall, time and size at once</h2>
$front
<h2>What an exact shortlist keeps</h2>
$kept
<h2>Checks and models</h2>
$checks
$models
$notes
</body>
</html>
""")


def page(tuning: Tuning, image: str) -> str:
    """The page with an image given as a data URI."""
    return PAGE.substitute(
        title=html.escape(f"{tuning.column}: recall@{tuning.k} of {tuning.target:g}"),
        answer=html.escape(answer(tuning)),
        incomplete="".join(f"<p>incomplete: {html.escape(note)}</p>\n" for note in tuning.incomplete),
        today="" if tuning.current is None else f"<p>{html.escape(today(tuning.current))}</p>",
        facts=_table(("", "today", "at ten times the rows"), facts(tuning)),
        image=image,
        front=_table(FRONT, front_rows(about(tuning), tuning.current)),
        kept=_table(*kept_rows(tuning)),
        checks=_table(CHECKS, check_rows(tuning)),
        models=_table(MODELS, model_rows(tuning)),
        notes="".join(f'<p class="note">{html.escape(note)}</p>\n' for note in tuning.notes),
    )


def answer(tuning: Tuning) -> str:
    """The finding in a sentence or two."""
    choice, limit = tuning.choice, tuning.limit
    if choice is not None:
        there = ", as it is" if tuning.keeps_column else f" under HNSW with {choice.candidate.graph}"
        return (
            f"{choice.candidate.title}{there}, with shortlist {choice.shortlist} and ef_search {choice.ef_search}: "
            f"recall@{tuning.k} {choice.recall.mean:.3f} ({choice.recall.low:.3f} to {choice.recall.high:.3f})."
        )
    said = "No index could be tried."
    if tuning.best is not None:
        best = tuning.best
        said = (
            f"No setting reaches recall@{tuning.k} of {tuning.target:g}. The best is {best.candidate.title} "
            f"({best.candidate.graph}) with shortlist {best.shortlist} and ef_search {best.ef_search}: "
            f"{best.recall.mean:.3f}."
        )
    return said if limit is None else f"{said} Limited by {limit.cause}: {limit.message}. Remedy: {limit.remedy}."


def facts(tuning: Tuning) -> list[tuple[str, ...]]:
    """What the setting brings and costs, today and at ten times the rows."""
    shown, later = tuning.choice or tuning.best, tuning.tenfold
    if shown is None or later is None:
        return []
    needed = tuning.tenfold_needed
    more = "none" if needed is None else f"shortlist {needed.shortlist}, ef_search {needed.ef_search}"
    seconds = ["" if option.build_seconds is None else f"{option.build_seconds:,.0f} s" for option in (shown, later)]
    build = [shown.candidate.graph_bytes(rows) for rows in (tuning.rows, 10 * tuning.rows)]
    rows = [
        ("rows", f"{tuning.rows:,}", f"{10 * tuning.rows:,}"),
        ("recall", f"{shown.recall.mean:.3f}", f"{later.recall.mean:.3f}"),
        ("latency (median)", f"{shown.latency_ms:.2f} ms", f"{later.latency_ms:.2f} ms"),
        ("index size, to be kept in memory", size(shown.index_bytes), size(later.index_bytes)),
        ("build time", *seconds),
        ("maintenance_work_mem for the build", size(build[0]), size(build[1])),
        ("setting that reaches the target", f"shortlist {shown.shortlist}, ef_search {shown.ef_search}", more),
    ]
    return rows if tuning.choice is not None else rows[:-1]


def kept_rows(tuning: Tuning) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of candidates; sizes by pgvector's page layout, for most were not built."""
    sizes = list(tuning.exact_shortlists[0].recall) if tuning.exact_shortlists else []
    head = ("short vector", "index size, computed", *(f"shortlist {shortlist:,}" for shortlist in sizes))
    current = tuning.current
    rows = [
        (
            candidate.title + (TODAY if current is not None and candidate.same_vectors(current.candidate) else ""),
            size(candidate.index_bytes(tuning.rows)),
            *(f"{value:.3f}" for value in recall.values()),
        )
        for candidate, recall in tuning.exact_shortlists
    ]
    return head, rows


CHECKS: Final = (
    "checked with",
    "queries",
    "recall predicted",
    "recall measured",
    "95 %",
    "latency predicted",
    "latency measured",
)
MODELS: Final = ("model", "says", "missed by", "sizes measured")


def check_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """Rows of the table of checks."""
    return [
        (
            check.what,
            f"{check.queries:,}",
            f"{check.predicted:.3f}",
            f"{check.measured.mean:.3f}",
            f"{check.measured.low:.3f} to {check.measured.high:.3f}",
            f"{check.predicted_ms:.2f} ms",
            f"{check.measured_ms:.2f} ms",
        )
        for check in tuning.checks
    ]


def model_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """Rows of the table of models."""
    return [
        (
            model.name,
            model.formula,
            "not checked" if model.error is None else f"{model.error:.1%}" if model.relative else f"{model.error:.4f}",
            ", ".join(f"{rows:,}" for rows in model.sizes),
        )
        for model in tuning.models
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(kind: str, values: Sequence[str]) -> str:
        return "".join(f"<{kind}>{html.escape(value)}</{kind}>" for value in values)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>\n<tr>{cells('th', head)}</tr>\n{body}\n</table>" if body else ""
