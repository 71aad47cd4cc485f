"""What a model, a migration or the command line says about the SQL functions of one column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pgmrl.errors import DefinitionError
from pgmrl.model.argument_types import argument_list, name_argument, optional_name, truth_value, whole_number
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
        name_argument("a filter's column", self.column, DefinitionError)
        test: Any = self.test
        if not isinstance(test, str) or test not in SUFFIXES:
            raise DefinitionError(
                f"filter on {safe_repr(self.column)}: expected one of the tests {', '.join(SUFFIXES)}, got "
                f"{safe_repr(self.test)}"
            )

    @classmethod
    def of(cls, declared: str | Filter) -> Filter:
        """A filter from `"section"`, `"size >="`, `"size <="`, `"section in"` or `"tags contains"`."""
        if isinstance(declared, Filter):
            return declared
        if not isinstance(declared, str):
            raise DefinitionError(
                f"the filter {safe_repr(declared)}: expected a column's name, as 'section' or 'size >='"
            )
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
        model: by which the column's vectors were embedded: also functions that search by words. One that is installed
            in the database (`pgmrl model install`), or as `load_embedder` takes it, with a colon: its worker is
            `pgmrl query serve`.
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
    model: str | None = None
    grant_to: tuple[str, ...] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        expected = "a tuple of names, such as ('section',)"
        filters = argument_list("filters", self.filters, DefinitionError, expected)
        roles = argument_list("grant_to", self.grant_to, DefinitionError, expected)
        object.__setattr__(self, "filters", tuple(map(Filter.of, filters)))
        object.__setattr__(self, "grant_to", tuple(name_argument("grant_to", role, DefinitionError) for role in roles))
        object.__setattr__(self, "stored", truth_value("stored", self.stored, DefinitionError))
        for name in ("name", "group_by", "words", "config", "model", "schema"):
            optional_name(name, getattr(self, name), DefinitionError)
        names = [test.argument for test in self.tests]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DefinitionError(f"two filters have the argument {safe_repr(twice[0])}: name each once")
        if self.related is not None:
            related = whole_number("related", self.related, DefinitionError, 1, RELATED_LIMIT)
            object.__setattr__(self, "related", related)
        if self.stored and self.related is None:
            raise DefinitionError("stored=True keeps the related rows: say how many with related=10")

    @property
    def tests(self) -> Sequence[Filter]:
        """The filters, each as a `Filter`."""
        return [Filter.of(declared) for declared in self.filters]
