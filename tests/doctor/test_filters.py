"""Filters without a covering index, covering indexes that do nothing, and partial indexes: planted, and found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, select, text

from pgmrl import Hnsw, Matryoshka, Short, database, search
from pgmrl.doctor import Thresholds, doctor
from pgmrl.local.programs import Programs
from tests.doctor.conftest import DIMS, SHORT
from tests.doctor.test_planted import PREFIX_INDEX, only, shown
from tests.servers import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tests.doctor.conftest import Patient

COVERING = f"CREATE INDEX covering ON packages (section) INCLUDE (embedding_short_{SHORT}, id)"
AT_ONCE = Thresholds(small_rows=1_000, rotation_rows=1_000, unused_seconds=0)
CHECKS = ("filter-without-index", "policy-without-index", "covering-index-unused", "visibility-map")


# -- covering indexes ----------------------------------------------------------------------------------------------


def test_a_covering_index_that_nothing_uses(patient: Patient) -> None:
    """When the statistics are old enough; not once it was read."""
    patient.run(COVERING, "VACUUM packages")
    assert patient.found() == {}
    finding = only(patient.found(only=CHECKS, thresholds=AT_ONCE), "covering-index-unused", "info")
    assert finding.values["index"] == "covering"
    assert [row.scans for row in shown(patient, finding)] == [0]
    patient.run("SET enable_seqscan = off", "SELECT count(id) FROM packages WHERE section = 'games'")
    assert patient.found(only=CHECKS, thresholds=AT_ONCE) == {}


def test_a_visibility_map_that_is_stale(patient: Patient) -> None:
    """A row of each page was written since the last VACUUM; without a covering index that costs nothing."""
    patient.run("UPDATE packages SET section = section WHERE id % 20 = 0", "ANALYZE packages")
    assert patient.found() == {}
    patient.run(COVERING)
    finding = only(patient.found(), "visibility-map", "warning")
    assert finding.values["visible"] < finding.values["pages"] / 2
    assert shown(patient, finding)
    patient.run(finding.remedy.partition(";")[0])
    assert patient.found() == {}


def test_a_policy_without_a_covering_index(patient: Patient) -> None:
    """Its columns are in the catalogue; the remedy is the index, and the line of the model."""
    patient.run(
        "CREATE POLICY own ON packages USING (section = current_setting('app.section', true))",
        "CREATE POLICY written ON packages FOR INSERT WITH CHECK (id > 0)",
    )
    assert patient.found() == {}  # not enabled
    patient.run("ALTER TABLE packages ENABLE ROW LEVEL SECURITY")
    finding = only(patient.found(), "policy-without-index", "info")
    assert finding.values == {"policy": "own", "columns": ["section"]}
    statement, _, declared = finding.remedy.partition(";  or in the model ")
    assert declared == "filters=[FilterIndex('section')]"
    assert "CONCURRENTLY" in statement
    patient.run(statement, "VACUUM packages")
    assert patient.found() == {}


# -- partial indexes -----------------------------------------------------------------------------------------------


def test_a_partial_index_alone_says_what_other_searches_do(patient: Patient) -> None:
    """Nothing is wrong where every search has the filter; the index of all rows is offered, and then it is healthy."""
    partial = f"packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops) WHERE id > 5000"
    patient.run(f"DROP INDEX {PREFIX_INDEX}", f"CREATE INDEX partial ON {partial}")
    finding = only(patient.found(), "index-missing", "info")
    assert (
        "partial (WHERE (id > 5000)): a search whose filter does not imply the condition reads all" in finding.message
    )
    statement = finding.remedy.partition("Else ")[2].partition(";")[0]
    patient.run(statement)
    assert patient.found() == {}


def test_an_invalid_partial_index_beside_one_of_all_rows(patient: Patient) -> None:
    """It is not dropped for the other one's sake."""
    partial = f"packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops) WHERE id > 5000"
    patient.run(
        f"CREATE INDEX partial ON {partial}",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'partial'::regclass",
    )
    finding = only(patient.found(), "index-invalid", "warning")
    assert finding.remedy.startswith("REINDEX INDEX CONCURRENTLY")
    patient.run(finding.remedy)
    assert patient.found() == {}


def test_a_declared_partial_index_is_no_index_of_all_rows(patient: Patient) -> None:
    """Of a model that has the partial one alone: a hint, whose remedy has the model's parameters."""
    column: Column[Any] = Column("embedding", Matryoshka(DIMS, Short(SHORT), index=Hnsw(24, 120, where="id > 5000")))
    table = Table("packages", MetaData(), Column("id", Integer, primary_key=True), column)
    partial = f"packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops) WHERE id > 5000"
    patient.run(f"DROP INDEX {PREFIX_INDEX}", f"CREATE INDEX partial ON {partial}")
    finding = only(patient.found(table.c.embedding), "index-missing", "info")
    assert "(m = 24, ef_construction = 120);" in finding.remedy


# -- filters that are used -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted() -> Iterator[Engine]:
    """A database whose server counts statements; a library that is loaded at its start takes a server of its own."""
    settings = "-c shared_preload_libraries=pg_stat_statements -c fsync=off"
    with started(Programs.installed().folder, settings) as url:
        engine = create_engine(database.sqlalchemy_url(url))
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION vector"))
            connection.execute(text("CREATE EXTENSION pg_stat_statements"))
        yield engine
        engine.dispose()


def test_a_filter_that_is_often_used(counted: Engine) -> None:
    """By the statements that searches make; others, and rare ones, are not reported."""
    table = Table(
        "wares",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant id", Integer),
        Column("section", Text),
        Column("size", Integer),
        Column("embedding", Matryoshka(8, Short(4))),
    )
    tenant, section, vector = table.c["tenant id"], table.c.section, np.ones(8)
    searches: list[tuple[int, Any]] = [
        (3, select(table).where(section == "games", tenant == 3, table.c.size > 2)),
        (2, select(table.c.id).where(tenant.in_([3, 4]), section == "x")),
        (4, select(table).where(section == "games")),
        (9, select(table)),
        (9, select(table).where(table.c.size > 2)),
    ]
    thresholds = Thresholds(filter_calls=5)
    with counted.connect() as connection:
        table.create(connection)
        connection.commit()
        for count, statement in searches:
            for _ in range(count):
                connection.execute(search(statement, table.c.embedding, vector, k=2)).all()
        connection.commit()
        report = doctor(connection, "wares.embedding", only=CHECKS, thresholds=thresholds)
        assert report.not_checked == ()
        (finding,) = report
        assert (finding.check, finding.severity) == ("filter-without-index", "warning")
        assert finding.values["filter"] == ["tenant id", "section"]
        assert finding.values["calls"] == 5
        statement, _, declared = finding.remedy.partition(";  or in the model ")
        assert declared == "filters=[FilterIndex('tenant id', 'section', include=['size'])]"
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        database.execute_plain(connection, statement)
        assert list(doctor(connection, "wares.embedding", only=CHECKS, thresholds=thresholds)) == []


def test_statements_of_others_are_not_seen_by_everybody(counted: Engine) -> None:
    """The report says so, and what to grant."""
    with counted.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE own (id int PRIMARY KEY, embedding vector(8), short halfvec(4) "
                "GENERATED ALWAYS AS (l2_normalize(subvector(embedding, 1, 4))::halfvec(4)) STORED)"
            )
        )
        connection.execute(text("CREATE ROLE plain"))
        connection.execute(text("GRANT SELECT ON own TO plain"))
        connection.execute(text("SET LOCAL ROLE plain"))
        report = doctor(connection, "own.embedding", only=("filter-without-index",))
        assert [(each.check, "pg_read_all_stats" in each.reason) for each in report.not_checked] == [
            ("filter-without-index", True)
        ]
        connection.rollback()
