"""The stages of a search with what each took, read and returned, from the server's plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.explanation.plan_parts import OUTER, cte_readers, divide_plan, running_order
from pgmrl.searching.plans import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.explanation.plan_parts import PlanPart
    from pgmrl.searching.plans import Node

__all__ = ["Scan", "Stage", "Usage", "block_usage", "stages"]

_STAGE_OF: Final = {
    "query": "query",
    "queries": "query",
    "candidates": "shortlist",
    "shortlist": "shortlist",
    "exact": "exact",
    "all": "exact",
    "fused": "fuse",
    OUTER: "fetch",
}


class Usage(NamedTuple):
    """What the server counted.

    Attributes:
        ms: milliseconds.
        hit: blocks found in shared buffers.
        read: blocks read from outside of shared buffers: from the operating system's cache or the disk.
        temp: blocks of temporary files written.

    """

    ms: float = 0.0
    hit: int = 0
    read: int = 0
    temp: int = 0

    def less(self, other: Usage) -> Usage:
        """The difference; never below zero, because the server rounds times."""
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
        schema: schema of the table.
        table: name of the table.
        index: names of the indexes used; empty for a sequential scan.
        ordered: whether the rows come in the order of distance.
        estimated_rows: rows that the planner expected of one scan that runs to its end.
        rows: rows returned, by all loops together; None where the statement was not executed.
        filtered: rows read and removed by the filter, by all loops together.
        loops: how often the scan was run.

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
            (all rows that the filter leaves), `pick` (of a diverse search), `words`, `trigrams`, `fuse`, `fetch` (the
            columns of the results), `send` (the result in the form that is sent; PostgreSQL 17 and later),
            `coordinator` (over shards: what Citus does beside what it asks them).
        retriever: number of the retriever of a hybrid search, from 1; None for other searches.
        executed: False for a stage that was not needed; None where the statement was not executed.
        usage: what the stage took; None where the statement was not executed.
        estimated_rows: rows that the planner expected.
        rows: rows returned; None where the statement was not executed.
        scans: how the stage reads its tables.

    """

    name: str
    retriever: int | None
    executed: bool | None
    usage: Usage | None
    estimated_rows: float
    rows: float | None
    scans: tuple[Scan, ...]


def stages(explained: Node) -> list[Stage]:
    """The stages of a search, in the order in which they run.

    A stage's own share is what the server counted for its parts of the plan, less what it counted for the parts inside
    them and for the CTEs that they are the first to read: PostgreSQL runs a CTE when its first row is asked for, and
    counts it for the reader.

    Args:
        explained: as `pgmrl.searching.plans.explained` returns it, of EXPLAIN with VERBOSE.

    """
    plan = explained["Plan"]
    parts = sorted(divide_plan(plan).walk(), key=running_order)
    readers = cte_readers(plan, parts)
    kinds = {retriever: _last_stage(retriever, parts) for retriever in {part.retriever for part in parts}}
    parts_of: dict[tuple[int | None, str], list[PlanPart]] = {}
    for part in parts:
        parts_of.setdefault((part.retriever, _stage_name(part, kinds)), []).append(part)
    analyzed = "Actual Loops" in plan
    listed = [_stage(name, number, own, readers, analyzed=analyzed) for (number, name), own in parts_of.items()]
    listed.sort(key=lambda stage: (stage.name == "fetch", stage.name == "fuse", stage.retriever or 0))
    sending = explained.get("Serialization")
    if sending is not None:
        usage = Usage(sending["Time"], sending.get("Shared Hit Blocks", 0), sending.get("Shared Read Blocks", 0))
        listed.append(Stage("send", None, True, usage, float(plan["Plan Rows"]), _rows(plan), ()))
    return listed


def _last_stage(retriever: int | None, parts: list[PlanPart]) -> str:
    """The name of the last stage of a search, or of one list of a hybrid search."""
    own = [part for part in parts if part.retriever == retriever]
    names = {part.name for part in own}
    if "shortlist" in names:
        return "rerank"
    if retriever is None or names & {"results", "exact"}:
        return "exact"
    output = " ".join(str(node.get("Output", "")) for part in own for node in part.nodes)
    return "words" if "ts_rank" in output else "trigrams"


def _stage_name(part: PlanPart, kinds: dict[int | None, str]) -> str:
    if part.name in _STAGE_OF:
        return _STAGE_OF[part.name]
    if part.name.startswith("stage_"):
        return "cut"
    if any(node["Node Type"] == "Recursive Union" for node in part.nodes):
        return "pick"
    return kinds[part.retriever]


def _stage(
    name: str, retriever: int | None, parts: list[PlanPart], readers: dict[int, PlanPart], *, analyzed: bool
) -> Stage:
    last = [part for part in parts if (part.name, part.cte) == (parts[-1].name, parts[-1].cte)]
    scans = tuple(scan for part in parts for scan in _scans(part))
    estimated = sum(part.top["Plan Rows"] * max(1, part.top.get("Actual Loops", 1)) for part in last)
    if not analyzed:
        return Stage(name, retriever, None, None, estimated, None, scans)
    usage = Usage()
    for part in parts:
        usage = usage.plus(_own_usage(part, readers))
    executed = any(node["Actual Loops"] > 0 for part in parts for node in part.nodes)
    if name == "exact":  # the node that asks whether the branch is needed is always executed
        executed = not scans or any(scan.loops > 0 for scan in scans)
    return Stage(name, retriever, executed, usage, estimated, sum(_rows(part.top) for part in last), scans)


def _own_usage(part: PlanPart, readers: dict[int, PlanPart]) -> Usage:
    usage = _usage(part.top)
    for inner in part.inner:
        if not inner.cte:
            usage = usage.less(_usage(inner.top))
    for cte in _readable_ctes(part):
        if readers.get(id(cte.top)) is part:
            usage = usage.less(_usage(cte.top))
    return usage


def _readable_ctes(part: PlanPart) -> Iterator[PlanPart]:
    """The CTEs that a part could read: those of itself and of the parts around it."""
    for outer in part.with_outer():
        yield from (inner for inner in outer.inner if inner.cte)


def _usage(node: Node) -> Usage:
    return block_usage(node)._replace(ms=node["Actual Total Time"] * node["Actual Loops"])


def block_usage(node: Node) -> Usage:
    """The blocks of a node and those below it; no time."""
    return Usage(
        0.0,
        node.get("Shared Hit Blocks", 0) + node.get("Local Hit Blocks", 0),
        node.get("Shared Read Blocks", 0) + node.get("Local Read Blocks", 0),
        node.get("Temp Written Blocks", 0),
    )


def _rows(node: Node) -> float:
    return float(node["Actual Rows"] * node["Actual Loops"])


def _scans(part: PlanPart) -> Iterator[Scan]:
    for node in part.nodes:
        if "Relation Name" not in node:
            continue
        indexes = tuple(dict.fromkeys(str(inner["Index Name"]) for inner in nodes(node) if "Index Name" in inner))
        loops = node.get("Actual Loops", 0)
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield Scan(
            node["Schema"],
            node["Relation Name"],
            indexes,
            "Order By" in node,
            float(node["Plan Rows"]),
            _rows(node) if "Actual Rows" in node else None,
            removed * loops,
            loops,
        )
