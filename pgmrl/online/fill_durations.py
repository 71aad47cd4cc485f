"""How long a reshape's backfill takes beside the indexes that are there, and the ways that take less.

A backfilled row that finds no room on its page is inserted into every index once more; of an HNSW index that is a
search of the graph with `ef_construction`, and its links written. How long such a search takes is measured on the index
itself, by reading only.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pgmrl import database
from pgmrl.database.table_state import table_state
from pgmrl.model.scan_settings import scan_settings
from pgmrl.model.shortening import Prefix, Rotation
from pgmrl.online import plan
from pgmrl.online.index_statements import create_statement, drop_statement
from pgmrl.online.preflight import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from pgmrl.database.index_states import IndexState
    from pgmrl.database.table_state import ShortState
    from pgmrl.online.reshape import Reshape

__all__ = ["fill_durations"]

ROW_SECONDS: Final = 75e-6  # to write a row anew: measured, about
AXIS_SECONDS: Final = 2.5e-9  # for each dimension of each axis of a rotation; 0.25 ms for 768 x 128
INSERT: Final = 2.0  # searches of the graph that inserting a row takes, about: its links are written, too
SEARCHES: Final = 5
WORTH: Final = 60.0  # seconds from which on a faster way is a warning


def fill_durations(connection: Connection, change: Reshape) -> Iterator[Finding]:
    """What the backfill takes with the old index in place and without it, and what needs no backfill; reads only.

    Args:
        connection: of the database.
        change: from `reshape`, of which a column is filled.

    """
    new, state = change.new, table_state(connection, change.new.schema, change.new.table)
    rows = plan.size_of(connection, new.owner).rows
    if state is None or change.same_columns or not rows:
        return
    indexed = [(short, index) for short in state.shorts.values() for index in short.indexes if index.valid]
    alone = rows * (ROW_SECONDS + _shortening_seconds(change))
    if not indexed:
        yield Finding("note", "duration", f"filling {rows:,} rows takes about {_shown(alone)}")
        return
    inserts = sum(_insert_seconds(connection, change, short, index) for short, index in indexed)
    names = ", ".join(index.name for _, index in indexed)
    beside = alone + rows * inserts
    message = (
        f"filling {rows:,} rows takes up to about {_shown(beside)} while {names} is there, which every row enters once "
        f"more, and about {_shown(alone)} with it dropped first; the build of the new index comes on top of either"
    )
    worth = beside > WORTH and beside > 2 * alone
    if worth:
        message += f". The ways that cost less: {'; '.join(_cheaper(change, [index for _, index in indexed]))}"
    yield Finding("warning" if worth else "note", "duration", message)


def _cheaper(change: Reshape, indexes: list[IndexState]) -> Iterator[str]:
    new, definition = change.new, change.new.definition
    if isinstance(definition.short.by, Prefix) and not change.moves_full:
        short = replace(definition.short, name=None)
        expression = replace(new, definition=replace(definition, short=short, has_column=False))
        statement = create_statement(expression, change.new_index, concurrently=True)
        yield f"a prefix needs no column and no backfill (stored=False in the model), only {statement}"
    drops = "; ".join(drop_statement(new.schema, index.name) for index in indexes)
    index = change.new_index
    yield (
        f"{drops}, then this command with --m {index.m} --ef-construction {index.ef_construction}: until the new index "
        "is built searches read the whole table"
    )


def _shortening_seconds(change: Reshape) -> float:
    definition = change.new.definition
    if not isinstance(definition.short.by, Rotation):
        return 0.0
    return AXIS_SECONDS * definition.dims * definition.short.dims


def _insert_seconds(connection: Connection, change: Reshape, short: ShortState, index: IndexState) -> float:
    """What one row takes to enter an index, by the time of searches for rows that are in it."""
    # whatever the path has before pgvector's schema
    definition = replace(short.definition, vector_schema=database.check_pgvector(connection))
    owner = database.relation_name(connection, change.new.owner)
    vector = definition.short_sql(short.full)
    keep = min(1000, index.index.ef_construction)
    settings = " || ".join(
        f"pg_catalog.set_config('{name}', {value}, true)" for name, value in scan_settings(f"'{keep}'").items()
    )
    times = []
    with database.snapshot(connection):
        for name in ("seqscan", "sort", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{name} = off")
        for number in range(SEARCHES + 1):
            query = f"SELECT {vector} FROM {owner} WHERE {vector} IS NOT NULL OFFSET {number} LIMIT 1"
            started = time.perf_counter()
            database.execute_plain(
                connection,
                f"SELECT count(*) FROM (SELECT FROM {owner} WHERE (SELECT {settings}) IS NOT NULL "
                f"ORDER BY {vector} {definition.short_operator} ({query}) LIMIT {keep}) AS nearest",
            )
            times.append(time.perf_counter() - started)
    return INSERT * sorted(times[1:])[SEARCHES // 2]  # the first one opens files


def _shown(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:,.0f} min"
