"""The options of a search: what callers may give, and the checked values that a statement is built from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from pgmrl.database.settings import setting_of
from pgmrl.errors import ExactSearchWarning, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT, SHORTLIST_LIMIT, SHORTLIST_MIN
from pgmrl.model.columns import Attachment, attachment_of, base_column
from pgmrl.model.scan_settings import default_ef_search, default_shortlist
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_statement, finite, flag, positive_integer
from pgmrl.searching.scan import Scan

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["SearchOptions", "SearchParameters", "check_options", "shortlist_size", "with_shortlist"]


class SearchOptions(TypedDict, total=False):
    """What every search takes by keyword: how many rows it ranks, how hard it looks for them, when it is exact.

        options = SearchOptions(shortlist=200, complete=True)
        search(select(Package), Package.embedding, vector, k=20, **options)
        search(select(Package), Package.embedding, vector, k=20, shortlist=200, complete=True)  # the same

    Each may be left out; None means the same. A function that has a default of its own says so. A keyword that is
    neither an option nor an argument of the function is a `TypeError`, as for any function of Python.

    Attributes:
        shortlist: rows that are ranked exactly, k to 100,000; default what tuning stored and `load_settings` loaded,
            else `oversample` times k, at least 40.
        oversample: shortlist rows for each result, 1 or more; default 10. Give this or `shortlist`.
        ef_search: candidates HNSW keeps, 1 to 1,000; default with the stored shortlist what was stored beside it, else
            the shortlist's size.
        exact: rank every row that the filters leave instead: the truth, in time that grows with the table.
        complete: where the shortlist is not full, because a filter, row-level security or deleted rows left the scan of
            the index too little, rank every row that the filters leave, in the same statement. True by default.

    """

    shortlist: int | None
    oversample: float | None
    ef_search: int | None
    exact: bool
    complete: bool


OPTION_NAMES: Final = frozenset(SearchOptions.__annotations__)


def check_options(options: SearchOptions) -> None:
    """Check that there are no other options than those of a search.

    Raises:
        TypeError: there is one.

    """
    unknown = options.keys() - OPTION_NAMES
    if unknown:
        raise TypeError(
            f"unexpected keyword argument {safe_repr(min(unknown))}: expected one of the function's own or one of "
            f"{', '.join(SearchOptions.__annotations__)}"
        )


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """The column, k and options of one search, checked and with defaults filled in.

    Attributes:
        column: the Matryoshka attribute or column.
        attachment: what is declared for it.
        k: rows to return.
        scan: how the short index is read.
        exact: whether it is left out.
        complete: whether the exact fallback stands behind the shortlist.

    """

    column: Any
    attachment: Attachment
    k: int
    scan: Scan
    exact: bool
    complete: bool

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
        cls, statement: Any, column: Any, k: Any, options: SearchOptions, *, stacklevel: int = 3
    ) -> SearchParameters:
        """Check what every kind of search takes; called by the public function itself, whose caller is warned.

        Args:
            statement: the caller's Select.
            column: the Matryoshka attribute or column.
            k: rows to return.
            options: as given.
            stacklevel: of the caller's line, for warnings.

        Raises:
            TypeError: an unknown option.
            SearchError: a number out of range, or a Select that cannot be searched.
            DefinitionError: `column` is not a Matryoshka column.

        """
        check_options(options)
        attachment = attachment_of(column)
        check_statement(statement)
        k, exact = positive_integer("k", k), flag("exact", options.get("exact"))
        shortlist, oversample = options.get("shortlist"), options.get("oversample")
        # an exact search has no shortlist that its rows would have to fit into
        size = shortlist_size(min(k, SHORTLIST_LIMIT) if exact else k, shortlist, oversample, column)
        is_default = shortlist is None and oversample is None
        ef_search = _ef_search(options.get("ef_search"), size, k, column if is_default else None)
        if not attachment.definition.learned and not exact:
            warnings.warn(ExactSearchWarning.__doc__ or "", ExactSearchWarning, stacklevel=stacklevel)
            exact = True
        complete = options.get("complete")
        return cls(
            column,
            attachment,
            k,
            Scan(size, ef_search),
            exact,
            True if complete is None else flag("complete", complete),
        )


def _ef_search(given: int | None, shortlist: int, k: int, column: Any) -> int:
    """The setting's with the setting's shortlist (of `column`), else as many as the shortlist holds."""
    if given is None:
        setting = None if column is None else setting_of(column)
        return default_ef_search(shortlist) if setting is None else setting.numbers(k)[1]
    ef_search = positive_integer("ef_search", given)
    if ef_search > EF_SEARCH_LIMIT:
        raise SearchError(f"ef_search={ef_search}: expected 1 to {EF_SEARCH_LIMIT}, what pgvector takes")
    return ef_search


def with_shortlist(options: SearchOptions, k: int, default: int | None = None) -> SearchOptions:
    """The options with the shortlist's size in them, so that what tuning stored for k nearest rows does not count.

    Args:
        options: as given.
        k: rows that the shortlist must hold.
        default: its size where the options do not say it; default ten times k, at least 40.

    Raises:
        SearchError: as `shortlist_size`.

    """
    shortlist, oversample = options.get("shortlist"), options.get("oversample")
    if shortlist is None and oversample is None:
        shortlist = default
    size = shortlist_size(k, shortlist, oversample)
    return cast("SearchOptions", {**options, "shortlist": size, "oversample": None})


def shortlist_size(k: int, shortlist: int | None = None, oversample: float | None = None, column: Any = None) -> int:
    """The number of rows that are ranked exactly.

    Args:
        k: rows to return.
        shortlist: the option.
        oversample: the option.
        column: whose setting holds where neither is given.

    Raises:
        SearchError: a number out of range, or both of `shortlist` and `oversample`.

    """
    k = positive_integer("k", k)
    if k > SHORTLIST_LIMIT:
        raise SearchError(
            f"k={k:,}: expected at most {SHORTLIST_LIMIT:,}, the longest shortlist; for more use exact=True (`--exact`)"
        )
    if shortlist is not None and oversample is not None:
        raise SearchError("shortlist and oversample say the same thing: give one of them")
    if shortlist is None:
        shortlist = _default_shortlist(k, oversample, column)
    size = positive_integer("shortlist", shortlist)
    if size < k:
        raise SearchError(f"shortlist={size} is smaller than k={k}: the results come out of the shortlist")
    if size > SHORTLIST_LIMIT:
        raise SearchError(f"shortlist={size:,}: expected at most {SHORTLIST_LIMIT:,}; for more use exact=True")
    return size


def _default_shortlist(k: int, oversample: Any, column: Any) -> int:
    if oversample is not None:
        factor = finite("oversample", oversample)
        if factor < 1:
            raise SearchError(
                f"oversample={safe_repr(oversample)}: expected 1 or more, since a shortlist holds the k results"
            )
        return max(SHORTLIST_MIN, round(min(k * factor, 2.0**62)))  # too many are refused as such
    setting = None if column is None else setting_of(column)
    return default_shortlist(k) if setting is None else setting.numbers(k)[0]
