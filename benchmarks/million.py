"""The command line on a million short texts: `python -m benchmarks.million`, `--rows 100000` for less.

The texts are made here, of invented words: each belongs to a topic, whose words it mostly has, and to a tenant. They
are embedded by the static model and loaded, measured, tuned and judged by the commands that a user would type, each in
a process of its own. What is written to results/million.md: how long each took, how much processor time client and
server together, the client's largest memory, and what tuning predicted beside what was measured.

`--work FOLDER` keeps the server's data there, so that `--steps "tune of this column; recall of what was tuned"` runs
these alone another time; what the other steps have measured stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import million_extrapolation, million_plain
from benchmarks.server import Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
TOPIC_ROWS: Final = 500  # texts of a topic
TOPIC_WORDS: Final = 25
TENANTS: Final = 400  # each has 0.25 % of the rows
JUDGED: Final = 300  # queries
RELEVANT: Final = 20  # judged documents of each
NEW: Final = 400  # texts to ask with that are in no table; fewer than a topic has, so that the topics are the same
SETTINGS: Final = {"shared_buffers": "2GB", "effective_cache_size": "4GB"}
SYLLABLES: Final = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

WITHOUT: Final = "as if there were no index"  # the last steps
PLAIN: Final = "plain halfvec"

JUDGEMENTS: Final = f"""
SELECT 'q' || q.id AS query, d.id::text AS document, 1 AS relevance, q.name AS text
FROM (SELECT * FROM texts WHERE id <= {JUDGED}) AS q
CROSS JOIN LATERAL (
    SELECT id FROM texts AS t WHERE t.topic = q.topic AND t.id <> q.id ORDER BY id LIMIT {RELEVANT}
) AS d
"""


@dataclass(frozen=True)
class Step:
    """A command that was run.

    Attributes:
        name: of it.
        command: as a user types it.
        seconds: that it took.
        processor: seconds of processor time, of it and of the server.
        megabytes: the largest memory of its process.
        result: what it printed as JSON, as far as it is kept.

    """

    name: str
    command: str
    seconds: float
    processor: float
    megabytes: float
    result: dict[str, Any]


def texts(rows: int) -> Iterator[dict[str, Any]]:
    """Short texts of topics and tenants; the same for the same number."""
    drawn = random.Random(7)  # noqa: S311 - no secret
    words = ["".join(drawn.choice(SYLLABLES) for _ in range(drawn.randint(2, 4))) for _ in range(20_000)]
    topics = [[drawn.choice(words) for _ in range(TOPIC_WORDS)] for _ in range(max(20, rows // TOPIC_ROWS))]
    for number in range(1, rows + 1):
        topic = drawn.randrange(len(topics))
        own = [drawn.choice(topics[topic] if drawn.random() < 0.75 else words) for _ in range(drawn.randint(4, 10))]
        tenant = drawn.randrange(TENANTS)
        yield {"id": number, "name": " ".join(own), "topic": topic, "tenant_id": tenant}


def run(server: Server, name: str, arguments: Sequence[str]) -> Step:
    """One command in a process of its own; its standard error is a file, as in a job that is not watched."""
    print(f"{name}: pgmrl {' '.join(arguments)[:100]}", flush=True)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        started, before = time.monotonic(), server.processor_seconds()
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "pgmrl.cli", *arguments],
            stdout=out,
            stderr=said,
            env=os.environ | {"DATABASE_URL": server.sqlalchemy_url},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        processor = usage.ru_utime + usage.ru_stime + server.processor_seconds() - before
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        document = json.loads(out.read() or "{}")
        if not document:  # exit code 1 with a document: tuning found nothing that reaches the recall
            raise SystemExit(f"{name} failed: {said.read()[-2000:]}")
    return Step(name, f"pgmrl {' '.join(arguments)}", seconds, processor, usage.ru_maxrss / 1024, document)


def commands(file: Path, tuned: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """The commands by the names of their steps, in order.

    Args:
        file: with the texts.
        tuned: what tuning of this column has chosen, for the step that measures it.

    """
    name, short = "texts.embedding", "128"
    recall, own = ["recall", name, "--seconds", "600"], ["tune", name, "--by", "prefix", "--types", "halfvec"]
    option = tuned or {"shortlist": 0, "ef_search": 0}
    numbers = ["--shortlist", str(option["shortlist"]), "--ef-search", str(option["ef_search"])]
    return {
        "load": ["load", str(file), "--table", "texts", "--text", "{name}", "--short-dims", short],
        "recall, 200 queries": recall,
        "recall, rare filter": [*recall, "--where", "tenant_id = 7"],
        "tune, as it is": ["tune", name],
        "tune of this column": [*own, "--dims", short],
        "recall of what was tuned": [*recall, *numbers, "--sample", "400", "--seed", "3"],
        f"evaluate, {JUDGED} queries": ["evaluate", name, "--judgements", JUDGEMENTS],
    }


def measure(rows: int, work: Path, chosen: Sequence[str], numbers: Path) -> None:
    """The steps on a server of their own; their numbers are written after each.

    Args:
        rows: of the table.
        work: the folder of the server's data.
        chosen: names of the steps to run; the file's numbers of others are kept. Empty for all.
        numbers: the file.

    """
    measured = json.loads(numbers.read_text()) if chosen and numbers.exists() else {"steps": []}
    steps = {step["name"]: step for step in measured["steps"]}
    file = work / "texts.jsonl"
    if not file.exists():
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in texts(rows))
    with Server(work / "data", SETTINGS) as server:
        with server.connect() as connection:
            about = environment(connection)
        names = list(commands(file, None))
        for name in names:
            if chosen and name not in chosen:
                continue
            tuned = steps.get("tune of this column", {}).get("result", {})
            arguments = commands(file, tuned.get("choice") or tuned.get("best"))[name]
            step = run(server, name, [*arguments, "--json"])
            steps[name] = asdict(step) | {"result": kept(step), "load average": os.getloadavg()}
            measured |= {
                "rows": rows,
                "machine": f"{os.cpu_count()} cores, {platform.machine()}",
                "environment": about,
                "steps": [steps[name] for name in names if name in steps],
            }
            _write(measured, numbers)
        if not chosen or WITHOUT in chosen:
            measured["extrapolated"] = million_extrapolation.extrapolate(server, _new_texts(rows))
            _write(measured, numbers)
        if not chosen or PLAIN in chosen:
            measured["plain"] = million_plain.compare(server, _new_texts(rows))
            _write(measured, numbers)


def _new_texts(rows: int) -> Iterator[dict[str, Any]]:
    """Of the same topics, and in no table of so many rows."""
    return islice(texts(rows + NEW), rows, None)


def _write(measured: dict[str, Any], numbers: Path) -> None:
    numbers.write_text(json.dumps(measured, indent=1, default=str) + "\n")


def kept(step: Step) -> dict[str, Any]:
    """Of a command's document what the table needs."""
    recall = ("recall", "requested", "shortlist", "ef_search", "p50_ms", "seconds", "index", "scan_limit")
    tune = ("choice", "best", "current", "checks", "plain", "incomplete", "notes", "seconds", "queries", "rows_read")
    names = {"load": ("rows", "seconds", "recall"), "recall": recall, "tune": tune, "evaluate": ("queries", "judged")}
    command = step.name.split()[0].rstrip(",")
    tried = {"queries": len(step.result["losses"])} if command == "recall" else {}
    return {name: step.result[name] for name in names[command]} | tried


# -- the page ------------------------------------------------------------------------------------------------------


def page(measured: dict[str, Any]) -> str:
    """The results as Markdown."""
    steps = {step["name"]: step for step in measured["steps"]}
    made = (
        "Made by `python -m benchmarks.million`; the numbers are in million.json. Invented texts of topics and "
        "tenants, 256 dimensions by the static model, 128 of them short."
    )
    machine = (
        f"{measured['machine']}. Where the load average is above the number of cores, others worked on the machine and "
        "the seconds are upper bounds. The processor time is of client and server together."
    )
    lines = [
        f"# The command line on {measured['rows']:,} short texts",
        "",
        made,
        "",
        machine,
        "",
        "| step | seconds | processor time, s | load average | client's memory, MB | what came out |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {step['seconds']:.0f} | {step['processor']:.0f} | {step['load average'][0]:.1f} "
        f"| {step['megabytes']:.0f} | {outcome(name, step['result'])} |"
        for name, step in steps.items()
    ]
    if {"tune of this column", "recall of what was tuned", "recall, 200 queries"} <= set(steps):
        lines += ["", "| recall | predicted by tune | measured by recall |", "|---|---|---|", *predictions(steps)]
    lines.append("")
    plain = steps.get("tune of this column", {"result": {}})["result"].get("plain")
    if plain is not None:
        beside = (
            f"Plain `halfvec` beside the choice, both at {plain['rows']:,} rows: {plain['latency_ms']:.2f} ms at "
            f"{plain['recall']:.3f} against {plain['chosen_ms']:.2f} ms at {plain['chosen_recall']:.3f}; its index is "
            f"{plain['index_bytes'] / plain['chosen_bytes']:.1f} times as large."
        )
        lines += [beside, ""]
    if "extrapolated" in measured:
        lines += million_extrapolation.section(measured["extrapolated"])
    if "plain" in measured:
        lines += million_plain.section(measured["plain"])
    return "\n".join(lines)


def outcome(name: str, result: dict[str, Any]) -> str:
    """What a step found, in a few words."""
    if name == "load":
        recall = result["recall"]
        return f"{result['rows']:,} rows" + ("" if recall is None else f", recall@10 {recall['mean']:.3f}")
    if name.startswith("recall"):
        limit = result["scan_limit"]
        ended = "" if limit is None else f"; {limit['ended']} of {limit['scans']} scans ended at {limit['limit']}"
        tried = f"{result['queries']} of {result['requested']} queries"
        return f"{tried}, recall@10 {result['recall']['mean']:.3f}, median {result['p50_ms']:.1f} ms{ended}"
    if name.startswith("tune"):
        option = result["choice"] or result["best"]
        if option is None:
            return "; ".join(result["incomplete"])
        what = f"{option['shortening']} {option['dims']}, {option['shortlist']} of {option['ef_search']}"
        return f"{what}: recall {option['recall']['mean']:.3f}, {option['latency_ms']:.2f} ms"
    return f"{result['queries']} queries, {result['judged']:,} judgements"


def predictions(steps: dict[str, Any]) -> Iterator[str]:
    """What tuning predicted for this column beside what was measured."""
    tuned, measured = steps["tune of this column"]["result"], steps["recall of what was tuned"]["result"]
    option = tuned["choice"] or tuned["best"]
    current, before = tuned["current"], steps["recall, 200 queries"]["result"]
    pairs = [(option, measured)] if current is None else [(option, measured), (current, before)]
    for predicted, found in pairs:
        numbers = f"shortlist {predicted['shortlist']}, ef_search {predicted['ef_search']}"
        yield f"| {numbers} | {shown(predicted['recall'])} | {shown(found['recall'])} |"


def shown(recall: dict[str, float]) -> str:
    """A recall with its interval."""
    return f"{recall['mean']:.3f} ({recall['low']:.3f} to {recall['high']:.3f})"


def main() -> None:
    """Measure and write, or write again what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="keep the server's data in this folder")
    parser.add_argument("--steps", default="", help="only these, by name, separated by semicolons; needs --work")
    parser.add_argument("--report", action="store_true", help="only the page, of the numbers that are there")
    options = parser.parse_args()
    numbers = options.out / "million.json"
    if not options.report:
        with tempfile.TemporaryDirectory(prefix="pgmrl-million-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            chosen = [name.strip() for name in options.steps.split(";") if name.strip()]
            measure(options.rows, options.work or Path(folder), chosen, numbers)
    (options.out / "million.md").write_text(page(json.loads(numbers.read_text())))


if __name__ == "__main__":
    main()
