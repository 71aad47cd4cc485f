"""A full vector's column as its SQL functions see it: the names of all that is made, types, where the vectors are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

from pgmrl.errors import DefinitionError
from pgmrl.model.distribution import distribution_column
from pgmrl.model.fulltext import config_of
from pgmrl.model.ranking_sql import key_names
from pgmrl.model.shortening import Rotation
from pgmrl.model.sql_functions import SUFFIXES
from pgmrl.names import identifier, qualified, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Column

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition
    from pgmrl.model.sql_functions import Filter, SqlFunctions

__all__ = ["VERSION", "SearchedColumn", "sql_type"]

VERSION: Final = 1
"""Of the functions' text: a worker's name ends with it, so that two versions never mix."""

RESULT_COLUMNS: Final = (
    "distance",
    "similarity",
    "rank",
    "requested",
    "returned",
    "score",
    "vector_rank",
    "words_rank",
)
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
CATALOGUE_TYPES: Final = {
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


@dataclass(frozen=True, slots=True)
class SearchedColumn:
    """The full vector's column of one table, with all that its SQL functions are made of.

    Attributes:
        functions: what is declared.
        schema: of the table.
        table: the table.
        full_column: the full vector's column.
        definition: full and short vector.
        key_columns: the primary key's columns with their types as SQL, in order.
        other_columns: the columns of filters, groups and words, with their types as SQL.
        side_table: the side table, where the vectors are searched there; in the table's schema.
        vector_schema: the schema pgvector lives in.
        managed: whether a model declares the functions, so that autogenerate drops what no model declares any more.
        distributed: the distribution column of a table of Citus's, whose searches go to the shards; None for another.

    Raises:
        DefinitionError: no primary key, a filter on an unknown column, or nothing to search by.

    """

    functions: SqlFunctions
    schema: str
    table: str
    full_column: str
    definition: Definition
    key_columns: tuple[tuple[str, str], ...]
    other_columns: tuple[tuple[str, str], ...] = ()
    side_table: str | None = None
    vector_schema: str = "public"
    managed: bool = False
    distributed: str | None = None

    def __post_init__(self) -> None:
        if not self.key_columns:
            raise DefinitionError(f"table {self.table} has no primary key: functions return rows by their key")
        if not self.definition.learned:
            raise DefinitionError(
                f"{self.table}.{self.full_column} has no short vectors yet: run `pgmrl fit-rotation`, then "
                "install its functions"
            )
        known = dict(self.other_columns)
        for test in self.functions.tests:
            if test.column not in known:
                raise DefinitionError(
                    f"filter {safe_repr(str(test))}: table {self.table} has no column {safe_repr(test.column)}; "
                    f"expected a column, or a column, a space and one of the tests {', '.join(SUFFIXES)}"
                )
        if self.functions.words is not None and self.functions.config is None:
            raise DefinitionError(
                f"functions of {self.table}: say the text search configuration of {safe_repr(self.functions.words)}, "
                "such as config='english': words in another one find nothing"
            )
        for name in (self.functions.group_by, self.functions.words):
            if name is not None and name not in known:
                raise DefinitionError(f"functions of {self.table}: it has no column {safe_repr(name)}")
        if self.distributed is not None and self.functions.related is not None:
            raise DefinitionError(
                f"functions of {self.table}: related={self.functions.related} is a view that calls a function for each "
                "row, which the shards of a distributed table do not have: leave it out, and call the function "
                f"{self.object_name('similar')} for a row"
            )

    @classmethod
    def of(
        cls,
        column: Column[Any],
        attachment: Attachment,
        functions: SqlFunctions,
        schema: str,
        vector_schema: str,
        *,
        managed: bool = False,
    ) -> SearchedColumn:
        """A Table's column with its functions.

        Args:
            column: the full vector's column.
            attachment: what pgmrl knows of it.
            functions: what is declared.
            schema: the table's, where its MetaData does not say.
            vector_schema: the schema pgvector lives in.
            managed: whether a model declares them.

        Raises:
            DefinitionError: see the class.

        """
        table = column.table
        side_table = None if attachment.side is None else table.metadata.tables[attachment.side].name
        names = {test.column for test in functions.tests} | {functions.group_by, functions.words}
        others = [other for other in table.columns if other.name in names]
        if functions.words is not None and functions.config is None and functions.words in table.c:
            functions = replace(functions, config=config_of(table.c[functions.words]))
        return cls(
            functions,
            table.schema or schema,
            table.name,
            attachment.full,
            attachment.definition,
            _with_types(table.primary_key.columns),
            _with_types(others),
            side_table,
            vector_schema,
            managed,
            distribution_column(table, attachment.distributed).name if attachment.distributed else None,
        )

    # -- what is made ------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """What the functions' names begin with."""
        return self.functions.name or self.table

    def object_name(self, suffix: str) -> str:
        """The name of a function, view or type of theirs, without its schema; never longer than PostgreSQL takes."""
        return identifier(f"{self.prefix}_{suffix}")

    def qualified_name(self, suffix: str) -> str:
        """The name of a function, view or type of theirs as SQL text."""
        return qualified(self.functions_schema, self.object_name(suffix))

    @property
    def functions_schema(self) -> str:
        """Where they are made."""
        return self.functions.schema or self.schema

    def worker_name(self, kind: str = "search") -> str:
        """The function that does the work of a function people call, as SQL text."""
        return self.qualified_name(f"{kind}_v{VERSION}")

    @property
    def function_kinds(self) -> tuple[str, ...]:
        """The functions that people call."""
        groups = ("search_groups",) if self.functions.group_by else ()
        hybrid = ("hybrid",) if self.functions.words else ()
        by_vector = ("search", "search_diverse", *groups, *hybrid)
        by_text = tuple(f"{kind}_text" for kind in by_vector) if self.functions.model else ()
        return (*by_vector, "similar", "search_named", *by_text, "vector")

    @property
    def worker_kinds(self) -> tuple[str, ...]:
        """Those that have a worker of their own."""
        without = {"similar", "search_named", "vector"}
        return tuple(kind for kind in self.function_kinds if kind not in without and not kind.endswith("_text"))

    @property
    def result_types(self) -> tuple[str, ...]:
        """The types they return."""
        return ("hit", *(("fused",) if self.functions.words else ()))

    @property
    def view_names(self) -> list[str]:
        """The views that belong to them."""
        kinds = ["related"] if self.functions.related is not None else []
        kinds += ["related_stored"] if self.functions.stored else []
        return [self.object_name(kind) for kind in kinds]

    # -- names of columns and arguments ------------------------------------------------------------------------

    @property
    def key_names(self) -> list[str]:
        """The names the key's columns have within a worker's statement."""
        return key_names(len(self.key_columns))

    @property
    def result_key_names(self) -> list[str]:
        """The key's columns in the result; one that would hide a column of the result is renamed."""
        return _distinct([name for name, _ in self.key_columns], RESULT_COLUMNS, "_key")

    @property
    def view_key_names(self) -> tuple[list[str], list[str]]:
        """The key's columns in the views of related rows: of the row, and of the one related to it."""
        own = self.result_key_names
        related = [f"related_{name}" for name, _ in self.key_columns]
        return own, _distinct(related, [*RESULT_COLUMNS, *own], "_key")

    @property
    def key_argument_names(self) -> list[str]:
        """The key's columns as arguments of `…_similar` and `…_vector`."""
        return _distinct([name for name, _ in self.key_columns], ARGUMENTS, "_key")

    @property
    def key_arguments(self) -> list[str]:
        """The same with their types, as SQL text."""
        names = zip(self.key_argument_names, self.key_columns, strict=True)
        return [f"{quoted(name)} {type_}" for name, (_, type_) in names]

    def argument_name(self, test: Filter) -> str:
        """The argument of a filter; one that another argument is named like is renamed."""
        tests = list(self.functions.tests)
        names = _distinct([other.argument for other in tests], [*ARGUMENTS, *self.key_argument_names], "_is")
        return names[tests.index(test)]

    def argument_type(self, test: Filter) -> str:
        """The type of a filter's argument as SQL."""
        type_ = dict(self.other_columns)[test.column]
        return f"{type_}[]" if test.test == "in" else type_

    @property
    def vector_type(self) -> str:
        """The full vector's type without its dimensions, as SQL: an argument has none."""
        return self.qualified_definition.qualified(self.definition.full)

    # -- where the vectors are ----------------------------------------------------------------------------------

    @property
    def qualified_definition(self) -> Definition:
        """The definition with pgvector's schema said: a function's search_path is fixed."""
        return replace(self.definition, vector_schema=self.vector_schema)

    @property
    def from_clause(self) -> str:
        """What is read, as SQL text: the table as `t`, and its side table as `v`."""
        table = f"{qualified(self.schema, self.table)} AS t"
        if self.side_table is None:
            return table
        same = " AND ".join(f"v.{quoted(name)} = t.{quoted(name)}" for name, _ in self.key_columns)
        return f"{table} JOIN {qualified(self.schema, self.side_table)} AS v ON {same}"

    @property
    def full_vector(self) -> str:
        """The full vector of a row of `from_clause`, as SQL text."""
        return f"{'t' if self.side_table is None else 'v'}.{quoted(self.full_column)}"

    @property
    def short_vector(self) -> str:
        """The short vector of a row of `from_clause`, as SQL text."""
        return self.qualified_definition.short_sql(self.full_column, "t" if self.side_table is None else "v")

    @property
    def short_column(self) -> str:
        """The short vector's column, or the name of short vectors that only an index computes."""
        return self.definition.short_name(self.full_column)

    @property
    def vectors_table(self) -> str:
        """The table that holds the short vector, without its schema."""
        return self.side_table or self.table

    # -- what is remembered in the database --------------------------------------------------------------------

    @property
    def signature(self) -> str:
        """Arguments and results: functions of the same signature can be replaced without dropping what uses them."""
        keys = [f"{name} {type_}" for name, type_ in self.key_columns]
        tests = [f"{self.argument_name(test)} {self.argument_type(test)}" for test in self.functions.tests]
        return "; ".join([self.definition.full, *keys, *tests]).lower()

    def marker(self) -> Mapping[str, Any]:
        """What the worker's first line says about the functions, and the catalogue view reads."""
        functions, rule = self.functions, self.definition.short.by
        return {
            "version": VERSION,
            "name": self.prefix,
            "schema": self.schema,
            "table": self.table,
            "column": self.full_column,
            "short": self.short_column,
            "rule": rule.id if isinstance(rule, Rotation) else "prefix",
            "metric": self.definition.metric.name,
            "full": f"{self.definition.full}({self.definition.dims})",
            "dims": self.definition.short.dims,
            "type": self.definition.short.type,
            "has_column": self.definition.has_column,
            "side": self.side_table,
            "filters": [str(test) for test in functions.tests],
            "related": functions.related,
            "stored": functions.stored,
            "group_by": functions.group_by,
            "words": functions.words,
            "config": functions.config if functions.words else None,
            "model": functions.model,
            "grant_to": sorted(functions.grant_to),
            "managed": self.managed,
            **({"distributed": self.distributed} if self.distributed is not None else {}),
            "keys": [list(column) for column in self.key_columns],
            "types": [list(column) for column in self.other_columns],
            "signature": self.signature,
            "functions": [self.object_name(kind) for kind in self.function_kinds],
            "workers": [self.object_name(f"{kind}_v{VERSION}") for kind in self.worker_kinds],
            "results": [self.object_name(result) for result in self.result_types],
            "views": self.view_names,
        }


def _distinct(names: Iterable[str], taken: Iterable[str], ending: str) -> list[str]:
    """Names that PostgreSQL keeps apart: none is taken, none longer than it takes, none like those of its own."""
    distinct: list[str] = []
    for name in names:
        candidate = name
        while _unusable(identifier(candidate), {*taken, *distinct}):
            candidate = f"{candidate}{ending}"
        distinct.append(identifier(candidate))
    return distinct


def _unusable(name: str, taken: set[str]) -> bool:
    return name in taken or re.fullmatch(r"\$\d+", name) is not None  # PL/pgSQL names each argument $1 as well


def _with_types(columns: Iterable[Column[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(column.name), sql_type(column.type.compile(dialect=_DIALECT))) for column in columns)


def sql_type(type_: str) -> str:
    """A type as the catalogue spells it, without a length: an argument has none."""
    if '"' in type_:  # an enumeration's own name
        return type_
    bare = re.sub(r"\s*\([0-9, ]*\)", "", type_)
    return CATALOGUE_TYPES.get(bare.lower(), bare.lower() if bare.isupper() else bare)
