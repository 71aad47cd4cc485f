"""What the commands of the embedding queue's workers share: `pgmrl embed` and `pgmrl chunk`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgmrl.cli.output import console, escaped, write_json
from pgmrl.embedders import load_embedder
from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from pgmrl.embedders import Embedder

__all__ = [
    "Attempts",
    "Lease",
    "Listen",
    "Notify",
    "Poll",
    "Retry",
    "Watch",
    "check_form",
    "installed_embedder",
    "report_line",
]

Notify = Annotated[
    bool, typer.Option("--notify/--no-notify", help="With --install: whether writers wake the workers at once.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Go on for ever, with each row that is marked.")]
Poll = Annotated[float, typer.Option(help="Seconds between two looks, where no notification comes.")]
Listen = Annotated[bool, typer.Option("--listen/--no-listen", help="Whether NOTIFY wakes it; not through a pooler.")]
Lease = Annotated[float, typer.Option(help="Seconds after which others take the rows of a worker that died.")]
Attempts = Annotated[int, typer.Option(help="After which a row that fails is parked.")]
Retry = Annotated[bool, typer.Option("--retry", help="Try parked rows again.")]

FROM_DATABASE = ("static", "sentence-transformers", "openai")
"""The kinds of models that a name in the database may load: another names code, which the command line must name."""


def installed_embedder(title: str, by: str, embedder: str | None) -> Embedder:
    """The model that triggers name; one that is code only if the command line names it as well.

    Args:
        title: what the triggers keep, for people.
        by: the model that they name.
        embedder: the one that the command line names.

    Raises:
        EmbedderError: the command line names another, or does not name code.
    """
    if embedder is not None and embedder != by:
        raise EmbedderError(f"{title} is kept by the model {by}, expected none of {safe_repr(embedder)}")
    if embedder is None and by.partition(":")[0] not in FROM_DATABASE:
        raise EmbedderError(
            f"the database names the model {safe_repr(by)}, and no code is run because a database names it: give "
            f"--embedder {by}"
        )
    return load_embedder(by)


def check_form(by: str) -> None:
    """Refuse what is no name of a model, before rows are marked for it."""
    if ":" not in by and by != "static":
        load_embedder(by)


def report_line(json: bool, kind: str, title: str, line: str, document: dict[str, object] | None = None) -> None:
    """What a command did, for people or as a document.

    Args:
        json: whether as a document.
        kind: what the title is of, such as "column".
        title: what it was done to.
        line: for people.
        document: what the document has besides.
    """
    if json:
        write_json({kind: title} | (document or {}))
    else:
        console.print(f"{escaped(title)}: {escaped(line)}", soft_wrap=True)
