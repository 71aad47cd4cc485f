"""Tables that Citus distributes: what their shards and its nodes lack, which the coordinator's own table does not show.

See docs/citus.md for the versions of Citus that it was run on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.shards import citus_version, distributed_table, node_faults, nodes, shard_faults, shards
from pgmrl.doctor.checks.registry import column_check, database_check
from pgmrl.doctor.finding import Problem
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.model.distribution import distribution_column
from pgmrl.model.shortening import Rotation
from pgmrl.names import literal, qualified
from pgmrl.online.index_statements import create_statement, drop_statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pgmrl.database.shards import DistributedTable
    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["distribution_declared", "nodes_differ", "shards_differ"]


def _distributed(context: CheckContext, column: CheckedColumn) -> DistributedTable | None:
    tables: dict[str, DistributedTable | None] = context.cache.setdefault("distributed", {})
    if column.owner not in tables:
        tables[column.owner] = distributed_table(context.connection, column.owner)
    return tables[column.owner]


@column_check("distribution-declared", "warning", "a table that Citus has distributed otherwise than the model says")
def distribution_declared(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The model's `distributed` against Citus' catalogue; of a column that is not a model's there is nothing to say."""
    if column.reflected or citus_version(context.connection) is None:
        return
    table, declared = _distributed(context, column), attachment_of(column.searched).distributed
    by = distribution_column(base_column(column.searched).table, declared).name if declared else None
    actual = None if table is None else table.column
    if actual == by:
        return
    has = "as a table of this node alone" if table is None else table.describe()
    says = "does not say so" if by is None else f"says distributed by {by}"
    if actual is None:
        effect, remedy = "its searches read one node", f"pgmrl distribute {column.owner} --by {by}"
    else:
        effect = (
            "the scan's parameters do not reach the shards, so that searches find less; those with a filter, and "
            "search_many, fail"
        )
        remedy = f'Declare distributed="{actual}".'
    yield Problem(
        f"Citus has this table {has}, and the model {says}: {effect}",
        remedy,
        "SELECT * FROM citus_tables",
        {"distribution_column": actual, "declared": by, "shards": 0 if table is None else table.shards},
    )


@column_check("shards-differ", "critical", "shards of a distributed table without a valid index, or out of reach")
def shards_differ(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The index of each shard: the one of the table on the coordinator is empty, and always valid."""
    if _distributed(context, column) is None:
        return
    short = column.short if column.definition.has_column else None
    indexes = [index for index in column.all_indexes if index.operator_class == column.operator_class]
    partial = {index.index.predicate is not None for index in indexes}
    faults = shard_faults(shards(context.connection, column.owner), short, column.operator_class, partial or {False})
    if faults:
        schema = column.target.schema
        remedies = {
            "does not answer": "Start the node.",
            "is invalid": "".join(
                f"REINDEX INDEX CONCURRENTLY {qualified(schema, index.name)};  " for index in indexes
            ),
            "has no": "".join(
                f"{drop_statement(schema, index.name)};  "
                f"{create_statement(column.target, index.index, concurrently=True, name=index.name)};  "
                for index in indexes
            ),
        }
        yield Problem(
            f"{'; '.join(faults)}: searches read such a shard in whole, or fail",
            "On the coordinator: " + _needed(remedies, faults),
            f"SELECT * FROM run_command_on_shards({literal(column.owner)}, "
            "'SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = ''%s''::regclass')",
            {"faults": faults},
        )


@database_check("nodes-differ", "critical", "nodes of Citus without pgvector, with another version, or out of reach")
def nodes_differ(context: CheckContext) -> Iterator[Problem]:
    """Pgvector on every node, and the rotations that distributed tables need."""
    if citus_version(context.connection) is None:
        return
    rotations, commands = set(), set()
    for column in context.columns:
        rule, table = column.definition.short.by, _distributed(context, column)
        if table is not None and table.column is not None:
            commands.add(f"`pgmrl distribute {column.owner} --by {table.column}`")
            if isinstance(rule, Rotation) and rule.id is not None:
                rotations.add(rule.id)
    faults = node_faults(nodes(context.connection), sorted(rotations))
    if faults:
        remedies = {
            "does not answer": "Start the node, or SELECT citus_remove_node('host', port).",
            " has pgvector ": "There ALTER EXTENSION vector UPDATE, with a newer package.",
            "different versions": "On each node ALTER EXTENSION vector UPDATE, with the same package.",
            " has no pgvector": f"{' and '.join(sorted(commands))} brings it.",
            "lacks rotation": f"{' and '.join(sorted(commands))} brings it.",
        }
        yield Problem(
            f"{'; '.join(faults)}: searches and writes that reach such a node fail",
            _needed(remedies, faults),
            "SELECT * FROM run_command_on_all_nodes('SELECT extversion FROM pg_extension WHERE extname = ''vector''')",
            {"faults": faults},
        )


def _needed(remedies: Mapping[str, str], faults: Iterable[str]) -> str:
    """The remedies of what the faults say."""
    return " ".join(remedy.strip() for part, remedy in remedies.items() if any(part in fault for fault in faults))
