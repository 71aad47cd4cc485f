"""Pages and thresholds: which of the ranked rows come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter, Float, bindparam

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import argument_list
from pgmrl.model.ranking_sql import key_names
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_distance, finite, integer
from pgmrl.searching.key_values import key_values
from pgmrl.searching.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from pgmrl.searching.options import SearchParameters

__all__ = ["Page"]


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the ranked rows come back.

    Attributes:
        k: how many.
        offset: rows to leave out at the start; None where the caller does not page.
        after: whether only rows behind the last one of the page before come back.
        max_distance: whether rows that are farther away do not come back.
        parameters: values of the statement, by their names in SQL text: `pgmrl_max`, and of the last row
            `pgmrl_distance`, `pgmrl_key_1`, ….

    """

    k: int
    offset: int | None = None
    after: bool = False
    max_distance: bool = False
    parameters: Mapping[str, BindParameter[Any]] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether these are just the first k."""
        return self.offset is None and not self.after and not self.max_distance

    @classmethod
    def of(cls, parameters: SearchParameters, offset: Any, after: Any, max_distance: Any) -> Page:
        """Check what says which rows come back.

        Args:
            parameters: the rest of the search.
            offset: as given.
            after: as given.
            max_distance: as given.

        Raises:
            SearchError: values out of range, or values that do not go together.
            DefinitionError: the table has no primary key.

        """
        if offset is None and after is None and max_distance is None:
            return cls(parameters.k)
        if offset is not None and after is not None:
            raise SearchError("offset and after say the same thing: give one of them")
        if offset is not None:
            offset = _checked_offset(parameters, offset)
        bound: dict[str, BindParameter[Any]] = {}
        if after is not None:
            keys = Subject.of(parameters.column, parameters.attachment).keys
            distance, *key = _checked_after(after, keys)
            bound["pgmrl_distance"] = _parameter("pgmrl_distance", distance, Float())
            for name, column, value in zip(key_names(len(keys)), keys, key, strict=True):
                bound[f"pgmrl_{name}"] = _parameter(f"pgmrl_{name}", value, column.type)
        threshold = check_distance(max_distance)
        if threshold is not None:
            bound["pgmrl_max"] = _parameter("pgmrl_max", threshold, Float())
        return cls(parameters.k, offset, after is not None, threshold is not None, bound)

    @property
    def shape(self) -> tuple[Any, ...]:
        """All but the values of the parameters."""
        return self.k, self.offset, self.after, self.max_distance


def _parameter(name: str, value: Any, type_: TypeEngine[Any]) -> BindParameter[Any]:
    return bindparam(name, value, type_=type_, unique=True)


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
