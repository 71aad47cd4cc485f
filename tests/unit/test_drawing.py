"""Files that are drawn, and sizes in words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pgmrl.errors import MeasureError
from pgmrl.measure.drawing import check_path, figure, saved, write
from pgmrl.units import shown

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("form", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_figure_is_the_same_file(form: str, head: bytes) -> None:
    """No time of drawing and no names made at random are in it."""

    def made() -> bytes:
        drawn = figure(figsize=(3, 2))
        drawn.subplots().plot([1, 2], [3, 4], label="a")
        return saved(drawn, form)

    written = made()
    assert written.startswith(head)
    assert made() == written


def test_paths_are_refused_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suffix in any case, the folder, the extra; and what only writing finds out."""
    check_path(tmp_path / "A.PNG", (".png", ".svg"))
    check_path("plain.anything")
    with pytest.raises(MeasureError, match=r"a\.gif ends with none of \.png, \.svg"):
        check_path(tmp_path / "a.gif", (".png", ".svg"))
    with pytest.raises(MeasureError, match=r"there is no folder .*no"):
        check_path(tmp_path / "no" / "a.png")
    with pytest.raises(MeasureError, match="cannot be written: Is a directory"):
        write(tmp_path, b"")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for ask in (lambda: check_path(tmp_path / "a.png"), figure):
        with pytest.raises(MeasureError, match=r"pip install 'pgmrl\[plot\]'"):
            ask()


@pytest.mark.parametrize(
    ("size", "words"),
    [(512, "0.5 kB"), (999_999, "1,000.0 kB"), (1_000_000, "1.0 MB"), (39_300_000, "39.3 MB"), (2.5e12, "2,500.0 GB")],
)
def test_sizes_in_words(size: float, words: str) -> None:
    """In powers of ten, wherever a size is shown."""
    assert shown(size) == words
