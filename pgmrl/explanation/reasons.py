"""Why no index serves a shortlist: from the catalogue, and from what the planner says when sorting is made dear.

Nothing is guessed. A reason is one of: no index, an INVALID one, one of another operator class, index scans switched
off, a plan that the planner found cheaper (both costs are known), or an index that cannot serve the statement whatever
it costs, such as a partial one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from pgmrl.names import qualified, quoted
from pgmrl.searching.plans import explained, index_serving, nodes, sources, subplans
from pgmrl.searching.statement import SHORTLIST
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Row, SelectBase

    from pgmrl.searching.plans import Node

__all__ = ["reasons"]

_NAME: Final = r'(?:"(?:[^"]|"")+"|[^\s".()]+)'
_KEY: Final = re.compile(rf"\(*{_NAME}\.({_NAME}) (?:OPERATOR\({_NAME}\.)?(<=>|<->|<#>|<~>|<\+>|<%>)")

_INDEXES: Final = text("""
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
JOIN pg_attribute AS c ON c.attrelid = x.indrelid AND c.attnum = x.indkey[0]
WHERE x.indrelid = to_regclass(:owner) AND c.attname = :short
ORDER BY i.relname
""")

_TABLE: Final = text("""
SELECT c.reltuples::bigint AS row_count, pg_relation_size(c.oid) AS bytes,
    EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = :short AND NOT a.attisdropped) AS has
FROM pg_class AS c WHERE c.oid = to_regclass(:owner)
""")


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A sort where an index could have given the order."""

    schema: str
    table: str
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
        connection: of the database.
        statement: as `search` returns it.
        plan: its plan, of EXPLAIN with VERBOSE.
        parameters: values of the statement's own parameters, by name.

    """
    if index_serving(plan).used:
        return []
    if not subplans(plan, SHORTLIST):
        return ["the statement has no shortlist: it ranks every row that the filters leave"]
    found = list(_sorted(connection, plan))
    if not found:
        return ["the planner sees that no row can pass the filter, and reads nothing"]
    said = [reason for one in found for reason in _of_catalogue(connection, one)]
    return list(dict.fromkeys(said)) or _of_cost(connection, statement, plan, found, parameters)


def _sorted(connection: Connection, plan: Node) -> Iterator[_Sorted]:
    """The tables whose rows are sorted by a short vector."""
    for part in subplans(plan, SHORTLIST):
        for source in sources(part):
            key = _KEY.match(str(source.get("Sort Key", [""])[0]))
            if key is None or "Order By" in source:
                continue
            short = key[1][1:-1].replace('""', '"') if key[1].startswith('"') else key[1]
            for node in nodes(source):
                if "Relation Name" in node and _table(connection, node["Schema"], node["Relation Name"], short).has:
                    yield _Sorted(node["Schema"], node["Relation Name"], short, key[2], source)


def _table(connection: Connection, schema: str, table: str, short: str) -> Row[Any]:
    return connection.execute(_TABLE, {"owner": qualified(schema, table), "short": short}).one()


# -- what the catalogue says ---------------------------------------------------------------------------------------


def _of_catalogue(connection: Connection, one: _Sorted) -> list[str]:
    """Reasons that hold whatever a plan costs."""
    given = {"owner": one.owner, "short": one.short, "operator": one.operator}
    indexes = connection.execute(_INDEXES, given).all()
    place = f"{one.table}.{one.short}"
    if not indexes:
        return [f"there is no HNSW index on {place}: create one"]
    usable = [index for index in indexes if index.valid and index.answers]
    if not usable:
        return [_unusable(index, one) for index in indexes]
    if connection.execute(text("SELECT current_setting('enable_indexscan')")).scalar_one() == "off":
        return ["enable_indexscan is off in this session: RESET enable_indexscan"]
    return []


def _unusable(index: Row[Any], one: _Sorted) -> str:
    if index.builder is not None:
        return f"the index {index.name} is being built by process {index.builder}"
    if not index.valid:
        repair = f"REINDEX INDEX CONCURRENTLY {qualified(one.schema, index.name)}"
        return f"the index {index.name} is INVALID, as an interrupted build leaves it: {repair}"
    return (
        f"the index {index.name} has the operator class {index.operator_class}, which does not answer the search's "
        f"{one.operator}: index and model are of different metrics"
    )


# -- what the planner says -----------------------------------------------------------------------------------------


def _of_cost(
    connection: Connection,
    statement: SelectBase,
    plan: Node,
    found: list[_Sorted],
    parameters: Mapping[str, Any] | None,
) -> list[str]:
    """Whether the index could serve, and at what cost."""
    connection.execute(text("SET LOCAL enable_sort = off"))
    forced = explained(connection, statement, "VERBOSE", parameters)["Plan"]
    with_index = index_serving(forced)
    if not with_index.used:
        return [_cannot(connection, one) for one in found]
    chosen, other = (sum(part["Total Cost"] for part in subplans(one, SHORTLIST)) for one in (plan, forced))
    through = " and ".join(with_index.indexes)
    said = [
        f"the planner found it cheaper than the index: cost {chosen:,.0f} against {other:,.0f} through {through}",
        *(_size(connection, one) for one in found),
    ]
    return list(dict.fromkeys(said))


def _cannot(connection: Connection, one: _Sorted) -> str:
    given = {"owner": one.owner, "short": one.short, "operator": one.operator}
    usable = [index for index in connection.execute(_INDEXES, given) if index.valid and index.answers]
    partial = [index for index in usable if index.predicate is not None]
    if partial and len(partial) == len(usable):
        covers = "; ".join(f"{index.name} holds only rows with {index.predicate}" for index in partial)
        return f"{covers}, which the statement's filter does not say as a constant"
    if any(index.young for index in usable):
        names = ", ".join(index.name for index in usable)
        return f"{names} was built over rows that transactions still running had changed: try again in a new one"
    names = ", ".join(index.name for index in usable)
    return f"{names} cannot give this order of {one.table}, whatever it costs: look at the plan"


def _size(connection: Connection, one: _Sorted) -> str:
    """What the planner thinks of the table and of the filter."""
    row = _table(connection, one.schema, one.table, one.short)
    if row.row_count < 0:
        return f"{one.table} has never been analyzed, so the planner guesses: run ANALYZE {quoted(one.table)}"
    expected = next((n["Plan Rows"] for n in nodes(one.node) if n.get("Relation Name") == one.table), 0)
    if expected < row.row_count / 2:
        return f"it expects {expected:,} of the {row.row_count:,} rows of {one.table} to pass the filter"
    return f"{one.table} has {row.row_count:,} rows in {shown(row.bytes)}, which is quickly read"
