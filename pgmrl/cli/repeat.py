"""`--watch`: the same again every few seconds, until interrupted; it means that in every command that takes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.text import Text

from pgmrl.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watch", "repeated"]

WATCH_SECONDS = 2.0

Watch = Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until interrupted.")]


def repeated(page: Callable[[], str], *, watch: bool) -> None:
    """Print a page; with `watch` again and again.

    On a terminal each page takes the place of the one before; elsewhere it is printed where it differs from that.

    Args:
        page: makes it, with rich's markup.
        watch: whether to go on until interrupted.
    """
    if not watch:
        console.print(page(), soft_wrap=True)
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Text.from_markup(page()), refresh=True)
                time.sleep(WATCH_SECONDS)
    else:
        last = ""
        while True:
            current = page()
            if current != last:
                console.print(current, soft_wrap=True)
            last = current
            time.sleep(WATCH_SECONDS)
