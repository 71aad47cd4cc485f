"""Rotations: whether their axes are those that their id names, and whether they still fit the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl import database
from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.errors import RotationError
from pgmrl.measure import sampled_queries
from pgmrl.measure.fit_rotation import HELD_OUT, SHORTLIST, K, compare
from pgmrl.model.shortening import Rotation
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["rotation_axes", "rotation_stale"]


@column_check("rotation-axes", "critical", "axes of a rotation that are missing or do not match its id")
def rotation_axes(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """The stored axes against the rotation's id, which is their hash."""
    rotation = column.definition.short.by
    if not isinstance(rotation, Rotation) or rotation.id is None:
        return
    id_ = rotation.id
    if context.server.schema is None:
        message = f"{column.short} is computed by rotation {id_}, and pgmrl's schema is not in this database"
        yield Problem(message, "`pgmrl upgrade`, then install the rotation.")
        return
    sql = (
        "SELECT r.dims, r.axes, count(a.n) AS stored, "
        f"pgmrl.rotation_id_v1({literal(id_)}) AS computed\n"
        f"FROM (SELECT {literal(id_)} AS id) AS w LEFT JOIN pgmrl.rotations AS r USING (id)\n"
        "LEFT JOIN pgmrl.axes AS a ON a.rotation_id = w.id GROUP BY r.dims, r.axes"
    )
    row = context.row(sql)
    fault = _fault(row, column, id_)
    if fault is not None:
        yield Problem(
            f"rotation {id_} {fault}",
            f"As the owner of pgmrl's schema: {_removal(id_)};  then restore it from its file: op.install_rotation("
            f'"…/{id_}.npy"), or database.install_rotation(connection, Rotation.load("…/{id_}.npy")). Then see the '
            "check `short-differs`.",
            sql,
            {"rotation": id_, "axes": row.stored, "computed": row.computed},
        )


def _fault(row: Row[tuple[int | None, int | None, int, str | None]], column: CheckedColumn, id_: str) -> str | None:
    definition = column.definition
    if row.stored == 0:
        return "has no axes in this database: writes of vectors fail, and so do searches that send full vectors"
    if row.computed != id_:
        return (
            f"has other axes in this database (the hash of the {row.stored} stored axes is {row.computed}): short "
            "vectors written before and after the change cannot be compared"
        )
    if row.axes is None:
        return "is not sealed: its axes can be changed"
    if row.dims != definition.dims or row.axes < definition.short.dims:
        return (
            f"has {row.axes} axes of {row.dims} dimensions, expected at least {definition.short.dims} axes of "
            f"{definition.dims} dimensions"
        )
    return None


def _removal(id_: str) -> str:
    """The statements that delete what is left of a rotation, past the guards that protect one in use.

    A table's owner may disable its triggers; session_replication_role would need a superuser.
    """
    switches = ["ALTER TABLE pgmrl.rotations {} TRIGGER guard", "ALTER TABLE pgmrl.axes {} TRIGGER guard"]
    statements = [
        "BEGIN",
        *(switch.format("DISABLE") for switch in switches),
        f"DELETE FROM pgmrl.rotations WHERE id = {literal(id_)}",
        f"DELETE FROM pgmrl.axes WHERE rotation_id = {literal(id_)}",
        *(switch.format("ENABLE") for switch in switches),
        "COMMIT",
    ]
    return "; ".join(statements)


@column_check("rotation-stale", "warning", "a rotation that keeps less recall on today's rows than a new one would")
def rotation_stale(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """Whether axes learned from today's rows would keep more recall than the column's."""
    rotation = column.definition.short.by
    if not isinstance(rotation, Rotation) or rotation.id is None or column.stage is not None:
        return
    sample = context.thresholds.rotation_rows
    if column.size.rows < max(context.thresholds.small_rows, sample):
        return  # of a few rows a shortlist holds so many that nothing is lost
    try:
        installed = database.installed_rotation(context.connection, rotation.id)
    except RotationError as error:
        yield Unchecked(f"see rotation-axes: {error}")
        return
    with context.path_of(column):
        vectors = sampled_queries(context.connection, column.searched, sample, seed=context.seed).vectors
    required = 2 * (SHORTLIST + HELD_OUT)
    if len(vectors) < required:
        yield Unchecked(f"expected at least {required:,} usable rows in the sample, got {len(vectors):,}")
        return
    comparison = compare(column.definition, vectors, installed)
    gain = comparison.gain
    if gain.low > context.thresholds.rotation_gain:
        yield Problem(
            f"rotation {rotation.id} no longer fits the data: on {len(vectors):,} rows of today its "
            f"{column.definition.short.dims} axes keep recall@{K} {comparison.kept:.3f} (exact shortlist of "
            f"{SHORTLIST}), axes learned from these rows {comparison.kept_anew:.3f}: {gain.mean:.3f} more "
            f"(95 % confidence interval {gain.low:.3f} to {gain.high:.3f})",
            f"`pgmrl fit-rotation {column.name}`, then `pgmrl reshape start` to a second short column, of the new "
            "rotation.",
            f"SELECT * FROM pgmrl.rotations WHERE id = {literal(rotation.id)}",
            {
                "rotation": rotation.id,
                "rows": len(vectors),
                "kept": comparison.kept,
                "kept_anew": comparison.kept_anew,
                "gain": gain.mean,
                "gain_low": gain.low,
                "gain_high": gain.high,
            },
        )
