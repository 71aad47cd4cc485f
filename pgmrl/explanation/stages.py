"""From a plan to the stages of a search: what each took, read and found.

A statement of pgmrl's names its parts, as CTEs and subqueries; each node of the plan belongs to the nearest named part
above it. A part's own share is what the server counted for it, less what it counted for the parts inside it and for the
CTEs that it is the first to read: PostgreSQL runs a CTE when its first row is asked for, on the reader's account.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.searching.plans import Node

__all__ = ["Scan", "Stage", "Usage", "stages"]

OUTER: Final = "outer"
_ALIAS: Final = re.compile(r"pgmrl_(query|queries|shortlist|reranked|list|ranked|exact|all|results|fused)(_\d+)?")
_LIST: Final = re.compile(r"list_(\d+)")
_RANKED: Final = re.compile(r"ranked(_\d+)?")  # what search_hybrid calls a list with its ranks
_TOO_FEW: Final = re.compile(r"(\$\d+|\(InitPlan \d+\)\.col1|\(returns \$\d+\)) < \d+")
_STAGE_OF: Final = {
    "query": "query",
    "queries": "query",
    "shortlist": "shortlist",
    "exact": "exact",
    "all": "exact",
    "fused": "fuse",
    OUTER: "fetch",
}
_ORDER: Final = (
    *("query", "queries", "shortlist", "stage", "reranked", "list", "ranked", "results", "all", "exact", "fused"),
    OUTER,
)


class Usage(NamedTuple):
    """What the server counted.

    Attributes:
        ms: milliseconds.
        hit: blocks found in shared buffers.
        read: blocks read from outside of them: the operating system's cache or the disk.
        temp: blocks of temporary files written.

    """

    ms: float = 0.0
    hit: int = 0
    read: int = 0
    temp: int = 0

    def less(self, other: Usage) -> Usage:
        """The difference, nowhere below zero: times are rounded."""
        return Usage(
            max(0.0, self.ms - other.ms),
            max(0, self.hit - other.hit),
            max(0, self.read - other.read),
            max(0, self.temp - other.temp),
        )

    def plus(self, other: Usage) -> Usage:
        """The sum."""
        return Usage(self.ms + other.ms, self.hit + other.hit, self.read + other.read, self.temp + other.temp)


@dataclass(frozen=True, slots=True)
class Scan:
    """How a stage reads a table.

    Attributes:
        schema: of the table.
        table: its name.
        index: the indexes it goes through; empty where the table is read.
        ordered: whether the rows come in the order of distance.
        estimated_rows: rows that the planner expected the scan to give, once it is run to its end.
        rows: rows it gave, all rounds together; None where the statement was not executed.
        filtered: rows it read and left out.
        loops: how often it was run.

    """

    schema: str
    table: str
    index: tuple[str, ...]
    ordered: bool
    estimated_rows: float
    rows: float | None
    filtered: float
    loops: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a search.

    Attributes:
        name: `query` (the query's vector is read and shortened), `shortlist`, `cut` (of a funnel), `rerank`, `exact`
            (all rows of the filter), `pick` (of a diverse search), `words`, `trigrams`, `fuse`, `fetch` (the columns of
            the results), `send` (the result in the form that is sent; PostgreSQL 17 and later).
        retriever: of a hybrid search, counted from 1; None elsewhere.
        executed: False for a stage that was not needed; None where the statement was not executed.
        usage: what it took; None where the statement was not executed.
        estimated_rows: rows that the planner expected.
        rows: rows it gave; None where the statement was not executed.
        scans: the tables it reads.

    """

    name: str
    retriever: int | None
    executed: bool | None
    usage: Usage | None
    estimated_rows: float
    rows: float | None
    scans: tuple[Scan, ...]


@dataclass(slots=True)
class _Part:
    """A named part of the plan: its top node, and the nodes that are its own."""

    name: str
    node: Node
    parent: _Part | None
    cte: bool
    own: list[Node] = field(default_factory=list)
    inner: list[_Part] = field(default_factory=list)

    def above(self) -> Iterator[_Part]:
        """Itself and the parts around it."""
        part: _Part | None = self
        while part is not None:
            yield part
            part = part.parent


def stages(explained: Node) -> list[Stage]:
    """The stages of a search, in the order in which they run.

    Args:
        explained: as `pgmrl.searching.plans.explained` returns it, of EXPLAIN with VERBOSE.

    """
    plan = explained["Plan"]
    top = _Part(OUTER, plan, None, cte=False)
    _divide(plan, top)
    _divide_off_fusion(top)
    all_parts = list(_walk(top))
    readers = _readers(plan, all_parts)
    kinds = {number: _kind(number, all_parts) for number in map(_retriever, all_parts)}
    found: dict[tuple[int | None, str], list[_Part]] = {}
    for part in sorted(all_parts, key=_rank):
        found.setdefault((_retriever(part), _stage_name(part, kinds)), []).append(part)
    analyzed = "Actual Loops" in plan
    made = [_stage(name, number, parts, readers, analyzed=analyzed) for (number, name), parts in found.items()]
    made.sort(key=lambda stage: (stage.name == "fetch", stage.name == "fuse", stage.retriever or 0))
    sent = explained.get("Serialization")
    if sent is not None:
        usage = Usage(sent["Time"], sent.get("Shared Hit Blocks", 0), sent.get("Shared Read Blocks", 0))
        made.append(Stage("send", None, True, usage, float(plan["Plan Rows"]), _rows(plan), ()))
    return made


# -- dividing the plan ---------------------------------------------------------------------------------------------


def _divide(node: Node, part: _Part) -> None:
    part.own.append(node)
    for inner in node.get("Plans", ()):
        name, cte = _named(inner, part)
        if name is None:
            _divide(inner, part)
        elif cte or inner["Node Type"] != "Subquery Scan":
            _begin(name, inner, part, cte=cte)
        else:  # the subquery is below; the scan of it computes what the part around asks for
            part.own.append(inner)
            for below in inner["Plans"]:
                if below.get("Parent Relationship") == "Subquery":
                    _begin(name, below, part, cte=False)
                elif str(below.get("Subplan Name", "")).startswith("CTE pgmrl_"):
                    _begin(below["Subplan Name"].removeprefix("CTE pgmrl_"), below, part, cte=True)
                else:
                    _divide(below, part)


def _begin(name: str, node: Node, around: _Part, *, cte: bool) -> None:
    new = _Part(name, node, around, cte)
    around.inner.append(new)
    _divide(node, new)


def _named(node: Node, part: _Part) -> tuple[str | None, bool]:
    """The name of the part that begins at a node, and whether it is a CTE."""
    subplan = str(node.get("Subplan Name", ""))
    if subplan.startswith("CTE pgmrl_"):
        return subplan.removeprefix("CTE pgmrl_"), True
    if node["Node Type"] == "Subquery Scan":
        own = _ALIAS.fullmatch(node["Alias"])
        if own is not None:
            return own[1], False
        if part.name == OUTER and _RANKED.fullmatch(node["Alias"]):
            number = sum(not inner.cte and _LIST.fullmatch(inner.name) is not None for inner in part.inner) + 1
            return f"list_{number}", False
    if subplan.startswith("InitPlan") and part.name == "shortlist" and not _sets(node):
        return "query", False
    too_few = _TOO_FEW.search(node.get("One-Time Filter", ""))
    if too_few and not any(one.name in {"exact", "all"} for one in part.above()):
        return "exact", False
    return None, False


def _sets(node: Node) -> bool:
    """Whether it is the gate, or what has the server plan anew, and not the query's vector."""
    output = " ".join(node.get("Output", ()))
    return "set_config(" in output or any(one.get("Function Name") == "generate_series" for one in nodes(node))


def _divide_off_fusion(top: _Part) -> None:
    """Give the fused list a part of its own, where the planner has left its subquery out."""
    lists = [part for part in top.inner if not part.cte and _LIST.fullmatch(part.name)]
    for node in top.own:
        mine = [own for own in top.own if _holds(node, own)]
        if lists and all(_holds(node, one.node) for one in lists) and not any("Relation Name" in own for own in mine):
            new = _Part("fused", node, top, cte=False, own=mine, inner=lists)
            top.own = [own for own in top.own if not _holds(node, own)]
            top.inner = [part for part in top.inner if part not in lists]
            top.inner.append(new)
            for part in lists:
                part.parent = new
            return


def _holds(node: Node, inner: Node) -> bool:
    return any(one is inner for one in nodes(node))


def _walk(part: _Part) -> Iterator[_Part]:
    yield part
    for inner in part.inner:
        yield from _walk(inner)


def _readers(plan: Node, parts: list[_Part]) -> dict[int, _Part]:
    """For each CTE, by its top node's id, the part that is the first to read it."""
    around = {id(inner): node for node in nodes(plan) for inner in node.get("Plans", ())}
    found: dict[int, _Part] = {}
    for part in sorted(parts, key=_rank):
        for node in part.own:
            cte = _read(node, around)
            if cte is not None:
                found.setdefault(id(cte), part)
    return found


def _read(node: Node, around: dict[int, Node]) -> Node | None:
    """The CTE that a node reads: the nearest of its name."""
    if "CTE Name" not in node:
        return None
    above: Node | None = node
    while above is not None:
        for inner in above.get("Plans", ()):
            if inner.get("Subplan Name") == f"CTE {node['CTE Name']}":
                found: Node = inner
                return found
        above = around.get(id(above))
    return None


def _rank(part: _Part) -> int:
    name = part.name
    if name.startswith("stage_"):
        name = "stage"
    elif name not in _ORDER:
        name = "ranked"  # a retriever's list
    return _ORDER.index(name)


# -- parts as stages -----------------------------------------------------------------------------------------------


def _retriever(part: _Part) -> int | None:
    for one in part.above():
        listed = _LIST.fullmatch(one.name)
        if listed:
            return int(listed[1])
    return None


def _kind(retriever: int | None, parts: list[_Part]) -> str:
    """What the last stage of a search is, or of one list of a hybrid search."""
    own = [part for part in parts if _retriever(part) == retriever]
    names = {part.name for part in own}
    if "shortlist" in names:
        return "rerank"
    if retriever is None or names & {"results", "exact"}:
        return "exact"
    output = " ".join(str(node.get("Output", "")) for part in own for node in part.own)
    return "words" if "ts_rank" in output else "trigrams"


def _stage_name(part: _Part, kinds: dict[int | None, str]) -> str:
    if part.name in _STAGE_OF:
        return _STAGE_OF[part.name]
    if part.name.startswith("stage_"):
        return "cut"
    if any(node["Node Type"] == "Recursive Union" for node in part.own):
        return "pick"
    return kinds[_retriever(part)]


def _stage(name: str, number: int | None, parts: list[_Part], readers: dict[int, _Part], *, analyzed: bool) -> Stage:
    last = [part for part in parts if (part.name, part.cte) == (parts[-1].name, parts[-1].cte)]
    scans = tuple(scan for part in parts for scan in _scans(part))
    estimated = sum(part.node["Plan Rows"] * max(1, part.node.get("Actual Loops", 1)) for part in last)
    if not analyzed:
        return Stage(name, number, None, None, estimated, None, scans)
    usage = Usage()
    for part in parts:
        usage = usage.plus(_own_usage(part, readers))
    executed = any(node["Actual Loops"] > 0 for part in parts for node in part.own)
    if name == "exact":  # what asks whether it is needed is always executed
        executed = not scans or any(scan.loops > 0 for scan in scans)
    return Stage(name, number, executed, usage, estimated, sum(_rows(part.node) for part in last), scans)


def _own_usage(part: _Part, readers: dict[int, _Part]) -> Usage:
    usage = _usage(part.node)
    for inner in part.inner:
        if not inner.cte:
            usage = usage.less(_usage(inner.node))
    for cte in _every_cte(part):
        if readers.get(id(cte.node)) is part:
            usage = usage.less(_usage(cte.node))
    return usage


def _every_cte(part: _Part) -> Iterator[_Part]:
    """The CTEs that a part could read: those of the parts around it."""
    for around in part.above():
        yield from (inner for inner in around.inner if inner.cte)


def _usage(node: Node) -> Usage:
    return Usage(
        node["Actual Total Time"] * node["Actual Loops"],
        node.get("Shared Hit Blocks", 0) + node.get("Local Hit Blocks", 0),
        node.get("Shared Read Blocks", 0) + node.get("Local Read Blocks", 0),
        node.get("Temp Written Blocks", 0),
    )


def _rows(node: Node) -> float:
    return float(node["Actual Rows"] * node["Actual Loops"])


def _scans(part: _Part) -> Iterator[Scan]:
    for node in part.own:
        if "Relation Name" not in node:
            continue
        through = tuple(dict.fromkeys(str(one["Index Name"]) for one in nodes(node) if "Index Name" in one))
        loops = node.get("Actual Loops", 0)
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield Scan(
            node["Schema"],
            node["Relation Name"],
            through,
            "Order By" in node,
            float(node["Plan Rows"]),
            _rows(node) if "Actual Rows" in node else None,
            removed * loops,
            loops,
        )
