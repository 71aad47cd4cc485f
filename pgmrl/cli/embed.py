"""`pgmrl embed`: keep vectors in step with a text."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from pgmrl import database
from pgmrl.cli.backfill_options import stop_requested
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import counted, errors, escaped, print_table, write_json
from pgmrl.cli.progress_report import job_progress, progress_report
from pgmrl.cli.text_template import unescaped
from pgmrl.cli.worker_options import (
    Attempts,
    Lease,
    Listen,
    Notify,
    Poll,
    Retry,
    Watch,
    check_form,
    installed_embedder,
    report_line,
)
from pgmrl.doctor import embedding_metrics
from pgmrl.embedders import load_embedder
from pgmrl.embedding_queue import (
    WorkerOptions,
    add_column,
    embedded_column,
    embedding_status,
    install_embedding,
    parked_rows,
    remove_embedding,
    retry_parked,
    run_worker,
    untrained_truncations,
)
from pgmrl.errors import MigrationError
from pgmrl.model.embed import Embed
from pgmrl.model.shortening import Rotation
from pgmrl.online.first_short import add_first_short, complete_first_short, first_short
from pgmrl.online.preconditions import check_owner

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from pgmrl.embedders import Embedder
    from pgmrl.embedding_queue import EmbeddedColumn, EmbeddingStatus, EmbedProgress
    from pgmrl.online.first_short import FirstShort

__all__ = ["column_model", "embed"]


def embed(
    column: Annotated[
        str | None, typer.Argument(help="table.column or schema.table.column, of the full vectors")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the triggers that mark rows, and mark those without a vector.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="With --install: a new column beside this one, for another model; made where there is none."
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option("--text", help='With --install: a column, or columns in braces: "{title}: {body}".')
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="With --install, the model: static, sentence-transformers:NAME, openai:NAME or a.module:name."
        ),
    ] = None,
    short_dims: Annotated[
        int | None,
        typer.Option(
            help="With --install or --index: of the short column that the vectors get, where they have none.  "
            "[default: with --to, and with --index, as of the table's other column]"
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --install: mark every row.")] = False,
    notify: Notify = True,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the triggers; the vectors stay.")] = False,
    index: Annotated[
        bool,
        typer.Option("--index", help="When no row is left: build the index of the short vectors, where there is none."),
    ] = False,
    watch: Watch = False,
    poll: Poll = 5.0,
    listen: Listen = True,
    batch: Annotated[int, typer.Option(help="Rows that are embedded and stored together.")] = 128,
    lease: Lease = 60.0,
    attempts: Attempts = 6,
    max_bytes: Annotated[int, typer.Option(help="A longer text is parked.")] = 1_000_000,
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", help="The column's model, where it is one of your own (a.module:name)."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Say how many rows wait, and do nothing.")] = False,
    as_metrics: Annotated[
        bool, typer.Option("--prometheus", help="With --status: in Prometheus' text format.")
    ] = False,
    parked: Annotated[bool, typer.Option("--parked", help="Show the rows that are not tried again, and why.")] = False,
    retry: Retry = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Keep the vectors of a table in step with a text of its rows.

    Triggers mark a row in the transaction that changes its text. This command embeds what is marked, as often and on as
    many machines as you like, until no row is left or, with --watch, for ever. Ctrl-C and SIGTERM end it after the
    batch at hand. Exit code 1 where rows were parked or it was stopped.

    Example: `pgmrl embed packages.embedding --install --text "{name}: {summary}" --by static`, then
    `pgmrl embed packages.embedding --watch`
    """
    for wrong, message in (
        ({template is not None or to is not None, by is not None} != {install}, "give --install with --text and --by"),
        (sum((install, drop, watch, status, parked)) > 1, "give one of --install, --drop, --watch, --status, --parked"),
        (as_metrics and not status, "--prometheus belongs to --status"),
        (index and any((install, drop, watch, status, parked)), "--index belongs to a run that ends"),
        (short_dims is not None and not (install or index), "--short-dims belongs to --install or --index"),
    ):
        if wrong:
            raise typer.BadParameter(message)
    with open_engine(url, writes=retry or not (status or parked)) as engine:
        if column is None:
            if not status:
                raise typer.BadParameter("name the column: table.column")
            _status(engine, None, json=json, as_metrics=as_metrics)
            return
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            target = embedded_column(connection, column)
            if install:
                beside = None if to is None else target.column
                target, declaration = _declared(connection, target, template, str(by), to)
                short = _added_short(connection, target, beside, short_dims)
                marked = install_embedding(
                    connection, target, replace(declaration, notify=notify), everything=everything
                )
                _report_install(target, marked, short, json=json)
                _advise(connection, target)
                return
            if drop:
                remove_embedding(connection, target)
                report_line(json, "column", target.title, "the triggers are removed")
                return
            if parked:
                _parked(connection, target, json=json)
                return
            if retry:
                retry_parked(connection, target)
            if status:
                _status(engine, target, json=json, as_metrics=as_metrics)
                return
            first = _short_to_index(connection, target, short_dims) if index else None
        options = WorkerOptions(batch, watch, poll, listen, lease, attempts, max_bytes=max_bytes)
        _work(engine, target, column_model(target, embedder), options, first, json=json)


def _declared(
    connection: Connection, target: EmbeddedColumn, template: str | None, by: str, to: str | None
) -> tuple[EmbeddedColumn, Embed]:
    """What is to be kept in step, and with what: with `to` a column beside the target, and its text by default."""
    check_form(by)
    declaration = Embed(unescaped(template) if template is not None else _installed(target).template, by)
    return (target if to is None else add_column(connection, target, to, load_embedder(by).dims)), declaration


def _added_short(
    connection: Connection, target: EmbeddedColumn, beside: str | None, dims: int | None
) -> FirstShort | None:
    """The short column that a column gets before it is filled: as the one beside has, or as is said; None for none."""
    if beside is None and dims is None:
        return None
    first = first_short(connection, target.table, target.column, schema=target.schema, like=beside, dims=dims)
    if first is None:
        return None
    add_first_short(connection, first)
    if first.model is not None and isinstance(first.model.definition.short.by, Rotation):
        note = (
            f"note: the rotation of {first.model.short} was learned from another model's vectors: {first.target.short} "
            f"is a prefix. When it is filled: `pgmrl fit-rotation {target.title}`, then `pgmrl reshape start "
            f"{target.title} --by …`"
        )
        errors.print(escaped(note), soft_wrap=True)
    return first


def _short_to_index(connection: Connection, target: EmbeddedColumn, dims: int | None) -> FirstShort:
    """The short column whose index is to be built; what would be in the way is said before any row is embedded."""
    check_owner(connection, target.owner)
    first = first_short(connection, target.table, target.column, schema=target.schema, dims=dims)
    if first is None:
        raise MigrationError(f"{target.title} has no short column whose index could be built: give --short-dims")
    add_first_short(connection, first)
    return first


def _report_install(target: EmbeddedColumn, marked: int, short: FirstShort | None, *, json: bool) -> None:
    line = f"{counted(marked, 'row')} marked"
    document: dict[str, object] = {"marked": marked}
    if short is not None:
        document["short"] = short.target.short
        if not short.indexed:
            line += f"; `pgmrl embed {target.title} --index` fills it, and builds the index on {short.target.short}"
    report_line(json, "column", target.title, line, document)


def _advise(connection: Connection, target: EmbeddedColumn) -> None:
    """Say where the model was not trained for the short vectors' length."""
    for short in untrained_truncations(connection):
        if (short.table_schema, short.table_name, short.column) == (target.schema, target.table, target.column):
            errors.print(escaped(f"note: {short.advice}"), soft_wrap=True)


def _work(
    engine: Engine,
    target: EmbeddedColumn,
    model: Embedder,
    options: WorkerOptions,
    first: FirstShort | None,
    *,
    json: bool,
) -> None:
    total = None if options.watch else sum(status.stale for status in _statuses(engine, target))
    with progress_report(quiet=json) as report, stop_requested() as over:

        def show(progress: EmbedProgress) -> None:
            done = progress.written + progress.empty + progress.parked
            report(f"embedding {target.title}", done, total and max(total, done))

        done = run_worker(engine, target, model, options, stop_event=over, progress=show)
        indexed = first is not None and not over.is_set()
        if first is not None and indexed:
            indexed = complete_first_short(engine, first, progress=job_progress(report), stop_event=over)
    empty = f", {done.empty:,} without a text" if done.empty else ""
    failed = f", {done.parked:,} parked (`pgmrl embed {target.title} --parked`)" if done.parked else ""
    built = f"; {first.target.short} has its index" if first is not None and indexed else ""
    line = f"{counted(done.written, 'vector')} stored{empty}{failed}{built}"
    report_line(json, "column", target.title, line, asdict(done))
    if done.parked or (over.is_set() and not options.watch):
        raise typer.Exit(1)


def column_model(target: EmbeddedColumn, embedder: str | None) -> Embedder:
    """The model that the triggers of a column name: see `installed_embedder`."""
    return installed_embedder(target.title, _installed(target).by, embedder)


def _installed(target: EmbeddedColumn) -> Embed:
    if target.embed is None:
        raise MigrationError(f"no trigger marks the rows of {target.title}: `pgmrl embed --install` installs it")
    return target.embed


def _statuses(engine: Engine, target: EmbeddedColumn | None) -> list[EmbeddingStatus]:
    with engine.connect() as connection:
        database.require_schema(connection)
        statuses = embedding_status(connection)
    return [status for status in statuses if target is None or status.title == target.title]


def _status(engine: Engine, target: EmbeddedColumn | None, *, json: bool, as_metrics: bool) -> None:
    statuses = _statuses(engine, target)
    if as_metrics:
        typer.echo(embedding_metrics(statuses), nl=False)
        return
    if json:
        write_json([asdict(status) for status in statuses])
        return
    head = ("column", "stale", "being embedded", "failed once", "oldest", "parked")
    rows = [
        (
            status.title,
            f"{status.stale:,}",
            f"{status.taken:,}",
            f"{status.failed:,}",
            "" if status.oldest_seconds is None else f"{status.oldest_seconds:,.0f} s",
            f"{status.parked:,}",
        )
        for status in statuses
    ]
    print_table(head, rows, right=range(1, 6))


def _parked(connection: Connection, target: EmbeddedColumn, *, json: bool) -> None:
    rows = parked_rows(connection, target)
    if json:
        write_json([asdict(row) for row in rows])
    else:
        cells = [(", ".join(row.key), f"{row.attempts}", row.error) for row in rows]
        print_table(("key", "attempts", "error"), cells, right=(1,), wrapped=(2,))
