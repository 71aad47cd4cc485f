"""pgmrl's plugin for `alembic revision --autogenerate`: what it sees, and what it puts in place of Alembic's own.

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "pgmrl"])

Where pgmrl is installed without its entry point, `env.py` sets it up:

    import pgmrl.alembic.plugin
    from alembic.runtime.plugins import Plugin

    Plugin.setup_plugin_from_module(pgmrl.alembic.plugin, "pgmrl")

With `pgmrl_online=True` in `context.configure` tables that exist are changed while they are in use.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from alembic.operations import ops
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Column, Table, text
from sqlalchemy.types import NullType

import pgmrl_alembic
from pgmrl import database
from pgmrl.alembic import implementations  # noqa: F401 - registers how the operations are done
from pgmrl.alembic.diff import WantedFull, WantedShort, WantedTable, diff
from pgmrl.alembic.functions import function_changes
from pgmrl.alembic.modify import Seen, attachments, column_named, repair_types, with_own, without_shorts
from pgmrl.alembic.operations import (
    BackfillShort,
    DropSide,
    InstallRotation,
    KeepSide,
    OneWay,
    PgmrlOperation,
    UpgradePgmrl,
)
from pgmrl.alembic.render import NewRotation, with_types
from pgmrl.alembic.requirements import WantedSide, commits, needs_schema, rotations_used, side_changes, side_repairs
from pgmrl.database.table_state import TableState, table_state
from pgmrl.errors import MigrationError, RotationError
from pgmrl.functions.installed import installed_markers
from pgmrl.model.columns import INFO_KEY, Attachment, Matryoshka

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import MigrateOperation
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult

    from pgmrl.model.rotation import Rotation

__all__ = ["compare", "leave_short", "see_table", "setup"]

log = logging.getLogger("alembic.pgmrl")

NEEDED: Final = (1, 20, 1)
FOLDER: Final = "rotations"  # beside the application's migrations


def _require_alembic(version: str) -> None:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < NEEDED:
        raise MigrationError(
            f"Alembic {version} is too old for pgmrl's autogenerate plugin: pip install 'alembic>=1.20.1', "
            "or take pgmrl out of autogenerate_plugins and write its operations by hand"
        )


_require_alembic(metadata.version("alembic"))


def setup(plugin: Plugin) -> None:
    """Register the comparisons; for `Plugin.setup_plugin_from_module` in `env.py`."""
    pgmrl_alembic.setup(plugin)


# -- what Alembic looks at -----------------------------------------------------------------------------------------


_seen: WeakKeyDictionary[AutogenContext, list[Seen]] = WeakKeyDictionary()


def see_table(
    context: AutogenContext,
    _modify: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    there: Table | None,
    model: Table | None,
) -> PriorityDispatchResult:
    """Remember a table that Alembic compares: this is where its filters have been asked."""
    _seen.setdefault(context, []).append(Seen(schema, str(name), there, model))
    return _go_on()


def leave_short(
    _context: AutogenContext,
    _alter: ops.AlterColumnOp,
    _schema: str | None,
    _table: str,
    name: str,
    _there: Column[Any],
    model: Column[Any],
) -> PriorityDispatchResult:
    """Do not compare what generates a short column: another road to the same values is no difference."""
    from alembic.util import PriorityDispatchResult  # noqa: PLC0415

    if any(str(attachment.short) == str(name) for attachment in attachments(model.table)):
        return PriorityDispatchResult.STOP
    return _go_on()


def _go_on() -> PriorityDispatchResult:
    from alembic.util import PriorityDispatchResult  # noqa: PLC0415

    return PriorityDispatchResult.CONTINUE


def compare(context: AutogenContext, upgrade: ops.UpgradeOps) -> PriorityDispatchResult:
    """Put pgmrl's operations in place of what Alembic would do with short columns.

    Raises:
        RotationError: a rotation is pinned whose axes are nowhere.
        MigrationError: a table in use has no primary key to backfill it by.
    """
    context.opts = {**context.opts, "render_item": with_types(context.opts.get("render_item"))}
    seen = [one for one in _seen.pop(context, []) if not _own(one.schema, one.model)]
    upgrade.ops = [op for op in upgrade.ops if not _own(getattr(op, "schema", None), None) or _modelled(context, op)]
    _Comparison(context, seen).run(upgrade)
    return _go_on()


def _own(schema: str | None, model: Table | None) -> bool:
    """Whether it is pgmrl's own table, which `include_schemas=True` shows."""
    return schema == database.SCHEMA and model is None


def _modelled(context: AutogenContext, op: MigrateOperation) -> bool:
    return f"{database.SCHEMA}.{getattr(op, 'table_name', '')}" in context.table_key_to_table


# -- one run -------------------------------------------------------------------------------------------------------


class _Comparison:
    """One run of autogenerate on one database."""

    def __init__(self, context: AutogenContext, seen: list[Seen]) -> None:
        if context.connection is None:
            raise MigrationError("autogenerate needs a connection: configure the context with one")
        self.context = context
        self.connection = context.connection
        self.online = bool(context.opts.get("pgmrl_online"))
        self.seen = seen
        query = text("SELECT count(*) = 1 FROM pg_extension WHERE extname = 'vector'")
        self.installed = bool(self.connection.execute(query).scalar_one())

    def run(self, upgrade: ops.UpgradeOps) -> None:
        """Change the list of operations in place."""
        for one in self.seen:
            one.state = self.state(one)
            wanted = None if one.model is None else self.wanted(one.model, one.there)
            one.changes = diff(one.said_schema, one.name, wanted, one.state, online=self.online)
            _check_key(one)
            repair_types(one)
        kept, dropped, repaired = self.sides()
        first, last = self.apart(kept, dropped)
        body = self.merged(self.sides_first(upgrade.ops, dropped))
        gone, functions = function_changes(self.seen, installed_markers(self.connection), self.default_schema)
        done = [*gone, *first, *dropped, *body, *kept, *repaired, *last, *functions]
        _warn_of_commits(done)
        upgrade.ops = [*self.needs(done), *done]
        for op in upgrade.ops:
            if isinstance(op, PgmrlOperation) and not (isinstance(op, OneWay) and op.back):
                inner = op.operation if isinstance(op, OneWay) else op
                log.info("Detected %s %r", op.to_diff_tuple()[0], getattr(inner, "table", ""))

    # -- the two sides of the comparison ------------------------------------------------------------------------

    def state(self, one: Seen) -> TableState | None:
        if one.there is None:
            return None
        if not self.installed:  # no column can be of its types
            return TableState(one.schema or "", one.name, False, {}, {}, {}, (), ())
        vectors = any(isinstance(column.type, VECTOR | HALFVEC | NullType) for column in one.there.columns)
        if not vectors and (one.model is None or not list(attachments(one.model))):
            return None
        return table_state(self.connection, one.schema, one.name)

    def wanted(self, model: Table, there: Table | None) -> WantedTable:
        fulls, shorts = [], []
        for attachment in attachments(model):
            definition, type_ = attachment.definition, column_named(model, attachment.full).type
            storage = type_.storage if isinstance(type_, Matryoshka) else None
            fulls.append(WantedFull(attachment.full, f"{definition.full}({definition.dims})", storage))
            if attachment.short is not None:
                name = attachment.index.index_name(model.name, attachment.short)
                has_index = any(index.name == name for index in model.indexes)
                shorts.append(WantedShort(attachment.full, definition, attachment.index if has_index else None))
        names = frozenset(str(column.name) for column in model.columns)
        indexed = frozenset() if there is None else frozenset(_named(there, "index"))
        return WantedTable(names, tuple(fulls), tuple(shorts), frozenset(self.hidden(model, there)), indexed)

    def hidden(self, model: Table, there: Table | None) -> Iterator[str]:
        """Columns and indexes that `include_name` or `include_object` leave out."""
        parents: Any = {"table_name": model.name, "schema_name": model.schema}
        for kind in ("column", "index"):
            declared, found = _named(model, kind), {} if there is None else _named(there, kind)
            for name in declared.keys() | found.keys():
                item, other = declared.get(name), found.get(name)
                named = other is None or self.context.run_name_filters(name, kind, dict(parents))
                reflected = item is None
                one, compared = (other, None) if reflected else (item, other)
                if not named or not self.context.run_object_filters(one, name, kind, reflected, compared):  # type: ignore[arg-type]
                    yield name

    # -- side tables --------------------------------------------------------------------------------------------

    def sides(self) -> tuple[list[KeepSide], list[DropSide], list[OneWay]]:
        kept: list[KeepSide] = []
        dropped: list[DropSide] = []
        repaired: list[OneWay] = []
        for one in self.seen:
            there = one.state.sides if one.state is not None else ()
            keys = [] if one.there is None else [str(key.name) for key in one.there.primary_key.columns]
            wanted = [] if one.model is None else list(self.wanted_sides(one.model))
            new, old = side_changes(one.said_schema, one.name, wanted, there, keys)
            kept += new
            dropped += old
            repaired += side_repairs(one.said_schema, one.name, wanted, there)
        return kept, dropped, repaired

    def wanted_sides(self, model: Table) -> Iterator[WantedSide]:
        compared = {one.model for one in self.seen if one.model is not None}
        for column in model.columns:
            found = column.info.get(INFO_KEY)
            side = model.metadata.tables.get(found.side) if isinstance(found, Attachment) and found.side else None
            if side is not None and side in compared:
                keys = tuple(str(key.name) for key in model.primary_key.columns)
                yield WantedSide(str(side.name), keys, str(column.name))

    def apart(
        self, kept: Sequence[KeepSide], dropped: Sequence[DropSide]
    ) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
        """The indexes of side tables: built when the copy is there, in both directions."""
        first: list[MigrateOperation] = []
        last: list[MigrateOperation] = []
        new = {self.place(op.schema, op.side): self.place(op.schema, op.table) for op in kept}
        old = {self.place(op.schema, op.side) for op in dropped}
        there = {one.key for one in self.seen if one.there is not None}
        for one in self.seen:
            place, changes = one.key, one.changes
            if changes is not None and place in new and one.there is None:
                last += [_concurrently(op) if new[place] in there else op for op in changes.indexes]
                changes.indexes = []
                changes.repeated = new[place] in there
            if changes is not None and place in old and one.model is None:
                first += [_concurrently(op) for op in changes.restores]
                changes.restores = []
        return first, last

    def sides_first(self, own: Sequence[MigrateOperation], dropped: Sequence[DropSide]) -> list[MigrateOperation]:
        """Alembic drops tables in any order; a side table refers to its owner and goes before it."""
        sides = {self.place(op.schema, op.side) for op in dropped}
        gone = {one.key for one in self.seen if one.model is None and one.key in sides}
        return sorted(own, key=lambda op: self.key(op) not in gone)

    # -- Alembic's own operations -------------------------------------------------------------------------------

    def merged(self, own: Sequence[MigrateOperation]) -> list[MigrateOperation]:
        """Alembic's operations without those on short columns, and pgmrl's around them."""
        waiting = {one.key: one for one in self.seen}
        result: list[MigrateOperation] = []
        for op in own:
            key = self.key(op)
            one = waiting.get(key) if key is not None else None
            done = without_shorts(op, next((seen for seen in self.seen if seen.key == key), None))
            if one is None or one.changes is None:
                result += done
                continue
            if isinstance(op, ops.ModifyTableOps) and one.model is not None and one.there is not None:
                done = with_own(op, one)
            changes = one.changes
            del waiting[one.key]
            result += [*changes.restores, *changes.before, *done]
            result += [*changes.after, *changes.indexes, *changes.drops]
        for one in waiting.values():
            if one.changes is not None:
                result += [*one.changes.restores, *one.changes.before, *with_own(None, one)]
                result += [*one.changes.after, *one.changes.indexes, *one.changes.drops]
        return result

    def key(self, op: MigrateOperation) -> tuple[str | None, str] | None:
        if not isinstance(op, ops.ModifyTableOps | ops.CreateTableOp | ops.DropTableOp):
            return None
        return self.place(op.schema, op.table_name)

    def place(self, schema: str | None, table: str) -> tuple[str | None, str]:
        """A table as Alembic names it: without a schema in the default one."""
        return (None if schema == self.default_schema else schema, str(table))

    @property
    def default_schema(self) -> str:
        return self.connection.dialect.default_schema_name or "public"

    # -- what comes first ---------------------------------------------------------------------------------------

    def needs(self, done: Sequence[MigrateOperation]) -> list[MigrateOperation]:
        """pgvector, pgmrl's schema and rotations, as far as they are not there."""
        first: list[MigrateOperation] = []
        if not self.installed and any(one.changes is not None and one.changes.all for one in self.seen):
            first.append(OneWay(ops.ExecuteSQLOp("CREATE EXTENSION IF NOT EXISTS vector")))
        if needs_schema(done):
            installed = database.installed_revision(self.connection)
            if installed != database.NEWEST_REVISION:
                first.append(UpgradePgmrl(database.NEWEST_REVISION, installed))
        rotations = rotations_used(done)
        there = database.installed_rotations(self.connection) if rotations else []
        return [*first, *(self.install(rotation) for rotation in rotations if rotation.id not in there)]

    def install(self, rotation: Rotation) -> MigrateOperation:
        script = self.context.migration_context.script
        path = f"{FOLDER}/{rotation.id}.npy"
        if script is not None and (Path(script.dir) / path).exists():
            return InstallRotation(path)
        if rotation.axes is None:
            raise RotationError(
                f"rotation {rotation.id} is not in this database, and the model has only its id: say "
                f"Rotation.load(<file that `pgmrl fit-rotation` wrote>) in the model, or put that file to {path} "
                "beside the migrations"
            )
        if script is None:
            raise RotationError(f"rotation {rotation.id} is not in this database: install it with `pgmrl fit-rotation`")
        return NewRotation(path, rotation, Path(script.dir) / FOLDER)


def _check_key(one: Seen) -> None:
    """Say now that a table cannot be filled in batches, and not in the middle of its migration."""
    if one.there is None or one.changes is None or len(one.there.primary_key.columns):
        return
    if any(
        isinstance(op, OneWay) and not op.back and isinstance(op.operation, BackfillShort) for op in one.changes.all
    ):
        raise MigrationError(
            f"table {one.name} has no primary key, by which a backfill goes: give it one, or add the short column "
            "without pgmrl_online"
        )


def _warn_of_commits(done: Sequence[MigrateOperation]) -> None:
    """A migration that commits before its end is run again from its start after a failure."""
    last = max((n for n, op in enumerate(done) if commits(op)), default=0)
    inner = [one for op in done[:last] for one in (op.ops if isinstance(op, ops.OpContainer) else [op])]
    told = [type(op).__name__ for op in inner if type(op).__module__ == ops.__name__ and not _repeatable(op)]
    if told:
        log.warning(
            "this migration commits before its end (concurrent indexes, backfills). Should it fail after that, %s "
            "would run a second time: give what is not pgmrl's a revision of its own",
            ", ".join(dict.fromkeys(told)),
        )


def _repeatable(op: MigrateOperation) -> bool:
    return isinstance(op, ops.AlterColumnOp) or bool(getattr(op, "if_not_exists", False))


def _named(table: Table, kind: str) -> dict[str, Any]:
    items: Any = table.columns if kind == "column" else table.indexes
    return {str(item.name): item for item in items if item.name is not None}


def _concurrently(op: MigrateOperation) -> MigrateOperation:
    if isinstance(op, OneWay):
        index: Any = op.operation
        return replace(op, operation=replace(index, build=replace(index.build, concurrently=True)))
    return op
