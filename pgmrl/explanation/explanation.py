"""What `explain` gives back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pgmrl.explanation.verdict import sentences
from pgmrl.searching.plans import without_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgmrl.explanation.server_counters import Detoasted
    from pgmrl.explanation.stages import Stage
    from pgmrl.searching.plans import Node

__all__ = ["Ended", "Explanation", "Shortlist"]

Ended = Literal["full", "max_scan_tuples", "scan_mem", "exhausted"]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """One shortlist of a search.

    Attributes:
        retriever: of a hybrid search, counted from 1; None elsewhere.
        size: rows that it was asked for, for each query.
        rows: rows that it gave, of all queries together; None where the statement was not executed.
        indexes: the indexes that served it; several of a partitioned table; empty where none did.
        instead: what was done where no index served it, in words; None where one did.
        examined: rows that came from the index, with those that the filter left out; None where it was not executed or
            no index served it.
        max_scan_tuples: rows after which pgvector gives a scan up; None where several searches that are told together
            differ in it.
        ended: why the index's scan ended: `full` (it had all rows asked for), `max_scan_tuples` or `scan_mem` (it gave
            up at pgvector's limit on rows or memory), `exhausted` (there was no more in the index); None where that
            cannot be told.

    """

    retriever: int | None
    size: int | None
    rows: float | None
    indexes: tuple[str, ...]
    instead: str | None
    examined: float | None
    max_scan_tuples: int | None
    ended: Ended | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A search as the server ran it, stage by stage.

    `str()` of it is a table of the stages and the verdict.

    Attributes:
        stages: in the order in which they run; their times add up to the execution's, apart from rounding.
        shortlists: one, or one for each vector list of a hybrid search; empty where the search is exact.
        reasons: why no index serves a shortlist, in words; empty where one does.
        planning_ms: milliseconds of planning; None where the statement was not executed.
        execution_ms: milliseconds of execution with EXPLAIN's own clock in it, which costs some.
        jit_ms: of that, for compiling; None where nothing was compiled.
        detoasted: what was read out of TOAST; None where the server does not count, or the statement was not executed.
        settings: in force for the statement, by name, and those that differ from the server's defaults for plans; of
            searches that set different ones all values.
        row_counts: rows of the tables and indexes read, by `schema.name`, by their statistics and their size now, as
            the planner has it; -1 where there are no statistics.
        block_size: bytes of a block.
        document: the server's own account, as of EXPLAIN (FORMAT JSON, VERBOSE).

    """

    stages: tuple[Stage, ...]
    shortlists: tuple[Shortlist, ...]
    reasons: tuple[str, ...]
    planning_ms: float | None
    execution_ms: float | None
    jit_ms: float | None
    detoasted: Detoasted | None
    settings: Mapping[str, str]
    row_counts: Mapping[str, int]
    block_size: int
    document: Node

    @property
    def index_used(self) -> bool:
        """Whether indexes served every shortlist; False of an exact search."""
        return bool(self.shortlists) and all(one.instead is None for one in self.shortlists)

    @property
    def verdict(self) -> tuple[str, ...]:
        """What happened and why, in plain sentences."""
        return sentences(self)

    def as_json(self) -> dict[str, Any]:
        """Everything as a JSON document; vectors in the server's account are cut to their first numbers."""
        found = asdict(self)
        stages = [
            {**one, "usage": None if stage.usage is None else stage.usage._asdict()}
            for one, stage in zip(found["stages"], self.stages, strict=True)
        ]
        document = json.loads(without_vectors(json.dumps(self.document)))
        return {
            "verdict": list(self.verdict),
            "index_used": self.index_used,
            **found,
            "stages": stages,
            "document": document,
        }

    @property
    def heads(self) -> tuple[str, ...]:
        """What the cells of `table()` are."""
        return ("stage", "ms", "rows", "expected", "blocks hit", "blocks read")

    def table(self) -> list[list[str]]:
        """The stages as cells; those of a statement that was not executed have no numbers but what was expected."""
        return [_cells(stage) for stage in self.stages]

    def __str__(self) -> str:
        rows = [list(self.heads), *self.table()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), "", *self.verdict])


def _cells(stage: Stage) -> list[str]:
    name = stage.name if stage.retriever is None else f"{stage.name} ({stage.retriever})"
    expected = f"{stage.estimated_rows:,.0f}"
    if stage.usage is None:
        return [name, "", "", expected, "", ""]
    took = "not run" if stage.executed is False else f"{stage.usage.ms:.2f}"
    return [name, took, f"{stage.rows or 0:,.0f}", expected, f"{stage.usage.hit:,}", f"{stage.usage.read:,}"]
