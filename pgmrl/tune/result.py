"""The result of tuning: the setting, what it brings today and at ten times the rows, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pgmrl.model.rotation import Rotation

if TYPE_CHECKING:
    from pgmrl.measure.intervals import Interval
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.index_trial import Option
    from pgmrl.tune.limiting_factor import Limit
    from pgmrl.tune.plain_index import PlainIndex
    from pgmrl.tune.request import OptimizeFor

__all__ = ["Check", "ExactShortlists", "FittedModel", "Tuning"]


class ExactShortlists(NamedTuple):
    """The recall of exact shortlists of one candidate.

    Attributes:
        candidate: how it shortens.
        recall: for each size of the shortlist, in the table as it is today.

    """

    candidate: Candidate
    recall: dict[int, float]


class Check(NamedTuple):
    """The setting, tried with queries that it was not chosen by.

    Attributes:
        what: was searched, in words.
        queries: how many.
        predicted: recall there.
        measured: recall there.
        predicted_ms: the median time of a search there.
        measured_ms: likewise.

    """

    what: str
    queries: int
    predicted: float
    measured: Interval
    predicted_ms: float
    measured_ms: float


class FittedModel(NamedTuple):
    """A model behind an extrapolation, and how it held.

    Attributes:
        name: of what is predicted.
        formula: in words and numbers.
        error: when a measurement at the largest size was predicted from smaller ones; None where there were too few.
        relative: whether `error` is a share of what was measured, else a difference of recall.
        sizes: rows of the tables that were measured.

    """

    name: str
    formula: str
    error: float | None
    relative: bool
    sizes: list[int]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of tuning.

    Attributes:
        column: `table.column` of the full vectors.
        k: results that count.
        target: recall@k that was asked for.
        optimize_for: what the choice is the cheapest in.
        rows: of the table today.
        rows_read: of it, for truth and truncation.
        queries: that the setting was chosen by.
        source: what the queries are, in words.
        choice: the cheapest setting that reaches the target; None where none does.
        best: the setting with the highest recall, where none reaches it.
        limit: why none does.
        tenfold: `choice` (or `best`) at ten times the rows.
        tenfold_needed: the setting of the same column that reaches the target there; None where none does.
        current: the column as it is now, with the numbers that searches take by default; None where it has no index.
        keeps_column: whether the choice needs no other column or index than there is.
        plain: one HNSW index on the full vectors beside the choice; None where it was not tried, or finds less.
        front: what no other setting beats in recall, time and size at once; the fastest first.
        tried: the same of each candidate whose index was tried.
        exact_shortlists: of all candidates, the smallest index first.
        checks: the setting, tried with other queries.
        models: behind the extrapolations.
        notes: what could not be done, and what to know.
        incomplete: what was left out for want of time, or by the limit of rows; empty where all was read and tried.
        seconds: that each part took.

    """

    column: str
    k: int
    target: float
    optimize_for: OptimizeFor
    rows: int
    rows_read: int
    queries: int
    source: str
    choice: Option | None
    best: Option | None
    limit: Limit | None
    tenfold: Option | None
    tenfold_needed: Option | None
    current: Option | None
    keeps_column: bool
    plain: PlainIndex | None
    front: list[Option] = field(repr=False)
    tried: list[Option] = field(repr=False)
    exact_shortlists: list[ExactShortlists] = field(repr=False)
    checks: list[Check]
    models: list[FittedModel] = field(repr=False)
    notes: list[str]
    incomplete: list[str]
    seconds: dict[str, float] = field(compare=False)

    @property
    def rotation(self) -> Rotation | None:
        """The axes the choice shortens by; None for a prefix."""
        by = None if self.choice is None else self.choice.candidate.definition.short.by
        return by if isinstance(by, Rotation) else None

    def as_json(self) -> dict[str, Any]:
        """As a JSON document: names as here, sizes in bytes, times in milliseconds or seconds as the names say."""
        limit = self.limit
        return {
            "column": self.column,
            "k": self.k,
            "target": self.target,
            "optimize_for": self.optimize_for,
            "rows": self.rows,
            "rows_read": self.rows_read,
            "queries": self.queries,
            "source": self.source,
            "choice": _option(self.choice, self.rows),
            "best": _option(self.best, self.rows),
            "limit": None
            if limit is None
            else {"cause": limit.cause, "message": limit.message, "remedy": limit.remedy},
            "tenfold": _option(self.tenfold, 10 * self.rows),
            "tenfold_needed": _option(self.tenfold_needed, 10 * self.rows),
            "current": _option(self.current, self.rows),
            "keeps_column": self.keeps_column,
            "plain": None if self.plain is None else self.plain._asdict(),
            "front": [_option(option, self.rows) for option in self.front],
            "tried": [_option(option, self.rows) for option in self.tried],
            "exact_shortlists": [
                {**_candidate(candidate), "recall": recall} for candidate, recall in self.exact_shortlists
            ],
            "checks": [{**check._asdict(), "measured": check.measured._asdict()} for check in self.checks],
            "models": [model._asdict() for model in self.models],
            "notes": self.notes,
            "incomplete": self.incomplete,
            "seconds": self.seconds,
        }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    by = candidate.definition.short.by
    return {
        "shortening": candidate.rule,
        "rotation": by.id if isinstance(by, Rotation) else None,
        "dims": candidate.dims,
        "type": candidate.type,
    }


def _option(option: Option | None, rows: int) -> dict[str, Any] | None:
    if option is None:
        return None
    return {
        **_candidate(option.candidate),
        "m": option.candidate.index.m,
        "ef_construction": option.candidate.index.ef_construction,
        "shortlist": option.shortlist,
        "ef_search": option.ef_search,
        "recall": option.recall._asdict(),
        "latency_ms": option.latency_ms,
        "index_bytes": option.index_bytes,
        "build_seconds": option.build_seconds,
        "build_memory_bytes": option.candidate.graph_bytes(rows),
    }
