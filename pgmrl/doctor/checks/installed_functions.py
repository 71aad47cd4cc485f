"""Installed SQL functions that no longer fit the table they search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgmrl.database.function_sets import installed_markers
from pgmrl.database.shards import distributed_table
from pgmrl.database.table_state import table_state
from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.functions.searched_column import VERSION
from pgmrl.model import ddl
from pgmrl.names import literal, qualified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.finding import Severity

__all__ = ["functions"]

FUNCTIONS_SQL: Final = "SELECT function_schema, marker FROM pgmrl.function_sets"


@database_check("functions", "critical", "SQL functions for another table, column or version")
def functions(context: CheckContext) -> Iterator[Problem | Unchecked]:
    """The sets of SQL functions against the tables they search."""
    for function_schema, marker in installed_markers(context.connection):
        schema, table = marker["schema"], marker["table"]
        if not context.includes(schema, table):
            continue
        subject = f"{schema}.{table}.{marker['column']}"
        usage = (
            f"SELECT has_schema_privilege(oid, 'USAGE') AS granted FROM pg_namespace WHERE nspname = {literal(schema)}"
        )
        if any(not row.granted for row in context.rows(usage)):
            yield Unchecked(f"no USAGE on schema {schema}: grant it, or run as its owner", subject)
            continue
        fault = _fault(context, qualified(schema, table), marker)
        if fault is not None:
            severity, what = fault
            name = f"{function_schema}.{marker['name']}_…"
            yield Problem(
                f"the SQL functions {name} {what}",
                "Install them again: `pgmrl functions install`, or op.install_functions. Drop those of a table that "
                "no longer exists: SELECT pgmrl.drop_functions_v1(schema, name);",
                FUNCTIONS_SQL,
                {"functions": name, "short_column": marker["short"], "version": marker["version"]},
                severity,
                subject,
            )


def _fault(context: CheckContext, owner: str, marker: dict[str, Any]) -> tuple[Severity, str] | None:
    """What is wrong with a set of functions, with its severity; None where nothing is."""
    if context.row(f"SELECT to_regclass({literal(owner)}) AS relation").relation is None:
        return "critical", f"search {owner}, which does not exist (renamed?): each call fails"
    holder = marker["side"] or marker["table"]
    state = table_state(context.connection, marker["schema"], holder)
    short = None if state is None else state.shorts.get(marker["short"])
    if short is None:
        return "critical", f"search by {holder}.{marker['short']}, which does not exist or is not kept in step"
    definition = short.definition
    actual = {
        "rule": ddl.rule_of(definition),
        "dims": definition.short.dims,
        "type": definition.short.type,
        "full": f"{definition.full}({definition.dims})",
    }
    changed = [
        f"{name} {marker[name]}, now {value}" for name, value in actual.items() if marker.get(name, value) != value
    ]
    distributed = distributed_table(context.connection, owner)
    if distributed is not None and marker.get("distributed") != distributed.column:
        changed.append(f"distributed by {marker.get('distributed')}, now {distributed.column}")
    if changed:
        return "critical", f"were made for another {marker['short']} ({'; '.join(changed)})"
    if short.stage == "retired":
        return "warning", f"search by {marker['short']}, which is retired: they will fail when it is dropped"
    if marker["version"] != VERSION:
        return "info", f"are of version {marker['version']}, this library writes version {VERSION}"
    return None
