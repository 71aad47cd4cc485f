"""`pgmrl chunk`: cut long texts into passages, and keep those in step with them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

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
    embedded_column,
    embedding_status,
    install_chunks,
    remove_chunks,
    retry_parked,
    run_chunk_worker,
    run_worker,
)
from pgmrl.errors import EmbedderError, MigrationError
from pgmrl.model.chunks import CHARACTERS, Chunks
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

    from pgmrl.embedders import Embedder
    from pgmrl.embedding_queue import ChunkTable, EmbeddedColumn, EmbedProgress

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
    embed: Annotated[
        bool, typer.Option("--embed", help="Give the chunks their vectors as well, as `pgmrl embed` does.")
    ] = False,
    watch: Watch = False,
    poll: Poll = 5.0,
    listen: Listen = True,
    batch: Annotated[int, typer.Option(help="Texts that are cut and stored together.")] = 16,
    lease: Lease = 60.0,
    attempts: Attempts = 6,
    max_bytes: Annotated[int, typer.Option(help="A longer text is parked.")] = 10_000_000,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder", help="The model whose tokens are counted, or that embeds, where it is one of your own."
        ),
    ] = None,
    retry: Retry = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    r"""Cut the texts of a table into chunks of another one, and keep those in step.

    Triggers on the parent mark a row in the transaction that changes its text. This command cuts what is marked, as
    often and on as many machines as you like. A chunk whose text stays keeps its row and its vector; `pgmrl embed`
    embeds the others, and so does this with --embed. Ctrl-C and SIGTERM end it after the batch at hand. Exit code 1
    where rows were parked or it was stopped.

    Example: `pgmrl chunk passages --install --text "{title}\n{body}" --by static --size 256`, then
    `pgmrl chunk passages --embed --watch`
    """
    if {template is not None, by is not None} != {install}:
        raise typer.BadParameter("--install, --text and --by belong together")
    if sum((install, drop, watch)) > 1 or (embed and (install or drop)):
        raise typer.BadParameter("give one of --install, --drop and --watch; --embed belongs to a worker")
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
            columns = _columns(connection, target) if embed else []
            if retry:
                for column in columns:
                    retry_parked(connection, column)
        options = WorkerOptions(batch, watch, poll, listen, lease, attempts, max_bytes=max_bytes)
        _work(engine, target, columns, embedder, options, json=json)


def _work(
    engine: Engine,
    target: ChunkTable,
    columns: list[EmbeddedColumn],
    embedder: str | None,
    options: WorkerOptions,
    *,
    json: bool,
) -> None:
    model, models = _models(target, columns, embedder)
    usual = WorkerOptions()
    embedding = replace(options, batch=usual.batch, max_bytes=usual.max_bytes)
    title = f"cutting{' and embedding' if columns else ''} for {target.title}"
    counts: dict[str, int] = {}
    with progress_report(quiet=json) as report, stop_requested() as over:
        drawing = threading.Lock()

        def show(name: str, progress: EmbedProgress) -> None:
            with drawing:
                counts[name] = progress.written + progress.empty + progress.parked
                report(title, sum(counts.values()))

        jobs = [partial(run_chunk_worker, engine, target, model, options, stop_event=over, progress=partial(show, ""))]
        jobs += [
            partial(run_worker, engine, column, own, embedding, stop_event=over, progress=partial(show, column.title))
            for column, own in zip(columns, models, strict=True)
        ]
        done, *embedded = _at_once(jobs, over) if options.watch else [job() for job in jobs]
    empty = f", {done.empty:,} without a text" if done.empty else ""
    failed = f", {done.parked:,} parked (see pgmrl.parked_embeddings)" if done.parked else ""
    line = f"{counted(done.written, 'text')} cut{empty}{failed}"
    document = asdict(done)
    for column, progress in zip(columns, embedded, strict=True):
        parked = f", {progress.parked:,} parked" if progress.parked else ""
        line += f"; {counted(progress.written, 'vector')} stored in {column.column}{parked}"
        document.setdefault("embedded", {})[column.column] = asdict(progress)
    report_line(json, "table", target.title, line, document)
    if any(progress.parked for progress in (done, *embedded)) or (over.is_set() and not options.watch):
        raise typer.Exit(1)


def _at_once(jobs: Sequence[Callable[[], EmbedProgress]], over: threading.Event) -> list[EmbedProgress]:
    """Each job in a thread of its own; where one fails, the others end after the batch at hand."""

    def run(job: Callable[[], EmbedProgress]) -> EmbedProgress:
        try:
            return job()
        finally:
            over.set()  # one that watches ends by itself only where it fails

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(run, job) for job in jobs]]


def _columns(connection: Connection, target: ChunkTable) -> list[EmbeddedColumn]:
    """The columns of the chunks' own table that triggers keep in step."""
    place = (target.schema, target.table)
    names = [s.title for s in embedding_status(connection) if (s.table_schema, s.table_name) == place]
    if not names:
        raise MigrationError(f"no column of {target.title} is kept in step: `pgmrl embed --install` installs it")
    return [embedded_column(connection, name) for name in names]


def _models(
    target: ChunkTable, columns: list[EmbeddedColumn], embedder: str | None
) -> tuple[Embedder | None, list[Embedder]]:
    """The model whose tokens are counted (None where characters are), and each column's; loaded once."""
    by = target.chunks.by
    if embedder is not None and not columns:
        return installed_embedder(target.title, by, embedder), []
    named = {by: target.title} if by != CHARACTERS else {}
    named = {column.embed.by: column.title for column in columns if column.embed is not None} | named
    if embedder is not None and embedder not in named:
        raise EmbedderError(f"{target.title} is kept by {', '.join(named)}, expected none of {safe_repr(embedder)}")
    loaded = {
        spec: installed_embedder(title, spec, embedder if spec == embedder else None) for spec, title in named.items()
    }
    if columns:
        loaded = {spec: cast("Embedder", _OneAtATime(model)) for spec, model in loaded.items()}
    return loaded.get(by), [loaded[column.embed.by] for column in columns if column.embed is not None]


class _OneAtATime:
    """A model that several threads use: a tokenizer that one of them has borrowed refuses the others."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if not callable(value):
            return value

        def locked(*arguments: Any) -> Any:
            with self._lock:
                return value(*arguments)

        return locked
