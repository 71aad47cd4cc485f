"""From raw rows to numbers: recall, percentiles, latency at equal recall, medians and spread over builds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.data import K
from benchmarks.journal import DIGITS, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from benchmarks.journal import Record

RECALLS: Final = (0.95, 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class Point:
    """One search effort of one build.

    Attributes:
        size: the shortlist, or ef_search where there is none.
        ef_search: candidates HNSW keeps.
        recall: recall@10 among the values the table keeps.
        recall_source: recall@10 among the single-precision originals.
        p50: milliseconds.
        p95: milliseconds.
        queries: how many were asked.
    """

    size: int
    ef_search: int
    recall: float
    recall_source: float
    p50: float
    p95: float
    queries: int


@dataclass(frozen=True, slots=True)
class Value:
    """A number with its spread.

    Attributes:
        median: over builds.
        low: the smallest.
        high: the largest.
        at_most: the true number may be smaller: the least effort measured was already enough.
    """

    median: float
    low: float
    high: float
    at_most: bool = False

    @classmethod
    def of(cls, numbers: Iterable[float], *, at_most: bool = False) -> Value | None:
        """The median and spread of these; None of none."""
        found = sorted(numbers)
        return cls(float(np.median(found)), found[0], found[-1], at_most) if found else None

    def show(self, digits: int = 2, unit: str = "") -> str:
        """As text: `1.11 (1.08 to 1.16)`."""
        sign = "<= " if self.at_most else ""
        text = f"{sign}{self.median:.{digits}f}{unit}"
        return text if self.low == self.high else f"{text} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Line:
    """One side, or one variant of a side, on one data set.

    Attributes:
        side: as recorded.
        variant: another way to ask the same index.
        family: `two stages`, `plain`, `exact` or `in process`.
        dataset: as recorded.
        builds: for each build the points in order of effort.
        facts: for each build the record of its building.
    """

    side: str
    variant: str
    family: str
    dataset: str
    builds: dict[int, list[Point]]
    facts: dict[int, Record]

    @property
    def name(self) -> str:
        """Side and variant."""
        return f"{self.side}, {self.variant}" if self.variant else self.side

    @cached_property
    def rows(self) -> int:
        """Rows of the data set."""
        return int(self.dataset.split("-")[1].split("x")[0])

    def latency(self, recall: float, of: Callable[[Point], float] = lambda point: point.p50) -> dict[int, float]:
        """For each build that reaches a recall: the latency there, interpolated between efforts."""
        found = {build: at_recall(points, recall, of)[0] for build, points in self.builds.items()}
        return {build: value for build, value in found.items() if value is not None}

    def value(self, recall: float, of: Callable[[Point], float] = lambda point: point.p50) -> Value | None:
        """The latency at a recall over all builds; None where one of them does not reach it."""
        found = self.latency(recall, of)
        if len(found) < len(self.builds):
            return None
        bounded = any(at_recall(points, recall, of)[1] for points in self.builds.values())
        return Value.of(found.values(), at_most=bounded)

    def fact(self, name: str, scale: float = 1.0) -> Value | None:
        """A number of the builds: `seconds`, `index_bytes`, `table_bytes`, `total_bytes`."""
        return Value.of(record[name] * scale for record in self.facts.values())

    def typical(self) -> list[Point]:
        """For each effort the median of the builds."""
        sizes = sorted({(point.size, point.ef_search) for points in self.builds.values() for point in points})
        return [self._typical(*size) for size in sizes]

    def _typical(self, size: int, ef_search: int) -> Point:
        same = [p for points in self.builds.values() for p in points if (p.size, p.ef_search) == (size, ef_search)]
        recall, source, p50, p95 = (
            float(np.median(values))
            for values in zip(*((p.recall, p.recall_source, p.p50, p.p95) for p in same), strict=True)
        )
        return Point(size, ef_search, recall, source, p50, p95, sum(p.queries for p in same))


def at_recall(points: list[Point], recall: float, of: Callable[[Point], float]) -> tuple[float | None, bool]:
    """The latency at a recall, and whether it is only an upper bound.

    Linear between two neighbouring efforts, the cheaper one below and the other one above the recall. Latency is a
    convex function of recall, so this errs a little on the slow side, for every side alike.
    """
    ordered = sorted(points, key=lambda point: (point.recall, -of(point)))
    enough = [point for point in ordered if point.recall >= recall]
    if not enough:
        return None, False
    cheapest = min(enough, key=of)
    below = [point for point in ordered if point.recall < recall and of(point) < of(cheapest)]
    if not below:
        return of(cheapest), cheapest.recall > recall
    near = below[-1]
    share = (recall - near.recall) / (cheapest.recall - near.recall)
    return of(near) + share * (of(cheapest) - of(near)), False


def ratio(slower: Line, faster: Line, recall: float) -> Value | None:
    """How many times better the second is at equal recall, build by build."""
    ours, theirs = faster.latency(recall), slower.latency(recall)
    both = ours.keys() & theirs.keys()
    if not both or len(ours) < len(faster.builds):
        return None
    theirs_bounded = any(at_recall(slower.builds[build], recall, lambda p: p.p50)[1] for build in both)
    return Value.of((theirs[build] / ours[build] for build in both), at_most=theirs_bounded)


def lines(path: Path) -> list[Line]:
    """Everything measured in one part: the newest configuration of each side, the newest of each build."""
    records = read(path)
    built: dict[tuple[str, str], dict[int, Record]] = {}
    newest: dict[tuple[str, str], str] = {}
    for record in records:
        if record["kind"] == "build":
            key = (record["dataset"], record["side"])
            if newest.get(key) != record["fingerprint"]:
                newest[key], built[key] = record["fingerprint"], {}
            built[key][record["build"]] = record
    asked = _queries(records)
    found = []
    for (dataset, side), facts in built.items():
        variants: dict[str, dict[int, list[Point]]] = {}
        for build, fact in facts.items():
            for effort, rows in asked.get((fact["build_id"], side), {}).items():
                given = json.loads(effort)
                per_build = variants.setdefault(given.get("variant", ""), {})
                per_build.setdefault(build, []).append(_point(given, rows))
        for variant, builds in variants.items():
            points = {build: sorted(p, key=lambda point: (point.size, point.ef_search)) for build, p in builds.items()}
            kept = {build: facts[build] for build in points}
            found.append(Line(side, variant, next(iter(kept.values()))["family"], dataset, points, kept))
    return found


def _queries(records: list[Record]) -> dict[tuple[str, str], dict[str, dict[int, Record]]]:
    """Blocks by build and side, effort, first query; a block that was measured twice counts once, the last time."""
    found: dict[tuple[str, str], dict[str, dict[int, Record]]] = {}
    for record in records:
        if record["kind"] == "queries":
            efforts = found.setdefault((record["build_id"], record["side"]), {})
            efforts.setdefault(json.dumps(record["effort"], sort_keys=True), {})[record["first"]] = record
    return found


def _point(effort: Record, blocks: dict[int, Record]) -> Point:
    nanoseconds = np.concatenate([block["ns"] for block in blocks.values()])
    recall, source = (recall_of("".join(block[name] for block in blocks.values())) for name in ("hits", "hits_source"))
    p50, p95 = np.percentile(nanoseconds, [50, 95]) / 1e6
    ef_search = int(effort.get("ef_search", 0))
    size = int(effort.get("shortlist", ef_search))
    return Point(size, ef_search, recall, source, float(p50), float(p95), len(nanoseconds))


def recall_of(hits: str) -> float:
    """The mean recall of queries from their digits."""
    return sum(map(DIGITS.index, hits)) / (K * len(hits))


def times(path: Path) -> dict[str, dict[int, list[int]]]:
    """Latencies of the overhead part: way -> repeat -> nanoseconds, in order of the queries; newest library only."""
    records = [record for record in read(path) if record["kind"] == "times"]
    found: dict[str, dict[int, list[int]]] = {}
    for record in sorted(records, key=lambda r: r["first"]):
        if record["fingerprint"] == records[-1]["fingerprint"]:
            found.setdefault(record["name"], {}).setdefault(record["repeat"], []).extend(record["ns"])
    return found


def loads(path: Path) -> dict[str, list[Record]]:
    """Loads of the ingest part by name."""
    found: dict[str, list[Record]] = {}
    for record in read(path):
        if record["kind"] == "ingest":
            found.setdefault(record["name"], []).append(record)
    return found


def environment(path: Path) -> Record | None:
    """What the newest run of a part was measured with."""
    runs = [record for record in read(path) if record["kind"] == "run"]
    return runs[-1] if runs else None
