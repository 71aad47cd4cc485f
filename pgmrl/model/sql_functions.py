"""What a model, a migration or the command line says about the SQL functions of one column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pgmrl.errors import DefinitionError
from pgmrl.names import LIMIT
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RELATED_LIMIT", "Filter", "SqlFunctions", "Test"]

Test = Literal["=", ">=", "<=", "in", "contains"]
"""How a row's value is compared with the argument: `in` takes an array of values, `contains` is `@>` of arrays."""

SUFFIXES: Final[dict[Test, str]] = {"=": "", ">=": "_min", "<=": "_max", "in": "_any", "contains": "_with"}
OPERATOR: Final = re.compile(r"[<>=!~@&|#%^*+-]+")
RELATED_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter argument of the functions; the filter is applied inside the shortlist, and NULL means no filter.

    Attributes:
        column: the column whose value is tested.
        test: how; the argument is named `section`, `size_min`, `size_max`, `section_any` or `tags_with`.

    Raises:
        DefinitionError: an unknown test.

    """

    column: str
    test: Test = "="

    def __post_init__(self) -> None:
        if self.test not in SUFFIXES:
            raise DefinitionError(
                f"filter on {safe_repr(self.column)}: expected one of the tests {', '.join(SUFFIXES)}, got "
                f"{safe_repr(self.test)}"
            )

    @classmethod
    def of(cls, declared: str | Filter) -> Filter:
        """A filter from `"section"`, `"size >="`, `"size <="`, `"section in"` or `"tags contains"`."""
        if isinstance(declared, Filter):
            return declared
        column, _, test = declared.strip().rpartition(" ")
        is_test = test in SUFFIXES or OPERATOR.fullmatch(test) is not None  # which may be none that there is
        return cls(column.strip(), test) if column and is_test else cls(declared.strip())  # type: ignore[arg-type]

    @property
    def argument(self) -> str:
        """The argument's name."""
        return self.column + SUFFIXES[self.test]

    def __str__(self) -> str:
        return self.column if self.test == "=" else f"{self.column} {self.test}"


@dataclass(frozen=True, slots=True)
class SqlFunctions:
    """Functions that search one column from plain SQL.

    Attributes:
        filters: columns that become arguments, such as `"section"` or `"size >="`; see `Filter`.
        name: what their names begin with; by default the table's name.
        related: also a view of the rows most related to each row, this many of each.
        stored: also the same as a materialised view, for `REFRESH MATERIALIZED VIEW`.
        group_by: a column: also a function that returns the nearest groups of rows with the same value.
        words: a `tsvector` column of the table: also a function for hybrid search.
        config: the text search configuration of `words`; by default what its column says.
        grant_to: roles that may call them; by default every role may. Rights on the table are needed in any case.
        schema: where they are made; by default the table's schema.

    Raises:
        DefinitionError: a filter named twice, or a number or name that cannot work.

    """

    filters: tuple[str | Filter, ...] = ()
    name: str | None = None
    related: int | None = None
    stored: bool = False
    group_by: str | None = None
    words: str | None = None
    config: str | None = None
    grant_to: tuple[str, ...] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        tuples: tuple[object, ...] = (self.filters, self.grant_to)
        if any(isinstance(names, str) for names in tuples):
            raise DefinitionError("filters and grant_to: expected a tuple of names, such as ('section',), got a str")
        object.__setattr__(self, "filters", tuple(map(Filter.of, self.filters)))
        object.__setattr__(self, "grant_to", tuple(self.grant_to))
        names = [test.argument for test in self.tests]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DefinitionError(f"two filters have the argument {safe_repr(twice[0])}: name each once")
        if self.related is not None and not 1 <= self.related <= RELATED_LIMIT:
            raise DefinitionError(f"related={self.related}: expected 1 to {RELATED_LIMIT:,}")
        if self.stored and self.related is None:
            raise DefinitionError("stored=True keeps the related rows: say how many with related=10")
        if self.name is not None and not 1 <= len(self.name.encode()) <= LIMIT:
            raise DefinitionError(
                f"name={safe_repr(self.name)}: expected 1 to {LIMIT} bytes, got {len(self.name.encode())}"
            )

    @property
    def tests(self) -> Sequence[Filter]:
        """The filters, each as a `Filter`."""
        return [Filter.of(declared) for declared in self.filters]
