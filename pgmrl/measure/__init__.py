"""Know the recall: how much of the truth searches return, why they miss the rest, and what it costs."""

from pgmrl.measure.queries import Queries, file_queries, given_queries, sampled_queries, selected_queries
from pgmrl.measure.score import Interval, mean_interval, recall_at_k

__all__ = [
    "Interval",
    "Queries",
    "file_queries",
    "given_queries",
    "mean_interval",
    "recall_at_k",
    "sampled_queries",
    "selected_queries",
]
