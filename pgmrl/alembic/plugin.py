"""pgmrl's plugin for `alembic revision --autogenerate`: what Alembic calls. The rules are in `autogenerate`.

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "pgmrl"])

With `pgmrl_online=True` in `context.configure` tables that exist are changed while they are in use. The package
`pgmrl_alembic` registers these functions, as Alembic's entry point or in `env.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pgmrl import database
from pgmrl.alembic import implementations  # noqa: F401 - registers how the operations are done
from pgmrl.alembic.autogenerate.compared_tables import ComparedTable, attachments
from pgmrl.alembic.autogenerate.comparison import Comparison
from pgmrl.alembic.autogenerate.rendering import with_types
from pgmrl.alembic.older_alembic import ALEMBIC, require_plugins

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import MigrateOperation, ops
    from alembic.util import PriorityDispatchResult
    from sqlalchemy import Column, Table

__all__ = ["compare", "compare_table", "skip_short_default"]

require_plugins(ALEMBIC)

_compared: WeakKeyDictionary[AutogenContext, list[ComparedTable]] = WeakKeyDictionary()


def compare_table(
    context: AutogenContext,
    _modify: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    reflected: Table | None,
    model: Table | None,
) -> PriorityDispatchResult:
    """Remember a table that Alembic compares: its filters have let it through."""
    _compared.setdefault(context, []).append(ComparedTable(schema, str(name), reflected, model))
    return _result("CONTINUE")


def skip_short_default(
    _context: AutogenContext,
    _alter: ops.AlterColumnOp,
    _schema: str | None,
    _table: str,
    name: str,
    _reflected: Column[Any],
    model: Column[Any],
) -> PriorityDispatchResult:
    """Do not compare what generates a short column: a trigger that writes the same values is no difference."""
    is_short = any(str(attachment.short) == str(name) for attachment in attachments(model.table))
    return _result("STOP" if is_short else "CONTINUE")


def compare(context: AutogenContext, upgrade: ops.UpgradeOps) -> PriorityDispatchResult:
    """Put pgmrl's operations in place of what Alembic would do with short columns.

    Raises:
        RotationError: a rotation is pinned whose axes are nowhere.
        MigrationError: a table in use has no primary key to backfill it by.
    """
    context.opts = {**context.opts, "render_item": with_types(context.opts.get("render_item"))}
    tables = [table for table in _compared.pop(context, []) if not _is_own(table.schema, table.model)]
    upgrade.ops = [
        operation
        for operation in upgrade.ops
        if not _is_own(getattr(operation, "schema", None), None) or _is_modelled(context, operation)
    ]
    Comparison(context, tables).run(upgrade)
    return _result("CONTINUE")


def _result(name: str) -> PriorityDispatchResult:
    from alembic.util import PriorityDispatchResult  # noqa: PLC0415 - an older Alembic has none; see `require_plugins`

    return PriorityDispatchResult[name]


def _is_own(schema: str | None, model: Table | None) -> bool:
    """Whether it is pgmrl's own table, which `include_schemas=True` shows."""
    return schema == database.SCHEMA and model is None


def _is_modelled(context: AutogenContext, operation: MigrateOperation) -> bool:
    return f"{database.SCHEMA}.{getattr(operation, 'table_name', '')}" in context.table_key_to_table
