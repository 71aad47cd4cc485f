"""What is searched: the Debian set, its widened and its spread variants, and the exact answers to every query.

The rows and queries of a data set are float32; `Truth` judges answers against what a table stores of them.
"""

from __future__ import annotations

import json
import lzma
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tests.corpus import load, wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

K: Final = 10
WARM_UP: Final = 300
"""Queries at the end of the real ones that are only ever used to warm up, so that no measured query is repeated."""

# Servers sum distances in single precision; neighbours of the real set are some 1e-3 apart.
TIE: Final = 2e-6

Floats = NDArray[np.float32]
Kind = Literal["halfvec", "vector"]


class DataMissingError(SystemExit):
    """The shared data set is not there."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to search and queries that are not among them.

    Attributes:
        name: as it is recorded.
        rows: shape (n, dims); float32, or float16 where only half precision is ever stored.
        queries: shape (q, dims), float32.
        warm_up: shape (w, dims), float32: queries that are never measured.
        note: how it was made.
    """

    name: str
    rows: NDArray[Any]
    queries: Floats
    warm_up: Floats
    note: str

    @property
    def dims(self) -> int:
        """Dimensions of a full vector."""
        return int(self.rows.shape[1])

    def sample(self, count: int = 20_000) -> Floats:
        """Rows to learn principal axes from."""
        if len(self.rows) <= count:
            return self.rows.astype(np.float32)
        chosen = np.random.default_rng(1).choice(len(self.rows), count, replace=False)
        return self.rows[np.sort(chosen)].astype(np.float32)


def shared() -> Path:
    """The shared folder: `../shared` from the project's root, or PGMRL_SHARED."""
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("PGMRL_SHARED", default))


def packages(rows: int | None = None) -> list[dict[str, Any]]:
    """What the rows of the real set say, by id: name, synopsis, section, tags; the first so many, or all."""
    path = shared() / "data" / "debian" / "packages.jsonl.xz"
    if not path.exists():
        raise DataMissingError(f"{path} is absent: the benchmarks need the shared Debian set (set PGMRL_SHARED)")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, rows)]


@lru_cache(maxsize=1)
def _mpnet() -> tuple[Floats, Floats]:
    path = shared() / "data" / "debian" / "mpnet-768.npz"
    if not path.exists():
        raise DataMissingError(f"{path} is absent: the benchmarks need the shared Debian set (set PGMRL_SHARED)")
    with np.load(path) as data:
        rows = data["codes"].astype(np.float32) * data["scale"]
        queries = data["queries"].astype(np.float32)
    return _unit(rows), _unit(queries)


def debian(rows: int | None = None, queries: int = 500) -> Dataset:
    """The real set: 68,820 x 768, or a random part of it."""
    everything, asked = _mpnet()
    chosen = everything
    if rows is not None and rows < len(everything):
        chosen = everything[np.sort(np.random.default_rng(2).choice(len(everything), rows, replace=False))]
    return _dataset(f"debian-{len(chosen)}x768", chosen, asked, queries, "real: all-mpnet-base-v2 of Debian packages")


def docstrings(queries: int = 500) -> Dataset:
    """20,000 docstrings of Python's standard library, with nothing beside the clone; made once on a machine."""
    folder = Path(tempfile.gettempdir()) / "pgmrl-bench-docstrings"
    folder.mkdir(exist_ok=True)
    corpus = load(folder)
    rows, asked = wide(corpus.passages), wide(corpus.asked)
    note = "real: passages of the standard library's docstrings, their names and texts by the bundled static model"
    return _dataset(f"docstrings-{len(rows)}x{rows.shape[1]}", rows, asked, queries, note)


def widened(rows: int | None = None, queries: int = 500, dims: int = 3072, noise: float = 0.1) -> Dataset:
    """SYNTHETIC: the real set mapped isometrically into more dimensions, plus a little noise.

    The map is a random orthogonal one, so distances stay those of real text, and a rotation finds its way back: the
    set is kind to `rotation` and useless for `prefix`.
    """
    base = debian(rows, queries)
    random = np.random.default_rng(3)
    basis = np.linalg.qr(random.standard_normal((dims, base.dims)))[0].T.astype(np.float32)

    def widen(vectors: NDArray[Any]) -> Floats:
        wide = np.asarray(vectors, np.float32) @ basis
        wide += _noise(random, wide.shape, noise)
        return _unit(wide)

    note = f"SYNTHETIC: the real set through a random orthogonal map to {dims} dimensions, plus noise of length {noise}"
    name = f"widened-{len(base.rows)}x{dims}"
    return Dataset(name, widen(base.rows), widen(base.queries), widen(base.warm_up), note)


def spread(rows: int, queries: int = 500) -> Dataset:
    """The real set, filled up to `rows` by noisy recombinations of it (SYNTHETIC beyond 68,820).

    A made row is `unit(a + 0.35 b + 0.2 g)`: a and b random real rows, g a random direction. So it lies near a real
    package, moved towards another one, with a part that no principal axis explains. Held in half precision.
    """
    everything, asked = _mpnet()
    if rows <= len(everything) or rows == 70_000:  # the real set stands for 70k
        return debian(min(rows, len(everything)), queries)
    random = np.random.default_rng(4)
    made = np.empty((rows, everything.shape[1]), np.float16)
    made[: len(everything)] = everything
    for start in range(len(everything), rows, 50_000):
        stop = min(start + 50_000, rows)
        near, far = (everything[random.integers(0, len(everything), stop - start)] for _ in "ab")
        made[start:stop] = _unit(near + 0.35 * far + _noise(random, near.shape, 0.2))
    note = "SYNTHETIC beyond 68,820: unit(a + 0.35 b + 0.2 g) of random real rows a, b and a random direction g"
    return _dataset(f"spread-{rows}x768", made, asked, queries, note)


def _dataset(name: str, rows: NDArray[Any], asked: Floats, queries: int, note: str) -> Dataset:
    if queries > len(asked) - WARM_UP:
        raise SystemExit(f"at most {len(asked) - WARM_UP} queries: the others warm up")
    return Dataset(name, rows, asked[:queries], asked[-WARM_UP:], note)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _noise(random: np.random.Generator, shape: Sequence[int], length: float) -> Floats:
    return random.standard_normal(tuple(shape), np.float32) * np.float32(length / np.sqrt(shape[1]))


def stored(vectors: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Vectors as a column of this type keeps them."""
    return vectors.astype(np.float16 if kind == "halfvec" else np.float32, copy=False)


def principal_axes(sample: Floats, count: int) -> NDArray[np.float16]:
    """The leading principal axes, uncentred so that cosine is kept; shape (count, dims), half precision."""
    wide = sample.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T, dtype=np.float16)


class Truth:
    """Which answers are right: every row no farther than the k-th nearest one, so that ties do not punish.

    Args:
        rows: as a table stores them, shape (n, dims).
        queries: as they are sent, shape (q, dims).
        k: how many answers count.
    """

    def __init__(self, rows: NDArray[Any], queries: NDArray[Any], k: int = K) -> None:
        self._rows = rows
        self._queries = _exact_unit(queries)
        self._limits = self._kth_distances(k) + TIE

    def hits(self, query: int, ids: Iterable[int]) -> int:
        """How many of these different rows are among the k nearest."""
        found = np.unique(np.fromiter(ids, np.int64))
        return int((self._distances(query, found) <= self._limits[query]).sum()) if found.size else 0

    def _distances(self, query: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(1.0 - _exact_unit(self._rows[ids]) @ self._queries[query])

    def _kth_distances(self, k: int) -> NDArray[np.float64]:
        # Single precision finds a few more candidates than needed, double precision decides among them.
        single, keep = self._queries.astype(np.float32), 4 * k
        products = np.full((len(single), 0), 0, np.float32)
        ids = np.zeros((len(single), 0), np.int64)
        for start in range(0, len(self._rows), 25_000):
            part = _unit(self._rows[start : start + 25_000].astype(np.float32))
            found = single @ part.T
            best = np.argpartition(-found, min(keep, found.shape[1] - 1), axis=1)[:, :keep]
            products = np.hstack([products, np.take_along_axis(found, best, axis=1)])
            ids = np.hstack([ids, best + start])
            best = np.argpartition(-products, min(keep, products.shape[1] - 1), axis=1)[:, :keep]
            products, ids = np.take_along_axis(products, best, axis=1), np.take_along_axis(ids, best, axis=1)
        exact = [np.sort(self._distances(query, near))[k - 1] for query, near in enumerate(ids)]
        return np.array(exact)


def _exact_unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))
