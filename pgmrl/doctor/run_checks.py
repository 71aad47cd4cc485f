"""`doctor`: run the checks over the columns of a database."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.doctor.bounded_reads import (
    OUT_OF_TIME,
    bounded_read,
    failure_reason,
    read_catalogue,
    time_limit,
    without_warnings,
)
from pgmrl.doctor.check_context import CheckContext, Server
from pgmrl.doctor.checked_columns import checked_columns
from pgmrl.doctor.checks import CHECKS
from pgmrl.doctor.finding import SEVERITIES, Finding, NotChecked, Problem, Report, Unchecked
from pgmrl.doctor.thresholds import Thresholds
from pgmrl.errors import DefinitionError, PgmrlError, PgvectorMissing
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.doctor.checks.registry import Check
    from pgmrl.measure import Recall

__all__ = ["SECONDS", "doctor", "run_check", "select_checks"]

SECONDS: Final = 60.0
"""How long all checks together may take, unless the caller says otherwise."""

DATABASE: Final = "database"
"""The subject of findings about the database as a whole."""


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
    """Find everything that makes searches wrong or slow; reads only.

        for finding in doctor(session, Package.embedding):
            print(finding.severity, finding.message, finding.remedy)

    Each check runs in a savepoint of its own with a timeout, which is rolled back: it leaves nothing on the connection,
    and a check that fails does not keep the others from running. Works on a hot standby, too, whose statistics are its
    own.

    Args:
        connection: a connection to the database.
        *columns: Matryoshka attributes or columns, or names (`packages.embedding`); by default all of the database.
        only: names of the checks to run; by default all.
        skip: names of checks to leave out.
        seconds: time limit of all checks together. What is not reached is in `Report.not_checked`.
        thresholds: the numbers from which on a problem is reported.
        seed: seed of samples.
        recalls: measured just now and not in the history, by `schema.table.column`; for a standby, which keeps none.

    Returns:
        Findings, the worst first, and what could not be checked.

    Raises:
        SearchError: `seconds` is no finite number, or below 0.
        DefinitionError: there is no check of a name, or a column is not a Matryoshka column.
        NotMigrated: there is no table or column of a name.
        Locked: another transaction holds a table, so that not even its size can be read.
        DatabaseError: the catalogue was not read in time, or a column is in a schema that the role may not use.

    """
    connection = database.sqlalchemy_connection(connection)
    checks = select_checks(only, skip)
    names = [check.name for check in checks]
    seconds = time_limit(seconds)
    deadline = time.monotonic() + seconds
    with without_warnings():
        try:
            with read_catalogue(connection, seconds):
                server = Server.of(connection)
                selection = checked_columns(connection, columns)
        except PgvectorMissing as error:
            return _without_pgvector(error, names)
        context = CheckContext(
            connection,
            server,
            selection.columns,
            thresholds or Thresholds(),
            seed,
            mismatches=selection.mismatches,
            recalls=recalls or {},
            all_columns=not columns,
        )
        results = [result for check in checks for result in run_check(context, check, deadline)]
    findings = [result for result in results if isinstance(result, Finding)]
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), names.index(finding.check)))
    not_checked = [result for result in results if isinstance(result, NotChecked)]
    return Report(
        tuple(findings),
        (*selection.not_checked, *not_checked),
        tuple(f"{column.name} ({column.short})" for column in selection.columns),
        tuple(names),
        server.standby,
    )


def select_checks(only: Iterable[str], skip: Iterable[str]) -> Sequence[Check]:
    """The checks to run.

    Raises:
        DefinitionError: there is no check of a name.

    """
    included, excluded = set(only), set(skip)
    names = [check.name for check in CHECKS]
    for name in sorted(included | excluded):
        if name not in names:
            raise DefinitionError(f"there is no check {safe_repr(name)}: choose from {', '.join(names)}")
    return [check for check in CHECKS if (not included or check.name in included) and check.name not in excluded]


def run_check(context: CheckContext, check: Check, deadline: float) -> Iterator[Finding | NotChecked]:
    """Run a check on everything it looks at; what fails is reported as not checked, and the rest goes on.

    Args:
        context: what the check is given.
        check: the check.
        deadline: on the monotonic clock.

    """
    if check.on_database is not None:
        yield from _results(context, check, DATABASE, deadline, partial(check.on_database, context))
    if check.on_column is not None:
        for column in context.columns:
            yield from _results(context, check, column.name, deadline, partial(check.on_column, context, column))


def _results(
    context: CheckContext,
    check: Check,
    subject: str,
    deadline: float,
    function: Callable[[], Iterable[Problem | Unchecked]],
) -> list[Finding | NotChecked]:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        return [NotChecked(check.name, subject, OUT_OF_TIME)]
    results: list[Finding | NotChecked] = []
    try:
        with bounded_read(context.connection, seconds):
            for result in function():
                results.append(_result(check, subject, result))  # noqa: PERF401 - what came before an error is kept
    except PgmrlError as error:
        results.append(NotChecked(check.name, subject, str(error)))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        results.append(NotChecked(check.name, subject, failure_reason(error, context.server.role)))
    except Exception as error:  # the catalogue holds what others write: one object hides no other's faults
        results.append(NotChecked(check.name, subject, f"the check failed: {type(error).__name__}: {error}"))
    return results


def _result(check: Check, subject: str, result: Problem | Unchecked) -> Finding | NotChecked:
    if isinstance(result, Unchecked):
        return NotChecked(check.name, result.subject or subject, result.reason)
    return Finding(
        check.name,
        result.severity or check.severity,
        result.subject or subject,
        result.message,
        result.remedy,
        result.sql,
        result.values,
    )


def _without_pgvector(error: PgvectorMissing, names: Sequence[str]) -> Report:
    """Without the extension no other check can run."""
    finding = Finding("pgvector-version", "critical", DATABASE, str(error), "CREATE EXTENSION vector;")
    rest = tuple(NotChecked(name, DATABASE, "pgvector is not installed") for name in names if name != finding.check)
    return Report((finding,), rest, (), tuple(names))
