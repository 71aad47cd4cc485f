"""What a million to a billion rows would take: the table of docs/scale.md, from a model of what was measured.

    python -m benchmarks.scale
    python -m benchmarks.scale --memory-price 6.5 --disk-price 0.08     # what your provider takes

Reads benchmarks/results/raw; measures nothing. Sizes follow PostgreSQL's and pgvector's page layouts. The time of a
build grows as rows * log(rows) from the largest table that was measured. The median time of a search at a recall@10 of
.98 is given between two curves through the measured sizes: a * rows ** b, and a + b * log(rows). At 3,072 dimensions
one size was measured; its times grow as those of 768 do. The cost is of one server without a standby: memory that holds
the index and its build, by the price of memory-optimised machines with their processors, and a disk of twice the data.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.stats import lines
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online.plan import graph_bytes, index_bytes
from pgmrl.online.target import Target
from pgmrl.tune.growth_models import build_growth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RAW: Final = Path(__file__).parent / "results" / "raw"
RECALL: Final = 0.98
SIZES: Final = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
DIMS: Final = (768, 3072)
PLAIN, TWO_STAGES = "plain-halfvec", "rotation-128-m16-100"
NAMES: Final = {PLAIN: "plain `halfvec`", TWO_STAGES: "two stages, 128"}
INDEX: Final = {PLAIN: Hnsw(16, 64), TWO_STAGES: Hnsw(16, 100)}
PAGE, PAGE_USED = 8192, 8168
ROW_HEADER, ITEM_POINTER, KEY = 24, 4, 4
KEY_INDEX: Final = 22.5
"""Bytes of the primary key's index for each row: 16 and a pointer, on pages that are filled to 90 %."""
MEMORY_PRICE: Final = 10.3
"""Dollars for a GB and month: a managed PostgreSQL with 16 GB for two processors at 0.225 an hour, on demand."""
DISK_PRICE: Final = 0.115
"""Dollars for a GB and month."""
INDEX_SHARE: Final = 0.75
"""Of the memory, which the index may take."""
DISK_FACTOR: Final = 2
"""Disk for one GB of table and indexes: a rebuild stands beside the old ones."""


class Measured(NamedTuple):
    """A table that was measured.

    Attributes:
        rows: of the table.
        build: seconds of the index, median.
        p50: milliseconds of a search at RECALL, median; None where it was not reached.
        index_bytes: of the HNSW index.
        total_bytes: of everything.
    """

    rows: int
    build: float
    p50: float | None
    index_bytes: float
    total_bytes: float


@lru_cache
def measured(side: str, dims: int) -> list[Measured]:
    """The tables of a side, the smallest first."""
    found = []
    for part in ("curve", "main") if dims == 768 else (f"dims{dims}",):
        for line in lines(RAW / f"{part}.jsonl"):
            if line.name != side:
                continue
            facts, p50 = [line.fact(name) for name in ("seconds", "index_bytes", "total_bytes")], line.value(RECALL)
            build, index, total = (0.0 if fact is None else fact.median for fact in facts)
            found.append(Measured(line.rows, build, None if p50 is None else p50.median, index, total))
    return sorted(found)


def target(side: str, dims: int) -> Target:
    """What a side's index is on."""
    short = 128 if side == TWO_STAGES else dims
    return Target("items", "embedding", Definition.of(max(dims, short + 1), Short(short), "cosine", "halfvec"))


def index_size(side: str, dims: int, rows: int) -> int:
    """Bytes of the HNSW index."""
    return index_bytes(target(side, dims), INDEX[side], rows)


def total_size(side: str, dims: int, rows: int) -> int:
    """Bytes of the table, the HNSW index and the primary key's."""
    vectors = [2 * dims + 8] + ([2 * 128 + 8] if side == TWO_STAGES else [])
    row = ROW_HEADER + KEY + sum(vectors) + ITEM_POINTER
    table = rows / max(1, PAGE_USED // row) * PAGE
    return int(table + index_size(side, dims, rows) + KEY_INDEX * rows)


def searches(side: str, dims: int, rows: int) -> tuple[float, float]:
    """Milliseconds of a search at RECALL by either curve, the smaller first."""
    base = [(table.rows, table.p50) for table in measured(side, 768) if table.p50 is not None]
    times = [_log(base, rows), _power(base, rows)]
    if dims != 768:
        (one,) = measured(side, dims)
        assert one.p50 is not None
        times = [one.p50 * time / fit(base, one.rows) for time, fit in zip(times, (_log, _power), strict=True)]
    return min(times), max(times)


def _power(base: Sequence[tuple[int, float]], rows: int) -> float:
    sizes, times = np.log(np.array(base, np.float64)).T
    slope, start = np.polyfit(sizes, times, 1)
    return float(np.exp(start + slope * np.log(rows)))


def _log(base: Sequence[tuple[int, float]], rows: int) -> float:
    sizes, times = np.array(base, np.float64).T
    slope, start = np.polyfit(np.log(sizes), times, 1)
    return float(start + slope * np.log(rows))


def build_hours(side: str, dims: int, rows: int) -> float:
    """Hours of the index on the two cores that were measured, its graph in memory."""
    last = measured(side, dims)[-1]
    return last.build * build_growth(last.rows, rows) / 3600


def month_cost(side: str, dims: int, rows: int, memory_price: float, disk_price: float) -> float:
    """Dollars a month."""
    graph = graph_bytes(target(side, dims), INDEX[side], rows)
    memory = max(graph, index_size(side, dims, rows) / INDEX_SHARE)
    disk = DISK_FACTOR * total_size(side, dims, rows)
    return (memory * memory_price + disk * disk_price) / 1e9


# -- the page --------------------------------------------------------------------------------------------------------


def predicted(memory_price: float, disk_price: float) -> Iterator[str]:
    """Rows of the table; one server, whatever its size."""
    for dims in DIMS:
        for rows in SIZES:
            for side, name in NAMES.items():
                low, high = searches(side, dims, rows)
                cells = (
                    f"{rows:,} x {dims:,}",
                    name,
                    _gigabytes(index_size(side, dims, rows)),
                    _gigabytes(total_size(side, dims, rows)),
                    _gigabytes(graph_bytes(target(side, dims), INDEX[side], rows)),
                    _hours(build_hours(side, dims, rows)),
                    f"{low:.1f} to {high:.1f}",
                    _dollars(month_cost(side, dims, rows, memory_price, disk_price)),
                )
                yield f"| {' | '.join(cells)} |"


def errors() -> Iterator[str]:
    """How far the model is from each table that was measured, and how it predicts the largest from the others."""
    for dims in DIMS:
        for side, name in NAMES.items():
            tables = measured(side, dims)
            sizes = [index_size(side, dims, table.rows) / table.index_bytes - 1 for table in tables]
            totals = [total_size(side, dims, table.rows) / table.total_bytes - 1 for table in tables]
            cells = [f"{dims:,}", name, ", ".join(f"{table.rows:,}" for table in tables), _range(sizes), _range(totals)]
            if len(tables) > 1:
                before, last = tables[-2], tables[-1]
                build = before.build * build_growth(before.rows, last.rows) / last.build - 1
                base = [(table.rows, table.p50) for table in tables[:-1] if table.p50 is not None]
                assert last.p50 is not None
                times = sorted(fit(base, last.rows) / last.p50 - 1 for fit in (_log, _power))
                cells += [f"{build:+.0%}", _range(times)]
            else:
                cells += ["one size", "one size"]
            yield f"| {' | '.join(cells)} |"


def _range(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):+.0%}", f"{max(shares):+.0%}"
    return low if low == high else f"{low} to {high}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size < 99.5e9 else f"{size / 1e9:,.0f} GB"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _dollars(cost: float) -> str:
    digits = max(0, len(f"{cost:.0f}") - 2)
    return f"${round(cost, -digits):,.0f}"


def tables(memory_price: float = MEMORY_PRICE, disk_price: float = DISK_PRICE) -> str:
    """Both tables of docs/scale.md."""
    lines_of_page = [
        "| rows | way | index | table and indexes | memory of the build | build, two cores | search, p50 ms | cost |",
        "|---|---|---|---|---|---|---|---|",
        *predicted(memory_price, disk_price),
        "",
        "| dimensions | way | rows measured | index | table and indexes | build | search |",
        "|---|---|---|---|---|---|---|",
        *errors(),
    ]
    return "\n".join(lines_of_page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-price", type=float, default=MEMORY_PRICE, help="dollars for a GB of memory and month")
    parser.add_argument("--disk-price", type=float, default=DISK_PRICE, help="dollars for a GB of disk and month")
    options = parser.parse_args()
    print(tables(options.memory_price, options.disk_price))
