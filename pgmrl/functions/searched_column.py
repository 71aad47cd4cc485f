"""One column's functions with everything their text needs: names, types, where the vectors are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

from pgmrl.errors import DefinitionError
from pgmrl.model.fulltext import config_of
from pgmrl.model.shortening import Rotation
from pgmrl.model.sql_functions import SqlFunctions
from pgmrl.names import identifier, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Column

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition
    from pgmrl.model.sql_functions import Filter

__all__ = ["VERSION", "Place", "place_of", "spelled"]

VERSION: Final = 1
"""Of the functions' text: the worker's name ends with it, so that two versions never mix."""

RESULT: Final = ("distance", "similarity", "rank", "requested", "returned", "score", "vector_rank", "words_rank")
SPELLINGS: Final = {
    "varchar": "character varying",
    "char": "bpchar",  # `character` without a length is of one
    "character": "bpchar",
    "float": "double precision",
    "decimal": "numeric",
    "int": "integer",
    "bool": "boolean",
    "datetime": "timestamp without time zone",
}
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]
ARGUMENTS: Final = (
    "query",
    "k",
    "shortlist",
    "exact",
    "name",
    "words",
    "relevance",
    "per_group",
    "match",
    "fusion",
    "words_weight",
)


@dataclass(frozen=True, slots=True)
class Place:
    """The functions of one column of one table.

    Attributes:
        declared: what is wanted.
        schema: of the table.
        table: the table.
        column: the full vector's column.
        definition: full and short vector.
        keys: the primary key's columns with their types as SQL, in order.
        types: the other columns that are used, with their types as SQL.
        side: the side table, where the vectors are searched there; in the table's schema.
        vector_schema: the schema pgvector lives in.
        managed: whether a model declares them, so that autogenerate drops what no model declares any more.

    Raises:
        DefinitionError: no primary key, a filter on an unknown column, or nothing to search by.

    """

    declared: SqlFunctions
    schema: str
    table: str
    column: str
    definition: Definition
    keys: tuple[tuple[str, str], ...]
    types: tuple[tuple[str, str], ...] = ()
    side: str | None = None
    vector_schema: str = "public"
    managed: bool = False

    def __post_init__(self) -> None:
        if not self.keys:
            raise DefinitionError(f"table {self.table} has no primary key: functions return rows by their key")
        if not self.definition.learned:
            raise DefinitionError(
                f"{self.table}.{self.column} has no short vectors yet: run `pgmrl fit`, then install its functions"
            )
        known = dict(self.types)
        for one in self.declared.tests:
            if one.column not in known:
                raise DefinitionError(f"filter {str(one)!r}: table {self.table} has no column {one.column!r}")
        if self.declared.words is not None and self.declared.config is None:
            raise DefinitionError(
                f"functions of {self.table}: say the text search configuration of {self.declared.words!r}, such as "
                "config='english': words in another one find nothing"
            )
        for name in (self.declared.group_by, self.declared.words):
            if name is not None and name not in known:
                raise DefinitionError(f"functions of {self.table}: it has no column {name!r}")

    # -- names -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the functions' names begin with."""
        return self.declared.name or self.table

    def named(self, suffix: str) -> str:
        """The name of one of them, without its schema; never longer than PostgreSQL takes."""
        return identifier(f"{self.name}_{suffix}")

    def sql(self, suffix: str) -> str:
        """The name of one of them as SQL text."""
        return qualified(self.functions_schema, self.named(suffix))

    @property
    def functions_schema(self) -> str:
        """Where they are made."""
        return self.declared.schema or self.schema

    def worker(self, kind: str = "search") -> str:
        """The function that does the work, as SQL text."""
        return self.sql(f"{kind}_v{VERSION}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The functions that people call."""
        groups = ("search_groups",) if self.declared.group_by else ()
        hybrid = ("hybrid",) if self.declared.words else ()
        return ("search", "similar", "search_named", "search_diverse", *groups, *hybrid, "vector")

    @property
    def working(self) -> tuple[str, ...]:
        """Those that have a function of their own behind them."""
        return tuple(kind for kind in self.kinds if kind not in {"similar", "search_named", "vector"})

    @property
    def results(self) -> tuple[str, ...]:
        """The types they return."""
        return ("hit", *(("fused",) if self.declared.words else ()))

    @property
    def key_results(self) -> list[str]:
        """The key's columns in the result; one that would hide a column of the result is renamed."""
        return _apart([name for name, _ in self.keys], RESULT, "_key")

    @property
    def view_keys(self) -> tuple[list[str], list[str]]:
        """The key's columns in the views of related rows: of the row, and of the one related to it."""
        own = _apart([name for name, _ in self.keys], RESULT, "_key")
        return own, _apart([f"related_{name}" for name, _ in self.keys], [*RESULT, *own], "_key")

    @property
    def key_arguments(self) -> list[str]:
        """The key's columns as arguments of `…_similar` and `…_vector`."""
        return _apart([name for name, _ in self.keys], ARGUMENTS, "_key")

    def argument(self, one: Filter) -> str:
        """The argument of a filter; one that another argument is named like is renamed."""
        tests = self.declared.tests
        names = _apart([test.argument for test in tests], [*ARGUMENTS, *self.key_arguments], "_is")
        return names[list(tests).index(one)]

    def argument_type(self, one: Filter) -> str:
        """The type of a filter's argument as SQL."""
        type_ = dict(self.types)[one.column]
        return f"{type_}[]" if one.test == "in" else type_

    @property
    def full_type_name(self) -> str:
        """The full vector's type without its dimensions, as SQL: an argument has none."""
        return self.qualified_definition.qualified(self.definition.full)

    # -- where the vectors are ----------------------------------------------------------------------------------

    @property
    def qualified_definition(self) -> Definition:
        """The definition with pgvector's schema said: a function's search_path is fixed."""
        return replace(self.definition, vector_schema=self.vector_schema)

    @property
    def source(self) -> str:
        """What is read, as SQL text: the table as `t`, and its side table as `v`."""
        table = f"{qualified(self.schema, self.table)} AS t"
        if self.side is None:
            return table
        same = " AND ".join(f"v.{quoted(name)} = t.{quoted(name)}" for name, _ in self.keys)
        return f"{table} JOIN {qualified(self.schema, self.side)} AS v ON {same}"

    @property
    def full(self) -> str:
        """The full vector of a row, as SQL text."""
        return f"{'t' if self.side is None else 'v'}.{quoted(self.column)}"

    @property
    def short(self) -> str:
        """The short vector of a row, as SQL text."""
        return f"{'t' if self.side is None else 'v'}.{quoted(self.short_column)}"

    @property
    def short_column(self) -> str:
        """The short vector's column."""
        return self.definition.short_name(self.column)

    @property
    def owner_of_vectors(self) -> str:
        """The table that holds the short vector, without its schema."""
        return self.side or self.table

    # -- what is remembered in the database --------------------------------------------------------------------

    @property
    def signature(self) -> str:
        """Arguments and results: functions of the same signature can be replaced without dropping what uses them."""
        keys = [f"{name} {type_}" for name, type_ in self.keys]
        tests = [f"{self.argument(one)} {self.argument_type(one)}" for one in self.declared.tests]
        return "; ".join([self.definition.full, *keys, *tests]).lower()

    def marker(self) -> Mapping[str, Any]:
        """What the worker's first line says about the functions, and the catalogue view reads."""
        declared, rule = self.declared, self.definition.short.by
        return {
            "version": VERSION,
            "name": self.name,
            "schema": self.schema,
            "table": self.table,
            "column": self.column,
            "short": self.short_column,
            "rule": rule.id if isinstance(rule, Rotation) else "prefix",
            "metric": self.definition.metric.name,
            "full": f"{self.definition.full}({self.definition.dims})",
            "dims": self.definition.short.dims,
            "type": self.definition.short.type,
            "side": self.side,
            "filters": [str(one) for one in declared.tests],
            "related": declared.related,
            "stored": declared.stored,
            "group_by": declared.group_by,
            "words": declared.words,
            "config": declared.config if declared.words else None,
            "grant_to": sorted(declared.grant_to),
            "managed": self.managed,
            "keys": [list(one) for one in self.keys],
            "types": [list(one) for one in self.types],
            "signature": self.signature,
            "functions": [self.named(kind) for kind in self.kinds],
            "workers": [self.named(f"{kind}_v{VERSION}") for kind in self.working],
            "results": [self.named(result) for result in self.results],
            "views": self.views,
        }

    @property
    def views(self) -> list[str]:
        """The views that belong to them."""
        found = ["related"] if self.declared.related is not None else []
        found += ["related_stored"] if self.declared.stored else []
        return [self.named(kind) for kind in found]


def _apart(names: Iterable[str], taken: Iterable[str], ending: str) -> list[str]:
    """Names that PostgreSQL keeps apart: none is taken, none longer than it takes, none like those of its own."""
    found: list[str] = []
    for name in names:
        one = identifier(name)
        while one in {*taken, *found} or re.fullmatch(r"\$\d+", one):  # PL/pgSQL names each argument $1 as well
            name = f"{name}{ending}"  # noqa: PLW2901
            one = identifier(name)
        found.append(one)
    return found


# -- from a Table ----------------------------------------------------------------------------------------------------


def place_of(
    column: Column[Any],
    attachment: Attachment,
    declared: SqlFunctions,
    schema: str,
    vector_schema: str,
    *,
    managed: bool = False,
) -> Place:
    """The functions of a Table's column.

    Args:
        column: the full vector's column.
        attachment: what pgmrl knows of it.
        declared: what is wanted.
        schema: the table's, where its MetaData does not say.
        vector_schema: the schema pgvector lives in.
        managed: whether a model declares them.

    Raises:
        DefinitionError: see `Place`.

    """
    table = column.table
    side = None if attachment.side is None else column.table.metadata.tables[attachment.side].name
    wanted = {one.column for one in declared.tests} | {declared.group_by, declared.words}
    tested = [found for found in table.columns if found.name in wanted]
    if declared.words is not None and declared.config is None and declared.words in table.c:
        declared = replace(declared, config=config_of(table.c[declared.words]))
    return Place(
        declared,
        table.schema or schema,
        table.name,
        attachment.full,
        attachment.definition,
        _typed(table.primary_key.columns),
        _typed(tested),
        side,
        vector_schema,
        managed,
    )


def _typed(columns: Iterable[Column[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(column.name), spelled(column.type.compile(dialect=_DIALECT))) for column in columns)


def spelled(type_: str) -> str:
    """A type as the catalogue spells it, without a length: an argument has none."""
    if '"' in type_:  # an enumeration's own name
        return type_
    bare = re.sub(r"\s*\([0-9, ]*\)", "", type_)
    return SPELLINGS.get(bare.lower(), bare.lower() if bare.isupper() else bare)
