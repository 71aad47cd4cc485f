"""What `import pgmrl` costs beside what it is made of: SQLAlchemy's ORM, NumPy and psycopg.

python -m benchmarks.imports

Each import runs in a fresh interpreter, in turns with the other, with compiled bytecode and a warm file cache.
Importing does little but compute, so wall time and processor's time are the same on an idle machine; where other jobs
run, the second says more, and it decides.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.journal import HERE, RAW, Journal, read
from benchmarks.server import machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PART: Final = "imports"
COMMAND: Final = "python -m benchmarks.imports"
BASE: Final = "import sqlalchemy.orm, numpy, psycopg"
OURS: Final = "import pgmrl"
MORE: Final = "more, each beside the one before it"
STATEMENTS: Final = (BASE, OURS)
LIMIT_MS: Final = 100
RUNS: Final = 25

CHILD: Final = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(json.dumps([1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu), len(sys.modules)]))
"""


def measure(journal: Journal, runs: int) -> None:
    """Import in turns; one line of the journal for each import."""
    for statement in STATEMENTS:
        _imported(statement)  # compiles what is not yet
    packages = {name: version(name) for name in ("sqlalchemy", "numpy", "psycopg", "pgvector")}
    journal.begin(command=COMMAND, machine=machine(), python=platform.python_version(), packages=packages, runs=runs)
    for _ in range(runs):
        for statement in STATEMENTS:
            wall, cpu, modules = _imported(statement)
            journal.write("import", statement=statement, wall_ms=wall, cpu_ms=cpu, modules=modules)


def _imported(statement: str) -> tuple[float, float, int]:
    child = [sys.executable, "-c", CHILD.format(statement=statement)]
    done = subprocess.run(child, cwd=HERE.parent, check=True, capture_output=True, text=True)  # noqa: S603 - our own text
    wall, cpu, modules = json.loads(done.stdout)
    return wall, cpu, modules


def rows(path: Path) -> list[tuple[str, ...]]:
    """A table of the newest run: what was imported, wall and processor's milliseconds, modules."""
    records = read(path)
    newest = next((record["run"] for record in reversed(records) if record["kind"] == "import"), None)
    imports = [record for record in records if record["kind"] == "import" and record["run"] == newest]
    if not imports:
        return []
    columns = [[record for record in imports if record["statement"] == statement] for statement in STATEMENTS]
    differences = [
        {name: ours[name] - base[name] for name in ("wall_ms", "cpu_ms", "modules")}
        for base, ours in zip(*columns, strict=True)
    ]
    listed = [*zip(STATEMENTS, columns, strict=True), (MORE, differences)]
    return [
        (
            f"`{what}`" if what in STATEMENTS else what,
            _spread([record["wall_ms"] for record in measured]),
            _spread([record["cpu_ms"] for record in measured]),
            str(median(record["modules"] for record in measured)),
        )
        for what, measured in listed
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


HEADINGS: Final = ("", "wall, ms", "processor, ms", "modules")


def main(arguments: list[str] | None = None) -> int:
    """Measure, append to the raw results, print the table; exit code 1 beyond the limit."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="What `import pgmrl` costs.")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"imports of each, at least 15 (default {RUNS})")
    given: Any = parser.parse_args(arguments)
    path = RAW / f"{PART}.jsonl"
    measure(Journal(path, PART), max(15, given.runs))
    table = [HEADINGS, ["---"] * len(HEADINGS), *rows(path)]
    print("".join(f"| {' | '.join(cells)} |\n" for cells in table), end="")
    more = float(rows(path)[-1][2].split()[0])
    print(f"{more:.0f} ms more of the processor's time; the goal is at most {LIMIT_MS}")
    return 0 if more <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
