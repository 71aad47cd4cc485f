"""The doctor where things are other than usual: a standby, few rights, partitions, hostile names, a busy table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, text
from sqlalchemy.orm import Session

from pgmrl import Matryoshka, Prefix, Rotation, Short, add_functions, add_side_table, database
from pgmrl.doctor import Check, NotChecked, Report, Thresholds, bounded_reads, doctor, health, measure_columns
from pgmrl.doctor.check_context import CheckContext, Server
from pgmrl.doctor.checked_columns import checked_columns
from pgmrl.doctor.run_checks import run_check
from pgmrl.errors import DatabaseError, DefinitionError, Locked, NotMigrated
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = Thresholds(small_rows=100, held_seconds=1e9)
VECTORS = np.random.default_rng(0).normal(size=(600, 8))
NEVER_RECORDED = {("recall-unmeasured", "info")}


def made(engine: Engine, rule: Any, name: str = "docs", **options: Any) -> Table:
    """A table with 600 rows, vacuumed and analyzed."""
    table = Table(
        name, MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4, rule), **options))
    )
    with engine.begin() as connection:
        if isinstance(rule, Rotation):
            database.install_rotation(connection, rule)
        table.create(connection)
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(VECTORS)])
    run(engine, f"VACUUM ANALYZE {name}")
    return table


def run(engine: Engine, *statements: str) -> None:
    """Statements of which each commits."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for one in statements:
            database.execute_plain(connection, one)


def seen(report: Report) -> set[tuple[str, str]]:
    """Checks and severities of what was found."""
    return {(one.check, one.severity) for one in report}


def everything_runs(connection: Connection, report: Report) -> None:
    """The SQL behind each finding is a statement that runs."""
    for one in report:
        if one.sql:
            database.execute_plain(connection, one.sql)


# -- the server ----------------------------------------------------------------------------------------------------


def test_a_hot_standby(standby: Engine) -> None:
    """Nothing is written; what only the primary knows is said; recall is measured and not kept."""
    with standby.connect() as connection:
        report = doctor(connection, thresholds=QUICK)
        assert report.standby
        assert seen(report) == NEVER_RECORDED
        skipped = {one.check for one in report.not_checked}
        assert skipped == {"dead-rows", "autovacuum", "vacuum-blocked", "statistics", "build-memory"}
        assert all("only the primary" in one.reason for one in report.not_checked)
        (measured,) = measure_columns(connection, "packages.embedding", sample=20)
        assert measured.recall is not None
        assert measured.recall.recall.mean > 0.6
        assert not measured.recorded
        assert "standby keeps no history" in str(measured.reason)
        report = doctor(connection, thresholds=QUICK, recalls={measured.name: measured.recall})
        assert report.findings == ()
        assert [one.index_state for one in health(connection)] == ["valid"]


def test_a_read_only_session_that_commits_by_itself(engine: Engine, small_rotation: Rotation) -> None:
    """An autocommit connection, a Session, and one in a transaction that goes on unharmed."""
    table = made(engine, small_rotation)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert seen(doctor(connection, thresholds=QUICK)) == NEVER_RECORDED
    with Session(engine) as session:
        assert seen(doctor(session, table.c.e, thresholds=QUICK)) == NEVER_RECORDED
    with engine.connect() as connection:
        connection.execute(table.insert().values(id=10_000, e=VECTORS[0]))
        before = connection.execute(text("SELECT name, setting FROM pg_settings WHERE name <> 'x'")).all()
        doctor(connection, thresholds=QUICK)
        after = connection.execute(text("SELECT name, setting FROM pg_settings WHERE name <> 'x'")).all()
        assert {one.name: one.setting for one in after}.items() >= {one.name: one.setting for one in before}.items()
        connection.execute(table.insert().values(id=10_001, e=VECTORS[0]))
        connection.commit()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM docs WHERE id >= 10000")).scalar_one() == 2


def test_a_database_without_pgmrls_schema(engine: Engine) -> None:
    """A prefix needs none of it; what would, is said."""
    table = made(engine, Prefix())
    with engine.begin() as connection:
        database.downgrade(connection)
        report = doctor(connection, table.c.e, thresholds=QUICK)
        assert report.findings == ()
        assert {one.check for one in report.not_checked} == {
            "recall-target", "recall-drift", "recall-low", "recall-unmeasured",
        }  # fmt: skip
        with pytest.raises(NotMigrated, match="pgmrl upgrade"):
            health(connection)


def test_a_database_without_pgvector(engine: Engine) -> None:
    """One finding, and nothing else was checked."""
    with engine.begin() as connection:
        database.downgrade(connection)
        connection.exec_driver_sql("DROP EXTENSION vector")
        report = doctor(connection)
        assert seen(report) == {("pgvector-version", "critical")}
        assert len(report.not_checked) == len(report.checks) - 1


def test_pgvector_elsewhere(elsewhere: Engine, small_rotation: Rotation) -> None:
    """In a schema that is not on the search_path: every check runs."""
    made(elsewhere, small_rotation, vector_schema="extensions")
    run(
        elsewhere,
        "SET session_replication_role = replica",
        "INSERT INTO docs (id, e) SELECT 5000, e FROM docs WHERE id = 1",
        "INSERT INTO docs (id) VALUES (5001)",
    )
    with elsewhere.connect() as connection:
        report = doctor(connection, thresholds=QUICK)
        expected = {("short-missing", "critical"), ("rows-unfindable", "info")}
        assert seen(report) == expected | NEVER_RECORDED
        assert report.not_checked == ()
        everything_runs(connection, report)


def test_remedies_with_pgvector_elsewhere(elsewhere: Engine, small_rotation: Rotation) -> None:
    """What they compare by is found without the search_path."""
    made(elsewhere, small_rotation, vector_schema="extensions")
    metadata = MetaData()
    table = Table(
        "notes", metadata, Column("id", Integer, primary_key=True), Column("e", NumpyVector(8, "vector", "extensions"))
    )
    add_side_table(table.c.e, Short(4), vector_schema="extensions")
    with elsewhere.begin() as connection:
        metadata.create_all(connection)
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(VECTORS)])
    run(
        elsewhere,
        "VACUUM ANALYZE",
        "SET session_replication_role = replica",
        "UPDATE docs SET e = (SELECT o.e FROM docs AS o WHERE o.id = 9) WHERE id < 9",
        "UPDATE notes SET e = (SELECT o.e FROM notes AS o WHERE o.id = 9) WHERE id = 8",
        "UPDATE notes SET e = NULL WHERE id = 7",
        "DELETE FROM notes_e WHERE id = 6",
        "RESET session_replication_role",
    )
    for expected in ({"short-differs", "side-table"}, set()):
        with elsewhere.connect() as connection:
            report = doctor(connection, thresholds=QUICK)
        found = {one.check: one for one in report if one.severity == "critical"}
        assert set(found) == expected
        run(elsewhere, *[one.remedy.partition(";")[0] for one in found.values()])


# -- rights --------------------------------------------------------------------------------------------------------


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """An ordinary role."""
    name = f"doctor_{engine.url.database}"
    run(engine, f"CREATE ROLE {name}")
    yield name
    engine.dispose()  # a connection that goes back to the pool may still be in it
    run(engine, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def as_role(engine: Engine, role: str, **options: Any) -> Report:
    """The report that a role gets."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET ROLE {role}")
        return doctor(connection, thresholds=QUICK, **options)


def test_a_role_with_few_rights(engine: Engine, role: str, small_rotation: Rotation) -> None:
    """What it may not read is named, with who could grant it; pg_monitor shows it what others do."""
    made(engine, small_rotation)
    report = as_role(engine, role)
    skipped = {one.check: one.reason for one in report.not_checked}
    assert {"short-missing", "short-differs", "rows-unfindable", "vacuum-blocked"} <= set(skipped)
    assert f"permission denied for table docs: grant it to {role}" in skipped["short-missing"]
    assert f"GRANT pg_monitor TO {role}" in skipped["vacuum-blocked"]
    run(engine, f"GRANT SELECT ON docs TO {role}", f"GRANT pg_monitor TO {role}")
    report = as_role(engine, role)
    assert report.not_checked == ()
    assert seen(report) == NEVER_RECORDED


def test_a_schema_without_usage(engine: Engine, role: str, small_rotation: Rotation) -> None:
    """What is in it is listed as not checked, and all else is looked at; the view for dashboards has both."""
    made(engine, small_rotation)
    metadata = MetaData(schema="closed")
    table = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("e", NumpyVector(8, "vector")))
    add_side_table(table.c.e, Short(4))
    add_functions(table.c.e)
    run(engine, "CREATE SCHEMA closed", f"GRANT SELECT ON docs TO {role}", f"GRANT pg_monitor TO {role}")
    with engine.begin() as connection:
        metadata.create_all(connection)
    report = as_role(engine, role)
    assert seen(report) == NEVER_RECORDED
    assert {(one.check, one.subject) for one in report.not_checked} == {
        ("all", "closed.notes_e.e"),
        ("functions", "closed.notes.e"),
    }
    assert all("no USAGE on schema closed" in one.reason for one in report.not_checked)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET ROLE {role}")
        connection.commit()
        assert {one.table_name for one in health(connection)} == {"docs", "notes_e"}
        connection.rollback()
        recalls = {one.name: one.reason for one in measure_columns(connection, sample=5) if one.recall is None}
        assert set(recalls) == {"closed.notes_e.e"}
        for column in ("closed.notes_e.e", table.c.e):
            with pytest.raises(DatabaseError, match="permission denied for schema closed: grant it"):
                doctor(connection, column)


def test_rows_that_row_level_security_hides(engine: Engine, role: str) -> None:
    """The counts are of what the role sees; that they are is said."""
    made(engine, Prefix())
    run(
        engine,
        "UPDATE docs SET e = NULL WHERE id >= 590",
        "VACUUM ANALYZE docs",
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON docs USING (id >= 595)",
        f"GRANT SELECT ON docs TO {role}",
        f"GRANT pg_monitor TO {role}",
    )
    report = as_role(engine, role, only=["rows-unfindable", "short-missing"])
    assert [one.values["found"] for one in report] == [5]
    assert {one.check for one in report.not_checked} == {"rows-unfindable", "short-missing"}
    assert all("row-level security" in one.reason for one in report.not_checked)


# -- time ----------------------------------------------------------------------------------------------------------


def test_a_table_that_somebody_holds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that reads it gives up; where its size cannot be read, nothing can be checked."""
    monkeypatch.setattr(bounded_reads, "LOCK_SECONDS", 0.2)  # nobody lets go of it meanwhile
    metadata = MetaData()
    table = Table("docs", metadata, Column("id", Integer, primary_key=True), Column("e", NumpyVector(8, "vector")))
    add_side_table(table.c.e, Short(4))
    with engine.begin() as connection:
        metadata.create_all(connection)
    with engine.connect() as holder, engine.connect() as connection:
        holder.exec_driver_sql("LOCK TABLE docs IN ACCESS EXCLUSIVE MODE")
        report = doctor(connection, only=["side-table", "short-missing", "pgvector-version"], seconds=20)
        assert [one.check for one in report.not_checked] == ["side-table"]
        assert "holds the table" in report.not_checked[0].reason
        holder.exec_driver_sql("LOCK TABLE docs_e IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Locked, match="try again later"):
            doctor(connection, seconds=20)
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_time_that_is_up(engine: Engine) -> None:
    """What was not reached is listed; nothing is silently skipped."""
    made(engine, Prefix())
    with engine.connect() as connection:
        with pytest.raises(DatabaseError, match="not read within 1e-09 s"):
            doctor(connection, seconds=1e-9)
        context = CheckContext(connection, Server.of(connection), checked_columns(connection, []).columns, Thresholds())
        deadline = time.monotonic() + 0.3
        slow = Check("slow", "info", "takes long", on_database=lambda given: given.rows("SELECT pg_sleep(3)::text"))  # type: ignore[arg-type, return-value]
        late = Check("late", "info", "comes late", on_column=lambda *_: ())
        results = [result for check in (slow, late) for result in run_check(context, check, deadline)]
    assert [(one.check, one.subject) for one in results] == [("slow", "database"), ("late", "public.docs.e")]
    assert all(isinstance(one, NotChecked) and "--seconds" in one.reason for one in results)


def test_what_was_asked_for(engine: Engine) -> None:
    """Leftovers of other tables are told where the whole database is examined."""
    made(engine, Prefix())
    made(engine, Prefix(), "others")
    run(
        engine,
        "INSERT INTO pgmrl.backfills (table_schema, table_name, source_column, target_column, rule, key_columns, "
        "table_oid, target_number, rows_estimated, state) "
        "VALUES ('public', 'others', 'e', 'x', 'prefix', '{}', 0, 0, 1, 'failed: x')",
    )
    with engine.connect() as connection:
        assert ("backfill", "warning") in seen(doctor(connection))
        assert ("backfill", "warning") in seen(doctor(connection, "others.e"))
        assert ("backfill", "warning") not in seen(doctor(connection, "docs.e"))


def test_checks_by_name(engine: Engine) -> None:
    """Only some, all but some, and a name that there is none of."""
    made(engine, Prefix())
    with engine.connect() as connection:
        assert doctor(connection, only=["plan"]).checks == ("plan",)
        assert "plan" not in doctor(connection, skip=["plan"]).checks
        with pytest.raises(DefinitionError, match=r"no check 'plans': choose from model, "):
            doctor(connection, only=["plans"])
        with pytest.raises(NotMigrated, match="no table"):
            doctor(connection, "nothing.e")
        with pytest.raises(DefinitionError, match=r"expected table\.column"):
            doctor(connection, "nothing")


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["prefix", "rotation"])
@pytest.mark.parametrize("names", [
    ("my.schema", "order", 'a"b'),
    ("100%", "50%s", "%(x)s"),
    ("a:b", ":name", "::c"),
    ("$$", "$1", "$body$"),
    ("größe", "Größe", "表" * 21),
    ("back\\slash", "it's", "a\\'b"),
])  # fmt: skip
def test_hostile_names(engine: Engine, small_rotation: Rotation, names: tuple[str, str, str], by: str) -> None:
    """In every statement of the doctor's, and in those it shows."""
    schema, name, column = names
    rule = small_rotation if by == "rotation" else Prefix()
    table = Table(
        name,
        MetaData(schema=schema),
        Column("the key", Integer, primary_key=True),
        Column(column, Matryoshka(8, Short(4, rule))),
    )
    quote = engine.dialect.identifier_preparer.quote_identifier
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        connection.exec_driver_sql(f"CREATE SCHEMA {quote(schema)}")
        table.create(connection)
        rows = [{"the key": n, column: None if n == 7 else v} for n, v in enumerate(VECTORS)]
        connection.execute(table.insert(), rows)
        index = table.c[column].info["pgmrl"].index.index_name(name, table.c[column].info["pgmrl"].short)
        connection.exec_driver_sql(f"DROP INDEX {quote(schema)}.{quote(index)}")
        connection.exec_driver_sql(f"ANALYZE {quote(schema)}.{quote(name)}")
    with engine.connect() as connection:
        for columns in ((), (table.c[column],)):
            report = doctor(connection, *columns, thresholds=QUICK)
            expected = {("index-missing", "warning"), ("rows-unfindable", "info")}
            assert seen(report) == expected | NEVER_RECORDED
            assert report.not_checked == ()
            assert {one.subject for one in report} == {f"{schema}.{name}.{column}"}
            everything_runs(connection, report)
        connection.rollback()
    remedy = next(one.remedy for one in report if one.check == "index-missing")
    run(engine, remedy.partition(";  or")[0])
    with engine.connect() as connection:
        assert ("index-missing", "warning") not in seen(doctor(connection, thresholds=QUICK))


@pytest.fixture
def parted(engine: Engine, small_rotation: Rotation) -> Engine:
    """A table of three partitions, of which one has no index; its triggers are those of a rotation."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4, small_rotation), index=None)),
        postgresql_partition_by="RANGE (id)",
    )
    with engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        table.create(connection)
        for part in range(3):
            bounds = f"FROM ({200 * part}) TO ({200 * part + 200})"
            connection.exec_driver_sql(f"CREATE TABLE docs_{part} PARTITION OF docs FOR VALUES {bounds}")
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(VECTORS)])
        short = table.c.e.info["pgmrl"].short
        connection.exec_driver_sql(f"CREATE INDEX docs_hnsw ON ONLY docs USING hnsw ({short} halfvec_cosine_ops)")
        for part in range(3):
            name = f"docs_{part}_hnsw"
            connection.exec_driver_sql(f"CREATE INDEX {name} ON docs_{part} USING hnsw ({short} halfvec_cosine_ops)")
            if part < 2:
                connection.exec_driver_sql(f"ALTER INDEX docs_hnsw ATTACH PARTITION {name}")
    run(engine, "VACUUM ANALYZE docs")
    return engine


def test_partitions(parted: Engine) -> None:
    """The index of one is not the table's: which one is named. Attached, nothing is found."""
    with parted.connect() as connection:
        report = doctor(connection, thresholds=QUICK)
        finding = next(one for one in report if one.check == "index-invalid")
        assert "docs_2" in finding.remedy
        assert report.not_checked == ()
        everything_runs(connection, report)
    run(parted, "ALTER INDEX docs_hnsw ATTACH PARTITION docs_2_hnsw")
    with parted.connect() as connection:
        assert seen(doctor(connection, thresholds=QUICK)) == NEVER_RECORDED


def test_a_trigger_of_one_partition(parted: Engine) -> None:
    """Disabled there alone."""
    run(
        parted,
        "ALTER INDEX docs_hnsw ATTACH PARTITION docs_2_hnsw",
        "ALTER TABLE docs_1 DISABLE TRIGGER USER",
    )
    with parted.connect() as connection:
        report = doctor(connection, "docs.e", thresholds=QUICK)
        found = [one for one in report if one.check == "sync-trigger"]
        assert {one.values["table"] for one in found} == {"public.docs_1"}
        assert len(found) == 2
        everything_runs(connection, report)


def test_a_partitioned_table_never_analyzed(parted: Engine) -> None:
    """Its partitions were, by autovacuum; the parent never is."""
    run(
        parted,
        "ALTER INDEX docs_hnsw ATTACH PARTITION docs_2_hnsw",
        "UPDATE pg_class SET reltuples = -1 WHERE relname = 'docs'",
    )
    with parted.connect() as connection:
        (finding,) = [one for one in doctor(connection, thresholds=QUICK) if one.check == "statistics"]
    assert "autovacuum analyzes only the partitions" in finding.message


def test_a_side_table_with_a_key_of_two(engine: Engine) -> None:
    """In another form of vector, by a composite key with a name of its own."""
    metadata = MetaData()
    table = Table(
        "Notes",
        metadata,
        Column("the book", Integer, primary_key=True),
        Column("page", Integer, primary_key=True),
        Column("e", NumpyVector(8, "vector")),
    )
    add_side_table(table.c.e, Short(4), full="halfvec")
    with engine.begin() as connection:
        metadata.create_all(connection)
        rows = [{"the book": n % 7, "page": n, "e": v} for n, v in enumerate(VECTORS)]
        connection.execute(table.insert(), rows)
    run(engine, "VACUUM ANALYZE")
    with engine.connect() as connection:
        assert seen(doctor(connection, table.c.e, thresholds=QUICK)) == NEVER_RECORDED
    run(engine, "SET session_replication_role = replica", 'DELETE FROM "Notes_e" WHERE page < 3')
    with engine.connect() as connection:
        (found,) = [one for one in doctor(connection, thresholds=QUICK) if one.severity == "critical"]
    assert (found.check, found.values["missing"], found.values["different"]) == ("side-table", 3, 0)
    run(engine, found.remedy)
    with engine.connect() as connection:
        assert "side-table" not in {one.check for one in doctor(connection, thresholds=QUICK)}


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("kind", ["halfvec", "vector", "bit"])
def test_every_metric_and_type(engine: Engine, kind: Any, metric: Any) -> None:
    """Nothing is found, and a zero vector only where it has no distance."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4, type=kind), metric)),
    )
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(VECTORS)])
    run(engine, "VACUUM ANALYZE docs")
    with engine.connect() as connection:
        assert seen(doctor(connection, table.c.e, thresholds=QUICK)) == NEVER_RECORDED
        connection.execute(table.insert().values(id=9_999, e=np.zeros(8)))
        found = seen(doctor(connection, table.c.e, thresholds=QUICK)) - NEVER_RECORDED
    assert found == ({("rows-unfindable", "warning")} if metric == "cosine" else set())


def test_foreign_triggers_are_left_alone(engine: Engine) -> None:
    """One with an argument that is no table's name, nor UTF-8's idea of one."""
    made(engine, Prefix())
    run(
        engine,
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER a AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION nothing('a b.c.d.e \"')",
    )
    with engine.connect() as connection:
        report = doctor(connection, thresholds=QUICK)
        assert seen(report) == NEVER_RECORDED
        assert [one.recall for one in health(connection)] == [None]


def test_a_model_of_another_database(engine: Engine) -> None:
    """An engine without the table says so."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with engine.connect() as connection:
        (found,) = doctor(connection, table.c.e)
    assert (found.check, found.severity) == ("model", "critical")
    assert "no table docs" in found.message
