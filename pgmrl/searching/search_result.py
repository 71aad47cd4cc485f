"""The Select that a search returns: it composes as any other, and refuses what would silently lose rows.

Its rows have been chosen: a condition, LIMIT or OFFSET put on it would not search again, it would take rows away from
the k that there are. SQLAlchemy would do that without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Self, TypeVar, TypeVarTuple, cast

from sqlalchemy import CTE, Lateral, Select, Subquery

from pgmrl.errors import SearchError
from pgmrl.model.sqlalchemy_internals import keep_until_changed

__all__ = ["SearchResult", "Ts", "search_result", "with_joined"]

Ts = TypeVarTuple("Ts")
AnySelectT = TypeVar("AnySelectT", bound=Select[*tuple[Any, ...]])

CONDITION = (
    "a condition on a search's result would take rows away from the k that it found: put it on the Select that is "
    "searched, search(select(…).where(…), …), or filter the result itself: select(result.subquery()).where(…)"
)
ROWS = (
    "a search's result has its own number of rows: say k=, and offset= or after= for pages; or cut the result itself: "
    "select(result.subquery()).limit(…)"
)


class SearchResult(Select[*Ts]):
    """A Select of rows that a search has ranked, the nearest first.

    Raises:
        SearchError: where, filter, filter_by, having, limit, offset, fetch or slice is called on it.

    """

    inherit_cache = True

    def where(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(CONDITION)

    def filter(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(CONDITION)

    def filter_by(self, **_: Any) -> NoReturn:
        """Refused."""
        raise SearchError(CONDITION)

    def having(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(CONDITION)

    def limit(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(ROWS)

    def offset(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(ROWS)

    def fetch(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(ROWS)

    def slice(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise SearchError(ROWS)

    def subquery(self, name: str | None = None) -> Subquery:
        """With every column of an object that is selected: see `with_joined`."""
        return cast("Subquery", _inside(self).subquery(name))

    def cte(self, name: str | None = None, recursive: bool = False, nesting: bool = False) -> CTE:
        """As `subquery`."""
        return cast("CTE", _inside(self).cte(name, recursive, nesting))

    def lateral(self, name: str | None = None) -> Lateral:
        """As `subquery`."""
        return cast("Lateral", _inside(self).lateral(name))

    def with_for_update(self, **options: Any) -> Self:
        """Of the table's rows: see `with_joined`."""
        return cast("Self", _joined(self).with_for_update(**options))


JOINED = "pgmrl_joined"


def with_joined(result: AnySelectT, build: Callable[[], AnySelectT]) -> AnySelectT:
    """A search whose rows are not the table's: they have some of its columns, and cannot be locked.

    Inside another statement an object is all of its columns, vectors among them.

    Args:
        result: the search.
        build: makes the same one, joined to the table, for as long as nothing is added to `result`.

    """
    keep_until_changed(result, JOINED, build)
    return result


def _joined(result: SearchResult[*tuple[Any, ...]]) -> Any:
    build = result.__dict__.get(JOINED)
    return super(SearchResult, result if build is None else build())


def _inside(result: SearchResult[*tuple[Any, ...]]) -> Any:
    objects = any(description["expr"] is description.get("entity") for description in result.column_descriptions)
    return _joined(result) if objects else super(SearchResult, result)


def search_result(statement: AnySelectT) -> AnySelectT:
    """The same Select as a `SearchResult`.

    A subclass of Select loses what it did of its own: SQLModel's `select(Model)` returns first columns only, and the
    distance would be lost.
    """
    result: Any = SearchResult.__new__(SearchResult)
    result.__dict__.update(statement.__dict__)
    return cast("AnySelectT", result)
