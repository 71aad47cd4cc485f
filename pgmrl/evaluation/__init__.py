"""Quality, not just recall: how good the results are for judged queries, by exact search and by shorter ways."""

from pgmrl.evaluation.compare import Difference
from pgmrl.evaluation.evaluate_column import evaluate
from pgmrl.evaluation.evaluation import (
    EXACT,
    HYBRID,
    SHORT_ONLY,
    TWO_STAGE,
    WORDS,
    AtDims,
    Evaluation,
    System,
    WorstQuery,
)
from pgmrl.evaluation.judged import Judged, Query, beir_judgements, file_judgements, selected_judgements
from pgmrl.evaluation.plot import plot

__all__ = [
    "EXACT",
    "HYBRID",
    "SHORT_ONLY",
    "TWO_STAGE",
    "WORDS",
    "AtDims",
    "Difference",
    "Evaluation",
    "Judged",
    "Query",
    "System",
    "WorstQuery",
    "beir_judgements",
    "evaluate",
    "file_judgements",
    "plot",
    "selected_judgements",
]
