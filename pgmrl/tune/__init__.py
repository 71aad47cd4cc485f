"""Tune: the cheapest setting that reaches a recall, with what it costs today and at ten times the rows."""

from pgmrl.tune.result import Check, Kept, Model, Tuning
from pgmrl.tune.trial import Option
from pgmrl.tune.tuning import tune

__all__ = ["Check", "Kept", "Model", "Option", "Tuning", "tune"]
