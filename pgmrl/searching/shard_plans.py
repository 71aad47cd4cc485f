"""Citus' plans: its nodes tell what it sends where, and hold the plans that the shards answer with.

A statement runs in rounds: one for each of its `Subplans`, whose rows the coordinator keeps, and a last one. A round
sends a task to each shard, or one that reads the kept rows alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Round", "Task", "rounds", "shard_plans"]

Node = dict[str, Any]
_SHARD: Final = re.compile(r"_\d+$")


class Task(NamedTuple):
    """What one shard answered.

    Attributes:
        node: host and port.
        document: as `explained` returns it: `Plan`, and times where it was executed. Tables and indexes have their
            names without the shard's number.

    """

    node: str
    document: Node


class Round(NamedTuple):
    """One round of Citus'.

    Attributes:
        shards: that it asks; 1 also where it only reads kept rows.
        tasks: those that Citus shows.
        ms: milliseconds until the coordinator had the rows; None where it was not executed.
        rows: that the coordinator had; None likewise.
        expected: rows that the planner expected it to have.

    """

    shards: int
    tasks: tuple[Task, ...]
    ms: float | None
    rows: float | None
    expected: float

    @property
    def reads_shards(self) -> bool:
        """Whether a table is read, and not only what earlier rounds brought."""
        return any("Relation Name" in node for task in self.tasks for node in _tree(task.document["Plan"]))


def rounds(plan: Node) -> list[Round]:
    """The rounds of a plan in their order; none of a plan that is not Citus'.

    Args:
        plan: the top node.

    """
    return list(_rounds(plan, plan, plan.get("Actual Total Time")))


def shard_plans(plan: Node) -> list[Node]:
    """The top nodes of what the shards do, of all rounds that Citus shows; none of a plan that is not Citus'."""
    return [task.document["Plan"] for each in rounds(plan) for task in each.tasks]


def _rounds(plan: Node, top: Node, ms: float | None) -> Iterator[Round]:
    """Those inside a plan, the last of which brings the rows of its top node in so many milliseconds."""
    for node in _tree(plan):
        query = node.get("Distributed Query", {})
        for subplan in query.get("Subplans", ()):
            for inner in subplan["PlannedStmt"]:
                duration = subplan.get("Subplan Duration")
                *before, last = _rounds(inner["Plan"], inner["Plan"], duration)
                yield from before
                if duration is not None:  # in which those before it are counted
                    last = last._replace(ms=max(0.0, duration - sum(each.ms or 0 for each in before)))
                yield last
        job = query.get("Job")
        if job is not None:
            tasks = tuple(_tasks(job))
            # of rows that it only passes on Citus counts none, and expects none or 100,000
            own = [task.document["Plan"] for task in tasks] if node is top else [top]
            rows = None if ms is None else float(sum(each["Actual Rows"] for each in own))
            yield Round(job["Task Count"], tasks, ms, rows, float(sum(each["Plan Rows"] for each in own)))


def _tasks(job: Node) -> Iterator[Task]:
    for task in job.get("Tasks", ()):
        node = dict(part.split("=", 1) for part in str(task.get("Node", "")).split() if "=" in part)
        for document in (each for group in task.get("Remote Plan", ()) for each in group):
            yield Task(f"{node.get('host')}:{node.get('port')}", {**document, "Plan": _named(document["Plan"])})


def _named(plan: Node) -> Node:
    """A shard's plan with the names of the distributed table and its indexes."""
    named = dict(plan)
    named.update((key, _SHARD.sub("", plan[key])) for key in ("Relation Name", "Index Name") if key in plan)
    if "Plans" in plan:
        named["Plans"] = [_named(node) for node in plan["Plans"]]
    return named


def _tree(plan: Node) -> Iterator[Node]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _tree(inner)
