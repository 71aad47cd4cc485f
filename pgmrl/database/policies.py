"""Row-level security as the catalogue has it: by which columns its policies filter each search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.search_path import catalogue_result
from pgmrl.names import literal

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["policies", "policies_sql"]


def policies_sql(owner: str) -> str:
    """The policies of a table that filter what is read, each with the columns of the table that it names, as SQL text.

    Args:
        owner: the table as SQL text.
    """
    return (
        "SELECT p.polname::text AS policy, array_agg(DISTINCT a.attname::text) AS columns\n"
        "FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid AND c.relrowsecurity\n"
        "JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid\n"
        "    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0\n"
        "JOIN pg_attribute AS a ON a.attrelid = p.polrelid AND a.attnum = d.refobjsubid\n"
        f"WHERE p.polrelid = {literal(owner)}::regclass AND p.polcmd IN ('*', 'r') "
        "GROUP BY p.oid, p.polname ORDER BY p.polname"
    )


def policies(connection: Connection, owner: str) -> list[tuple[str, list[str]]]:
    """The policies of a table that filter what is read, each with the columns that it names.

    Args:
        connection: of the database.
        owner: the table as SQL text, with its schema.
    """
    return [(row.policy, list(row.columns)) for row in catalogue_result(connection, policies_sql(owner))]
