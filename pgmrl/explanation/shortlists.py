"""The shortlists of a search: their indexes, and why each scan of an index ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select
from sqlalchemy.sql import visitors

from pgmrl.limits import MAX_SCAN_TUPLES
from pgmrl.model.scan_settings import max_scan_tuples
from pgmrl.model.sqlalchemy_internals import limit_of
from pgmrl.searching.plans import serving, shortlist_scans
from pgmrl.searching.scan_ends import scan_end
from pgmrl.searching.statement import SHORTLIST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.sql.expression import SelectBase

    from pgmrl.explanation.stages import Stage
    from pgmrl.searching.plans import Node
    from pgmrl.searching.scan_ends import ScanEnd

__all__ = ["Shortlist", "shortlists"]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """One shortlist of a search.

    Attributes:
        retriever: number of the retriever of a hybrid search, from 1; None for other searches.
        size: rows requested for each query.
        rows: rows returned, for all queries together; None where the statement was not executed.
        indexes: the indexes that served it: one for each partition of a partitioned table; empty where none did.
        instead: in words, how the rows were read where no index served it; None where one did.
        examined: rows that came from the index, including those that the filter removed; None where the statement was
            not executed or no index served the shortlist.
        max_scan_tuples: rows after which pgvector ends a scan; None where several searches that are reported together
            differ in it.
        scan_end: why the scan of the index ended: `full` (it had returned all rows requested), `max_scan_tuples` or
            `scan_mem` (pgvector's limit on rows or memory), `exhausted` (end of the index); None where unknown.

    """

    retriever: int | None
    size: int
    rows: float | None
    indexes: tuple[str, ...]
    instead: str | None
    examined: float | None
    max_scan_tuples: int | None
    scan_end: ScanEnd | None


def shortlists(
    statement: SelectBase,
    stages: Sequence[Stage],
    plan: Node,
    session: Mapping[str, str],
    row_counts: Mapping[str, int],
) -> Iterator[Shortlist]:
    """The shortlists of a statement, in the order of its retrievers.

    Args:
        statement: as `search` returns it.
        stages: of its plan.
        plan: the plan's top node, of EXPLAIN with VERBOSE.
        session: the session's settings, by name.
        row_counts: rows of the tables and indexes, by `schema.name`.

    """
    own = [stage for stage in stages if stage.name == "shortlist"]
    shortlist_plans, sizes = shortlist_scans(plan), _sizes(statement)
    # a statement may hold several searches: their stages are reported together
    one_each = len(shortlist_plans) == len(sizes) == len(own)
    for number, stage in enumerate(own):
        index = serving([shortlist_plans[number]] if one_each else shortlist_plans)
        own_sizes = sizes[number : number + 1] if one_each else sizes
        size, limit = sum(own_sizes), _scan_limit(own_sizes, session)
        examined = scan_end = None
        if index.used and stage.usage is not None:
            examined = sum((scan.rows or 0) + scan.filtered for scan in stage.scans if scan.ordered)
            scan_end = _scan_end(stage, size, limit, row_counts)
        yield Shortlist(stage.retriever, size, stage.rows, index.indexes, index.instead, examined, limit, scan_end)


def _sizes(statement: SelectBase) -> list[int]:
    """The limits of the shortlists, in their order."""
    named: Iterator[Any] = (item for item in visitors.iterate(statement) if getattr(item, "name", None) == SHORTLIST)
    selects = {id(item): item.element for item in named if isinstance(getattr(item, "element", None), Select)}
    return [int(str(limit_of(shortlist))) for shortlist in selects.values()]


def _scan_limit(sizes: list[int], session: Mapping[str, str]) -> int | None:
    """The value of hnsw.max_scan_tuples for shortlists of these sizes; None where they differ in it."""
    usual = int(session.get("hnsw.max_scan_tuples", MAX_SCAN_TUPLES))
    limits = {max_scan_tuples(size) or usual for size in sizes}
    return limits.pop() if len(limits) == 1 else None


def _scan_end(stage: Stage, size: int, limit: int | None, row_counts: Mapping[str, int]) -> ScanEnd | None:
    scans = [scan for scan in stage.scans if scan.ordered]
    loops = max(scan.loops for scan in scans)
    examined = [((scan.rows or 0) + scan.filtered) / max(scan.loops, 1) for scan in scans]
    indexed = [row_counts.get(f"{scan.schema}.{name}", -1) for scan in scans for name in scan.index]
    return scan_end(stage.rows or 0, size * loops, examined, limit, sum(indexed) if min(indexed) >= 0 else None)
