"""The doctor: one page of what makes searches wrong or slow, the worst first, with remedies and the SQL behind them."""

from pgmrl.doctor.exam import Check, Thresholds
from pgmrl.doctor.finding import Finding, NotChecked, Report
from pgmrl.doctor.run import CHECKS, doctor

__all__ = ["CHECKS", "Check", "Finding", "NotChecked", "Report", "Thresholds", "doctor"]
