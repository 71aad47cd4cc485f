"""The parts of the comparison: which sides, on which data, with which memory.

A part can be stopped and started again at any time: what its journal holds is not measured twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import data
from benchmarks.cpu_time import cpu_times
from benchmarks.data import Dataset
from benchmarks.drivers import driver_times
from benchmarks.journal import Journal
from benchmarks.library import LibrarySide, library_commit
from benchmarks.measure import BLOCK, WARM_UPS, Bench, Budget
from benchmarks.objects import object_times
from benchmarks.overhead import ingest_times, search_times
from benchmarks.server import CONFINED, Cgroup, Server, environment
from benchmarks.sides import (
    STATED_INDEX,
    Effort,
    FaissFlat,
    Hnswlib,
    Index,
    NumpyExact,
    PostgresSide,
    Side,
    exact_postgres,
    plain,
    plain_efforts,
    shortlists,
    two_stages,
)
from benchmarks.stack import PgvectorSide, StackSide
from benchmarks.stats import lines
from benchmarks.tables import Rule, Shortened
from benchmarks.throughput import many_times, throughput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.data import Kind

TUNED: Final = Index(24, 128)
STATED: Final = 128
"""Dimensions of the one stated configuration: Short(128, by=Rotation), m=16, ef_construction=100, inline halfvec."""

EFFORTS: Final[Mapping[str, tuple[int, ...]]] = {
    "rotation-64": (80, 160, 320, 640),
    "rotation-96": (60, 100, 160, 320),
    "rotation-128": (40, 60, 80, 120, 200, 320),
    "rotation-256": (40, 60, 80, 120, 200, 320),
    "prefix-64": (100, 300, 600, 1000),
    "prefix-96": (100, 200, 400, 800),
    "prefix-128": (60, 120, 240, 480, 800),
    "prefix-256": (40, 80, 120, 200, 400),
    "bits-768": (40, 80, 160, 320, 640),
}
REACHED: Final = 0.98
KINDS: Final[tuple[Kind, ...]] = ("halfvec", "vector")
PLAIN: Final = (20, 40, 60, 80, 120, 200, 320)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides.

    Attributes:
        out: folder of the raw results.
        work: folder of the data directories.
        builds: builds of every index.
        queries: queries at each effort.
        rows: rows of the real set; None for all.
        sides: only sides whose name matches one of these patterns; empty for all.
        sizes: rows of the curve.
        memory: megabytes of the confined server.
        budget: seconds each part may take.
        say: prints progress.
    """

    out: Path
    work: Path
    builds: int = 3
    queries: int = 400
    rows: int | None = None
    sides: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (10_000, 250_000, 1_000_000)
    memory: int = 130
    budget: float | None = None
    say: Callable[[str], None] = print

    def chosen(self, sides: Sequence[Side]) -> list[Side]:
        """Those the command line names."""
        return [side for side in sides if not self.sides or any(fnmatch(side.name, name) for name in self.sides)]


def main(options: Options) -> None:
    """In memory, 768 dimensions, every side."""
    dataset = data.debian(options.rows, options.queries)
    with _bench(options, "main", dataset) as (bench, server):
        sides = options.chosen(main_sides(server, dataset))
        _rounds(bench, sides, options.builds)


def main_sides(server: Server, dataset: Dataset) -> list[Side]:
    """Every side of the comparison in memory."""
    axes = data.principal_axes(dataset.sample(), 256)
    sides: list[Side] = [
        LibrarySide(server, axes[:STATED], _library_efforts(*EFFORTS["rotation-128"])),
        plain(server, "vector", plain_efforts(*PLAIN)),
        plain(server, "halfvec", plain_efforts(*PLAIN)),
        plain(server, "vector", plain_efforts(*PLAIN), TUNED),
        plain(server, "halfvec", plain_efforts(*PLAIN), TUNED),
    ]
    for name, sizes in EFFORTS.items():
        rule, dims = name.split("-")
        sides.append(two_stages(server, shortened(rule, int(dims), axes), shortlists(*sizes)))
    stated = shortened("rotation", STATED, axes)
    sides += [
        two_stages(server, stated, shortlists(*EFFORTS["rotation-128"]), index=STATED_INDEX),
        two_stages(server, stated, shortlists(*EFFORTS["rotation-128"]), full="vector", storage="external"),
        exact_postgres(server, "vector", 50),
        exact_postgres(server, "halfvec", 50),
        NumpyExact(100),
        FaissFlat(100),
        Hnswlib(plain_efforts(40, 80, 120, 200, 320)),
    ]
    return sides


def shortened(rule: str, dims: int, axes: Any) -> Shortened:
    """A short vector by the name of its rule."""
    rules: dict[str, Rule] = {"prefix": "prefix", "rotation": "rotation", "bits": "bits"}
    return Shortened(rules[rule], dims, axes[:dims] if rule == "rotation" else None)


def dims3072(options: Options) -> None:
    """3,072 dimensions (SYNTHETIC): where `vector` cannot be indexed at all."""
    dataset = data.widened(options.rows, min(options.queries, 300))
    with _bench(options, "dims3072", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        efforts = (20, 40, 60, 80, 120, 200)
        sides: list[Side] = [
            LibrarySide(server, axes, _library_efforts(*efforts)),
            two_stages(server, shortened("rotation", STATED, axes), shortlists(*efforts), index=STATED_INDEX),
            plain(server, "halfvec", plain_efforts(*efforts)),
        ]
        _rounds(bench, options.chosen(sides), options.builds)


def curve(options: Options) -> None:
    """Growing tables; the real set's own size is measured by `main`. From 250,000 rows on one build each."""
    for size in options.sizes:
        dataset = data.spread(size, min(options.queries, 300))
        with _bench(options, "curve", dataset) as (bench, server):
            axes = data.principal_axes(dataset.sample(), STATED)
            efforts = (20, 40, 80, 120, 200, 320)
            sides: list[Side] = [
                two_stages(server, shortened("rotation", STATED, axes), shortlists(*efforts), index=STATED_INDEX),
                plain(server, "halfvec", plain_efforts(*efforts)),
            ]
            done = _rounds(bench, options.chosen(sides), options.builds if size < 250_000 else 1)
        if not done:
            return
        server.remove()  # the largest takes several gigabytes


def confined(options: Options) -> None:
    """The whole server, page cache included, in less memory than the full index takes."""
    if (reason := Cgroup.available()) is not None:
        options.say(f"confined: skipped, {reason}")
        return
    dataset = data.debian(options.rows, min(options.queries, 100))
    with _bench(options, "confined", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        sides = options.chosen(
            [
                plain(server, "vector", plain_efforts(40, 80, 160)),
                plain(server, "halfvec", plain_efforts(40, 80, 160)),
                LibrarySide(server, axes, _library_efforts(40, 80, 120, 200)),
            ]
        )
        for build in range(1, options.builds + 1):
            for side in sides:
                if bench.finished(side, build):
                    continue
                if bench.budget.spent:
                    return
                bench.build(side, build)
                _ask_confined(bench, server, side, build, options.memory)


def _ask_confined(bench: Bench, server: Server, side: Side, build: int, megabytes: int) -> None:
    """Restart the server confined and cold, warm it the same for every side, ask, and set it free again."""
    for kind in {side.kind, "vector"}:
        bench.truth("halfvec" if kind == "halfvec" else "vector")
    side.close()
    server.stop()
    server.evict()
    limited = replace(server, settings=CONFINED, memory=megabytes << 20)
    moved = _moved(side, limited)
    try:
        with limited, contextlib.closing(moved):
            for effort in side.efforts:
                # the first effort finds cold caches: all its warm-up queries, then fewer
                for first in range(0, bench.queries, BLOCK):
                    warm_ups = 200 if effort == side.efforts[0] and first == 0 else WARM_UPS
                    bench.block(moved, effort, build, first, warm_ups)
            bench.say(f"confined build {build} of {side.name}: measured")
    finally:
        server.start()


def _moved(side: Side, server: Server) -> Side:
    """The same side, asking another server."""
    if isinstance(side, LibrarySide):
        return LibrarySide(server, side.rotation.required_axes(), side.efforts, side.parameters)
    assert isinstance(side, PostgresSide)
    return PostgresSide(server, side.name, side.layout, side.index, side.family, side.efforts)


def stack(options: Options) -> None:
    """What a user would write without the library, in the same stack; many queries at once; throughput."""
    dataset = data.debian(options.rows, options.queries)
    with _bench(options, "stack", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        ours = StackSide(server, axes, (40, 60, 80, 120), STATED_INDEX)
        halves = PgvectorSide(server, "halfvec", (40, 60, 80, 120))
        stated = two_stages(
            server, shortened("rotation", STATED, axes), shortlists(40, 60, 80, 120), index=STATED_INDEX
        )
        sides: list[Side] = [ours, halves, PgvectorSide(server, "vector", (40, 60, 80, 120)), stated]
        if not _rounds(bench, options.chosen(sides), options.builds):
            return
        efforts = _least(bench, ours), _least(bench, halves)
        for side in (ours, halves):
            side.warm()
        many_times(bench, ours, efforts[0], repeats=options.builds)
        throughput(bench, ours, halves, efforts, turns=options.builds)
        for measured in sides:
            measured.close()


def cpu(options: Options) -> None:
    """The processor time of one search in each way."""
    dataset = data.debian(options.rows, options.queries)
    with _bench(options, "cpu", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        ours = StackSide(server, axes, (80,), STATED_INDEX)
        plain_sides: dict[str, PgvectorSide] = {kind: PgvectorSide(server, kind, (80,)) for kind in KINDS}
        bare = two_stages(server, shortened("rotation", STATED, axes), shortlists(80), index=STATED_INDEX)
        for side in (ours, *plain_sides.values(), bare):
            side.load(dataset)
            if not side.is_built("cpu"):
                side.build("cpu")
            side.warm()
        cpu_times(bench, ours, plain_sides, bare, repeats=options.builds)
        for side in (ours, *plain_sides.values(), bare):
            side.close()


def _least(bench: Bench, side: Side) -> Effort:
    """The least effort that reaches a recall of .98."""
    line = next(line for line in lines(bench.journal.path) if line.name == side.name)
    point = next((point for point in line.typical() if point.recall >= REACHED), line.typical()[-1])
    return next(effort for effort in side.efforts if point.size == (effort.shortlist or effort.ef_search))


def overhead(options: Options) -> None:
    """The library over bare psycopg for the same statement, and where a query's time goes."""
    dataset = data.debian(options.rows, options.queries)
    with _bench(options, "overhead", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        side = LibrarySide(server, axes, shortlists(80))
        side.load(dataset)
        if not side.is_built("overhead"):
            side.build("overhead")
        side.warm()
        search_times(bench, side, repeats=options.builds)


def ingest(options: Options) -> None:
    """Binary COPY against ORM inserts."""
    dataset = data.debian(options.rows, 1)
    with _bench(options, "ingest", dataset) as (bench, server):
        ingest_times(bench, server, data.principal_axes(dataset.sample(), STATED), repeats=options.builds)


def drivers(options: Options) -> None:
    """The same search by each driver of SQLAlchemy's; the clone makes its data."""
    dataset = data.docstrings(options.queries)
    with _bench(options, "drivers", dataset) as (bench, server):
        side = LibrarySide(server, data.principal_axes(dataset.sample(), STATED), shortlists(80))
        side.load(dataset)
        if not side.is_built("drivers"):
            side.build("drivers")
        side.warm()
        driver_times(bench, side, repeats=options.builds)


def objects(options: Options) -> None:
    """Mapped objects of a search beside loading them by key; the clone makes its data."""
    dataset = data.docstrings(options.queries)
    with _bench(options, "objects", dataset) as (bench, server):
        object_times(bench, server, data.principal_axes(dataset.sample(), STATED), repeats=options.builds)


def explore(options: Options) -> None:
    """Questions about the parameters of scan and index: see NOTES.md."""
    dataset = data.debian(options.rows, options.queries)
    with _bench(options, "explore", dataset) as (bench, server):
        axes = data.principal_axes(dataset.sample(), STATED)
        stated = shortened("rotation", STATED, axes)
        sizes = (40, 60, 80, 120, 200)
        wider = [(60, 40), (80, 40), (120, 40), (100, 60), (120, 80), (160, 80), (160, 120), (240, 120)]
        efforts = [*shortlists(*sizes), *(Effort(ef, limit) for ef, limit in wider)]
        sides: list[Side] = [
            two_stages(server, stated, [*efforts, *shortlists(*sizes, variant="iterate")]),
            *(two_stages(server, stated, efforts, index=Index(16, size)) for size in (100, 128, 200)),
            two_stages(server, stated, efforts, index=TUNED),
            plain(server, "vector", plain_efforts(*PLAIN)),
            plain(server, "halfvec", plain_efforts(*PLAIN)),
            plain(server, "halfvec", plain_efforts(*PLAIN), TUNED),
        ]
        _rounds(bench, options.chosen(sides), options.builds)


PARTS: Final[Mapping[str, Callable[[Options], None]]] = {
    "main": main,
    "confined": confined,
    "dims3072": dims3072,
    "curve": curve,
    "stack": stack,
    "cpu": cpu,
    "overhead": overhead,
    "ingest": ingest,
    "drivers": drivers,
    "objects": objects,
    "explore": explore,
}


@contextlib.contextmanager
def _bench(options: Options, part: str, dataset: Dataset) -> Iterator[tuple[Bench, Server]]:
    journal = Journal(options.out / f"{part}.jsonl", part)
    bench = Bench(journal, dataset, min(options.queries, len(dataset.queries)), Budget(options.budget), options.say)
    options.say(f"== {part}: {dataset.name} ({dataset.note})")
    with Server(options.work / dataset.name) as server:
        with server.connect() as connection:
            about = environment(connection)
        memory = (
            {"confined_to": options.memory << 20, "confined_settings": dict(CONFINED)} if part == "confined" else {}
        )
        journal.begin(dataset=dataset.name, note=dataset.note, library=library_commit(), **about, **memory)
        yield bench, server
    options.say(f"== {part}: done")


def _rounds(bench: Bench, sides: Sequence[Side], builds: int) -> bool:
    """All rounds; False where the budget ended them."""
    try:
        for build in range(1, builds + 1):
            if not bench.round(sides, build):
                bench.say("the budget is spent: run the same command again to go on")
                return False
    finally:
        for side in sides:
            side.close()
    return True


def _library_efforts(*sizes: int) -> tuple[Effort, ...]:
    return (*shortlists(*sizes), *shortlists(*sizes, variant="prebuilt"))
