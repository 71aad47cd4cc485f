"""Output for people and for machines: the two consoles, one JSON document, tables that fit the terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pgmrl.reprs import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    Cell = str | Text

__all__ = ["console", "counted", "errors", "escaped", "print_table", "write_json"]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

UNPRINTABLE: Final = re.compile(r"[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What a JSON document may hold and a terminal may obey: C1 controls, and characters that reorder or hide text."""
GAP: Final = 2  # characters between two columns of a table
LEAST_WRAPPED: Final = 14  # characters to which a column of running text may be narrowed
LEAST_CUT: Final = 16  # the same of a column whose cells are cut


def write_json(value: Any) -> None:
    """One JSON document; numbers and texts as they are, everything else as text; control characters as escapes."""
    document = json.dumps(value, ensure_ascii=False, default=str, indent=2)
    sys.stdout.write(UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], document) + "\n")


def escaped(value: object) -> str:
    """A text for rich that is no markup, and holds no control character of somebody's name."""
    return escape(printable(str(value), keep="\n"))


def counted(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_table(
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    labels: int = 1,
    wrapped: Collection[int] = (),
    right: Collection[int] = (),
    cut: bool = False,
) -> None:
    """A table whose headers and numbers are never truncated.

    Headers wrap between words. Where the terminal is still too narrow, the table is printed in several blocks below
    each other, each with as many columns as fit, and each beginning with the columns that say which row it is.

    Args:
        head: the columns' names; all empty for a table without a header.
        rows: their cells; texts are shown as they are, without markup.
        title: a line above.
        labels: how many columns, from the first, say which row it is.
        wrapped: columns of running text, by place: these are narrowed first.
        right: columns of numbers, by place: aligned to the right.
        cut: whether running text is cut to one line, with an ellipsis, instead of wrapped.
    """
    cells = [list(row) for row in rows]
    if title is not None:
        console.print(escaped(title), style="italic")
    floor = LEAST_CUT if cut else LEAST_WRAPPED
    natural, least = [], []
    for place, name in enumerate(head):
        width = max((_width(row[place]) for row in cells), default=0)
        natural.append(max(1, cell_len(name), width))
        word = cell_len(name) if cut else max(map(cell_len, name.split()), default=1)
        least.append(max(word, min(width, floor) if place in wrapped else width))
    for number, block in enumerate(_blocks(least, labels)):
        if number:
            console.print()
        widths = _widths(block, natural, least)
        table = Table(box=None, header_style="dim", show_header=any(head))
        for place in block:
            one_line = cut and place in wrapped
            table.add_column(
                escaped(head[place]),
                justify="right" if place in right else "left",
                width=widths[place],
                no_wrap=one_line,
                overflow="ellipsis" if one_line else "fold",
            )
        for row in cells:
            table.add_row(*(_shown(row[place]) for place in block))
        console.print(table)


def _shown(cell: Cell) -> Cell:
    return cell if isinstance(cell, Text) else escaped(cell)


def _width(cell: Cell) -> int:
    lines = cell.plain.splitlines() if isinstance(cell, Text) else printable(str(cell), keep="\n").splitlines()
    return max(map(cell_len, lines), default=0)


def _blocks(least: Sequence[int], labels: int) -> list[list[int]]:
    """The columns of each block: the labels, and of the others as many as fit."""
    front = list(range(min(labels, len(least))))
    used = sum(least[place] + GAP for place in front)
    blocks, room = [list(front)], console.width - used
    for place in range(len(front), len(least)):
        if least[place] + GAP > room and len(blocks[-1]) > len(front):
            blocks.append(list(front))
            room = console.width - used
        blocks[-1].append(place)
        room -= least[place] + GAP
    return blocks


def _widths(block: Sequence[int], natural: Sequence[int], least: Sequence[int]) -> dict[int, int]:
    """Widths that fit the terminal, taken from the widest column first."""
    widths = {place: natural[place] for place in block}
    room = console.width - GAP * len(block)
    while sum(widths.values()) > room:
        narrowable = [place for place in block if widths[place] > least[place]]
        if not narrowable:
            break
        widths[max(narrowable, key=widths.__getitem__)] -= 1
    return widths
