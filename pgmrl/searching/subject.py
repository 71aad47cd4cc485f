"""Whose rows are searched: the model or table behind a column, under the name it has in the caller's Select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Join,
    Select,
)
from sqlalchemy.orm import LoaderCriteriaOption, aliased
from sqlalchemy.orm.attributes import QueryableAttribute

from pgmrl.errors import DefinitionError, SearchError
from pgmrl.model.columns import base_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, FromClause
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
    def of(cls, asked: Any, attachment: Attachment) -> Subject:
        """Of a Matryoshka attribute or column.

        Raises:
            DefinitionError: its table has no primary key.

        """
        base = base_column(asked)
        if isinstance(asked, QueryableAttribute):
            parent = asked.parent
            mapper, entity, selectable = parent.mapper, parent.entity, parent.selectable
            keys = [getattr(entity, mapper.get_property_by_column(key).key) for key in mapper.primary_key]
        else:
            mapper, entity, selectable = None, None, asked.table
            keys = [_in(selectable, key) for key in base.table.primary_key.columns]
        if not keys:
            raise DefinitionError(f"table {base.table} has no primary key: a search returns rows by their key")
        if attachment.side is not None:
            side = base.table.metadata.tables[attachment.side]
            links = [key == side.c[key.name] for key in keys]
            beside = None if attachment.short is None else side.c[attachment.short]
            return cls(mapper, entity, base, selectable, keys, side.c[attachment.full], beside, links)
        short = None if attachment.short is None else _in(selectable, base.table.c[attachment.short])
        return cls(mapper, entity, base, selectable, keys, asked, short, ())

    def aliased(self, attachment: Attachment) -> Subject:
        """The same rows under another name."""
        if self.mapper is None:
            return Subject.of(self.base.table.alias().c[self.base.key], attachment)
        other = aliased(self.mapper.class_, flat=True)
        return Subject.of(getattr(other, self.mapper.get_property_by_column(self.base).key), attachment)

    def column_of(self, asked: Any) -> Column[Any]:
        """The Table's column of a column or attribute of the searched rows.

        Raises:
            SearchError: it is of something else.

        """
        column = next(iter(getattr(asked, "base_columns", ())), None)
        if isinstance(asked, QueryableAttribute):
            own = self.entity is not None and asked.parent.entity is self.entity
        else:
            own = getattr(asked, "table", None) is self.selectable
        if not own or not isinstance(column, Column) or column.table is not self.base.table:
            table = self.base.table
            raise SearchError(f"{asked} is no column of what is searched: give one of {table}, as it is in the Select")
        return column

    def own(self, column: Column[Any]) -> ColumnElement[Any]:
        """The Table's column under the name the table has here."""
        if self.mapper is None:
            return _in(self.selectable, column)
        found: ColumnElement[Any] = getattr(self.entity, self.mapper.get_property_by_column(column).key)
        return found


def _in(selectable: FromClause, column: Column[Any]) -> ColumnElement[Any]:
    found = selectable.corresponding_column(column)
    return column if found is None else found


def reads_only(statement: AnySelect, selectable: FromClause) -> bool:
    """Whether a Select reads this and nothing else, so that each row can come only once."""
    if statement._setup_joins or statement._from_obj:
        return False
    own = set(leaves(selectable)) | {selectable}
    read = [leaf for source in statement.columns_clause_froms for leaf in leaves(source)]
    for condition in statement._where_criteria:
        read.extend(leaf for source in condition._from_objects for leaf in leaves(source))
    return bool(read) and all(source in own for source in read)


def filters_rows(statement: AnySelect, subject: Subject) -> bool:
    """Whether a Select that reads nothing else leaves out rows."""
    if statement._where_criteria or (subject.mapper is not None and subject.mapper.single):
        return True
    return any(isinstance(option, LoaderCriteriaOption) for option in statement._with_options)


def check_reads(statement: AnySelect, subject: Subject) -> None:
    """Check that a Select reads what is searched.

    Raises:
        SearchError: it does not.

    """
    read = {leaf for source in statement.get_final_froms() for leaf in leaves(source)}
    if not set(leaves(subject.selectable)) <= read:
        raise SearchError(f"the Select does not read {subject.base.table}, whose {subject.base.name} is searched")


def leaves(source: Any) -> Iterator[FromClause]:
    """The tables and aliases that a FROM clause joins."""
    if isinstance(source, Join):
        yield from leaves(source.left)
        yield from leaves(source.right)
    else:
        yield source._deannotate() if source._annotations else source
