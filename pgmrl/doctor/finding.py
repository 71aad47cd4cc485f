"""What checks report: findings, the worst first, and what could not be checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["SEVERITIES", "Finding", "NotChecked", "Problem", "Report", "Severity", "Unchecked"]

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")
"""The worst first. critical: wrong or missing results; warning: slow, or soon wrong; info: good to know."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a check's function yields for each problem; the check's name makes it a `Finding`.

    Attributes:
        message: what the problem is, and its consequence.
        remedy: what to do about it.
        sql: the statement that shows it; empty where it is not one statement.
        values: the numbers behind it, for machines.
        severity: where it is not the check's own.
        subject: where it is not the column that was checked, or `database`.

    """

    message: str
    remedy: str
    sql: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Unchecked:
    """What a check's function yields for what it could not check; the check's name makes it a `NotChecked`.

    Attributes:
        reason: why, and what would allow the check.
        subject: where it is not the column that was checked, or `database`.

    """

    reason: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that somebody should look at.

    Attributes:
        check: the name of the check, such as `index-missing`.
        severity: `critical`, `warning` or `info`.
        subject: the column (`schema.table.column`), or `database`.
        message: what the problem is, and its consequence.
        remedy: what to do about it.
        sql: the statement that shows it; empty where it is not one statement.
        values: the numbers behind it, for machines.

    """

    check: str
    severity: Severity
    subject: str
    message: str
    remedy: str
    sql: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotChecked:
    """A check that could not be made, in whole or in part.

    Attributes:
        check: the name of the check; `all` where no check could be made on the subject.
        subject: the column, or `database`.
        reason: why, and what would allow the check.

    """

    check: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `doctor` returns; iterating it gives the findings.

    Attributes:
        findings: the worst first.
        not_checked: what could not be checked.
        columns: what was checked, `schema.table.column (short_column)` for each short column.
        checks: the names of the checks that were selected.
        standby: whether the server is a hot standby, whose statistics are its own.

    """

    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    columns: tuple[str, ...]
    checks: tuple[str, ...]
    standby: bool = False

    def __iter__(self) -> Iterator[Finding]:
        """The findings, the worst first."""
        return iter(self.findings)

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None where there is none."""
        return self.findings[0].severity if self.findings else None

    def count(self, severity: Severity) -> int:
        """How many findings of this severity there are."""
        return sum(finding.severity == severity for finding in self.findings)
