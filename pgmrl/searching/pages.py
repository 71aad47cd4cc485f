"""Pages and thresholds: which of the ranked rows come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import argument_list
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_distance, finite, integer
from pgmrl.searching.key_values import key_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from pgmrl.searching.options import SearchParameters

__all__ = ["Page"]


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
    def of(
        cls,
        parameters: SearchParameters,
        keys: Sequence[ColumnElement[Any]],
        offset: Any,
        after: Any,
        max_distance: Any,
    ) -> Page:
        """Check what says which rows come back.

        Args:
            parameters: the rest of the search.
            keys: the primary key's columns.
            offset: as given.
            after: as given.
            max_distance: as given.

        Raises:
            SearchError: values out of range, or values that do not go together.

        """
        if offset is None and after is None and max_distance is None:
            return cls(parameters.k)
        if offset is not None and after is not None:
            raise SearchError("offset and after say the same thing: give one of them")
        if offset is not None:
            offset = _checked_offset(parameters, offset)
        if after is not None:
            after = _checked_after(after, keys)
        return cls(parameters.k, offset, after, check_distance(max_distance))


def _checked_offset(parameters: SearchParameters, offset: Any) -> int:
    number = integer("offset", offset)
    if number < 0:
        raise SearchError(f"offset={number}: expected 0 or more")
    if not parameters.exact and number + parameters.k > parameters.scan.shortlist:
        raise SearchError(
            f"offset={number} and k={parameters.k} reach beyond the shortlist of {parameters.scan.shortlist}: give a "
            "larger shortlist, the same for every page; or go on from the last row with after="
        )
    return number


def _checked_after(after: Any, keys: Sequence[ColumnElement[Any]]) -> tuple[Any, ...]:
    key_text = "the key" if len(keys) == 1 else f"the {len(keys)} parts of the key"
    expected = f"(distance, *key), the distance and {key_text} of the last row"
    values = argument_list("after", after, SearchError, expected)
    if len(values) != len(keys) + 1:
        raise SearchError(f"after={safe_repr(after)}: expected {expected}")
    distance, *key = values
    if any(part is None for part in key):
        raise SearchError(f"after={safe_repr(after)}: expected a key without None")
    return (finite("the distance in after", distance), *key_values("after", keys, key))
