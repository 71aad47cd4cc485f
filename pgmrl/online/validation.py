"""Whether the short vectors that are stored are what their definition computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl import database
from pgmrl.database.job_log import log
from pgmrl.errors import MigrationError
from pgmrl.names import literal, quoted
from pgmrl.online.preconditions import check_sees_all_rows, check_stored, check_there

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.online.target import Target

__all__ = ["differs", "sample_statement", "validate"]

SAMPLE = 1_000  # rows whose short vector is computed once more by `validate`
TOLERANCE = 2e-3  # client and server round the last digit of half precision differently


def validate(connection: Connection, target: Target) -> None:
    """Check that no row lacks its short vector, and a sample that each is what the definition says.

    Raises:
        MigrationError: some are missing or differ, with their number.
    """
    check_stored(target)
    check_there(connection, target)
    check_sees_all_rows(connection, target.owner)
    missing = database.execute_plain(
        connection, f"SELECT count(*) FROM {target.owner} WHERE {target.missing}"
    ).scalar_one()
    if missing:
        raise MigrationError(f"{missing:,} rows of {target.owner} have no {target.short} yet: op.backfill_short first")
    compared, differ = tuple[int, ...](database.execute_plain(connection, sample_statement(target)).one())
    if differ:
        raise MigrationError(
            f"{differ} of {compared} rows looked at have a {target.short} that is not computed from {target.full}: "
            f"UPDATE {target.owner} SET {quoted(target.short)} = NULL, then backfill"
        )
    log.info("%s: every row has its short vector; %s of them compared", target.title, compared)


def differs(target: Target) -> str:
    """The rows whose short vector is not what the definition computes, as SQL text."""
    definition, short = target.definition, quoted(target.short)
    if definition.short.type == "bit":
        return f"{short} <> {target.value}"
    l2, norm = definition.operator("<->"), definition.norm(definition.short.type)
    return f"({short} {l2} {target.value}) > {TOLERANCE}::float8 * (1::float8 + {norm}({short}))"


def sample_statement(target: Target) -> str:
    """Compare short vectors of a sample with what the definition computes: how many were looked at, how many differ."""
    short = quoted(target.short)
    owner = f"{literal(target.owner)}::regclass"
    # each operator has its own types on both sides: none of somebody else's on the search_path can fit better
    share = (
        f"(SELECT least(100::real, {200 * SAMPLE}::real / greatest(1::real, sum(c.reltuples))) "
        f"FROM pg_catalog.pg_class AS c "
        f"WHERE c.relkind = 'r' AND (c.oid = {owner}::oid "
        f"OR c.oid IN (SELECT relid::oid FROM pg_partition_tree({owner}))))"
    )
    return (
        f"SELECT count(*), count(*) FILTER (WHERE {differs(target)}) FROM "
        f"(SELECT * FROM {target.owner} TABLESAMPLE SYSTEM ({share}) WHERE {short} IS NOT NULL "
        # the first ones would never be those at the table's end, which were written last
        f"ORDER BY random() LIMIT {SAMPLE}) AS s"
    )
