"""What is tried: ways to shorten, short dimensions and short types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from pgmrl.errors import DefinitionError
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import SHORT_LIMITS, Definition, Prefix, Short, Shortening
from pgmrl.online.plan import graph_bytes, index_bytes
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgmrl.model.hnsw import Hnsw
    from pgmrl.model.metrics import ShortType

__all__ = ["AXES", "DIMS", "Candidate", "Rule", "candidates", "rotation_axes"]

Rule = Literal["prefix", "rotation"]

DIMS: Final = (32, 64, 96, 128, 192, 256, 384, 512)
"""Short dimensions that are tried, unless the caller says which."""

AXES: Final = 256
"""Axes beyond which a rotation is not tried of itself: in all that was measured 128 to 256 keep everything."""

BITS: Final = 256
"""Signs below which `bit` is not tried of itself: it loses too much there."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to shorten, with how its index is built.

    Attributes:
        definition: full and short vector.
        index: build parameters.

    """

    definition: Definition
    index: Hnsw

    @property
    def rule(self) -> Rule:
        """`prefix` or `rotation`."""
        return "rotation" if isinstance(self.definition.short.by, Rotation) else "prefix"

    @property
    def dims(self) -> int:
        """Short dimensions."""
        return self.definition.short.dims

    @property
    def type(self) -> ShortType:
        """The short column's type."""
        return self.definition.short.type

    @property
    def title(self) -> str:
        """For people: `rotation 128`, `prefix 768 bit`."""
        return f"{self.rule} {self.dims}" + ("" if self.type == "halfvec" else f" {self.type}")

    @property
    def graph(self) -> str:
        """The index for people: `m=16, ef_construction=100`."""
        return f"m={self.index.m}, ef_construction={self.index.ef_construction}"

    @property
    def swept(self) -> Definition:
        """The definition to compute many short vectors with, from full ones as they are stored.

        The vectors come from the column, so that rounding them to half precision again would only take time; it makes
        a difference only to a `vector` made of a `halfvec`'s prefix.
        """
        return self.definition if self.type == "vector" else replace(self.definition, full="vector")

    def with_index(self, index: Hnsw) -> Candidate:
        """The same with an index built otherwise."""
        return Candidate(self.definition, index)

    def index_bytes(self, rows: int) -> int:
        """The size its index will have, by pgvector's page layout."""
        return index_bytes(self._target, self.index, rows)

    def graph_bytes(self, rows: int) -> int:
        """The `maintenance_work_mem` in which its index is built at full speed."""
        return graph_bytes(self._target, self.index, rows)

    def same_vectors(self, other: Candidate) -> bool:
        """Whether the short vectors are the same, however the indexes are built."""
        return (self.definition.short.by, self.dims, self.type) == (
            other.definition.short.by,
            other.dims,
            other.type,
        )

    def same(self, other: Candidate) -> bool:
        """Whether the short vectors and how their indexes are built are the same."""
        return self.same_vectors(other) and self.index == other.index

    @property
    def _target(self) -> Target:
        return Target("", "full", self.definition)


def candidates(
    definition: Definition,
    index: Hnsw,
    *,
    rules: Sequence[Rule],
    types: Sequence[ShortType],
    dims: Sequence[int] | None,
    rotation: Rotation | None,
) -> list[Candidate]:
    """All combinations that can be, smallest first.

    Args:
        definition: of the column; its own short vector does not matter.
        index: build parameters of each.
        rules: ways to shorten.
        types: short types.
        dims: short dimensions; by default `DIMS`, and for bits all dimensions and half of them.
        rotation: with its axes; None where no rotation is tried.

    Raises:
        DefinitionError: dimensions that cannot be.

    """
    fitting: list[Candidate] = []
    for rule in rules:
        by: Shortening = Prefix()
        most = definition.dims
        if rule == "rotation":
            if rotation is None:
                continue
            by, most = rotation, len(rotation.required_axes())
        for kind in types:
            sizes = [size for size in _sizes(definition, rule, kind, dims) if size <= most]
            fitting += [Candidate(replace(definition, short=Short(size, by, kind)), index) for size in sizes]
    if not fitting:
        raise DefinitionError(
            f"nothing to try: no short vector of these dimensions, rules and types fits {definition.dims} dimensions"
        )
    return sorted(fitting, key=lambda candidate: (candidate.index_bytes(1_000_000), candidate.rule))


def rotation_axes(definition: Definition, dims: Sequence[int] | None) -> int:
    """How many axes a rotation needs for what is tried."""
    return max(_sizes(definition, "rotation", "halfvec", dims), default=0)


def _sizes(definition: Definition, rule: Rule, kind: ShortType, dims: Sequence[int] | None) -> list[int]:
    if dims is not None:
        for size in dims:
            if not 1 <= size <= definition.dims:
                raise DefinitionError(f"short dimensions {size} of {definition.dims}: choose 1 to {definition.dims}")
        return sorted({size for size in dims if size <= SHORT_LIMITS[kind]})
    if kind == "bit":
        # signs along principal axes say little: the leading ones carry most of the length
        halves: Iterable[int] = (definition.dims // 2, definition.dims) if rule == "prefix" else ()
        return [size for size in halves if BITS <= size <= SHORT_LIMITS[kind]]
    most = min(AXES, definition.dims) if rule == "rotation" else definition.dims - 1
    return [size for size in DIMS if size <= min(most, SHORT_LIMITS[kind])] or [min(max(1, most), SHORT_LIMITS[kind])]
