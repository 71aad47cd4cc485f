"""Indexes of the most promising candidates, tried at several sizes."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from psycopg import Cursor
from psycopg.rows import tuple_row
from sqlalchemy import select

from pgmrl.measure.score import mean_interval, recall_at_k
from pgmrl.model.columns import base_column
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.search import search
from pgmrl.tune.choice import reaches
from pgmrl.tune.models import Timed
from pgmrl.tune.result import Check
from pgmrl.tune.scans import Asked, Index, Scans, time_searches, timed_trials, trial_search
from pgmrl.tune.trial import Graph, Option, Trial
from pgmrl.tune.trial_index import Shorts, stand_in
from pgmrl.tune.tuning_transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pgmrl.model.hnsw import Hnsw
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.scans import Search
    from pgmrl.tune.table_reader import Levels
    from pgmrl.tune.trial import Sweep
    from pgmrl.tune.trial_index import Built, Place
    from pgmrl.tune.truth import Truth
    from pgmrl.tune.tuning_inputs import Clock, Ground, Wanted

__all__ = ["TIMING", "Bench"]

EFS: Final = (1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000)
"""Values of ef_search that are tried, as far as needed."""

BELOW: Final = 0.1
"""The first of them is one whose exact shortlist is so far below the target: the front shows what less costs."""

SMALLER: Final = 5  # values of ef_search that are tried in smaller tables
TIMING: Final = "timing searches"
TIMED: Final = 120  # queries whose time is taken; in smaller tables half as many


@dataclass(slots=True)
class Bench:
    """Where indexes are tried. They stay until the stack is closed, for the check.

    Attributes:
        ground: what is tuned.
        wanted: what was asked for.
        clock: the time there is.
        truths: of all queries at each level.
        levels: the sizes.
        place: where tables for trials may be made; None for nowhere.
        stack: holds them.
        told: progress.
        untried: whether time ran out before all candidates had their turn.

    """

    ground: Ground
    wanted: Wanted
    clock: Clock
    truths: Sequence[Truth]
    levels: Levels
    place: Place | None
    stack: ExitStack
    told: Callable[[str, int, int], None]
    untried: bool = False

    # -- computed columns ------------------------------------------------------------------------------------------

    def collect(self, sweeps: Sequence[Sweep]) -> list[Shorts]:
        """The short vectors of the rows that indexes are tried on, by one pass over the table.

        They are kept in memory: at most `graph_rows` times the bytes of all finalists' short vectors.
        """
        places: list[NDArray[np.int64]] = []
        levels: list[NDArray[np.int64]] = []
        vectors: list[list[NDArray[Any]]] = [[] for _ in sweeps]
        done = 0
        with closing(self.ground.source.batches()) as batches:
            for batch in batches:
                level = self.levels.of(batch.places)
                among = level >= self.levels.graph
                places.append(batch.places[among])
                levels.append(level[among])
                for kept, sweep in zip(vectors, sweeps, strict=True):
                    kept.append(sweep.candidate.swept.shorten(batch.vectors[among]))
                done += len(batch.places)
                self.told("computing short vectors", done, self.truths[0].rows)
        every = Shorts(np.concatenate(places), np.concatenate(levels), np.empty(0))
        return [
            _findable(sweep.candidate, every, np.concatenate(kept)) for kept, sweep in zip(vectors, sweeps, strict=True)
        ]

    def trial(self, sweep: Sweep, index: Hnsw, shorts: Shorts) -> Trial | None:
        """Build and search the index of one candidate at several sizes; None where there was no time to."""
        if self.place is None:
            return None
        candidate = sweep.candidate.with_index(index)
        asked = Asked.of(candidate.definition, self.ground.tuning)
        graphs: list[Graph] = []
        timed: list[Timed] = []
        for level in range(self.levels.graph, len(self.truths)):
            if graphs and self.clock.over:
                break
            with ExitStack() as passing:
                self.told(f"trying {candidate.title}, {candidate.graph}", level, len(self.truths))
                built = (passing if graphs else self.stack).enter_context(
                    stand_in(self.ground.source.connection, self.place, candidate, shorts.part(level), self._patience())
                )
                if built is None:
                    continue
                scanned = Index(self.ground.source, candidate.definition, built.name)
                graphs.append(self._graph(sweep, built, scanned, level, asked, graphs))
                if len(graphs) == 1:
                    self._ask_as_today(candidate, graphs[0])
                settings = self._settings(graphs[0])
                count = TIMED // 2 if len(graphs) > 1 else TIMED
                timed += timed_trials(scanned, asked, settings, self.wanted.k, built.rows, count)
        return Trial(sweep, candidate, graphs, timed) if graphs else None

    def time_together(self, trials: Sequence[Trial]) -> None:
        """Take the times of all trials once more, in turns: what disturbs the machine then disturbs all alike."""
        searches: list[Callable[[int], Search]] = []
        settings: list[tuple[int, Timed]] = []
        for number, trial in enumerate(trials):
            scans = trial.graphs[0].scans
            for one in (one for one in trial.timed if one.rows == trial.graphs[0].rows):
                searches.append(trial_search(scans.index, scans.asked, one.shortlist, one.ef_search, self.wanted.k))
                settings.append((number, one))
        found = time_searches(
            self.ground.source, searches, min(TIMED, self.ground.tuned), lambda *done: self.told(TIMING, *done)
        )
        for number, trial in enumerate(trials):
            base = trial.graphs[0].rows
            mine = zip(settings, found, strict=True)
            again = [one._replace(ms=ms) for (owner, one), ms in mine if owner == number]
            trial.timed = [*again, *(one for one in trial.timed if one.rows != base)]
            trial.fit()

    def _graph(
        self, sweep: Sweep, built: Built, scanned: Index, level: int, asked: Asked, before: Sequence[Graph]
    ) -> Graph:
        truth = self.truths[level].of_queries(slice(0, self.ground.tuned))
        scans = Scans(scanned, asked, truth)
        graph = Graph(built.rows, sweep.ranks[level], scans, built.index_bytes, built.seconds, level)
        if before:
            known = sorted(before[0].scans.found)
            efs = sorted({known[round(one)] for one in np.linspace(0, len(known) - 1, SMALLER)})
            for ef in efs:
                scans.scan(min(ef, built.rows))
        else:
            self._climb(sweep, graph)
        return graph

    def _climb(self, sweep: Sweep, graph: Graph) -> None:
        """Raise ef_search until the target is reached with something to spare, for today's table."""
        most = self.wanted.max_shortlist
        first = sweep.needed(self.wanted.recall - BELOW, graph.rows, EFS) or most
        # below as well: the models ask for what a larger table's setting is in this one
        efs = [ef for ef in EFS if max(self.wanted.k, first / 2) <= ef <= most] or [most]
        efs = sorted({*efs, most})
        enough = 1 - (1 - self.wanted.recall) / STEPS_BELOW
        for number, ef in enumerate(efs):
            graph.scans.scan(ef)
            self.told("searching", number, len(efs))
            reached = mean_interval(graph.scans.per_query(ef, ef))
            stretched = self.ground.rows > 1.5 * graph.rows  # a larger table will need more than this one
            if number and reaches(reached, enough if not stretched else min(1.0, enough + (1 - enough) / 2)):
                break
            if self.clock.over and number > 1 and ef != efs[-1]:
                graph.scans.ended_at = ef
                name = f"{sweep.candidate.title}, {sweep.candidate.graph}"
                self.ground.incomplete.append(f"time ran out at ef_search {ef} of {name}")
                break

    def _ask_as_today(self, candidate: Candidate, graph: Graph) -> None:
        """What searches of the column there is take now, beside what the target takes."""
        current = self.ground.current
        if current is not None and current.candidate.same(candidate) and not self.clock.over:
            graph.scans.scan(current.scan.ef_search)

    def _settings(self, graph: Graph) -> list[tuple[int, int]]:
        """Shortlists and ef_search to take the time of: about where the target is reached."""
        efs = sorted(ef for ef in graph.scans.found if ef <= self.wanted.max_shortlist)
        wanted = [ef for ef in efs if graph.scans.per_query(ef, ef).mean() >= self.wanted.recall]
        middle = wanted[0] if wanted else efs[-1]
        low, high = max(self.wanted.k, middle // 2), min(self.wanted.max_shortlist, 2 * middle)
        short = max(self.wanted.k, low // 2)
        return sorted({(low, low), (middle, middle), (high, high), (low, high), (short, middle)})

    def _patience(self) -> float | None:
        left = self.clock.left
        return None if left is None else max(1.0, left / 2)

    # -- the column there is ---------------------------------------------------------------------------------------

    def existing(self, sweep: Sweep) -> Trial | None:
        """The index of the column there is, as it is: where none can be built, it is all that can be tried."""
        current, source = self.ground.current, self.ground.source
        if current is None or current.index_bytes is None:
            return None
        definition = current.candidate.definition
        asked = Asked.of(definition, self.ground.tuning)
        scanned = Index(source, definition, source.name, current.short, trial=False)
        truth = self.truths[0].of_queries(slice(0, self.ground.tuned))
        graph = Graph(self.ground.rows, sweep.ranks[0], Scans(scanned, asked, truth), current.index_bytes, None, 0)
        self._climb(sweep, graph)
        self._ask_as_today(current.candidate, graph)
        settings = self._settings(graph)
        times = self.time_existing(settings, asked)
        timed = [Timed(self.ground.rows, *setting, ms) for setting, ms in zip(settings, times, strict=True)]
        return Trial(sweep, current.candidate, [graph], timed)

    def time_existing(self, settings: Sequence[tuple[int, int]], asked: Asked) -> list[float]:
        """The time of the statement that applications send."""
        searches = [self._search(asked, self.wanted.k, *setting) for setting in settings]
        return time_searches(self.ground.source, searches, min(TIMED, len(asked)))

    def _search(self, asked: Asked, k: int, shortlist: int, ef_search: int) -> Callable[[int], Search]:
        """The statement that applications send, for each query."""
        column = self.ground.column
        keys = base_column(column).table.primary_key
        statement = search(select(*keys), column, asked.vectors[0], k=k, shortlist=shortlist, ef_search=ef_search)
        sent = compile_sql(statement)  # of another query only the vectors differ

        def one(number: int) -> Search:
            short, full = asked.short[number], asked.full[number]
            return sent.text, {name: short if name.startswith("short_") else full for name in sent.params}

        return one

    # -- the check -------------------------------------------------------------------------------------------------

    def check(self, trial: Trial, option: Option) -> Check | None:
        """The setting, with the queries that it was not chosen by."""
        ground = self.ground
        if not len(ground.checking):
            return None
        base = trial.graphs[0]
        index, rows = base.scans.index, base.rows
        asked = Asked.of(trial.candidate.definition, ground.checking)
        scans = Scans(index, asked, self.truths[base.level].of_queries(slice(ground.tuned, None)))
        ef, shortlist = option.ef_search, option.shortlist
        scans.scan(ef)
        if index.trial:
            ms = timed_trials(index, asked, [(shortlist, ef)], self.wanted.k, rows, 2 * TIMED)[0].ms
            what = f"a trial index of {rows:,} rows"
        else:
            ms = self.time_existing([(shortlist, ef)], asked)[0]
            what = "the index there is"
        return Check(
            what,
            len(asked),
            trial.recall(shortlist, ef, rows).mean,
            mean_interval(scans.per_query(shortlist, ef)),
            trial.latency_ms(shortlist, ef, rows),
            ms,
        )

    def check_column(self, trial: Trial, option: Option) -> Check | None:
        """The same through the column there is, by the statement that applications send.

        Queries that are rows of the table are in its index: they are not counted, and found a little more easily than
        others would be.
        """
        ground, truth = self.ground, self.truths[0].of_queries(slice(self.ground.tuned, None))
        if not len(ground.checking) or ground.source.percent < 100:
            return None
        keys = {tuple(key) for key in ground.asked.keys or ()}
        more = 0 if not keys else 2 + 2 * round(self.wanted.k * len(keys) / max(1, ground.rows))
        shortlist, ef = option.shortlist, option.ef_search
        asked = Asked.of(trial.candidate.definition, ground.checking)
        searched = self._search(asked, min(shortlist, self.wanted.k + more), shortlist, ef)
        recalls = []
        with Cursor(driver_of(ground.source.connection), row_factory=tuple_row) as cursor:
            for number in range(len(asked)):
                statement, given = searched(number)
                rows = cursor.execute(statement.encode(), given).fetchall()
                found = [float(row[-1]) for row in rows if tuple(row[:-1]) not in keys][: self.wanted.k]
                recalls.append(recall_at_k(found, truth.distances[number, : truth.wanted].tolist()))
                self.told("checking the column", number, len(asked))
        return Check(
            "the column there is",
            len(recalls),
            trial.recall(shortlist, ef, ground.rows).mean,
            mean_interval(recalls),
            trial.latency_ms(shortlist, ef, ground.rows),
            self.time_existing([(shortlist, ef)], asked)[0],
        )


STEPS_BELOW: Final = 4  # ef_search is raised until a fourth of the loss that is allowed is left


def _findable(candidate: Candidate, every: Shorts, vectors: NDArray[Any]) -> Shorts:
    """Without the rows that the index would not hold: under cosine those whose short vector is zero."""
    if not candidate.definition.metric.normalise or candidate.type == "bit":
        return Shorts(every.places, every.levels, vectors)
    held = vectors.any(axis=1)
    return Shorts(every.places[held], every.levels[held], vectors[held])
