"""A migration as it will run: its steps with their SQL, the locks they take and how long, and the room they need."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from pgmrl.database.connection import execute_plain
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.model import ddl
from pgmrl.model.filter_index import FilterIndex, entry_bytes
from pgmrl.online import locks, steps
from pgmrl.online.index_statements import create_statement, drop_statement
from pgmrl.online.printed_scripts import index_script, rebuild_script
from pgmrl.online.validation import sample_statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.model.hnsw import Hnsw
    from pgmrl.online.index_statements import Build, ShortIndex
    from pgmrl.online.target import Target

__all__ = ["PlannedStep", "Size", "size_of"]

PAGE: Final = 8_192
PAGE_USED: Final = 8_152  # without the page's header and what HNSW keeps at its end
SORTED: Final = 100_000
"""Rows a second of a covering index's build: 68,820 rows of 128 half-precision dimensions took 0.5 s on a busy core."""
COUNTED: Final = 50_000_000  # bytes of a table without statistics that are read to count its rows
MOMENT: Final = "a moment; retried, never queued for long"
BATCH: Final = "a batch of rows at a time, about 0.2 s; rows that others hold are skipped"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a table is, as the catalogue estimates.

    Attributes:
        rows: as of the last ANALYZE.
        heap: bytes of the rows, without TOAST.
        table: bytes with TOAST, without indexes.
        total: bytes with everything.
    """

    rows: int
    heap: int
    table: int
    total: int


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan.

    Attributes:
        title: what it does.
        sql: what it runs; of a backfill the statement of each batch.
        lock: on the table, the strongest.
        held: how long.
        rewrites: whether the whole table is written anew under that lock.
        room: bytes it needs on disk, an estimate; those that are free again afterwards included.
    """

    title: str
    sql: tuple[str, ...]
    lock: str
    held: str
    rewrites: bool = False
    room: int = 0


def size_of(connection: Connection, owner: str) -> Size:
    """The size of a table, of all its partitions where it has some.

    Args:
        connection: of the database.
        owner: the table as SQL text.
    """
    query = text(
        "WITH parts AS (SELECT c.oid, c.reltuples FROM pg_class AS c "
        "WHERE c.oid = to_regclass(:owner) AND c.relkind = 'r' "
        "UNION SELECT p.relid, c.reltuples FROM pg_partition_tree(to_regclass(:owner)) AS p "
        "JOIN pg_class AS c ON c.oid = p.relid WHERE p.isleaf) "
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint, coalesce(sum(pg_relation_size(oid)), 0)::bigint, "
        "coalesce(sum(pg_table_size(oid)), 0)::bigint, coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM parts"
    )
    rows, heap, table, total = tuple[int, ...](catalogue_result(connection, query, {"owner": owner}).one())
    if rows == 0 and heap > 0:  # never analyzed
        share = min(100.0, max(0.01, 100 * COUNTED / heap))
        sample = f"SELECT count(*) FROM {relation_name(connection, owner)} TABLESAMPLE SYSTEM ({share:.4f})"
        counted = execute_plain(connection, sample).scalar_one()
        rows = round(counted * 100 / share)
    return Size(rows, heap, table, total)


# -- how much room -------------------------------------------------------------------------------------------------


def index_bytes(target: Target, index: Hnsw, rows: int) -> int:
    """The size an HNSW index on a short column will have.

    From pgvector's page layout (src/hnsw.h): an element is 72 bytes and the vector, its neighbours at the lowest level
    4 bytes and 6 for each of twice m; each has an item pointer, and the two stay on one page.
    """
    element = _aligned(72 + target.definition.short_bytes) + 4
    neighbours = _aligned(4 + 6 * 2 * index.m) + 4
    per_page = max(1, PAGE_USED // (element + neighbours))
    return int(rows / per_page * PAGE * (1 + 0.5 / index.m))


def filter_index_bytes(target: Target, filter_index: FilterIndex, rows: int) -> int:
    """The size a covering index will have: entries and their item pointers, on pages that are filled to 90 %."""
    widths = [8] * len({*filter_index.columns, *filter_index.include})
    entry = entry_bytes(widths, target.definition.short_bytes) + 4
    return int(rows / max(1, int(0.9 * PAGE_USED) // entry) * PAGE)


def graph_bytes(target: Target, index: Hnsw, rows: int) -> int:
    """The memory in which the graph is built; past `maintenance_work_mem` pgvector goes on many times slower.

    Fitted to what pgvector 0.8 says of itself: "no longer fits into maintenance_work_mem after N tuples".
    """
    return rows * (target.definition.short_bytes + 16 * 2 * index.m + 190)


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


# -- the steps -----------------------------------------------------------------------------------------------------


def add(target: Target, *, online: bool, size: Size) -> PlannedStep:
    """Add the short column."""
    vectors = target.definition.short_bytes * size.rows
    if online:
        sql = (locks.lock_table(target.owner), *steps.add_online(target))
        return PlannedStep(f"add {target.title}, empty, and its trigger", sql, "ACCESS EXCLUSIVE", MOMENT)
    prefix = ddl.rule_of(target.definition) == "prefix"
    held = (
        "until the migration's transaction ends, the " + ("rewrite" if prefix else "UPDATE of every row") + " included"
    )
    sql = (locks.lock_table(target.owner), *steps.add_in_place(target))
    room = size.table + vectors if prefix else size.heap + vectors
    return PlannedStep(f"add {target.title}, filled", sql, "ACCESS EXCLUSIVE", held, rewrites=True, room=room)


def fill(target: Target, size: Size, statement: str) -> PlannedStep:
    """Backfill the short column."""
    room = size.heap + target.definition.short_bytes * size.rows  # every row is written once more
    return PlannedStep(f"backfill {target.title}", (statement,), "ROW EXCLUSIVE", BATCH, room=room)


def fill_full(target: Target, size: Size, statement: str) -> PlannedStep:
    """Copy the full vectors into their new column."""
    full_bytes = target.definition.dims * (2 if target.definition.full == "halfvec" else 4) + 8
    room = size.heap + full_bytes * size.rows
    return PlannedStep(f"backfill {target.table}.{target.full}", (statement,), "ROW EXCLUSIVE", BATCH, room=room)


def index(target: Target, short_index: ShortIndex, build: Build, size: Size) -> PlannedStep:
    """Build an index."""
    title = f"build {_index_title(target, short_index)}"
    room = _index_room(target, short_index, size.rows)
    lasts = f", about {ceil(size.rows / SORTED)} s" if isinstance(short_index, FilterIndex) else ""
    if build.concurrently:
        sql = tuple(index_script(target, short_index, build))
        held = f"the whole build{lasts}; reading and writing go on. It waits for transactions that are older than it"
        return PlannedStep(title, sql, "SHARE UPDATE EXCLUSIVE", held, room=room)
    sql = (create_statement(target, short_index, concurrently=False),)
    return PlannedStep(title, sql, "SHARE", f"the whole build{lasts}: reading goes on, writing waits", room=room)


def _index_title(target: Target, short_index: ShortIndex) -> str:
    if isinstance(short_index, FilterIndex):
        return f"the index on {', '.join(short_index.columns)} that includes {target.title}"
    return f"the HNSW index on {target.title}"


def _index_room(target: Target, short_index: ShortIndex, rows: int) -> int:
    if isinstance(short_index, FilterIndex):
        return filter_index_bytes(target, short_index, rows)
    return index_bytes(target, short_index, rows)


def rebuild(target: Target, short_index: ShortIndex, build: Build, size: Size) -> PlannedStep:
    """Replace an index."""
    sql = tuple(rebuild_script(target, short_index, build))
    held = "the whole build; reading and writing go on, and the old index serves"
    room = _index_room(target, short_index, size.rows)
    return PlannedStep(f"rebuild {_index_title(target, short_index)}", sql, "SHARE UPDATE EXCLUSIVE", held, room=room)


def validate(target: Target) -> PlannedStep:
    """Check that no row is left."""
    sql = (f"SELECT count(*) FROM {target.owner} WHERE {target.missing}", sample_statement(target))
    return PlannedStep(f"check {target.title}", sql, "ACCESS SHARE", "one reading of the table")


def compare(owner: str) -> PlannedStep:
    """Compare all rows before a column is dropped."""
    return PlannedStep(
        f"compare every row of {owner}", (), "ACCESS SHARE", "one reading of the table, in batches by key"
    )


def drop_index(target: Target, name: str) -> PlannedStep:
    """Drop an index."""
    sql = (drop_statement(target.schema, name),)
    held = "until transactions that may use it are over; reading and writing go on"
    return PlannedStep(f"drop the index {name}", sql, "SHARE UPDATE EXCLUSIVE", held)


def drop(schema: str | None, table: str, short: str, owner: str) -> PlannedStep:
    """Drop a short column."""
    sql = (locks.lock_table(owner), *steps.drop_short(schema, table, short))
    return PlannedStep(f"drop {table}.{short} and its trigger", sql, "ACCESS EXCLUSIVE", MOMENT)


def statements(title: str, owner: str, sql: Sequence[str]) -> PlannedStep:
    """A short transaction of catalogue changes."""
    return PlannedStep(title, (locks.lock_table(owner), *sql), "ACCESS EXCLUSIVE", MOMENT)


def as_json(step: PlannedStep) -> dict[str, Any]:
    """For machines."""
    return {
        "title": step.title,
        "sql": list(step.sql),
        "lock": step.lock,
        "held": step.held,
        "rewrites": step.rewrites,
        "room_bytes": step.room,
    }
