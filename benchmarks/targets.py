"""The targets the issue sets, each computed from the raw rows: reached, or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.stats import Line, Value, lines, ratio, times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RECALLS: Final = (0.98, 0.99)
LEVEL: Final = 0.9
"""What counts as level: runs and builds vary by a tenth."""

WAYS: Final = {"pgmrl, prebuilt": "prebuilt", "pgmrl": "built each time", "rotation-128-m16-100": "bare SQL"}
OVERHEADS: Final = (
    ("pgmrl, built each time", "psycopg, two parameters", "fresh"),
    ("pgmrl, prebuilt", "psycopg, one parameter", "prebuilt"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        what: in words.
        goal: in words.
        found: what was measured, in words.
        reached: None where nothing was measured.
    """

    what: str
    goal: str
    found: str
    reached: bool | None


def targets(raw: Path) -> list[Target]:
    """All of them, in the issue's order."""
    memory, wide, little = (lines(raw / f"{part}.jsonl") for part in ("main", "dims3072", "confined"))
    halves = tuple(line.name for line in memory if line.side.startswith("plain-halfvec")) or ("plain-halfvec",)
    return [
        *_faster("in memory, 768 d: p50 against plain `vector`", memory, ("plain-vector",), 2.5),
        *_faster("in memory, 768 d: p50 against the best plain `halfvec`", memory, halves, LEVEL, "level (>= 0.9)"),
        *_faster("in memory, 3,072 d (synthetic): p50 against plain `halfvec`", wide, ("plain-halfvec",), 1.5),
        *_faster("memory confined: p50 against plain `vector`", little, ("plain-vector",), 7),
        *_faster("memory confined: p50 against plain `halfvec`", little, ("plain-halfvec",), 3.5),
        _smaller("index, of plain `vector`'s", memory, "plain-vector", "index_bytes", 7),
        _smaller("index, of plain `halfvec`'s", memory, "plain-halfvec", "index_bytes", 3.5),
        _smaller("build, of plain `vector`'s", memory, "plain-vector", "seconds", 2),
        _smaller("table and index, of plain `vector`'s", memory, "plain-vector", "total_bytes", 3),
        *_in_process(memory),
        *_overheads(raw / "overhead.jsonl"),
    ]


def _faster(what: str, found: Sequence[Line], peers: Sequence[str], goal: float, words: str = "") -> list[Target]:
    rows = []
    for name, way in WAYS.items():
        ours = [line for line in found if line.name == name]
        if found and not ours:  # this part has no such side
            continue
        them = [line for line in found if line.name in peers]
        words = words or f">= {goal:g} times better"
        ratios = {recall: _worst(ours[0], them, recall) for recall in RECALLS} if ours and them else {}
        rows.append(_judge(f"{what} ({way})", words, ratios, lambda value: value.median >= goal))
    return rows


def _worst(ours: Line, them: Sequence[Line], recall: float) -> Value | None:
    """Against whichever peer is the best at this recall."""
    found = [value for line in them if (value := ratio(line, ours, recall)) is not None]
    return min(found, key=lambda value: value.median, default=None)


def _judge(what: str, goal: str, ratios: dict[float, Value | None], good: Callable[[Value], bool]) -> Target:
    known = {recall: value for recall, value in ratios.items() if value is not None}
    text = "; ".join(f"{value.show()} at {_point(recall)}" for recall, value in known.items())
    missing = [_point(recall) for recall in ratios if recall not in known]
    if missing and known:
        text += f"; {', '.join(missing)} not reached by one of the two"
    return Target(what, goal, text or "not measured", all(map(good, known.values())) if known else None)


def _in_process(found: Sequence[Line]) -> list[Target]:
    rows = []
    hnswlib = [line for line in found if line.name == "hnswlib"]
    for name, way in WAYS.items():
        ours = [line for line in found if line.name == name]
        ratios = {recall: ratio(ours[0], hnswlib[0], recall) for recall in RECALLS} if ours and hnswlib else {}
        what = f"hnswlib in this process: how many times faster ({way})"
        rows.append(_judge(what, "<= 3", ratios, lambda value: value.median <= 3))
    return rows


def _smaller(what: str, found: Sequence[Line], peer: str, fact: str, goal: float) -> Target:
    goal_text = f"<= 1/{goal:g}"
    ours = next((line for line in found if line.side == "pgmrl"), None)
    them = next((line for line in found if line.side == peer), None)
    if ours is None or them is None:
        return Target(what, goal_text, "not measured", None)
    builds = ours.facts.keys() & them.facts.keys()
    value = Value.of(them.facts[build][fact] / ours.facts[build][fact] for build in builds)
    if value is None:
        return Target(what, goal_text, "not measured", None)
    return Target(what, goal_text, f"1/{value.show()}", value.median >= goal)


def _overheads(path: Path) -> list[Target]:
    found, rows = times(path), []
    for (ours, bare, way), goal in zip(OVERHEADS, (0.3, 0.1), strict=True):
        what, words = f"over bare psycopg, same statement, p50 ({way})", f"< {goal} ms"
        value = added(found, ours, bare)
        text = "not measured" if value is None else value.show(3, " ms")
        rows.append(Target(what, words, text, None if value is None else value.median < goal))
    return rows


def added(found: dict[str, dict[int, list[int]]], ours: str, bare: str) -> Value | None:
    """Difference of the medians, over the repeats."""
    if ours not in found or bare not in found:
        return None
    repeats = found[ours].keys() & found[bare].keys()
    return Value.of(median(found[ours][repeat]) - median(found[bare][repeat]) for repeat in repeats)


def median(nanoseconds: Sequence[int]) -> float:
    """In milliseconds."""
    ordered = sorted(nanoseconds)
    return ordered[len(ordered) // 2] / 1e6


def _point(recall: float) -> str:
    return f"{recall:.2f}".lstrip("0")
