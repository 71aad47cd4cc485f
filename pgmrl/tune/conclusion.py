"""From trials to a result: the choice, what it brings at ten times the rows, and how the models held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.model.columns import base_column
from pgmrl.tune.growth_models import build_growth
from pgmrl.tune.limiting_factor import limiting_factor
from pgmrl.tune.plain_index import try_plain
from pgmrl.tune.result import ExactShortlists, FittedModel, Tuning
from pgmrl.tune.selection import Selection, cheapest, pareto, select_setting, sizes_for
from pgmrl.tune.setting_checks import check_column, check_trial
from pgmrl.units import shown as shown_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgmrl.tune.index_trial import IndexTrial, Option
    from pgmrl.tune.index_trials import IndexTrials
    from pgmrl.tune.request import TuneRequest
    from pgmrl.tune.result import Check
    from pgmrl.tune.truncation import Truncation
    from pgmrl.tune.tuning_inputs import TuningInputs

__all__ = ["conclude"]

TIMES: Final = 10
SHOWN: Final = (1, 2, 4, 10, 20, 40)
"""Times k: the shortlists that the table of candidates shows."""


def conclude(trials: IndexTrials, truncations: Sequence[Truncation], tried: Sequence[IndexTrial]) -> Tuning:
    """Choose, check and report.

    Args:
        trials: what was tuned, and where the indexes still are.
        truncations: of all candidates.
        tried: those whose index was tried; where time was short for each, none.

    """
    inputs, request = trials.inputs, trials.request
    sizes = sizes_for(request.k, request.max_shortlist)
    options = [(trial, trial.options(inputs.rows, sizes)) for trial in tried]
    choice, shown, owner = _selected(inputs, request, options, sizes) if options else (None, None, None)
    plain = None
    if choice is not None and owner is not None and trials.full is not None:
        trials.report("trying an index on the full vectors", 0, 1)
        plain = try_plain(trials, trials.full, owner, choice)
        trials.budget.record("plain index")
    checks: list[Check | None] = []
    if shown is not None and owner is not None:
        trials.report("checking", 0, 1)
        through_column = _is_there(inputs, shown) and trials.trial_table is not None
        if owner.indexes[0].scans.index.trial or not through_column:
            checks.append(check_trial(trials, owner, shown))
        if through_column:
            checks.append(check_column(trials, owner, shown))
    trials.budget.record("check")
    limit = None
    if choice is None:
        rotated = any(truncation.candidate.rule == "rotation" for truncation in truncations)
        most, ended = request.max_shortlist, _ended(owner, tried, trials.untried)
        numbers = request.recall, inputs.rows, most
        limit = limiting_factor(shown, truncations, *numbers, rotated=rotated, ended=ended)
    later = TIMES * inputs.rows
    return Tuning(
        column=str(base_column(inputs.column)),
        k=request.k,
        target=request.recall,
        optimize_for=request.optimize_for,
        rows=inputs.rows,
        rows_read=trials.truths[0].rows,
        queries=inputs.tuned,
        source=inputs.source.source,
        choice=choice,
        best=None if choice is not None else shown,
        limit=limit,
        tenfold=None if shown is None or owner is None else owner.option(shown.shortlist, shown.ef_search, later),
        tenfold_needed=None
        if owner is None
        else cheapest(owner.options(later, sizes, model_error=False), request.recall, request.optimize_for),
        current=_current(inputs, tried),
        keeps_column=_is_there(inputs, choice),
        plain=plain,
        front=pareto([option for _, own in options for option in own]),
        tried=[option for _, own in options for option in pareto(own)],
        exact_shortlists=[_exact_shortlists(truncation, inputs.rows, request) for truncation in truncations],
        checks=[check for check in checks if check is not None],
        models=[] if owner is None or shown is None else _models(owner, shown),
        notes=[*inputs.notes, *(() if owner is None or shown is None else _cautions(inputs, shown, owner))],
        incomplete=inputs.incomplete,
        seconds=trials.budget.spent,
    )


def _selected(
    inputs: TuningInputs, request: TuneRequest, options: list[tuple[IndexTrial, list[Option]]], sizes: Sequence[int]
) -> Selection:
    """The setting to take; where none is sure to reach the target only for the models' error, one that may."""
    selected = select_setting(options, request)
    if selected.choice is not None:
        return selected
    likely = select_setting(
        [(trial, trial.options(inputs.rows, sizes, model_error=False)) for trial, _ in options], request
    )
    if likely.choice is None:
        return selected
    choice = likely.trial.option(likely.choice.shortlist, likely.choice.ef_search, inputs.rows)
    error = likely.choice.recall.low - choice.recall.low
    inputs.notes.append(
        f"by the models recall may be missed by {error:.3f}: --graph-rows tries indexes on more rows, and once the "
        "column has its index, tuning sweeps that"
    )
    return Selection(choice, choice, likely.trial)


def _ended(owner: IndexTrial | None, tried: Sequence[IndexTrial], untried: bool) -> str | None:
    """Where time ran out, in words: for the best setting's index, else for another that might have done."""
    ends = [trial.indexes[0].scans.ended_at for trial in (*(() if owner is None else (owner,)), *tried)]
    ef = next((ef for ef in ends if ef is not None), None)
    if ef is not None:
        return f"at ef_search {ef}"
    return "before all promising candidates were tried" if untried else None


def _exact_shortlists(truncation: Truncation, rows: int, request: TuneRequest) -> ExactShortlists:
    sizes = sorted({min(request.max_shortlist, times * request.k) for times in SHOWN})
    return ExactShortlists(truncation.candidate, {size: truncation.recall(size, rows) for size in sizes})


def _current(inputs: TuningInputs, tried: Sequence[IndexTrial]) -> Option | None:
    """The column there is, as it is searched."""
    if inputs.current is None or inputs.current.index_bytes is None:
        return None
    candidate = inputs.current.candidate
    own = next((trial for trial in tried if candidate.same(trial.candidate)), None)
    return None if own is None else own.option(*inputs.current.scan, inputs.rows)


def _is_there(inputs: TuningInputs, option: Option | None) -> bool:
    """Whether there is such a column with such an index."""
    current = inputs.current
    if option is None or current is None or current.index_bytes is None:
        return False
    return current.candidate.same(option.candidate)


def _models(trial: IndexTrial, shown: Option) -> list[FittedModel]:
    truncation, sizes = trial.truncation, [index.rows for index in trial.indexes]
    base = trial.indexes[0]
    latency = trial.latency
    models = [
        FittedModel(
            "recall",
            "of the exact shortlist by the next model, less what the scan loses by the one after; of this setting",
            trial.extrapolation_error(shown.shortlist, shown.ef_search),
            False,
            sizes,
        ),
        FittedModel(
            "truncation",
            f"the shortlist that keeps the same grows with rows^{truncation.growth.exponent:.3f}",
            truncation.growth.error,
            False,
            [rows for rows, _ in truncation.curves],
        ),
        FittedModel(
            "HNSW",
            f"the ef_search that loses the same grows with rows^{trial.growth.exponent:.3f}",
            trial.growth.error,
            False,
            sizes,
        ),
        FittedModel(
            "latency",
            f"{latency.fixed:.3f} ms + {1000 * latency.ranked:.2f} µs * shortlist + {1000 * latency.visited:.2f} µs * "
            f"ef_search, which rises by {latency.deeper:.1%} when the rows double",
            trial.latency.error,
            True,
            sizes,
        ),
        FittedModel(
            "index size",
            f"{base.index_bytes / max(1, base.rows):.0f} bytes a row",
            _relative([index.index_bytes / index.rows for index in trial.indexes]),
            True,
            sizes,
        ),
    ]
    if base.build_seconds is not None:
        models.append(
            FittedModel(
                "build time",
                f"{trial.build_seconds(1_000_000) or 0:.0f} s for a million rows, by rows * log(rows)",
                _build_error(trial),
                True,
                sizes,
            )
        )
    return models


def _relative(values: Sequence[float]) -> float | None:
    """How far the second largest table's value is from the largest's."""
    return abs(values[1] / values[0] - 1) if len(values) > 1 else None


def _build_error(trial: IndexTrial) -> float | None:
    if len(trial.indexes) < 2:
        return None
    large, small = trial.indexes[0], trial.indexes[1]
    if not large.build_seconds or small.build_seconds is None:
        return None
    return abs(small.build_seconds * build_growth(small.rows, large.rows) / large.build_seconds - 1)


def _cautions(inputs: TuningInputs, option: Option, trial: IndexTrial) -> Iterator[str]:
    """What the numbers take for granted."""
    memory, candidate = inputs.memory, option.candidate
    for times in (1, TIMES):
        rows = times * inputs.rows
        size, build = trial.index_bytes(rows), candidate.graph_bytes(rows)
        when = "today" if times == 1 else "at ten times the rows"
        if size > memory.cache:
            yield (
                f"{when} the index ({shown_bytes(size)}) is larger than effective_cache_size "
                f"({shown_bytes(memory.cache)}): the latency is that of an index in memory"
            )
        elif size > memory.buffers:
            have = shown_bytes(memory.buffers)
            yield f"{when} the index ({shown_bytes(size)}) is larger than shared_buffers ({have}), slower to read"
        if build > memory.build and trial.indexes[0].build_seconds is not None:
            yield (
                f"{when} the build needs maintenance_work_mem of {shown_bytes(build)} (it is "
                f"{shown_bytes(memory.build)}): with less it takes many times as long as said"
            )
            break
    if not trial.indexes[0].scans.index.trial and inputs.source.keys is not None:
        yield (
            "the index there is holds the rows that were the queries, and finds their neighbours more easily than "
            "those of a new query: real ones, by --query-sql or --queries, may lose more to the scan"
        )
    reach = (option.recall.high - option.recall.low) / 2
    if reach > 0.01:
        yield f"{inputs.tuned:,} queries tell recall within {reach:.3f} only: give more, or accept it"
    base = trial.indexes[0].rows
    if base < 0.8 * inputs.rows:
        yield f"indexes were tried on {base:,} rows: recall and latency of {inputs.rows:,} are by the models"
