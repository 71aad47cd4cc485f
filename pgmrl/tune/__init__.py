"""Tune: the cheapest setting that reaches a recall, with what it costs today and at ten times the rows."""

from pgmrl.tune.filtered import FilteredTuning, tune_filtered
from pgmrl.tune.index_trial import Option
from pgmrl.tune.result import Check, ExactShortlists, FittedModel, Tuning
from pgmrl.tune.tuning import tune

__all__ = [
    "Check",
    "ExactShortlists",
    "FilteredTuning",
    "FittedModel",
    "Option",
    "Tuning",
    "tune",
    "tune_filtered",
]
