"""Quality by judgements that no vector made, measured by `pgmrl.evaluate`: `python -m benchmarks.evaluate`.

Packages of the Debian set are queries; relevant are the packages that share their tags, which no model has seen. The
queries and judgements are written as files, and read back as `pgmrl evaluate` reads them. Two tables: all-mpnet-base-v2
(768 dimensions, not trained for truncation; a rotation of 128 is its short vector) and the bundled static model (256
dimensions, trained with a Matryoshka loss; leading 64). Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, inspect

from benchmarks.asking import prepare, say
from benchmarks.relevance import by_tags, tagged
from benchmarks.server import Server, environment
from pgmrl import Hnsw, Matryoshka, Rotation, Short, evaluate, ingest
from pgmrl.embedders import load_embedder
from pgmrl.evaluation import EXACT, SHORT_ONLY, TWO_STAGE, file_judgements, plot
from pgmrl.measure.fit_rotation import fit_rotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from pgmrl.evaluation import Evaluation

HERE = Path(__file__).parent
GOAL = 0.995


class Case(NamedTuple):
    """One table to judge.

    Attributes:
        name: of the files.
        title: for the report.
        table: with its column `embedding`.
        rotation: to try beside leading dimensions and the column's own; None for none.
        words: a `tsvector` column; None for none.

    """

    name: str
    title: str
    table: Table
    rotation: Rotation | None
    words: str | None


def write_files(folder: Path, packages: list[dict[str, Any]], vectors: NDArray[np.float32], count: int) -> None:
    """Queries with their vectors, and qrels in TREC's form."""
    folder.mkdir(parents=True, exist_ok=True)
    relevance = by_tags(packages, tagged(packages, count))
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as lines:
        for query in relevance:
            text, vector = packages[int(query)]["synopsis"], vectors[int(query)].tolist()
            lines.write(json.dumps({"_id": query, "text": text, "vector": vector}) + "\n")
    with (folder / "qrels.txt").open("w", encoding="utf-8") as lines:
        for query, grades in relevance.items():
            lines.writelines(f"{query} 0 {document} {grade}\n" for document, grade in grades.items())


def prepare_trained(connection: Connection, packages: list[dict[str, Any]], vectors: NDArray[np.float32]) -> Table:
    """The same packages with vectors of the static model."""
    table = Table(
        "trained",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("embedding", Matryoshka(256, Short(64), index=Hnsw(16, 100))),
    )
    if inspect(connection).has_table("trained"):
        table.drop(connection)
    index = next(iter(table.indexes))
    table.indexes.remove(index)
    table.create(connection)
    ingest(connection, table.c.embedding, ({"id": n} for n in range(len(packages))), vectors=vectors)
    index.create(connection)
    connection.exec_driver_sql("ANALYZE trained")
    return table


def judged(connection: Connection, case: Case, folder: Path) -> Evaluation:
    """One table, with every query."""
    started = time.monotonic()
    found = evaluate(
        connection,
        case.table.c.embedding,
        file_judgements(folder / "queries.jsonl", folder / "qrels.txt"),
        rotation=case.rotation,
        words=case.words,
        match="any",
        itself=False,
    )
    say(f"{case.name}: {time.monotonic() - started:.0f} s")
    return found


# -- the report ----------------------------------------------------------------------------------------------------


def report(found: dict[str, tuple[Case, Evaluation]], given: argparse.Namespace, setting: str) -> str:
    """All of it as Markdown."""
    rows = f" --rows {given.rows}" if given.rows else ""
    how = (
        "Packages are queries, relevant are those that share at least half of their tags (grade 1) or three quarters "
        f"(grade 2); the query itself is left out. {setting}. Means with their 95 % intervals."
    )
    command = f"    python -m benchmarks.evaluate --queries {given.queries}{rows}"
    lines = ["# Quality by judged queries", "", command, "", how, ""]
    for case, evaluation in found.values():
        lines += [f"## {case.title}", "", *_systems(evaluation), "", *_goal(evaluation), ""]
        lines += [f"![quality against dimensions]({case.name}.png)", "", *_dims(evaluation), ""]
    return "\n".join(lines).rstrip() + "\n"


def _systems(found: Evaluation) -> Iterable[str]:
    sizes = ", ".join(f"{size} for {depth} rows" for depth, size in found.shortlists.items())
    yield f"{len(found.queries):,} queries, {found.judged:,} judgements, {found.rows:,} documents; shortlist {sizes}."
    yield from ("", f"| system | {' | '.join(found.measures)} |", f"|---|{'---|' * len(found.measures)}")
    for one in found.systems:
        cells = [f"{mean.mean:.4f} ({mean.low:.3f} to {mean.high:.3f})" for mean in one.means.values()]
        yield f"| {one.name} | {' | '.join(cells)} |"


def _goal(found: Evaluation) -> Iterable[str]:
    two_stage = found.system(TWO_STAGE)
    assert two_stage is not None
    for name, one in two_stage.differences.items():
        assert one.kept is not None
        assert one.kept_low is not None
        goal = ""
        if name == "nDCG@10":
            goal = f"; goal {GOAL:.1%}: {'reached' if one.kept >= GOAL else '**not reached**'}"
        yield (
            f"- {name}, {TWO_STAGE} of {EXACT}: {one.kept:.2%} (lower end of its 95 % interval: {one.kept_low:.2%}"
            f"{goal}); difference {one.mean:+.5f} ({one.low:+.5f} to {one.high:+.5f}); better on {one.better:,} "
            f"queries, worse on {one.worse:,}"
        )


def _dims(found: Evaluation) -> Iterable[str]:
    name = found.measures[0]
    yield f"| shortened by | dimensions | {SHORT_ONLY}, {name} | {TWO_STAGE}, {name} | of {EXACT} |"
    yield "|---|---|---|---|---|"
    for one in found.dims:
        by = "leading dimensions" if one.by == "prefix" else "rotation"
        yield f"| {by} | {one.dims} | {one.short_only[name]:.4f} | {one.two_stage[name]:.4f} | {one.kept[name]:.2%} |"


def main() -> None:
    """Load, write the files, judge, report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--rows", type=int, help="rows of the real set (default all 68,820)")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/pgmrl-bench"), help="folder for data and judgements")  # noqa: S108
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, tuple[Case, Evaluation]] = {}
    with Server(given.work / "asking", {"log_min_messages": "fatal"}) as server:
        table, vectors, _, packages, _ = prepare(server, given.rows)
        with server.connect() as plain:
            told = environment(plain)
        engine = create_engine(server.sqlalchemy_url)
        model = load_embedder()
        made = model.embed_documents([f"{one['name']}: {one['synopsis']}" for one in packages])
        with engine.begin() as connection:
            trained = prepare_trained(connection, packages, made)
            learned = fit_rotation(connection, trained.c.embedding).rotation
        cases = [
            (Case("evaluate-mpnet", "all-mpnet-base-v2, 768 dimensions", table, None, "words"), vectors),
            (Case("evaluate-static", "The static model, 256 dimensions", trained, learned, None), made),
        ]
        for case, rows in cases:
            folder = given.work / case.name
            write_files(folder, packages, rows, given.queries)
            with engine.connect() as connection:
                results[case.name] = (case, judged(connection, case, folder))
            plot(results[case.name][1], given.out / f"{case.name}.png")
            if case.words is not None and given.rows is None and given.out == HERE / "results":
                plot(results[case.name][1], HERE.parent / "docs" / "quality.png")
        engine.dispose()
    setting = f"{str(told['server']).split(' on ')[0]}, pgvector {told['pgvector']}"
    (given.out / "evaluate.md").write_text(report(results, given, setting), encoding="utf-8")


if __name__ == "__main__":
    main()
