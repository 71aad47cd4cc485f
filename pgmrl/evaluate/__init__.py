"""Quality, not just recall: how good the results are for judged queries, by exact search and by shorter ways."""

from pgmrl.evaluate.compare import Difference
from pgmrl.evaluate.evaluation import (
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
from pgmrl.evaluate.judged import Judged, Query, beir_judgements, file_judgements, selected_judgements
from pgmrl.evaluate.plot import plot
from pgmrl.evaluate.running import evaluate

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
