"""What `pgmrl tune` found as a page, and what is to do where the choice is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.syntax import Syntax

from pgmrl.cli.output import console, escaped, print_table
from pgmrl.tune.plots import (
    CHECKS,
    FRONT,
    MODELS,
    about,
    answer,
    check_rows,
    facts,
    front_rows,
    kept_rows,
    model_rows,
    today,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgmrl.tune import Tuning

__all__ = ["print_applied", "print_plots", "print_tuning"]

COMMANDS: Final = (
    "or the same to one database without a migration (--dry-run shows the steps)",
    "and when only new code runs, drop the old column",
)


def print_tuning(tuning: Tuning) -> None:
    """The answer, what it costs, what it was chosen of, and how far to trust it."""
    style = "bold" if tuning.choice is not None else "bold yellow"
    console.print(f"[{style}]{escaped(answer(tuning))}[/]", soft_wrap=True)
    for note in tuning.incomplete:
        console.print(f"[yellow]incomplete: {escaped(note)}[/]", soft_wrap=True)
    if tuning.current is not None:
        console.print(escaped(today(tuning.current)), soft_wrap=True)
    if tuning.plain is not None:
        console.print(escaped(tuning.plain.message), soft_wrap=True)
    console.print()
    print_table(("", "today", "at ten times the rows"), facts(tuning), wrapped=[0, 1, 2])
    console.print()
    print_table(
        FRONT,
        front_rows(about(tuning), tuning.current),
        title="what no other setting beats in recall, time and size at once",
        labels=4,  # several rows may have the same short vector and index
        wrapped=[0],
    )
    console.print()
    print_table(*kept_rows(tuning), title=f"recall@{tuning.k} of an exact shortlist", wrapped=[0])
    console.print()
    print_table(CHECKS, check_rows(tuning), title="checked with queries that were not used", wrapped=[0])
    console.print()
    print_table(
        MODELS,
        model_rows(tuning),
        title="models, checked by predicting the largest size from smaller ones",
        wrapped=[0, 1, 3],
    )
    for note in tuning.notes:
        console.print(f"[dim]{escaped(note)}[/]", soft_wrap=True)
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in tuning.seconds.items())
    console.print(
        f"{tuning.queries:,} of {escaped(tuning.source)} chose; {tuning.rows_read:,} rows read; {steps}",
        style="dim",
        soft_wrap=True,
    )


def print_plots(paths: Sequence[Path]) -> None:
    """Where the result was drawn."""
    for path in paths:
        console.print(f"drawn into {escaped(path)}", soft_wrap=True)


def print_applied(applied: Mapping[str, Any]) -> None:
    """What was stored, and the migration where the short column or its index changes."""
    short = applied["applied_to"]
    if applied["in_effect"]:
        effect = f"stored for {short}: SQL functions take it from now on, models by load_settings(...)"
    else:
        effect = (
            f"stored; takes effect when {short} is there (the migration below); until then searches stay as they are"
        )
    console.print(f"\n{escaped(effect)}", soft_wrap=True)
    if applied["rotation_saved"] is not None:
        console.print(f"rotation saved to {escaped(applied['rotation_saved'])}: commit it", soft_wrap=True)
    if applied["migration"] is None:
        return
    console.print(
        "\nThe short column or its index changes. The migration (docs: Changing your mind):\n", soft_wrap=True
    )
    console.print(Syntax(applied["migration"], "python", word_wrap=True, background_color="default"))
    console.print(f"the model afterwards: {escaped(applied['model'])}", soft_wrap=True)
    for command, purpose in zip(applied["commands"], COMMANDS, strict=False):
        console.print(f"\n{purpose}:\n\n    {escaped(command)}", soft_wrap=True)
