"""Vectors, words, and both together, judged by relevance that neither of them made.

By tags: a package is relevant to another by the tags they share (none of them has seen the tags). By known items: the
package that a query was made from. nDCG and reciprocal rank by ir-measures, as `pgmrl evaluate` computes them.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import create_engine, select

from pgmrl import Nearest, Weighted, Words, search_hybrid
from pgmrl.embedders import load_embedder
from pgmrl.evaluation.measures import Scorer, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Table

    from benchmarks.server import Server

DEPTH: Final = 10
LIST: Final = 100


def hybrid(
    server: Server, table: Table, rows: NDArray[np.float32], packages: list[dict[str, Any]], count: int
) -> dict[str, Any]:
    """nDCG@10 by tags, with the vectors of the table.

    Args:
        server: running.
        table: `packages`, with `words` and `embedding`.
        rows: its vectors, by id.
        packages: what its rows say, by id.
        count: queries.

    """
    asked = tagged(packages, count)
    scorer = Scorer(parsed([f"nDCG@{DEPTH}"]), by_tags(packages, asked))
    engine = create_engine(server.sqlalchemy_url)
    found: dict[str, Any] = {"queries": len(asked), "ndcg": {}}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name, way in _ways(table).items():
            run = {str(n): [str(id_) for id_ in way(connection, rows[n], packages[n]["synopsis"], n)] for n in asked}
            found["ndcg"][name] = float(scorer.values({DEPTH: run})[f"nDCG@{DEPTH}"].mean())
        found["known"] = _known(connection, table, packages, asked)
    engine.dispose()
    return found


def tagged(packages: list[dict[str, Any]], count: int) -> list[int]:
    """Packages to ask with, ascending: some of those with at least four tags, the same every time."""
    known = [n for n, one in enumerate(packages) if len(one["tags"]) >= 4]
    return sorted(random.Random(5).sample(known, min(count, len(known))))  # noqa: S311 - a sample


def by_tags(packages: list[dict[str, Any]], asked: list[int]) -> dict[str, dict[str, int]]:
    """Grade 2: at least three quarters of all tags of the two are shared; 1: at least half. Without queries of none."""
    names = sorted({tag for one in packages for tag in one["tags"]})
    place = {tag: n for n, tag in enumerate(names)}
    has = np.zeros((len(packages), len(names)), np.float32)
    for n, one in enumerate(packages):
        has[n, [place[tag] for tag in one["tags"]]] = 1
    sizes = has.sum(axis=1)
    found = {}
    for n in asked:
        shared = has @ has[n]
        jaccard = shared / np.maximum(sizes + sizes[n] - shared, 1)
        jaccard[n] = 0
        alike = np.flatnonzero(jaccard >= 0.5)
        if alike.size:
            found[str(n)] = {str(other): 2 if jaccard[other] >= 0.75 else 1 for other in alike.tolist()}
    return found


def _ways(table: Table) -> dict[str, Callable[[Connection, Any, str, int], list[int]]]:
    def way(vectors: bool, match: str | None, fuse: Any = None) -> Callable[[Connection, Any, str, int], list[int]]:
        def ask(connection: Connection, vector: Any, words: str, without: int) -> list[int]:
            retrievers: list[Any] = [Nearest(table.c.embedding, vector, shortlist=LIST)] if vectors else []
            if match is not None:
                retrievers.append(Words(table.c.words, words, match=match, limit=LIST))  # type: ignore[arg-type]
            given = {} if fuse is None else {"fuse": fuse}
            statement = search_hybrid(select(table.c.id).where(table.c.id != without), retrievers, k=DEPTH, **given)
            return [row.id for row in connection.execute(statement)]

        return ask

    return {
        "vectors": way(True, None),
        "words, all": way(False, "all"),
        "words, any": way(False, "any"),
        "both, all, rrf": way(True, "all"),
        "both, any, rrf": way(True, "any"),
        "both, all, weighted": way(True, "all", Weighted()),
        "both, any, weighted": way(True, "any", Weighted()),
    }


# -- known items ---------------------------------------------------------------------------------------------------


def _known(connection: Connection, table: Table, packages: list[dict[str, Any]], asked: list[int]) -> dict[str, Any]:
    """Mean reciprocal rank of the package that a query was made of; vectors of the static model, for both sides."""
    model = load_embedder()
    documents = model.embed_documents([f"{one['name']}: {one['synopsis']}" for one in packages])
    documents /= np.maximum(np.linalg.norm(documents, axis=1, keepdims=True), 1e-9)
    scorer = Scorer(parsed([f"RR@{LIST}"]), {str(n): {str(n): 1} for n in asked})
    found: dict[str, Any] = {}
    for kind, make in QUERIES.items():
        texts = {n: make(packages[n]) for n in asked}
        vectors = dict(zip(texts, model.embed_queries(list(texts.values())), strict=True))
        found[kind] = {}
        for name in ("vectors", "words, all", "both, all, rrf"):
            run = {}
            for n in asked:
                near: Any = np.argsort(-(documents @ vectors[n]))[:LIST] if name != "words, all" else []
                worded = _worded(connection, table, texts[n]) if name != "vectors" else []
                scores: dict[int, float] = {}
                for ids in (near, worded):
                    for rank, id_ in enumerate(ids, 1):
                        scores[int(id_)] = scores.get(int(id_), 0) + 1 / (60 + rank)
                best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:LIST]
                run[str(n)] = [str(id_) for id_ in best]
            found[kind][name] = float(scorer.values({LIST: run})[f"RR@{LIST}"].mean())
    return found


def _worded(connection: Connection, table: Table, text: str) -> list[int]:
    statement = search_hybrid(select(table.c.id), [Words(table.c.words, text, limit=LIST)], k=LIST)
    return [row.id for row in connection.execute(statement)]


def _three_words(one: dict[str, Any]) -> str:
    words = re.findall(r"[A-Za-z]{4,}", one["synopsis"]) or [one["name"]]
    return " ".join(random.Random(one["name"]).sample(words, min(3, len(words))))  # noqa: S311 - a sample


QUERIES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "the name": lambda one: one["name"],
    "three words of the synopsis": _three_words,
    "the synopsis": lambda one: one["synopsis"],
}


def table(found: dict[str, Any]) -> Iterable[str]:
    """The results as Markdown."""
    yield from ("## Vectors and words", "")
    yield f"{found['queries']} packages as queries (mpnet vector and synopsis of each), relevant by shared tags:"
    yield from ("", "| way | nDCG@10 |", "|---|---|")
    for name, value in found["ndcg"].items():
        yield f"| {name} | {value:.3f} |"
    yield from (
        "",
        "Finding the package that the query was made of (vectors of the static model), mean reciprocal rank:",
        "",
    )
    ways = list(next(iter(found["known"].values())))
    yield f"| query | {' | '.join(ways)} |"
    yield f"|---|{'---|' * len(ways)}"
    for kind, values in found["known"].items():
        yield f"| {kind} | {' | '.join(f'{values[name]:.3f}' for name in ways)} |"
