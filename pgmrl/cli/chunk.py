"""`pgmrl chunk`: cut long texts into passages, and keep those in step with them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pgmrl.cli.backfill_options import stop_requested
from pgmrl.cli.connect import open_engine
from pgmrl.cli.options import DatabaseUrl, Json
from pgmrl.cli.output import counted
from pgmrl.cli.progress_report import progress_report
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
from pgmrl.embedding_queue import (
    WorkerOptions,
    chunk_table,
    install_chunks,
    remove_chunks,
    retry_parked,
    run_chunk_worker,
)
from pgmrl.errors import MigrationError
from pgmrl.model.chunks import CHARACTERS, Chunks

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgmrl.embedders import Embedder
    from pgmrl.embedding_queue import ChunkTable, EmbedProgress

__all__ = ["chunk"]


def chunk(
    table: Annotated[str, typer.Argument(help="table or schema.table, of the chunks")],
    install: Annotated[
        bool, typer.Option("--install", help="Install the triggers on the parent that mark its rows, and mark all.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            "--text", help='With --install: a column of the parent, or columns in braces: "{title}\\n{body}".'
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="With --install: the model whose tokens are counted, or characters.")
    ] = None,
    size: Annotated[int, typer.Option(help="With --install: tokens of a chunk, at most.")] = 256,
    overlap: Annotated[int, typer.Option(help="With --install: tokens in common with the chunk before, at most.")] = 0,
    notify: Notify = True,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the triggers; the chunks stay.")] = False,
    watch: Watch = False,
    poll: Poll = 5.0,
    listen: Listen = True,
    batch: Annotated[int, typer.Option(help="Texts that are cut and stored together.")] = 16,
    lease: Lease = 60.0,
    attempts: Attempts = 6,
    max_bytes: Annotated[int, typer.Option(help="A longer text is parked.")] = 10_000_000,
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", help="The model whose tokens are counted, where it is one of your own."),
    ] = None,
    retry: Retry = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    r"""Cut the texts of a table into chunks of another one, and keep those in step.

    Triggers on the parent mark a row in the transaction that changes its text. This command cuts what is marked, as
    often and on as many machines as you like. A chunk whose text stays keeps its row and its vector; `pgmrl embed`
    embeds the others. Ctrl-C and SIGTERM end it after the batch at hand. Exit code 1 where rows were parked or it was
    stopped.

    Example: `pgmrl chunk passages --install --text "{title}\n{body}" --by static --size 256`, then
    `pgmrl chunk passages --watch`
    """
    if {template is not None, by is not None} != {install}:
        raise typer.BadParameter("--install, --text and --by belong together")
    if sum((install, drop, watch)) > 1:
        raise typer.BadParameter("give one of --install, --drop and --watch")
    with open_engine(url, writes=True) as engine:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if install:
                if by != CHARACTERS:
                    check_form(str(by))
                declaration = Chunks(unescaped(str(template)), str(by), size, overlap, notify)
                marked = install_chunks(connection, table, declaration)
                report_line(json, "table", table, f"{counted(marked, 'row')} marked", {"marked": marked})
                return
            target = chunk_table(connection, table)
            if target is None:
                raise MigrationError(f"no trigger keeps the chunks in {table}: `pgmrl chunk --install` installs it")
            if drop:
                remove_chunks(connection, target)
                report_line(json, "table", target.title, "the triggers are removed")
                return
            if retry:
                retry_parked(connection, target.parent)
        options = WorkerOptions(batch, watch, poll, listen, lease, attempts, max_bytes=max_bytes)
        _work(engine, target, _model(target, embedder), options, json=json)


def _work(engine: Engine, target: ChunkTable, model: Embedder | None, options: WorkerOptions, *, json: bool) -> None:
    with progress_report(quiet=json) as report, stop_requested() as over:

        def show(progress: EmbedProgress) -> None:
            report(f"cutting for {target.title}", progress.written + progress.empty + progress.parked)

        done = run_chunk_worker(engine, target, model, options, stop_event=over, progress=show)
    empty = f", {done.empty:,} without a text" if done.empty else ""
    failed = f", {done.parked:,} parked (see pgmrl.parked_embeddings)" if done.parked else ""
    line = f"{counted(done.written, 'text')} cut{empty}{failed}"
    report_line(json, "table", target.title, line, asdict(done))
    if done.parked or (over.is_set() and not options.watch):
        raise typer.Exit(1)


def _model(target: ChunkTable, embedder: str | None) -> Embedder | None:
    """The model whose tokens are counted; None where characters are."""
    by = target.chunks.by
    return None if by == CHARACTERS and embedder is None else installed_embedder(target.title, by, embedder)
