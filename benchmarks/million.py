"""The command line on a million short texts: `python -m benchmarks.million`, `--rows 100000` for less.

The texts are made here, of invented words: each belongs to a topic, whose words it mostly has, and to a tenant. They
are embedded by the static model and loaded, measured, tuned and judged by the commands that a user would type, each in
a process of its own. What is written to results/million.md: how long each took, the client's largest memory, and what
tuning predicted beside what was measured.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.server import Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
TOPIC_ROWS: Final = 500  # texts of a topic
TOPIC_WORDS: Final = 25
TENANTS: Final = 400  # each has 0.25 % of the rows
JUDGED: Final = 300  # queries
RELEVANT: Final = 20  # judged documents of each
SETTINGS: Final = {"shared_buffers": "2GB", "effective_cache_size": "4GB"}
SYLLABLES: Final = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

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
        megabytes: the largest memory of its process.
        result: what it printed as JSON, as far as it is kept.

    """

    name: str
    command: str
    seconds: float
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


def run(url: str, name: str, arguments: Sequence[str]) -> Step:
    """One command in a process of its own; its standard error is a file, as in a job that is not watched."""
    print(f"{name}: pgmrl {' '.join(arguments)[:100]}", flush=True)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "pgmrl.cli", *arguments],
            stdout=out,
            stderr=said,
            env=os.environ | {"DATABASE_URL": url},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        document = json.loads(out.read() or "{}")
        if not document:  # exit code 1 with a document: tuning found nothing that reaches the recall
            raise SystemExit(f"{name} failed: {said.read()[-2000:]}")
    return Step(name, f"pgmrl {' '.join(arguments)}", seconds, usage.ru_maxrss / 1024, document)


def measure(rows: int, work: Path) -> dict[str, Any]:
    """All steps on a server of their own."""
    file = work / "texts.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in texts(rows))
    with Server(work / "data", SETTINGS) as server:
        url = server.sqlalchemy_url
        short, name = "128", "texts.embedding"
        load = ["load", str(file), "--table", "texts", "--text", "{name}", "--short-dims", short, "--json"]
        steps = [run(url, "load", load)]
        rare = ["--where", "tenant_id = 7"]
        steps.append(run(url, "recall, 200 queries", ["recall", name, "--seconds", "600", "--json"]))
        steps.append(run(url, "recall, rare filter", ["recall", name, *rare, "--seconds", "600", "--json"]))
        steps.append(run(url, "tune, as it is", ["tune", name, "--json"]))
        own = ["--dims", short, "--by", "prefix", "--types", "halfvec"]
        steps.append(run(url, "tune of this column", ["tune", name, *own, "--json"]))
        option = steps[-1].result["choice"] or steps[-1].result["best"]
        numbers = ["--shortlist", str(option["shortlist"]), "--ef-search", str(option["ef_search"])]
        again = ["recall", name, *numbers, "--sample", "1000", "--seed", "3", "--seconds", "600", "--json"]
        steps.append(run(url, "recall of what was tuned", again))
        steps.append(run(url, f"evaluate, {JUDGED} queries", ["evaluate", name, "--judgements", JUDGEMENTS, "--json"]))
        with server.connect() as connection:
            about = environment(connection)
    return {
        "rows": rows,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "environment": about,
        "load average": os.getloadavg(),
        "steps": [asdict(step) | {"result": kept(step)} for step in steps],
    }


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
        f"{measured['machine']}; load average at the end {measured['load average'][0]:.1f}. Above the number of cores "
        "others worked on the machine: the times are then upper bounds."
    )
    lines = [
        f"# The command line on {measured['rows']:,} short texts",
        "",
        made,
        "",
        machine,
        "",
        "| step | seconds | client's memory, MB | what came out |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {step['seconds']:.0f} | {step['megabytes']:.0f} | {outcome(name, step['result'])} |"
        for name, step in steps.items()
    ]
    lines += ["", "| recall | predicted by tune | measured by recall |", "|---|---|---|", *predictions(steps), ""]
    plain = steps["tune of this column"]["result"]["plain"]
    if plain is not None:
        beside = (
            f"Plain `halfvec` beside the choice, both at {plain['rows']:,} rows: {plain['latency_ms']:.2f} ms at "
            f"{plain['recall']:.3f} against {plain['chosen_ms']:.2f} ms at {plain['chosen_recall']:.3f}; its index is "
            f"{plain['index_bytes'] / plain['chosen_bytes']:.1f} times as large."
        )
        lines += [beside, ""]
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
    parser.add_argument("--report", action="store_true", help="only the page, of the numbers that are there")
    options = parser.parse_args()
    numbers = options.out / "million.json"
    if not options.report:
        with tempfile.TemporaryDirectory(prefix="pgmrl-million-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            numbers.write_text(json.dumps(measure(options.rows, Path(folder)), indent=1, default=str) + "\n")
    (options.out / "million.md").write_text(page(json.loads(numbers.read_text())))


if __name__ == "__main__":
    main()
