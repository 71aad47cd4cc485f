"""Learn a rotation: the principal axes of the user's own vectors, and how much recall each short size keeps."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Connection, text

from pgmrl.database.catalogue import row_estimate
from pgmrl.database.connection import snapshot, sqlalchemy_connection
from pgmrl.database.search_path import catalogue_result
from pgmrl.database.vector_reader import VectorType, binary_sql, read_vectors
from pgmrl.errors import NotMigrated, RotationError
from pgmrl.measure.exact_neighbours import ExactSearch, RowBatch, read_neighbours
from pgmrl.measure.ground_truth import GroundTruth, kept_neighbours
from pgmrl.measure.intervals import Interval, Z
from pgmrl.model.argument_types import callable_argument, whole_number
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.rotation import Rotation
from pgmrl.model.server_names import server_name
from pgmrl.model.shortening import Definition, Prefix, Short, Shortening
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Table
    from sqlalchemy.orm import Session

    from pgmrl.model.metrics import Metric, ShortType

__all__ = ["Comparison", "Fit", "by_direction", "compare", "fit_axes", "fit_rotation", "table_rows"]

MOST_ROWS: Final = 10_000_000
"""The sample is held in memory."""

SAMPLE: Final = 20_000
"""Rows to learn from; `python -m benchmarks.fit_sample` shows what fewer and more give."""

AXES: Final = 256
"""Axes to keep, unless the column's short vector is declared with more."""

SIZES: Final = (16, 32, 64, 96, 128, 192, 256, 384, 512)
FETCH: Final = 2_000
"""Rows that are read, and computed with, at a time."""

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
        rows: rows that were used: learned from, or held out as queries (300, or a fifth of fewer than 1,500).
        skipped: rows of the sample without a usable vector (zero, or not finite).
        recall_by_dims: for each number of dimensions, recall@10 of an exact shortlist of 100 after the rerank, when
            shortened by
            this rotation. Measured within the sample, on rows that were not learned from: a larger table needs a
            longer shortlist for the same recall, and of a few hundred rows 100 are so many that all is kept.
        recall_by_dims_prefix: the same when shortened to leading dimensions.
    """

    rotation: Rotation
    rows: int
    skipped: int
    recall_by_dims: dict[int, float]
    recall_by_dims_prefix: dict[int, float]


def fit_rotation(
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
        axes: axes to keep, at most the column's dimensions; default 256 (more where the column declares more short
            dimensions), or all where there are fewer.
        seed: of the sampling; the same seed on an unchanged table gives the same rotation on the same machine.
        progress: called with the number of sampled rows held so far.

    Raises:
        RotationError: too few usable rows to learn that many axes from, more axes than dimensions, or no such number.
        NotMigrated: the table or the column is not in the database.
    """
    connection = sqlalchemy_connection(connection)
    attachment = attachment_of(column)
    definition = attachment.definition
    sample, seed = _checked_sample(sample), whole_number("seed", seed, RotationError, 0)
    callable_argument("progress", progress, RotationError)
    count = _axes_of(definition, axes)
    table = vectors_table(column)
    vectors = _sampled(connection, table, attachment.full, definition, sample, seed, progress)
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    skipped = int((~usable).sum())
    if skipped:
        vectors = vectors[usable]
    np.random.default_rng(seed).shuffle(vectors)  # in place: a copy of the sample can be hundreds of megabytes
    held_out = min(HELD_OUT, len(vectors) // 5)
    queries, learned_from = vectors[:held_out], vectors[held_out:]
    rotation = fit_axes(learned_from, count, normalise=by_direction(definition.metric))
    sizes = [size for size in SIZES if size <= count]
    tried = [(by, size) for by in (rotation, Prefix()) for size in sizes]
    means = [float(recalls.mean()) for recalls in shortlist_recalls(definition, learned_from, queries, tried)]
    by_rotation, by_prefix = means[: len(sizes)], means[len(sizes) :]
    return Fit(
        rotation,
        len(vectors),
        skipped,
        dict(zip(sizes, by_rotation, strict=True)),
        dict(zip(sizes, by_prefix, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A rotation beside one learned from today's rows.

    Attributes:
        kept: recall@10 of an exact shortlist of 100 within the rows, as in `Fit`, by the rotation.
        kept_anew: the same by axes learned from these rows.
        gain: of the second over the first, with the 95 % interval of the mean over the queries.
    """

    kept: float
    kept_anew: float
    gain: Interval


def compare(definition: Definition, vectors: NDArray[np.floating], rotation: Rotation) -> Comparison:
    """Compare a rotation with axes learned from these rows, on rows of theirs that were held out.

    The same queries are asked of both, so that what is hard about a query counts for neither.

    Args:
        definition: of the column; its short dimensions are compared.
        vectors: shape (n, dims), n well above 400; finite, without zero vectors.
        rotation: with its axes.

    Raises:
        RotationError: too few rows to learn from.
    """
    vectors = np.array(vectors)
    np.random.default_rng(0).shuffle(vectors)
    queries, others = vectors[:HELD_OUT], vectors[HELD_OUT:]
    dims = definition.short.dims
    anew = fit_axes(others, dims, normalise=by_direction(definition.metric))
    old, new = shortlist_recalls(definition, others, queries, [(rotation, dims), (anew, dims)])
    gains = new - old
    reach = Z * float(gains.std(ddof=1)) / len(gains) ** 0.5
    mean = float(gains.mean())
    return Comparison(float(old.mean()), float(new.mean()), Interval(mean, mean - reach, mean + reach))


def by_direction(metric: Metric) -> bool:
    """Whether all rows count alike in the axes, however long they are.

    Under cosine, where length means nothing. Under L2 as well: what must be kept are differences to the nearest rows,
    and those are no larger for a long row. Measured on the Debian set with lengths spread by a factor of e (64
    dimensions, shortlist 50): .903 against .886 where the length is independent of the direction, .910 against .860
    where it grows along a principal axis; never lower. Under inner product long rows are the results, and their weight
    is right: .968 against .955.
    """
    return metric.name != "inner_product"


def _checked_sample(sample: Any) -> int:
    rows = whole_number("sample", sample, RotationError)
    if not 1 <= rows <= MOST_ROWS:
        raise RotationError(f"a sample of {rows:,} rows: ask for at least 1 and at most {MOST_ROWS:,}")
    return rows


def _axes_of(definition: Definition, axes: int | None) -> int:
    """How many axes to keep, of numbers that make sense."""
    declared = definition.short.dims if isinstance(definition.short.by, Rotation) else 0
    count = min(max(AXES, declared), definition.dims) if axes is None else whole_number("axes", axes, RotationError)
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
    axes = _leading_axes(moment, count)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    return Rotation.of(axes * np.sign(largest))


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
) -> NDArray[np.floating]:
    """Vectors of random rows, all equally likely; shape (up to sample, dims), in the column's precision."""
    name = server_name(connection, table)
    rows = table_rows(connection, name, column)
    target = 1.1 * sample + 4 * sample**0.5 + 10  # the number of rows that come varies, and too many do no harm
    percent = min(100.0, 100.0 * target / max(rows, 1))
    dtype = np.dtype(np.float16 if definition.full == "halfvec" else np.float32)
    most = 0
    while True:
        kept = _Reservoir.of(sample, definition.dims, dtype, seed)
        with snapshot(connection):
            # a scan that began in the middle of the table, behind another one, would give another sample
            connection.exec_driver_sql("SET LOCAL synchronize_seqscans = off")
            with closing(_read(connection, name, column, definition, percent, seed)) as parts:
                for part in parts:
                    kept.add(part)
                    if progress is not None and kept.held > most:
                        most = kept.held
                        progress(most)
        if kept.held == sample or percent >= 100:
            return kept.rows[: kept.held]
        # fewer than the estimate says, or many without a vector: once more, with what was seen as the estimate
        percent = min(100.0, 1.2 * percent * target / max(kept.seen, 1))


def _read(
    connection: Connection, name: str, column: str, definition: Definition, percent: float, seed: int
) -> Generator[NDArray[np.float32]]:
    """Vectors, FETCH at a time. No LIMIT: it would leave out the rows at the table's end."""
    full = quoted(column)
    query = (
        f"SELECT {binary_sql(definition.full, full, definition.vector_schema)} FROM {name} "  # noqa: S608
        f"TABLESAMPLE BERNOULLI ({percent}) REPEATABLE ({int(seed)}) WHERE {full} IS NOT NULL"
    )
    with closing(read_vectors(connection, query, [VectorType.full(definition)], rows=FETCH)) as batches:
        for batch in batches:
            yield batch.vectors[0]


@dataclass(slots=True)
class _Reservoir:
    """A random sample of rows whose number is not known before the last has come (Vitter's algorithm R, 1985).

    Attributes:
        rows: shape (size, dims); those from `held` on are not yet filled.
        random: decides which rows stay.
        seen: rows that came.
    """

    rows: NDArray[np.floating]
    random: np.random.Generator
    seen: int = 0

    @classmethod
    def of(cls, size: int, dims: int, dtype: np.dtype[Any], seed: int) -> _Reservoir:
        return cls(np.empty((size, dims), dtype), np.random.default_rng(seed))

    @property
    def held(self) -> int:
        return min(self.seen, len(self.rows))

    def add(self, part: NDArray[np.floating]) -> None:
        """Take rows in, shape (n, dims)."""
        size = len(self.rows)
        free = part[: max(0, size - self.seen)]
        self.rows[self.seen : self.seen + len(free)] = free
        later = part[len(free) :]
        numbers = np.arange(self.seen + len(free), self.seen + len(part))
        places = self.random.integers(0, numbers + 1) if len(numbers) else numbers
        stay = places < size
        self.rows[places[stay]] = later[stay]
        self.seen += len(part)


def table_rows(connection: Connection, name: str, column: str) -> float:
    """The table's rows by its statistics and its size now, as the planner does; counted where there are none.

    Args:
        connection: of the database.
        name: of the table, quoted.
        column: that it must have.

    Raises:
        NotMigrated: there is no such table or column.
        RotationError: it is no table.

    """
    row = catalogue_result(
        connection,
        text(
            "SELECT c.relkind IN ('r', 'm', 'p'), a.attname IS NOT NULL FROM pg_class AS c "
            "LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :column "
            "WHERE c.oid = to_regclass(:name)"
        ),
        {"name": name, "column": column},
    ).first()
    if row is None:
        raise NotMigrated(f"there is no table {name} in this database: run the application's migrations")
    sampled, there = row
    if not there:
        raise NotMigrated(f"table {name} has no column {column}: run the application's migrations")
    if not sampled:
        raise RotationError(f"{name} is no table, so it cannot be sampled: fit the table it reads from")
    rows = row_estimate(connection, name)
    if rows is not None:
        return rows
    counted = text(f"SELECT count(*) FROM {name}".replace(":", "\\:"))  # noqa: S608 - never analyzed; name is quoted
    return float(connection.execute(counted).scalar_one())


# -- what is kept --------------------------------------------------------------------------------------------------


def shortlist_recalls(
    definition: Definition,
    vectors: NDArray[np.floating],
    queries: NDArray[np.floating],
    tried: Sequence[tuple[Shortening, int]],
) -> list[NDArray[np.float64]]:
    """Recall@10 of an exact shortlist of 100, by distance: copies of a row are as good as that row.

    Args:
        definition: of the column.
        vectors: of the rows, shape (n, dims).
        queries: shape (q, dims).
        tried: ways to shorten, with the dimensions.

    Returns:
        For each of them shape (q,); ones where there are so few rows that nothing is left out.
    """
    if len(vectors) <= SHORTLIST or not len(queries):
        return [np.ones(max(1, len(queries)))] * len(tried)
    shortenings = [_in_single_precision(definition, by, dims) for by, dims in tried]
    search = ExactSearch(definition, queries, kept_neighbours(K), shortenings=shortenings, shortlist=SHORTLIST)
    starts = range(0, len(vectors), FETCH)
    read_neighbours((_batch(vectors, slice(start, start + FETCH)) for start in starts), search)
    truth = GroundTruth.of(K, search.full())
    limits, counts = truth.limits[:, np.newaxis], np.maximum(1, truth.counts)
    near = [(search.short(number).full <= limits).sum(axis=1) for number in range(len(tried))]
    return [np.minimum(1.0, returned / counts) for returned in near]


def _in_single_precision(definition: Definition, by: Shortening, dims: int) -> Definition:
    """The axes are judged, not whether the values fit half precision.

    And of `vector`s: these come from the column, so rounding them once more would only take time.
    """
    kind: ShortType = "bit" if definition.short.type == "bit" else "vector"
    return Definition(definition.dims, Short(dims, by, kind), definition.metric, "vector")


def _batch(vectors: NDArray[np.floating], part: slice) -> RowBatch:
    rows = vectors[part].astype(np.float32)
    return RowBatch(np.arange(part.start, part.start + len(rows)), rows)
