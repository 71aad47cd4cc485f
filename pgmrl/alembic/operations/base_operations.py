"""What the operations have in common, and the wrapper of one that is done in one direction only."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TypeVar

from alembic.operations import MigrateOperation, Operations

from pgmrl.errors import DefinitionError

__all__ = ["OneWay", "PgmrlOperation", "stated"]

Previous = TypeVar("Previous")


class PgmrlOperation(MigrateOperation):
    """The base of all of them."""

    def to_diff_tuple(self) -> tuple[str, MigrateOperation]:
        """For `alembic check` and `compare_metadata`."""
        return (re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower(), self)


def stated(previous: Previous | None, call: str) -> Previous:
    """What a downgrade brings back.

    Args:
        previous: as the operation says.
        call: the operation as it is written, for the message.

    Raises:
        DefinitionError: the operation does not say it.
    """
    if previous is None:
        raise DefinitionError(f"{call} cannot be reversed: expected `previous`, got None")
    return previous


@dataclass(frozen=True)
class OneWay(PgmrlOperation):
    """An operation that the upgrade does and the downgrade does not, or the other way round.

    A table's index, for example, goes with its column: nothing has to drop it, but the downgrade has to build it.

    Attributes:
        operation: what is done.
        downgrade: it is done by the downgrade only.

    """

    operation: MigrateOperation
    downgrade: bool = False

    def reverse(self) -> OneWay:
        """The same in the other direction."""
        return replace(self, downgrade=not self.downgrade)

    def to_diff_tuple(self) -> tuple[str, MigrateOperation]:
        """The operation's own."""
        diff: tuple[str, MigrateOperation] = self.operation.to_diff_tuple()
        return diff


@Operations.implementation_for(OneWay)
def _one_way(operations: Operations, one_way: OneWay) -> None:
    if not one_way.downgrade:
        operations.invoke(one_way.operation)
