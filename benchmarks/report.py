"""The report: tables and plots from the raw rows, each with the command that measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import cpu_time, drivers, imports, objects, plots, throughput
from benchmarks.stats import RECALLS, Line, Value, environment, lines, loads, times
from benchmarks.targets import OVERHEADS, added, median, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.journal import Record

NOTE = """\
Written by `python -m benchmarks report` from `raw/`; do not edit. Times are milliseconds; a number is the median over
the builds, with the smallest and largest in brackets. `p50 at .98` is interpolated between the two search efforts
around that recall@10; `<=` marks a side whose least effort measured was already enough. Recall counts every answer at
most as far as the true tenth, among the values the table keeps. Every PostgreSQL side has one connection on a Unix
socket, one prepared statement for each effort, binary parameters, autocommit, the same warm-up, and takes turns with
the others in blocks of 100 queries. Tables hold an id and the vectors. `pgmrl` is the stated configuration through
the library and a SQLAlchemy Session: `Short(128, by=Rotation)`, m=16, ef_construction=100, inline `halfvec`, its
Select built for each query; `pgmrl, prebuilt` builds it once. The other two-stage sides are the same statement in bare
SQL; `-m24-128` means m=24, ef_construction=128.
"""


def write_report(raw: Path, results: Path) -> None:
    """Write `README.md`, `sweeps.md` and the plots beside the raw results."""
    main = lines(raw / "main.jsonl")
    parts = [
        "# pgmrl beside its peers\n",
        NOTE,
        _targets(raw),
        _main(raw, results, main),
        _stack(raw),
        _cpu(raw),
        _part(raw, results, "confined", "Memory confined below the full index"),
        _part(raw, results, "dims3072", "3,072 dimensions (SYNTHETIC)"),
        _curve(raw, results, main),
        _overhead(raw),
        _ingest(raw),
        _drivers(raw),
        _objects(raw),
        _imports(raw),
    ]
    results.mkdir(parents=True, exist_ok=True)
    (results / "README.md").write_text("\n".join(part for part in parts if part))
    (results / "sweeps.md").write_text(_sweeps(raw))


def _targets(raw: Path) -> str:
    verdicts = {True: "reached", False: "**not reached**", None: "-"}
    rows = [(t.what, t.goal, t.found, verdicts[t.reached]) for t in targets(raw)]
    return _section("Targets", "python -m benchmarks all", _table(("target", "goal", "measured", ""), rows))


def _main(raw: Path, results: Path, found: Sequence[Line]) -> str:
    if not found:
        return ""
    files = plots.recall_plot(results / "main", "In memory, 768 dimensions", found)
    return _section(
        "In memory, 768 dimensions", "python -m benchmarks main", _about(raw, "main"), _sides(found), _image(files)
    )


STACK_NOTE = """\
What a user would write without the library stands beside it in the same stack: `SQLAlchemy` and `AsyncSession` are
`select(Item).order_by(Item.embedding.cosine_distance(query)).limit(10)` with pgvector-python's types, as its README has
it; the same rows are mapped, vectors deferred. Names without either are bare SQL, prepared, in psycopg. `pgmrl` builds
its Select for each query, in a Session, or in an AsyncSession where that is said; `prebuilt` once.
"""


def _stack(raw: Path) -> str:
    path = raw / "stack.jsonl"
    found = lines(path)
    parts = [STACK_NOTE, _sides(found)] if found else []
    many = throughput.many_rows(path)
    if many:
        parts.append(_table(throughput.MANY_HEADINGS, many))
    rates = throughput.rows(path)
    if rates:
        parts += [throughput.NOTE, _table(throughput.HEADINGS, rates)]
    return _section("In the same stack", "python -m benchmarks stack", _about(raw, "stack"), *parts) if parts else ""


def _cpu(raw: Path) -> str:
    path = raw / "cpu.jsonl"
    rows = cpu_time.rows(path)
    if not rows:
        return ""
    note = (
        "Medians of the processor's time, which other jobs on the machine change less than the time that passes; the "
        "last columns divide by plain pgvector in the same stack. `psycopg` sends the library's own statement, with "
        "one or two parameters as the prebuilt Select or one built for each query does.\n"
    )
    return _section(
        "The processor's time of one search",
        "python -m benchmarks cpu",
        _about(raw, "cpu"),
        note,
        _table(cpu_time.HEADINGS, rows),
    )


def _part(raw: Path, results: Path, part: str, title: str) -> str:
    found = lines(raw / f"{part}.jsonl")
    if not found:
        return ""
    files = plots.recall_plot(results / part, title, found)
    return _section(title, f"python -m benchmarks {part}", _about(raw, part), _sides(found), _image(files))


def _curve(raw: Path, results: Path, main: Sequence[Line]) -> str:
    own = lines(raw / "curve.jsonl")
    if not own:
        return ""
    names = {line.name for line in own}
    found = sorted([*own, *(line for line in main if line.name in names)], key=lambda line: (line.rows, line.name))
    files = plots.curve_plot(results / "curve", found, 0.98)
    rows = [(f"{line.rows:,}", *_row(line)) for line in found]
    note = "The real set's own size comes from `main`; beyond it rows are synthetic.\n"
    table = _table(("rows", *HEADINGS), rows)
    return _section("Growing tables", "python -m benchmarks curve", _about(raw, "curve"), note, table, _image(files))


def _overhead(raw: Path) -> str:
    found = times(raw / "overhead.jsonl")
    if not found:
        return ""
    rows: list[tuple[str, ...]] = []
    for name, repeats in sorted(found.items(), key=lambda item: median(next(iter(item[1].values())))):
        rows.append((name, _show(Value.of(median(ns) for ns in repeats.values()), 3)))
    extra: list[tuple[str, ...]] = [
        (f"{ours} over {bare}", _show(added(found, ours, bare), 3)) for ours, bare, _ in OVERHEADS
    ]
    return _section(
        "The library over bare psycopg, and where a query's time goes",
        "python -m benchmarks overhead",
        _about(raw, "overhead"),
        "Shortlist and ef_search 80. Both ways of one pair send the same statement text and the same rows come back.\n",
        _table(("way", "p50"), rows),
        _table(("added", "p50"), extra),
    )


def _ingest(raw: Path) -> str:
    found = loads(raw / "ingest.jsonl")
    if not found:
        return ""
    rows = [
        (
            name,
            f"{records[0]['rows']:,}",
            _show(Value.of(record["seconds"] for record in records)),
            _show(Value.of(record["rows"] / record["seconds"] for record in records), 0),
        )
        for name, records in found.items()
    ]
    note = "Into an empty table without the HNSW index. ORM rows are shortened by the trigger, copied ones by NumPy.\n"
    table = _table(("way", "rows", "seconds", "rows/s"), rows)
    return _section("Loading", "python -m benchmarks ingest", _about(raw, "ingest"), note, table)


def _drivers(raw: Path) -> str:
    path = raw / "drivers.jsonl"
    rows = drivers.rows(path)
    if not rows:
        return ""
    title = f"One search by each driver, at recall {RECALLS[1]:.2f}".replace("0.", ".")
    table = _table(drivers.HEADINGS, rows)
    command = f"python -m benchmarks drivers --builds {drivers.repeats(path)}"
    return _section(title, command, _about(raw, "drivers"), drivers.note(path), table)


def _objects(raw: Path) -> str:
    path = raw / "objects.jsonl"
    rows = objects.rows(path)
    if not rows:
        return ""
    table = _table(objects.HEADINGS, rows)
    command = "python -m benchmarks objects"
    return _section("Mapped objects", command, _about(raw, "objects"), objects.note(path), table)


def _imports(raw: Path) -> str:
    path = raw / f"{imports.PART}.jsonl"
    rows, found = imports.rows(path), environment(path)
    if found is None:
        return ""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    about = (
        f"Fresh interpreters in turns, {found['runs']} of each: medians, with the smallest and largest in brackets. "
        "Other jobs ran on the machine, so the processor's time counts. "
        f"Python {found['python']}, {packages}; {found['machine']['cores']} cores of {found['machine']['cpu']}; commit "
        f"{found['commit']}, {found['at']}.\n"
    )
    return _section("Importing", imports.COMMAND, about, _table(imports.HEADINGS, rows))


def _sweeps(raw: Path) -> str:
    """Every effort of every side: medians over the builds."""
    parts = ["# Every search effort\n\nMedians over the builds. Written by `python -m benchmarks report`.\n"]
    headings = ("side", "data", "shortlist", "ef_search", "recall@10", "of originals", "p50", "p95", "queries")
    for path in sorted(raw.glob("*.jsonl")):
        rows = [
            (
                line.name,
                line.dataset,
                str(point.size),
                str(point.ef_search),
                f"{point.recall:.4f}",
                f"{point.recall_source:.4f}",
                f"{point.p50:.3f}",
                f"{point.p95:.3f}",
                str(point.queries),
            )
            for line in lines(path)
            for point in line.typical()
        ]
        if rows:
            parts.append(f"## {path.stem}\n\n{_table(headings, rows)}")
    return "\n".join(parts)


# -- tables ----------------------------------------------------------------------------------------------------------

HEADINGS = (
    "side",
    *(f"p50 at {recall:.2f}".replace("0.", ".") for recall in RECALLS),
    "p95 at .98",
    "index MB",
    "table and index MB",
    "build s",
    "best recall",
)


def _sides(found: Iterable[Line]) -> str:
    order = {"two stages": 0, "plain": 1, "exact": 2, "in process": 3}
    ranked = sorted(found, key=lambda line: (order.get(line.family, 9), not line.name.startswith("pgmrl")))
    return _table(HEADINGS, [_row(line) for line in ranked])


def _row(line: Line) -> tuple[str, ...]:
    exact = line.family == "exact"
    best = max(point.recall for point in line.typical())
    return (
        line.name,
        *(_show(_exact(line) if exact else line.value(recall)) for recall in RECALLS),
        _show(line.value(0.98, lambda point: point.p95)) if not exact else _show(_exact(line, lambda p: p.p95)),
        _show(line.fact("index_bytes", 1e-6), 0),
        _show(line.fact("total_bytes", 1e-6), 0),
        "-" if exact else _show(line.fact("seconds"), 1),
        f"{best:.3f}",
    )


def _exact(line: Line, of: Callable[[Any], float] = lambda point: point.p50) -> Value | None:
    return Value.of(of(points[0]) for points in line.builds.values())


def _show(value: Value | None, digits: int = 2) -> str:
    return "-" if value is None else value.show(digits)


def _about(raw: Path, part: str) -> str:
    found = environment(raw / f"{part}.jsonl")
    if found is None:
        return ""
    machine: Record = found["machine"]
    memory = f", whole server confined to {found['confined_to'] >> 20} MB" if "confined_to" in found else ""
    settings: Record = found["confined_settings"] if "confined_settings" in found else found["settings"]
    buffers = settings.get("shared_buffers")
    server = " ".join(found["server"].split()[:2])
    return (
        f"{server}, pgvector {found['pgvector']}, shared_buffers {buffers}{memory}; {machine['cores']} cores of"
        f" {machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB; data `{found['dataset']}` ({found['note']});"
        f" commit {found['commit']}, library {found['library']}, {found['at']}.\n"
    )


def _section(title: str, command: str, *parts: str) -> str:
    return "\n".join([f"## {title}\n\n`{command}`\n", *(part for part in parts if part)])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines_ = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines_)


def _image(files: Sequence[str]) -> str:
    return f"![recall and latency]({files[0]})\n"
