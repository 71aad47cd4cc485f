"""What was found: findings, the worst first, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["SEVERITIES", "Finding", "NotChecked", "Report", "Severity"]

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")
"""The worst first. critical: wrong or missing results; warning: slow, or soon wrong; info: good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should look at.

    Attributes:
        check: the check that found it, such as `index-missing`.
        severity: `critical`, `warning` or `info`.
        subject: the column (`schema.table.column`), or `database`.
        message: what is, and what follows from it.
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
        check: its name; `all` where nothing could look at the subject.
        subject: the column, or `database`.
        reason: why, and what would let it be made.

    """

    check: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `doctor` found; iterating it gives the findings.

    Attributes:
        findings: the worst first.
        not_checked: what could not be looked at.
        columns: what was looked at, one `schema.table.column (short_column)` a short column.
        checks: the names of the checks that were asked for.
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
        return sum(one.severity == severity for one in self.findings)
