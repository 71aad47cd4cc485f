"""Over shards: the caller's columns come with the shortlist, so that nothing is joined afterwards.

    WITH packages AS (
        SELECT id AS key_1, id, name, <full> <=> :query AS distance FROM packages WHERE <the caller's filters>
        ORDER BY <short> <=> (SELECT :short WHERE <gate>) LIMIT <shortlist>
    )
    SELECT packages.id, packages.name, packages.distance
    FROM packages WHERE <the caller's filters> ORDER BY packages.distance, packages.id LIMIT <k>

The CTE has the name of the table, and so the caller's Select reads it in the table's place. A join of the k results to
the table would be one more round over all shards, because Citus does not know on which of them they are; on one server
it is the join that is cheap, and columns of a hundred rows that are not.

Only for a Select that reads nothing but plain columns of the searched table without vectors, and says which: what is
in text is not known. And a table without a schema of its own, since no CTE has the name of a table in a schema.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    ColumnClause,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    SelectBase,
    Table,
    TextClause,
    Uuid,
    inspect,
    literal_column,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapper

from pgmrl.errors import SearchError
from pgmrl.model.columns import base_column
from pgmrl.model.ranking_sql import key_names
from pgmrl.model.sqlalchemy_internals import adds_schema, has_options
from pgmrl.names import quoted
from pgmrl.searching.distributed_statement import one_shard
from pgmrl.searching.fallback import EXACT, RERANKED, Ranking, falls_short_sql
from pgmrl.searching.selected_rows import materialized
from pgmrl.searching.subject import Subject, reads_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import CTE
    from sqlalchemy.sql.compiler import SQLCompiler

    from pgmrl.searching.options import SearchParameters
    from pgmrl.searching.subject import AnySelect

__all__ = ["carried_columns", "carried_statement"]

DISTANCE: Final = "distance"
NARROW: Final = (Integer, Numeric, Boolean, Date, DateTime, Uuid, Enum)
"""Types whose columns come along also where they are not selected: a Session's criteria may ask for them."""


def carried_columns(parameters: SearchParameters, statement: AnySelect) -> Mapping[str, Any]:
    """The columns that come with the shortlist, by name; empty where the results are to be joined.

    Args:
        parameters: the search.
        statement: the caller's Select.

    """
    attachment = parameters.attachment
    if not attachment.distributed or has_options(statement):
        return {}
    if one_shard(statement, parameters.column, attachment)[1] is not None:
        return {}
    subject = Subject.of(parameters.column, attachment)
    columns = _columns(statement, subject) if _reads_the_name(statement, subject) else None
    if columns is None:
        return {}
    own = {column.name: column for column in [*columns, *map(base_column, subject.keys)]}
    others = {attachment.full, attachment.short, DISTANCE, "full_vector", *key_names(len(subject.keys))}
    if own.keys() & others or not all(map(_stands_in_text, [subject.base.table.name, *own])):
        return {}
    if subject.mapper is not None:
        narrow = {column.name: column for column in _narrow(subject.mapper)}
        own |= {name: column for name, column in narrow.items() if name not in others and _stands_in_text(name)}
    return {name: subject.own(column) for name, column in own.items()}


def carried_statement(ranking: Ranking, parameters: SearchParameters, statement: AnySelect) -> AnySelect:
    """The caller's Select of the rows that come back, nearest first, without the distance.

    Args:
        ranking: the rows with the columns they carry, the query, and which rows come back.
        parameters: the search.
        statement: the caller's Select.

    """
    rows, page, definition = ranking.rows, ranking.page, ranking.definition
    name = base_column(parameters.column).table.name
    after = ranking.after_sql()
    limit = page.k + (page.offset or 0)
    where = [ranking.after()] if page.after else []
    if parameters.exact:
        ctes = [rows.exact_ranking(definition, ranking.query.vector, limit, *where, carry=rows.extra).cte(name)]
    else:
        ctes = _of_shortlist(ranking, parameters, name, limit, where)
    searched = statement.add_cte(*ranking.query.ctes, *ctes, nest_here=True)
    source = quoted(name)
    searched = searched.where(text(f"{source}.{DISTANCE} != 'NaN'"))
    if page.max_distance:
        searched = searched.where(ranking.text(f"{source}.{DISTANCE} <= :pgmrl_max"))
    if after is not None and not parameters.exact:
        searched = searched.where(ranking.text(after))
    searched = searched.order_by(_distance(name), *rows.keys).limit(literal_column(str(page.k)))
    return searched.offset(literal_column(str(page.offset))) if page.offset else searched


def _of_shortlist(
    ranking: Ranking, parameters: SearchParameters, name: str, limit: int, where: Sequence[Any]
) -> list[CTE]:
    """The shortlist by the table's name, with the fallback of all rows where that is to stand behind it."""
    rows, definition, bound = ranking.rows, ranking.definition, ranking.query
    columns = [*key_names(len(rows.keys)), *rows.extra]
    shortlist = rows.shortlist(definition, bound, parameters.scan)
    reranked = shortlist.distances(definition, bound, columns)
    if not ranking.completed(fallback=parameters.complete):
        return [reranked.cte(name)]
    falls_short = ranking.falls_short(falls_short_sql(shortlist.size))
    exact = rows.exact_ranking(
        definition, bound.vector, limit, ranking.text(f"({falls_short})"), *where, carry=rows.extra
    )
    names = ", ".join([*map(quoted, columns), DISTANCE])
    either = (
        f"SELECT {names} FROM {RERANKED} WHERE NOT ({falls_short}) "  # noqa: S608
        f"UNION ALL SELECT {names} FROM {EXACT}"
    )
    either_cte = ranking.text(either).columns().cte(name)
    return [*shortlist.ctes, materialized(reranked, RERANKED), materialized(exact, EXACT), either_cte]


class _CarriedDistance(ColumnClause[float]):
    """The distance in the CTE of the table's name, as SQL text."""

    inherit_cache = True


@compiles(_CarriedDistance)
def _compile(element: _CarriedDistance, compiler: SQLCompiler, **options: Any) -> str:
    if adds_schema(compiler):
        raise SearchError(
            "a schema_translate_map gives a schema to a distributed table that has none in the model, and no CTE can "
            "have its name: search an alias of it, aliased(Model), or say the schema in the model"
        )
    return compiler.visit_column(element, **options)


@lru_cache(maxsize=256)
def _distance(name: str) -> ColumnElement[float]:
    return _CarriedDistance(f"{quoted(name)}.{DISTANCE}", Float(), is_literal=True)


def _reads_the_name(statement: AnySelect, subject: Subject) -> bool:
    """Whether a Select reads the table alone, and by a name that a CTE can have.

    A column called as the distance would be taken for it where a schema_translate_map gives the table a schema.
    """
    table = subject.base.table
    if table.schema is not None or subject.selectable not in {table}:
        return False
    return all(column.name != DISTANCE for column in table.columns) and reads_only(statement, table)


def _columns(statement: AnySelect, subject: Subject) -> list[Column[Any]] | None:
    """The table's columns that a Select reads; None where it reads more than columns, or somebody else's."""
    selected, compared = _selected(statement, subject), _compared(statement.whereclause)
    return None if selected is None or compared is None else [*selected, *compared]


def _selected(statement: AnySelect, subject: Subject) -> list[Column[Any]] | None:
    columns: list[Column[Any]] = []
    for description in statement.column_descriptions:
        expression, entity = description["expr"], description.get("entity")
        if isinstance(expression, Table):
            return None  # with every column, the vectors too
        mapper = inspect(entity, raiseerr=False)
        if isinstance(mapper, Mapper) and _has_kinds(mapper):
            return None
        if entity is expression and isinstance(mapper, Mapper):
            if mapper is not subject.mapper or not _is_plain(mapper):
                return None
            columns += _loaded(mapper)
            continue
        column = next(iter(getattr(expression, "base_columns", ())), None)
        if not isinstance(column, Column) or column.table is not subject.base.table:
            return None
        columns.append(column)
    return columns


def _compared(condition: Any) -> list[Column[Any]] | None:
    columns: list[Column[Any]] = []
    for element in _elements(condition):
        if isinstance(element, SelectBase | TextClause):
            return None
        column = next(iter(getattr(element, "base_columns", ())), None) if isinstance(element, ColumnElement) else None
        if isinstance(column, Column):
            columns.append(column)
        elif isinstance(column, ColumnClause):
            return None  # text too
    return columns


def _stands_in_text(name: str) -> bool:
    """Whether a name can be quoted in text whose colons are parameters."""
    return ":" not in name and "\\" not in name


def _is_plain(mapper: Mapper[Any]) -> bool:
    """Whether rows of a class are the rows of its table, and nothing is loaded with them."""
    return all(relationship.lazy not in {"joined", False} for relationship in mapper.relationships) and all(
        isinstance(attribute.columns[0], Column) for attribute in mapper.column_attrs
    )


def _has_kinds(mapper: Mapper[Any]) -> bool:
    """Whether rows of a class are told from others of its table: by a condition that is not in the Select yet."""
    return mapper.inherits is not None or mapper.polymorphic_on is not None


def _loaded(mapper: Mapper[Any]) -> list[Column[Any]]:
    """The columns that are loaded with an object."""
    return [attribute.columns[0] for attribute in mapper.column_attrs if not attribute.deferred]  # type: ignore[misc]


def _narrow(mapper: Mapper[Any]) -> list[Column[Any]]:
    own = (attribute.columns[0] for attribute in mapper.column_attrs)
    return [column for column in own if isinstance(column, Column) and isinstance(column.type, NARROW)]


def _elements(condition: Any) -> Iterator[Any]:
    """The elements of a condition; of a subquery not its parts."""
    if condition is None:
        return
    yield condition
    if not isinstance(condition, SelectBase):
        for inner in condition.get_children():
            yield from _elements(inner)
