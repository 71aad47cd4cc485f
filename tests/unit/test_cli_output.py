"""Tables that fit the terminal, and progress where there is none."""

from __future__ import annotations

import re
import time
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from pgmrl.cli import progress_report
from pgmrl.cli.output import counted, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = ("short vector", "index", "shortlist", "ef_search", "recall", "95 %", "latency", "index size, tried", "build")
ROW = (
    "rotation 128 as signs (as it is today)", "m=16, 100", "1,000", "1,000", "0.952", "0.941 to 0.962", "12.34 ms",
    "386.0 MB", "113.2 s",
)  # fmt: skip


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed."""
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_header_and_no_number_is_truncated(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the terminal's width, and no line is wider."""
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(HEAD, [ROW, ROW], wrapped=[0])
    printed = lines(capsys)
    assert max(map(len, printed)) <= width
    text = "\n".join(printed)
    assert "…" not in text
    assert all(word in text for name in HEAD for word in name.split())
    assert all(text.count(cell) >= 2 for cell in ROW[1:])


def test_a_wide_table_comes_in_blocks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins with the columns that say which row it is."""
    monkeypatch.setenv("COLUMNS", "80")
    print_table(HEAD, [ROW], labels=4, wrapped=[0])
    first, second = "\n".join(lines(capsys)).split("\n\n")
    for block in (first, second):
        assert all(label in block for label in ("m=16, 100", "1,000", "ef_search"))
    assert "95 %" in first
    assert "latency" not in first
    assert "12.34 ms" in second


def test_headers_wrap_between_words_only_where_they_must(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is room they stand on one line."""
    monkeypatch.setenv("COLUMNS", "200")
    print_table(HEAD, [ROW], wrapped=[0])
    assert lines(capsys)[0].split("  ")[0].strip() == "short vector"
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("recall predicted", "latency predicted"), [("0.95", "1.25 ms")])
    assert [line.split() for line in lines(capsys)] == [
        ["recall", "latency"], ["predicted", "predicted"], ["0.95", "1.25", "ms"],
    ]  # fmt: skip


def test_running_text_is_wrapped_or_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped text is whole; cut text has an ellipsis, its header never."""
    monkeypatch.setenv("COLUMNS", "40")
    words = "a text that is longer than the terminal is wide"
    print_table(("id", "why"), [("1", words)], wrapped=[1])
    printed = lines(capsys)
    assert " ".join(" ".join(printed[1:]).split()) == f"1 {words}"
    print_table(("distance", "description"), [("0.1234", words)], wrapped=[1], cut=True)
    head, row = lines(capsys)
    assert head.split() == ["distance", "description"]
    assert row.endswith("…")


def test_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are somebody's text, in a header too."""
    print_table(("[bold]a[/]", "b"), [("[red]x[/red]", "list[int]")])
    printed = "\n".join(lines(capsys))
    assert all(part in printed for part in ("[bold]a[/]", "[red]x[/red]", "list[int]"))


def test_counted() -> None:
    """One is no plural."""
    assert [counted(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]


# -- progress ------------------------------------------------------------------------------------------------------


def until(printed: Callable[[], str], line: str) -> str:
    """Wait for a line to be printed, with as many seconds as a busy machine takes; what has been printed by then."""
    found, end = "", time.monotonic() + 60
    while not re.search(rf"^{re.escape(line)}[,:] \d+ s\n", found, re.MULTILINE):
        assert time.monotonic() < end, found
        time.sleep(0.01)
        found += printed()
    return found


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock prints them, whether or not the step reports: it may be one long statement of the server's."""
    monkeypatch.setattr(progress_report, "LINE_SECONDS", 0.01)

    def printed() -> str:
        return capsys.readouterr().err

    with progress_report.progress_report(quiet=False) as report:
        report("exact search", 0, 4_000)
        until(printed, "exact search: 0 of 4,000 (0%)")
        report("exact search", 1_000, 4_000)
        until(printed, "exact search: 1,000 of 4,000 (25%)")
        report("exact search", 4_000, 4_000)
        report("analyzing", 0)
        ended = until(printed, "analyzing")
        assert re.search(r"exact search: 4,000 of 4,000 \(100%\), \d+ s\n", ended), (
            "a step that had lines ends with one"
        )
        report("rows [x]", 7, 0)
        until(printed, "rows [x]: 7")


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each step; of what is not known to end there is no end."""
    screen = StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress_report.progress_report(quiet=False) as report:
        report("exact search [x]", 0, 4_000)
        report("exact search [x]", 3_000, 4_000)
        report("learning", 5)
    last = screen.getvalue()[screen.getvalue().rindex("exact search [x]") :]
    assert "3000/4000" in last
    assert "5/?" in last


def test_short_steps_leave_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A command of a second prints nothing; nor does one whose output a machine reads."""
    for quiet in (False, True):
        with progress_report.progress_report(quiet=quiet) as report:
            for step in ("reading", "loading", "analyzing"):
                report(step, 10, 10)
    assert capsys.readouterr().err == ""
