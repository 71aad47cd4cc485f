"""Why a search loses rows: each query by exact search, by its exact short order, and as it is searched.

recall loss = truncation + ANN + shortfall - completed

truncation  1 - recall of the exact shortlist: rows that the short vectors rank behind it
ANN         recall of the exact shortlist - recall of the scan, without what is the next: rows that HNSW did not
            visit. Negative where it missed rows that would have kept true neighbours out of the shortlist
shortfall   rows that did not come back at all: a filter, row-level security or dead rows left too few candidates
completed   what the exact branch of a filtered search gave back
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, func, tuple_

from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.recall_by_distance import recall_at_k
from pgmrl.measure.session import until
from pgmrl.model.columns import attachment_of
from pgmrl.searching import statement as parts
from pgmrl.searching.options import SearchOptions
from pgmrl.searching.query import bind_query
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, Connection, Row

    from pgmrl.model.vectors import VectorArray
    from pgmrl.searching.subject import AnySelect

__all__ = ["Loss", "Trial"]

QUERY: Final = "pgmrl_asked"
AMONG: Final = "pgmrl_among"
OWN: Final = "pgmrl_own"
NO_ORDER: Final = "SET LOCAL enable_indexscan = off; SET LOCAL enable_seqscan = on"
"""So that no index gives the short order; indexes on other columns still find rows, by bitmaps."""


class Loss(NamedTuple):
    """What a search of one query lost.

    Attributes:
        number: of the query, from 0.
        key: the primary key of the row that it is; None where it is no row.
        recall: the share of the true neighbours that came back.
        truncation: lost by the short vectors.
        ann: lost by the scan of their index.
        shortfall: lost because fewer rows came back.
        completed: given back by the exact branch.
        returned: rows that came back.
        wanted: rows there were to return, at most k.
        ms: the time of the search, in milliseconds, as the client sees it.

    """

    number: int
    key: tuple[Any, ...] | None
    recall: float
    truncation: float
    ann: float
    shortfall: float
    completed: float
    returned: int
    wanted: int
    ms: float


class _Found(NamedTuple):
    """Distances, nearest first, with the keys of their rows; without the query's own row."""

    distances: list[float]
    keys: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Trial:
    """The statements that a query is tried with, built once.

    Attributes:
        k: results that count.
        shortlist: rows that are ranked exactly, beside the query's own.
        ef_search: candidates HNSW keeps, beside the query's own.
        width: columns of the key, which come last before the distance.
        own: whether queries are rows of the table, which do not count as their own neighbours.
        searched: as the application searches.
        scanned: the same without the exact branch; None where it has none.
        listed: `scanned`, to be executed where no index may give the short order. Another text: the server keeps the
            plan of one that is prepared, whatever it may do now.
        exact: the truth.
        reach: counts the rows that are no farther by the short vectors than the farthest of some, without the query's
            own.

    """

    k: int
    shortlist: int
    ef_search: int
    width: int
    own: bool
    searched: AnySelect
    scanned: AnySelect | None
    listed: AnySelect
    exact: AnySelect
    reach: AnySelect

    @classmethod
    def of(
        cls,
        statement: AnySelect,
        column: Any,
        *,
        k: int,
        shortlist: int | None,
        oversample: float | None,
        ef_search: int | None,
        complete: bool | None,
        own: bool,
    ) -> Trial:
        """The statements for a search.

        Args:
            statement: as for `search`.
            column: as for `search`.
            k: as for `search`.
            shortlist: as for `search`.
            oversample: as for `search`.
            ef_search: as for `search`.
            complete: as for `search`.
            own: whether queries are rows of the table.

        Raises:
            SearchError: as `search`.
            DefinitionError: as `search`.

        """
        asked = SearchOptions.of(statement, column, k, shortlist, oversample, ef_search, exact=False)
        rows = parts.candidates(statement, column, attachment_of(column))
        # what is joined hangs on the columns that are there
        keys = statement.with_only_columns(*rows.keys) if rows.direct else statement.add_columns(*rows.keys)
        query: BindParameter[Any] = bindparam(QUERY)
        more = int(own)
        numbers: dict[str, Any] = {
            "k": k + more,
            "shortlist": asked.scan.shortlist + more,
            "ef_search": min(EF_SEARCH_LIMIT, asked.scan.ef_search + more),
        }
        branch = rows.filtered if complete is None else complete
        searched = search(keys, column, query, complete=complete, **numbers)
        scanned = search(keys, column, query, complete=False, **numbers) if branch else None
        listed = (searched if scanned is None else scanned).prefix_with("/* in exact short order */")
        exact = search(keys, column, query, k=k + more, exact=True)
        reach = _reach(rows, asked, query, own=own)
        return cls(k, *asked.scan, len(rows.keys), own, searched, scanned, listed, exact, reach)

    def run(
        self, connection: Connection, number: int, vector: VectorArray, key: tuple[Any, ...] | None, end: float
    ) -> Loss:
        """Try one query, in a transaction or savepoint of its own, which is rolled back.

        Args:
            connection: in that.
            number: of the query.
            vector: of the query, shape (dims,), float32.
            key: of the row that it is; None where it is no row.
            end: by `time.monotonic`, when the server cancels what is not done.

        """
        given = {QUERY: vector}
        start = time.perf_counter_ns()
        rows = connection.execute(self.searched, given).all()
        elapsed = (time.perf_counter_ns() - start) / 1e6
        found = self._apart(rows, key)
        scanned = found
        if self.scanned is not None:
            until(connection, end)
            scanned = self._apart(connection.execute(self.scanned, given).all(), key)
        until(connection, end)
        truth = self._apart(connection.execute(self.exact, given).all(), key).distances
        until(connection, end)
        connection.exec_driver_sql(NO_ORDER)
        short = self._apart(connection.execute(self.listed, given).all(), key).distances
        recall, of_scan, of_short = (recall_at_k(one, truth) for one in (found.distances, scanned.distances, short))
        missing = max(0, len(truth) - len(scanned.distances)) / max(1, len(truth))
        ann = of_short - of_scan - missing
        lost = (recall, 1 - of_short, ann, missing, recall - of_scan)
        return Loss(number, key, *lost, len(found.distances), len(truth), elapsed)

    def needed(self, connection: Connection, vector: VectorArray, key: tuple[Any, ...] | None, end: float) -> int:
        """How long an exact shortlist has to be to hold every true neighbour of a query; as `run`."""
        given: dict[str, Any] = {QUERY: vector}
        truth = self._apart(connection.execute(self.exact, given).all(), key).keys
        until(connection, end)
        own = {OWN: [key]} if self.own else {}
        return int(connection.execute(self.reach, {**given, AMONG: truth, **own}).scalar_one())

    def _apart(self, rows: Sequence[Row[Any]], key: tuple[Any, ...] | None) -> _Found:
        found = [(float(row[-1]), tuple(row[-1 - self.width : -1])) for row in rows]
        others = [one for one in found if key is None or one[1] != key][: self.k]
        return _Found([distance for distance, _ in others], [own for _, own in others])


def _reach(rows: parts.Candidates, asked: SearchOptions, query: Any, *, own: bool) -> AnySelect:
    """Only a number comes to the client, and nothing is sorted: the table may have any number of rows."""
    sent = bind_query(asked.definition, query, f"the query for {asked.name}", exact=False)
    distance, key = rows.short_distance(asked.definition, sent.short), tuple_(*rows.inner_keys)
    among = rows.rows.with_only_columns(func.max(distance), maintain_column_froms=True)
    farthest = among.where(key.in_(bindparam(AMONG, expanding=True))).correlate(None).scalar_subquery()
    counted = rows.rows.with_only_columns(func.count(), maintain_column_froms=True).where(distance <= farthest)
    return counted.where(key.not_in(bindparam(OWN, expanding=True))) if own else counted
