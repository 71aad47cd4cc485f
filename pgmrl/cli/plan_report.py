"""A planned change for people and machines: its steps with SQL, locks and room, and what stands in its way."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer
from rich.syntax import Syntax

from pgmrl.cli.output import console, escaped, write_json
from pgmrl.online import plan
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.online.plan import PlannedStep
    from pgmrl.online.preflight import Finding

__all__ = ["CheckedPlan", "print_plan", "refuse_errors", "write_plans"]

STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}


class CheckedPlan(NamedTuple):
    """A plan with what was found.

    Attributes:
        title: of what changes.
        steps: as they will run.
        findings: the worst first.
    """

    title: str
    steps: Sequence[PlannedStep]
    findings: Sequence[Finding]


def write_plans(plans: Sequence[CheckedPlan]) -> None:
    """Plans as one JSON document."""
    write_json([_as_json(checked) for checked in plans])


def print_plan(checked: CheckedPlan) -> None:
    """A plan as a page."""
    console.print(f"[bold]{escaped(checked.title)}[/]")
    for number, step in enumerate(checked.steps, 1):
        room = f", about {shown(step.room)} of disk" if step.room else ""
        console.print(f"\n[bold]{number}. {escaped(step.title)}[/]", soft_wrap=True)
        console.print(f"   lock: {escaped(step.lock)}, {escaped(step.held)}{room}", soft_wrap=True)
        console.print(Syntax(";\n".join(step.sql) + ";", "sql", word_wrap=True, background_color="default"))
    console.print()
    for finding in checked.findings:
        console.print(
            f"[{STYLES[finding.level]}]{finding.level}[/] {escaped(finding.subject)}: {escaped(finding.message)}",
            soft_wrap=True,
        )


def refuse_errors(plans: Sequence[CheckedPlan]) -> None:
    """End with exit code 1 where a plan would fail.

    Raises:
        Exit: it would.
    """
    if any(finding.level == "error" for checked in plans for finding in checked.findings):
        raise typer.Exit(1)


def _as_json(checked: CheckedPlan) -> dict[str, Any]:
    return {
        "title": checked.title,
        "steps": [plan.as_json(step) for step in checked.steps],
        "findings": [asdict(finding) for finding in checked.findings],
        "room_bytes": sum(step.room for step in checked.steps),
    }
