"""A search in sentences: which index served it, what it cost, what was needed and what was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.units import milliseconds as _ms
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.explanation.explanation import Explanation
    from pgmrl.explanation.shortlists import Shortlist
    from pgmrl.explanation.stages import Scan, Stage, Usage

__all__ = ["sentences"]

MISESTIMATE: Final = 10  # times more or fewer rows than expected: plans go wrong from about there
NOTABLE: Final = 0.1  # share of the whole that is worth a sentence
EXAMINED_ROWS: Final = 100  # of fewer rows from an index no share of the table is estimated
MISESTIMATED_ROWS: Final = 1000  # below so many rows a wrong estimate costs little

_NAMES: Final = {
    "query": "the query's vector",
    "shortlist": "the shortlist",
    "cut": "the stages of the funnel",
    "rerank": "the rerank",
    "exact": "the exact ranking",
    "pick": "the diverse picks",
    "words": "the list by words",
    "trigrams": "the list by trigrams",
    "fuse": "the fusion",
    "fetch": "the columns of the result",
    "send": "writing the result",
}


def sentences(explanation: Explanation) -> Iterator[str]:
    """What happened and why; the explanation's own verdict is not read."""
    execution_ms = explanation.execution_ms
    if execution_ms is not None:
        yield _execution(explanation, execution_ms)
    for shortlist in explanation.shortlists:
        yield from _shortlist(explanation, shortlist)
    if explanation.reasons:
        yield f"Why: {'; '.join(explanation.reasons)}."
    for stage in explanation.stages:
        if stage.name == "exact":
            yield from _exact(explanation, stage)
    if execution_ms is not None:
        yield from _rerank(explanation)
        yield from _toast(explanation)
        yield from _misestimates(explanation)
        yield from _overheads(explanation, execution_ms)


def _execution(explanation: Explanation, execution_ms: float) -> str:
    times = [(stage.usage.ms, stage) for stage in explanation.stages if stage.usage is not None]
    longest, stage = max(times, key=lambda time: time[0])
    share = longest / execution_ms if execution_ms else 0
    return f"The search took {_ms(execution_ms)}, {share:.0%} of it for {_NAMES[stage.name]}{_of(stage.retriever)}."


# -- the shortlist -------------------------------------------------------------------------------------------------


def _shortlist(explanation: Explanation, shortlist: Shortlist) -> Iterator[str]:
    stage = next(s for s in explanation.stages if s.name == "shortlist" and s.retriever == shortlist.retriever)
    serves, cost = "serves", ""
    if stage.usage is not None:
        serves = "served"
        cost = f": {_count(shortlist.rows or 0, 'row')} in {_ms(stage.usage.ms)}, {_blocks(stage.usage)}"
    name = f"the shortlist{_of(shortlist.retriever)}"
    if shortlist.instead is None:
        yield f"The short index {' and '.join(shortlist.indexes)} {serves} {name}{cost}."
    else:
        yield f"No index {serves} {name}: {shortlist.instead}{cost}. A shortlist without an index is exact."
    removed = sum(scan.filtered for scan in stage.scans if scan.ordered)
    if shortlist.examined is not None and removed:
        yield f"The index returned {shortlist.examined:,.0f} rows, of which the filter removed {removed:,.0f}."
    yield from _scan_end(explanation, shortlist)


def _scan_end(explanation: Explanation, shortlist: Shortlist) -> Iterator[str]:
    settings = explanation.settings
    rows = f"with {shortlist.rows or 0:,.0f} of {shortlist.size:,} rows"
    if shortlist.scan_end == "max_scan_tuples":
        yield f"The index scan stopped at hnsw.max_scan_tuples ({shortlist.max_scan_tuples:,}) {rows}."
    elif shortlist.scan_end == "scan_mem":
        memory = f"work_mem ({settings['work_mem']}) times hnsw.scan_mem_multiplier"
        yield f"The index scan stopped at its memory limit, {memory} ({settings['hnsw.scan_mem_multiplier']}), {rows}."
    elif shortlist.scan_end == "exhausted":
        yield (
            f"The index scan reached the end of the index {rows}: no more rows pass the filter, or dead rows take "
            "their places."
        )


# -- the full vectors ----------------------------------------------------------------------------------------------


def _exact(explanation: Explanation, stage: Stage) -> Iterator[str]:
    retriever = _of(stage.retriever)
    shortlist = next((own for own in explanation.shortlists if own.retriever == stage.retriever), None)
    if shortlist is None:
        if stage.usage is None:
            yield f"The search{retriever} is exact: it ranks every row that passes the filter."
            return
        rows = _count(sum(scan.rows or 0 for scan in stage.scans), "row")
        yield f"The search{retriever} is exact: it ranked {rows} in {_ms(stage.usage.ms)}, {_blocks(stage.usage)}."
    elif stage.executed is False:
        yield f"The exact fallback{retriever} was not needed."
    elif stage.executed and stage.usage is not None:
        twice = "" if shortlist.instead is None else " The shortlist had already read the same rows."
        yield (
            f"The shortlist{retriever} had too few rows, so the exact fallback ranked every row that passes the "
            f"filter: {_count(stage.rows or 0, 'row')} in {_ms(stage.usage.ms)}, {_blocks(stage.usage)}.{twice}"
        )


def _rerank(explanation: Explanation) -> Iterator[str]:
    for stage in explanation.stages:
        if stage.name == "rerank" and stage.usage is not None:
            yield f"The rerank by full vectors{_of(stage.retriever)} took {_ms(stage.usage.ms)}."


def _toast(explanation: Explanation) -> Iterator[str]:
    reads = explanation.toast_reads
    if reads is None:
        yield "track_counts is off: what was read out of TOAST is unknown."
    elif not reads.values:
        yield "Nothing was read out of TOAST: all values needed are stored in the rows."
    else:
        at_most = "at most " if reads.at_most else ""
        more = "; reads by parallel workers are not counted" if reads.partial else ""
        blocks = f"{_count(reads.hit + reads.read, 'block')}, {_buffers(reads.read)}"
        yield (
            f"{_count(reads.values, 'value')} were read out of TOAST: {at_most}{shown(reads.bytes)} in "
            f"{_count(reads.chunks, 'chunk')}, {blocks}{more}."
        )


# -- what is amiss -------------------------------------------------------------------------------------------------


def _misestimates(explanation: Explanation) -> Iterator[str]:
    scans = (scan for stage in explanation.stages for scan in stage.scans)
    messages = (_misestimate(explanation, scan) for scan in scans)
    yield from dict.fromkeys(message for message in messages if message is not None)


def _misestimate(explanation: Explanation, scan: Scan) -> str | None:
    """Where the planner's estimate was far off.

    A scan of the index ends early: its number of rows is extrapolated from the share that passed the filter.
    """
    if not scan.loops or scan.rows is None:
        return None
    actual, estimated = scan.rows / scan.loops, scan.estimated_rows
    if scan.ordered:
        examined = (scan.rows + scan.filtered) / scan.loops
        rows = explanation.row_counts.get(f"{scan.schema}.{scan.table}", -1)
        if examined < EXAMINED_ROWS or rows <= 0:  # -1: no statistics
            return None
        actual = actual / examined * rows
    few, many = sorted((max(actual, 1), max(estimated, 1)))
    if many < MISESTIMATED_ROWS or many < MISESTIMATE * few:
        return None
    extrapolated = " (extrapolated from the rows nearest to the query)" if scan.ordered else ""
    return (
        f"The planner expected {_count(estimated, 'row')} of {scan.table} to pass the filter, got {actual:,.0f}"
        f"{extrapolated}: run ANALYZE; where columns depend on each other, CREATE STATISTICS."
    )


def _overheads(explanation: Explanation, execution_ms: float) -> Iterator[str]:
    for stage in explanation.stages:
        large = stage.usage is not None and stage.usage.ms >= NOTABLE * execution_ms
        if large and stage.usage is not None and stage.name in {"query", "fetch", "send"}:
            yield f"{_NAMES[stage.name].capitalize()} took {_ms(stage.usage.ms)}."
    if explanation.jit_ms is not None and explanation.jit_ms >= NOTABLE * execution_ms:
        yield f"JIT compilation took {_ms(explanation.jit_ms)} of that: SET jit = off for the role that searches."
    if explanation.planning_ms is not None and explanation.planning_ms > execution_ms:
        yield f"Planning took {_ms(explanation.planning_ms)}, longer than the execution."
    temporary = sum(stage.usage.temp for stage in explanation.stages if stage.usage is not None)
    if temporary:
        size, memory = shown(temporary * explanation.block_size), explanation.settings["work_mem"]
        yield f"{size} of temporary files were written: raise work_mem ({memory})."


# -- numbers -------------------------------------------------------------------------------------------------------


def _of(retriever: int | None) -> str:
    return "" if retriever is None else f" of retriever {retriever}"


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def _blocks(usage: Usage) -> str:
    return f"{_count(usage.hit + usage.read, 'block')}, {_buffers(usage.read)}"


def _buffers(read: int) -> str:
    return f"{read:,} of them from outside shared buffers" if read else "all from shared buffers"
