"""What is peculiar to searches of partitioned tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.database import foreign_partitions_sql
from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.checks.search_settings import search_numbers
from pgmrl.doctor.finding import Problem
from pgmrl.model.scan_settings import partition_ef_search
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["foreign_partition", "partition_effort"]

FEW: Final = 4
"""Fewer partitions are searched with the usual ef_search at no great cost."""


@column_check("foreign-partition", "warning", "partitions on other servers, whose indexes this one does not see")
def foreign_partition(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Partitions that are foreign tables."""
    if not column.partitioned:
        return
    sql = foreign_partitions_sql(f"{literal(column.owner)}::regclass")
    partitions = [str(row.foreign_partition) for row in context.rows(sql)]
    if partitions:
        names = ", ".join(partitions)
        yield Problem(
            f"{names}: on other servers. No index here serves them, what a search sets for its scan does not reach "
            "them, and a shortlist fetches their full vectors",
            "See docs/scale.md: measure recall, set hnsw.ef_search for their server, or take Citus.",
            sql,
            {"partitions": partitions},
        )


@column_check("partition-effort", "info", "as many candidates kept in each of many partitions as in one table")
def partition_effort(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """An ef_search that is one table's, where a search reads many partitions."""
    if not (column.partitioned and column.serves and column.indexed):
        return
    sql = f"SELECT count(*) AS partitions FROM pg_partition_tree({literal(column.owner)}::regclass) AS t WHERE t.isleaf"
    partitions = context.row(sql).partitions
    numbers = search_numbers(context.connection, column.searched)
    enough = partition_ef_search(numbers.shortlist, partitions)
    if partitions < FEW or numbers.ef_search <= enough or column.size.rows < context.thresholds.small_rows:
        return
    yield Problem(
        f"a search without a condition on the partition key keeps {numbers.ef_search} candidates in each of "
        f"{partitions} partitions: {enough} are enough for the recall of one table",
        f"search(..., ef_search={enough}), or store it (docs/partitions.md); `pgmrl recall {column.name} --ef-search "
        f"{enough}` measures it.",
        sql,
        {"partitions": partitions, "ef_search": numbers.ef_search, "enough": enough},
    )
