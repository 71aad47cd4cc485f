"""The raw results: one file of JSON lines for each part, only ever appended to.

A killed run loses at most the block it was in, and the next run goes on behind what is there. Kinds of line: `run`
(versions, settings, machine, commit), `build` (seconds, bytes), `queries` (latencies and hits of some queries, one
entry each), `times` (other latencies).
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).resolve().parent
RAW: Final = HERE / "results" / "raw"
DIGITS: Final = "0123456789a"
"""Hits of one query as one character; `a` is ten."""

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The lines of a file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(cast("Record", json.loads(line)))
        except json.JSONDecodeError:
            continue
    return records


@dataclass
class Journal:
    """One part's file.

    Args:
        path: the file; made when first written to.
        part: as it is recorded.
    """

    path: Path
    part: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _records: list[Record] = field(init=False)

    def __post_init__(self) -> None:
        self._records = read(self.path)

    def begin(self, **environment: Any) -> None:
        """Say what the following lines were measured with."""
        self.write("run", **{"commit": commit(), "command": f"python -m benchmarks {self.part}", **environment})

    def write(self, kind: str, **values: Any) -> Record:
        """Append one line."""
        record: Record = {"kind": kind, "part": self.part, "run": self.run, "at": _now(), **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._records.append(record)
        return record

    def find(self, kind: str, **values: Any) -> Iterator[Record]:
        """The lines of a kind with these values."""
        for record in self._records:
            if record["kind"] == kind and all(record.get(name) == value for name, value in values.items()):
                yield record

    def has(self, kind: str, **values: Any) -> bool:
        """Whether there is such a line."""
        return next(self.find(kind, **values), None) is not None


def commit() -> str:
    """The checkout's commit, with `+` where tracked files of the library differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
            ["git", *arguments],  # noqa: S607
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "pgmrl") else "")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
