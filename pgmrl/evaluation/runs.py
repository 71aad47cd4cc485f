"""Runs: for each query the documents that a system finds, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, select

from pgmrl.errors import MeasureError
from pgmrl.evaluation.evaluation import HYBRID, TWO_STAGE, WORDS
from pgmrl.evaluation.exact_rankings import RankedRows, ranked_rows
from pgmrl.evaluation.judged import Query
from pgmrl.limits import TEXT_LIMIT
from pgmrl.model.columns import attachment_of
from pgmrl.model.fulltext import config_of
from pgmrl.reprs import safe_repr
from pgmrl.searching.hybrid import search_hybrid
from pgmrl.searching.options import shortlist_size
from pgmrl.searching.plans import explained, index_serving
from pgmrl.searching.retrievers import Nearest, Words
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Connection

    from pgmrl.evaluation.documents import Documents
    from pgmrl.evaluation.exact_rankings import ExactRankings
    from pgmrl.measure.neighbour_lists import Neighbours
    from pgmrl.model.fulltext import Match

__all__ = ["RankedRuns", "Run", "ServerSearches", "StatementBuilder", "WordsColumn"]

Rows = NDArray[np.int64]
Vector = NDArray[np.float32]
Statement = Select[*tuple[Any, ...]]
StatementBuilder = Callable[[Query, Vector, int], Statement]
"""A statement for a query, its vector, and the rows that a measure looks at."""

Run = dict[int, dict[str, list[str]]]
"""By depth, by the query's id: documents, best first."""


@dataclass(frozen=True, slots=True)
class WordsColumn:
    """How words are searched.

    Attributes:
        column: the `tsvector`, of the same Table.
        match: as `Words`.
        config: as `Words`; None where the column was declared with one.

    """

    column: Column[Any]
    match: Match
    config: str | None

    @classmethod
    def of(cls, table: Any, name: str, match: Match, config: str | None) -> WordsColumn:
        """Of a column's name.

        Raises:
            MeasureError: there is no such column, or its configuration cannot be seen.
            DefinitionError: it is no `tsvector`.

        """
        if name not in table.c:
            raise MeasureError(
                f"{table.fullname} has no column {safe_repr(name)} of words: it has {', '.join(table.c.keys())}"
            )
        column = table.c[name]
        declared = config_of(column)
        if declared is None and config is None:
            raise MeasureError(
                f"{table.fullname}.{name} does not say its text search configuration: give config='english', or what "
                "it is made with"
            )
        # a declared column brings its own, and refuses another one
        return cls(column, match, config or declared)


@dataclass(frozen=True, slots=True)
class ServerSearches:
    """Searches of one column as an application sends them.

    Attributes:
        connection: of the database.
        documents: what is searched.
        shortlist: as in `search`; None for its default.
        ef_search: as in `search`.
        itself: whether a document with the query's own id may be found.
        words: None for none.

    """

    connection: Connection
    documents: Documents
    shortlist: int | None
    ef_search: int | None
    itself: bool
    words: WordsColumn | None

    def rows(self, depth: int) -> int:
        """Rows to ask two stages for: they come out of the shortlist."""
        rows = self.rows_to_rank(depth)
        return rows if self.shortlist is None else min(rows, self.shortlist)

    def size(self, depth: int) -> int:
        """Rows of the shortlist."""
        return shortlist_size(self.rows(depth), self.shortlist, None, self.documents.column)

    @property
    def learned(self) -> bool:
        """Whether there are short vectors to search through."""
        return attachment_of(self.documents.column).definition.learned

    @property
    def builders(self) -> dict[str, StatementBuilder]:
        """What builds the statement of each system that is searched on the server."""
        builders: dict[str, StatementBuilder] = {TWO_STAGE: self._two_stage} if self.learned else {}
        return builders if self.words is None else builders | {WORDS: self._words_alone, HYBRID: self._hybrid}

    def checked(self, depths: Iterable[int]) -> list[str]:
        """Have the server plan every statement once, so that it refuses what cannot be searched with.

        Args:
            depths: rows that measures look at, the fewest first.

        Returns:
            Notes for the reader.

        Raises:
            SearchError: numbers out of range, or words that are matched in an unknown way.
            DefinitionError: the words' column is none.

        """
        # neither a vector's nor a text's value changes what can be searched, or by which index
        query = Query("", "words", np.ones(attachment_of(self.documents.column).definition.dims, np.float32))
        served: dict[str, list[bool]] = {}
        for name, build in self.builders.items():
            plans = [explained(self.connection, build(query, query.vector, depth))["Plan"] for depth in depths]
            served[name] = [bool(index_serving(plan).indexes) for plan in plans]
        if TWO_STAGE not in served:
            return [f"The column has no short vectors: there is no search in {TWO_STAGE} to compare."]
        if served[TWO_STAGE][0]:
            return []
        note = (
            f"The planner does not use an index of the short vectors: `{TWO_STAGE}` has no loss by HNSW here (`pgmrl "
            "columns` shows whether there is one; a small table is read faster without)."
        )
        return [note]

    def documents_found(self, build: StatementBuilder, query: Query, vector: Vector, depth: int) -> list[str]:
        """The documents that the statement of one of `builders` returns."""
        rows = enumerate(self.connection.execute(build(query, vector, depth)))
        names = [row[0] if row[0] is not None else f"\0{place}" for place, row in rows]
        return _cut(names, query.id, depth, itself=self.itself)

    def _two_stage(self, _: Query, vector: Vector, depth: int) -> Statement:
        names = select(self.documents.name)
        return search(names, self.documents.column, vector, k=self.rows(depth), **self._numbers())

    def _words_alone(self, query: Query, _: Vector, depth: int) -> Statement:
        return search_hybrid(select(self.documents.name), [self._words(query)], k=self.rows_to_rank(depth))

    def _hybrid(self, query: Query, vector: Vector, depth: int) -> Statement:
        """By both, fused as it is by default."""
        near = Nearest(self.documents.column, vector, **self._numbers())
        return search_hybrid(select(self.documents.name), [near, self._words(query)], k=self.rows(depth))

    def _numbers(self) -> dict[str, Any]:
        return {"shortlist": self.shortlist, "ef_search": self.ef_search, "exact": not self.learned}

    def _words(self, query: Query) -> Words:
        assert self.words is not None  # noqa: S101 - who asks has them
        text = str(query.text)[:TEXT_LIMIT]
        return Words(self.words.column, text, match=self.words.match, config=self.words.config)

    def rows_to_rank(self, depth: int) -> int:
        """Rows to find, so that so many can be judged: one more where the query itself may be among them."""
        return depth if self.itself else depth + 1


# -- from the pass over the table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RankedRuns:
    """Runs of the exact rankings, from a pass over the table.

    Attributes:
        queries: those it was made for.
        rankings: that it found.
        tied: ids of documents that tie, ascending, shape (n,).
        places: of those in the order of the library, shape (n,).
        searches: the rows that are asked for, and the size of the shortlist.

    """

    queries: Sequence[Query]
    rankings: ExactRankings
    tied: Rows
    places: Rows
    searches: ServerSearches

    @classmethod
    def of(cls, queries: Sequence[Query], rankings: ExactRankings, searches: ServerSearches) -> RankedRuns:
        """Of a pass; asks the server for the order of documents that tie."""
        ids = [np.empty(0, np.int64)]
        for neighbours in (rankings.full, *rankings.short):
            for rows in ranked_rows(neighbours):
                for distances in (rows.near, rows.full):
                    _, place, counts = np.unique(distances, return_inverse=True, return_counts=True)
                    ids.append(rows.ids[counts[place] > 1])
        tied = np.unique(np.concatenate(ids))
        names = [rankings.names[row] for row in tied.tolist()]
        known = searches.documents.known(searches.connection, set(names))
        order = {name: place for place, name in enumerate(known)}
        places = np.array([order.get(name, len(order)) for name in names], np.int64)
        return cls(queries, rankings, tied, places, searches)

    def exact(self, depths: Iterable[int]) -> Run:
        """The ranking by full vectors."""
        return self._run(self.rankings.full, depths, lambda rows, _: self._order(rows.full, rows.ids))

    def short_only(self, number: int, depths: Iterable[int]) -> Run:
        """The ranking by the short vectors of one definition."""
        return self._run(self.rankings.short[number], depths, lambda rows, _: self._order(rows.near, rows.ids))

    def two_stage(self, number: int, depths: Iterable[int]) -> Run:
        """A shortlist by the short vectors of one definition, ranked by the full ones."""

        def ranked(rows: RankedRows, depth: int) -> Rows:
            listed = self._order(rows.near, rows.ids)[: self.searches.size(depth)]
            return listed[self._order(rows.full[listed], rows.ids[listed])[: self.searches.rows(depth)]]

        return self._run(self.rankings.short[number], depths, ranked)

    def _run(self, neighbours: Neighbours, depths: Iterable[int], ranked: Callable[[RankedRows, int], Rows]) -> Run:
        runs: Run = {depth: {} for depth in depths}
        for query, rows in zip(self.queries, ranked_rows(neighbours), strict=False):
            for depth, run in runs.items():
                first = rows.ids[ranked(rows, depth)[: depth + 1]]  # one of them may be the query itself
                names = [self.rankings.names[row] for row in first.tolist()]
                run[query.id] = _cut(names, query.id, depth, itself=self.searches.itself)
        return runs

    def _order(self, distances: Rows, rows: Rows) -> Rows:
        """Nearest first, and of the same distance as searches order them."""
        if not len(self.tied):
            return np.argsort(distances)
        place = np.minimum(np.searchsorted(self.tied, rows), len(self.tied) - 1)
        ties = np.where(self.tied[place] == rows, self.places[place], 0)
        return np.lexsort((ties, distances))


def _cut(names: list[str], query: str, depth: int, *, itself: bool) -> list[str]:
    """The documents that are judged."""
    return (names if itself else [name for name in names if name != query])[:depth]
