"""A search in plain words: what served it, what it cost, what was needed and what was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.explanation.explanation import Explanation, Shortlist
    from pgmrl.explanation.stages import Scan, Stage, Usage

__all__ = ["sentences"]

MISTAKEN: Final = 10  # times more or fewer rows than expected: plans go wrong from about there
NOTABLE: Final = 0.1  # share of the whole that is worth a sentence

_NAMES: Final = {
    "query": "the query's vector",
    "shortlist": "the shortlist",
    "cut": "the cuts between",
    "rerank": "the rerank",
    "exact": "the exact ranking",
    "pick": "the picks",
    "words": "the list by words",
    "trigrams": "the list by trigrams",
    "fuse": "the fusion",
    "fetch": "the columns of the result",
    "send": "writing the result",
}


def sentences(found: Explanation) -> tuple[str, ...]:
    """What happened and why."""
    return tuple(_sentences(found))


def _sentences(found: Explanation) -> Iterator[str]:
    if found.execution_ms is not None:
        yield _whole(found, found.execution_ms)
    for shortlist in found.shortlists:
        yield from _shortlist(found, shortlist)
    if found.reasons:
        yield f"Why: {'; '.join(found.reasons)}."
    for stage in found.stages:
        yield from _exact(found, stage)
    if found.execution_ms is not None:
        yield from _ranked(found)
        yield from _mistaken(found)
        yield from _overheads(found, found.execution_ms)


def _whole(found: Explanation, execution: float) -> str:
    took = [(stage.usage.ms, stage) for stage in found.stages if stage.usage is not None]
    most, stage = max(took, key=lambda one: one[0])
    share = most / execution if execution else 0
    return f"{_ms(execution)}, {share:.0%} of it for {_NAMES[stage.name]}{_of(stage.retriever)}."


# -- the shortlist -------------------------------------------------------------------------------------------------


def _shortlist(found: Explanation, one: Shortlist) -> Iterator[str]:
    stage = next(s for s in found.stages if s.name == "shortlist" and s.retriever == one.retriever)
    cost = (
        ""
        if stage.usage is None
        else f": {_count(one.rows or 0, 'row')} in {_ms(stage.usage.ms)}, {_read(stage.usage)}"
    )
    if one.instead is None:
        names = " and ".join(one.indexes)
        serve = "serves" if stage.usage is None else "served"
        yield f"The short index {names} {serve} the shortlist{_of(one.retriever)}{cost}."
    else:
        serve = "serves" if stage.usage is None else "served"
        yield f"No index {serve} the shortlist{_of(one.retriever)}: {one.instead}{cost}. Such a shortlist is exact."
    left_out = sum(scan.filtered for scan in stage.scans if scan.ordered)
    if one.examined is not None and left_out:
        yield f"Of {one.examined:,.0f} rows from the index the filter left out {left_out:,.0f}."
    yield from _ended(found, one)


def _ended(found: Explanation, one: Shortlist) -> Iterator[str]:
    settings = found.settings
    had = f"with {one.rows or 0:,.0f} of {one.size:,} rows" if one.size is not None else ""
    if one.ended == "max_scan_tuples":
        yield f"The scan gave up at hnsw.max_scan_tuples ({one.max_scan_tuples:,}) {had}."
    elif one.ended == "scan_mem":
        memory = f"work_mem ({settings['work_mem']}) times hnsw.scan_mem_multiplier"
        yield f"The scan gave up at its memory, {memory} ({settings['hnsw.scan_mem_multiplier']}), {had}."
    elif one.ended == "exhausted":
        yield f"The scan came to the end of the index {had}: there are no more, or deleted rows fill the rest."


# -- the full vectors ----------------------------------------------------------------------------------------------


def _exact(found: Explanation, stage: Stage) -> Iterator[str]:
    if stage.name != "exact":
        return
    shortlist = next((one for one in found.shortlists if one.retriever == stage.retriever), None)
    if shortlist is None:
        cost = "" if stage.usage is None else f" in {_ms(stage.usage.ms)}, {_read(stage.usage)}"
        ranked = sum(scan.rows or 0 for scan in stage.scans)
        what = (
            f"ranked {_count(ranked, 'row')}" if stage.usage is not None else "ranks every row that the filters leave"
        )
        yield f"The search{_of(stage.retriever)} is exact: it {what}{cost}."
    elif stage.executed is False:
        yield f"The exact branch{_of(stage.retriever)} was not needed."
    elif stage.executed and stage.usage is not None:
        again = "" if shortlist.instead is None else " The shortlist had read the same rows already."
        yield (
            f"The shortlist{_of(stage.retriever)} fell short, so the exact branch ranked every row of the filter: "
            f"{_count(stage.rows or 0, 'row')} in {_ms(stage.usage.ms)}, {_read(stage.usage)}.{again}"
        )


def _ranked(found: Explanation) -> Iterator[str]:
    for stage in found.stages:
        if stage.name == "rerank" and stage.usage is not None:
            yield f"The rerank by full vectors{_of(stage.retriever)} took {_ms(stage.usage.ms)}."
    read = found.detoasted
    if read is None:
        yield "track_counts is off, so the server does not say what was read out of TOAST."
    elif not read.values:
        yield "Nothing was read out of TOAST: what was needed lies in the rows."
    else:
        about = "at most " if read.at_most else ""
        more = ", and parallel workers read more, which is not counted" if read.partial else ""
        blocks = f"{_count(read.hit + read.read, 'block')}, {_from_outside(read.read)}"
        yield (
            f"{_count(read.values, 'value')} were read out of TOAST: {about}{shown(read.bytes)} in "
            f"{_count(read.chunks, 'chunk')}, {blocks}{more}."
        )


# -- what is amiss -------------------------------------------------------------------------------------------------


def _mistaken(found: Explanation) -> Iterator[str]:
    said = set()
    for stage in found.stages:
        for scan in stage.scans:
            wrong = _expected(found, scan)
            if wrong is not None and wrong not in said:
                said.add(wrong)
                yield wrong


def _expected(found: Explanation, scan: Scan) -> str | None:
    """Where the planner was far from what came; of an index's scan, which ends early, by the share that passed."""
    if not scan.loops or scan.rows is None:
        return None
    came = scan.rows / scan.loops
    if scan.ordered:
        examined = (scan.rows + scan.filtered) / scan.loops
        if examined < 100:
            return None
        rows = found.row_counts.get(f"{scan.schema}.{scan.table}", -1)
        if rows <= 0:  # no statistics
            return None
        came = came / examined * rows
    few, many = sorted((max(came, 1), max(scan.estimated_rows, 1)))
    if many < 1000 or many < MISTAKEN * few:
        return None
    going_by = ", going by those nearest to the query" if scan.ordered else ""
    return (
        f"The planner expected {scan.estimated_rows:,.0f} rows of {scan.table} to pass and it was {came:,.0f}"
        f"{going_by}: run ANALYZE; where columns depend on each other, CREATE STATISTICS."
    )


def _overheads(found: Explanation, execution: float) -> Iterator[str]:
    for stage in found.stages:
        large = stage.usage is not None and stage.usage.ms >= NOTABLE * execution
        if large and stage.usage is not None and stage.name in {"query", "fetch", "send"}:
            yield f"{_NAMES[stage.name].capitalize()} took {_ms(stage.usage.ms)}."
    if found.jit_ms is not None and found.jit_ms >= NOTABLE * execution:
        yield f"JIT compilation took {_ms(found.jit_ms)} of that: SET jit = off for the role that searches."
    if found.planning_ms is not None and found.planning_ms > execution:
        yield f"Planning took {_ms(found.planning_ms)}, longer than the execution."
    temp = sum(stage.usage.temp for stage in found.stages if stage.usage is not None)
    if temp:
        size, memory = shown(temp * found.block_size), found.settings["work_mem"]
        yield f"{size} of temporary files were written: raise work_mem ({memory})."


# -- numbers -------------------------------------------------------------------------------------------------------


def _of(retriever: int | None) -> str:
    return "" if retriever is None else f" of retriever {retriever}"


def _count(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def _ms(ms: float) -> str:
    return f"{ms:.2f} ms" if ms < 1 else f"{ms:,.1f} ms"


def _read(usage: Usage) -> str:
    return f"{_count(usage.hit + usage.read, 'block')}, {_from_outside(usage.read)}"


def _from_outside(read: int) -> str:
    return f"{read:,} of them from outside shared buffers" if read else "all from shared buffers"
