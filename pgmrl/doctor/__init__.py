"""The doctor: everything that makes searches wrong or slow, the worst first, with remedies and the SQL behind it."""

from pgmrl.doctor.checks import CHECKS
from pgmrl.doctor.checks.registry import Check
from pgmrl.doctor.finding import Finding, NotChecked, Report
from pgmrl.doctor.health_view import Health, health
from pgmrl.doctor.measured_recall import Measurement, measure_columns
from pgmrl.doctor.prometheus import embedding_metrics, prometheus_metrics
from pgmrl.doctor.run_checks import doctor
from pgmrl.doctor.thresholds import Thresholds

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
    "embedding_metrics",
    "health",
    "measure_columns",
    "prometheus_metrics",
]
