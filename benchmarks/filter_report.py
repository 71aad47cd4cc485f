"""filters.md: the tables of `python -m benchmarks filters`, made of filters.json."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from benchmarks.stats import Point, at_recall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RECALL: Final = 0.99
DEFAULT: Final = 100
COVERING: Final = "pgmrl, covering index"
UNINDEXED: Final = "pgmrl, no index on the filter"
PEERS: Final = ("plain HNSW", "B-tree, exact", "partial HNSW")
WALKED: Final = "plain HNSW, max_scan_tuples all rows"
NOTE: Final = """\
# Filters

Made by `python -m benchmarks filters` (more rows: `--rows 1000000`) from filters.json; do not edit. Recall@10, and the
median of a query's milliseconds on a processor, of client and server together: what a query takes when nothing else
runs, and the same on a busy machine (filters.json has the time that went by, too). All ways take turns in blocks of 20
queries; each sees only the indexes it is named after. The peers' statements are prepared, with the filter's value in
the text. `plain HNSW` is pgvector's on the full `halfvec` (m=16, 64) with `relaxed_order`; `pgmrl` has
`Short(128, by=Rotation)` under HNSW (m=16, 100). A filter of so many per cent leaves random rows, a section leaves rows
that lie together.
"""

Measured = dict[str, Any]


def report(everything: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    return "\n".join([NOTE, *(line for found in everything.values() for line in _dataset(found))])


def _dataset(found: Mapping[str, Any]) -> Iterator[str]:
    setting = found["setting"]
    yield f"## {setting['rows']:,} rows of {setting['dims']} dimensions\n"
    server = f"{str(setting['server']).split(' on ')[0]}, pgvector {setting['pgvector']}"
    yield (
        f"{setting['note']}. {setting['machine']['cores']} cores, shared with other work (load {setting['busy']:.1f} "
        f"at the start): compare within a row. {server}, pgmrl at {setting['library']}.\n"
    )
    if "memory" in found:
        memory = found["memory"]
        yield "### At recall@10 of .99\n"
        yield "The time at that recall, between the efforts on both sides of it; `<=`: the least effort is above it.\n"
        yield from _table(
            ("the filter leaves", COVERING, UNINDEXED, *PEERS, "of plain", "of the fastest peer"),
            map(_equal, memory, memory.values()),
        )
        yield f"### At the default: a shortlist of {DEFAULT}\n"
        yield "Recall@10, milliseconds, and the fewest rows that any query gave where that is not ten.\n"
        names = (
            COVERING,
            "pgmrl, SQL function",
            "pgmrl, SQLAlchemy, prebuilt",
            "pgmrl, SQLAlchemy, built each time",
            UNINDEXED,
        )
        yield from _table(
            ("the filter leaves", *names, "served by", "without an index"),
            (
                (
                    name,
                    *(_cell(_of(ways, way, DEFAULT)) for way in names),
                    _served(ways, COVERING),
                    _served(ways, UNINDEXED),
                )
                for name, ways in memory.items()
            ),
        )
        yield "### By the shortlist\n"
        efforts = sorted({way["effort"] for ways in memory.values() for way in ways if way["way"] == COVERING})
        for way in (COVERING, UNINDEXED):
            yield f"{way}:\n"
            yield from _table(
                ("the filter leaves", *map(str, efforts)),
                ((name, *(_cell(_of(ways, way, effort)) for effort in efforts)) for name, ways in memory.items()),
            )
        yield "### The peers by ef_search\n"
        for way in (PEERS[0], WALKED, PEERS[2]):
            efforts = sorted({entry["effort"] for ways in memory.values() for entry in ways if entry["way"] == way})
            yield f"{way}:\n"
            yield from _table(
                ("the filter leaves", *map(str, efforts)),
                ((name, *(_cell(_of(ways, way, effort)) for effort in efforts)) for name, ways in memory.items()),
            )
    if "confined" in found:
        yield "### The whole server in 130 MB, started cold\n"
        yield "Milliseconds that went by: the time of the disk counts. 40 queries with one filter, the widest"
        yield "filter first: what a small one leaves has been read from the disk before.\n"
        names = (COVERING, UNINDEXED, *PEERS)
        yield from _table(
            ("the filter leaves", *names),
            (
                (name, *(_cell(next((e for e in ways if e["way"] == way), None), "p50_ms") for way in names))
                for name, ways in found["confined"].items()
            ),
        )
    if "confined_tenants" in found:
        yield "The same with a tenant of 1,000 rows, another one for each query:\n"
        measured = found["confined_tenants"]
        cells = (f"{way['recall']:.3f} at {way['p50_ms']:.2f}" for way in measured)
        yield from _table([way["way"] for way in measured], [tuple(cells)])
    if "tenants" in found:
        yield from _tenants(found["tenants"])
    if "writes" in found:
        yield "### What a covering index costs\n"
        yield "The server's milliseconds on a processor for a row of INSERT, and of UPDATE of the filter's column.\n"
        yield from _table(
            ("the table has", "INSERT", "UPDATE"),
            ((name, f"{times['insert']:.3f}", f"{times['update']:.3f}") for name, times in found["writes"].items()),
        )
    if "builds" in found:
        yield from _table(
            ("index", "build s", "MB"),
            (
                (name, f"{built['seconds']:.1f}", f"{built['bytes'] / 1e6:.1f}")
                for name, built in found["builds"].items()
            ),
        )


def _equal(name: str, ways: Sequence[Measured]) -> tuple[str, ...]:
    """A row of the table at equal recall."""
    own = _at_recall(ways, (COVERING,))
    peers = [_at_recall(ways, (PEERS[0], WALKED)), *(_at_recall(ways, (peer,)) for peer in PEERS[1:])]
    reached = [time for time, _ in peers if time is not None]
    of_plain = f"{own[0] / peers[0][0]:.2f}" if own[0] and peers[0][0] else "-"
    of_fastest = f"{own[0] / min(reached):.2f}" if own[0] and reached else "-"
    return name, own[1], _at_recall(ways, (UNINDEXED,))[1], *(text for _, text in peers), of_plain, of_fastest


def _at_recall(ways: Sequence[Measured], names: Sequence[str]) -> tuple[float | None, str]:
    """The time at RECALL, and the same as text: how far a way comes that does not reach it."""
    points = [
        Point(way["effort"], way["effort"], way["recall"], way["recall"], way["cpu_ms"], way["cpu_ms"], 1)
        for way in ways
        if way["way"] in names
    ]
    if not points:
        return None, "-"
    time, at_most = at_recall(points, RECALL, lambda point: point.p50)
    if time is None:
        best = max(points, key=lambda point: point.recall)
        return None, f"{best.recall:.3f} at {best.p50:.2f}"
    return time, f"{'<= ' if at_most else ''}{time:.2f}"


def _of(ways: Sequence[Measured], name: str, effort: int) -> Measured | None:
    return next((way for way in ways if way["way"] == name and way["effort"] == effort), None)


def _cell(way: Measured | None, time: str = "cpu_ms") -> str:
    if way is None:
        return "-"
    few = "" if way["fewest"] == way["expected"] == 10 else f", {way['fewest']} of {way['expected']} rows"
    return f"{way['recall']:.3f} at {way[time]:.2f}{few}"


def _served(ways: Sequence[Measured], name: str) -> str:
    way = _of(ways, name, DEFAULT)
    return way["served"] if way else "-"


def _tenants(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {found['tenants']:,} tenants of 1,000 rows, {found['clients']} connections\n"
    speeds = {name: statistics.median(each) for name, each in found["per_second"].items()}
    own = speeds[COVERING]
    yield from _table(
        ("way", "searches a second", "pgmrl does"),
        ((name, f"{speed:,.0f}", f"{own / speed:.1f} times as many") for name, speed in speeds.items()),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
