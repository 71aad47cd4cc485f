"""Measures of judged results, by ir-measures.

MacAvaney, Macdonald, Ounis: "Streamlining Evaluation with ir-measures", ECIR 2022. It computes most of them by
trec_eval itself, so that numbers compare with published ones: a document that was not judged counts as not relevant,
and a judged one that the table does not have as one that was not found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.model.argument_types import argument_list
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DEFAULT", "DEPTH", "Measure", "Scorer", "library", "parsed"]

DEFAULT: Final = ("nDCG@10", "RR@10", "P@10", "R@100", "AP")
DEPTH: Final = 100
"""Rows of a search that are judged where a measure has no cutoff of its own."""

TRIAL: Final = {"1": {"a": 2, "b": 0}, "2": {"a": 1}}


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        name: as ir-measures spells it, `nDCG@10`.
        depth: rows of a search that it looks at.
        parsed: ir-measures' own object.

    """

    name: str
    depth: int
    parsed: Any


def parsed(names: Sequence[str]) -> list[Measure]:
    """The measures of these names, each once.

    Args:
        names: as ir-measures has them: `nDCG@10`, `RR@10` (or `MRR@10`), `AP` (or `MAP`), `P(rel=2)@5`, `ERR@20`, ….

    Raises:
        MeasureError: a name that is none, a measure that cannot be computed here, or the extra is not installed.

    """
    listed = argument_list("measures", names, MeasureError, "a list of names, such as ['nDCG@10']")
    measures = {measure.name: measure for measure in map(_measure, listed)}
    if not measures:
        raise MeasureError("there is no measure: give at least one, such as nDCG@10")
    return list(measures.values())


class Scorer:
    """Computes measures for one system after another.

    Args:
        measures: what to compute.
        relevance: grades by query and document, of the queries that count.

    """

    def __init__(self, measures: Sequence[Measure], relevance: Mapping[str, Mapping[str, int]]) -> None:
        self._names = {measure.parsed: measure.name for measure in measures}
        self._place = {query: n for n, query in enumerate(relevance)}
        self._evaluators = {
            depth: library().evaluator([own.parsed for own in measures if own.depth == depth], relevance)
            for depth in {measure.depth for measure in measures}
        }

    def values(self, run: Mapping[int, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float64]]:
        """The values of the measures for each query.

        Args:
            run: for each depth the documents found for each query, best first, none twice.

        Returns:
            By the measure's name, shape (queries,), in the order of `relevance`.

        """
        values = {name: np.zeros(len(self._place)) for name in self._names.values()}
        for depth, evaluator in self._evaluators.items():
            scored = {query: _scored(run[depth].get(query, ())) for query in self._place}
            for value in evaluator.iter_calc(scored):
                values[self._names[value.measure]][self._place[value.query_id]] = value.value
        return values


def _scored(documents: Sequence[str]) -> dict[str, float]:
    """Numbers that say no more than the order: trec_eval breaks ties by the document's name, searches by the key."""
    return {document: float(len(documents) - rank) for rank, document in enumerate(documents)}


def _measure(name: str) -> Measure:
    measures = library()
    if not isinstance(name, str):
        raise MeasureError(f"{safe_repr(name)} is no measure: give the name of one, such as nDCG@10")
    try:
        measure = measures.parse_measure(name)
    except (NameError, ValueError, TypeError, SyntaxError) as error:
        raise MeasureError(
            f"{safe_repr(name)} is no measure that ir-measures knows ({error}): give nDCG@10, say"
        ) from None
    cutoff = measure.params.get("cutoff", DEPTH)
    if isinstance(cutoff, bool) or not isinstance(cutoff, int) or cutoff < 1:  # trec_eval would end the process
        raise MeasureError(f"{safe_repr(name)}: the cutoff is a whole number, at least 1")
    try:
        values = list(measures.evaluator([measure], TRIAL).iter_calc({"1": {"a": 2.0, "b": 1.0}}))
    except (ValueError, AssertionError, RuntimeError, OSError) as error:
        raise MeasureError(f"{safe_repr(name)} cannot be computed here: {' '.join(str(error).split())}") from None
    if {value.query_id for value in values} != set(TRIAL):
        raise MeasureError(
            f"{safe_repr(name)} has no value for a query that finds nothing, so systems cannot be compared by it"
        )
    return Measure(str(measure), cutoff, measure)


def library() -> Any:
    """The module ir_measures.

    Raises:
        MeasureError: the extra is not installed.

    """
    try:
        import ir_measures  # noqa: PLC0415 - an extra
    except ImportError:
        raise MeasureError("judging results needs ir-measures: pip install 'pgmrl[evaluate]'") from None
    return ir_measures
