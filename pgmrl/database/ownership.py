"""Objects under pgmrl's names that belong to a stranger, who may rewrite what runs with the rights of others.

CREATE OR REPLACE keeps the owner: whoever makes a trigger function first may change it for good, and it runs with the
rights of everybody who writes a row. So installing refuses what is there and belongs to somebody else (see
`pgmrl.owns_v1` and schema.sql), and `check_schema` and the doctor look for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result
from pgmrl.reprs import printable

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["StrangersObject", "strangers_objects"]


class StrangersObject(NamedTuple):
    """An object under a name of pgmrl's, and whose it is.

    Attributes:
        kind: `schema`, `table`, `view` or `function`.
        name: as SQL text, with its schema.
        owner: the role it belongs to.
        rightful: the role that it should belong to.
    """

    kind: str
    name: str
    owner: str
    rightful: str

    def describe(self) -> str:
        """What is wrong, in a sentence without its end."""
        return printable(
            f"{self.kind} {self.name} belongs to {self.owner}, who may change what runs with others' rights"
        )

    def remedy(self) -> str:
        """The statement that mends it, to be run when it has been read."""
        return printable(f"read it, then as a superuser ALTER {self.kind.upper()} {self.name} OWNER TO {self.rightful}")


# A role is trusted with an object if it is a superuser, who may change everything anyway, or is the one that should own
# it, or a role of which that one or the current one is a member.
_STRANGERS: Final = text("""
WITH RECURSIVE place AS (
    SELECT c.oid, c.relowner, d.datdba, r.oid AS role FROM pg_class AS c, pg_database AS d, pg_roles AS r
    WHERE c.oid = to_regclass(:owner) AND d.datname = current_database() AND r.rolname = current_user
), roles (root, id) AS (
    SELECT r.oid, r.oid FROM pg_roles AS r, place WHERE r.oid IN (relowner, datdba, role)
    UNION
    SELECT roles.root, m.roleid FROM pg_auth_members AS m JOIN roles ON roles.id = m.member
), objects (kind, name, owner, rightful, roots) AS (
    SELECT 'function', p.oid::regprocedure::text, p.proowner, place.relowner, ARRAY[place.relowner, place.role]
    FROM place JOIN pg_trigger AS g ON g.tgrelid = place.oid AND NOT g.tgisinternal
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'z_\\_pgmrl\\_%'
    UNION
    SELECT 'schema', 'pgmrl', n.nspowner, place.datdba, ARRAY[place.relowner, place.datdba, place.role]
    FROM place JOIN pg_namespace AS n ON n.nspname = 'pgmrl'
    UNION
    SELECT 'function', p.oid::regprocedure::text, p.proowner, n.nspowner, ARRAY[n.nspowner]
    FROM pg_namespace AS n JOIN pg_proc AS p ON p.pronamespace = n.oid WHERE n.nspname = 'pgmrl'
    UNION
    SELECT CASE WHEN c.relkind = 'v' THEN 'view' ELSE 'table' END, c.oid::regclass::text, c.relowner, n.nspowner,
        ARRAY[n.nspowner]
    FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'v')
    WHERE n.nspname = 'pgmrl'
)
SELECT o.kind, o.name, pg_get_userbyid(o.owner), pg_get_userbyid(o.rightful)
FROM objects AS o
WHERE o.owner <> ALL (o.roots)
    AND NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = o.owner AND r.rolsuper)
    AND NOT EXISTS (SELECT FROM roles AS r WHERE r.id = o.owner AND r.root = ANY (o.roots))
ORDER BY 1, 2
""")


def strangers_objects(connection: Connection, owner: str) -> list[StrangersObject]:
    """The triggers' functions of a table, pgmrl's schema and what is in it, as far as they belong to a stranger.

    Args:
        connection: of the database; only its catalogue is read.
        owner: the table as SQL text.
    """
    return [StrangersObject(*row) for row in catalogue_result(connection, _STRANGERS, {"owner": owner})]
