"""What was renamed: triggers that go by a name which is another column's, or no column's, by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.database.side_triggers import broken_copy
from pgmrl.database.table_state import table_state
from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.database.table_state import TableState
    from pgmrl.doctor.check_context import CheckContext

__all__ = ["renamed"]

TABLES_SQL: Final = """SELECT DISTINCT n.nspname, c.relname
FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
JOIN pg_class AS c ON c.oid = g.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.proname LIKE 'z_\\_pgmrl\\_%' AND NOT g.tgisinternal AND g.tgparentid = 0
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1, 2"""


@database_check("renamed", "critical", "triggers that go by the old name of a column or table that was renamed")
def renamed(context: CheckContext) -> Iterator[Problem]:
    """Triggers whose function names something that was renamed."""
    for row in context.rows(TABLES_SQL):
        state = table_state(context.connection, row.nspname, row.relname)
        if state is not None and context.includes(state.schema, state.table):
            yield from _short_columns(state)
            yield from _side_tables(context, state)


def _short_columns(state: TableState) -> Iterator[Problem]:
    table = f"{state.schema}.{state.table}"
    for trigger in state.sync_triggers.values():
        if not trigger.renamed or trigger.installed_names is None:
            continue
        names = " and ".join(trigger.installed_names)
        misread = trigger.misread(state.columns)
        consequence = (
            "one of these names is another column's now, so short vectors are computed from the wrong vectors"
            if misread
            else "every write looks the names up, which takes longer"
        )
        yield Problem(
            f"the trigger of {trigger.short} was installed for {names}, which are {trigger.full} and {trigger.short} "
            f"now: {consequence}",
            f"`pgmrl backfill {table}.{trigger.full} --repair` installs it anew and compares every row.",
            TABLES_SQL,
            {"function": trigger.name, "installed_for": list(trigger.installed_names)},
            "critical" if misread else "warning",
            f"{table}.{trigger.full}",
        )


def _side_tables(context: CheckContext, state: TableState) -> Iterator[Problem]:
    owner = qualified(state.schema, state.table)
    for side in state.sides:
        broken = broken_copy(context.connection, state, side)
        if broken is not None:
            yield Problem(
                f"the trigger that copies {owner} into {side.side} fails, and with it every write of a vector: "
                f"{broken.reason}",
                broken.remedy,
                TABLES_SQL,
                {"function": side.name, "side": side.side},
                subject=f"{state.schema}.{state.table}.{side.full}",
            )
