"""An iterator that runs in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["read_ahead"]

Item = TypeVar("Item")

ITEMS: Final = 2  # that wait: what is slower is never idle, and memory is bounded
LOOK: Final = 0.1  # seconds after which a thread that waits looks whether it is to end


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items, of which the next ones are made while the caller works on one; errors come where they would have come.

    Close it (`contextlib.closing`) where it may be left early: the thread then ends after the item at hand, and closes
    `items`.

    Args:
        items: used by one thread alone.
    """
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(ITEMS)
    over = threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, over), daemon=True)
    thread.start()
    try:
        while True:
            is_end, value = made.get()
            if not is_end:
                yield cast("Item", value)
            elif value is None:
                return
            else:
                raise value
    finally:
        over.set()
        thread.join()


def _make(items: Iterator[Any], made: queue.Queue[tuple[bool, Any]], over: threading.Event) -> None:
    """Put all items into the queue, and None or an error behind them."""

    def put(is_end: bool, value: Any) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                made.put((is_end, value), timeout=LOOK)
                return

    try:
        while not over.is_set():
            put(False, next(items))
    except StopIteration:
        put(True, None)
    except BaseException as error:  # raised where the items are used
        put(True, error)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
