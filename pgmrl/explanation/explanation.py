"""What `explain` returns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from pgmrl.searching.plans import without_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgmrl.explanation.shortlists import Shortlist
    from pgmrl.explanation.stages import Stage
    from pgmrl.explanation.toast import ToastReads
    from pgmrl.searching.plans import Node

__all__ = ["Explanation"]

HEADINGS: Final = ("stage", "ms", "rows", "expected", "blocks hit", "blocks read")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A search as the server ran it, stage by stage.

    `str()` of it is a table of the stages and the verdict.

    Attributes:
        stages: in the order in which they run; their times add up to the execution's, apart from rounding.
        shortlists: one, or one for each vector list of a hybrid search; empty where the search is exact.
        reasons: why no index serves a shortlist, in words; empty where one does.
        planning_ms: milliseconds of planning; None where the statement was not executed.
        execution_ms: milliseconds of execution, including the cost of EXPLAIN's own clock.
        jit_ms: of that, milliseconds of JIT compilation; None where nothing was compiled.
        toast_reads: what was read out of TOAST; None where the server does not count, or the statement was not
            executed.
        settings: in force for the statement, by name, and those for plans that differ from the server's defaults; where
            several searches set different values, all of them.
        row_counts: rows of the tables and indexes read, by `schema.name`, from their statistics and their size now, as
            the planner has it; -1 where there are no statistics.
        block_size: bytes of a block.
        document: the server's own output of EXPLAIN (FORMAT JSON, VERBOSE).
        verdict: what happened and why, in sentences.
        shards: of a distributed table, how many were asked; None on one server. Times of stages over shards are the
            coordinator's, and blocks the shards'; `row_counts` and `toast_reads` are empty.

    """

    stages: tuple[Stage, ...]
    shortlists: tuple[Shortlist, ...]
    reasons: tuple[str, ...]
    planning_ms: float | None
    execution_ms: float | None
    jit_ms: float | None
    toast_reads: ToastReads | None
    settings: Mapping[str, str]
    row_counts: Mapping[str, int]
    block_size: int
    document: Node
    verdict: tuple[str, ...] = ()
    shards: int | None = None

    @property
    def index_used(self) -> bool:
        """Whether indexes served every shortlist; False of an exact search."""
        return bool(self.shortlists) and all(shortlist.instead is None for shortlist in self.shortlists)

    def as_json(self) -> dict[str, Any]:
        """Everything as a JSON document; vectors in the server's output are cut to their first numbers."""
        values = asdict(self)
        for values_of_stage, stage in zip(values["stages"], self.stages, strict=True):
            values_of_stage["usage"] = None if stage.usage is None else stage.usage._asdict()
        document = json.loads(without_vectors(json.dumps(self.document)))
        return {"verdict": self.verdict, "index_used": self.index_used, **values, "document": document}

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of the columns of `table()`."""
        return HEADINGS

    def table(self) -> list[list[str]]:
        """The stages as cells; where the statement was not executed, only the names and the expected rows."""
        return [_cells(stage) for stage in self.stages]

    def __str__(self) -> str:
        rows = [list(self.headings), *self.table()]
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
    ms = "not run" if stage.executed is False else f"{stage.usage.ms:.2f}"
    return [name, ms, f"{stage.rows or 0:,.0f}", expected, f"{stage.usage.hit:,}", f"{stage.usage.read:,}"]
