"""Tune: the cheapest way to shorten and to search that brings a recall, from the table's own vectors."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import text

from pgmrl import database
from pgmrl.errors import MeasureError, RotationError
from pgmrl.measure.fit_rotation import SAMPLE, by_direction, fit_axes
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.tune.candidates import DIMS, candidates, rotation_axes
from pgmrl.tune.choice import chosen, promising, sizes_for
from pgmrl.tune.index_trials import Bench
from pgmrl.tune.outcome import outcome
from pgmrl.tune.ranks import count_ranks
from pgmrl.tune.scans import force_index
from pgmrl.tune.table_reader import Levels
from pgmrl.tune.trial import Sweep
from pgmrl.tune.trial_index import place_for
from pgmrl.tune.truth import find_truth
from pgmrl.tune.tuning_inputs import SMALLEST, Clock, Wanted, ground_of, levels_for
from pgmrl.tune.tuning_transaction import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.measure.queries import Queries
    from pgmrl.model.metrics import ShortType
    from pgmrl.tune.candidates import Candidate, Rule
    from pgmrl.tune.choice import Minimise
    from pgmrl.tune.result import Tuning
    from pgmrl.tune.table_reader import Batch
    from pgmrl.tune.trial import Trial
    from pgmrl.tune.trial_index import Shorts
    from pgmrl.tune.truth import Truth
    from pgmrl.tune.tuning_inputs import Ground

__all__ = ["QUERIES", "tune"]

QUERIES: Final = 2_000
"""Half of them choose, half of them check: a thousand tell recall within .01."""

ROWS: Final = 1_000_000
GRAPH_ROWS: Final = 100_000
FINALISTS: Final = 3
GRAPHS: Final = ((16, 64), (16, 200), (24, 150), (32, 200))
"""Build parameters, m and ef_construction, that `graph` tries beside the column's own."""
TYPICAL: Final = 1_000  # bytes a row of a graph takes while it is built, of 128 halves and m=16, about


def tune(
    connection: Connection | Session,
    column: Any,
    recall: float = 0.95,
    *,
    k: int = 10,
    queries: Queries | int = QUERIES,
    dims: Sequence[int] | None = None,
    by: Sequence[Rule] = ("prefix", "rotation"),
    types: Sequence[ShortType] = ("halfvec", "bit"),
    rotation: Rotation | None = None,
    index: Hnsw | None = None,
    graph: bool = False,
    max_shortlist: int = 1000,
    minimise: Minimise = "latency",
    finalists: int = FINALISTS,
    rows: int = ROWS,
    graph_rows: int = GRAPH_ROWS,
    maintenance_work_mem: str | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Tuning:
    """Find the cheapest setting that reaches a recall, without a column or an index for it.

    Reads the table two or three times in one snapshot, computes what each candidate would lose, then builds the
    indexes of the most promising ones on computed short vectors, in a table that nobody else sees and that is rolled
    back, and searches them. Memory of this process: about `graph_rows` times the bytes of the finalists' short vectors,
    and 64 MB for each 2,000 queries. See docs/tuning.md for the models.

    Args:
        connection: of the database: outside a transaction, before the first statement of one (which is REPEATABLE READ
            from then on), or in one of REPEATABLE READ. A transaction of the caller's goes on afterwards.
        column: the Matryoshka attribute or column; a column that `reflect` gives needs no short one.
        recall: recall@k to reach, above 0 and at most 1.
        k: results that count.
        queries: what to ask, or how many rows of the table to take as queries; those then count as no rows of the
            table. Half of them choose, half of them check.
        dims: short dimensions to try; by default up to eight between 32 and 512.
        by: ways to shorten.
        types: short types.
        rotation: to try; by default the column's own, else one that is learned here.
        index: build parameters; by default those of the index there is.
        graph: try other build parameters for the best candidate.
        max_shortlist: the longest shortlist, and largest ef_search, to take.
        minimise: `latency`, `size` (of the index) or `build` (its time).
        finalists: candidates whose index is tried.
        rows: to read at most; of a larger table a random sample.
        graph_rows: rows that indexes are tried on at most.
        maintenance_work_mem: for these builds, such as "1GB".
        seconds: about how long it may take; fewer rows are read, and fewer candidates tried.
        seed: of all random choices.
        progress: called with what is being done, how much of it is done and how much there is.

    Raises:
        MeasureError: too few rows, or a transaction that does not read in one snapshot.
        SearchError: a number out of range.
        DefinitionError: dimensions, shortenings or types that cannot be, or no Matryoshka column.
        NotMigrated: the table or the column is not in the database.
        RotationError: the rotation's axes do not fit.
        DatabaseError: the server stopped it, or the connection dropped; nothing is left there.

    """
    connection = database.sqlalchemy_connection(connection)
    sizes = None if dims is None else tuple(sorted(set(dims)))
    wanted = Wanted(
        recall, k, sizes, tuple(by), tuple(types), index, graph, max_shortlist, minimise, finalists, rows, graph_rows,
        maintenance_work_mem, seed,
    )  # fmt: skip
    clock = Clock(seconds)
    told = progress or _silent
    with snapshot(connection):
        if maintenance_work_mem is not None:
            connection.execute(
                text("SELECT set_config('maintenance_work_mem', :value, true)"), {"value": maintenance_work_mem}
            )
        rotation = None if rotation is None else database.with_axes(connection, rotation)
        ground = ground_of(connection, column, wanted, queries)
        return _tuned(connection, ground, wanted, clock, rotation, told)


def _tuned(
    connection: Connection,
    ground: Ground,
    wanted: Wanted,
    clock: Clock,
    rotation: Rotation | None,
    told: Callable[[str, int, int], None],
) -> Tuning:
    place, why = place_for(connection, ground.source)
    if why:
        ground.notes.insert(0, why)
    _choose_rows(ground, wanted, clock)
    levels = levels_for(ground.read, wanted, ground.memory.build // TYPICAL)
    sample = _Sample(Levels((1.0, min(1.0, SAMPLE / max(1.0, ground.read))), wanted.seed + 1))
    truths = _truths(ground, wanted, levels, sample, told)
    clock.part("truth")
    tried = _candidates(ground, wanted, rotation, sample)
    sweeps = _sweeps(ground, wanted, levels, truths, tried, told)
    clock.part("truncation")
    with ExitStack() as stack:
        bench = Bench(ground, wanted, clock, truths, levels, place, stack, told)
        trials = _trials(bench, sweeps)
        clock.part("indexes")
        return outcome(bench, sweeps, trials)


# -- reading -------------------------------------------------------------------------------------------------------


class _Sample:
    """Rows to learn a rotation from, of those that pass by."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.parts: list[NDArray[np.float16 | np.float32]] = []

    def add(self, batch: Batch, kind: str) -> None:
        chosen = batch.vectors[self.levels.of(batch.places) > 0] if self.levels.fractions[1] < 1 else batch.vectors
        self.parts.append(chosen.astype(np.float16 if kind == "halfvec" else np.float32))


def _choose_rows(ground: Ground, wanted: Wanted, clock: Clock) -> None:
    """How much of the table to read: as much as was asked for, and as there is time for."""
    share = min(1.0, wanted.rows / max(1, ground.rows))
    if clock.left is not None:
        least = SMALLEST * wanted.k / max(1, ground.rows)  # of fewer there is nothing to say
        share = min(share, max(least, _affordable(ground, wanted, clock.left / 2)))
    if share < 1:
        ground.source.percent = max(1e-4, 100 * share)
        ground.incomplete.append(
            f"a random {100 * share:.3g} % of the rows were read, and recall scaled to all of them by the model"
        )


def _affordable(ground: Ground, wanted: Wanted, seconds: float) -> float:
    """The share of the rows for which truth and truncation take so long, by the time of the first batches."""
    started, seen = time.perf_counter(), 0
    levels = Levels((1.0,), wanted.seed)

    def first() -> Generator[Batch]:
        nonlocal seen
        with closing(ground.source.batches()) as batches:
            for batch in islice(batches, 2):
                seen += len(batch.places)
                yield batch

    find_truth(first(), ground.definition, ground.queries, wanted.k, levels, _nothing)
    each = (time.perf_counter() - started) / max(1, seen)
    # ranks: half the queries, and the candidates' dimensions instead of the full ones
    dims = sum(wanted.dims or DIMS) * len(wanted.by) * len(wanted.types)
    ranks = 0.5 * dims / ground.definition.dims * 1.5
    return seconds / max(1e-9, each * (1 + ranks) * ground.rows)


def _truths(
    ground: Ground, wanted: Wanted, levels: Levels, sample: _Sample, told: Callable[[str, int, int], None]
) -> list[Truth]:
    expected = round(ground.read)
    done = 0

    def seen(batch: Batch) -> None:
        nonlocal done
        done += len(batch.places)
        if "rotation" in wanted.by:
            sample.add(batch, ground.definition.full)
        told("exact search", min(done, expected), expected)

    return find_truth(ground.source.batches(), ground.definition, ground.queries, wanted.k, levels, seen)


# -- candidates ----------------------------------------------------------------------------------------------------


def _candidates(ground: Ground, wanted: Wanted, rotation: Rotation | None, sample: _Sample) -> list[Candidate]:
    by = list(wanted.by)
    if "rotation" in by:
        rotation = _rotation(ground, wanted, rotation, sample)
        if rotation is None:
            by.remove("rotation")
            ground.notes.append("too few rows to learn a rotation from")
    sample.parts.clear()
    found = candidates(
        ground.definition, ground.index, rules=by or ["prefix"], types=wanted.types, dims=wanted.dims, rotation=rotation
    )
    current = ground.current
    if current is not None and not any(one.same_vectors(current.candidate) for one in found):
        found.append(current.candidate)
    return found


def _rotation(ground: Ground, wanted: Wanted, given: Rotation | None, sample: _Sample) -> Rotation | None:
    """The one that was given, the column's own, or one that is learned; None where there are too few rows."""
    if given is not None:
        return given
    needed = rotation_axes(ground.definition, wanted.dims)
    own = None if ground.current is None else ground.current.candidate.definition.short.by
    if isinstance(own, Rotation) and len(own.required_axes()) >= needed:
        return own
    vectors = np.concatenate(sample.parts) if sample.parts else np.empty((0, ground.definition.dims), np.float32)
    count = min(needed, len(vectors) // 2)
    if count < min(wanted.dims or (1,)):
        return None
    try:
        return fit_axes(vectors, count, normalise=by_direction(ground.definition.metric))
    except RotationError:
        return None


def _sweeps(
    ground: Ground,
    wanted: Wanted,
    levels: Levels,
    truths: Sequence[Truth],
    tried: Sequence[Candidate],
    told: Callable[[str, int, int], None],
) -> list[Sweep]:
    done = 0

    def seen(batch: Batch) -> None:
        nonlocal done
        done += len(batch.places)
        told(f"{len(tried)} ways to shorten", done, truths[0].rows)

    mine = [one.of_queries(slice(0, ground.tuned)) for one in truths]
    ranks = count_ranks(ground.source, tried, ground.tuning, mine, levels, seen)
    floor = min(0.9, wanted.recall)
    return [Sweep.of(one, found, floor) for one, found in zip(tried, ranks, strict=True)]


# -- indexes -------------------------------------------------------------------------------------------------------


def _trials(bench: Bench, sweeps: Sequence[Sweep]) -> list[Trial]:
    ground, wanted = bench.ground, bench.wanted
    force_index(ground.source)
    current = ground.current
    mine = None
    if current is not None:
        mine = next(one for one in sweeps if one.candidate.same_vectors(current.candidate))
    if bench.place is None:
        found = None if mine is None else bench.existing(mine)
        if found is None:
            raise MeasureError(
                f"{ground.notes[0]}, and {ground.source.name} has no valid index on short vectors to search: tune on "
                "the primary, by a role that may create temporary tables"
            )
        return [found]
    tried = _tried(ground, wanted, sweeps, mine)
    shorts = bench.collect([one for one, _ in tried])
    trials: list[Trial] = []
    for (sweep, how), vectors in zip(tried, shorts, strict=True):
        if trials and bench.clock.over:
            bench.untried = True
            ground.incomplete.append("time ran out before all promising candidates were tried")
            break
        trial = bench.trial(sweep, how, vectors)
        if trial is None:
            bench.untried = True
            ground.incomplete.append(f"there was no time to build an index of {sweep.candidate.title}")
        else:
            trials.append(trial)
    if wanted.graph and trials:
        sizes = sizes_for(wanted.k, wanted.max_shortlist)
        _, _, best = chosen([(one, one.options(ground.rows, sizes)) for one in trials], wanted)
        place = next(number for number, (sweep, _) in enumerate(tried) if sweep is best.sweep)
        trials += _graphs(bench, best.sweep, shorts[place], best.candidate.index)
    if len(trials) > 1:
        bench.time_together(trials)
    return trials


def _tried(ground: Ground, wanted: Wanted, sweeps: Sequence[Sweep], mine: Sweep | None) -> list[tuple[Sweep, Hnsw]]:
    """The promising candidates and the column there is: that first, to be compared however little time there is."""
    sizes = sizes_for(wanted.k, wanted.max_shortlist)
    finalists = promising(sweeps, wanted.recall, ground.rows, sizes, wanted.finalists, wanted.minimise)
    tried = [(one, ground.index) for one in finalists]
    if mine is None or ground.current is None:
        return tried
    there = (mine, ground.current.candidate.index)
    return [there, *(one for one in tried if one != there)]


def _graphs(bench: Bench, sweep: Sweep, shorts: Shorts, but: Hnsw) -> list[Trial]:
    found = []
    for m, ef_construction in GRAPHS:
        how = Hnsw(m, ef_construction)
        if how == but or bench.clock.over:
            continue
        trial = bench.trial(sweep, how, shorts)
        if trial is not None:
            found.append(trial)
    return found


def _silent(_what: str, _done: int, _whole: int) -> None:
    """No progress."""


def _nothing(_batch: Batch) -> None:
    """No progress."""
