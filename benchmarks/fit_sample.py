"""How many rows are enough to learn a rotation from, and how long learning takes; prints Markdown.

python -m benchmarks.fit_sample > benchmarks/results/fit_sample.md
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.data import _mpnet
from pgmrl.measure.fit_rotation import fit_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.data import Floats

ROWS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
CASES = ((128, 100), (128, 50), (64, 100), (64, 50))  # short dimensions, shortlist
K = 10
AXES = 256
TIMED = (768, 1_536, 3_072, 4_096)
TIMED_ROWS = 20_000


def recalls(rows: Floats, queries: Floats, truth: NDArray[np.intp], axes: Floats | None) -> list[float]:
    """Recall@10 of the exact shortlist in each case; leading dimensions where there are no axes."""
    found = []
    for dims in dict.fromkeys(dims for dims, _ in CASES):
        short, asked = (
            (rows[:, :dims], queries[:, :dims]) if axes is None else (rows @ axes[:dims].T, queries @ axes[:dims].T)
        )
        scores = asked @ (short / np.linalg.norm(short, axis=1, keepdims=True)).T
        for _, n in (case for case in CASES if case[0] == dims):
            listed = np.argpartition(-scores, n, axis=1)[:, :n]
            found.append(float(np.mean([np.isin(true, some).mean() for true, some in zip(truth, listed, strict=True)])))
    return found


def recall_table(seeds: int, count: int) -> None:
    """Recall by the size of the sample: median of the seeds, and their spread."""
    rows, queries = _mpnet()
    queries = queries[:count]
    truth = np.argpartition(-(queries @ rows.T), K, axis=1)[:, :K]
    heads = [f"{dims}-d, shortlist {n}" for dims, n in CASES]
    print(f"| learned from | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for size in ROWS:
        each = []
        for seed in range(seeds):
            chosen = np.random.default_rng(seed).choice(len(rows), size, replace=False)
            axes = fit_axes(rows[chosen], AXES, normalise=True).required_axes().astype(np.float32)
            each.append(recalls(rows, queries, truth, axes))
        cells = [f"{np.median(column):.4f} ({max(column) - min(column):.4f})" for column in np.array(each).T]
        print(f"| {size:,} rows | {' | '.join(cells)} |", flush=True)
    prefix = recalls(rows, queries, truth, None)
    print(f"| (prefix) | {' | '.join(f'{value:.4f}' for value in prefix)} |")


def time_table(sizes: tuple[int, ...], rows: int) -> None:
    """Seconds of `fit_axes`."""
    print(f"| dimensions | seconds for {rows:,} rows, {AXES} axes |\n|---|---|")
    for dims in sizes:
        vectors = np.random.default_rng(0).standard_normal((rows, dims), np.float32)
        vectors /= np.sqrt(1 + np.arange(dims, dtype=np.float32))
        start = time.perf_counter()
        fit_axes(vectors, AXES, normalise=True)
        print(f"| {dims:,} | {time.perf_counter() - start:.1f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="samples of each size")
    parser.add_argument("--queries", type=int, default=300, help="queries of the Debian set")
    parser.add_argument("--timed-rows", type=int, default=TIMED_ROWS, help="rows of the timed learning")
    given = parser.parse_args()
    print("# Rows to learn a rotation from\n")
    options = f"--seeds {given.seeds} --queries {given.queries} --timed-rows {given.timed_rows}"
    print(f"    python -m benchmarks.fit_sample {options} > benchmarks/results/fit_sample.md\n")
    print(
        f"The Debian set, 68,820 x 768; recall@{K} of an exact shortlist in the short vectors, reranked by the full "
        f"ones, over {given.queries} queries that are not among the rows. Median of {given.seeds} samples (spread).\n"
    )
    recall_table(given.seeds, given.queries)
    print("\n## Time to learn\n\nSynthetic vectors, the reading from the database not included.\n")
    time_table(TIMED, given.timed_rows)


if __name__ == "__main__":
    main()
