"""Where the measurements of embeddings that are kept in step put their numbers: results/embed.json."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.server import Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["keep", "new_server"]

RESULTS: Final = Path(__file__).parent / "results" / "embed.json"


def keep(name: str, numbers: Mapping[str, Any], server: Server | None = None) -> None:
    """Put a measurement's numbers into the file in the place of those of before, and print them."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if server is not None:
        with server.connect() as connection:
            numbers = {**numbers, "environment": environment(connection)}
    results[name] = numbers
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(json.dumps({key: value for key, value in numbers.items() if key != "environment"}, indent=1))


@contextmanager
def new_server(settings: Mapping[str, str]) -> Iterator[Server]:
    """A server with an empty database, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # started by root, the server runs as another user
        with Server(
            Path(folder) / "data", {"shared_buffers": "1GB", "maintenance_work_mem": "256MB", **settings}
        ) as server:
            yield server
