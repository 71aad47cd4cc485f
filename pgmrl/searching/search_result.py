"""The Select that a search returns: it composes as any other, and refuses what would silently lose rows.

Its rows have been chosen: a condition, LIMIT or OFFSET put on it would not search again, it would take rows away from
the k that there are. SQLAlchemy would do that without a word.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar, TypeVarTuple, cast

from sqlalchemy import Select

from pgmrl.errors import SearchError

__all__ = ["SearchResult", "Ts", "search_result"]

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


def search_result(statement: AnySelectT) -> AnySelectT:
    """The same Select as a `SearchResult`.

    A subclass of Select loses what it did of its own: SQLModel's `select(Model)` returns first columns only, and the
    distance would be lost.
    """
    result: Any = SearchResult.__new__(SearchResult)
    result.__dict__.update(statement.__dict__)
    return cast("AnySelectT", result)
