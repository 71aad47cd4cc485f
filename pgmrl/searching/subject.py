"""Whose rows are searched: the model or table behind a column, under the name it has in the caller's Select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CTE,
    Alias,
    BindParameter,
    Column,
    ColumnClause,
    ColumnElement,
    FromClause,
    Join,
    Select,
    SelectBase,
    TableClause,
    TableSample,
)
from sqlalchemy.orm import aliased
from sqlalchemy.orm.attributes import QueryableAttribute

from pgmrl.errors import DefinitionError, SearchError
from pgmrl.model.columns import base_column
from pgmrl.model.short_expression import short_element
from pgmrl.model.sqlalchemy_internals import has_loader_criteria
from pgmrl.reprs import safe_str

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.orm import Mapper

    from pgmrl.model.columns import Attachment

__all__ = ["AnySelect", "Subject", "check_reads", "filters_rows", "leaves", "reads_only"]

AnySelect = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Subject:
    """The model or table that is searched, under the name it has in a Select.

    Attributes:
        mapper: of a mapped class; None for a Table.
        entity: the class or its alias; None for a Table.
        base: the Table's full column.
        selectable: what it is in FROM.
        keys: its primary key.
        full: its full vector.
        short: its short vector; None before a rotation has been learned.
        links: conditions that join the side table, where there is one.

    """

    mapper: Mapper[Any] | None
    entity: Any
    base: Column[Any]
    selectable: FromClause
    keys: Sequence[ColumnElement[Any]]
    full: ColumnElement[Any]
    short: ColumnElement[Any] | None
    links: Sequence[ColumnElement[Any]]

    @classmethod
    def of(cls, column: Any, attachment: Attachment) -> Subject:
        """Of a Matryoshka attribute or column, or of another column of the same kind of table.

        Args:
            column: as it is in the caller's Select.
            attachment: where its vectors are.

        Raises:
            DefinitionError: its table has no primary key.
            SearchError: it is the column of a subquery.

        """
        base = base_column(column)
        if isinstance(column, QueryableAttribute):
            parent = column.parent
            mapper, entity, selectable = parent.mapper, parent.entity, parent.selectable
            keys = [getattr(entity, mapper.get_property_by_column(key).key) for key in mapper.primary_key]
        else:
            mapper, entity, selectable = None, None, column.table
            keys = [_in(selectable, key) for key in base.table.primary_key.columns]
        _check_table(column, selectable)
        if not keys:
            raise DefinitionError(f"table {base.table} has no primary key: a search returns rows by their key")
        if attachment.side is not None:
            side = base.table.metadata.tables[attachment.side]
            links = [key == side.c[key.name] for key in keys]
            side_full = side.c[attachment.full]
            side_short = _short(attachment, side_full, side.c.get)
            return cls(mapper, entity, base, selectable, keys, side_full, side_short, links)
        short = _short(attachment, column, lambda name: _in(selectable, base.table.c[name]))
        return cls(mapper, entity, base, selectable, keys, column, short, ())

    def aliased(self, attachment: Attachment) -> Subject:
        """The same rows under another name."""
        if self.mapper is None:
            return Subject.of(self.base.table.alias().c[self.base.key], attachment)
        other = aliased(self.mapper.class_, flat=True)
        return Subject.of(getattr(other, self.mapper.get_property_by_column(self.base).key), attachment)

    def column_of(self, column: Any) -> Column[Any]:
        """The Table's column of a column or attribute of the searched rows.

        Raises:
            SearchError: it is of something else.

        """
        is_column = isinstance(column, QueryableAttribute | ColumnElement)
        base = next(iter(getattr(column, "base_columns", ())), None) if is_column else None
        if isinstance(column, QueryableAttribute):
            own = self.entity is not None and column.parent.entity is self.entity
        else:
            own = is_column and getattr(column, "table", None) is self.selectable
        if not own or not isinstance(base, Column) or base.table is not self.base.table:
            raise SearchError(
                f"expected a column of {self.base.table}, as it is named in the Select, got {safe_str(column)}"
            )
        return base

    def own(self, column: Column[Any]) -> ColumnElement[Any]:
        """The Table's column under the name the table has here."""
        if self.mapper is None:
            return _in(self.selectable, column)
        attribute: ColumnElement[Any] = getattr(self.entity, self.mapper.get_property_by_column(column).key)
        return attribute


def _short(attachment: Attachment, full: ColumnElement[Any], column: Callable[[str], Any]) -> ColumnElement[Any] | None:
    if attachment.short is None:
        return None
    return short_element(attachment.definition, attachment.short, full, column)


def _in(selectable: FromClause, column: Column[Any]) -> ColumnElement[Any]:
    corresponding = selectable.corresponding_column(column)
    return column if corresponding is None else corresponding


def _check_table(column: Any, selectable: FromClause) -> None:
    """Check that a column is of a table: the index is there, a subquery has none."""
    queries = [source for source in leaves(selectable) if not isinstance(_named(source), TableClause)]
    if queries:
        kind = "CTE" if isinstance(queries[0], CTE) else "subquery"
        raise SearchError(
            f"{column} is a column of a {kind}, which has no index: expected one of the model or table itself; put "
            f"the conditions of the {kind} on the Select that is searched, or join the table to it"
        )


def _named(source: Any) -> Any:
    """What an alias is an alias of."""
    while isinstance(source, Alias | TableSample):
        source = source.element
    return source


def reads_only(statement: AnySelect, selectable: FromClause) -> bool:
    """Whether a Select reads this and nothing else, so that each row can come only once.

    What its subqueries read is their own affair.
    """
    own, reads = {selectable, *leaves(selectable)}, False
    elements: list[Any] = list(statement.get_children())
    while elements:
        element = elements.pop()
        if isinstance(element, ColumnClause):
            source = element.table
        elif isinstance(element, FromClause) and not isinstance(element, ColumnElement):  # a function is both
            source = element
        else:
            if not isinstance(element, BindParameter | SelectBase):
                elements.extend(element.get_children())
            continue
        if source is not None:
            reads = True
            if source not in own and not own.issuperset(leaves(source)):
                return False
    return reads


def filters_rows(statement: AnySelect, subject: Subject) -> bool:
    """Whether a Select that reads nothing else leaves out rows."""
    if statement.whereclause is not None or (subject.mapper is not None and subject.mapper.single):
        return True
    return has_loader_criteria(statement)


def check_reads(statement: AnySelect, subject: Subject) -> None:
    """Check that a Select reads what is searched.

    Raises:
        SearchError: it does not.

    """
    read = {leaf for source in statement.get_final_froms() for leaf in leaves(source)}
    if not set(leaves(subject.selectable)) <= read:
        raise SearchError(
            f"{subject.base} is searched, and the Select does not read {subject.base.table}: add that table to it"
        )


def leaves(source: Any) -> Iterator[FromClause]:
    """The tables and aliases that a FROM clause joins.

    What the ORM annotates hashes and compares as the plain table does.
    """
    if isinstance(source, Join):
        yield from leaves(source.left)
        yield from leaves(source.right)
    else:
        yield source
