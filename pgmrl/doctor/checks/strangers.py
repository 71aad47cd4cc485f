"""Objects under pgmrl's names that belong to a stranger, or that nobody can have made with pgmrl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.database.ownership import strangers_objects
from pgmrl.doctor.checks.registry import database_check
from pgmrl.doctor.finding import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext

__all__ = ["not_understood", "ownership"]


@database_check("ownership", "critical", "functions, tables or the schema of pgmrl's that belong to a stranger")
def ownership(context: CheckContext) -> Iterator[Problem]:
    """Whoever owns a trigger's function may have it do anything, with the rights of whoever writes a row."""
    owners = {column.owner for column in context.columns}
    owners |= {column.source.owner for column in context.columns if column.source is not None}
    strangers = {stranger for owner in sorted(owners) for stranger in strangers_objects(context.connection, owner)}
    for stranger in sorted(strangers):
        yield Problem(
            stranger.describe(),
            f"Look for who made it; {stranger.remedy()};",
            values={"kind": stranger.kind, "object": stranger.name, "owner": stranger.owner},
        )


TRIGGERS_SQL: Final = """SELECT g.tgname AS name, g.tgrelid::regclass::text AS relation
FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
CROSS JOIN LATERAL string_to_array(
    replace(replace(encode(g.tgargs, 'escape'), '\\\\', '\\134'), '\\000', E'\\x01'), E'\\x01') AS a
WHERE p.proname LIKE 'z_\\_pgmrl\\_%' AND NOT g.tgisinternal AND g.tgparentid = 0 AND NOT coalesce(CASE
    WHEN p.proname LIKE 'zx\\_%' THEN g.tgnargs = 4 AND a[4] IN ('', 'notify')
    WHEN p.proname LIKE 'zw\\_%' THEN g.tgnargs = 7 AND a[5] || a[6] ~ '^[0-9]+$' AND a[7] IN ('', 'notify')
    WHEN p.proname LIKE 'zt\\_%' THEN g.tgnargs = 3
    WHEN p.proname LIKE 'zy\\_%' THEN g.tgnargs = 2
    WHEN g.tgnargs = 4 THEN a[3] ~ '^(prefix|r[0-9a-f]{12})$' AND a[4] IN ('cosine', 'l2', 'inner_product')
    WHEN p.proname LIKE 'zz\\_%' THEN g.tgnargs = 1 AND p.prosrc ~ 'DO UPDATE SET .* = EXCLUDED' END, false)
ORDER BY 2, 1"""

MARKERS_SQL: Final = """SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner) AS owner FROM pg_proc AS p
WHERE p.prosrc LIKE E'\\n-- pgmrl functions {%' AND pgmrl.marker_v1(p.prosrc) IS NULL
ORDER BY 1"""


@database_check("not-understood", "warning", "triggers and functions under pgmrl's names that pgmrl did not make so")
def not_understood(context: CheckContext) -> Iterator[Problem]:
    """Anybody who may create a function can give it such a name: it is said, and left out of everything else."""
    if not context.all_columns:
        return
    for row in context.rows(TRIGGERS_SQL):
        yield Problem(
            f"trigger {row.name} on {row.relation} has a name of pgmrl's and arguments that pgmrl does not write: it "
            "is left out of everything else here",
            "Look for who made it; where it was changed by hand, run the migration of its column again.",
            TRIGGERS_SQL,
            {"trigger": row.name, "table": row.relation},
        )
    if context.server.schema is None:
        return
    for row in context.rows(MARKERS_SQL):
        yield Problem(
            f"function {row.name} of {row.owner} begins as the SQL functions of pgmrl's do, and says of itself what "
            "pgmrl does not write: it is no set of functions",
            "Look for who made it, and drop it.",
            MARKERS_SQL,
            {"function": row.name, "owner": row.owner},
        )
