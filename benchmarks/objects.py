"""Mapped objects of a search beside loading them by key: `python -m benchmarks objects`.

A class of eleven columns, 20,000 rows. Each way asks the same queries in turns, in a Session that holds nothing, and
the processor's time of the client and of its server process counts, which other jobs change least.
"""

from __future__ import annotations

import datetime as dt
import os
import random
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, inspect, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.cpu_time import Way, ask
from benchmarks.data import K
from benchmarks.journal import read
from benchmarks.library import engine_of, install, library_commit
from benchmarks.measure import BLOCK
from pgmrl import Short, VectorArray, matryoshka, search
from pgmrl.ingestion.ingest import ingest
from pgmrl.model.shortening import Rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.data import Floats
    from benchmarks.measure import Bench
    from benchmarks.server import Server

TABLE: Final = "pgmrl_objects"
SHORTLIST: Final = 80
OBJECTS: Final = "objects by the search"
BY_KEY: Final = "keys by the search, then objects by key"
PREBUILT: Final = ", prebuilt"
Blocks = dict[tuple[int, int], dict[str, list[int]]]

HEADINGS: Final = ("way", "client ms", "server ms", "together ms", "of loading by key")


def mapped_class(dims: int, rotation: Rotation) -> Any:
    """A table as an application has one: a key, nine columns of usual types, the vector."""

    class Base(DeclarativeBase):
        pass

    class Package(Base):
        __tablename__ = TABLE
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        name: Mapped[str]
        section: Mapped[str]
        version: Mapped[str]
        maintainer: Mapped[str]
        summary: Mapped[str]
        size: Mapped[int]
        installs: Mapped[int]
        score: Mapped[float]
        added: Mapped[dt.datetime]
        embedding: Mapped[VectorArray] = matryoshka(dims, Short(len(rotation.required_axes()), by=rotation))

    return Package


def object_times(bench: Bench, server: Server, axes: NDArray[Any], repeats: int) -> None:
    """Ask in every way, in turns; one line of the journal for each way, repeat and block."""
    rotation = Rotation.of(axes)
    package = mapped_class(axes.shape[1], rotation)
    install(server, rotation)
    engine = engine_of(server)
    with engine.connect() as connection:
        _load(bench, server, package, connection)
        session = Session(connection)
        backend = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        ways = _ways(package, session)
        expected = [row.id for row in ways[BY_KEY](bench.dataset.queries[0])]
        assert [row[0].id for row in ways[OBJECTS](bench.dataset.queries[0])] == expected
        bench.journal.write("load", load=os.getloadavg()[0])
        for repeat in range(1, repeats + 1):
            for first in range(0, bench.queries, BLOCK):
                order = list(ways)
                random.Random(f"{repeat} {first}").shuffle(order)  # noqa: S311 - an order to measure in
                for name in order:
                    ask(bench, "objects", name, Way(ways[name], backend), repeat, first)
            bench.say(f"objects: {repeat} of {repeats}")
    engine.dispose()


def _load(bench: Bench, server: Server, package: Any, connection: Any) -> None:
    """Create the table unless it is there, as `LibrarySide.load` does."""
    state = f"{bench.dataset.name} {library_commit()}"
    if connection.execute(text(f"SELECT obj_description(to_regclass('{TABLE}'), 'pg_class')")).scalar() == state:
        return
    package.metadata.drop_all(connection)
    package.metadata.create_all(connection)
    vectors = bench.dataset.rows
    with server.connect() as bare:
        ingest(bare, package.embedding, _rows(len(vectors)), vectors=vectors)
    connection.execute(text(f"COMMENT ON TABLE {TABLE} IS '{state}'"))
    connection.execute(text(f"VACUUM (ANALYZE, FREEZE) {TABLE}"))


def _rows(count: int) -> Iterator[dict[str, Any]]:
    start = dt.datetime(2020, 1, 1)
    for number in range(count):
        yield {
            "id": number,
            "name": f"package-{number}",
            "section": f"section-{number % 40}",
            "version": f"{number % 9}.{number % 31}.{number % 7}-{number % 3}",
            "maintainer": f"Maintainer {number % 700} <maintainer-{number % 700}@example.org>",
            "summary": f"what package number {number} does, in one line of text",
            "size": number * 37 % 90_000,
            "installs": number * 101 % 70_000,
            "score": number % 997 / 997,
            "added": start + dt.timedelta(minutes=number),
        }


def _ways(package: Any, session: Session) -> Mapping[str, Callable[[Floats], Any]]:
    """Each takes a query to all columns of its rows but the vector, nearest first."""
    options: dict[str, Any] = {"k": K, "shortlist": SHORTLIST}
    own = [attribute.columns[0] for attribute in inspect(package).column_attrs if not attribute.deferred]
    parameter: Any = bindparam("q")
    objects, keys, values = (
        search(select(*columns), package.embedding, parameter, **options) for columns in ([package], [package.id], own)
    )

    def emptied(result: Any) -> Any:
        session.expunge_all()
        return result

    def loaded(keyed: Any) -> Any:
        ids = [row.id for row in keyed]
        by_id = {found.id: found for found in session.scalars(select(package).where(package.id.in_(ids)))}
        return emptied([by_id[number] for number in ids])

    def built(*columns: Any) -> Callable[[Floats], Any]:
        return lambda query: search(select(*columns), package.embedding, query, **options)

    return {
        OBJECTS: lambda query: emptied(session.execute(built(package)(query)).all()),
        BY_KEY: lambda query: loaded(session.execute(built(package.id)(query))),
        "rows of columns by the search": lambda query: session.execute(built(*own)(query)).all(),
        f"{OBJECTS}{PREBUILT}": lambda query: emptied(session.execute(objects, {"q": query}).all()),
        f"{BY_KEY}{PREBUILT}": lambda query: loaded(session.execute(keys, {"q": query})),
        f"rows of columns by the search{PREBUILT}": lambda query: session.execute(values, {"q": query}).all(),
        f"keys by the search{PREBUILT}": lambda query: session.execute(keys, {"q": query}).all(),
    }


# -- report ----------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[tuple[str, ...]]:
    """The table of the newest run: medians, and the ratio over blocks of the same queries and turn."""
    records = [record for record in read(path) if record["kind"] == "objects"]
    blocks: dict[str, Blocks] = {}
    for record in records:
        if record["run"] == records[-1]["run"]:
            blocks.setdefault(record["name"], {})[record["repeat"], record["first"]] = record
    return sorted((_row(name, own, blocks) for name, own in blocks.items()), key=lambda row: row[3])


def note(path: Path) -> str:
    """What was measured, and beside what."""
    load = [record["load"] for record in read(path) if record["kind"] == "load"][-1]
    return (
        f"Medians of the processor's time of one search of ten rows with ten columns each, in a Session that holds "
        f"nothing; `prebuilt` executes one Select again and again. The ratio is the median over blocks of {BLOCK} "
        "queries that both ways asked in the same turn, with the quartiles in brackets. The load average was "
        f"{load:.1f} as it began.\n"
    )


def _row(name: str, own: Blocks, blocks: Mapping[str, Blocks]) -> tuple[str, ...]:
    client, server = (
        median(number for block in own.values() for number in block[f"{side}_ns"]) / 1e6
        for side in ("client", "server")
    )
    peer = blocks[f"{BY_KEY}{PREBUILT}" if name.endswith(PREBUILT) else BY_KEY]
    ratios = [_together(block) / _together(peer[place]) for place, block in own.items()]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    ratio = "1" if own is peer else f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return name, f"{client:.2f}", f"{server:.2f}", f"{client + server:.2f}", ratio


def _together(block: Mapping[str, list[int]]) -> float:
    return median(map(sum, zip(block["client_ns"], block["server_ns"], strict=True)))
