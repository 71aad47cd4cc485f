"""The statement over a distributed table, whose rows Citus keeps in shards on other nodes.

    WITH pgmrl_reranked AS MATERIALIZED (
        SELECT <key>, <full> <=> :query AS distance FROM … WHERE <the caller's filters>
        ORDER BY <short> <=> (SELECT :short WHERE <gate>) LIMIT <shortlist>
    ), …

Every part that reads the table is a SELECT of its own with ORDER BY and LIMIT, which Citus sends to each shard as it
is: the shard reads its own short index, sets the scan's parameters itself, and answers with keys and distances. Nothing
else of a search reads the table, so that the rest runs on the coordinator.

- The distance is computed beside the short one, not above the LIMIT: else the full vectors of each shard would travel.
- The gate stands in the WHERE of a subquery without FROM. In its SELECT Citus would take it for the coordinator's: a
  subquery without FROM goes to the shards where its SELECT is immutable (DeferErrorIfCannotPushdownSubquery).
- A LIMIT that is not a constant does not go to the shards, so that the exact fallback is switched by a condition.
- Without a filter there is no fallback, which would be one more round over all shards: the scan itself goes on, past
  deleted rows and rows that a policy hides, until the shortlist is full or the index ends.

With `distribution column = value` in the Select, Citus sends the whole statement to one shard, where the ordinary form
is right, with that condition on each of its parts.
"""

from __future__ import annotations

from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    ColumnElement,
    literal_column,
)
from sqlalchemy.sql import operators

from pgmrl.errors import SearchError
from pgmrl.limits import SHORTLIST_LIMIT
from pgmrl.model.distribution import distribution_column
from pgmrl.model.rotation import Rotation
from pgmrl.model.sqlalchemy_internals import columns_of
from pgmrl.searching.selected_rows import SelectedRows, Shortlist, selected_rows
from pgmrl.searching.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.scan import Scan
    from pgmrl.searching.subject import AnySelect

__all__ = ["ShardedRows", "one_shard", "over_shards", "searched_rows"]

DISTANCE: Final = "distance"


class ShardShortlist(Shortlist):
    """A shortlist whose rows have their distance already, in the column of that name."""

    __slots__ = ()

    def distances(self, definition: Definition, query: BoundQuery, names: Sequence[str]) -> AnySelect:  # noqa: ARG002
        """Columns of the shortlist and the full distance of each row, in no order; as each shard computes them."""
        kept = [column for column in columns_of(self.rows) if column.name in {*names, DISTANCE}]
        return self.rows.with_only_columns(*kept, maintain_column_froms=True)


class ShardedRows(SelectedRows):
    """The rows that the caller's Select leaves, over all shards."""

    __slots__ = ()
    sharded = True

    def shortlist(self, definition: Definition, query: BoundQuery, scan: Scan) -> Shortlist:
        """The nearest by the short vectors, with their distances.

        Raises:
            SearchError: the short vector of the query would have to be computed by the shards.

        """
        rule = definition.short.by
        if isinstance(rule, Rotation) and rule.axes is None and not query.ctes:
            raise SearchError(
                f"expected the axes of rotation {rule.id} in the declaration of a distributed table, since the client "
                "shortens the query: by=Rotation.load(path)"
            )
        short_vector = query.short_vector(scan, endless=not self.filtered)
        distance = self.distance(definition, query.vector).label(DISTANCE)
        rows = self.select.add_columns(distance).order_by(self.short_distance(definition, short_vector))
        # a bound LIMIT would not go to the shards
        return ShardShortlist(rows.limit(literal_column(str(scan.shortlist))), scan.shortlist)

    def exact_distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The full distance by an expression that no index on the full vector has."""
        return self.distance(definition, query) + literal_column("CAST(0 AS double precision)")

    def exact_ranking(
        self,
        definition: Definition,
        query: Any,
        k: int,
        *where: Any,
        carry: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
    ) -> AnySelect:
        """The k nearest of all rows by full distance: k of each shard, and of these k.

        Raises:
            SearchError: more rows than a shortlist may have.

        """
        if k > SHORTLIST_LIMIT:
            raise SearchError(
                f"an exact search for {k:,} rows over all shards: expected at most {SHORTLIST_LIMIT:,}, since each "
                "shard sends as many; put `distribution column = value` into the Select to search one shard"
            )
        rows = self.every_row(definition, query, carry).where(*where)
        return rows.order_by(literal_column(DISTANCE), *self.inner_keys).limit(literal_column(str(k)))


def searched_rows(
    statement: AnySelect, searched: Any, attachment: Attachment, extra: Mapping[str, Any] = MappingProxyType({})
) -> SelectedRows:
    """As `selected_rows`; of a distributed table in the form that works over its shards.

    Raises:
        SearchError: as `selected_rows`.
        DefinitionError: as `selected_rows`, and a distribution column that is not in the primary key.

    """
    rows = selected_rows(statement, searched, attachment, extra)
    if not attachment.distributed:
        return rows
    place, value = one_shard(statement, searched, attachment)
    if value is None:
        return ShardedRows(**{field.name: getattr(rows, field.name) for field in fields(SelectedRows)})
    same = rows.inner_keys[place] == value
    select = rows.select if rows.direct else rows.select.where(same)
    return replace(rows, select=select, each=(same,))


def over_shards(statement: AnySelect, searched: Any, attachment: Attachment) -> bool:
    """Whether a search asks all shards of a distributed table.

    Raises:
        DefinitionError: as `searched_rows`.

    """
    return bool(attachment.distributed) and one_shard(statement, searched, attachment)[1] is None


def one_shard(statement: AnySelect, searched: Any, attachment: Attachment) -> tuple[int, BindParameter[Any] | None]:
    """The distribution column's place in the key, and the value that the Select asks for; None where it does not.

    Args:
        statement: the caller's Select.
        searched: the column, of a distributed table.
        attachment: of it.

    Raises:
        DefinitionError: as `searched_rows`.

    """
    subject = Subject.of(searched, attachment)
    own = distribution_column(subject.base.table, attachment.distributed)
    # as the attribute, which is one for the tables of a class and of its base
    distributed_by = subject.own(own)
    place = next(n for n, key in enumerate(subject.keys) if key is distributed_by)
    for condition in _conjuncts(statement.whereclause):
        if isinstance(condition, BinaryExpression) and condition.operator is operators.eq:
            for side, value in ((condition.left, condition.right), (condition.right, condition.left)):
                if isinstance(value, BindParameter) and _is_column(side, own.name, subject.selectable):
                    return place, value
    return place, None


def _conjuncts(condition: Any) -> Iterator[Any]:
    """The parts of a condition that all have to hold."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    elif condition is not None:
        yield condition


def _is_column(element: Any, name: str, selectable: Any) -> bool:
    return isinstance(element, ColumnClause) and element.name == name and element.table in {selectable}
