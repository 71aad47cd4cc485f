"""A server's plan divided into the named parts of a search.

A statement of pgmrl's names its parts, as CTEs and subqueries; each node of the plan belongs to the nearest named part
above it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.searching.plans import Node

__all__ = ["OUTER", "PlanPart", "cte_readers", "divide_plan", "running_order"]

OUTER: Final = "outer"
_ALIAS: Final = re.compile(
    r"pgmrl_(query|queries|candidates|shortlist|reranked|grouped|list|ranked|exact|all|results|fused)(_\d+)?"
)
_LIST: Final = re.compile(r"list_(\d+)")
_RANKED: Final = re.compile(r"ranked(_\d+)?")  # what search_hybrid calls a list with its ranks
_LIMIT_IF: Final = re.compile(r"^CASE WHEN .+ THEN NULL::\w+ ELSE ('?)0\1(::\w+)? END$")  # of `only_if_sql`
_ORDER: Final = (
    *(
        "query",
        "queries",
        "candidates",
        "shortlist",
        "stage",
        "reranked",
        "grouped",
        "list",
        "ranked",
        "results",
        "all",
        "exact",
        "fused",
    ),
    OUTER,
)


@dataclass(slots=True, eq=False)
class PlanPart:
    """A named part of a plan.

    Attributes:
        name: without the prefix `pgmrl_`; `outer` for what is around all named parts.
        top: the part's top node.
        parent: the part around it.
        cte: whether it is a CTE; else a subquery.
        nodes: its nodes, without those of inner parts.
        inner: the parts directly inside it.

    """

    name: str
    top: Node
    parent: PlanPart | None
    cte: bool
    nodes: list[Node] = field(default_factory=list)
    inner: list[PlanPart] = field(default_factory=list)

    def with_outer(self) -> Iterator[PlanPart]:
        """The part itself and those around it, from the inside out."""
        part: PlanPart | None = self
        while part is not None:
            yield part
            part = part.parent

    def walk(self) -> Iterator[PlanPart]:
        """The part itself and all inside it."""
        yield self
        for part in self.inner:
            yield from part.walk()

    @property
    def retriever(self) -> int | None:
        """The number of the hybrid search's retriever that it belongs to, from 1; None outside of lists."""
        for part in self.with_outer():
            number = _LIST.fullmatch(part.name)
            if number:
                return int(number[1])
        return None


def divide_plan(plan: Node) -> PlanPart:
    """The outermost part of a plan, with all others in it.

    Args:
        plan: the top node, of EXPLAIN with VERBOSE.

    """
    outermost = PlanPart(OUTER, plan, None, cte=False)
    _divide(plan, outermost)
    _separate_fusion(outermost)
    return outermost


def _divide(node: Node, part: PlanPart) -> None:
    part.nodes.append(node)
    for inner in node.get("Plans", ()):
        name, cte = _part_name(inner, part)
        if name is None:
            _divide(inner, part)
        elif cte or inner["Node Type"] != "Subquery Scan":
            _add_part(name, inner, part, cte=cte)
        else:
            _divide_subquery(name, inner, part)


def _divide_subquery(name: str, scan: Node, part: PlanPart) -> None:
    """The subquery is below; the scan of it computes what the part around asks for."""
    part.nodes.append(scan)
    for below in scan["Plans"]:
        if below.get("Parent Relationship") == "Subquery":
            _add_part(name, below, part, cte=False)
        elif str(below.get("Subplan Name", "")).startswith("CTE pgmrl_"):
            _add_part(below["Subplan Name"].removeprefix("CTE pgmrl_"), below, part, cte=True)
        else:
            _divide(below, part)


def _add_part(name: str, top: Node, parent: PlanPart, *, cte: bool) -> None:
    part = PlanPart(name, top, parent, cte)
    parent.inner.append(part)
    alias = _ALIAS.fullmatch(top["Alias"]) if cte and top["Node Type"] == "Subquery Scan" else None
    if alias is None:
        _divide(top, part)
    else:
        _divide_subquery(alias[1], top, part)


def _part_name(node: Node, part: PlanPart) -> tuple[str | None, bool]:
    """The name of the part that begins at a node, and whether it is a CTE."""
    subplan = str(node.get("Subplan Name", ""))
    if subplan.startswith("CTE pgmrl_"):
        return subplan.removeprefix("CTE pgmrl_"), True
    if node["Node Type"] == "Subquery Scan":
        alias = _ALIAS.fullmatch(node["Alias"])
        if alias is not None:
            return alias[1], False
        if part.name == OUTER and _RANKED.fullmatch(node["Alias"]):
            number = sum(not inner.cte and _LIST.fullmatch(inner.name) is not None for inner in part.inner) + 1
            return f"list_{number}", False
    if subplan.startswith("InitPlan") and part.name in {"candidates", "shortlist"} and not _plans_anew(node):
        return "query", False
    if _is_fallback(node) and not any(outer.name in {"exact", "all"} for outer in part.with_outer()):
        return "exact", False
    return None, False


def _is_fallback(node: Node) -> bool:
    """Whether a node begins the exact fallback: its limit is 0 or none."""
    limits = [inner for inner in node.get("Plans", ()) if inner.get("Parent Relationship") == "InitPlan"]
    return node["Node Type"] == "Limit" and any(
        _LIMIT_IF.match(output) for limit in limits for output in limit.get("Output", ())
    )


def _plans_anew(node: Node) -> bool:
    """Whether an InitPlan has the server plan anew; else it computes the query's vector and makes the settings."""
    return any(inner.get("Function Name") == "generate_series" for inner in nodes(node))


def _separate_fusion(outermost: PlanPart) -> None:
    """Give the fused list a part of its own, where the planner has left its subquery out."""
    lists = [part for part in outermost.inner if not part.cte and _LIST.fullmatch(part.name)]
    for node in outermost.nodes:
        below = [own for own in outermost.nodes if _holds(node, own)]
        reads_table = any("Relation Name" in own for own in below)
        if lists and all(_holds(node, part.top) for part in lists) and not reads_table:
            fused = PlanPart("fused", node, outermost, cte=False, nodes=below, inner=lists)
            outermost.nodes = [own for own in outermost.nodes if not _holds(node, own)]
            outermost.inner = [part for part in outermost.inner if part not in lists]
            outermost.inner.append(fused)
            for part in lists:
                part.parent = fused
            return


def _holds(node: Node, inner: Node) -> bool:
    return any(below is inner for below in nodes(node))


def running_order(part: PlanPart) -> int:
    """A sort key: the place of a part among those of one search, in the order in which they run."""
    name = part.name
    if name.startswith("stage_"):
        name = "stage"
    elif name not in _ORDER:
        name = "ranked"  # a retriever's list
    return _ORDER.index(name)


def cte_readers(plan: Node, parts: list[PlanPart]) -> dict[int, PlanPart]:
    """For each CTE, by the `id()` of its top node, the part that is the first to read it.

    Args:
        plan: the top node.
        parts: in running order.

    """
    parents = {id(inner): node for node in nodes(plan) for inner in node.get("Plans", ())}
    read = [
        (_in_init_plan(node, parents), part, cte)
        for part in parts
        for node in part.nodes
        if (cte := _cte_read_by(node, parents)) is not None
    ]
    readers: dict[int, PlanPart] = {}
    # what decides about a part is computed before the part
    for _, part, cte in sorted(read, key=lambda reading: not reading[0]):
        readers.setdefault(id(cte), part)
    return readers


def _in_init_plan(node: Node, parents: dict[int, Node]) -> bool:
    """Whether a node belongs to an InitPlan, such as the number of rows in the shortlist."""
    inner: Node | None = node
    while inner is not None and not str(inner.get("Subplan Name", "")).startswith("CTE "):
        if inner.get("Parent Relationship") == "InitPlan":
            return True
        inner = parents.get(id(inner))
    return False


def _cte_read_by(node: Node, parents: dict[int, Node]) -> Node | None:
    """The top node of the CTE that a node reads: the nearest of its name."""
    if "CTE Name" not in node:
        return None
    outer: Node | None = node
    while outer is not None:
        for inner in outer.get("Plans", ()):
            if inner.get("Subplan Name") == f"CTE {node['CTE Name']}":
                top: Node = inner
                return top
        outer = parents.get(id(outer))
    return None
