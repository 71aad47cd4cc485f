"""The first short column of a column in use: beside full vectors that have none, as where another model fills them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from pgmrl.database.extension import hidden_schema
from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Prefix, Short
from pgmrl.online import backfill, index_builds, locks, preconditions, steps
from pgmrl.online.target import Target
from pgmrl.online.validation import validate

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from pgmrl.database.index_states import BuildProgress
    from pgmrl.database.table_state import ColumnState, ShortState
    from pgmrl.model.metrics import FullType
    from pgmrl.online.backfill import Job
    from pgmrl.online.index_statements import ShortIndex

__all__ = ["FirstShort", "add_first_short", "complete_first_short", "first_short"]


@dataclass(frozen=True, slots=True)
class FirstShort:
    """A short column, and what is built on it.

    Attributes:
        target: the short column.
        kept_by: as of `ShortState`; None where it is not there yet.
        indexes: those it is to have.
        indexed: whether it has a valid HNSW index.
        model: the other column's short vector, after which it is made; None where there is no other.
    """

    target: Target
    kept_by: str | None
    indexes: tuple[ShortIndex, ...]
    indexed: bool
    model: ShortState | None


def first_short(
    connection: Connection,
    table: str,
    full: str,
    *,
    schema: str | None = None,
    like: str | None = None,
    dims: int | None = None,
) -> FirstShort | None:
    """The short column of a column of vectors: the one that is there, or the one that it is to have.

    It is a prefix; what is not said is as in the table's other column of vectors: dimensions (where the full vector
    has as many), type, metric, the parameters of its indexes, the covering indexes of its filters.

    Args:
        connection: of the database.
        table: the table.
        full: of the full vectors.
        schema: of the table.
        like: the other column; where None, the only other one that has short vectors.
        dims: short dimensions.

    Returns:
        None where neither is there: no dimensions are given, and no other column has any.

    Raises:
        MigrationError: there is no such table or column, or it has several short columns.
        DefinitionError: dimensions that cannot be.
    """
    state = preconditions.existing_table(connection, schema, table)
    column = state.columns.get(full)
    if column is None or column.dims is None:
        raise MigrationError(f"table {table} has no column {full} of vectors with dimensions")
    others = [short for short in state.shorts.values() if short.full != full and like in {None, short.full}]
    model = others[0] if len(others) == 1 else None
    own = [short for short in state.shorts.values() if short.full == full]
    if len(own) > 1:
        raise MigrationError(f"{table}.{full} has several short columns ({', '.join(short.short for short in own)})")
    if own:
        (short,) = own
        definition, kept_by = short.definition, short.kept_by
    elif dims is None and model is None:
        return None
    else:
        definition, kept_by = _definition(column, dims, model, hidden_schema(connection)), None
    indexed = any(index.valid for short in own for index in short.indexes)
    return FirstShort(Target(table, full, definition, schema), kept_by, _indexes(model), indexed, model)


def _definition(
    column: ColumnState, dims: int | None, model: ShortState | None, vector_schema: str | None
) -> Definition:
    full_dims, kind = int(column.dims or 0), cast("FullType", column.kind)
    if model is None:
        return Definition.of(full_dims, Short(int(dims or 0)), full=kind, vector_schema=vector_schema)
    named = model.definition.short
    short = replace(named, dims=dims or min(named.dims, full_dims), by=Prefix(), name=None)
    return Definition.of(full_dims, short, model.definition.metric.name, kind, vector_schema)


def _indexes(model: ShortState | None) -> tuple[ShortIndex, ...]:
    if model is None or not model.indexes:
        return (Hnsw(),)
    hnsw = {state.index.predicate: state.index for state in model.indexes}
    return *hnsw.values(), *(state.index for state in model.filter_indexes)


def add_first_short(connection: Connection, first: FirstShort) -> None:
    """Add the short column, empty, and the triggers that keep it in step; nothing where it is there.

    Args:
        connection: in autocommit.
        first: from `first_short`.

    Raises:
        MigrationError: a column of another type in the way, or missing rights.
        Locked: others hold the table.
    """
    target = first.target
    if first.kept_by == "index" or preconditions.check_add(connection, target, by_trigger=True):
        return
    locks.in_transaction(connection, [locks.lock_table(target.owner), *steps.add_online(target)], target.owner)


def complete_first_short(
    engine: Engine,
    first: FirstShort,
    *,
    progress: Callable[[Job | BuildProgress], None] | None = None,
    stop_event: threading.Event | None = None,
) -> bool:
    """Fill what is missing of the short column, build its indexes concurrently, and check it.

    Args:
        engine: of the database.
        first: from `first_short`, with its column added.
        progress: called as the backfill and the builds get on.
        stop_event: set it to stop after the batch at hand.

    Returns:
        Whether it is complete; False where it was stopped.

    Raises:
        MigrationError: something is in the way; what was done stays, and the next run goes on.
    """
    target = first.target
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if first.kept_by in {None, "trigger"}:
            fill = backfill.short_fill(connection, target)
            if not backfill.backfill(engine, fill, progress=progress, stop_event=stop_event).finished:
                return False
        for index in () if first.indexed else first.indexes:
            index_builds.build(connection, target, index, progress=progress)
        if first.kept_by != "index":
            validate(connection, target)
    return True
