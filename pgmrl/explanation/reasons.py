"""Why no index serves a shortlist: from the catalogue, and from the plan that the planner makes without sorts.

Nothing is guessed. A reason is one of: no index, an INVALID one, one of another operator class, index scans switched
off, a plan that the planner estimated to be cheaper (both costs are known), an index that cannot serve the statement
at any cost, such as a partial one, or a table on another server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result
from pgmrl.database.sql import load as load_sql
from pgmrl.explanation.server_counters import without_sorting
from pgmrl.model.shortening import expression_name
from pgmrl.names import qualified, quoted
from pgmrl.searching.plans import explained, index_serving, nodes, shortlist_scans, sources
from pgmrl.searching.shard_plans import shard_plans
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Row, SelectBase

    from pgmrl.model.metrics import ShortType
    from pgmrl.searching.plans import Node

__all__ = ["reasons"]

_NAME: Final = r'(?:"(?:[^"]|"")+"|[^\s".()]+)'
_SORT_KEY: Final = re.compile(rf"\(*{_NAME}\.({_NAME}) (?:OPERATOR\({_NAME}\.)?(<=>|<->|<#>|<~>|<\+>|<%>)")

_EXPRESSION: Final = re.compile(  # the same of short vectors that only their index computes
    rf"\(*(?:{_NAME}\.)?(?:binary_quantize\((?:{_NAME}\.)?)?subvector\({_NAME}\.({_NAME}), 1, (\d+)\)\)*"
    rf"::(?:{_NAME}\.)?(halfvec|vector|bit)\(\d+\)\)* (?:OPERATOR\({_NAME}\.)?(<=>|<->|<#>|<~>|<\+>|<%>)"
)

_INDEXES: Final = text(f"""
SELECT i.relname AS name, x.indisvalid AND x.indisready AND x.indislive AS valid, x.indcheckxmin AS young,
    pg_get_expr(x.indpred, x.indrelid) AS predicate, o.opcname AS operator_class,
    EXISTS (
        SELECT FROM pg_amop AS a JOIN pg_operator AS p ON p.oid = a.amopopr
        WHERE a.amopfamily = o.opcfamily AND a.amoppurpose = 'o' AND p.oprname = :operator
    ) AS answers,
    (SELECT b.pid FROM pg_stat_progress_create_index AS b WHERE b.index_relid = i.oid LIMIT 1) AS builder
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_am AS am ON am.oid = i.relam AND am.amname IN ('hnsw', 'ivfflat')
JOIN pg_opclass AS o ON o.oid = x.indclass[0]
LEFT JOIN pg_attribute AS c ON c.attrelid = x.indrelid AND c.attnum = x.indkey[0]
LEFT JOIN ({load_sql("expression_indexes")}) AS e ON e.index_oid = x.indexrelid
WHERE x.indrelid = to_regclass(:owner) AND coalesce(c.attname, e.short_column) = :short
ORDER BY i.relname
""")  # noqa: S608 - pgmrl's own text

_TABLE: Final = text("""
SELECT c.reltuples::bigint AS row_count, pg_relation_size(c.oid) AS bytes,
    EXISTS (
        SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = :column AND NOT a.attisdropped
    ) AS has
FROM pg_class AS c WHERE c.oid = to_regclass(:owner)
""")


@dataclass(frozen=True, slots=True)
class _SortedTable:
    """A table whose rows are sorted by a short vector, where an index could have given the order.

    Attributes:
        schema: schema of the table.
        table: name of the table.
        column: the short column; of short vectors that are not stored, the full one.
        short: the short vectors' name.
        operator: the distance operator.
        node: the sort.

    """

    schema: str
    table: str
    column: str
    short: str
    operator: str
    node: Node

    @property
    def owner(self) -> str:
        return qualified(self.schema, self.table)


def reasons(
    connection: Connection, statement: SelectBase, plan: Node, parameters: Mapping[str, Any] | None = None
) -> list[str]:
    """Why the indexes do not serve the shortlists of a statement, in words; empty where they do.

    Runs EXPLAIN of the statement, which is not executed, and sets parameters for it: call it in a savepoint.

    Args:
        connection: a connection to the database.
        statement: as `search` returns it.
        plan: the top node of its plan, of EXPLAIN with VERBOSE.
        parameters: values of the statement's own parameters, by name.

    """
    if index_serving(plan).used:
        return []
    if not shortlist_scans(plan):
        return ["the statement has no shortlist: it ranks every row that passes the filter"]
    if shard_plans(plan):
        return _shard_reasons(connection, statement, plan, parameters)
    foreign = _foreign_tables(plan)
    if foreign:
        return [f"{', '.join(foreign)}: on another server, of whose indexes this one knows nothing"]
    tables = list(_sorted_tables(connection, plan))
    if not tables:
        return ["the planner proved that no row can pass the filter, and reads nothing"]
    why = [reason for table in tables for reason in _catalogue_reasons(connection, table)]
    return list(dict.fromkeys(why)) or _cost_reasons(connection, statement, plan, tables, parameters)


def _foreign_tables(plan: Node) -> list[str]:
    parts = (node for part in shortlist_scans(plan) for source in sources(part) for node in nodes(source))
    return list(dict.fromkeys(node["Relation Name"] for node in parts if node["Node Type"] == "Foreign Scan"))


def _sorted_tables(connection: Connection, plan: Node) -> Iterator[_SortedTable]:
    for part in shortlist_scans(plan):
        for source in sources(part):
            key = _sort_key(str(source.get("Sort Key", [""])[0]))
            if key is None or "Order By" in source:
                continue
            for node in nodes(source):
                if "Relation Name" in node and _table(connection, node["Schema"], node["Relation Name"], key[0]).has:
                    yield _SortedTable(node["Schema"], node["Relation Name"], *key, source)


def _sort_key(text: str) -> tuple[str, str, str] | None:
    """Column, short vectors and operator of what is sorted by; None where that is no short distance."""
    stored, computed = _SORT_KEY.match(text), _EXPRESSION.match(text)
    key = stored or computed
    if key is None:
        return None
    column = key[1][1:-1].replace('""', '"') if key[1].startswith('"') else key[1]
    if stored:
        return column, column, key[2]
    return column, expression_name(column, int(key[2]), cast("ShortType", key[3])), key[4]


def _table(connection: Connection, schema: str, table: str, column: str) -> Row[Any]:
    return catalogue_result(connection, _TABLE, {"owner": qualified(schema, table), "column": column}).one()


def _indexes(connection: Connection, table: _SortedTable) -> Sequence[Row[Any]]:
    parameters = {"owner": table.owner, "short": table.short, "operator": table.operator}
    return catalogue_result(connection, _INDEXES, parameters).all()


# -- from the catalogue --------------------------------------------------------------------------------------------


def _catalogue_reasons(connection: Connection, table: _SortedTable) -> list[str]:
    """Reasons that hold whatever a plan costs."""
    indexes = _indexes(connection, table)
    if not indexes:
        return [f"there is no HNSW index on {table.table}.{table.short}: create one"]
    if not any(index.valid and index.answers for index in indexes):
        return [_unusable(index, table) for index in indexes]
    if connection.execute(text("SELECT pg_catalog.current_setting('enable_indexscan')")).scalar_one() == "off":
        return ["enable_indexscan is off in this session: RESET enable_indexscan"]
    return []


def _unusable(index: Row[Any], table: _SortedTable) -> str:
    if index.builder is not None:
        return f"the index {index.name} is being built by process {index.builder}"
    if not index.valid:
        repair = f"REINDEX INDEX CONCURRENTLY {qualified(table.schema, index.name)}"
        return f"the index {index.name} is INVALID, left by an interrupted build: {repair}"
    return (
        f"the index {index.name} has the operator class {index.operator_class}, which does not support the search's "
        f"operator {table.operator}: index and model use different metrics"
    )


# -- from the planner ----------------------------------------------------------------------------------------------


def _cost_reasons(
    connection: Connection,
    statement: SelectBase,
    plan: Node,
    tables: list[_SortedTable],
    parameters: Mapping[str, Any] | None,
) -> list[str]:
    """Whether the index could serve, and at what cost."""
    without_sorting(connection)
    unsorted = explained(connection, statement, "VERBOSE", parameters)["Plan"]
    if not index_serving(unsorted).used:
        return [_cannot_serve(connection, table) for table in tables]
    why = [_cheaper(plan, unsorted), *(_estimates(connection, table) for table in tables)]
    return list(dict.fromkeys(why))


def _shard_reasons(
    connection: Connection, statement: SelectBase, plan: Node, parameters: Mapping[str, Any] | None
) -> list[str]:
    """As `_cost_reasons`, of the shards' planners; their catalogues are for the doctor."""
    without_sorting(connection, shards=True)
    unsorted = explained(connection, statement, "VERBOSE", parameters)["Plan"]
    if not index_serving(unsorted).used:
        return ["on some shards no index can give the rows in this order: `pgmrl doctor` compares shards and nodes"]
    return [_cheaper(plan, unsorted)]


def _cheaper(plan: Node, unsorted: Node) -> str:
    """That a plan was chosen for its cost, against the one with indexes."""
    chosen, other = (sum(part["Total Cost"] for part in shortlist_scans(tree)) for tree in (plan, unsorted))
    costs = f"cost {chosen:,.0f} against {other:,.0f} with {' and '.join(index_serving(unsorted).indexes)}"
    return f"the planner estimated a plan without the index to be cheaper: {costs}"


def _cannot_serve(connection: Connection, table: _SortedTable) -> str:
    usable = [index for index in _indexes(connection, table) if index.valid and index.answers]
    partial = [index for index in usable if index.predicate is not None]
    if partial and len(partial) == len(usable):
        predicates = "; ".join(f"{index.name} is a partial index on {index.predicate}" for index in partial)
        return f"{predicates}, which does not follow from the constants of the statement's filter: all rows are read"
    names = ", ".join(index.name for index in usable)
    if any(index.young for index in usable):
        return f"{names} was built while running transactions had changed its rows: only later transactions can use it"
    return f"{names} cannot give {table.table} in this order at any cost: see the plan"


def _estimates(connection: Connection, table: _SortedTable) -> str:
    """What the planner assumes of the table and of the filter."""
    row = _table(connection, table.schema, table.table, table.column)
    if row.row_count < 0:
        return f"{table.table} was never analyzed, so the planner guesses: run ANALYZE {quoted(table.table)}"
    expected = next((n["Plan Rows"] for n in nodes(table.node) if n.get("Relation Name") == table.table), 0)
    if expected < row.row_count / 2:
        return f"it expects {expected:,} of the {row.row_count:,} rows of {table.table} to pass the filter"
    return f"{table.table} has {row.row_count:,} rows in {shown(row.bytes)}: it costs little to read all of it"
