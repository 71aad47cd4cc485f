"""Evaluate the ways to search one column with judged queries."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.errors import MeasureError, RotationError, SearchError
from pgmrl.evaluation.compare import difference, mean_of
from pgmrl.evaluation.documents import documents_of
from pgmrl.evaluation.evaluation import (
    EXACT,
    HYBRID,
    SHORT_ONLY,
    TWO_STAGE,
    WORDS,
    AtDims,
    Evaluation,
    System,
    WorstQuery,
)
from pgmrl.evaluation.exact_rankings import read_rankings
from pgmrl.evaluation.judged import Judged
from pgmrl.evaluation.judged_queries import JudgedQueries
from pgmrl.evaluation.measures import DEFAULT, Measure, Scorer, parsed
from pgmrl.evaluation.runs import RankedRuns, Run, ServerSearches, WordsColumn
from pgmrl.evaluation.short_candidates import ShortCandidate, short_candidates
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.session import CANCELLED, CONFLICT, ended_by_standby, measuring
from pgmrl.model.argument_types import callable_argument, choice, optional_name, truth_value, whole_number
from pgmrl.model.columns import attachment_of
from pgmrl.model.fulltext import Match
from pgmrl.model.rotation import Rotation
from pgmrl.model.server_names import server_name
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_seconds, positive_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.embedders import Embedder

__all__ = ["evaluate"]

ORDER: Final = (EXACT, TWO_STAGE, SHORT_ONLY, WORDS, HYBRID)
READING: Final = 0.7  # of the seconds; the rest is for searches
WORST: Final = 10


def evaluate(
    connection: Connection | Session,
    column: Any,
    judged: Judged,
    *,
    measures: Sequence[str] = DEFAULT,
    embedder: Embedder | None = None,
    document_id: str | None = None,
    shortlist: int | None = None,
    ef_search: int | None = None,
    dims: Sequence[int] | None = None,
    rotation: Rotation | None = None,
    words: str | None = None,
    match: Match = "all",
    config: str | None = None,
    itself: bool = True,
    limit_queries: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    on_estimate: Callable[[float], None] | None = None,
) -> Evaluation:
    """Judge the ways to search a column: exactly, by short vectors alone, in two stages, by words, by both.

    Reads only. One pass over the table gives the exact rankings, by full vectors and by short ones of several sizes
    (10 million rows of 768 dimensions in half precision are 15 GB to read); two stages, words and hybrid are the
    statements that an application would send. All in one transaction, by one snapshot of the table, unless the
    connection is in a transaction already.

    A measure with a cutoff, as `nDCG@10`, is taken of a search for so many rows (k=10), one without, as `AP`, of the
    first 100. Means are over queries, a query that finds nothing counts 0. As in trec_eval, documents that were not
    judged count as not relevant, and judged ones that the table does not have as not found. Of rows at the same
    distance the library's order holds, by key.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        judged: queries and judgements: `file_judgements(...)`, `beir_judgements(...)`, `selected_judgements(...)`.
        measures: as ir-measures names them; the first one decides on the worst queries.
        embedder: the model the table was embedded with, for queries without a vector.
        document_id: the column by which judgements name documents, unique; default the primary key.
        shortlist: rows that two-stage searches rank exactly; default as `search`, by what a measure looks at.
        ef_search: as `search`.
        dims: short dimensions to try without a column; default powers of two from 16, and those of the column. Empty
            for those of the column alone.
        rotation: the axes to try beside leading dimensions, with their values; default those of the column, if any.
        words: a `tsvector` column of the table, to compare with full-text search and hybrid search.
        match: as `Words`.
        config: as `Words`; default what the column is made with.
        itself: False where documents serve as queries: leave out a document with the id of the query.
        limit_queries: score a random sample of so many queries.
        seconds: take about so long at most: score fewer queries, in random order, where that is not enough for all.
        seed: of the random order.
        progress: called with what is being done, how far it is, and how far it goes.
        on_estimate: called once, near the beginning, with about how many seconds it will take.

    Raises:
        MeasureError: an unknown measure or column, an extra that is not installed, more than half of the judged
            documents unknown, queries that cannot be searched with, no rows, or too few seconds.
        VectorError: vectors of other dimensions than the column.
        SearchError: numbers out of range.
        DefinitionError: it is no Matryoshka column, or `words` is no `tsvector`.
        RotationError: the column's rotation is not installed, or `rotation` is of other dimensions.

    """
    started = monotonic()
    chosen = parsed(measures)
    limit_queries, seconds, seed = _checked_limits(limit_queries, seconds, seed)
    if not isinstance(judged, Judged):
        raise MeasureError(
            f"judged={safe_repr(judged)}: expected judgements, such as file_judgements(...) or beir_judgements(...)"
        )
    if rotation is not None and not isinstance(rotation, Rotation):
        raise RotationError(f"rotation={safe_repr(rotation)}: expected a Rotation with its axes, or None")
    for name, value in (("document_id", document_id), ("words", words), ("config", config)):
        optional_name(name, value, MeasureError)
    choice("match", match, get_args(Match), SearchError)
    itself = truth_value("itself", itself, MeasureError)
    callable_argument("progress", progress, MeasureError)
    callable_argument("on_estimate", on_estimate, MeasureError)
    ef_search = None if ef_search is None else whole_number("ef_search", ef_search, SearchError, 1, EF_SEARCH_LIMIT)
    shortlist = None if shortlist is None else positive_integer("shortlist", shortlist)
    report = progress or _silent
    connection = database.sqlalchemy_connection(connection)
    with _explained_errors(seconds), measuring(connection, seconds=seconds, parallel=None):
        documents = documents_of(connection, column, document_id)
        table = documents.column.table
        words_column = None if words is None else WordsColumn.of(table, words, match, config)
        searches = ServerSearches(connection, documents, shortlist, ef_search, itself, words_column)
        candidates = short_candidates(connection, documents.column, dims, rotation)
        notes = searches.checked(sorted({measure.depth for measure in chosen}))
        limits = limit_queries, seconds, seed
        queries = JudgedQueries.of(judged, documents.column, embedder, words is not None, *limits, report)
        queries.check_documents(documents.known(connection, queries.judged_documents))
        queries.notes.extend(notes)
        runs = _Runs(searches, queries, chosen, candidates, started, seconds, on_estimate)
        runs.all(report)
    return runs.evaluation(judged.source, started)


# -- what is compared --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Runs:
    """The runs of all systems.

    Attributes:
        searches: on the server.
        judged: queries.
        measures: to compute.
        candidates: short vectors that are computed.
        started: by `time.monotonic`.
        seconds: there are; None for no limit.
        on_estimate: is told how long all takes; None where nobody is, or was told.
        systems: runs by the system's name.
        tried: runs of each candidate: by short vectors alone, and in two stages.
        rows: rows with a vector.

    """

    searches: ServerSearches
    judged: JudgedQueries
    measures: list[Measure]
    candidates: list[ShortCandidate]
    started: float
    seconds: float | None
    on_estimate: Callable[[float], None] | None
    systems: dict[str, Run] = field(default_factory=dict)
    tried: list[tuple[Run, Run]] = field(default_factory=list)
    rows: int = 0

    @property
    def depths(self) -> list[int]:
        return sorted({measure.depth for measure in self.measures})

    def all(self, report: Callable[[str, int, int], None]) -> None:
        """Run everything."""
        seconds = self.seconds
        self._read(None if seconds is None else self.started + READING * seconds, report)
        self._search(None if seconds is None else self.started + seconds, report)

    def _read(self, deadline: float | None, report: Callable[[str, int, int], None]) -> None:
        searches, connection = self.searches, self.searches.connection
        table = searches.documents.column.table
        expected = database.row_estimate(connection, server_name(connection, table)) or 0.0
        searching = 0.0 if self.on_estimate is None else self._searching_seconds()
        began = monotonic()

        def read(done: int) -> None:
            report("reading the table", done, max(done, int(expected)))
            if self.on_estimate is not None:
                reading = (monotonic() - began) * max(1.0, expected / max(1, done))
                whole = began - self.started + reading + searching
                self.on_estimate(whole if self.seconds is None else min(whole, self.seconds))
                self.on_estimate = None

        with closing(searches.documents.batches(connection, len(self.judged.vectors))) as batches:
            rankings = read_rankings(
                batches,
                attachment_of(searches.documents.column).definition,
                self.judged.vectors,
                [candidate.definition for candidate in self.candidates],
                depth=max(map(searches.rows_to_rank, self.depths)),
                shortlist=max(map(searches.size, self.depths)),
                expected=expected,
                deadline=deadline,
                progress=read,
            )
        self.rows = rankings.rows
        self._cut(rankings.queries)
        ranked = RankedRuns.of(self.judged.queries, rankings, searches)
        self.systems[EXACT] = ranked.exact(self.depths)
        self.tried = [
            (ranked.short_only(number, self.depths), ranked.two_stage(number, self.depths))
            for number in range(len(self.candidates))
        ]
        if self.searches.learned:
            self.systems[SHORT_ONLY] = self.tried[0][0]

    def _searching_seconds(self) -> float:
        """About how long the searches take, by those of the first query."""
        query, vector = self.judged.queries[0], self.judged.vectors[0]
        pairs = [(build, depth) for build in self.searches.builders.values() for depth in self.depths]
        for build, depth in pairs:  # compiled, and files opened
            self.searches.documents_found(build, query, vector, depth)
        began = monotonic()
        for build, depth in pairs:
            self.searches.documents_found(build, query, vector, depth)
        return (monotonic() - began) * len(self.judged.queries)

    def _search(self, deadline: float | None, report: Callable[[str, int, int], None]) -> None:
        builders = self.searches.builders
        self.systems |= {name: {depth: {} for depth in self.depths} for name in builders}
        count = len(self.judged.queries) if builders else 0
        for number, (query, vector) in enumerate(zip(self.judged.queries, self.judged.vectors, strict=True), 1):
            if number > count:
                break
            if deadline is not None and number > 1 and monotonic() > deadline:
                self._cut(number - 1)
                break
            for name, build in builders.items():
                for depth in self.depths:
                    documents = self.searches.documents_found(build, query, vector, depth)
                    self.systems[name][depth][query.id] = documents
            report("searching", number, count)

    def _cut(self, count: int) -> None:
        """Score the first so many queries alone."""
        judged, before = self.judged, len(self.judged.queries)
        if count < before:
            judged.notes.append(f"The time was enough for {count:,} of {before:,} queries, chosen at random.")
            judged.queries, judged.vectors = judged.queries[:count], judged.vectors[:count]
            judged.relevance = {query.id: judged.relevance[query.id] for query in judged.queries}

    # -- what comes out --------------------------------------------------------------------------------------------

    def evaluation(self, source: str, started: float) -> Evaluation:
        """Everything scored."""
        judged, searches = self.judged, self.searches
        scorer = Scorer(self.measures, judged.relevance)
        values = {name: scorer.values(run) for name, run in self.systems.items()}
        exact = values[EXACT]
        return Evaluation(
            column=str(searches.documents.column),
            source=source,
            measures=[measure.name for measure in self.measures],
            queries=[query.id for query in judged.queries],
            rows=self.rows,
            judged=sum(map(len, judged.relevance.values())),
            shortlists={depth: searches.size(depth) for depth in self.depths},
            ef_search=searches.ef_search,
            systems=[_system(name, values[name], exact) for name in ORDER if name in values],
            dims=list(self._dims(scorer, {name: float(own.mean()) for name, own in exact.items()})),
            worst=self._worst(exact, values[TWO_STAGE]) if self.searches.learned else [],
            warnings=judged.notes,
            seconds=monotonic() - started,
        )

    def _dims(self, scorer: Scorer, exact: Mapping[str, float]) -> Iterator[AtDims]:
        pairs = sorted(zip(self.candidates, self.tried, strict=True), key=lambda pair: pair[0].order)
        for candidate, runs in pairs:
            short, both = ({name: float(values.mean()) for name, values in scorer.values(run).items()} for run in runs)
            kept = {name: both[name] / whole if whole else None for name, whole in exact.items()}
            yield AtDims(candidate.by, candidate.definition.short.dims, short, both, kept)

    def _worst(
        self, exact: Mapping[str, NDArray[np.float64]], both: Mapping[str, NDArray[np.float64]]
    ) -> list[WorstQuery]:
        first = self.measures[0]
        differences = both[first.name] - exact[first.name]
        worst = []
        for place in np.argsort(differences, kind="stable")[:WORST].tolist():
            if differences[place] >= 0:
                break
            query = self.judged.queries[place]
            grades = self.judged.relevance[query.id]
            there = set(self.systems[TWO_STAGE][first.depth][query.id])
            lost = [
                name
                for name in self.systems[EXACT][first.depth][query.id]
                if grades.get(name, 0) > 0 and name not in there
            ]
            values = float(exact[first.name][place]), float(both[first.name][place])
            worst.append(WorstQuery(query.id, query.text, *values, lost))
        return worst


def _system(name: str, values: Mapping[str, NDArray[np.float64]], exact: Mapping[str, NDArray[np.float64]]) -> System:
    means = {measure: mean_of(own) for measure, own in values.items()}
    pairs = {} if name == EXACT else values
    differences = {measure: difference(own, exact[measure]) for measure, own in pairs.items()}
    return System(name, means, differences, values)


# -- small things --------------------------------------------------------------------------------------------------


def _checked_limits(queries: Any, seconds: Any, seed: Any) -> tuple[int | None, float | None, int]:
    return (
        None if queries is None else positive_integer("limit_queries", queries),
        None if seconds is None else check_seconds(seconds),
        whole_number("seed", seed, MeasureError, 0),
    )


@contextmanager
def _explained_errors(seconds: float | None) -> Iterator[None]:
    """What the server ends is an error with its remedy."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == CONFLICT:
            raise ended_by_standby() from error
        if sqlstate(error) == CANCELLED and seconds is not None:
            raise MeasureError(
                f"a single statement takes longer than {seconds:g} seconds: give more seconds"
            ) from error
        raise


def _silent(_what: str, _done: int, _total: int) -> None:
    pass
