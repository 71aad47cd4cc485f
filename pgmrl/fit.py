"""Learn a rotation: the principal axes of the user's own vectors, and how much recall each short size keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Connection, text

from pgmrl.columns import attachment_of, base_column
from pgmrl.database import sqlalchemy_connection
from pgmrl.errors import NotMigrated, RotationError
from pgmrl.names import qualified, quoted
from pgmrl.rotation import Rotation
from pgmrl.shortening import Definition, Prefix, Short, Shortening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Table
    from sqlalchemy.orm import Session

    from pgmrl.metrics import Metric
    from pgmrl.vectors import Vector

__all__ = ["Fit", "fit", "fit_axes"]

SAMPLE: Final = 20_000
"""Rows to learn from; `python -m benchmarks.fit_sample` shows what fewer and more give."""

AXES: Final = 256
SIZES: Final = (16, 32, 64, 96, 128, 192, 256, 384, 512)
FETCH: Final = 2_000  # rows fetched at a time
HELD_OUT: Final = 300  # rows that serve as queries and are not learned from
K: Final = 10
SHORTLIST: Final = 100
FULL_DECOMPOSITION: Final = 1_536  # dimensions up to which all eigenvectors take about two seconds
OVERSAMPLING: Final = 64
ITERATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learned.

    Attributes:
        rotation: the axes and their id.
        rows: rows that were used.
        skipped: rows of the sample without a usable vector (zero, or not finite).
        kept: for each number of dimensions, recall@10 of an exact shortlist of 100 after the rerank, when shortened by
            this rotation. Measured within the sample, on rows that were not learned from: a larger table needs a
            longer shortlist for the same recall.
        kept_prefix: the same when shortened to leading dimensions.
    """

    rotation: Rotation
    rows: int
    skipped: int
    kept: dict[int, float]
    kept_prefix: dict[int, float]


def fit(
    connection: Connection | Session,
    column: Any,
    *,
    sample: int = SAMPLE,
    axes: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Fit:
    """Learn a rotation from a sample of a column's vectors; reads only.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column; a rotation it already has makes no difference.
        sample: rows to read.
        axes: axes to keep, at most the column's dimensions; default 256, or all where there are fewer.
        seed: of the sampling; the same seed on an unchanged table gives the same rotation.
        progress: called with the number of rows read so far.

    Raises:
        RotationError: too few usable rows to learn that many axes from, or more axes than dimensions.
        NotMigrated: the table or the column is not in the database.
    """
    connection = sqlalchemy_connection(connection)
    attachment, base = attachment_of(column), base_column(column)
    definition = attachment.definition
    count = _axes_of(definition, sample, axes)
    table = base.table if attachment.side is None else base.table.metadata.tables[attachment.side]
    read = list(_sampled(connection, table, attachment.full, definition, sample, seed, progress))
    vectors = np.concatenate(read) if read else np.empty((0, definition.dims), np.float32)
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    vectors, skipped = vectors[usable], int((~usable).sum())
    held_out = min(HELD_OUT, len(vectors) // 5)
    shuffled = np.random.default_rng(seed).permutation(len(vectors))
    queries, learned_from = vectors[shuffled[:held_out]], vectors[shuffled[held_out:]]
    rotation = fit_axes(learned_from, count, normalise=definition.metric.normalise)
    sizes = [size for size in SIZES if size <= count]
    trial = _Trial.of(definition, learned_from, queries)
    kept, kept_prefix = ({size: trial.kept(by, size) for size in sizes} for by in (rotation, Prefix()))
    return Fit(rotation, len(vectors), skipped, kept, kept_prefix)


def _axes_of(definition: Definition, sample: int, axes: int | None) -> int:
    """How many axes to keep, of numbers that make sense."""
    if sample < 1:
        raise RotationError(f"a sample of {sample:,} rows: ask for at least 1")
    count = min(AXES, definition.dims) if axes is None else axes
    if not 1 <= count <= definition.dims:
        raise RotationError(f"{count} axes of {definition.dims} dimensions: ask for 1 to {definition.dims}")
    return count


def fit_axes(vectors: NDArray[np.floating], count: int, *, normalise: bool) -> Rotation:
    """The leading principal axes of vectors, about the origin.

    Not about the mean: subtracting it would change directions, and with them cosine distances. A principal component
    analysis is the best rank-`count` approximation in the sense of least squares (Eckart and Young, 1936).

    Args:
        vectors: shape (n, dims), finite; rows of zeros are passed over.
        count: axes to return, at most dims.
        normalise: scale rows to unit length first, so that under cosine long vectors weigh no more than short ones.

    Returns:
        The rotation with `count` axes, most important first, the largest component of each positive.

    Raises:
        RotationError: fewer than `count` rows, more axes than dimensions, or values that are not finite.
    """
    dims = vectors.shape[1]
    if not 1 <= count <= dims:
        raise RotationError(f"{count} axes of {dims} dimensions: ask for 1 to {dims}")
    largest_of_rows = np.maximum(vectors.max(axis=1, initial=0), -vectors.min(axis=1, initial=0)).astype(np.float64)
    if not np.isfinite(largest_of_rows).all():
        raise RotationError("axes cannot be learned from values that are not finite: leave those rows out")
    usable = int((largest_of_rows > 0).sum())
    if usable < count:
        raise RotationError(
            f"{usable:,} usable rows are too few to learn {count} axes from (a zero vector is none): "
            "load more, or ask for fewer"
        )
    moment = _second_moment(vectors, largest_of_rows, normalise=normalise)
    found = _leading_axes(moment, count)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1, keepdims=True), axis=1)
    return Rotation.of(found * np.sign(largest))


def _second_moment(
    vectors: NDArray[np.floating], largest: NDArray[np.float64], *, normalise: bool
) -> NDArray[np.float64]:
    """The uncentred second moment up to a factor, shape (dims, dims); in batches: its memory is not the sample's.

    Args:
        vectors: shape (n, dims).
        largest: the largest absolute value of each, shape (n,): squares of scaled values neither overflow nor vanish.
        normalise: scale rows to unit length.
    """
    dims = vectors.shape[1]
    moment = np.zeros((dims, dims))
    scales = np.where(largest > 0, largest, 1) if normalise else np.full(len(vectors), largest.max())
    for start in range(0, len(vectors), FETCH):
        part = slice(start, start + FETCH)
        batch: NDArray[np.floating] = (vectors[part] / scales[part, None]).astype(np.float32)
        if normalise:
            norms = np.linalg.norm(batch, axis=1, keepdims=True)
            batch = batch / np.where(norms > 0, norms, 1)
        moment += batch.T @ batch
    return moment / len(vectors)


def _leading_axes(moment: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Leading eigenvectors as rows, shape (count, dims).

    All of them by LAPACK where that takes seconds; else by randomised subspace iteration (Halko, Martinsson and Tropp,
    2011), which at 3,072 dimensions finds the same subspace in a fraction of the time.
    """
    dims = len(moment)
    if dims <= FULL_DECOMPOSITION:
        return np.linalg.eigh(moment)[1][:, ::-1][:, :count].T
    width = min(dims, count + OVERSAMPLING)
    single = moment.astype(np.float32)
    basis = np.random.default_rng(0).standard_normal((dims, width)).astype(np.float32)
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(single @ basis)[0]
    inside = np.linalg.eigh((basis.T @ single @ basis).astype(np.float64))[1][:, ::-1][:, :count]
    return np.linalg.qr(basis.astype(np.float64) @ inside)[0].T


# -- reading -------------------------------------------------------------------------------------------------------


def _sampled(
    connection: Connection,
    table: Table,
    column: str,
    definition: Definition,
    sample: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> Iterator[Vector]:
    """Vectors of random rows, in arrays of shape (up to FETCH, dims)."""
    name, full = qualified(table.schema, table.name), quoted(column)
    rows = _row_estimate(connection, name, column)
    percent = min(100.0, 105.0 * sample / max(rows, 1))
    send = definition.qualified(f"{definition.full}_send")
    query = (
        f"SELECT {send}({full}) FROM {name} TABLESAMPLE BERNOULLI ({percent}) REPEATABLE ({int(seed)}) "  # noqa: S608
        f"WHERE {full} IS NOT NULL LIMIT {int(sample)}"
    )
    dtype = ">f2" if definition.full == "halfvec" else ">f4"
    escaped = query.replace(":", "\\:")  # a colon in a name is no parameter
    found = connection.execute(text(escaped), execution_options={"yield_per": FETCH})
    done = 0
    for part in found.scalars().partitions(FETCH):
        read = np.stack([np.frombuffer(value, dtype, offset=4) for value in part]).astype(np.float32)
        done += len(read)
        if progress is not None:
            progress(done)
        yield read


def _row_estimate(connection: Connection, name: str, column: str) -> int:
    row = connection.execute(
        text(
            "SELECT c.reltuples, a.attname FROM pg_class AS c LEFT JOIN pg_attribute AS a "
            "ON a.attrelid = c.oid AND a.attname = :column WHERE c.oid = to_regclass(:name)"
        ),
        {"name": name, "column": column},
    ).first()
    if row is None:
        raise NotMigrated(f"there is no table {name} in this database: run the application's migrations")
    if row[1] is None:
        raise NotMigrated(f"table {name} has no column {column}: run the application's migrations")
    if row[0] > 0:
        return int(row[0])
    counted = text(f"SELECT count(*) FROM {name}".replace(":", "\\:"))  # noqa: S608 - never analyzed; name is quoted
    return int(connection.execute(counted).scalar_one())


# -- what is kept --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    """Exact searches over the sample, to compare shortened ones with.

    Attributes:
        definition: of the column.
        vectors: as the column stores them, shape (n, dims).
        queries: likewise, shape (queries, dims).
        truth: rows of the 10 nearest to each query; None where the sample is too small to leave anything out.
    """

    definition: Definition
    vectors: Vector
    queries: Vector
    truth: NDArray[np.intp] | None

    @classmethod
    def of(cls, definition: Definition, vectors: Vector, queries: Vector) -> _Trial:
        stored, asked = definition.stored(vectors), definition.stored(queries)
        enough = len(stored) > SHORTLIST and len(asked) > 0
        return cls(definition, stored, asked, _nearest(definition.metric, stored, asked, K) if enough else None)

    def kept(self, by: Shortening, dims: int) -> float:
        """Recall@10 of an exact shortlist of 100."""
        if self.truth is None:
            return 1.0
        whole = self.definition
        # in single precision: the axes are judged, not whether the values fit half precision
        shortened = Definition(whole.dims, Short(dims, by=by, type="vector"), whole.metric, whole.full)
        short, asked = (shortened.shorten(array).astype(np.float32) for array in (self.vectors, self.queries))
        listed = _nearest(whole.metric, short, asked, SHORTLIST)
        return float(np.mean([np.isin(true, found).mean() for true, found in zip(self.truth, listed, strict=True)]))


def _nearest(metric: Metric, vectors: Vector, queries: Vector, k: int) -> NDArray[np.intp]:
    """Rows of the k nearest to each query, in no order; shape (queries, k).

    By one matrix product: what orders rows as the metric's distance does, not the distance itself.
    """
    products = queries @ vectors.T
    norms = np.linalg.norm(vectors, axis=1)
    scores: NDArray[np.floating] = -products
    if metric.name == "cosine":
        scores = scores / np.where(norms > 0, norms, np.inf)
    elif metric.name == "l2":
        scores = norms**2 + 2 * scores
    return np.argpartition(scores, k, axis=1)[:, :k]
