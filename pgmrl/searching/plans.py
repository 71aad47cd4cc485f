"""The server's plan of a statement, and whether the short index serves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Table, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable
from sqlalchemy.sql.visitors import iterate

from pgmrl.model.columns import is_distributed
from pgmrl.searching.selected_rows import CANDIDATES, SHORTLIST
from pgmrl.searching.shard_plans import shard_plans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, SelectBase
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = [
    "Serving",
    "expected_rows",
    "explained",
    "explained_text",
    "index_serving",
    "indexes",
    "nodes",
    "reads_distributed",
    "serving",
    "shortlist_scans",
    "sources",
    "subplans",
    "without_vectors",
]

Node = dict[str, Any]
_ALL_TASKS: Final = text("SELECT pg_catalog.set_config('citus.explain_all_tasks', 'on', true)")
_VECTOR: Final = re.compile(r"\[([-+.\de]+,[-+.\de]+),[-+.\de,]{60,}\]")


class Serving(NamedTuple):
    """What serves the shortlists of a statement.

    Attributes:
        indexes: the indexes in whose order the rows come: one, one for each partition, or one for each list of a hybrid
            search; empty where rows are sorted instead.
        instead: what the plan does instead, in words; None where indexes serve every shortlist.

    """

    indexes: tuple[str, ...]
    instead: str | None

    @property
    def used(self) -> bool:
        """Whether indexes serve every shortlist, and every partition of them."""
        return self.instead is None


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a statement, with the statement's own parameters."""

    inherit_cache = False

    def __init__(self, statement: SelectBase, options: str, literal: bool) -> None:
        self.statement = statement
        self.how = options
        self.literal = literal


@compiles(_Explain)
def _compile(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    if element.literal:
        options["literal_binds"] = True
    return f"EXPLAIN ({element.how}) {compiler.process(element.statement, **options)}"


def reads_distributed(statement: SelectBase) -> bool:
    """Whether a statement reads a table that is declared as distributed."""
    return any(isinstance(element, Table) and is_distributed(element) for element in iterate(statement))


def _execute(connection: Connection, statement: Any, options: str, parameters: Mapping[str, Any] | None) -> Any:
    """EXPLAIN; of a distributed table with literals, since Citus sends it to the shards without its parameters."""
    literal = reads_distributed(statement)
    if literal and parameters:
        statement, parameters = statement.params(parameters), None
    return connection.execute(_Explain(statement, options, literal), parameters or {})


def explained(
    connection: Connection, statement: SelectBase, options: str = "", parameters: Mapping[str, Any] | None = None
) -> Node:
    """The plan of a statement as EXPLAIN (FORMAT JSON) has it: `Plan`, and times where it was executed.

    Of a distributed table with the plans of all shards; the setting for that lasts as long as the transaction.

    Args:
        connection: of the database.
        statement: as `search` returns it.
        options: more of EXPLAIN's, such as `ANALYZE, BUFFERS`.
        parameters: values of the statement's own parameters, by name.

    """
    if reads_distributed(statement):
        connection.execute(_ALL_TASKS)
    more = f", {options}" if options else ""
    document: Node = _execute(connection, statement, f"FORMAT JSON{more}", parameters).scalar_one()[0]
    return document


def explained_text(
    connection: Connection, statement: SelectBase, options: str = "", parameters: Mapping[str, Any] | None = None
) -> str:
    """As `explained`, in the server's own words; a vector is cut to its first numbers."""
    more = f", {options}" if options else ""
    lines = _execute(connection, statement, f"FORMAT TEXT{more}", parameters).scalars()
    return without_vectors("\n".join(lines))


def without_vectors(words: str) -> str:
    """A text of the server's in which vectors are cut to their first numbers."""
    return _VECTOR.sub(r"[\1,…]", words)


def expected_rows(plan: Node) -> float:
    """Rows that the planner expects; over shards the sum of what the shards expect.

    Args:
        plan: the top node of a statement that reads a table once.

    """
    return float(sum(each["Plan Rows"] for each in shard_plans(plan) or [plan]))


def nodes(plan: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def indexes(plan: Node) -> list[str]:
    """The indexes that a plan scans, in its order."""
    return [str(node["Index Name"]) for node in nodes(plan) if "Index Name" in node]


def subplans(plan: Node, name: str) -> list[Node]:
    """Every subplan that makes the CTE or subquery of this name; a hybrid search has several of one name."""
    alias = re.compile(rf"{re.escape(name)}(_\d+)?")

    def makes(node: Node) -> bool:
        if node.get("Subplan Name") == f"CTE {name}":
            return True
        return node["Node Type"] == "Subquery Scan" and alias.fullmatch(node["Alias"]) is not None

    return [node for node in nodes(plan) if makes(node)]


def shortlist_scans(plan: Node) -> list[Node]:
    """The subplans that read the rows of the shortlists: of the candidates where there is a filter.

    Over shards the part of each shard; of a statement that went to one shard as a whole, those of that one's plan.
    """
    over_shards = shard_plans(plan)
    if over_shards:
        return [part for each in over_shards for part in shortlist_scans(each)]
    shortlists = [part for part in subplans(plan, SHORTLIST) if not _reads_cte(part, CANDIDATES)]
    parts = [*shortlists, *subplans(plan, CANDIDATES)]
    if not parts:
        return [node for node in nodes(plan) if _sets_scan(node)]  # the form for shards
    return [node for node in nodes(plan) if any(node is part for part in parts)]


def _sets_scan(plan: Node) -> bool:
    """Whether a node has the gate of a search as its own subquery."""
    return any("'hnsw.ef_search'" in str(node.get("One-Time Filter")) for node in plan.get("Plans", ()))


def _reads_cte(plan: Node, name: str) -> bool:
    return any(node.get("CTE Name") == name for node in nodes(plan))


def index_serving(plan: Node) -> Serving:
    """Which indexes serve the shortlists of a statement of pgmrl's, from its plan alone.

    An index serves where the rows come in its order of distance. Where the planner reads the rows another way and sorts
    them, the shortlist is exact.

    Args:
        plan: the top node, `explained(…)["Plan"]`.

    """
    shortlists = shortlist_scans(plan)
    return serving(shortlists) if shortlists else Serving((), "the statement has no shortlist")


def serving(shortlists: Sequence[Node]) -> Serving:
    """As `index_serving`, of these parts of a plan."""
    ordering = [source for shortlist in shortlists for source in sources(shortlist)]
    index_names = tuple(dict.fromkeys(str(source["Index Name"]) for source in ordering if "Order By" in source))
    others = [source for source in ordering if "Order By" not in source]
    if not others:
        return Serving(index_names, None)
    reads = [node for source in others for node in _own(source) if "Relation Name" in node]
    ways = dict.fromkeys(map(_way, reads))
    return Serving(index_names, f"{' and '.join(ways)}, and the distances are sorted" if ways else "no table is read")


def sources(node: Node) -> Iterator[Node]:
    """Where the order of a plan's rows comes from: scans of an index in its order, sorts, or scans without order."""
    feeding = {"Outer", "Member", "Subquery"}
    below = [inner for inner in node.get("Plans", ()) if inner.get("Parent Relationship") in feeding]
    if not below or node["Node Type"] in {"Sort", "Incremental Sort"}:
        yield node
    else:
        for inner in below:
            yield from sources(inner)


def _own(plan: Node) -> Iterator[Node]:
    """A node and those below it that its rows come from, without subqueries that only give it values."""
    yield plan
    for inner in plan.get("Plans", ()):
        if inner.get("Parent Relationship") not in {"InitPlan", "SubPlan"}:
            yield from _own(inner)


def _way(node: Node) -> str:
    table, kind = node["Relation Name"], node["Node Type"]
    index_names = indexes(node)
    if kind == "Index Only Scan":
        fetched = node.get("Heap Fetches", 0)
        behind = f", and {fetched:,} rows of {table}, since VACUUM is behind" if fetched else ""
        return f"entries of {node['Index Name']} are read{behind}"
    if index_names:
        return f"rows of {table} are read through {', '.join(index_names)}"
    return f"the whole table {table} is read" if kind == "Seq Scan" else f"{table} is read by a {kind}"
