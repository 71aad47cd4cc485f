"""What `pgmrl backfill` and `pgmrl reshape start` share: how much of the server a backfill takes, and how it stops."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl.cli.options import byte_size
from pgmrl.cli.output import errors
from pgmrl.online.backfill import Throttle

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BatchSeconds",
    "MaxLag",
    "MaxLockWaits",
    "MaxRows",
    "WithoutTriggers",
    "Workers",
    "stop_requested",
    "throttle",
]

Workers = Annotated[int, typer.Option(help="Connections that fill the column at once.")]
MaxRows = Annotated[
    float | None, typer.Option("--max-rows-per-second", help="The fastest that each of them may write.")
]
BatchSeconds = Annotated[float, typer.Option(help="How long a batch may hold its rows.")]
MaxLag = Annotated[str, typer.Option(help="Wait while a standby is further behind.")]
MaxLockWaits = Annotated[int, typer.Option(help="Wait while more sessions than this wait for locks.")]
WithoutTriggers = Annotated[
    bool,
    typer.Option(
        "--without-triggers",
        help="The application's triggers do not fire; needs the right to set session_replication_role.",
    ),
]


def throttle(
    max_rows: float | None, batch_seconds: float, max_lag: str, max_lock_waits: int, without_triggers: bool
) -> Throttle:
    """The options of a backfill as one value.

    Raises:
        BadParameter: `--max-lag` is no size.
    """
    return Throttle(
        batch_seconds=batch_seconds,
        max_rows_per_second=max_rows,
        max_lag_bytes=byte_size("--max-lag", max_lag),
        max_lock_waits=max_lock_waits,
        without_triggers=without_triggers,
    )


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the batch at hand is finished first."""
    event = threading.Event()

    def request(_number: int, _frame: Any) -> None:
        event.set()
        errors.print("stopping after the batch at hand; run the command again to go on")

    handlers = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
