"""What draws shares: matplotlib where it is installed, and files that are the same for the same data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pgmrl.errors import MeasureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["check_path", "figure", "saved", "write"]

DPI: Final = 110
DATES: Final = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What has the time of drawing in it, left out."""


def check_path(path: str | Path, suffixes: Sequence[str] | None = None) -> None:
    """Check that something can be drawn and written there, before anything takes long.

    Args:
        path: of the file.
        suffixes: what its name may end with, in any case; None for anything.

    Raises:
        MeasureError: another suffix, there is no such folder, or matplotlib is not installed.

    """
    path = Path(path)
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise MeasureError(f"{path} ends with none of {', '.join(suffixes)}: rename it")
    if not path.absolute().parent.is_dir():
        raise MeasureError(f"{path} cannot be written: there is no folder {path.parent}")
    _matplotlib()


def figure(**size: Any) -> Figure:
    """An empty figure whose parts leave each other room.

    Args:
        **size: as matplotlib's Figure takes it, such as `figsize` in inches.

    Raises:
        MeasureError: matplotlib is not installed.

    """
    _matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    return Figure(layout="constrained", **size)


def saved(drawn: Figure, form: str) -> bytes:
    """A figure as a file's content; the same figure gives the same bytes.

    Args:
        drawn: the figure.
        form: `png`, `svg` or `pdf`.

    """
    written = io.BytesIO()
    with _matplotlib().rc_context({"svg.hashsalt": "pgmrl"}):
        drawn.savefig(written, format=form, dpi=DPI, metadata=DATES.get(form))
    return written.getvalue()


def write(path: str | Path, data: bytes) -> None:
    """Write a file.

    Raises:
        MeasureError: it cannot be written.

    """
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise MeasureError(f"{path} cannot be written: {error.strerror or error}") from None


def _matplotlib() -> Any:
    try:
        import matplotlib  # noqa: PLC0415, ICN001 - an extra
    except ImportError:
        raise MeasureError("drawing needs matplotlib: pip install 'pgmrl[plot]'") from None
    return matplotlib
