"""A report in Prometheus' text format, for node_exporter's textfile collector or a scrape by any means.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pgmrl.doctor.finding import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgmrl.doctor.finding import Report
    from pgmrl.doctor.health import Health

__all__ = ["prometheus"]

Samples = list[tuple["Mapping[str, str]", float]]

OF_COLUMNS: Final = {
    "pgmrl_index_bytes": ("index_bytes", "Size of the index on the short column."),
    "pgmrl_table_bytes": ("table_bytes", "Size of the table with TOAST, without indexes."),
    "pgmrl_rows": ("estimated_rows", "Rows of the table as of its last ANALYZE."),
    "pgmrl_dead_rows_ratio": ("dead_share", "Dead rows among all, by the statistics."),
    "pgmrl_recall": ("recall", "Latest recorded recall at k."),
    "pgmrl_recall_low": ("recall_low", "Lower end of its 95 % confidence interval."),
    "pgmrl_recall_high": ("recall_high", "Upper end of its 95 % confidence interval."),
    "pgmrl_recall_target": ("recall_target", "The recall that the stored setting was chosen for."),
    "pgmrl_recall_below_target": ("below_target", "Whether recall, measured with the stored setting, is below it."),
}
COUNTERS: Final = {
    "pgmrl_index_scans_total": ("index_scans", "Scans of the index since the statistics began."),
    "pgmrl_table_reads_total": ("table_reads", "Sequential scans of the table since the statistics began."),
}


def prometheus(report: Report, columns: Sequence[Health] = ()) -> str:
    """The report's findings as numbers, and the columns' own.

    Args:
        report: of `doctor`.
        columns: of `health`; none where pgmrl's schema is not installed.

    Returns:
        Text that ends with a newline.

    """
    return "".join(f"{line}\n" for line in _lines(report, columns))


def _lines(report: Report, columns: Sequence[Health]) -> Iterator[str]:
    counts: Samples = [({"severity": one}, report.count(one)) for one in SEVERITIES]
    yield from _metric("pgmrl_doctor_findings", "gauge", "Findings of pgmrl doctor by severity.", counts)
    found = Counter((one.check, one.severity, one.subject) for one in report)
    each: Samples = [(dict(zip(("check", "severity", "subject"), key, strict=True)), n) for key, n in found.items()]
    yield from _metric("pgmrl_doctor_finding", "gauge", "Findings of pgmrl doctor by check and subject.", each)
    skipped = Counter((one.check, one.subject) for one in report.not_checked)
    missing: Samples = [(dict(zip(("check", "subject"), key, strict=True)), n) for key, n in skipped.items()]
    yield from _metric("pgmrl_doctor_not_checked", "gauge", "Checks that could not be made.", missing)
    valid: Samples = [(_labels(one), float(one.index_state == "valid")) for one in columns]
    yield from _metric("pgmrl_index_valid", "gauge", "Whether a valid index is on the short column.", valid)
    for kind, metrics in (("gauge", OF_COLUMNS), ("counter", COUNTERS)):
        for name, (attribute, meaning) in metrics.items():
            known = [(_labels(one), getattr(one, attribute)) for one in columns]
            yield from _metric(name, kind, meaning, [(labels, value) for labels, value in known if value is not None])
    times: Samples = [
        (_labels(one), one.recall_measured_at.timestamp()) for one in columns if one.recall_measured_at is not None
    ]
    yield from _metric("pgmrl_recall_measured_timestamp_seconds", "gauge", "When recall was last recorded.", times)


def _metric(name: str, kind: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{said}}} {float(value)!r}"


def _labels(one: Health) -> dict[str, str]:
    """What names a short column."""
    return {
        "schema": one.table_schema,
        "table": one.table_name,
        "column": one.full_column,
        "short_column": one.short_column,
    }


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
