"""The short vector's rule: its one definition, as SQL and as NumPy.

Columns, queries, installed functions, migrations and checks all take it from here. When two places say it, they drift
apart, and nothing fails: the index is silently no longer used.

    short = round_to_type( normalise_if_cosine( project(full) ) )

where `project` is the leading dimensions (`Prefix`) or the inner products with learned axes (`Rotation`).
Truncating trained embeddings: Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import DefinitionError, RotationError, VectorError
from pgmrl.model.argument_types import choice, optional_name, truth_value, whole_number
from pgmrl.model.metrics import FullType, Metric, MetricName, ShortType, metric_named
from pgmrl.model.rotation import Rotation
from pgmrl.model.vectors import (
    HALF_LENGTH,
    HALF_MAX,
    HALF_STEP,
    VECTOR_LENGTHS,
    Lengths,
    VectorArray,
    as_query,
    as_vector,
    as_vectors,
    is_ordinary,
)
from pgmrl.names import identifier, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Definition", "Prefix", "Rotation", "Short", "Shortening", "expression_name"]

FULL_LIMIT: Final = 16_000
"""Dimensions a pgvector column may have; the full one needs no index, so only this limit holds for it."""

SHORT_LIMITS: Final[dict[ShortType, int]] = {"halfvec": 4_000, "vector": 2_000, "bit": 64_000}
"""Dimensions pgvector's HNSW takes."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Shorten to the leading dimensions, for models trained with a Matryoshka loss."""


Shortening = Prefix | Rotation


@dataclass(frozen=True, slots=True)
class Short:
    """What the short vector shall be.

    Attributes:
        dims: its dimensions, at most those of the full vector.
        by: `Prefix()` or a `Rotation`.
        type: `halfvec`, `vector`, or `bit` (signs only, ordered by Hamming distance).
        name: the column's name; by default made of the full column's name, the rule and the dimensions, so that a
            changed mind is another column beside it and never the same name with another meaning.

    Raises:
        DefinitionError: no whole number, no such rule or type, or a name of more than 63 bytes.

    """

    dims: int
    by: Shortening = field(default_factory=Prefix)
    type: ShortType = "halfvec"
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", whole_number("dims", self.dims, DefinitionError))
        if not isinstance(self.by, Prefix | Rotation):
            raise DefinitionError(f"by={safe_repr(self.by)}: expected Prefix() or a Rotation")
        choice("type", self.type, list(SHORT_LIMITS), DefinitionError)
        optional_name("name", self.name, DefinitionError)


@dataclass(frozen=True, slots=True)
class Definition:
    """A full vector and its short one: everything that index, query, function and check must agree on.

    Attributes:
        dims: dimensions of the full vector.
        short: the short vector.
        metric: the distance between full vectors.
        full: the full column's type.
        vector_schema: the schema pgvector lives in, where that is not on the search_path.
        has_column: whether a column holds the short vectors; else only the expression of their index computes them.

    Raises:
        DefinitionError: dimensions, type or metric that cannot work together.
        RotationError: the rotation's axes are of other dimensions.

    """

    dims: int
    short: Short
    metric: Metric
    full: FullType = "halfvec"
    vector_schema: str | None = None
    has_column: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", whole_number("dims", self.dims, DefinitionError))
        if not isinstance(self.short, Short):
            raise DefinitionError(f"short={safe_repr(self.short)}: expected Short(dims)")
        object.__setattr__(self, "metric", metric_named(self.metric))
        object.__setattr__(self, "has_column", truth_value("has_column", self.has_column, DefinitionError))
        _check_definition(self)

    @classmethod
    def of(
        cls,
        dims: int,
        short: Short,
        metric: MetricName | Metric = "cosine",
        full: FullType = "halfvec",
        vector_schema: str | None = None,
        *,
        stored: bool = True,
    ) -> Definition:
        """A definition with the metric given by name."""
        return cls(dims, short, metric_named(metric), full, vector_schema, stored)

    # -- names and types ---------------------------------------------------------------------------------------

    @property
    def learned(self) -> bool:
        """Whether a short vector can exist: a rotation that has not been learned has none."""
        return not (isinstance(self.short.by, Rotation) and self.short.by.id is None)

    @property
    def scaled(self) -> bool:
        """Whether short vectors are scaled to unit length: under cosine, of which only the direction counts.

        In an expression they are not, after pgvector's README: its operators and its index scale them themselves.
        """
        return self.metric.normalise and self.has_column and self.short.type != "bit"

    @property
    def full_type(self) -> str:
        """The full column's type as SQL: `halfvec(768)`."""
        return f"{self.qualified(self.full)}({self.dims})"

    @property
    def short_type(self) -> str:
        """The short column's type as SQL: `halfvec(128)`, `bit(768)`."""
        name = "bit" if self.short.type == "bit" else self.qualified(self.short.type)
        return f"{name}({self.short.dims})"

    @property
    def operator_class(self) -> str:
        """The HNSW operator class of the index on the short column."""
        return self.qualified(self.metric.operator_class(self.short.type))

    @property
    def short_bytes(self) -> int:
        """Bytes of one short vector as it is stored."""
        short = self.short
        if short.type == "bit":
            return 8 + (short.dims + 7) // 8
        return 8 + short.dims * (2 if short.type == "halfvec" else 4)

    def short_name(self, full_name: str) -> str:
        """The short column's name beside a full column of this name.

        Short vectors that are not stored have a name too, by which settings, measurements and messages know them.
        """
        if self.short.name is not None:
            return self.short.name
        if not self.has_column:
            return expression_name(full_name, self.short.dims, self.short.type)
        suffix = "" if self.short.type == "halfvec" else f"_{self.short.type}"
        rule = self.short.by.id if isinstance(self.short.by, Rotation) else "short"
        return identifier(f"{full_name}_{rule}_{self.short.dims}{suffix}")

    @property
    def may_lose_direction(self) -> bool:
        """Whether a vector that is not zero can have a short one that is, which a cosine index does not hold."""
        return self.metric.normalise and isinstance(self.short.by, Prefix) and self.short.type != "bit"

    def norm(self, kind: FullType | ShortType) -> str:
        """The function for the length of a vector of this type; pgvector has a name for each."""
        return self.qualified("l2_norm" if kind == "halfvec" else "vector_norm")

    def qualified(self, name: str) -> str:
        """A name of pgvector's, with its schema where one was given."""
        return f"{quoted(self.vector_schema)}.{name}" if self.vector_schema else name

    # -- as SQL ------------------------------------------------------------------------------------------------

    def short_sql(self, full_name: str, table: str | None = None) -> str:
        """A row's short vector as SQL text: its column, or the expression of its index where no column holds it.

        Args:
            full_name: the full column's name.
            table: SQL text of what is before its columns' names, such as an alias.

        """
        owner = f"{table}." if table else ""
        if self.has_column:
            return f"{owner}{quoted(self.short_name(full_name))}"
        return f"({self.sql(owner + quoted(full_name))})"

    def sql(self, vector: str) -> str:
        """The short vector of a SQL expression of the full type.

        Of literals alone: with a parameter in it the server would not know the expression of the index.

        Args:
            vector: SQL text, already quoted.

        Raises:
            RotationError: the rotation has not been learned.

        """
        projected = self._projected_sql(vector)
        if self.short.type == "bit":
            projected = f"{self.qualified('binary_quantize')}({projected})"
        elif self.scaled:  # before the cast: the other way round overflows or turns small values into 0
            projected = f"{self.qualified('l2_normalize')}({projected})"
        return f"{projected}::{self.short_type}"

    def operator(self, name: str) -> str:
        """An operator of pgvector's as SQL text; `OPERATOR(schema.<=>)` where a schema was given."""
        return f"OPERATOR({quoted(self.vector_schema)}.{name})" if self.vector_schema else name

    @property
    def full_operator(self) -> str:
        """The distance operator between full vectors."""
        return self.operator(self.metric.operator)

    @property
    def short_operator(self) -> str:
        """The distance operator between short vectors."""
        name = self.metric.operator_for(self.short.type)
        return self.operator(name)

    def _projected_sql(self, vector: str) -> str:
        rule = self.short.by
        if isinstance(rule, Prefix):
            return f"{self.qualified('subvector')}({vector}, 1, {self.short.dims})"
        if rule.id is None:
            raise RotationError("this rotation has not been learned: run `pgmrl fit-rotation` and pin the id it prints")
        return f"pgmrl.rotate_v1({vector}, '{rule.id}', {self.short.dims})"  # the id is of a checked form

    # -- as NumPy ----------------------------------------------------------------------------------------------

    def stored(self, vectors: NDArray[np.floating]) -> VectorArray:
        """Vectors as the full column stores them: float32, rounded to half precision for `halfvec`."""
        array = np.asarray(vectors, np.float32)
        return array.astype(np.float16).astype(np.float32) if self.full == "halfvec" else array

    def shorten(self, vectors: NDArray[np.floating]) -> NDArray[Any]:
        """The short vectors of full ones, as the database computes them.

        Args:
            vectors: shape (n, dims) or (dims,).

        Returns:
            Shape (n, short dims) or (short dims,): float16 for `halfvec`, float32 for `vector`, bool for `bit`.

        Raises:
            RotationError: the rotation does not hold its axes.

        """
        projected = self._projected(self.stored(vectors))
        if self.short.type == "bit":
            return projected > 0
        if self.scaled:
            projected = _normalised(projected)
            if self.full == "halfvec" and isinstance(self.short.by, Prefix):
                projected = projected.astype(np.float16)  # l2_normalize answers in the type it is given
        return projected.astype(np.float16 if self.short.type == "halfvec" else np.float32)

    def _projected(self, stored: VectorArray) -> VectorArray:
        rule = self.short.by
        if isinstance(rule, Prefix):
            return stored[..., : self.short.dims]
        projected: VectorArray = stored @ _projection(rule, self.short.dims)
        return projected

    def unfindable(self, vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which vectors the short index does not hold: under cosine those whose short vector has no direction.

        Args:
            vectors: shape (n, dims).

        Returns:
            Shape (n,). Of a prefix, vectors whose leading dimensions are all zero as stored; else zero vectors.
        """
        if not self.metric.normalise or self.short.type == "bit":
            return np.zeros(len(vectors), np.bool_)
        if not self.has_column:  # not scaled: half precision turns the smallest into 0
            short: NDArray[np.bool_] = np.logical_not(np.any(self.shorten(vectors), axis=1))
            return short
        leading = vectors[:, : self.short.dims] if self.may_lose_direction else vectors
        found: NDArray[np.bool_] = np.logical_not(np.any(self.stored(leading), axis=1))
        return found

    def short_query(self, value: Any, what: str = "the query vector") -> VectorArray:
        """A query vector, checked as by `query`, and that it can be searched with through the short index.

        Raises:
            VectorError: as `query`, and a query whose short vector is zero, which the index answers with any rows.
        """
        if is_ordinary(value, self.dims, self.short.dims if isinstance(self.short.by, Prefix) else None):
            ordinary: VectorArray = value
            return ordinary
        vector = self.query(value, what)
        if self.unfindable(vector[np.newaxis])[0]:
            raise VectorError(
                f"{what} is zero in its leading {self.short.dims} dimensions, so the short index cannot be searched "
                "with it: use exact=True"
            )
        self._check_short(vector[np.newaxis], lambda _: what)
        return vector

    def query(self, value: Any, what: str = "the query vector") -> VectorArray:
        """A query vector, checked for this column; shape (dims,), float32.

        Raises:
            VectorError: NULL, not real numbers, wrong dimensions, not finite, zero under cosine, or under another
                metric of a length that pgvector cannot compute with.

        """
        if is_ordinary(value, self.dims):
            ordinary: VectorArray = value
            return ordinary
        direction, lengths = self.metric.normalise, self.query_lengths
        return as_query(value, self.dims, self.full, direction=direction, what=what, lengths=lengths)

    @property
    def query_lengths(self) -> Lengths:
        """The lengths that a query may have besides 0, where the metric does not leave its length out."""
        return self._lengths(self.full, direction=self.metric.name == "inner_product")

    def row(self, value: Any, full: FullType | None = None, what: str = "the vector") -> VectorArray:
        """A row's vector, checked for this column; shape (dims,), float32.

        Args:
            value: as `as_vector` takes it.
            full: the type that it is stored as; by default the column's.
            what: how an error names it.

        Raises:
            VectorError: as `as_vector`; also a length that the type or pgvector cannot compute with, and a short vector
                beyond half precision.
        """
        kind = full or self.full
        vector = as_vector(value, self.dims, kind, what=what, lengths=self._lengths(kind, direction=False))
        self._check_short(vector[np.newaxis], lambda _: what)
        return vector

    def rows(self, values: Any, full: FullType | None = None, what: str = "the vectors") -> VectorArray:
        """As `row`, of several; shape (n, dims), float32.

        Raises:
            VectorError: as `row`, naming the first row that is wrong.
        """
        kind = full or self.full
        vectors = as_vectors(values, self.dims, kind, what=what, lengths=self._lengths(kind, direction=False))
        self._check_short(vectors, lambda row: f"row {row} of {what}")
        return vectors

    def _lengths(self, kind: FullType, *, direction: bool) -> Lengths:
        """The lengths that vectors of this column may have besides 0; `direction`: whether that counts by itself."""
        low, high = VECTOR_LENGTHS
        if self.metric.normalise:  # short vectors are scaled before they are rounded
            return HALF_LENGTH if kind == "halfvec" else low, high
        if "halfvec" in {kind, self.short.type}:
            return HALF_LENGTH if direction else HALF_STEP, high
        return low, high

    def _check_short(self, vectors: VectorArray, named: Callable[[int], str]) -> None:
        """Refuse the first row whose short vector half precision cannot hold: where it is not scaled to unit length."""
        rule = self.short.by
        if self.scaled or self.short.type != "halfvec":
            return
        long = np.flatnonzero(np.linalg.norm(vectors.astype(np.float64), axis=1) > HALF_MAX)
        if not long.size or (isinstance(rule, Rotation) and rule.axes is None):  # which only the server has
            return
        wrong = long[(np.abs(self._projected(self.stored(vectors[long]))) > HALF_MAX).any(axis=1)]
        if wrong.size:
            raise VectorError(
                f"{named(int(wrong[0]))} has a short vector with a value beyond half precision's {HALF_MAX:.0f}: scale "
                "all vectors alike, or declare Short(..., type='vector')"
            )


def expression_name(full_name: str, dims: int, type_: ShortType) -> str:
    """The name of short vectors that only an index computes: no identifier, and never cut like one.

    The catalogue makes the same one: pgmrl/database/sql/expression_indexes.sql.
    """
    return f"{full_name}_expression_{dims}{'' if type_ == 'halfvec' else f'_{type_}'}"


def _normalised(vectors: VectorArray) -> VectorArray:
    # pgvector sums squares and divides in double precision; a zero vector stays zero
    wide = vectors.astype(np.float64)
    if vectors.ndim == 1:  # a query: a quarter of the time
        norm = math.sqrt(wide.dot(wide))
        return (wide / norm if norm > 0 else wide).astype(np.float32)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: VectorArray = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0).astype(np.float32)
    return scaled


@lru_cache(maxsize=16)
def _projection(rotation: Rotation, dims: int) -> VectorArray:
    # in single precision once and for all: a query would spend more on the conversion than on the product
    return np.ascontiguousarray(rotation.required_axes()[:dims].astype(np.float32).T)


def _check_definition(definition: Definition) -> None:
    dims, short = definition.dims, definition.short
    choice("full", definition.full, ["halfvec", "vector"], DefinitionError)
    optional_name("vector_schema", definition.vector_schema, DefinitionError)
    if not 1 <= dims <= FULL_LIMIT:
        raise DefinitionError(f"{dims} dimensions: expected 1 to {FULL_LIMIT:,}, what pgvector stores")
    if not 1 <= short.dims <= dims:
        raise DefinitionError(f"{short.dims} short dimensions: expected 1 to {dims}, those of the full vector")
    if short.dims > SHORT_LIMITS[short.type]:
        limit = SHORT_LIMITS[short.type]
        raise DefinitionError(
            f"{short.dims:,} short dimensions: expected at most {limit:,}, what HNSW takes of `{short.type}`"
        )
    if not definition.has_column:
        _check_expression(short)
    if isinstance(short.by, Rotation):
        _check_axes(short.by, dims, short.dims)


def _check_expression(short: Short) -> None:
    if not isinstance(short.by, Prefix):
        raise DefinitionError("stored=False with a rotation: expected by=Prefix(); a rotated vector needs its column")
    if short.name is not None:
        raise DefinitionError(f"stored=False with name={short.name!r}: there is no column to name, leave the name out")


def _check_axes(rotation: Rotation, dims: int, short_dims: int) -> None:
    if rotation.axes is None:
        return
    count, width = rotation.axes.shape
    if width != dims:
        raise RotationError(f"rotation {rotation.id} is for {width} dimensions, expected {dims}: fit it again")
    if count < short_dims:
        raise RotationError(f"rotation {rotation.id} has {count} axes, expected at least {short_dims}: fit more axes")
