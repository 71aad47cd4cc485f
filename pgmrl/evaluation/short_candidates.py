"""Short vectors to try without a column: the column's own first, then other dimensions and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgmrl import database
from pgmrl.errors import MeasureError
from pgmrl.model.argument_types import argument_list, whole_number
from pgmrl.model.columns import attachment_of
from pgmrl.model.shortening import SHORT_LIMITS, Definition, Prefix, Rotation, Short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.model.shortening import Shortening

__all__ = ["ShortCandidate", "short_candidates"]

PREFIX: Final = "prefix"
SMALLEST: Final = 16  # dimensions to try unless said otherwise


@dataclass(frozen=True, slots=True)
class ShortCandidate:
    """A short vector that is computed.

    Attributes:
        by: `prefix`, or a rotation's id.
        definition: of full and short vector.

    """

    by: str
    definition: Definition

    @property
    def order(self) -> tuple[bool, str, int]:
        """In a table: leading dimensions first, the fewest first."""
        return self.by != PREFIX, self.by, self.definition.short.dims


def short_candidates(
    connection: Connection, column: Any, dims: Sequence[int] | None, rotation: Rotation | None
) -> list[ShortCandidate]:
    """What to try.

    Args:
        connection: of the database, for the axes of the column's rotation.
        column: the Matryoshka column.
        dims: dimensions; None for powers of two and those of the column.
        rotation: one more rule to try them by.

    Returns:
        The column's own short vector first, if it has one; the others by rule and dimensions.

    Raises:
        MeasureError: dimensions out of range, or none of them within the rotation's axes.
        RotationError: the column's rotation is not installed, or `rotation` has no axes or other dimensions.

    """
    whole = attachment_of(column).definition
    own: Shortening | None = whole.short.by if whole.learned else None
    if isinstance(own, Rotation):
        own = database.with_axes(connection, own)
    rules: dict[str, Shortening] = {_named(rule): rule for rule in (Prefix(), rotation, own) if rule is not None}
    sizes = _sizes(whole, dims)
    if rotation is not None and sizes and min(sizes) > len(rotation.required_axes()):
        raise MeasureError(f"rotation {rotation.id} has {len(rotation.required_axes())} axes: try so many dimensions")
    tried = {} if own is None else {(_named(own), whole.short.dims): own}
    for name, rule in rules.items():
        most = len(rule.required_axes()) if isinstance(rule, Rotation) else whole.dims
        tried |= {(name, size): rule for size in sizes if size <= most}
    return [ShortCandidate(name, _shortened(whole, rule, size)) for (name, size), rule in tried.items()]


def _sizes(whole: Definition, dims: Sequence[int] | None) -> list[int]:
    limit = min(whole.dims, SHORT_LIMITS[whole.short.type])
    if dims is None:
        powers = [2**power for power in range(limit.bit_length()) if SMALLEST <= 2**power < limit]
        return sorted({*powers, *([whole.short.dims] if whole.learned else [])})
    listed = argument_list("dims", dims, MeasureError, "a list of dimensions, such as [64, 128]")
    sizes = [whole_number("dims", size, MeasureError) for size in listed]
    for size in sizes:
        if not 1 <= size <= limit:
            raise MeasureError(f"{size} dimensions to try: the column has {whole.dims}, give 1 to {limit}")
    return sorted(set(sizes))


def _shortened(whole: Definition, rule: Shortening, size: int) -> Definition:
    return Definition(whole.dims, Short(size, rule, whole.short.type), whole.metric, whole.full, whole.vector_schema)


def _named(rule: Shortening) -> str:
    return str(rule.id) if isinstance(rule, Rotation) else PREFIX
