"""Runs: for each query the documents that a system finds, best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from pgmrl.asked import shortlist_size
from pgmrl.columns import attachment_of
from pgmrl.errors import MeasureError
from pgmrl.fulltext import config_of
from pgmrl.hybrid import search_hybrid
from pgmrl.limits import TEXT_LIMIT
from pgmrl.plans import explained, nodes, subplan
from pgmrl.retrievers import Nearest, Words
from pgmrl.search import search
from pgmrl.statement import SHORTLIST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column, Connection, Select

    from pgmrl.evaluate.documents import Documents
    from pgmrl.evaluate.judged import Query
    from pgmrl.evaluate.nearest import Lists, Pass
    from pgmrl.retrievers import Match

__all__ = ["Ranked", "Run", "Searches", "Wording"]

Rows = NDArray[np.int64]

Run = dict[int, dict[str, list[str]]]
"""By depth, by the query's id: documents, best first."""


@dataclass(frozen=True, slots=True)
class Wording:
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
    def of(cls, table: Any, name: str, match: Match, config: str | None) -> Wording:
        """Of a column's name.

        Raises:
            MeasureError: there is no such column, or its configuration cannot be seen.
            DefinitionError: it is no `tsvector`.

        """
        if name not in table.c:
            raise MeasureError(f"{table.fullname} has no column {name!r} of words: it has {', '.join(table.c.keys())}")
        column = table.c[name]
        made = config_of(column)
        if made is None and config is None:
            raise MeasureError(
                f"{table.fullname}.{name} does not say its text search configuration: give config='english', or what "
                "it is made with"
            )
        # a declared column brings its own, and refuses another one
        return cls(column, match, config or made)


@dataclass(frozen=True, slots=True)
class Searches:
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
    words: Wording | None

    def rows(self, depth: int) -> int:
        """Rows to ask two stages for: they come out of the shortlist."""
        wanted = self.wanted(depth)
        return wanted if self.shortlist is None else min(wanted, self.shortlist)

    def size(self, depth: int) -> int:
        """Rows of the shortlist."""
        return shortlist_size(self.rows(depth), self.shortlist, None, self.documents.column)

    def two_stage(self, query: Query, vector: NDArray[np.float32], depth: int) -> list[str]:
        """What `search` finds."""
        return self._found(self._searched(vector, depth), query, depth)

    def words_alone(self, query: Query, _: NDArray[np.float32], depth: int) -> list[str]:
        """What full-text search finds."""
        statement = search_hybrid(select(self.documents.name), [self._words(query)], k=self.wanted(depth))
        return self._found(statement, query, depth)

    def hybrid(self, query: Query, vector: NDArray[np.float32], depth: int) -> list[str]:
        """What `search_hybrid` finds by both, fused as it does by default."""
        near = Nearest(self.documents.column, vector, **self._numbers())
        statement = search_hybrid(select(self.documents.name), [near, self._words(query)], k=self.rows(depth))
        return self._found(statement, query, depth)

    def uses_index(self, vector: NDArray[np.float32], depth: int) -> bool:
        """Whether the planner takes the shortlist from an index that orders by distance."""
        plan = explained(self.connection, self._searched(vector, depth))["Plan"]
        shortlist = subplan(plan, SHORTLIST)
        return shortlist is not None and any("Order By" in node for node in nodes(shortlist))

    def _searched(self, vector: NDArray[np.float32], depth: int) -> Select[*tuple[Any, ...]]:
        found = select(self.documents.name)
        return search(found, self.documents.column, vector, k=self.rows(depth), **self._numbers())

    def _numbers(self) -> dict[str, Any]:
        learned = attachment_of(self.documents.column).definition.learned
        return {"shortlist": self.shortlist, "ef_search": self.ef_search, "exact": not learned}

    def _words(self, query: Query) -> Words:
        assert self.words is not None  # noqa: S101 - who asks has them
        text = str(query.text)[:TEXT_LIMIT]
        return Words(self.words.column, text, match=self.words.match, config=self.words.config)

    def wanted(self, depth: int) -> int:
        """Rows to find, so that so many can be judged: one more where the query itself may be among them."""
        return depth if self.itself else depth + 1

    def _found(self, statement: Select[*tuple[Any, ...]], query: Query, depth: int) -> list[str]:
        rows = enumerate(self.connection.execute(statement))
        found = [row[0] if row[0] is not None else f"\0{place}" for place, row in rows]
        return _cut(found, query.id, depth, itself=self.itself)


# -- from the pass over the table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ranked:
    """Runs of what a pass over the table found.

    Attributes:
        queries: those it was made for.
        found: by it.
        places: of documents that tie, in the order of the library.
        searches: the rows that are asked for, and the size of the shortlist.

    """

    queries: Sequence[Query]
    found: Pass
    places: Mapping[int, int]
    searches: Searches

    @classmethod
    def of(cls, queries: Sequence[Query], found: Pass, searches: Searches) -> Ranked:
        """Of a pass; asks the server for the order of documents that tie."""
        tied: set[int] = set()
        for lists in (found.full, *found.short):
            for rows, *both in lists.each():
                for steps in both:
                    _, place, counts = np.unique(steps, return_inverse=True, return_counts=True)
                    tied.update(rows[counts[place] > 1].tolist())
        known = searches.documents.known(searches.connection, {found.names[row] for row in tied})
        order = {name: place for place, name in enumerate(known)}
        return cls(queries, found, {row: order.get(found.names[row], len(order)) for row in tied}, searches)

    def exact(self, depths: Iterable[int]) -> Run:
        """The ranking by full vectors."""
        return self._run(self.found.full, depths, lambda rows, near, full, _: self._order(full, rows))  # noqa: ARG005

    def short_only(self, number: int, depths: Iterable[int]) -> Run:
        """The ranking by the short vectors of one definition."""
        return self._run(self.found.short[number], depths, lambda rows, near, full, _: self._order(near, rows))  # noqa: ARG005

    def two_stage(self, number: int, depths: Iterable[int]) -> Run:
        """A shortlist by the short vectors of one definition, ranked by the full ones."""

        def ranked(rows: Rows, near: Rows, full: Rows, depth: int) -> Rows:
            listed = self._order(near, rows)[: self.searches.size(depth)]
            return listed[self._order(full[listed], rows[listed])[: self.searches.rows(depth)]]

        return self._run(self.found.short[number], depths, ranked)

    def _run(self, lists: Lists, depths: Iterable[int], ranked: Callable[[Rows, Rows, Rows, int], Rows]) -> Run:
        runs: Run = {depth: {} for depth in depths}
        for query, (rows, near, full) in zip(self.queries, lists.each(), strict=False):
            for depth, run in runs.items():
                names = [self.found.names[row] for row in rows[ranked(rows, near, full, depth)].tolist()]
                run[query.id] = _cut(names, query.id, depth, itself=self.searches.itself)
        return runs

    def _order(self, distances: Rows, rows: Rows) -> Rows:
        """Nearest first, and of the same distance as searches order them."""
        ties = np.array([self.places.get(row, 0) for row in rows.tolist()], np.int64)
        return np.lexsort((ties, distances))


def _cut(names: list[str], query: str, depth: int, *, itself: bool) -> list[str]:
    """The documents that are judged."""
    return (names if itself else [name for name in names if name != query])[:depth]
