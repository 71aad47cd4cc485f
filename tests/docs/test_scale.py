"""docs/scale.md holds what its command prints."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scale import tables

PAGE = Path(__file__).parent.parent.parent / "docs" / "scale.md"


def test_the_tables_are_those_of_the_command() -> None:
    """Both, by the results that are kept."""
    page = PAGE.read_text(encoding="utf-8")
    predicted, errors = tables().split("\n\n")
    assert predicted in page
    assert errors in page
