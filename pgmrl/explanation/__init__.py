"""What a search costs, stage by stage, and which index serves it: `explain`, and an assertion for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Select, text
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.expression import SelectBase

from pgmrl import database
from pgmrl.errors import SearchError
from pgmrl.explanation.explanation import Explanation, Shortlist
from pgmrl.explanation.reasons import reasons
from pgmrl.explanation.server_counters import (
    Detoasted,
    Toast,
    block_size,
    in_force,
    row_counts,
    session_settings,
    untouched,
)
from pgmrl.explanation.stages import Scan, Stage, Usage, stages
from pgmrl.limits import MAX_SCAN_TUPLES
from pgmrl.model.scan_settings import max_scan_tuples
from pgmrl.model.sqlalchemy_internals import limit_of
from pgmrl.searching.hybrid import FUSED
from pgmrl.searching.plans import explained, explained_text, index_serving, serving, subplans
from pgmrl.searching.statement import RESULTS, SHORTLIST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgmrl.explanation.explanation import Ended
    from pgmrl.searching.plans import Node

__all__ = [
    "Detoasted",
    "Explanation",
    "Scan",
    "Shortlist",
    "Stage",
    "Usage",
    "assert_index_used",
    "explain",
    "plan_text",
]

SERIALIZE_SINCE: Final = 17  # EXPLAIN's option that counts what is read to send the result
NEARLY_ALL: Final = 0.9  # of the rows an index holds: their number is as of the last VACUUM


def explain(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    analyze: bool = True,
) -> Explanation:
    """Execute a search once under EXPLAIN ANALYZE and say what each of its stages took, and why.

        print(explain(session, search(select(Package), Package.embedding, vector)))

    Nothing is changed: the statement runs read-only in a savepoint (of a connection in autocommit: a transaction) that
    is rolled back, with the settings it makes. Works on a hot standby. It is planned first without being executed, so
    that the planning time is that of a connection in use; blocks are as warm or cold as they are.

    Of an AsyncSession: `await session.run_sync(lambda sync: explain(sync, statement))`.

    Args:
        connection: of the database, with psycopg 3.
        statement: what `search`, `search_many`, `search_groups`, `search_diverse`, `search_funnel` or `search_hybrid`
            returned, also inside a Select of your own.
        parameters: values of the statement's own parameters, by name.
        analyze: False for the plan alone, without executing the statement.

    Raises:
        SearchError: the statement is no search of pgmrl's, or `connection` is none.

    """
    opened = _checked(connection, statement)
    with untouched(opened):
        planned = explained(opened, statement, "VERBOSE, SETTINGS", parameters)
        plan, detoasted = planned, None
        session = session_settings(opened)  # planning has loaded pgvector, whose settings they are
        if analyze:
            toast = Toast(opened, planned["Plan"])
            plan = explained(opened, statement, _options(opened), parameters)
            detoasted = toast.read(plan["Plan"])
        rows, block = row_counts(opened, plan["Plan"]), block_size(opened)
        made = stages(plan)
        why = reasons(opened, statement, plan["Plan"], parameters) if subplans(plan["Plan"], SHORTLIST) else []
    jit = plan.get("JIT", {}).get("Timing", {}).get("Total")
    return Explanation(
        stages=tuple(made),
        shortlists=tuple(_shortlists(statement, made, plan["Plan"], session, rows)),
        reasons=tuple(why),
        planning_ms=plan.get("Planning Time"),
        execution_ms=plan.get("Execution Time"),
        jit_ms=jit,
        detoasted=detoasted,
        settings=in_force(session, plan["Plan"]) | plan.get("Settings", {}),
        row_counts=rows,
        block_size=block,
        document=plan,
    )


def plan_text(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    analyze: bool = True,
) -> str:
    """The server's plan of a search as text, in which vectors are cut to their first numbers; otherwise as `explain`.

    Args:
        connection: as for `explain`.
        statement: as for `explain`.
        parameters: as for `explain`.
        analyze: as for `explain`.

    Raises:
        SearchError: as `explain`.

    """
    opened = _checked(connection, statement)
    with untouched(opened):
        return explained_text(opened, statement, "ANALYZE, BUFFERS, SETTINGS" if analyze else "SETTINGS", parameters)


def assert_index_used(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    ignore_cost: bool = False,
) -> None:
    """Assert, in a test of your own, that the short index serves every shortlist of a search.

    The statement is planned, not executed, and nothing is changed.

        assert_index_used(session, search(select(Package), Package.embedding, vector), ignore_cost=True)

    Args:
        connection: as for `explain`.
        statement: as for `explain`.
        parameters: as for `explain`.
        ignore_cost: ask whether the index can serve the search, whatever it costs: for a test's database with a few
            rows, of which the planner rightly reads the table.

    Raises:
        AssertionError: it does not, with the reason and the plan.
        SearchError: as `explain`.

    """
    opened = _checked(connection, statement)
    with untouched(opened):
        if ignore_cost:
            opened.execute(text("SET LOCAL enable_sort = off"))
        plan = explained(opened, statement, "VERBOSE", parameters)["Plan"]
        served = index_serving(plan)
        if served.used:
            return
        shown = explained_text(opened, statement, "", parameters)
        why = "; ".join(reasons(opened, statement, plan, parameters))
    raise AssertionError(f"the short index does not serve this search: {served.instead}\nWhy: {why}.\n\n{shown}")


# -- the arguments -------------------------------------------------------------------------------------------------


def _checked(connection: Any, statement: Any) -> Connection:
    if not isinstance(connection, Connection | Session):
        raise SearchError(
            f"explain takes a Connection or a Session, not {type(connection).__name__}; of an AsyncSession: "
            "await session.run_sync(lambda sync: explain(sync, statement))"
        )
    if not isinstance(statement, SelectBase) or not _names(statement) & {RESULTS, FUSED}:
        raise SearchError(
            "explain takes what search() and its kin return; for another statement ask the server: "
            "EXPLAIN (ANALYZE, BUFFERS)"
        )
    return database.sqlalchemy_connection(connection)


def _names(statement: SelectBase) -> set[str]:
    return {str(getattr(one, "name", "")) for one in visitors.iterate(statement)}


def _options(connection: Connection) -> str:
    version: Any = connection.dialect.server_version_info
    return "ANALYZE, BUFFERS, VERBOSE, SETTINGS" + (", SERIALIZE" if version[0] >= SERIALIZE_SINCE else "")


# -- the shortlists ------------------------------------------------------------------------------------------------


def _shortlists(
    statement: SelectBase, made: list[Stage], plan: Node, session: Mapping[str, str], rows: Mapping[str, int]
) -> Iterator[Shortlist]:
    own = [stage for stage in made if stage.name == "shortlist"]
    found, sizes = subplans(plan, SHORTLIST), _sizes(statement)
    # a statement may hold several searches: their stages are told together
    one_each = len(found) == len(sizes) == len(own)
    for number, stage in enumerate(own):
        served = serving([found[number]] if one_each else found)
        asked = sizes[number : number + 1] if one_each else sizes
        scans = [scan for scan in stage.scans if scan.ordered]
        examined = None if served.instead or stage.usage is None else sum((s.rows or 0) + s.filtered for s in scans)
        limit = _limit(asked, session)
        ended = None if examined is None else _ended(stage, sum(asked), limit, rows)
        yield Shortlist(stage.retriever, sum(asked), stage.rows, served.indexes, served.instead, examined, limit, ended)


def _sizes(statement: SelectBase) -> list[int]:
    """The limits of the shortlists, in their order."""
    every: Iterator[Any] = (one for one in visitors.iterate(statement) if getattr(one, "name", None) == SHORTLIST)
    bodies = {id(one): one.element for one in every if isinstance(getattr(one, "element", None), Select)}
    return [int(str(limit_of(body))) for body in bodies.values()]


def _limit(sizes: list[int], session: Mapping[str, str]) -> int | None:
    """What hnsw.max_scan_tuples is for shortlists of these sizes; None where they differ in it."""
    usual = int(session.get("hnsw.max_scan_tuples", MAX_SCAN_TUPLES))
    limits = {max_scan_tuples(size) or usual for size in sizes}
    return limits.pop() if len(limits) == 1 else None


def _ended(stage: Stage, size: int, limit: int | None, rows: Mapping[str, int]) -> Ended | None:
    """Why the scan of an index ended; pgvector does not say, but has only these four reasons."""
    scans = [scan for scan in stage.scans if scan.ordered]
    rounds = max(scan.loops for scan in scans)
    if (stage.rows or 0) >= size * rounds:
        return "full"
    if limit is None:
        return None
    each = [((scan.rows or 0) + scan.filtered) / max(scan.loops, 1) for scan in scans]
    if max(each) >= limit:  # of each partition's index for itself
        return "max_scan_tuples"
    held = [rows.get(f"{scan.schema}.{name}", -1) for scan in scans for name in scan.index]
    if min(held) < 0 or not sum(held):
        return None
    return "exhausted" if sum(each) >= NEARLY_ALL * sum(held) else "scan_mem"
