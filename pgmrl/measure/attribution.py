"""Why a search loses rows: each query by exact search, by its exact short order, and as it is searched.

recall loss = truncation + ANN + shortfall - completed

truncation  1 - recall of the exact shortlist: rows that the short vectors rank behind it
ANN         recall of the exact shortlist - recall of the scan, without what is the next: rows that HNSW did not
            visit. Negative where it missed rows that would have kept true neighbours out of the shortlist
shortfall   rows that did not come back at all: a filter, row-level security or dead rows left too few candidates
completed   what the exact fallback of a filtered search gave back
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, bindparam, func, literal_column, tuple_

from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.session import until
from pgmrl.model.columns import attachment_of
from pgmrl.searching.distributed_statement import searched_rows
from pgmrl.searching.fallback import RERANKED, with_fallback
from pgmrl.searching.options import SearchOptions, SearchParameters
from pgmrl.searching.query import bind_query
from pgmrl.searching.search import search
from pgmrl.searching.selected_rows import SelectedRows, selected_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, Connection

    from pgmrl.measure.table_truth import QueryTruth
    from pgmrl.model.shortening import Definition
    from pgmrl.model.vectors import VectorArray
    from pgmrl.searching.subject import AnySelect

__all__ = ["QUERY", "Loss", "SearchTrial"]

QUERY: Final = "pgmrl_query_vector"
AMONG: Final = "pgmrl_among"
OWN: Final = "pgmrl_own"


class Loss(NamedTuple):
    """What a search of one query lost.

    Attributes:
        number: of the query, from 0.
        key: the primary key of the row that it is; None where it is no row.
        recall: the share of the true neighbours that came back.
        truncation: lost by the short vectors.
        ann: lost by the scan of their index.
        shortfall: lost because fewer rows came back.
        completed: given back by the exact fallback.
        returned: rows that came back.
        expected: rows there were to return, at most k.
        ms: the time of the search, in milliseconds, as the client sees it; None where the loss was computed.

    """

    number: int
    key: tuple[Any, ...] | None
    recall: float
    truncation: float
    ann: float
    shortfall: float
    completed: float
    returned: int
    expected: int
    ms: float | None


class _Searches(NamedTuple):
    """The statements of a search for so many results.

    Attributes:
        searched: as the application searches.
        scanned: the same without the exact fallback; None where it has none.
        shortlist: rows of a full shortlist, where `searched` has how many there were as its last column; else None.

    """

    searched: AnySelect
    scanned: AnySelect | None
    shortlist: int | None = None


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """The statements that a query is tried with, built once.

    Attributes:
        k: results that count.
        shortlist: rows that are ranked exactly, beside the query's own.
        ef_search: candidates HNSW keeps, beside the query's own.
        definition: of the column.
        rows: that the searches leave.
        width: columns of the key, which come last before the distance.
        plain: the searches of a query that is none of the rows.
        beside: those of a query that is one: they return one row more, which does not count.
        reach: counts the rows that are no farther by the short vectors than the farthest of some, without the query's
            own.

    """

    k: int
    shortlist: int
    ef_search: int
    definition: Definition
    rows: SelectedRows
    width: int
    plain: _Searches
    beside: _Searches
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
        complete: bool,
    ) -> SearchTrial:
        """The statements of a search; for the arguments see `search`.

        Raises:
            SearchError: a number out of range, or a Select that cannot be searched.
            DefinitionError: `column` is no Matryoshka column.

        """
        options = SearchOptions(shortlist=shortlist, oversample=oversample, ef_search=ef_search)
        parameters = SearchParameters.of(statement, column, k, options)
        attachment = attachment_of(column)
        rows = selected_rows(statement, column, attachment)
        # over shards none stands behind a search without a filter
        behind = with_fallback(searched_rows(statement, column, attachment), fallback=complete)
        # what is joined hangs on the columns that are there
        keys = statement.with_only_columns(*rows.keys) if rows.direct else statement.add_columns(*rows.keys)
        query: BindParameter[Any] = bindparam(QUERY)

        def searches(more: int) -> _Searches:
            numbers: dict[str, Any] = {
                "k": k + more,
                "shortlist": parameters.scan.shortlist + more,
                "ef_search": min(EF_SEARCH_LIMIT, parameters.scan.ef_search + more),
            }
            searched: AnySelect = search(keys, column, query, complete=complete, **numbers)
            if not behind:
                return _Searches(searched, None)
            scanned: AnySelect = search(keys, column, query, complete=False, **numbers)
            found: Any = literal_column(f"(SELECT count(*) FROM {RERANKED})", Integer())  # noqa: S608 - a constant
            return _Searches(searched.add_columns(found), scanned, numbers["shortlist"])

        reach = _reach(rows, parameters, query)
        return cls(k, *parameters.scan, parameters.definition, rows, len(rows.keys), searches(0), searches(1), reach)

    def run(
        self,
        connection: Connection,
        number: int,
        vector: VectorArray,
        key: tuple[Any, ...] | None,
        truth: QueryTruth,
        end: float,
        *,
        through_index: bool = True,
    ) -> Loss:
        """Try one query, in the transaction that the truth was read in.

        Args:
            connection: in that.
            number: of the query.
            vector: of the query, shape (dims,), float32.
            key: of the row that it is; None where it is no row.
            truth: of the query.
            end: by `time.monotonic`, when the server cancels what is not done.
            through_index: whether an HNSW index serves the shortlist; one that is sorted exactly needs no fallback, so
                that the search is not made a second time without it. Nor is it where the shortlist is full.

        """
        searches = self.beside if truth.own_seen else self.plain
        parameters = {QUERY: vector}
        until(connection, end)
        start = time.perf_counter_ns()
        rows = connection.execute(searches.searched, parameters).all()
        elapsed = (time.perf_counter_ns() - start) / 1e6
        full = searches.shortlist is not None and bool(rows) and rows[0][-1] >= searches.shortlist
        returned = scanned = self._others(rows if searches.shortlist is None else [row[:-1] for row in rows], key)
        if searches.scanned is not None and through_index and not full:
            until(connection, end)
            scanned = self._others(connection.execute(searches.scanned, parameters).all(), key)
        recall, of_scan, of_short = (
            truth.recall(returned),
            truth.recall(scanned),
            truth.shortlist_recall(self.shortlist),
        )
        missing = max(0, truth.count - len(scanned)) / max(1, truth.count)
        ann = of_short - of_scan - missing
        losses = (recall, 1 - of_short, ann, missing, recall - of_scan)
        return Loss(number, key, *losses, len(returned), truth.count, elapsed)

    def computed(self, number: int, key: tuple[Any, ...] | None, truth: QueryTruth) -> Loss:
        """What a query loses whose shortlist is sorted exactly: what the exact shortlist of the pass does."""
        recall = truth.shortlist_recall(self.shortlist)
        return Loss(number, key, recall, 1 - recall, 0.0, 0.0, 0.0, truth.count, truth.count, None)

    def scanned(self, vector: VectorArray, truth: QueryTruth) -> tuple[AnySelect, int]:
        """The search of a query without the exact fallback, and the rows of its shortlist."""
        searches, more = (self.beside, 1) if truth.own_seen else (self.plain, 0)
        statement = searches.searched if searches.scanned is None else searches.scanned
        return statement.params(**{QUERY: vector}), self.shortlist + more

    def needed(
        self, connection: Connection, vector: VectorArray, key: tuple[Any, ...] | None, truth: QueryTruth, end: float
    ) -> int:
        """How long an exact shortlist has to be to hold every true neighbour of a query; as `run`."""
        until(connection, end)
        own = [] if key is None else [key]
        parameters = {QUERY: vector, AMONG: truth.keys[: truth.count], OWN: own}
        return int(connection.execute(self.reach, parameters).scalar_one())

    def _others(self, rows: Sequence[Any], key: tuple[Any, ...] | None) -> list[tuple[tuple[Any, ...], float]]:
        """Key and distance of the first k rows that are not the query's own."""
        keyed = [(tuple(row[-1 - self.width : -1]), float(row[-1])) for row in rows]
        return [row for row in keyed if key is None or row[0] != key][: self.k]


def _reach(rows: SelectedRows, parameters: SearchParameters, query: Any) -> AnySelect:
    """Only a number comes to the client, and nothing is sorted: the table may have any number of rows."""
    bound = bind_query(parameters.definition, query, f"the query for {parameters.name}", exact=False)
    distance, key = rows.short_distance(parameters.definition, bound.short_vector()), tuple_(*rows.inner_keys)
    among = rows.select.with_only_columns(func.max(distance), maintain_column_froms=True)
    farthest = among.where(key.in_(bindparam(AMONG, expanding=True))).correlate(None).scalar_subquery()
    counted = rows.select.with_only_columns(func.count(), maintain_column_froms=True).where(distance <= farthest)
    return counted.where(key.not_in(bindparam(OWN, expanding=True)))
