"""Tune: the cheapest way to shorten and to search that brings a recall, from the table's own vectors."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import text

from pgmrl import database
from pgmrl.errors import MeasureError, RotationError
from pgmrl.measure.fit_rotation import SAMPLE, by_direction, fit_axes
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.tune.candidates import candidates, rotation_axes
from pgmrl.tune.conclusion import conclude
from pgmrl.tune.index_trials import IndexTrials
from pgmrl.tune.nested_samples import NestedSamples, samples_for
from pgmrl.tune.plain_index import plain_candidate
from pgmrl.tune.request import TuneRequest
from pgmrl.tune.search_timing import force_index
from pgmrl.tune.selection import promising, select_setting, sizes_for
from pgmrl.tune.table_passes import (
    LearningRows,
    choose_extent,
    expected_seconds,
    measured_cost,
    read_truncations,
    read_truths,
)
from pgmrl.tune.time_budget import TimeBudget
from pgmrl.tune.trial_table import trial_table_for
from pgmrl.tune.tuning_inputs import gather_inputs
from pgmrl.tune.tuning_transaction import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.measure.queries import Queries
    from pgmrl.model.metrics import ShortType
    from pgmrl.tune.candidates import Candidate, Rule
    from pgmrl.tune.index_trial import IndexTrial
    from pgmrl.tune.request import OptimizeFor
    from pgmrl.tune.result import Tuning
    from pgmrl.tune.trial_table import ShortVectors
    from pgmrl.tune.truncation import Truncation
    from pgmrl.tune.tuning_inputs import TuningInputs

    Report = Callable[[str, int, int], None]

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
    optimize_for: OptimizeFor = "latency",
    finalists: int = FINALISTS,
    rows: int = ROWS,
    graph_rows: int = GRAPH_ROWS,
    maintenance_work_mem: str | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    on_estimate: Callable[[float], None] | None = None,
) -> Tuning:
    """Find the cheapest setting that reaches a recall, without a column or an index for it.

    Reads the table two or three times in one snapshot, computes what each candidate would lose, then builds the
    indexes of the most promising ones on computed short vectors, in a table that nobody else sees and that is rolled
    back, and searches them. Memory of this process: about `graph_rows` times the bytes of the finalists' short vectors,
    20,000 vectors to learn a rotation from, and some 150 MB, however large the table. docs/tuning.md has the models.

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
        optimize_for: what the setting shall be the cheapest in: `latency`, `size` (of the index) or `build` (its time).
        finalists: candidates whose index is tried.
        rows: to read at most; of a larger table a random sample.
        graph_rows: rows that indexes are tried on at most.
        maintenance_work_mem: for these builds, such as "1GB".
        seconds: how long it may take: fewer queries are asked, then fewer candidates tried, then fewer rows read.
        seed: of all random choices.
        progress: called with what is being done, how much of it is done and how much there is.
        on_estimate: called once, near the beginning, with about how many seconds it will take.

    Raises:
        MeasureError: too few rows, or a transaction that does not read in one snapshot.
        SearchError: a number out of range.
        DefinitionError: dimensions, shortenings or types that cannot be, or no Matryoshka column.
        NotMigrated: the table or the column is not in the database.
        RotationError: the rotation's axes do not fit.
        DatabaseError: the server stopped it, or the connection dropped; nothing is left there.

    """
    database.psycopg_connection(connection, "tune")
    connection = database.sqlalchemy_connection(connection)
    sizes = None if dims is None else tuple(sorted(set(dims)))
    request = TuneRequest(
        recall, k, sizes, tuple(by), tuple(types), index, graph, max_shortlist, optimize_for, finalists, rows,
        graph_rows, maintenance_work_mem, seed,
    )  # fmt: skip
    budget = TimeBudget(seconds)
    with snapshot(connection):
        if maintenance_work_mem is not None:
            connection.execute(
                text("SELECT pg_catalog.set_config('maintenance_work_mem', :value, true)"),
                {"value": maintenance_work_mem},
            )
        rotation = None if rotation is None else database.with_axes(connection, rotation)
        inputs = gather_inputs(connection, column, request, queries)
        return _tuned(inputs, request, budget, rotation, progress or _silent, on_estimate)


def _tuned(
    inputs: TuningInputs,
    request: TuneRequest,
    budget: TimeBudget,
    rotation: Rotation | None,
    report: Report,
    on_estimate: Callable[[float], None] | None,
) -> Tuning:
    trial_table, why = trial_table_for(inputs.table.connection, inputs.table)
    if why:
        inputs.notes.insert(0, why)
    cost = None if budget.seconds is None and on_estimate is None else measured_cost(inputs, request)
    cost = choose_extent(inputs, request, budget, cost)
    samples = samples_for(inputs.read, request, inputs.memory.build // TYPICAL)
    if on_estimate is not None and cost is not None:
        on_estimate(expected_seconds(inputs, request, budget, cost, samples))
    learning = LearningRows(NestedSamples((1.0, min(1.0, SAMPLE / max(1.0, inputs.read))), request.seed + 1))
    truths = read_truths(inputs, request, samples, learning, report)
    budget.record("truth")
    tried = _candidates(inputs, request, rotation, learning)
    truncations = read_truncations(inputs, request, samples, truths, tried, report)
    budget.record("truncation")
    with ExitStack() as stack:
        trials = IndexTrials(inputs, request, budget, truths, samples, trial_table, stack, report)
        done = _try_indexes(trials, truncations)
        budget.record("indexes")
        return conclude(trials, truncations, done)


# -- candidates ----------------------------------------------------------------------------------------------------


def _candidates(
    inputs: TuningInputs, request: TuneRequest, rotation: Rotation | None, learning: LearningRows
) -> list[Candidate]:
    by = list(request.by)
    if "rotation" in by:
        rotation = _rotation(inputs, request, rotation, learning)
        if rotation is None:
            by.remove("rotation")
            inputs.notes.append("too few rows to learn a rotation from")
    learning.parts.clear()
    tried = candidates(
        inputs.definition,
        inputs.index,
        rules=by or ["prefix"],
        types=request.types,
        dims=request.dims,
        rotation=rotation,
    )
    current = inputs.current
    if current is not None and not any(candidate.same_vectors(current.candidate) for candidate in tried):
        tried.append(current.candidate)
    return tried


def _rotation(
    inputs: TuningInputs, request: TuneRequest, rotation: Rotation | None, learning: LearningRows
) -> Rotation | None:
    """The caller's, the column's own, or one that is learned; None where there are too few rows."""
    if rotation is not None:
        return rotation
    needed = rotation_axes(inputs.definition, request.dims)
    own = None if inputs.current is None else inputs.current.candidate.definition.short.by
    if isinstance(own, Rotation) and len(own.required_axes()) >= needed:
        return own
    empty = np.empty((0, inputs.definition.dims), np.float32)
    vectors = np.concatenate(learning.parts) if learning.parts else empty
    count = min(needed, len(vectors) // 2)
    if count < min(request.dims or (1,)):
        return None
    try:
        return fit_axes(vectors, count, normalise=by_direction(inputs.definition.metric))
    except RotationError:
        return None


# -- indexes -------------------------------------------------------------------------------------------------------


def _try_indexes(trials: IndexTrials, truncations: Sequence[Truncation]) -> list[IndexTrial]:
    inputs, request = trials.inputs, trials.request
    force_index(inputs.table)
    current = inputs.current
    own = None
    if current is not None:
        own = next(other for other in truncations if other.candidate.same_vectors(current.candidate))
    existing = None
    if own is not None and (inputs.table.percent == 100 or trials.trial_table is None):
        existing = trials.existing(own)
    if trials.trial_table is None:
        if existing is None:
            raise MeasureError(
                f"{inputs.notes[0]}, and {inputs.table.name} has no valid index on short vectors to search: tune on "
                "the primary, by a role that may create temporary tables"
            )
        return [existing]
    planned = _planned(inputs, request, truncations, own)
    plain = plain_candidate(inputs)
    collected = trials.collect(
        [*(truncation.candidate for truncation, _ in planned), *(() if plain is None else (plain,))]
    )
    shorts, trials.full = collected[: len(planned)], None if plain is None else collected[-1]
    done = _tried(trials, planned, shorts, existing)
    if request.graph and done:
        sizes = sizes_for(request.k, request.max_shortlist)
        best = select_setting([(trial, trial.options(inputs.rows, sizes)) for trial in done], request).trial
        place = next(number for number, (truncation, _) in enumerate(planned) if truncation is best.truncation)
        done += _graphs(trials, best.truncation, shorts[place], best.candidate.index)
    if len(done) > 1:
        trials.time_together(done)
    return done


def _tried(
    trials: IndexTrials,
    planned: Sequence[tuple[Truncation, Hnsw]],
    shorts: Sequence[ShortVectors],
    existing: IndexTrial | None,
) -> list[IndexTrial]:
    """The trials that there is time for, the first in any case; that of the index there is, goes before."""
    inputs, request = trials.inputs, trials.request
    done = [] if existing is None else [existing]
    for (truncation, index), vectors in zip(planned, shorts, strict=True):
        if existing is not None and truncation is existing.truncation and index == existing.candidate.index:
            able = truncation.needed(request.recall, inputs.rows, [request.max_shortlist]) is not None
            if (able or trials.samples.largest_index) and not trials.budget.exhausted:
                trials.try_smaller(existing, vectors)
            continue
        if len(done) > (existing is not None) and trials.budget.exhausted:
            trials.untried = True
            inputs.incomplete.append("time ran out before all promising candidates were tried")
            break
        trial = trials.trial(truncation, index, vectors)
        if trial is None:
            trials.untried = True
            inputs.incomplete.append(f"there was no time to build an index of {truncation.candidate.title}")
        else:
            done.append(trial)
    return done


def _planned(
    inputs: TuningInputs, request: TuneRequest, truncations: Sequence[Truncation], own: Truncation | None
) -> list[tuple[Truncation, Hnsw]]:
    """The promising candidates, the most promising first, and the column there is."""
    sizes = sizes_for(request.k, request.max_shortlist)
    finalists = promising(truncations, request.recall, inputs.rows, sizes, request.finalists, request.optimize_for)
    planned = [(truncation, inputs.index) for truncation in finalists]
    if own is None or inputs.current is None:
        return planned
    existing = (own, inputs.current.candidate.index)
    return [*(trial for trial in planned if trial != existing), existing]


def _graphs(trials: IndexTrials, truncation: Truncation, shorts: ShortVectors, but: Hnsw) -> list[IndexTrial]:
    """Indexes of the same short vectors with other build parameters."""
    done = []
    for m, ef_construction in GRAPHS:
        index = Hnsw(m, ef_construction)
        if index == but or trials.budget.exhausted:
            continue
        trial = trials.trial(truncation, index, shorts)
        if trial is not None:
            done.append(trial)
    return done


def _silent(_what: str, _done: int, _whole: int) -> None:
    """No progress."""
