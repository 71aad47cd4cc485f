"""All checks of the doctor, from the modules of this folder, each of which looks at one kind of thing."""

from typing import Final

from pgmrl.doctor.checks import (
    backfills,
    declared_columns,
    distributed_tables,
    embeddings,
    filters,
    indexes,
    installed_functions,
    leftovers,
    memory,
    partitions,
    recorded_recall,
    renamed_columns,
    rotation_axes,
    rows,
    search_plans,
    search_settings,
    short_vectors,
    side_table_rows,
    strangers,
    sync_triggers,
    untrained_lengths,
    vacuum,
    versions,
)
from pgmrl.doctor.checks.registry import Check, checks_of

__all__ = ["CHECKS"]

CHECKS: Final[tuple[Check, ...]] = tuple(
    check
    for module in (
        declared_columns,
        rows,
        short_vectors,
        sync_triggers,
        strangers,
        renamed_columns,
        side_table_rows,
        rotation_axes,
        indexes,
        distributed_tables,
        filters,
        partitions,
        search_settings,
        search_plans,
        recorded_recall,
        vacuum,
        memory,
        backfills,
        embeddings,
        untrained_lengths,
        installed_functions,
        leftovers,
        versions,
    )
    for check in checks_of(module)
)
"""Every check, in the order in which they run: first what makes results wrong, then what makes searches slow."""
