"""The doctor: one page of what makes searches wrong or slow, the worst first, with remedies and the SQL behind them."""

from pgmrl.doctor.examination import Check, Thresholds
from pgmrl.doctor.finding import Finding, NotChecked, Report
from pgmrl.doctor.health import Health, health
from pgmrl.doctor.measured_recall import Measurement, measure
from pgmrl.doctor.prometheus import prometheus
from pgmrl.doctor.run import CHECKS, doctor

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Health",
    "Measurement",
    "NotChecked",
    "Report",
    "Thresholds",
    "doctor",
    "health",
    "measure",
    "prometheus",
]
