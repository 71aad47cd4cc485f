"""Without two stages: one HNSW index on the full vectors in half precision, tried beside the choice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.model.shortening import Prefix, Short
from pgmrl.tune.candidates import Candidate
from pgmrl.tune.index_scans import IndexScans, ScannedIndex, TrialQueries
from pgmrl.tune.search_timing import time_searches
from pgmrl.tune.trial_table import build_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgmrl.tune.index_trial import IndexTrial, Option
    from pgmrl.tune.index_trials import IndexTrials
    from pgmrl.tune.search_timing import BoundSearch
    from pgmrl.tune.trial_table import ShortVectors
    from pgmrl.tune.tuning_inputs import TuningInputs

__all__ = ["PlainIndex", "plain_candidate", "try_plain"]

MOST_DIMS: Final = 1024
"""Of more dimensions two stages are faster in all that was measured, and the vectors of a trial take much memory."""

EFS: Final = (10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 1000)
TIMED: Final = 120  # queries
LEVEL: Final = 1.05  # what differs by less is level


class PlainIndex(NamedTuple):
    """One HNSW index on full vectors as `halfvec`, beside the choice, in a table of the same size.

    Attributes:
        rows: of the tables that were searched.
        ef_search: the smallest tried that finds as much.
        recall: it finds.
        latency_ms: the median time of its search.
        chosen_ms: that of the choice, in turns with it.
        chosen_recall: that the choice finds.
        index_bytes: its size at the rows of the table today.
        chosen_bytes: that of the choice.

    """

    rows: int
    ef_search: int
    recall: float
    latency_ms: float
    chosen_ms: float
    chosen_recall: float
    index_bytes: int
    chosen_bytes: int

    @property
    def message(self) -> str:
        """Which is faster, and by how much, in words."""
        ratio = self.chosen_ms / self.latency_ms
        verdict = "plain halfvec and two stages are level here"
        if ratio > LEVEL:
            verdict = f"plain halfvec is faster here, {ratio:.1f} times"
        elif ratio < 1 / LEVEL:
            verdict = f"two stages are faster here, {1 / ratio:.1f} times"
        chosen = f"the choice {self.chosen_ms:.2f} ms ({self.chosen_recall:.3f})"
        return (
            f"{verdict}: one HNSW index on the full vectors as halfvec takes {self.latency_ms:.2f} ms (ef_search "
            f"{self.ef_search}, recall {self.recall:.3f}), {chosen}, "
            f"both at {self.rows:,} rows and in memory; its index is {self.index_bytes / self.chosen_bytes:.1f} times "
            "as large"
        )


def plain_candidate(inputs: TuningInputs) -> Candidate | None:
    """The full vectors as if they were short ones; None where there are too many dimensions."""
    definition = inputs.definition
    if definition.dims > MOST_DIMS:
        return None
    return Candidate(replace(definition, short=Short(definition.dims, Prefix(), "halfvec")), inputs.index)


def try_plain(trials: IndexTrials, shorts: ShortVectors, owner: IndexTrial, choice: Option) -> PlainIndex | None:
    """Build and search it; None where there was no time, or it does not find as much."""
    inputs, candidate = trials.inputs, plain_candidate(trials.inputs)
    if candidate is None or trials.trial_table is None or trials.budget.exhausted:
        return None
    sample = _sample(trials, candidate)
    connection, k = inputs.table.connection, trials.request.k
    with build_trial(connection, trials.trial_table, candidate, shorts.part(sample), trials.patience()) as built:
        if built is None:
            return None
        queries = TrialQueries.of(candidate.definition, trials.scanning)
        index = ScannedIndex(inputs.table, candidate.definition, built.name)
        scans = IndexScans(index, queries, trials.truths[sample].of_queries(slice(0, len(queries))))
        recall = owner.recall(choice.shortlist, choice.ef_search, built.rows).mean
        for ef in (ef for ef in EFS if ef >= k):
            scans.scan(ef)
            reached = float(scans.per_query(k, ef).mean())
            if reached >= recall:
                break
            if trials.budget.exhausted:
                return None
        else:
            return None
        own = trials.timed_search(owner, choice.shortlist, choice.ef_search)
        searches = [_plain_search(index, queries, k, ef), own]
        plain_ms, chosen_ms = time_searches(inputs.table, searches, min(TIMED, len(queries)))
        base = owner.indexes[0].rows
        numbers = choice.shortlist, choice.ef_search
        chosen_ms *= owner.latency_ms(*numbers, built.rows) / owner.latency_ms(*numbers, base)
        size = round(built.index_bytes * inputs.rows / max(1, built.rows))
        return PlainIndex(
            built.rows, ef, reached, plain_ms, chosen_ms, recall, size, max(1, owner.index_bytes(inputs.rows))
        )


def _sample(trials: IndexTrials, candidate: Candidate) -> int:
    """The largest part of the table whose graph fits into the memory of builds."""
    parts = range(trials.samples.largest_index, len(trials.truths))
    memory = trials.inputs.memory.build
    return next((part for part in parts if candidate.graph_bytes(trials.truths[part].rows) <= memory), parts[-1])


def _plain_search(index: ScannedIndex, queries: TrialQueries, k: int, ef_search: int) -> Callable[[int], BoundSearch]:
    statement = index.plain(k, ef_search)
    return lambda number: (statement, {"short": queries.short[number]})
