"""The stages of a search over shards: Citus' rounds, with what the shards read in each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pgmrl.explanation.shortlists import Shortlist
from pgmrl.explanation.stages import Stage, Usage, block_usage
from pgmrl.searching.plans import nodes, serving, shortlist_scans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgmrl.searching.shard_plans import Node, Round

__all__ = ["round_name", "shard_shortlist", "shard_stages"]

_DISTANCE: Final = re.compile(r"<[=#~%+-]>")
_LIMIT: Final = re.compile(r"'hnsw\.ef_search'[^;]*? IS NOT NULL\)\s+LIMIT (\d+)")  # of the gate's own Select
_ORDER: Final = ("shortlist", "exact", "fetch", "coordinator")


def round_name(each: Round) -> str:
    """The stage that a round is, see `Stage`: those that read no table are the coordinator's."""
    if not each.reads_shards:
        return "coordinator"
    plans = [task.document["Plan"] for task in each.tasks]
    if any(shortlist_scans(plan) for plan in plans):
        return "shortlist"
    output = " ".join(str((node.get("Output"), node.get("Sort Key"))) for plan in plans for node in nodes(plan))
    return "exact" if _DISTANCE.search(output) else "fetch"


def shard_stages(listed: Sequence[Round]) -> list[Stage]:
    """The stages, in the order in which they run.

    Times are the coordinator's, until it had the rows; blocks are those of the shards.

    Args:
        listed: of a plan of EXPLAIN with VERBOSE, with the tasks of all shards.

    """
    rounds_of: dict[str, list[Round]] = {}
    for each in listed:
        rounds_of.setdefault(round_name(each), []).append(each)
    return [_stage(name, rounds_of[name]) for name in _ORDER if name in rounds_of]


def shard_shortlist(listed: Sequence[Round], sql: str) -> Iterator[Shortlist]:
    """The shortlists of all searches in a statement, as one; none of an exact search.

    Args:
        listed: of its plan.
        sql: its text.

    """
    own = [each for each in listed if round_name(each) == "shortlist"]
    if own:
        index = serving([part for plan in _plans(own) for part in shortlist_scans(plan)])
        rows = None if own[0].ms is None else sum(map(_listed, own))
        yield Shortlist(None, sum(map(int, _LIMIT.findall(sql))), rows, index.indexes, index.instead, None, None, None)


def _listed(each: Round) -> float:
    """The rows of the shortlist: what came of several shards; in one that has the whole search, what its scan gave."""
    if each.shards > 1:
        return each.rows or 0
    return float(sum(part["Actual Rows"] for plan in _plans([each]) for part in shortlist_scans(plan)))


def _stage(name: str, own: list[Round]) -> Stage:
    expected = own[-1].expected
    if own[-1].ms is None:
        return Stage(name, None, None, None, expected, None, ())
    usage = Usage(sum(each.ms or 0.0 for each in own))
    for plan in _plans(own):
        usage = usage.plus(block_usage(plan))
    reads = [node for plan in _plans(own) for node in nodes(plan) if "Relation Name" in node]
    executed = not reads or any(node["Actual Loops"] > 0 for node in reads)
    return Stage(name, None, executed, usage, expected, own[-1].rows, ())


def _plans(own: Sequence[Round]) -> list[Node]:
    return [task.document["Plan"] for each in own for task in each.tasks]
