"""A report in Prometheus' text format, for node_exporter's textfile collector or any other scrape.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pgmrl.doctor.finding import SEVERITIES
from pgmrl.reprs import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgmrl.doctor.finding import Report
    from pgmrl.doctor.health_view import Health
    from pgmrl.embedding_queue import EmbeddingStatus

__all__ = ["embedding_metrics", "prometheus_metrics"]

Samples = list[tuple["Mapping[str, str]", float]]

GAUGES: Final = {
    "pgmrl_index_bytes": ("index_bytes", "Size of the index on the short column."),
    "pgmrl_table_bytes": ("table_bytes", "Size of the table with TOAST, without indexes."),
    "pgmrl_rows": ("estimated_rows", "Rows of the table as of its last ANALYZE."),
    "pgmrl_dead_rows_ratio": ("dead_share", "Share of dead rows, by the statistics."),
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
EMBEDDING_GAUGES: Final = {
    "pgmrl_embedding_stale_rows": ("stale", "Rows whose text is still to be embedded."),
    "pgmrl_embedding_taken_rows": ("taken", "Of them, rows that a worker has."),
    "pgmrl_embedding_failed_rows": ("failed", "Of them, rows that failed and will be tried again."),
    "pgmrl_embedding_parked_rows": ("parked", "Rows that could not be embedded and are not tried again."),
    "pgmrl_embedding_oldest_seconds": ("oldest_seconds", "Since the oldest stale row was marked; 0 without one."),
}


def prometheus_metrics(
    report: Report, columns: Sequence[Health] = (), embeddings: Sequence[EmbeddingStatus] = ()
) -> str:
    """The report's findings and the columns' numbers as metrics.

    Args:
        report: of `doctor`.
        columns: of `health`; none where pgmrl's schema is not installed.
        embeddings: of `embedding_status`; none where no column is kept in step with a text.

    Returns:
        Text that ends with a newline.

    """
    return "".join(f"{line}\n" for line in _lines(report, columns)) + embedding_metrics(embeddings)


def embedding_metrics(embeddings: Sequence[EmbeddingStatus]) -> str:
    """What waits to be embedded, as metrics; an empty text where no column is kept in step with a text."""
    labelled = [
        ({"schema": status.table_schema, "table": status.table_name, "column": status.column}, status)
        for status in embeddings
    ]
    return "".join(
        f"{line}\n"
        for name, (attribute, meaning) in EMBEDDING_GAUGES.items()
        if labelled
        for line in _metric(
            name, "gauge", meaning, [(labels, getattr(status, attribute) or 0) for labels, status in labelled]
        )
    )


def _lines(report: Report, columns: Sequence[Health]) -> Iterator[str]:
    by_severity: Samples = [({"severity": severity}, report.count(severity)) for severity in SEVERITIES]
    yield from _metric("pgmrl_doctor_findings", "gauge", "Findings of pgmrl doctor by severity.", by_severity)
    findings = Counter((finding.check, finding.severity, finding.subject) for finding in report)
    by_check = _samples(("check", "severity", "subject"), findings)
    yield from _metric("pgmrl_doctor_finding", "gauge", "Findings of pgmrl doctor by check and subject.", by_check)
    not_checked = _samples(("check", "subject"), Counter((entry.check, entry.subject) for entry in report.not_checked))
    yield from _metric("pgmrl_doctor_not_checked", "gauge", "Checks that could not be made.", not_checked)
    valid: Samples = [(_labels(column), float(column.index_state == "valid")) for column in columns]
    yield from _metric("pgmrl_index_valid", "gauge", "Whether a valid index is on the short column.", valid)
    for kind, metrics in (("gauge", GAUGES), ("counter", COUNTERS)):
        for name, (attribute, meaning) in metrics.items():
            values = [(_labels(column), getattr(column, attribute)) for column in columns]
            yield from _metric(name, kind, meaning, [(labels, value) for labels, value in values if value is not None])
    times: Samples = [
        (_labels(column), column.recall_measured_at.timestamp())
        for column in columns
        if column.recall_measured_at is not None
    ]
    yield from _metric("pgmrl_recall_measured_timestamp_seconds", "gauge", "When recall was last recorded.", times)


def _samples(names: tuple[str, ...], counts: Mapping[Any, int]) -> Samples:
    return [(dict(zip(names, values, strict=True)), count) for values, count in counts.items()]


def _metric(name: str, kind: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        text = ",".join(f'{label}="{_escaped(label_value)}"' for label, label_value in labels.items())
        yield f"{name}{{{text}}} {float(value)!r}"


def _labels(column: Health) -> dict[str, str]:
    """The labels that identify a short column."""
    return {
        "schema": column.table_schema,
        "table": column.table_name,
        "column": column.full_column,
        "short_column": column.short_column,
    }


def _escaped(text: str) -> str:
    # a newline is written as the format says, any other control character as Python shows it
    lines = printable(text, keep="\n").replace("\\", r"\\").replace('"', r"\"")
    return lines.replace("\n", r"\n")
