"""From trials to an answer: the choice, what it brings at ten times the rows, and how the models held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.asked import shortlist_size
from pgmrl.columns import base_column
from pgmrl.tune.choice import cheapest, pareto, sizes_for, why_not
from pgmrl.tune.result import Kept, Model, Tuning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.tune.ground import Clock, Ground, Wanted
    from pgmrl.tune.result import Check
    from pgmrl.tune.trial import Option, Sweep, Trial
    from pgmrl.tune.trials import Bench

__all__ = ["outcome"]

TIMES: Final = 10
KEPT: Final = (1, 2, 4, 10, 20, 40)  # times k: the shortlists that the table of candidates shows


def outcome(
    ground: Ground, wanted: Wanted, clock: Clock, sweeps: Sequence[Sweep], trials: Sequence[Trial], bench: Bench
) -> Tuning:
    """Choose, check and say.

    Args:
        ground: what was tuned.
        wanted: what was asked for.
        clock: the time it took.
        sweeps: all candidates.
        trials: those whose index was tried.
        bench: where they still are.

    """
    sizes = sizes_for(wanted.k, wanted.max_shortlist)
    owners: list[tuple[Option, Trial]] = [(one, trial) for trial in trials for one in trial.options(ground.rows, sizes)]
    options = [one for one, _ in owners]
    choice = cheapest(options, wanted.recall, wanted.minimise)
    best = None if choice is not None else max(options, key=lambda one: one.recall.mean, default=None)
    shown = choice or best
    owner = next((trial for one, trial in owners if one is shown), None)
    checks: list[Check] = []
    if shown is not None and owner is not None:
        bench.told("checking", 0, 1)
        checks = [one for one in (bench.check(owner, shown),) if one is not None]
    clock.part("check")
    limit = None
    if choice is None:
        rotated = any(one.candidate.rule == "rotation" for one in sweeps)
        limit = why_not(best, sweeps, wanted.recall, ground.rows, wanted.max_shortlist, rotated=rotated)
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
        best=best,
        limit=limit,
        tenfold=None if shown is None or owner is None else owner.option(shown.shortlist, shown.ef_search, later),
        tenfold_needed=None if owner is None else cheapest(owner.options(later, sizes), wanted.recall, wanted.minimise),
        current=_current(ground, wanted, trials),
        keeps_column=_keeps(ground, choice),
        front=pareto(options),
        kept=[_kept(one, ground.rows, wanted) for one in sweeps],
        checks=checks,
        models=[] if owner is None else _models(owner),
        notes=[*ground.notes, *_cautions(ground, shown)],
        seconds=clock.spent,
    )


def _kept(sweep: Sweep, rows: int, wanted: Wanted) -> Kept:
    sizes = sorted({min(wanted.max_shortlist, times * wanted.k) for times in KEPT})
    return Kept(sweep.candidate, {size: sweep.recall(size, rows) for size in sizes})


def _current(ground: Ground, wanted: Wanted, trials: Sequence[Trial]) -> Option | None:
    """The column there is, with the numbers that a search takes where nobody says any."""
    if ground.current is None:
        return None
    mine = next((one for one in trials if one.candidate == ground.current.candidate), None)
    if mine is None:
        return None
    size = min(shortlist_size(wanted.k), wanted.max_shortlist)
    return mine.option(size, size, ground.rows)


def _keeps(ground: Ground, choice: Option | None) -> bool:
    current = ground.current
    return choice is not None and current is not None and current.candidate == choice.candidate


def _models(trial: Trial) -> list[Model]:
    sweep, sizes = trial.sweep, [one.rows for one in trial.graphs]
    base = trial.graphs[0]
    latency = trial.latency
    found = [
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
    from pgmrl.tune.models import build_growth

    if len(trial.graphs) < 2:
        return None
    large, small = trial.graphs[0], trial.graphs[1]
    if not large.build_seconds or small.build_seconds is None:
        return None
    return abs(small.build_seconds * build_growth(small.rows, large.rows) / large.build_seconds - 1)


def _cautions(ground: Ground, shown: Option | None) -> list[str]:
    return []
