"""The doctor: all checks over the columns of a database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from pgmrl import database
from pgmrl.doctor.checks import axes, indexes, leftovers, memory, recorded_recall, rows, searches, vacuum, versions
from pgmrl.doctor.examination import Check, Exam, Server, Thresholds, quietly, surveying
from pgmrl.doctor.examined_columns import subjects
from pgmrl.doctor.finding import SEVERITIES, Finding, NotChecked, Report
from pgmrl.errors import DefinitionError, PgvectorMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.measure import Recall

__all__ = ["CHECKS", "SECONDS", "chosen", "doctor"]

MODEL: Final = Check("model", "critical", "columns that the database does not have as they are declared")

CHECKS: Final[tuple[Check, ...]] = (
    MODEL,
    *rows.CHECKS,
    *axes.CHECKS,
    *indexes.CHECKS,
    *searches.CHECKS,
    *recorded_recall.CHECKS,
    *vacuum.CHECKS,
    *memory.CHECKS,
    *leftovers.CHECKS,
    *versions.CHECKS,
)
"""Every check, in the order in which they run: what is wrong first, what is slow then."""

SECONDS: Final = 60.0
"""How long all checks together may take, unless the caller says otherwise."""


def doctor(
    connection: Connection | Session,
    *columns: Any,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    seconds: float = SECONDS,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    recalls: Mapping[str, Recall] | None = None,
) -> Report:
    """Look for everything that makes searches wrong or slow; reads only.

        for finding in doctor(session, Package.embedding):
            print(finding.severity, finding.message, finding.remedy)

    Each check is a savepoint of its own with a timeout, which is rolled back: nothing is left on the connection, and a
    check that fails does not keep the others from being made. It runs on a hot standby, too, where statistics are the
    standby's own.

    Args:
        connection: of the database.
        *columns: Matryoshka attributes or columns, or names (`packages.embedding`); all of the database by default.
        only: names of checks to make; all by default.
        skip: names of checks to leave out.
        seconds: that all checks may take together. What is not reached is in `Report.not_checked`.
        thresholds: from where on something is found.
        seed: of samples.
        recalls: measured just now and not in the history, by `schema.table.column`; for a standby, which keeps none.

    Returns:
        Findings, the worst first, and what could not be checked.

    Raises:
        DefinitionError: there is no check of a name, or a column is no Matryoshka column.
        NotMigrated: there is no table or column of a name.
        Locked: somebody holds a table, so that not even its size can be read.
        DatabaseError: the catalogue was not read in time, or a column was named whose schema the role may not use.

    """
    connection = database.sqlalchemy_connection(connection)
    checks = chosen(only, skip)
    names = tuple(check.name for check in checks)
    deadline = time.monotonic() + seconds
    with quietly():
        try:
            with surveying(connection, seconds):
                server = Server.of(connection)
                found, missing, hidden = subjects(connection, columns)
        except PgvectorMissing as error:
            finding = Finding("pgvector-version", "critical", "database", str(error), "CREATE EXTENSION vector;")
            rest = tuple(NotChecked(name, "database", "pgvector is missing") for name in names if name != finding.check)
            return Report((finding,), rest, (), names)
        exam = Exam(
            connection,
            server,
            found,
            thresholds or Thresholds(),
            seed,
            deadline,
            hidden,
            recalls=recalls or {},
            whole=not columns,
        )
        findings = list(missing) if MODEL in checks else []
        for check in checks:
            findings += exam.run(check)
    return Report(
        tuple(sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), names.index(one.check)))),
        tuple(exam.not_checked),
        tuple(f"{subject.name} ({subject.short})" for subject in found),
        names,
        server.standby,
    )


def chosen(only: Iterable[str], skip: Iterable[str]) -> Sequence[Check]:
    """The checks to make.

    Raises:
        DefinitionError: there is no check of a name.

    """
    wanted, unwanted = set(only), set(skip)
    known = [check.name for check in CHECKS]
    for name in sorted(wanted | unwanted):
        if name not in known:
            raise DefinitionError(f"there is no check {name!r}: choose among {', '.join(known)}")
    return [check for check in CHECKS if (not wanted or check.name in wanted) and check.name not in unwanted]
