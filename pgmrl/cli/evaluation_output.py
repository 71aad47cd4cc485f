"""An evaluation as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pgmrl.cli.output import console, escaped, print_table
from pgmrl.evaluation import EXACT, SHORT_ONLY, TWO_STAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgmrl.evaluation import Evaluation

__all__ = ["as_json", "print_evaluation"]

FEW: Final = 30
"""Queries below which an interval is mostly chance of which were judged."""

QUERY_CHARS: Final = 50


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as a JSON document; per-query values by the query's id."""
    systems = [
        {
            "name": system.name,
            "means": {measure: mean._asdict() for measure, mean in system.means.items()},
            "differences": {measure: difference._asdict() for measure, difference in system.differences.items()},
            "values": {
                measure: dict(zip(evaluation.queries, values.tolist(), strict=True))
                for measure, values in system.values.items()
            },
        }
        for system in evaluation.systems
    ]
    names = ("column", "source", "measures", "rows", "judged", "shortlists", "ef_search", "warnings", "seconds")
    return {
        **{name: getattr(evaluation, name) for name in names},
        "queries": len(evaluation.queries),
        "systems": systems,
        "dims": [asdict(shortened) for shortened in evaluation.dims],
        "worst": [asdict(query) for query in evaluation.worst],
    }


def print_evaluation(evaluation: Evaluation) -> None:
    """An evaluation as tables."""
    sizes = ", ".join(f"{size} for {depth}" for depth, size in evaluation.shortlists.items())
    rows = [
        (system.name, *(f"{mean.mean:.4f} ({mean.low:.3f} to {mean.high:.3f})" for mean in system.means.values()))
        for system in evaluation.systems
    ]
    print_table(("", *evaluation.measures), rows)
    console.print(
        f"{escaped(evaluation.column)}: {len(evaluation.queries):,} queries, {evaluation.judged:,} judgements, "
        f"{evaluation.rows:,} documents; rows of the shortlist {sizes}; means with their 95 % intervals; "
        f"{evaluation.seconds:.1f} s",
        style="dim",
        soft_wrap=True,
    )
    if len(evaluation.queries) < FEW:
        few = "1 query says" if len(evaluation.queries) == 1 else f"{len(evaluation.queries)} queries say"
        console.print(f"[yellow]note:[/] {few} little: judge {FEW} or more", soft_wrap=True)
    for line in _differences(evaluation):
        console.print(line, soft_wrap=True)
    if evaluation.dims:
        _print_dims(evaluation)
    if evaluation.worst:
        _print_worst(evaluation)
    for warning in evaluation.warnings:
        console.print(f"[yellow]note:[/] {escaped(warning)}", soft_wrap=True)


def _differences(evaluation: Evaluation) -> Iterable[str]:
    for system in evaluation.systems:
        if system.name == EXACT:
            continue
        measure, value = next(iter(system.differences.items()))
        kept = "" if value.kept is None else f", {value.kept:.2%} of it (at least {value.kept_low:.2%})"
        yield (
            f"{system.name} against {EXACT}, {escaped(measure)}: {value.mean:+.4f} ({value.low:+.4f} to "
            f"{value.high:+.4f}){kept}; better on {value.better:,} queries, worse on {value.worse:,}"
        )


def _print_dims(evaluation: Evaluation) -> None:
    measure = evaluation.measures[0]
    rows = []
    for shortened in evaluation.dims:
        kept = shortened.kept[measure]
        rows.append(
            (
                shortened.by,
                str(shortened.dims),
                f"{shortened.short_only[measure]:.4f}",
                f"{shortened.two_stage[measure]:.4f}",
                "" if kept is None else f"{kept:.2%}",
            )
        )
    head = ("shortened by", "dims", SHORT_ONLY, TWO_STAGE, f"of {EXACT}")
    print_table(head, rows, title=f"{measure} without a column, by exact shortlists", labels=2)


def _print_worst(evaluation: Evaluation) -> None:
    rows = []
    for query in evaluation.worst:
        text = " ".join((query.text or "").split())
        rows.append(
            (
                query.query,
                text if len(text) <= QUERY_CHARS else f"{text[: QUERY_CHARS - 1]}…",
                f"{query.exact:.3f}",
                f"{query.two_stage:.3f}",
                ", ".join(query.lost[:3]) + (", …" if len(query.lost) > 3 else ""),
            )
        )
    print_table(("query", "text", EXACT, TWO_STAGE, "not found"), rows, title="worst queries", wrapped=[0, 1, 4])
