"""`pgmrl doctor`: what makes searches wrong or slow, the worst first; for people, monitors and Prometheus."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from sqlalchemy.exc import DBAPIError
from typer.core import TyperCommand

from pgmrl import database
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json, check_plot
from pgmrl.cli.output import console, counted, escaped, write_json
from pgmrl.cli.progress_report import progress_report
from pgmrl.doctor import CHECKS, Health, Measurement, Report, health, measure_columns, prometheus_metrics
from pgmrl.doctor import doctor as examine
from pgmrl.doctor.bounded_reads import read_catalogue, time_limit
from pgmrl.doctor.checked_columns import checked_columns
from pgmrl.doctor.finding import SEVERITIES
from pgmrl.doctor.recall_series import SUFFIXES, RecallSeries, draw_series, recall_series, sparkline
from pgmrl.doctor.run_checks import SECONDS, select_checks
from pgmrl.embedding_queue import embedding_status
from pgmrl.errors import NotMigrated
from pgmrl.reprs import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["MonitoringCommand", "doctor"]

EXIT: Final = {None: 0, "info": 0, "warning": 10, "critical": 20}
"""Not 1 and 2, which say that the command itself failed or was called wrongly."""

NAGIOS: Final = {None: 0, "info": 0, "warning": 1, "critical": 2}
UNKNOWN: Final = 3
WORDS: Final = {0: "OK", 1: "WARNING", 2: "CRITICAL"}
TERMS: Final = """
The short vector is the leading dimensions of the full one (prefix), or its inner products with learned axes
(rotation); the index is on it, and triggers keep it in step where it is no generated column. The shortlist is what
the index gives, to be ranked by full vectors. A side table holds both vectors beside the application's table.
docs/doctor.md says of each check what follows from it, and what to do."""
COLORS: Final = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


class MonitoringCommand(TyperCommand):
    """A command with `--nagios`, under which every failure is UNKNOWN, that of reading the options too."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Read the options."""
        with _unknown_if_failed(nagios="--nagios" in args):
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run."""
        with _unknown_if_failed(nagios=ctx.params["nagios"]):
            return super().invoke(ctx)


@contextmanager
def _unknown_if_failed(*, nagios: bool) -> Iterator[None]:
    """Python's own exit code 1 would say WARNING to a monitor, and 2, of a wrong option, CRITICAL.

    Raises:
        Exit: something failed.

    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if not nagios:
            raise
        typer.echo(f"PGMRL UNKNOWN - {_line(_message(error))}")
        raise typer.Exit(UNKNOWN) from None


def _message(error: Exception) -> object:
    if isinstance(error, typer.BadParameter):
        return error.format_message()  # with the option's name
    return error.orig if isinstance(error, DBAPIError) else error


def doctor(
    columns: Annotated[
        list[str] | None, typer.Argument(help="table.column or schema.table.column; all of the database by default.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="A check to make; repeat for more.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A check to leave out; repeat for more.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what checks there are, and make none.")] = False,
    seconds: Annotated[float, typer.Option(help="That all checks may take together, and measuring besides.")] = SECONDS,
    take: Annotated[bool, typer.Option("--measure", help="First measure recall, and add it to the history.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Show recall over time; no checks.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the history into this file: .png, .svg or .pdf (extra `plot`).")
    ] = None,
    sql: Annotated[
        bool | None,
        typer.Option("--sql/--no-sql", help="With the SQL behind each finding; by default of warnings and worse."),
    ] = None,
    nagios: Annotated[
        bool,
        typer.Option("--nagios", help="A status line first, and the exit codes of a monitoring plugin."),
    ] = False,
    as_metrics: Annotated[bool, typer.Option("--prometheus", help="Write metrics in Prometheus' text format.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Find what makes searches wrong or slow, the worst first, each with its remedy and the SQL behind it.

    Reads only (but for --measure), bounded in time, on a hot standby, too. Exit code 0: nothing worse than information;
    10: a warning; 20: critical, that is wrong or missing results. 1 and 2 say that the command itself failed.

    Example: `pgmrl doctor packages.embedding --skip memory`
    """
    if list_:
        _list(json=json)
        return
    names = columns or []
    if history or plot is not None:
        _only_history(**{"--measure": take, "--nagios": nagios, "--prometheus": as_metrics})
        check_plot(plot, SUFFIXES)
        with open_engine(url) as engine, engine.connect() as connection:
            recorded = _history(connection, names, seconds)
        _show_history(recorded, plot, json=json)
        return
    with open_engine(url) as engine, engine.connect() as connection:
        select_checks(only or (), skip or ())  # a wrong name is said before anything is measured
        measured = _measured(connection, names, seconds, quiet=json or as_metrics or nagios) if take else []
        recalls = {
            column.name: column.recall for column in measured if column.recall is not None and not column.recorded
        }
        report = examine(connection, *names, only=only or (), skip=skip or (), seconds=seconds, recalls=recalls)
        metrics = _metrics(connection, report, names) if as_metrics else ""
    if json:
        write_json(_as_json(report, measured))
    elif as_metrics:
        typer.echo(metrics, nl=False)
    else:
        if nagios:
            typer.echo(_status(report))
        _show(report, measured, sql=sql, brief=nagios)
    raise typer.Exit((NAGIOS if nagios else EXIT)[report.worst])


def _list(*, json: bool) -> None:
    if json:
        write_json(
            [{"name": check.name, "severity": check.severity, "description": check.description} for check in CHECKS]
        )
        return
    for check in CHECKS:
        severity = f"[{COLORS[check.severity]}]{check.severity:8}[/]"
        console.print(f"[bold]{check.name:20}[/] {severity}  {escaped(check.description)}", soft_wrap=True)
    console.print(TERMS, style="dim", soft_wrap=True)


def _only_history(**options: bool) -> None:
    """Refuse what makes or reports checks: the history makes none.

    Raises:
        BadParameter: one was given.

    """
    present = [name for name, is_set in options.items() if is_set]
    if present:
        raise typer.BadParameter(
            f"{', '.join(present)} with --history or --plot, which show the history and check nothing"
        )


def _measured(connection: Connection, names: list[str], seconds: float, *, quiet: bool) -> list[Measurement]:
    with progress_report(quiet=quiet) as report:
        return measure_columns(connection, *names, seconds=seconds, progress=report)


def _health(connection: Connection, report: Report) -> list[Health]:
    """The columns' numbers, of those that were asked for; none where pgmrl's schema cannot say."""
    try:
        every = health(connection)
    except NotMigrated:
        return []
    names = set(report.columns)
    return [column for column in every if column.name in names]


def _metrics(connection: Connection, report: Report, names: list[str]) -> str:
    columns = _health(connection, report)
    embeddings = embedding_status(connection) if database.installed_revision(connection) is not None else []
    if names:
        checked = {name.rpartition(" (")[0] for name in report.columns}
        embeddings = [status for status in embeddings if status.title in checked]
    return prometheus_metrics(report, columns, embeddings)


# -- for people ----------------------------------------------------------------------------------------------------


def _show(report: Report, measured: list[Measurement], *, sql: bool | None, brief: bool) -> None:
    for measurement in measured:
        console.print(_measurement(measurement), soft_wrap=True)
    if not report.findings and not report.columns and not brief:
        console.print("there are no Matryoshka columns in this database")
    for finding in report:
        console.print(
            f"[{COLORS[finding.severity]}]{finding.severity:8}[/]  [bold]{escaped(finding.subject)}[/]  "
            f"{finding.check}",
            soft_wrap=True,
        )
        console.print(f"          {escaped(finding.message)}", soft_wrap=True)
        console.print(f"          [bold]remedy:[/] {escaped(finding.remedy)}", soft_wrap=True)
        if finding.sql and (finding.severity != "info" if sql is None else sql):
            text = finding.sql.replace("\n", "\n          ")
            console.print(f"          {escaped(text)};", style="dim", soft_wrap=True)
    for skipped in report.not_checked:
        line = f"not checked: {skipped.check} of {skipped.subject}: {skipped.reason}"
        console.print(escaped(line), style="dim", soft_wrap=True)
    if report.columns and not brief and report.worst in {None, "info"}:
        console.print(_nothing_wrong(report), soft_wrap=True)


def _nothing_wrong(report: Report) -> str:
    parts = [counted(len(report.columns), "column"), counted(len(report.checks), "check")]
    if report.findings:
        parts.append(counted(len(report.findings), "hint"))
    if report.standby:
        parts.append("on this standby")
    return f"[green]{'nothing wrong' if report.findings else 'healthy'}[/]: {', '.join(parts)}"


def _measurement(measurement: Measurement) -> str:
    name, recall, reason = escaped(measurement.name), measurement.recall, escaped(measurement.reason)
    if recall is None:
        return f"{name}: recall was not measured: {reason}"
    mean, low, high = recall.recall
    kept = "recorded" if measurement.recorded else f"not recorded: {reason}"
    return f"{name}: recall@{recall.k} {mean:.3f} ({low:.3f} to {high:.3f}), {kept}"


def _status(report: Report) -> str:
    """The first line of a monitoring plugin, with its performance data."""
    counts = {severity: report.count(severity) for severity in SEVERITIES}
    word = WORDS[NAGIOS[report.worst]]
    worst = f"{report.findings[0].check}: {_line(report.findings[0].message)}" if report.findings else "nothing found"
    numbers = " ".join(f"{name}={count}" for name, count in counts.items())
    return f"PGMRL {word} - {worst}|{numbers} not_checked={len(report.not_checked)}"


def _line(message: object) -> str:
    """A text in one line, without the character that separates performance data."""
    return printable(" ".join(str(message).replace("|", "/").split()))


def _as_json(report: Report, measured: list[Measurement]) -> dict[str, Any]:
    return {
        "worst": report.worst,
        "findings": [asdict(finding) for finding in report],
        "not_checked": [asdict(skipped) for skipped in report.not_checked],
        "columns": report.columns,
        "checks": report.checks,
        "standby": report.standby,
        "measured": [
            {
                "name": measurement.name,
                "recall": None if measurement.recall is None else measurement.recall.recall._asdict(),
                "recorded": measurement.recorded,
                "reason": measurement.reason,
            }
            for measurement in measured
        ],
    }


# -- history -------------------------------------------------------------------------------------------------------


def _history(connection: Connection, names: list[str], seconds: float) -> list[RecallSeries]:
    with read_catalogue(connection, time_limit(seconds)):
        serving = [column for column in checked_columns(connection, names).columns if column.serves]
        return [series for column in serving for series in recall_series(connection, column.searched, column.name)]


def _show_history(history: list[RecallSeries], plot: Path | None, *, json: bool) -> None:
    if plot is not None:
        draw_series(history, plot)
    if json:
        write_json([asdict(recorded) for recorded in history])
        return
    if not history:
        console.print("no recall was recorded yet: `pgmrl recall table.column --record`")
    for recorded in history:
        values = [point.recall for point in recorded.measured]
        first, last = recorded.measured[0], recorded.measured[-1]
        target = "" if recorded.target is None else f", target {recorded.target:g}"
        console.print(f"[bold]{escaped(recorded.title)}[/]", soft_wrap=True)
        console.print(
            f"  {sparkline(values)}  {len(values)} from {first.measured_at:%Y-%m-%d} to {last.measured_at:%Y-%m-%d}, "
            f"{min(values):.3f} to {max(values):.3f}; last {last.recall:.3f} ({last.recall_low:.3f} to "
            f"{last.recall_high:.3f}){target}",
            soft_wrap=True,
        )
    if plot is not None:
        console.print(f"drawn into {escaped(plot)}", soft_wrap=True)
