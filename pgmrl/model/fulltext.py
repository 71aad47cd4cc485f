"""Full-text columns beside the vector: a generated `tsvector`, its GIN index, and the configuration queries must share.

    words tsvector GENERATED ALWAYS AS (
        setweight(to_tsvector('english'::regconfig, COALESCE(name, '')), 'A') || …
    ) STORED

A query that is parsed with another configuration than the column finds nothing, and nothing fails. So the declaration
keeps the configuration with the column, and `Words` takes it from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeGuard

from sqlalchemy import Column, Computed, Enum, Index, String, Table, Text, event, literal_column, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import mapped_column

from pgmrl.errors import DefinitionError, NotMigrated
from pgmrl.model.argument_types import is_unicode, name_argument, optional_name, plain_text, truth_value
from pgmrl.model.columns import base_column
from pgmrl.model.sqlalchemy_internals import TableType, set_computed
from pgmrl.names import identifier, literal, qualified, quoted
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import InstrumentedAttribute, MappedColumn

__all__ = [
    "FullText",
    "Match",
    "TextSource",
    "Weight",
    "check_config",
    "config_of",
    "finds_rows_sql",
    "full_text",
    "text_source",
    "trigram_index",
    "tsquery_sql",
]

INFO_KEY: Final = "pgmrl_text"
WEIGHTS: Final = ("A", "B", "C", "D")

Match = Literal["any", "all", "web"]
"""Which rows a text finds: those with any of its words, with all of them, or as search engines read it: all of them,
and "quotes", `or` and `-`."""

Weight = Literal["A", "B", "C", "D"]
"""How much a word counts by where it stands; PostgreSQL ranks A, B, C, D as 1, 0.4, 0.2, 0.1."""


@dataclass(frozen=True, slots=True)
class TextSource:
    """What a full-text column is made of; kept in `Column.info`, so that copies of a table carry it.

    Attributes:
        columns: the text columns by key, each with its weight; None counts as D.
        config: the text search configuration, of the column and of every query.

    Raises:
        DefinitionError: no column, a weight that does not exist, or no configuration.

    """

    columns: tuple[tuple[str, Weight | None], ...]
    config: str

    def __post_init__(self) -> None:
        _check_source(self)

    @classmethod
    def of(cls, columns: tuple[str | Mapping[str, Weight | None], ...], config: str) -> TextSource:
        """From names, or from one mapping of names to weights."""
        if len(columns) == 1 and isinstance(columns[0], Mapping):
            try:
                return cls(tuple(columns[0].items()), config)
            except DefinitionError:
                raise
            except Exception:  # whatever the mapping's own methods raise
                raise DefinitionError(f"expected a mapping of names to weights, got {safe_repr(columns[0])}") from None
        mixed = [column for column in columns if not isinstance(column, str)]
        if mixed:
            raise DefinitionError(
                f"expected names of columns, or one mapping of names to weights, got {safe_repr(mixed[0])}"
            )
        return cls(tuple((str(column), None) for column in columns), config)


class FullText(TSVECTOR, TableType):
    """The type of a generated `tsvector` column; attached to a table it brings the expression and the GIN index.

    In a declarative class use `full_text(...)`, which also defers loading. For a `Table`:

        Table("packages", metadata, Column("name", Text), Column("words", FullText({"name": "A"}, config="english")))

    Once attached, the column is a plain `TSVECTOR` with a `Computed`, as Alembic writes it.

    Args:
        *columns: keys of text columns of the same table, or one mapping of keys to weights (`A` to `D`).
        config: the text search configuration, such as `english` or `simple`.
        index: add a GIN index.

    Raises:
        DefinitionError: as `TextSource`; when the table is made, a column that it does not have or that is no text.

    """

    cache_ok = True

    def __init__(self, *columns: str | Mapping[str, Weight | None], config: str, index: bool = True) -> None:
        super().__init__()
        self.source = TextSource.of(columns, config)
        self.index = truth_value("index", index, DefinitionError)

    def __repr__(self) -> str:
        return f"FullText({dict(self.source.columns)!r}, config={self.source.config!r})"

    def copy(self, **_: Any) -> FullText:
        """A copy for another column, as of a mixin."""
        return FullText(dict(self.source.columns), config=self.source.config, index=self.index)

    def on_table(self, column: Column[Any], table: Table) -> None:
        """Make the column a generated one and add its index, once the table has all its columns."""
        if INFO_KEY in column.info:
            return
        column.info[INFO_KEY] = self.source
        column.type = TSVECTOR()  # copies of the table are plain
        # the columns it is made of may come after it: wait until the table has all
        event.listen(table, "after_parent_attach", lambda made, _: self._generate(column, made))

    def _generate(self, column: Column[Any], table: Table) -> None:
        if column.computed is None:
            set_computed(column, Computed(_expression(self.source, column, table), persisted=True))
        if self.index:
            Index(identifier(f"{table.name}_{column.name}_gin"), column, postgresql_using="gin")


def full_text(
    *columns: str | Mapping[str, Weight | None],
    config: str,
    index: bool = True,
    deferred: bool = True,
    **column: Any,
) -> MappedColumn[str]:
    """A full-text attribute of a declarative class.

        words: Mapped[str] = full_text({"name": "A", "synopsis": "B"}, config="english")

    PostgreSQL writes it. NULLs in the text count as empty. SQLAlchemy fetches what the server generates back after the
    INSERT of an object; `__mapper_args__ = {"eager_defaults": False}` in the class keeps it from that. The other
    arguments and the errors are those of `FullText`.

    Args:
        deferred: load the lexemes only when they are read.
        **column: further arguments of `mapped_column`.

    """
    type_ = FullText(*columns, config=config, index=index)
    return mapped_column(type_, deferred=truth_value("deferred", deferred, DefinitionError), **column)


def text_source(column: Any) -> TextSource | None:
    """What a column was declared from; None for one that was not declared with pgmrl.

    Raises:
        DefinitionError: it is no `tsvector` column.

    """
    base = base_column(column)
    if not isinstance(base.type, TSVECTOR):
        raise DefinitionError(
            f"{column} is {safe_repr(base.type)}, not tsvector: declare one with full_text(...), or give the "
            "column that is"
        )
    source = base.info.get(INFO_KEY)
    return source if isinstance(source, TextSource) else None


def config_of(column: Column[Any]) -> str | None:
    """The configuration that a generated column is made with, as declared or reflected; None where that is not seen.

    Raises:
        DefinitionError: it is no `tsvector` column.

    """
    source = text_source(column)
    if source is not None:
        return source.config
    expression = "" if column.computed is None else str(column.computed.sqltext)
    configs = set(re.findall(r"to_tsvector\('((?:[^']|'')+)'::regconfig", expression))
    return str(configs.pop()).replace("''", "'") if len(configs) == 1 else None


def trigram_index(
    column: InstrumentedAttribute[Any] | Column[Any], *, name: str | None = None, extension_schema: str | None = None
) -> Index:
    """Add a trigram index to a text column, for `Trigrams`. Call it after the class or Table is defined.

        trigram_index(Package.name)

    Args:
        column: a text column.
        name: the index's name; by default table and column joined.
        extension_schema: the schema pg_trgm lives in, where that is not on the search_path.

    Raises:
        DefinitionError: it is no text column of a table.
        NotMigrated: when the table is created, and the database does not have pg_trgm.

    """
    base = base_column(column)
    optional_name("name", name, DefinitionError)
    optional_name("extension_schema", extension_schema, DefinitionError)
    table: Any = base.table
    if not isinstance(table, Table) or not _is_text(base.type):
        raise DefinitionError(f"{safe_str(column)}: expected a text column of a table: trigrams are made of text")
    index = Index(
        name or identifier(f"{base.table.name}_{base.name}_trgm"),
        base,
        postgresql_using="gin",
        postgresql_ops={base.key: qualified(extension_schema, "gin_trgm_ops")},
    )
    event.listen(base.table, "before_create", _require_pg_trgm, propagate=True)
    return index


def _require_pg_trgm(table: Table, connection: Connection, **_: Any) -> None:
    extension: Any = connection.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'"))
    if extension is not None and extension.first() is None:  # None: SQL is only written
        raise NotMigrated(
            f"table {table.name} has a trigram index, and pg_trgm is not installed in this database: "
            "run CREATE EXTENSION pg_trgm"
        )


# -- the expression ------------------------------------------------------------------------------------------------


def _expression(source: TextSource, column: Column[Any], table: Table) -> Any:
    return literal_column(" || ".join(_part(source, key, weight, column, table) for key, weight in source.columns))


def _part(source: TextSource, key: str, weight: Weight | None, column: Column[Any], table: Table) -> str:
    """One column's lexemes; in PostgreSQL's own spelling, so that Alembic finds what it wrote."""
    read = table.c.get(key)
    if read is None or read is column:
        raise DefinitionError(
            f"{table.name}.{column.name} is made of {safe_repr(key)}: expected another column of {table.name}, "
            f"which has {', '.join(repr(other.key) for other in table.c if other is not column)}"
        )
    if not _is_text(read.type):
        raise DefinitionError(
            f"{table.name}.{column.name} is made of {safe_repr(key)}: expected a column of String or Text, got "
            f"{safe_repr(read.type)}"
        )
    if isinstance(read.type, Text):
        value = f"COALESCE({quoted(read.name)}, ''::text)"
    else:
        value = f"COALESCE({quoted(read.name)}, ''::character varying)::text"
    # with a literal configuration: without one the expression depends on a setting, and cannot be stored
    words = f"to_tsvector({literal(source.config)}::regconfig, {value})"
    return words if weight is None else f"setweight({words}, '{weight}'::\"char\")"


def _is_text(type_: Any) -> TypeGuard[String]:
    return isinstance(type_, String) and not isinstance(type_, Enum)


def _check_source(source: TextSource) -> None:
    if not source.columns:
        raise DefinitionError("a full-text column is made of text columns: name at least one")
    keys = [name_argument("a full-text column's source", key, DefinitionError) for key, _ in source.columns]
    if len(set(keys)) < len(keys):
        raise DefinitionError(f"a full-text column names a column twice: {', '.join(keys)}")
    weights: tuple[tuple[str, Any], ...] = source.columns
    for key, weight in weights:
        if weight is not None and (not isinstance(weight, str) or weight not in WEIGHTS):
            raise DefinitionError(
                f"the weight of {safe_repr(key)} is {safe_repr(weight)}: expected one of A, B, C, D, or None"
            )
    check_config(source.config)


def tsquery_sql(config: str, match: Match, words: str) -> str:
    """The `tsquery` of a text; the parser makes lexemes of whatever the text holds, so that no text is syntax.

    A driver sends the text as `varchar`, which a stranger's function of the same name would fit better.

    Args:
        config: the text search configuration, as SQL text of a string.
        match: how the words are put together.
        words: the text, as SQL text.
    """
    function = "websearch_to_tsquery" if match == "web" else "plainto_tsquery"
    query = f"pg_catalog.{function}({config}::pg_catalog.regconfig, CAST({words} AS pg_catalog.text))"
    return query if match != "any" else f"pg_catalog.replace({query}::text, ' & ', ' | ')::pg_catalog.tsquery"


def finds_rows_sql(query: str) -> str:
    """Whether a `tsquery` can find rows: words that are only excluded are no reason to return one."""
    return f"pg_catalog.querytree({query}) NOT IN ('', 'T')"


def check_config(config: Any) -> str:
    """The name of a text search configuration.

    Raises:
        DefinitionError: it cannot be one.

    """
    name = plain_text(config)
    if name is None or not name.strip() or "\0" in name or not is_unicode(name):
        raise DefinitionError(
            f"config={safe_repr(config)}: expected the name of a text search configuration, such as 'english' "
            "or 'simple'"
        )
    return name
