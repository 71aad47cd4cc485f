"""Rounds of builds and interleaved blocks of queries: how every side is timed, the same for all.

One round builds each side once and then asks each query of each (side, effort). Sides take turns in blocks, in a new
random order for each block, so that the machine's drift falls on all of them alike.
"""

from __future__ import annotations

import gc
import random
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.data import Truth, stored
from benchmarks.journal import DIGITS
from benchmarks.sides import PlanRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import Dataset, Floats, Kind
    from benchmarks.journal import Journal
    from benchmarks.sides import Effort, Search, Side

BLOCK: Final = 100
WARM_UPS: Final = 20
"""Unmeasured queries before each block: the other sides have been through the processor's caches."""


@dataclass
class Budget:
    """Seconds a part may take; nothing new is begun beyond them, and what was measured is on disk."""

    seconds: float | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> bool:
        """Whether to stop."""
        return self.seconds is not None and time.monotonic() - self.started > self.seconds


@dataclass
class Bench:
    """Measures sides on one data set into a journal.

    Args:
        journal: where results go.
        dataset: what is searched.
        queries: how many are asked at each effort.
        budget: when to stop.
        say: prints progress.
    """

    journal: Journal
    dataset: Dataset
    queries: int
    budget: Budget
    say: Callable[[str], None]
    _truths: dict[str, Truth] = field(default_factory=dict, init=False)

    def truth(self, kind: Kind) -> Truth:
        """What is right among the values a column of this type keeps."""
        if self.dataset.rows.dtype == np.float16:
            kind = "halfvec"  # nothing more precise exists of these rows
        if kind not in self._truths:
            self.say(f"exact answers by NumPy over {kind}")
            queries = self.dataset.queries[: self.queries]
            self._truths[kind] = Truth(stored(self.dataset.rows, kind), stored(queries, kind))
        return self._truths[kind]

    def round(self, sides: Sequence[Side], build: int) -> bool:
        """Build all, then measure all; False where the budget ended it."""
        pending = [side for side in sides if not self.finished(side, build)]
        for side in pending:
            if self.budget.spent:
                return False
            self.build(side, build)
        for side in pending:
            side.warm()
        for group in (True, False):  # libraries that keep threads spinning must not share a block with a server
            if not self._blocks([side for side in pending if side.in_database is group], build):
                return False
        return True

    def finished(self, side: Side, build: int) -> bool:
        """Whether every query of every effort of this build is written down."""
        build_id = self._build_id(side, build)
        if build_id is None:
            return False
        key = {**self._key(side, build), "build_id": build_id}
        wanted = min(side.queries or self.queries, self.queries)
        return all(
            self._refused(side, effort)
            or sum(record["count"] for record in self.journal.find("queries", **key, effort=effort.record)) >= wanted
            for effort in side.efforts
        )

    def build(self, side: Side, build: int) -> str:
        """Load and build a side, unless this build is in place already; its id."""
        side.load(self.dataset)
        for record in self.journal.find("build", **self._key(side, build)):
            if side.is_built(record["build_id"]):
                return str(record["build_id"])
        build_id = uuid.uuid4().hex[:8]
        found = side.build(build_id)
        note = {"config": side.config, "family": side.family, "note": self.dataset.note}
        self.journal.write("build", **self._key(side, build), build_id=build_id, **found, **note)
        self.say(f"build {build} of {side.name}: {found['seconds']:.1f} s, {found['index_bytes'] / 1e6:.0f} MB")
        return build_id

    def block(self, side: Side, effort: Effort, build: int, first: int, warm_ups: int = WARM_UPS) -> None:
        """Ask some queries and write them down, unless that was done already."""
        count = min(BLOCK, (side.queries or self.queries) - first, self.queries - first)
        build_id = self._build_id(side, build)
        key = {**self._key(side, build), "build_id": build_id, "effort": effort.record, "first": first}
        if count <= 0 or self._refused(side, effort) or self.journal.has("queries", **key):
            return
        try:
            search = side.prepare(effort)
        except PlanRefusedError as refused:
            self.journal.write("refused", **self._key(side, None), effort=effort.record, plan=str(refused))
            self.say(f"{side.name} {effort.record}: left out, the planner reads every row instead")
            return
        for query in self._warm_up(warm_ups, first):
            search(query)
        nanoseconds, answers = timed(search, self.dataset.queries[first : first + count])
        own, source = self.truth(side.kind), self.truth("vector")
        self.journal.write(
            "queries",
            **key,
            count=count,
            ns=nanoseconds,
            hits="".join(DIGITS[own.hits(first + number, ids)] for number, ids in enumerate(answers)),
            hits_source="".join(DIGITS[source.hits(first + number, ids)] for number, ids in enumerate(answers)),
        )

    def _blocks(self, sides: Sequence[Side], build: int) -> bool:
        turns = [(side, effort) for side in sides for effort in side.efforts]
        for first in range(0, self.queries if turns else 0, BLOCK):
            random.Random(f"{build} {first}").shuffle(turns)  # noqa: S311 - an order to measure in
            for side, effort in turns:
                if self.budget.spent:
                    return False
                self.block(side, effort, build, first)
            self.say(f"build {build}: queries {first} to {min(first + BLOCK, self.queries)} of {len(turns)} settings")
        return True

    def _warm_up(self, count: int, first: int) -> Floats:
        start = first // BLOCK * WARM_UPS % len(self.dataset.warm_up)
        return self.dataset.warm_up[start : start + count]

    def _build_id(self, side: Side, build: int) -> str | None:
        records = list(self.journal.find("build", **self._key(side, build)))
        return str(records[-1]["build_id"]) if records else None

    def _refused(self, side: Side, effort: Effort) -> bool:
        return self.journal.has("refused", **self._key(side, None), effort=effort.record)

    def _key(self, side: Side, build: int | None) -> dict[str, object]:
        return {
            "dataset": self.dataset.name,
            "side": side.name,
            "fingerprint": side.fingerprint,
            "build": build,
        }


def timed(search: Search, queries: Floats) -> tuple[list[int], list[list[int]]]:
    """Nanoseconds and answers of each query."""
    clock = time.perf_counter_ns
    nanoseconds: list[int] = []
    answers: list[list[int]] = []
    gc.disable()
    try:
        for query in queries:
            start = clock()
            found = search(query)
            nanoseconds.append(clock() - start)
            answers.append(found)
    finally:
        gc.enable()
    return nanoseconds, answers


def on_cpu(stat: Path) -> int:
    """Nanoseconds a process has run, by its `/proc/…/schedstat`."""
    return int(stat.read_text().split()[0])
