"""From trials to an answer: the choice, what it brings at ten times the rows, and how the models held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.model.columns import base_column
from pgmrl.tune.choice import cheapest, chosen, pareto, sizes_for, why_not
from pgmrl.tune.models import build_growth
from pgmrl.tune.result import Kept, Model, Tuning
from pgmrl.units import shown as shown_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgmrl.tune.index_trials import Bench
    from pgmrl.tune.result import Check
    from pgmrl.tune.trial import Option, Sweep, Trial
    from pgmrl.tune.tuning_inputs import Ground, Wanted

__all__ = ["outcome"]

TIMES: Final = 10
KEPT: Final = (1, 2, 4, 10, 20, 40)  # times k: the shortlists that the table of candidates shows


def outcome(bench: Bench, sweeps: Sequence[Sweep], trials: Sequence[Trial]) -> Tuning:
    """Choose, check and say.

    Args:
        bench: what was tuned, and where the indexes still are.
        sweeps: all candidates.
        trials: those whose index was tried; where time was short for each, none.

    """
    ground, wanted = bench.ground, bench.wanted
    sizes = sizes_for(wanted.k, wanted.max_shortlist)
    tried = [(trial, trial.options(ground.rows, sizes)) for trial in trials]
    choice, shown, owner = chosen(tried, wanted) if tried else (None, None, None)
    checks: list[Check] = []
    if shown is not None and owner is not None:
        bench.told("checking", 0, 1)
        found = [bench.check(owner, shown)]
        if _is_there(ground, shown) and bench.place is not None:
            found.append(bench.check_column(owner, shown))
        checks = [one for one in found if one is not None]
    bench.clock.part("check")
    limit = None
    if choice is None:
        rotated = any(one.candidate.rule == "rotation" for one in sweeps)
        most, ended = wanted.max_shortlist, _ended(owner, trials, bench.untried)
        limit = why_not(shown, sweeps, wanted.recall, ground.rows, most, rotated=rotated, ended=ended)
    later = TIMES * ground.rows
    return Tuning(
        column=str(base_column(ground.column)),
        k=wanted.k,
        target=wanted.recall,
        minimise=wanted.minimise,
        rows=ground.rows,
        rows_read=bench.truths[0].rows,
        queries=ground.tuned,
        source=ground.asked.source,
        choice=choice,
        best=None if choice is not None else shown,
        limit=limit,
        tenfold=None if shown is None or owner is None else owner.option(shown.shortlist, shown.ef_search, later),
        tenfold_needed=None if owner is None else cheapest(owner.options(later, sizes), wanted.recall, wanted.minimise),
        current=_current(ground, trials),
        keeps_column=_is_there(ground, choice),
        front=pareto([one for _, options in tried for one in options]),
        tried=[one for _, options in tried for one in pareto(options)],
        kept=[_kept(one, ground.rows, wanted) for one in sweeps],
        checks=checks,
        models=[] if owner is None or shown is None else _models(owner, shown),
        notes=[*ground.notes, *(() if owner is None or shown is None else _cautions(ground, shown, owner))],
        incomplete=ground.incomplete,
        seconds=bench.clock.spent,
    )


def _ended(owner: Trial | None, trials: Sequence[Trial], untried: bool) -> str | None:
    """Where time ran out, in words: for the best setting's index, else for another that might have done."""
    stopped = [one.graphs[0].scans.ended_at for one in (*(() if owner is None else (owner,)), *trials)]
    ef = next((one for one in stopped if one is not None), None)
    if ef is not None:
        return f"at ef_search {ef}"
    return "before all promising candidates were tried" if untried else None


def _kept(sweep: Sweep, rows: int, wanted: Wanted) -> Kept:
    sizes = sorted({min(wanted.max_shortlist, times * wanted.k) for times in KEPT})
    return Kept(sweep.candidate, {size: sweep.recall(size, rows) for size in sizes})


def _current(ground: Ground, trials: Sequence[Trial]) -> Option | None:
    """The column there is, as it is searched."""
    if ground.current is None or ground.current.index_bytes is None:
        return None
    candidate = ground.current.candidate
    mine = next((one for one in trials if candidate.same(one.candidate)), None)
    if mine is None:
        return None
    return mine.option(*ground.current.scan, ground.rows)


def _is_there(ground: Ground, option: Option | None) -> bool:
    """Whether there is such a column with such an index."""
    current = ground.current
    if option is None or current is None or current.index_bytes is None:
        return False
    return current.candidate.same(option.candidate)


def _models(trial: Trial, shown: Option) -> list[Model]:
    sweep, sizes = trial.sweep, [one.rows for one in trial.graphs]
    base = trial.graphs[0]
    latency = trial.latency
    found = [
        Model(
            "recall",
            "of the exact shortlist by the next model, less what the scan loses by the one after; of this setting",
            trial.extrapolation_error(shown.shortlist, shown.ef_search),
            False,
            sizes,
        ),
        Model(
            "truncation",
            f"the shortlist that keeps the same grows with rows^{sweep.growth.exponent:.3f}",
            sweep.growth.error,
            False,
            [rows for rows, _ in sweep.curves],
        ),
        Model(
            "HNSW",
            f"the ef_search that loses the same grows with rows^{trial.growth.exponent:.3f}",
            trial.growth.error,
            False,
            sizes,
        ),
        Model(
            "latency",
            f"{latency.fixed:.3f} ms + {1000 * latency.ranked:.2f} µs * shortlist + {1000 * latency.visited:.2f} µs * "
            f"ef_search, which rises by {latency.deeper:.1%} when the rows double",
            trial.latency.error,
            True,
            sizes,
        ),
        Model(
            "index size",
            f"{base.index_bytes / max(1, base.rows):.0f} bytes a row",
            _relative([one.index_bytes / one.rows for one in trial.graphs]),
            True,
            sizes,
        ),
    ]
    if base.build_seconds is not None:
        found.append(
            Model(
                "build time",
                f"{trial.build_seconds(1_000_000) or 0:.0f} s for a million rows, by rows * log(rows)",
                _build_error(trial),
                True,
                sizes,
            )
        )
    return found


def _relative(values: Sequence[float]) -> float | None:
    """How far the second largest table's value is from the largest's."""
    return abs(values[1] / values[0] - 1) if len(values) > 1 else None


def _build_error(trial: Trial) -> float | None:
    if len(trial.graphs) < 2:
        return None
    large, small = trial.graphs[0], trial.graphs[1]
    if not large.build_seconds or small.build_seconds is None:
        return None
    return abs(small.build_seconds * build_growth(small.rows, large.rows) / large.build_seconds - 1)


def _cautions(ground: Ground, option: Option, trial: Trial) -> Iterator[str]:
    """What the numbers take for granted."""
    memory, candidate = ground.memory, option.candidate
    for times in (1, TIMES):
        rows = times * ground.rows
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
        if build > memory.build and trial.graphs[0].build_seconds is not None:
            yield (
                f"{when} the build needs maintenance_work_mem of {shown_bytes(build)} (it is "
                f"{shown_bytes(memory.build)}): with less it takes many times as long as said"
            )
            break
    reach = (option.recall.high - option.recall.low) / 2
    if reach > 0.01:
        yield f"{ground.tuned:,} queries tell recall within {reach:.3f} only: give more, or accept it"
    base = trial.graphs[0].rows
    if base < 0.8 * ground.rows:
        yield f"indexes were tried on {base:,} rows: recall and latency of {ground.rows:,} are by the models"
