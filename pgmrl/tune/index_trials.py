"""Indexes of the most promising candidates, tried at several sizes."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import select

from pgmrl.measure.intervals import mean_interval
from pgmrl.model.columns import base_column
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.search import search
from pgmrl.tune.growth_models import Timed
from pgmrl.tune.index_scans import IndexScans, ScannedIndex, TrialQueries
from pgmrl.tune.index_trial import IndexTrial, TriedIndex
from pgmrl.tune.search_timing import time_searches, time_trial, trial_search
from pgmrl.tune.selection import reaches
from pgmrl.tune.trial_table import ShortVectors, build_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.ground_truth import GroundTruth
    from pgmrl.model.hnsw import Hnsw
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.nested_samples import NestedSamples
    from pgmrl.tune.request import TuneRequest
    from pgmrl.tune.search_timing import BoundSearch
    from pgmrl.tune.time_budget import TimeBudget
    from pgmrl.tune.trial_table import BuiltIndex, TrialTable
    from pgmrl.tune.truncation import Truncation
    from pgmrl.tune.tuning_inputs import TuningInputs

__all__ = ["TIMED", "TIMING", "IndexTrials"]

EFS: Final = (1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000)
"""Values of ef_search that are tried, as far as needed."""

BELOW: Final = 0.1
"""The first of them is one whose exact shortlist is so far below the target: the front shows what less costs."""

ENOUGH: Final = 4
"""ef_search is raised until a fourth of the loss that is allowed is left."""

SMALLER: Final = 5
"""Values of ef_search that are tried in smaller tables."""

TIMING: Final = "timing searches"
TIMED: Final = 120
"""Queries whose time is taken; in smaller tables half as many."""


@dataclass(slots=True)
class IndexTrials:
    """Where indexes are tried. They stay until the stack is closed, for the check.

    Attributes:
        inputs: what is tuned.
        request: what was asked for.
        budget: the time there is.
        truths: of all queries in each part of the table.
        samples: the parts.
        trial_table: where tables for trials may be made; None for nowhere.
        stack: holds them.
        report: called with what is being done, how much of it is done and how much there is.
        untried: whether time ran out before all candidates had their turn.

    """

    inputs: TuningInputs
    request: TuneRequest
    budget: TimeBudget
    truths: Sequence[GroundTruth]
    samples: NestedSamples
    trial_table: TrialTable | None
    stack: ExitStack
    report: Callable[[str, int, int], None]
    untried: bool = False

    # -- computed columns ------------------------------------------------------------------------------------------

    def collect(self, truncations: Sequence[Truncation]) -> list[ShortVectors]:
        """The short vectors of the rows that indexes are tried on, by one pass over the table.

        They are kept in memory: at most `graph_rows` times the bytes of all finalists' short vectors.
        """
        places: list[NDArray[np.int64]] = []
        samples: list[NDArray[np.int64]] = []
        vectors: list[list[NDArray[Any]]] = [[] for _ in truncations]
        done = 0
        with closing(self.inputs.table.batches()) as batches:
            for batch in batches:
                smallest = self.samples.of(batch.ids)
                among = smallest >= self.samples.largest_index
                places.append(batch.ids[among])
                samples.append(smallest[among])
                for kept, truncation in zip(vectors, truncations, strict=True):
                    kept.append(truncation.candidate.swept.shorten(batch.vectors[among]))
                done += len(batch)
                self.report("computing short vectors", done, self.truths[0].rows)
        rows = np.concatenate(places), np.concatenate(samples)
        return [
            _findable(truncation.candidate, ShortVectors(*rows, np.concatenate(kept)))
            for kept, truncation in zip(vectors, truncations, strict=True)
        ]

    def trial(self, truncation: Truncation, index: Hnsw, shorts: ShortVectors) -> IndexTrial | None:
        """Build and search the index of one candidate at several sizes; None where there was no time to."""
        if self.trial_table is None:
            return None
        candidate = truncation.candidate.with_index(index)
        queries = TrialQueries.of(candidate.definition, self.inputs.tuning)
        indexes: list[TriedIndex] = []
        timed: list[Timed] = []
        for sample in range(self.samples.largest_index, len(self.truths)):
            if indexes and self.budget.exhausted:
                break
            with ExitStack() as passing:
                self.report(f"trying {candidate.title}, {candidate.graph}", sample, len(self.truths))
                connection, rows = self.inputs.table.connection, shorts.part(sample)
                built = (passing if indexes else self.stack).enter_context(
                    build_trial(connection, self.trial_table, candidate, rows, self._patience())
                )
                if built is None:
                    continue
                scanned = ScannedIndex(self.inputs.table, candidate.definition, built.name)
                indexes.append(self._searched(truncation, built, scanned, sample, queries, indexes))
                if len(indexes) == 1:
                    self._scan_as_today(candidate, indexes[0])
                settings = self._settings(indexes[0])
                count = TIMED // 2 if len(indexes) > 1 else TIMED
                timed += time_trial(scanned, queries, settings, self.request.k, built.rows, count)
        return IndexTrial(truncation, candidate, indexes, timed) if indexes else None

    def time_together(self, trials: Sequence[IndexTrial]) -> None:
        """Take the times of all trials once more, in turns: what disturbs the machine then disturbs all alike."""
        searches: list[Callable[[int], BoundSearch]] = []
        settings: list[tuple[int, Timed]] = []
        for number, trial in enumerate(trials):
            scans = trial.indexes[0].scans
            for before in (before for before in trial.timed if before.rows == trial.indexes[0].rows):
                numbers = before.shortlist, before.ef_search, self.request.k
                searches.append(trial_search(scans.index, scans.queries, *numbers))
                settings.append((number, before))
        medians = time_searches(
            self.inputs.table, searches, min(TIMED, self.inputs.tuned), lambda *done: self.report(TIMING, *done)
        )
        for number, trial in enumerate(trials):
            base = trial.indexes[0].rows
            own = zip(settings, medians, strict=True)
            again = [before._replace(ms=ms) for (owner, before), ms in own if owner == number]
            trial.timed = [*again, *(before for before in trial.timed if before.rows != base)]
            trial.fit()

    def _searched(
        self,
        truncation: Truncation,
        built: BuiltIndex,
        scanned: ScannedIndex,
        sample: int,
        queries: TrialQueries,
        before: Sequence[TriedIndex],
    ) -> TriedIndex:
        truth = self.truths[sample].of_queries(slice(0, self.inputs.tuned))
        scans = IndexScans(scanned, queries, truth)
        index = TriedIndex(built.rows, truncation.ranks[sample], scans, built.index_bytes, built.seconds, sample)
        if before:
            known = sorted(before[0].scans.ranks)
            efs = sorted({known[round(place)] for place in np.linspace(0, len(known) - 1, SMALLER)})
            for ef in efs:
                scans.scan(min(ef, built.rows))
        else:
            self._climb(truncation, index)
        return index

    def _climb(self, truncation: Truncation, index: TriedIndex) -> None:
        """Raise ef_search until the target is reached with something to spare, for today's table."""
        most = self.request.max_shortlist
        first = truncation.needed(self.request.recall - BELOW, index.rows, EFS) or most
        # below as well: the models ask for what a larger table's setting is in this one
        efs = [ef for ef in EFS if max(self.request.k, first / 2) <= ef <= most] or [most]
        efs = sorted({*efs, most})
        enough = 1 - (1 - self.request.recall) / ENOUGH
        for number, ef in enumerate(efs):
            index.scans.scan(ef)
            self.report("searching", number, len(efs))
            recall = mean_interval(index.scans.per_query(ef, ef))
            stretched = self.inputs.rows > 1.5 * index.rows  # a larger table will need more than this one
            if number and reaches(recall, enough if not stretched else min(1.0, enough + (1 - enough) / 2)):
                break
            if self.budget.exhausted and number > 1 and ef != efs[-1]:
                index.scans.ended_at = ef
                name = f"{truncation.candidate.title}, {truncation.candidate.graph}"
                self.inputs.incomplete.append(f"time ran out at ef_search {ef} of {name}")
                break

    def _scan_as_today(self, candidate: Candidate, index: TriedIndex) -> None:
        """What searches of the column there is take now, beside what the target takes."""
        current = self.inputs.current
        if current is not None and current.candidate.same(candidate) and not self.budget.exhausted:
            index.scans.scan(current.scan.ef_search)

    def _settings(self, index: TriedIndex) -> list[tuple[int, int]]:
        """Shortlists and ef_search to take the time of: about where the target is reached."""
        efs = sorted(ef for ef in index.scans.ranks if ef <= self.request.max_shortlist)
        reaching = [ef for ef in efs if index.scans.per_query(ef, ef).mean() >= self.request.recall]
        middle = reaching[0] if reaching else efs[-1]
        low, high = max(self.request.k, middle // 2), min(self.request.max_shortlist, 2 * middle)
        short = max(self.request.k, low // 2)
        return sorted({(low, low), (middle, middle), (high, high), (low, high), (short, middle)})

    def _patience(self) -> float | None:
        left = self.budget.left
        return None if left is None else max(1.0, left / 2)

    # -- the column there is ---------------------------------------------------------------------------------------

    def existing(self, truncation: Truncation) -> IndexTrial | None:
        """The index of the column there is, as it is: where none can be built, it is all that can be tried."""
        current, table = self.inputs.current, self.inputs.table
        if current is None or current.index_bytes is None:
            return None
        definition = current.candidate.definition
        queries = TrialQueries.of(definition, self.inputs.tuning)
        scans = IndexScans(
            ScannedIndex(table, definition, table.name, definition.short_sql(table.full), trial=False),
            queries,
            self.truths[0].of_queries(slice(0, self.inputs.tuned)),
        )
        index = TriedIndex(self.inputs.rows, truncation.ranks[0], scans, current.index_bytes, None, 0)
        self._climb(truncation, index)
        self._scan_as_today(current.candidate, index)
        settings = self._settings(index)
        times = self.time_existing(settings, queries)
        timed = [Timed(self.inputs.rows, *setting, ms) for setting, ms in zip(settings, times, strict=True)]
        return IndexTrial(truncation, current.candidate, [index], timed)

    def time_existing(self, settings: Sequence[tuple[int, int]], queries: TrialQueries) -> list[float]:
        """The time of the statement that applications send."""
        searches = [self.application_search(queries, self.request.k, *setting) for setting in settings]
        return time_searches(self.inputs.table, searches, min(TIMED, len(queries)))

    def application_search(
        self, queries: TrialQueries, k: int, shortlist: int, ef_search: int
    ) -> Callable[[int], BoundSearch]:
        """The statement that applications send, for each query."""
        column = self.inputs.column
        keys = base_column(column).table.primary_key
        statement = search(select(*keys), column, queries.vectors[0], k=k, shortlist=shortlist, ef_search=ef_search)
        compiled = compile_sql(statement)  # of another query only the vectors differ

        def bound(number: int) -> BoundSearch:
            short, full = queries.short[number], queries.full[number]
            return compiled.text, {name: short if name.startswith("short_") else full for name in compiled.params}

        return bound


def _findable(candidate: Candidate, shorts: ShortVectors) -> ShortVectors:
    """Without the rows that the index would not hold: under cosine those whose short vector is zero."""
    if not candidate.definition.metric.normalise or candidate.type == "bit":
        return shorts
    return shorts.of_rows(np.asarray(shorts.vectors.any(axis=1)))
