"""What a search is asked for: every argument checked, before a statement is built."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select

from pgmrl.database.settings import setting_of
from pgmrl.errors import ExactSearchWarning, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT, OVERSAMPLE, SHORTLIST_LIMIT, SHORTLIST_MIN
from pgmrl.model.columns import Attachment, attachment_of, base_column
from pgmrl.searching.scan import Scan

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = [
    "Page",
    "SearchOptions",
    "check_statement",
    "distance_limit",
    "fraction",
    "labels",
    "positive",
    "shortlist_size",
]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """One search's column and numbers, checked."""

    column: Any
    attachment: Attachment
    k: int
    scan: Scan
    exact: bool

    @property
    def definition(self) -> Definition:
        """Of the column."""
        return self.attachment.definition

    @property
    def name(self) -> str:
        """The column's, for messages."""
        return str(base_column(self.column))

    @classmethod
    def of(
        cls,
        statement: Any,
        column: Any,
        k: int,
        shortlist: int | None,
        oversample: float | None,
        ef_search: int | None,
        exact: bool,
        stacklevel: int = 3,
    ) -> SearchOptions:
        """Check what every kind of search takes; called by the public function itself, whose caller is warned.

        Raises:
            SearchError: a number out of range, or a Select that cannot be searched.
            DefinitionError: `column` is no Matryoshka column.

        """
        attachment = attachment_of(column)
        check_statement(statement)
        k = positive("k", k)
        # an exact search has no shortlist that its rows would have to fit into
        size = shortlist_size(min(k, SHORTLIST_LIMIT) if exact else k, shortlist, oversample, column)
        effort = _effort(column, k, size, shortlist is None and oversample is None, ef_search)
        if effort > EF_SEARCH_LIMIT:
            raise SearchError(f"ef_search={effort}: pgvector takes 1 to {EF_SEARCH_LIMIT}")
        if not attachment.definition.learned and not exact:
            warnings.warn(ExactSearchWarning.__doc__ or "", ExactSearchWarning, stacklevel=stacklevel)
            exact = True
        return cls(column, attachment, k, Scan(size, effort), exact)


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the ranked rows come back.

    Attributes:
        k: how many.
        offset: rows to leave out at the start; None where the caller does not page.
        after: distance and key of the last row of the page before.
        max_distance: rows that are farther away do not come back.

    """

    k: int
    offset: int | None = None
    after: tuple[Any, ...] | None = None
    max_distance: float | None = None

    @property
    def plain(self) -> bool:
        """Whether these are just the first k."""
        return self.offset is None and self.after is None and self.max_distance is None

    @classmethod
    def of(cls, asked: SearchOptions, keys: int, offset: Any, after: Any, max_distance: Any) -> Page:
        """Check what says which rows come back.

        Args:
            asked: the rest of the search.
            keys: columns of the primary key.
            offset: as given.
            after: as given.
            max_distance: as given.

        Raises:
            SearchError: values that make no sense, or do not go together.

        """
        if offset is None and after is None and max_distance is None:
            return cls(asked.k)
        if offset is not None and after is not None:
            raise SearchError("offset and after say the same thing: give one of them")
        if offset is not None:
            offset = _checked_offset(asked, offset)
        if after is not None:
            after = _checked_after(after, keys)
        return cls(asked.k, offset, after, distance_limit(max_distance))


def _effort(column: Any, k: int, size: int, usual: bool, given: int | None) -> int:
    """Candidates for the scan: the setting's with the setting's shortlist, else as many as the shortlist holds."""
    if given is not None:
        return positive("ef_search", given)
    setting = setting_of(column) if usual else None
    return min(size, EF_SEARCH_LIMIT) if setting is None else setting.numbers(k)[1]


def shortlist_size(k: int, shortlist: int | None = None, oversample: float | None = None, column: Any = None) -> int:
    """The number of rows that are ranked exactly.

    Args:
        k: rows that shall come back.
        shortlist: as given.
        oversample: as given.
        column: whose setting holds where neither is given.

    Raises:
        SearchError: a number out of range, or both of `shortlist` and `oversample`.

    """
    k = positive("k", k)
    if k > SHORTLIST_LIMIT:
        raise SearchError(
            f"k={k:,} is more than {SHORTLIST_LIMIT:,}, the longest shortlist: use exact=True (`--exact`)"
        )
    if shortlist is not None and oversample is not None:
        raise SearchError("shortlist and oversample say the same thing: give one of them")
    factor: Any = oversample
    if factor is not None and not (isinstance(factor, int | float) and 1 <= factor < math.inf):
        raise SearchError(f"oversample={oversample!r}: a shortlist holds at least the k results, so give 1 or more")
    if shortlist is None:
        setting = None if column is None or oversample is not None else setting_of(column)
        usual = max(SHORTLIST_MIN, round(k * (oversample or OVERSAMPLE)))
        usual = usual if oversample is not None else min(SHORTLIST_LIMIT, usual)
        shortlist = usual if setting is None else setting.numbers(k)[0]
    size = positive("shortlist", shortlist)
    if size < k:
        raise SearchError(f"shortlist={size} is smaller than k={k}: the results come out of the shortlist")
    if size > SHORTLIST_LIMIT:
        raise SearchError(f"shortlist={size:,} is more than {SHORTLIST_LIMIT:,}: use exact=True for so many rows")
    return size


def positive(name: str, value: Any) -> int:
    """A whole number, at least 1.

    Raises:
        SearchError: it is not.

    """
    number = _whole(name, value)
    if number < 1:
        raise SearchError(f"{name}={number}: give at least 1")
    return number


def fraction(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        SearchError: it is not.

    """
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise SearchError(f"{name}={value!r}: give 0 to 1")
    return number


def distance_limit(value: Any) -> float | None:
    """A threshold, or None.

    Raises:
        SearchError: it is no finite number.

    """
    return None if value is None else _number("max_distance", value)


def labels(*names: Any) -> None:
    """Check that the columns a search adds have names of their own.

    Raises:
        SearchError: two are the same, or one is no text.

    """
    given = [name for name in names if name is not None]
    for name in given:
        if not isinstance(name, str) or not name:
            raise SearchError(f"the label {name!r} is no name: give a text")
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise SearchError(f"two columns of the result would be called {twice[0]!r}: give another label")


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or (not isinstance(value, int) and not hasattr(value, "__index__")):
        raise SearchError(f"{name}={value!r} is no whole number")
    return int(value)


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SearchError(f"{name}={value!r} is no finite number")
    return number


def _checked_offset(asked: SearchOptions, offset: Any) -> int:
    number = _whole("offset", offset)
    if number < 0:
        raise SearchError(f"offset={number}: give 0 or more")
    if not asked.exact and number + asked.k > asked.scan.shortlist:
        raise SearchError(
            f"offset={number} and k={asked.k} reach beyond the shortlist of {asked.scan.shortlist}: give a larger "
            "shortlist, the same for every page; or go on from the last row with after="
        )
    return number


def _checked_after(after: Any, keys: int) -> tuple[Any, ...]:
    if isinstance(after, str) or not isinstance(after, Sequence) or len(after) != keys + 1:
        parts = "the key" if keys == 1 else f"the {keys} parts of the key"
        raise SearchError(f"after={after!r}: give (distance, *key), the distance and {parts} of the last row")
    distance, *key = after
    if any(part is None for part in key):
        raise SearchError(f"after={after!r}: a part of the key is None")
    return (_number("the distance in after", distance), *key)


def check_statement(statement: Any) -> None:
    """Check that a Select can be searched.

    Raises:
        SearchError: it is none, or has a clause of which search has its own.

    """
    if not isinstance(statement, Select):
        raise SearchError(f"search takes a Select of the model, not {type(statement).__name__}: use select(Model)")
    for clause, found in (
        ("LIMIT", statement._limit_clause is not None or statement._fetch_clause is not None),
        ("OFFSET", statement._offset_clause is not None),
        ("GROUP BY", bool(statement._group_by_clauses) or bool(statement._having_criteria)),
        ("DISTINCT", statement._distinct),
        ("ORDER BY", bool(statement._order_by_clauses)),
        ("FOR UPDATE", statement._for_update_arg is not None),
    ):
        if found:
            raise SearchError(f"the Select has {clause}: search adds its own; apply yours to the result's subquery()")
