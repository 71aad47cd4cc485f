"""What tuning predicts from trials of a tenth of the rows, beside what the index of all rows does.

`pgmrl tune` sweeps an index that is there, and extrapolates nothing. Here it is told of the table without its short
column, predicts the index of 128 dimensions that is there all the same, and recall through that is measured: by
texts that are not in the table, which is what is predicted, and by rows, which that index holds.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Column, MetaData, Table, create_engine, func, select

from pgmrl import Matryoshka, Short, reflect
from pgmrl.embedders import load_embedder
from pgmrl.measure import Queries, measure_recall
from pgmrl.tune import tune

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.server import Server
    from pgmrl.tune.index_trial import Option

__all__ = ["extrapolate", "section"]

DIMS: Final = 128
QUERIES: Final = 400
TRIED: Final = 10  # one row in so many is in the largest index that is tried
SECOND: Final = 0.98  # recall of another setting that is measured, beside the choice for .95


def extrapolate(server: Server, new_texts: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Tune as if there were no index, then measure.

    Args:
        server: with the table of `benchmarks.million`.
        new_texts: that are not in the table.

    """
    names = [text["name"] for text in islice(new_texts, QUERIES)]
    queries: dict[str, Any] = {
        "new texts": Queries(load_embedder().embed_documents(names), None, 0, "new texts"),
        "rows": QUERIES,
    }
    engine = create_engine(server.sqlalchemy_url)
    unknown = Table(
        "texts",
        MetaData(),
        Column("id", BigInteger, primary_key=True),
        Column("embedding", Matryoshka(256, Short(DIMS // 2))),
    )
    with engine.connect() as connection:
        ways: dict[str, Any] = {"dims": [DIMS], "by": ["prefix"], "types": ["halfvec"]}
        (rows,) = connection.execute(select(func.count()).select_from(unknown)).one()
        connection.rollback()
        tuning = tune(connection, unknown.c.embedding, graph_rows=rows // TRIED, seconds=600, **ways)
        connection.rollback()
        column = reflect(connection, "texts.embedding")
        connection.rollback()
        pairs = []
        for option in _chosen([tuning.choice or tuning.best, *tuning.tried]):
            numbers: dict[str, Any] = {"shortlist": option.shortlist, "ef_search": option.ef_search}
            recalls = {"predicted": option.recall._asdict()}
            for name, own in queries.items():
                measured = measure_recall(connection, column, queries=own, seed=9, worst=0, seconds=900, **numbers)
                connection.rollback()
                recalls[name] = measured.recall._asdict()
            pairs.append({**numbers, **recalls})
    errors = {model.name: model.error for model in tuning.models}
    check = tuning.checks[0].what
    return {"rows": rows, "pairs": pairs, "errors": errors, "check": check, "seconds": tuning.seconds}


def _chosen(options: list[Option | None]) -> Iterator[Option]:
    known = [option for option in options if option is not None]
    yield known[0]
    yield min(known[1:], key=lambda option: abs(option.recall.mean - SECOND))


def section(result: dict[str, Any]) -> list[str]:
    """The lines of the page."""
    about = (
        f"Predicted for {result['rows']:,} rows from {result['check']}, and from smaller ones "
        "(`benchmarks/million_extrapolation.py`):"
    )
    lines = [
        "## As if there were no index",
        "",
        about,
        "",
        "| setting | predicted | measured by new texts | measured by rows |",
        "|---|---|---|---|",
    ]
    for pair in result["pairs"]:
        recalls = [pair[name] for name in ("predicted", "new texts", "rows")]
        shown = " | ".join(f"{recall['mean']:.3f} ({recall['low']:.3f} to {recall['high']:.3f})" for recall in recalls)
        lines.append(f"| shortlist {pair['shortlist']}, ef_search {pair['ef_search']} | {shown} |")
    return [*lines, ""]
