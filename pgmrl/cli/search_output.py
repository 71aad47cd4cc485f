"""A timed search as a table with a line on its cost, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgmrl.cli.output import console, print_table

if TYPE_CHECKING:
    from pgmrl.demo.timed_search import TimedSearch

__all__ = ["as_json", "print_search"]

CELL: Final = 200  # characters of a value that a table shows


def as_json(timed: TimedSearch) -> dict[str, Any]:
    """A timed search as a JSON document."""
    return {
        "hits": [dict(row._mapping) for row in timed.rows],
        "total_ms": timed.total_ms,
        "shortlist_ms": timed.shortlist_ms,
        "rerank_ms": timed.rerank_ms,
        "index": timed.index,
        "exact_ms": timed.exact_ms,
        "recall": timed.recall,
    }


def print_search(timed: TimedSearch) -> None:
    """A timed search as a table and a line on its cost."""
    if not timed.rows:
        console.print("no rows")
        return
    *names, _ = map(str, timed.rows[0]._mapping)
    rows = [[f"{row[-1]:.4f}", *map(_cell, list(row)[:-1])] for row in timed.rows]
    print_table(["distance", *names], rows, wrapped=range(1, len(names) + 1), cut=True)
    console.print(cost(timed), style="dim", soft_wrap=True)


def cost(timed: TimedSearch) -> str:
    """What a search cost, in a line."""
    parts = [f"{timed.total_ms:.1f} ms"]
    if timed.shortlist_ms is not None and timed.rerank_ms is not None:
        source = "the short index" if timed.index else "the whole table (the planner's choice)"
        parts.append(f"shortlist {timed.shortlist_ms:.1f} ms through {source}, rerank {timed.rerank_ms:.1f} ms")
    if timed.exact_ms is not None:
        parts.append(f"exact search {timed.exact_ms:.1f} ms")
    if timed.recall is not None:
        parts.append(f"recall@{len(timed.rows)} {timed.recall:.2f}")
    return "; ".join(parts)


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
