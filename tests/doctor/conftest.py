"""A healthy database for the doctor, cloned for each test, which then breaks one thing in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, text

from pgmrl import (
    Matryoshka,
    Prefix,
    Rotation,
    Short,
    SqlFunctions,
    add_functions,
    add_side_table,
    database,
    ingest,
)
from pgmrl.database.settings import Setting, store_setting
from pgmrl.doctor import Report, Thresholds, doctor
from pgmrl.measure.fit_rotation import fit_axes
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.types import NumpyVector
from tests.databases import connected, indexed_afterwards, new_database, shared_database, vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pgmrl.local import LocalServer
    from tests.corpus import Corpus


ROWS = 10_200  # more than the default takes for worth an index
DIMS = 96
SHORT = 32
HEALTHY = "healthy"
SMALL = Thresholds(small_rows=1_000, rotation_rows=1_000)
"""The side table has fewer rows than the default takes for worth an index; comparing rotations on few is quick."""

RECALL = """
INSERT INTO pgmrl.recall_history (measured_at, relation, full_column, short_column, k, shortlist, ef_search, queries,
    source, recall, recall_low, recall_high, truncation_loss, ann_loss, shortfall, completed, row_count)
VALUES (now() - make_interval(secs => 86400 * :days), CAST(:table AS regclass), :full, :short, 10, 100, 100, 200,
    'rows', :recall, :recall - .02, least(1, :recall + .01), .02, 1 - :recall - .02, 0, 0, :rows)
"""


class Ward(NamedTuple):
    """The healthy database's tables and their vectors.

    Attributes:
        packages: a prefix, cosine, with SQL functions and a stored setting.
        notes: a rotation, cosine, kept by a trigger.
        papers: inner product, in a side table.
        rotation: of `notes`.
        vectors: shape (n, 96).
    """

    packages: Table
    notes: Table
    papers: Table
    rotation: Rotation
    vectors: NDArray[np.float32]


def tables(rotation: Rotation) -> tuple[Table, Table, Table]:
    """The models; made anew for each test, which may change them."""
    metadata = MetaData()
    packages = Table(
        "packages",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("section", Text),
        Column("embedding", Matryoshka(DIMS, Short(SHORT, by=Prefix()))),
    )
    add_functions(packages.c.embedding, SqlFunctions(filters=("section",)))
    notes = Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(DIMS, Short(SHORT, by=rotation), full="vector")),
    )
    papers = Table(
        "papers", metadata, Column("id", Integer, primary_key=True), Column("embedding", NumpyVector(DIMS, "vector"))
    )
    add_side_table(papers.c.embedding, Short(SHORT, by=Prefix()), metric="inner_product")
    return packages, notes, papers


@pytest.fixture(scope="session")
def healthy(server: LocalServer, corpus: Corpus) -> Ward:
    """What is in the database `healthy`, in which nothing is wrong; nobody is connected to it."""
    vectors = corpus.documents[:ROWS, :DIMS]
    rotation = fit_axes(vectors, SHORT, normalise=True)
    ward = Ward(*tables(rotation), rotation, vectors)
    shared_database(server, HEALTHY, lambda engine: _fill(engine, ward, corpus))
    return ward


def _fill(engine: Engine, ward: Ward, corpus: Corpus) -> None:
    with engine.begin() as connection:
        _load(connection, ward, corpus)
    vacuum(engine)


def _load(connection: Connection, ward: Ward, corpus: Corpus) -> None:
    database.install_rotation(connection, ward.rotation)
    ward.packages.metadata.create_all(connection)
    sections = [passage["package"] for passage in corpus.passages[:ROWS]]
    rows = list(enumerate(zip(ward.vectors, sections, strict=True)))
    with indexed_afterwards(connection, ward.packages, ward.notes, vectors_table(ward.papers.c.embedding)):
        ingest(connection, ward.packages.c.embedding, [{"id": n, "section": s, "embedding": v} for n, (v, s) in rows])
        ingest(connection, ward.notes.c.embedding, [{"id": n, "embedding": v} for n, (v, _) in rows])
        connection.execute(ward.papers.insert(), [{"id": n, "embedding": v} for n, (v, _) in rows[:2_000]])
    store_setting(connection, ward.packages.c.embedding, Setting(10, 100, 100, 0.9, 0.95, 1.0, ROWS))
    for table in (ward.packages, ward.notes, ward.papers):
        recorded(connection, table, 0.95, days=20)


def recorded(connection: Connection, table: Table, recall: float, *, days: float, rows: int = ROWS) -> None:
    """One row of history, as `pgmrl recall --record` writes it."""
    short, place = attachment_of(table.c.embedding).short, vectors_table(table.c.embedding).name
    given = {"days": days, "table": place, "full": "embedding", "short": short, "recall": recall, "rows": rows}
    connection.execute(text(RECALL), given)


class Patient:
    """A clone of the healthy database."""

    def __init__(self, engine: Engine, ward: Ward) -> None:
        self.engine = engine
        self.ward = Ward(*tables(ward.rotation), ward.rotation, ward.vectors)

    def run(self, *statements: str) -> None:
        """Statements of which each commits; a new connection, so that settings of database and role hold.

        The statistics of each are there when the next one runs: else they come up to a second later, after a VACUUM.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET synchronous_commit = on")  # for VACUUM, as in tests/databases.py
            for one in statements:
                database.execute_plain(connection, one)
                connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")

    def see(self, *columns: Any, **options: Any) -> Report:
        """The doctor's report, from a new connection."""
        self.engine.dispose()
        with self.engine.connect() as connection:
            return doctor(connection, *columns, **{"thresholds": SMALL, **options})

    def found(self, *columns: Any, **options: Any) -> dict[str, list[Any]]:
        """The findings by check; everything was checked."""
        report = self.see(*columns, **options)
        assert report.not_checked == ()
        by_check: dict[str, list[Any]] = {}
        for one in report:
            by_check.setdefault(one.check, []).append(one)
        return by_check


@pytest.fixture
def patient(server: LocalServer, healthy: Ward) -> Iterator[Patient]:
    """A clone that the test may break."""
    with new_database(server, "patient", template=HEALTHY) as url, connected(url) as engine:
        yield Patient(engine, healthy)
