"""More like these rows, less like those: a query made of examples, in the statement or in NumPy.

The average of the positive examples; with negative ones, as far again from their average: p + (p - n). This is what
Qdrant calls `average_vector`, and the idea is Rocchio's (1971). Under cosine each example is scaled to unit length
first, so that each has the same say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import ColumnElement, FromClause, and_, func, literal_column, not_, or_, select, true
from sqlalchemy import cast as sql_cast

from pgmrl.errors import SearchError, VectorError
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.metrics import Metric, MetricName, metric_named
from pgmrl.model.query_lengths import scaled_sql
from pgmrl.model.real_numbers import real_numbers
from pgmrl.model.types import NumpyVector
from pgmrl.model.vectors import VectorArray, as_query, as_vector, as_vectors, query_vectors
from pgmrl.reprs import safe_repr
from pgmrl.searching.key_values import key_values
from pgmrl.searching.query import raise_sql

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Column
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["MoreLikeThis", "average_vectors", "more_like_this"]

Key = tuple[Any, ...]
NO_DIRECTION: Final = 1e-6  # the length of what unit vectors that cancel each other leave: rounding


@dataclass(frozen=True, slots=True)
class MoreLikeThis:
    """Examples of what to find, as `more_like_this` checked them; a query for `search` and its kin.

    Attributes:
        column: the Matryoshka column whose rows are the examples.
        keys: of the rows to be like.
        unlike: of the rows to be unlike.

    """

    column: Any
    keys: tuple[Key, ...]
    unlike: tuple[Key, ...] = ()

    def vector(self, definition: Definition) -> ColumnElement[Any]:
        """The query's vector as a scalar subquery; the server raises an error where an example has no vector.

        Args:
            definition: of the column that is searched, which may be another one of the same dimensions.

        Raises:
            SearchError: the examples have other dimensions.

        """
        attachment = attachment_of(self.column)
        if attachment.definition.dims != definition.dims:
            raise SearchError(
                f"the examples of {base_column(self.column)} have {attachment.definition.dims} dimensions, expected "
                f"{definition.dims}, those of the searched column: take examples that the same model embedded"
            )
        positive = _average(self.column, attachment, definition, self.keys, "positive")
        complete = f"positive.examples = {len(self.keys)}"
        if not self.unlike:
            return _checked_average(definition, self, complete, "positive.mean", "positive.examples", positive)
        negative = _average(self.column, attachment, definition, self.unlike, "negative")
        plus, minus = definition.operator("+"), definition.operator("-")
        complete += f" AND negative.examples = {len(self.unlike)}"
        mean = f"positive.mean {plus} (positive.mean {minus} negative.mean)"
        examples = "positive.examples + negative.examples"
        return _checked_average(definition, self, complete, mean, examples, positive, negative)

    def without_examples(self, rows: SelectedRows, column: Any) -> SelectedRows:
        """The rows that are searched, without the examples where those are of the same table."""
        if base_column(self.column).table is not base_column(column).table:
            return rows
        examples = [_has_key(rows.inner_keys, key) for key in (*self.keys, *self.unlike)]
        return replace(rows, select=rows.select.where(*(not_(example) for example in examples)))


def more_like_this(
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    keys: Sequence[Any],
    unlike: Sequence[Any] = (),
) -> MoreLikeThis:
    """A query for `search`: more like these rows, less like those.

        search(select(Package), Package.embedding, more_like_this(Package.embedding, [17, 4], unlike=[23]))

    The vectors are read within the statement, from the whole table: the Select's filters say what is found, not what
    may be an example. Examples are not among the results when they are of the column that is searched. An example that
    does not exist, or has no vector or (under cosine) a zero one, makes the server raise an error that says so
    (`DataError`); so does a combination without a direction. If the search reads nothing, because a filter leaves no
    rows, it may return none instead.

    Args:
        column: the Matryoshka column whose rows are the examples.
        keys: primary keys of at least one row; each a tuple where the key has several columns.
        unlike: primary keys of rows to be unlike.

    Raises:
        SearchError: no keys, or keys that are not of the primary key's form.
        DefinitionError: `column` is not a Matryoshka column.

    """
    attachment_of(column)
    key_columns = list(base_column(column).table.primary_key.columns)
    positive, negative = _keys("keys", keys, key_columns), _keys("unlike", unlike, key_columns)
    if not positive:
        raise SearchError("more_like_this() has no keys: give at least one row to be like")
    both = set(positive) & set(negative)
    if both:
        raise SearchError(f"{safe_repr(next(iter(both)))} is in keys and in unlike: give it once")
    return MoreLikeThis(column, positive, negative)


def average_vectors(
    positive: Any,
    negative: Any = (),
    weights: Sequence[float] | None = None,
    *,
    metric: MetricName | Metric = "cosine",
) -> VectorArray:
    """The query vector of `more_like_this`, of vectors that the caller holds.

    Args:
        positive: what to be like, shape (n, dims), n at least 1.
        negative: what to be unlike, shape (m, dims); m may be 0.
        weights: of the positive vectors, shape (n,), above 0; equal by default.
        metric: under `cosine` each vector is scaled to unit length first.

    Returns:
        Shape (dims,), float32, not scaled.

    Raises:
        VectorError: no positive vector, other dimensions, not finite, or under cosine a zero vector or average.
        DefinitionError: an unknown metric.

    """
    cosine = metric_named(metric).normalise
    first = real_numbers(positive, "the positive vectors")
    if first.ndim != 2 or not first.size:
        raise VectorError(f"the positive vectors have shape {first.shape}, expected (n, dims) with n at least 1")
    dims = first.shape[1]
    average = _mean(first, dims, _weights(weights, len(first)), cosine, "positive")
    others = real_numbers(negative, "the negative vectors")
    if others.ndim != 2 and others.shape != (0,):
        raise VectorError(f"the negative vectors have shape {others.shape}, expected (n, dims)")
    if others.size:
        average = average + (average - _mean(others, dims, np.ones(len(others)), cosine, "negative"))
    if cosine and np.linalg.norm(average) <= NO_DIRECTION:
        raise VectorError("the vectors cancel each other: their average has no direction; give other examples")
    return as_vector(average, dims, what="the average of the vectors")


# -- in SQL --------------------------------------------------------------------------------------------------------


def _average(column: Any, attachment: Attachment, definition: Definition, keys: Sequence[Key], name: str) -> FromClause:
    """One row: how many of the examples have a vector to search with (`examples`), and their average (`mean`)."""
    base = base_column(column)
    table = vectors_table(column).alias()
    wide = NumpyVector(definition.dims, "vector", definition.vector_schema)
    vector = sql_cast(table.c[attachment.full], wide)
    functions: Any = getattr(func, definition.vector_schema) if definition.vector_schema else func
    usable: ColumnElement[bool] = table.c[attachment.full].is_not(None)
    if definition.metric.normalise:
        usable = and_(usable, functions.vector_norm(vector) > literal_column("CAST(0 AS double precision)"))
        vector = functions.l2_normalize(vector, type_=wide)
    key_columns = [table.c[key.name] for key in base.table.primary_key.columns]
    rows = or_(*(_has_key(key_columns, key) for key in keys))
    mean = functions.avg(vector, type_=wide).label("mean")
    return select(func.count().label("examples"), mean).select_from(table).where(rows, usable).subquery(name)


def _has_key(columns: Sequence[ColumnElement[Any]], key: Key) -> ColumnElement[bool]:
    return and_(*(column == part for column, part in zip(columns, key, strict=True)))


def _checked_average(
    definition: Definition, query: MoreLikeThis, complete: str, mean: str, examples: str, *sources: FromClause
) -> ColumnElement[Any]:
    """The average, with an error in its place where an example has no vector or the average no direction.

    Args:
        definition: of the column that is searched.
        query: the examples.
        complete: SQL text of whether each example has a vector.
        mean: SQL text of the average.
        examples: SQL text of how many examples have a vector.
        *sources: what the texts read.

    """
    count = len(query.keys) + len(query.unlike)
    message = f"expected each of {count} examples to exist and to have a vector to search with, got "
    arms = [f"WHEN NOT ({complete}) THEN {raise_sql(definition, message, examples, shown=True)}"]
    if definition.metric.normalise:
        norm = f"{definition.norm('vector')}({mean})"
        message = "the examples cancel each other, so their average has no direction: give others"
        arms.append(f"WHEN {norm} OPERATOR(pg_catalog.<=) {NO_DIRECTION} THEN {raise_sql(definition, message, norm)}")
    scaled = f"CAST({scaled_sql(definition, mean)} AS {definition.full_type})"
    average: ColumnElement[Any] = literal_column(f"CASE {' '.join(arms)} ELSE {scaled} END")
    source = sources[0] if len(sources) == 1 else sources[0].join(sources[1], true())
    return select(average).select_from(source).scalar_subquery()


# -- checks and NumPy ----------------------------------------------------------------------------------------------


def _keys(argument: str, values: Any, columns: Sequence[Column[Any]]) -> tuple[Key, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence | np.ndarray | set | frozenset):
        raise SearchError(f"{argument}={safe_repr(values)}: expected a list of primary keys")
    names = ", ".join(column.name for column in columns)
    try:
        keys = [tuple(key) if isinstance(key, tuple) else (key,) for key in values]
    except Exception:  # whatever the value's own __iter__ raises
        raise SearchError(f"{argument}={safe_repr(values)}: expected a list of primary keys") from None
    for key in keys:
        if len(key) != len(columns) or any(part is None for part in key):
            raise SearchError(f"{safe_repr(key)} in {argument}: expected a primary key ({names})")
    # each once; of a key of several columns each must be a tuple
    return tuple(dict.fromkeys(key_values(argument, columns, key) for key in keys))


def _weights(weights: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    """Of the positive vectors, the largest 1, so that their sum is in range."""
    if weights is None:
        return np.ones(count)
    try:
        numbers = real_numbers(weights, "weights").astype(np.float64)
    except VectorError:
        raise VectorError(f"weights={safe_repr(weights)}: expected numbers") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all() or not (numbers > 0).all():
        raise VectorError(
            f"weights={safe_repr(weights)}: expected {count} finite numbers above 0, one for each positive vector"
        )
    return np.asarray(numbers / numbers.max())


def _mean(vectors: Any, dims: int, weights: Any, cosine: bool, what: str) -> NDArray[np.float64]:
    if not cosine:
        wide = as_vectors(vectors, dims, what=f"the {what} vectors").astype(np.float64)
    else:
        rows = query_vectors(vectors, dims, f"the {what} vectors")
        scaled = [
            as_query(row, dims, "vector", direction=True, what=f"row {number} of the {what} vectors")
            for number, row in enumerate(rows)
        ]
        wide = np.stack(scaled).astype(np.float64)
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(weights @ wide / math.fsum(weights))
