"""Rotations: whether their axes are there as their id names them, and whether they still fit the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl import database
from pgmrl.doctor.examination import Check, Skipped
from pgmrl.doctor.finding import Finding
from pgmrl.errors import RotationError
from pgmrl.measure import sampled_queries
from pgmrl.measure.fit_rotation import HELD_OUT, SHORTLIST, K, compare
from pgmrl.model.shortening import Rotation
from pgmrl.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject

__all__ = ["CHECKS"]


def axes(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """The stored axes against the id, which is their hash."""
    by = subject.definition.short.by
    if not isinstance(by, Rotation) or by.id is None:
        return
    if exam.server.schema is None:
        message = f"{subject.short} is kept by rotation {by.id}, and pgmrl's schema is not in this database"
        yield Finding("rotation-axes", "critical", subject.name, message, "`pgmrl upgrade`, then install the rotation.")
        return
    sql = (
        "SELECT r.dims, r.axes, count(a.n) AS there, "
        f"pgmrl.rotation_id_v1({literal(by.id)}) AS computed\n"
        f"FROM (SELECT {literal(by.id)} AS id) AS w LEFT JOIN pgmrl.rotations AS r USING (id)\n"
        "LEFT JOIN pgmrl.axes AS a ON a.rotation_id = w.id GROUP BY r.dims, r.axes"
    )
    row = exam.one(sql)
    wrong = None
    if row.there == 0:
        wrong = "has no axes in this database: writes of vectors fail, and so do searches that send full vectors"
    elif row.computed != by.id:
        wrong = (
            f"has other axes in this database ({row.there} of them, their hash is {row.computed}): short vectors of "
        )
        wrong += "rows written before and after the change do not go together"
    elif row.axes is None:
        wrong = "is not sealed: its axes can be changed"
    elif row.dims != subject.definition.dims or row.axes < subject.definition.short.dims:
        wrong = f"has {row.axes} axes of {row.dims} dimensions; the column has {subject.definition.dims} and needs "
        wrong += f"{subject.definition.short.dims} axes"
    if wrong is not None:
        yield Finding(
            "rotation-axes",
            "critical",
            subject.name,
            f"rotation {by.id} {wrong}",
            f"As the owner of pgmrl's schema: {removal(by.id)};  then restore it from its file: op.install_rotation("
            f'"…/{by.id}.npy"), or database.install_rotation(connection, Rotation.load("…/{by.id}.npy")). Then look at '
            "`short-differs`.",
            sql,
            {"rotation": by.id, "axes": row.there, "computed": row.computed},
        )


def removal(rotation: str) -> str:
    """The statements that take out what is left of a rotation, past the guards that keep one in use.

    A table's owner may disable its triggers; session_replication_role would take a superuser.
    """
    switches = ["ALTER TABLE pgmrl.rotations {} TRIGGER guard", "ALTER TABLE pgmrl.axes {} TRIGGER guard"]
    statements = [
        "BEGIN",
        *(one.format("DISABLE") for one in switches),
        f"DELETE FROM pgmrl.rotations WHERE id = {literal(rotation)}",
        f"DELETE FROM pgmrl.axes WHERE rotation_id = {literal(rotation)}",
        *(one.format("ENABLE") for one in switches),
        "COMMIT",
    ]
    return "; ".join(statements)


def stale(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Whether axes learned from today's rows would keep more recall than the column's."""
    by = subject.definition.short.by
    if not isinstance(by, Rotation) or by.id is None or subject.stage is not None:
        return
    wanted = exam.thresholds.rotation_rows
    if subject.size.rows < max(exam.thresholds.small_rows, wanted):
        return  # of a few rows a shortlist holds so many that nothing is lost
    try:
        installed = database.installed_rotation(exam.connection, by.id)
    except RotationError as error:
        raise Skipped(f"see rotation-axes: {error}") from None
    vectors = sampled_queries(exam.connection, subject.column, wanted, seed=exam.seed).vectors
    if len(vectors) < 2 * (SHORTLIST + HELD_OUT):
        raise Skipped(f"only {len(vectors):,} usable rows in the sample: too few to compare rotations on")
    found = compare(subject.definition, vectors, installed)
    gain = found.gain
    if gain.low <= exam.thresholds.rotation_gain:
        return
    dims = subject.definition.short.dims
    yield Finding(
        "rotation-stale",
        "warning",
        subject.name,
        f"rotation {by.id} no longer fits the data: on {len(vectors):,} rows of today its {dims} axes keep recall@{K} "
        f"{found.kept:.3f} (exact shortlist of {SHORTLIST}), axes learned from these rows {found.kept_anew:.3f}: "
        f"{gain.mean:.3f} more, {gain.low:.3f} to {gain.high:.3f} with 95 % confidence",
        f"`pgmrl fit-rotation {subject.name}`, then `pgmrl reshape start` to a short column of the new rotation beside "
        "the old one.",
        f"SELECT * FROM pgmrl.rotations WHERE id = {literal(by.id)}",
        {
            "rotation": by.id,
            "rows": len(vectors),
            "kept": found.kept,
            "kept_anew": found.kept_anew,
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
        },
    )


CHECKS = (
    Check("rotation-axes", "critical", "axes of a rotation that are missing or not what its id names", each=axes),
    Check("rotation-stale", "warning", "a rotation that keeps less of today's rows than a new one would", each=stale),
)
