"""Indexes of the most promising candidates, tried at several sizes."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import select

from pgmrl.measure.intervals import mean_interval
from pgmrl.model.columns import base_column
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.search import search
from pgmrl.tune.growth_models import Timed, build_growth
from pgmrl.tune.index_scans import IndexScans, ScannedIndex, TrialQueries
from pgmrl.tune.index_trial import IndexTrial, TriedIndex
from pgmrl.tune.search_timing import time_searches, time_trial, trial_search
from pgmrl.tune.selection import reaches
from pgmrl.tune.trial_table import ShortVectors, build_trial
from pgmrl.tune.truncation import moved

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

MUCH_SMALLER: Final = 0.8
"""A part of the table with more of its rows says nothing beside the whole."""

SMALLER: Final = 5
"""Values of ef_search that are tried in smaller tables."""

TIMING: Final = "timing searches"
SCANNED: Final = 300
"""Queries that scan indexes: what a scan loses of the exact shortlist differs little from query to query."""

LEAST: Final = 0.1
"""Of all the time, so much a build may take however little is left."""

EXISTING: Final = 0.25
"""Of the time that is left, so much may be spent on the index there is."""

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
        full: the full vectors of the rows that indexes are tried on, for an index on those; None for no such trial.

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
    full: ShortVectors | None = None

    @property
    def scanning(self) -> NDArray[np.float32]:
        """The queries that scan indexes, of those that choose."""
        return self.inputs.tuning[:SCANNED]

    # -- computed columns ------------------------------------------------------------------------------------------

    def collect(self, candidates: Sequence[Candidate]) -> list[ShortVectors]:
        """The short vectors of the rows that indexes are tried on, by one pass over the table.

        They are kept in memory: at most `graph_rows` times the bytes of all finalists' short vectors.
        """
        places: list[NDArray[np.int64]] = []
        samples: list[NDArray[np.int64]] = []
        vectors: list[list[NDArray[Any]]] = [[] for _ in candidates]
        done = 0
        with closing(self.inputs.table.batches()) as batches:
            for batch in batches:
                smallest = self.samples.of(batch.ids)
                among = smallest >= self.samples.largest_index
                places.append(batch.ids[among])
                samples.append(smallest[among])
                for kept, candidate in zip(vectors, candidates, strict=True):
                    kept.append(candidate.swept.shorten(batch.vectors[among]))
                done += len(batch)
                self.report("computing short vectors", done, self.truths[0].rows)
        rows = np.concatenate(places), np.concatenate(samples)
        return [
            _findable(candidate, ShortVectors(*rows, np.concatenate(kept)))
            for kept, candidate in zip(vectors, candidates, strict=True)
        ]

    def trial(self, truncation: Truncation, index: Hnsw, shorts: ShortVectors) -> IndexTrial | None:
        """Build and search the index of one candidate at several sizes; None where there was no time to."""
        candidate = truncation.candidate.with_index(index)
        indexes, timed = self._tried(truncation, candidate, shorts, [])
        return IndexTrial(truncation, candidate, indexes, timed) if indexes else None

    def try_smaller(self, existing: IndexTrial, shorts: ShortVectors) -> None:
        """Build the index there is at smaller sizes: how what it loses grows with the table."""
        indexes, timed = self._tried(existing.truncation, existing.candidate, shorts, existing.indexes)
        existing.indexes, existing.timed = indexes, [*existing.timed, *timed]
        existing.fit()

    def _tried(
        self, truncation: Truncation, candidate: Candidate, shorts: ShortVectors, existing: list[TriedIndex]
    ) -> tuple[list[TriedIndex], list[Timed]]:
        """The indexes of a candidate at several sizes, below those there are, and times of searches."""
        indexes, timed = list(existing), list[Timed]()
        if self.trial_table is None:
            return indexes, timed
        queries = TrialQueries.of(candidate.definition, self.scanning)
        for sample in self._sizes(candidate, shorts, existing):
            if indexes and self.budget.exhausted:
                break
            with ExitStack() as passing:
                self.report(f"trying {candidate.title}, {candidate.graph}", sample, len(self.truths))
                connection, rows = self.inputs.table.connection, shorts.part(sample)
                built = (passing if indexes else self.stack).enter_context(
                    build_trial(connection, self.trial_table, candidate, rows, self.patience())
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
        return indexes, timed

    def _sizes(self, candidate: Candidate, shorts: ShortVectors, existing: Sequence[TriedIndex]) -> list[int]:
        """The parts of the table to try, the largest first: without those whose build would take too long."""
        samples = [
            sample
            for sample in range(self.samples.largest_index, len(self.truths))
            if not existing or self.truths[sample].rows < MUCH_SMALLER * existing[0].rows
        ]
        patience = self.patience()
        if patience is None or len(samples) < 2 or self.trial_table is None:
            return samples
        rows = shorts.part(samples[-1])
        with build_trial(self.inputs.table.connection, self.trial_table, candidate, rows, patience) as built:
            if built is None:
                return samples[-1:]
        affordable = [
            sample
            for sample in samples
            if built.seconds * build_growth(built.rows, self.truths[sample].rows) <= patience
        ]
        return affordable or samples[-1:]

    def time_together(self, trials: Sequence[IndexTrial]) -> None:
        """Take the times of all trials once more, in turns: what disturbs the machine then disturbs all alike."""
        searches: list[Callable[[int], BoundSearch]] = []
        settings: list[tuple[int, Timed]] = []
        for number, trial in enumerate(trials):
            for before in (before for before in trial.timed if before.rows == trial.indexes[0].rows):
                searches.append(self.timed_search(trial, before.shortlist, before.ef_search))
                settings.append((number, before))
        medians = time_searches(
            self.inputs.table,
            searches,
            min(TIMED, len(self.scanning)),
            lambda *done: self.report(TIMING, *done),
            self.budget.left,
        )
        for number, trial in enumerate(trials):
            base = trial.indexes[0].rows
            own = zip(settings, medians, strict=True)
            again = [before._replace(ms=ms) for (owner, before), ms in own if owner == number]
            trial.timed = [*again, *(before for before in trial.timed if before.rows != base)]
            trial.fit()

    def timed_search(self, trial: IndexTrial, shortlist: int, ef_search: int) -> Callable[[int], BoundSearch]:
        """A whole search through the largest index of a trial."""
        scans = trial.indexes[0].scans
        if scans.index.trial:
            return trial_search(scans.index, scans.queries, shortlist, ef_search, self.request.k)
        return self.application_search(scans.queries, self.request.k, shortlist, ef_search)

    def _searched(
        self,
        truncation: Truncation,
        built: BuiltIndex,
        scanned: ScannedIndex,
        sample: int,
        queries: TrialQueries,
        before: Sequence[TriedIndex],
    ) -> TriedIndex:
        truth = self.truths[sample].of_queries(slice(0, len(queries)))
        scans = IndexScans(scanned, queries, truth)
        index = TriedIndex(built.rows, truncation.ranks[sample], scans, built.index_bytes, built.seconds, sample)
        if before:
            known = sorted(before[0].scans.ranks)
            efs = sorted({known[round(place)] for place in np.linspace(0, len(known) - 1, SMALLER)})
            for ef in efs:
                scans.scan(min(ef, built.rows))
        else:
            self._climb(truncation, index, None)
        return index

    def _climb(self, truncation: Truncation, index: TriedIndex, share: float | None) -> None:
        """Raise ef_search until the target is reached with something to spare, for today's table.

        Args:
            truncation: of the candidate.
            index: to scan.
            share: of the time that is left; None for all of it.

        """
        most, left, begun = self.request.max_shortlist, self.budget.left, time.monotonic()
        end = None if left is None else begun + left * (share or 1.0)
        first = truncation.needed(self.request.recall - BELOW, index.rows, EFS) or most
        # below as well: the models ask for what a larger table's setting is in this one
        efs = [ef for ef in EFS if max(self.request.k, first / 2) <= ef <= most] or [most]
        efs = sorted({*efs, most})
        if not index.scans.index.trial and truncation.needed(self.request.recall, index.rows, [most]) is None:
            efs = [most]  # the index there is cannot reach it
        enough = 1 - (1 - self.request.recall) / ENOUGH
        for number, ef in enumerate(efs):
            index.scans.scan(ef)
            self.report("searching", number, len(efs))
            recall = moved(mean_interval(index.ranks.per_query(ef)), index.recall(ef, ef))
            stretched = self.inputs.rows > 1.5 * index.rows  # a larger table will need more than this one
            if number and reaches(recall, enough if not stretched else min(1.0, enough + (1 - enough) / 2)):
                break
            over = self.budget.exhausted or (end is not None and time.monotonic() > end)
            if over and number > 1 and ef != efs[-1]:
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
        reaching = [ef for ef in efs if index.recall(ef, ef) >= self.request.recall]
        middle = reaching[0] if reaching else efs[-1]
        low, high = max(self.request.k, middle // 2), min(self.request.max_shortlist, 2 * middle)
        short = max(self.request.k, low // 2)
        return sorted({(low, low), (middle, middle), (high, high), (low, high), (short, middle)})

    def patience(self) -> float | None:
        """Seconds after which a build is given up; None for no limit."""
        left = self.budget.left
        return None if left is None else max(1.0, left / 2, LEAST * (self.budget.seconds or 0.0))

    # -- the column there is ---------------------------------------------------------------------------------------

    def existing(self, truncation: Truncation) -> IndexTrial | None:
        """The index of the column there is, as it is: nothing is extrapolated to the table's size."""
        current, table = self.inputs.current, self.inputs.table
        if current is None or current.index_bytes is None:
            return None
        definition = current.candidate.definition
        queries = TrialQueries.of(definition, self.scanning)
        scans = IndexScans(
            ScannedIndex(table, definition, table.name, definition.short_sql(table.full), trial=False),
            queries,
            self.truths[0].of_queries(slice(0, len(queries))),
        )
        index = TriedIndex(self.inputs.rows, truncation.ranks[0], scans, current.index_bytes, None, 0)
        self.report("searching the index there is", 0, 1)
        self._scan_as_today(current.candidate, index)
        self._climb(truncation, index, EXISTING if self.trial_table is not None else None)
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
