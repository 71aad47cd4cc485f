"""Know the recall: how much of the truth searches return, why they miss the rest, and what it costs."""

from pgmrl.measure.agreement import Agreement, measure_agreement, row_queries
from pgmrl.measure.attribution import Loss
from pgmrl.measure.history import Measured, recall_history, record_recall
from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.measure.queries import Queries, file_queries, sampled_queries, selected_queries, vector_queries
from pgmrl.measure.recall import Recall, Worst, measure_recall
from pgmrl.measure.recall_by_distance import recall_at_k

__all__ = [
    "Agreement",
    "Interval",
    "Loss",
    "Measured",
    "Queries",
    "Recall",
    "Worst",
    "file_queries",
    "mean_interval",
    "measure_agreement",
    "measure_recall",
    "recall_at_k",
    "recall_history",
    "record_recall",
    "row_queries",
    "sampled_queries",
    "selected_queries",
    "vector_queries",
]
