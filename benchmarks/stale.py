"""When a rotation counts as stale: what the doctor's comparison says of rows like and unlike those it was learned from.

python -m benchmarks.stale > benchmarks/results/stale.md

A rotation is learned from rows of some sections of the Debian set. Then a growing share of the rows is of other
sections. Beside the comparison on a sample stands what it stands for: recall over all those rows, by the old axes and
by axes learned from 20,000 of them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.data import debian, packages
from pgmrl.doctor import Thresholds
from pgmrl.measure.fit_rotation import compare, fit_axes
from pgmrl.measure.recall_by_distance import within
from pgmrl.model.shortening import Definition, Rotation, Short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from benchmarks.data import Floats

SHARES: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
DIMS: Final = (32, 64, 128)
KNOWN: Final = ("libs", "libdevel", "devel", "debug", "oldlibs")
LEARNED: Final = 20_000
K: Final = 10
SHORTLIST: Final = 100
QUERIES: Final = 300


def exact(rows: Floats, rotation: Rotation, dims: int) -> float:
    """Recall@10 of an exact shortlist of 100 over all rows, of some of them as queries.

    A row is not its own neighbour, and of rows at the same distance any is right.
    """
    chosen = np.random.default_rng(9).choice(len(rows), QUERIES, replace=False)
    own = np.arange(QUERIES), chosen
    axes = rotation.required_axes()[:dims].astype(np.float32)
    short = rows @ axes.T
    short /= np.linalg.norm(short, axis=1, keepdims=True)
    ranked = short[chosen] @ short.T
    ranked[own] = -np.inf
    listed = np.argpartition(-ranked, SHORTLIST, axis=1)[:, :SHORTLIST]
    distances = (1 - rows[chosen] @ rows.T).astype(np.float64)
    distances[own] = np.inf
    limits = within(np.partition(distances, K - 1, axis=1)[:, K - 1])
    near = np.take_along_axis(distances, listed, axis=1) <= limits[:, np.newaxis]
    return float(np.minimum(1.0, near.sum(axis=1) / K).mean())


def mixed(known: Floats, other: Floats, share: float, random: np.random.Generator) -> Floats:
    """As many rows as there are of the smaller kind, of which a share is of the other kind."""
    size = min(len(known), len(other))
    fresh = round(share * size)
    rows = [known[random.permutation(len(known))[: size - fresh]], other[random.permutation(len(other))[:fresh]]]
    found: Floats = np.concatenate(rows)
    return found


def lines(sections: NDArray[np.str_], rows: Floats, seeds: int) -> Iterable[str]:
    """The table, a line a case."""
    inside = np.isin(sections, KNOWN)
    known, other = rows[inside], rows[~inside]
    learned = fit_axes(known[np.random.default_rng(1).permutation(len(known))[:LEARNED]], max(DIMS), normalise=True)
    sample = Thresholds().rotation_rows
    heads = ("short", "other rows", f"gain on {sample:,} rows: median (least, most)", "its lower end: median", "stale")
    yield f"| {' | '.join(heads)} | all rows |"
    yield "|---|---|---|---|---|---|"
    for dims in DIMS:
        definition = Definition.of(rows.shape[1], Short(dims, learned))
        for share in SHARES:
            table = mixed(known, other, share, np.random.default_rng(2))
            found = []
            for seed in range(seeds):
                chosen = np.random.default_rng(100 + seed).choice(len(table), sample, replace=False)
                found.append(compare(definition, table[chosen], learned).gain)
            means, lows = [one.mean for one in found], [one.low for one in found]
            stale = sum(low > Thresholds().rotation_gain for low in lows)
            chosen = np.random.default_rng(3).choice(len(table), min(LEARNED, len(table)), replace=False)
            anew = fit_axes(table[chosen], max(DIMS), normalise=True)
            before, after = (exact(table, one, dims) for one in (learned, anew))
            yield (
                f"| {dims} | {share:.0%} | {np.median(means):+.3f} ({min(means):+.3f}, {max(means):+.3f}) "
                f"| {np.median(lows):+.3f} | {stale} of {seeds} | {before:.3f}, learned anew {after:.3f} |"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    for line in lines(np.array([one["section"] for one in packages()]), debian().rows, given.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
