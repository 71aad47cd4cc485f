"""Explain a search of a distributed table: its rounds over the shards, or the stages of the one shard that it asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgmrl.errors import SearchError
from pgmrl.explanation.explanation import Explanation
from pgmrl.explanation.reasons import reasons
from pgmrl.explanation.server_counters import block_size, session_settings, settings_in_force
from pgmrl.explanation.shard_stages import round_name, shard_shortlist, shard_stages
from pgmrl.explanation.shortlists import shortlists
from pgmrl.explanation.stages import Stage, Usage, stages
from pgmrl.searching.plans import explained, shortlist_scans, subplans
from pgmrl.searching.selected_rows import SHORTLIST
from pgmrl.searching.shard_plans import rounds
from pgmrl.units import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.sql.expression import SelectBase

    from pgmrl.searching.shard_plans import Node, Round

__all__ = ["explain_shards"]


def explain_shards(
    connection: Connection, statement: SelectBase, parameters: Mapping[str, Any], *, analyze: bool
) -> Explanation:
    """As `explain`, of a statement that reads a distributed table.

    Raises:
        SearchError: the table is declared as distributed, and Citus does not distribute it.

    """
    document = explained(connection, statement, "VERBOSE", parameters)
    if not rounds(document["Plan"]):
        raise SearchError(
            "expected a table that Citus distributes, as it is declared, got an ordinary one: "
            "pgmrl.explanation.plan_text shows the plan, and without distributed= the search has stages"
        )
    session = session_settings(connection)
    if analyze:
        document = explained(connection, statement, "ANALYZE, BUFFERS, VERBOSE", parameters)
    listed = rounds(document["Plan"])
    whole = _whole(listed)
    own = whole["Plan"] if whole is not None else {"Plans": [t.document["Plan"] for each in listed for t in each.tasks]}
    stage_list = shard_stages(listed) if whole is None else _stages_of_one(document, whole)
    if whole is None:
        shortlist_list = list(shard_shortlist(listed, str(statement.compile(connection))))
    else:
        shortlist_list = list(shortlists(statement, stage_list, own, session, {}))
    explanation = Explanation(
        stages=tuple(stage_list),
        shortlists=tuple(shortlist_list),
        reasons=tuple(reasons(connection, statement, document["Plan"], parameters)) if shortlist_list else (),
        planning_ms=document.get("Planning Time"),
        execution_ms=document.get("Execution Time"),
        jit_ms=None,
        toast_reads=None,
        settings=settings_in_force(session, {"Plans": [own], "Node Type": "Append"}),
        row_counts={},
        block_size=block_size(connection),
        document=document,
        shards=max(each.shards for each in listed),
    )
    return replace(explanation, verdict=tuple(_sentences(explanation, listed)))


def _whole(listed: Sequence[Round]) -> Node | None:
    """What the one shard answered to the ordinary statement; None where Citus divided it, or it is the form for shards.

    Citus sends that one to one shard as well where a condition in text, say, leaves only one.
    """
    if len(listed) > 1 or listed[0].shards > 1 or not listed[0].reads_shards:
        return None
    document = listed[0].tasks[0].document
    ordinary = subplans(document["Plan"], SHORTLIST) or not shortlist_scans(document["Plan"])
    return document if ordinary else None


def _stages_of_one(document: Node, whole: Node) -> list[Stage]:
    """The shard's own stages, and what the way there and back took."""
    listed = stages(whole)
    if "Execution Time" in document:
        plan, took = document["Plan"], max(0.0, document["Execution Time"] - whole["Execution Time"])
        listed.append(Stage("coordinator", None, True, Usage(took), float(plan["Plan Rows"]), plan["Actual Rows"], ()))
    return listed


def _sentences(explanation: Explanation, listed: Sequence[Round]) -> Iterator[str]:
    """Which shards were asked how often, what the shards took of the time, and which index served."""
    asked = [each for each in listed if each.reads_shards]
    times = {1: "once", 2: "twice"}.get(len(asked), f"{len(asked)} times")
    took = "" if explanation.execution_ms is None else f", in {milliseconds(explanation.execution_ms)}"
    if explanation.shards == 1:
        yield f"The search went to one shard as a whole{took}."
    else:
        yield f"The search asked {explanation.shards} shards {times}{took}."
    if explanation.execution_ms is not None:
        slowest = max((task for each in asked for task in each.tasks), key=lambda task: task.document["Execution Time"])
        own = milliseconds(slowest.document["Execution Time"])
        yield f"The slowest answer of a shard, of {slowest.node}, took {own} there; the rest is the way and Citus."
    for shortlist in explanation.shortlists:
        if shortlist.instead is None:
            yield f"The short index {' and '.join(shortlist.indexes)} serves the shortlist on every shard."
        elif shortlist.indexes:
            yield f"On some shards no index serves the shortlist: {shortlist.instead}."
        else:
            yield f"No index serves the shortlist: {shortlist.instead}. A shortlist without an index is exact."
    if explanation.reasons:
        yield f"Why: {'; '.join(explanation.reasons)}."
    yield from _exact(explanation, listed)


def _exact(explanation: Explanation, listed: Sequence[Round]) -> Iterator[str]:
    for stage in explanation.stages:
        if stage.name != "exact":
            continue
        if not explanation.shortlists:
            yield "The search is exact: it ranks every row that passes the filter, each shard its own."
        elif stage.executed is False:
            once_more = any(round_name(each) == "exact" for each in listed)
            asked = "; the shards were asked whether it was, which complete=False saves" if once_more else ""
            yield f"The exact fallback was not needed{asked}."
        elif stage.executed:
            yield "The shortlist had too few rows, so the exact fallback ranked every row that passes the filter."
