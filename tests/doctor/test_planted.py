"""Each fault is planted on a real server, and found; nothing else is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from pgmrl import Hnsw, Matryoshka, Prefix, Short, database, install_functions
from pgmrl.database.index_states import index_states
from pgmrl.database.settings import Setting, store_setting
from pgmrl.doctor import Thresholds
from pgmrl.doctor.checks.search_plans import compiles
from pgmrl.doctor.checks.versions import defects, library_version
from pgmrl.functions.searched_column import VERSION
from pgmrl.model.shortening import Definition
from pgmrl.online.backfill import short_fill
from pgmrl.online.jobs import begin
from pgmrl.online.target import Target
from tests.doctor.conftest import ROWS, SHORT, recorded
from tests.migrations.processes import interrupt_build

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.doctor import Finding
    from tests.doctor.conftest import Patient

PREFIX_INDEX = "packages_embedding_short_32_hnsw"


def only(found: dict[str, list[Any]], check: str, severity: str) -> Finding:
    """The one finding, of this check."""
    assert list(found) == [check], found
    assert [one.severity for one in found[check]] == [severity]
    finding: Finding = found[check][0]
    return finding


def rotated(patient: Patient) -> str:
    """The short column of `notes`."""
    return str(patient.ward.notes.c.embedding.info["pgmrl"].short)


def shown(patient: Patient, finding: Finding) -> list[Any]:
    """The rows of the SQL behind a finding."""
    with patient.engine.connect() as connection:
        return list(database.execute_plain(connection, finding.sql).all())


# -- indexes -------------------------------------------------------------------------------------------------------


def test_index_missing(patient: Patient) -> None:
    """And what makes it."""
    patient.run(f"DROP INDEX {PREFIX_INDEX}")
    finding = only(patient.found(), "index-missing", "warning")
    assert finding.subject == "public.packages.embedding"
    assert f"{ROWS:,} rows" in finding.message
    assert shown(patient, finding) == []
    patient.run(finding.remedy.partition(";")[0])
    assert patient.found() == {}


def test_index_missing_of_a_model_that_says_how(patient: Patient) -> None:
    """Its own parameters, and another name where a plain index has the usual one."""
    table = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(96, Short(SHORT, by=Prefix()), index=Hnsw(24, 120))),
    )
    patient.run(f"DROP INDEX {PREFIX_INDEX}", f"CREATE INDEX {PREFIX_INDEX} ON packages (section)")
    finding = only(patient.found(table.c.embedding), "index-missing", "warning")
    patient.run(finding.remedy.partition(";")[0])
    assert patient.found(table.c.embedding) == {}
    with patient.engine.connect() as connection:
        (index,) = index_states(connection, "packages", f"embedding_short_{SHORT}")
    assert (index.name, index.index) == (f"{PREFIX_INDEX}_new", Hnsw(24, 120))


def test_index_invalid_after_an_interrupted_build(patient: Patient) -> None:
    """CREATE INDEX CONCURRENTLY was cancelled in the middle."""
    patient.run(f"DROP INDEX {PREFIX_INDEX}")
    build = f"CREATE INDEX CONCURRENTLY interrupted ON packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops)"
    interrupt_build(patient.engine, "packages", build)
    finding = only(patient.found(), "index-invalid", "warning")
    assert finding.values["index"] == "interrupted"
    assert [row.valid for row in shown(patient, finding)] == [False]
    patient.run(finding.remedy)
    assert patient.found() == {}


@pytest.mark.parametrize("name", ["other", PREFIX_INDEX])
def test_index_for_another_metric(patient: Patient, name: str) -> None:
    """The short vectors are normalised, so cosine is what searches ask by; in the end it has its usual name."""
    patient.run(
        f"DROP INDEX {PREFIX_INDEX}",
        f"CREATE INDEX {name} ON packages USING hnsw (embedding_short_{SHORT} halfvec_l2_ops)",
    )
    finding = only(patient.found(), "index-operator-class", "warning")
    assert (finding.values["operator_class"], finding.values["expected"]) == ("halfvec_l2_ops", "halfvec_cosine_ops")
    patient.run(*[one for one in finding.remedy.replace("then", "").split(";") if one.strip()])
    assert patient.found() == {}
    with patient.engine.connect() as connection:
        (index,) = index_states(connection, "packages", f"embedding_short_{SHORT}")
    assert (index.name, index.operator_class) == (PREFIX_INDEX, "halfvec_cosine_ops")


def test_two_indexes_for_the_same_searches(patient: Patient) -> None:
    """Both are named; the one that the model knows stays."""
    create = f"CREATE INDEX twin ON packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops)"
    patient.run(f"{create} WITH (m = 24)")
    finding = only(patient.found(), "index-duplicate", "warning")
    assert sorted(finding.values["indexes"]) == [PREFIX_INDEX, "twin"]
    said, _, statements = finding.remedy.partition(": ")
    assert said == f"Drop all but {PREFIX_INDEX}"
    patient.run(*[one for one in statements.split(";") if one.strip()])
    assert patient.found() == {}


def test_an_invalid_index_beside_one_for_another_metric(patient: Patient) -> None:
    """The INVALID one is the only right one: it is built anew, and not dropped; then the other one goes."""
    patient.run(
        f"CREATE INDEX other ON packages USING hnsw (embedding_short_{SHORT} halfvec_l2_ops)",
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{PREFIX_INDEX}'::regclass",
    )
    found = patient.found()
    assert {name: one[0].severity for name, one in found.items()} == {
        "index-invalid": "warning",
        "index-operator-class": "warning",
    }
    assert found["index-invalid"][0].remedy.startswith("REINDEX")
    patient.run(found["index-invalid"][0].remedy)
    # two valid indexes, of which one serves: the other is somebody else's business
    assert patient.found() == {}
    patient.run(found["index-operator-class"][0].remedy.partition("then ")[2])
    assert patient.found() == {}
    patient.run(
        f"CREATE INDEX other ON packages USING hnsw (embedding_short_{SHORT} halfvec_l2_ops)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'other'::regclass",
    )
    finding = only(patient.found(), "index-invalid", "warning")
    patient.run(finding.remedy.partition(";")[0])
    assert patient.found() == {}


def test_index_unused_while_its_table_is_read(patient: Patient) -> None:
    """A hundred sequential reads and no scan of the index; one scan of it, and it is used."""
    asked = Thresholds(unused_seconds=0, unused_reads=100)
    reads = ["SELECT count(*) FROM packages WHERE section IS NULL"] * 101
    patient.run("SET enable_bitmapscan = off", *reads)
    found = patient.found("packages.embedding", thresholds=asked)
    finding = only(found, "index-unused", "warning")
    assert finding.values["reads"] >= 100
    assert patient.found("packages.embedding") == {}, "the statistics are younger than a day"
    query = f"(SELECT embedding_short_{SHORT} FROM packages WHERE id = 1)"
    search = f"SELECT id FROM packages ORDER BY embedding_short_{SHORT} <=> {query} LIMIT 5"
    patient.run("SET enable_seqscan = off", search)
    assert patient.found("packages.embedding", thresholds=asked) == {}


# -- rows ----------------------------------------------------------------------------------------------------------


def test_rows_without_a_vector(patient: Patient) -> None:
    """A few are told, many are a warning."""
    patient.run(
        "ALTER TABLE packages SET (autovacuum_enabled = off)", "UPDATE packages SET embedding = NULL WHERE id < 7"
    )
    patient.run("ALTER TABLE packages RESET (autovacuum_enabled)", "VACUUM ANALYZE packages")
    finding = only(patient.found(), "rows-unfindable", "info")
    assert (finding.values["kind"], finding.values["rows"]) == ("null", 7)
    finding = only(patient.found(thresholds=Thresholds(1_000, null_share=0)), "rows-unfindable", "warning")
    assert f"7 of {ROWS:,} rows" in finding.message


def test_zero_and_zero_leading_vectors(patient: Patient) -> None:
    """Under cosine a short vector of zeros is not in the index."""
    zero = np.zeros(96)
    leading = np.concatenate([np.zeros(SHORT), np.ones(96 - SHORT)])
    for row, vector in enumerate((zero, leading)):
        patient.run(f"UPDATE packages SET embedding = '{vector.tolist()}' WHERE id = {row}")
    finding = only(patient.found(), "rows-unfindable", "warning")
    assert (finding.values["kind"], finding.values["rows"], finding.values["exact"]) == ("zero", 2, True)
    assert "leading 32 dimensions" in finding.message
    # inner product has a distance to a zero vector
    patient.run(f"UPDATE papers SET embedding = '{zero.tolist()}' WHERE id = 0")
    assert patient.found("papers.embedding") == {}


def test_large_tables_are_sampled(patient: Patient) -> None:
    """And the whole is an estimate."""
    patient.run("UPDATE packages SET embedding = NULL WHERE id % 20 = 0", "VACUUM ANALYZE packages")
    finding = only(patient.found(thresholds=Thresholds(1_000, exact_rows=3_000)), "rows-unfindable", "info")
    assert not finding.values["exact"]
    assert 1_500 < finding.values["examined"] < 6_000
    assert 200 < finding.values["rows"] < 1_100
    assert "about" in finding.message


def test_rows_that_a_loader_wrote_past_the_trigger(patient: Patient) -> None:
    """session_replication_role = replica: the rows have no short vector; the backfill command repairs them."""
    vectors = "(SELECT embedding FROM notes WHERE id = 1)"
    patient.run(
        "SET session_replication_role = replica",
        f"INSERT INTO notes (id, embedding) SELECT n, {vectors} FROM generate_series(20001, 20005) AS n",
    )
    finding = only(patient.found(), "short-missing", "critical")
    assert finding.values["rows"] == 5
    patient.run(finding.remedy.partition(", or ")[2])
    assert patient.found() == {}


def test_short_vectors_of_other_rows(patient: Patient) -> None:
    """Full vectors changed while the triggers were disabled."""
    patient.run(
        "ALTER TABLE notes DISABLE TRIGGER USER",
        "UPDATE notes AS n SET embedding = (SELECT o.embedding FROM notes AS o WHERE o.id = n.id + 1) WHERE id < 3000",
        "ALTER TABLE notes ENABLE TRIGGER USER",
        "VACUUM ANALYZE notes",
    )
    finding = only(patient.found(), "short-differs", "critical")
    assert 0 < finding.values["differ"] <= finding.values["compared"]
    patient.run(finding.remedy.partition(";")[0])
    changed = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'notes'"
    with patient.engine.connect() as connection:
        assert connection.execute(text(changed)).scalar_one() < 2 * 3_100, "the others are left alone"
    patient.run("VACUUM ANALYZE notes")
    assert patient.found() == {}


@pytest.mark.parametrize(("mode", "said"), [("DISABLE", "is disabled"), ("ENABLE REPLICA", "fires on replicas only")])
def test_a_trigger_that_does_not_fire(patient: Patient, mode: str, said: str) -> None:
    """Of the short column, and its remedy."""
    keeper = f"zz_pgmrl_notes_{rotated(patient)}"
    patient.run(f"ALTER TABLE notes {mode} TRIGGER {keeper}_u")
    finding = only(patient.found(), "sync-trigger", "critical")
    assert said in finding.message
    assert finding.values["trigger"] == f"{keeper}_u"
    patient.run(finding.remedy.partition(";")[0])
    assert patient.found() == {}


def test_a_trigger_that_is_gone(patient: Patient) -> None:
    """One of the two: the other is still the catalogue's word for what keeps the column."""
    patient.run(f"DROP TRIGGER zz_pgmrl_notes_{rotated(patient)}_u ON notes")
    assert "is missing" in only(patient.found(), "sync-trigger", "critical").message


def test_both_triggers_gone(patient: Patient) -> None:
    """Then the catalogue no longer knows the column; its function does, and so does the model."""
    keeper = f"zz_pgmrl_notes_{rotated(patient)}"
    patient.run(f"DROP TRIGGER {keeper} ON notes", f"DROP TRIGGER {keeper}_u ON notes")
    finding = only(patient.found(), "sync-function-orphan", "critical")
    assert finding.values["table"] == "notes"
    assert set(patient.found(patient.ward.notes.c.embedding)) == {"model"}
    patient.run("DROP TABLE notes")
    assert (
        only(patient.found(skip=["leftover-rows"]), "sync-function-orphan", "info").remedy
        == f"DROP FUNCTION public.{keeper}();"
    )


OLD_NAMES = ["leftover-rows", "recall-unmeasured"]  # what was recorded of a column goes by its old name


def test_renamed_columns(patient: Patient) -> None:
    """Nothing fails, it is said, and the remedy ends it; names that are exchanged are worse."""
    patient.run(
        "ALTER TABLE notes RENAME embedding TO vector",
        "INSERT INTO notes SELECT 20001, vector, NULL FROM notes LIMIT 1",
    )
    finding = only(patient.found(skip=OLD_NAMES), "renamed", "warning")
    assert finding.subject == "public.notes.vector"
    assert "`pgmrl backfill public.notes.vector --repair`" in finding.remedy
    patient.run("ALTER TABLE notes ADD embedding vector(96)")
    assert "computed from the wrong vectors" in only(patient.found(skip=OLD_NAMES), "renamed", "critical").message
    patient.run("ALTER TABLE notes DROP embedding", "ALTER TABLE notes RENAME vector TO embedding")
    assert patient.found() == {}


def test_a_renamed_side_table(patient: Patient) -> None:
    """Every write of a vector fails then; the remedy installs the trigger anew."""
    patient.run("ALTER TABLE papers_embedding RENAME TO vectors")
    finding = only(patient.found(), "renamed", "critical")
    assert "there is no table public.papers_embedding" in finding.message
    patient.run(*(part.strip() for part in finding.remedy.split(";") if part.strip()))
    patient.run("INSERT INTO papers SELECT 20001, embedding FROM papers WHERE id = 1")
    assert "renamed" not in patient.found()


@pytest.mark.parametrize(
    "made",
    [
        ("CREATE TABLE copied (LIKE notes INCLUDING ALL)",),
        ("CREATE TABLE copied AS SELECT * FROM notes",),
    ],
)
def test_a_column_that_nothing_keeps(patient: Patient, made: tuple[str, ...]) -> None:
    """A copied table has the column, and not the triggers."""
    patient.run(*made)
    finding = only(patient.found(), "unkept-column", "critical")
    assert (finding.values["table"], finding.values["column"]) == ("public.copied", rotated(patient))
    patient.run(finding.remedy.partition("; or ")[2])
    assert "unkept-column" not in patient.found()


def test_orphans_of_a_side_table(patient: Patient) -> None:
    """Deleted while the foreign key did not fire; the remedy deletes their copies."""
    patient.run("SET session_replication_role = replica; DELETE FROM papers WHERE id < 300", "VACUUM ANALYZE papers")
    finding = only(patient.found(), "side-table", "warning")
    assert finding.values["orphans"] > 0
    patient.run(finding.remedy, "VACUUM ANALYZE papers_embedding")
    assert "side-table" not in patient.found()


def test_leftover_rows(patient: Patient) -> None:
    """Settings and recall of a table that was dropped, or whose column was renamed; the remedy deletes them."""
    patient.run("DROP TABLE papers_embedding, papers CASCADE", "ALTER TABLE packages RENAME embedding TO vector")
    findings = [finding for finding in patient.see() if finding.check == "leftover-rows"]
    assert {finding.values["table"]: finding.values["rows"] for finding in findings} == {
        "settings": 1,
        "recall_history": 2,
    }
    assert {finding.severity for finding in findings} == {"info"}
    patient.run(*(finding.remedy.partition("Dropped: ")[2] for finding in findings))
    assert "leftover-rows" not in {finding.check for finding in patient.see()}


def test_a_side_table_behind_its_owner(patient: Patient) -> None:
    """Rows that never came over, and one with another vector; the remedy copies them."""
    patient.run(
        "SET session_replication_role = replica",
        "INSERT INTO papers SELECT 20001, embedding FROM papers WHERE id = 1",
        "UPDATE papers SET embedding = (SELECT embedding FROM papers WHERE id = 3) WHERE id = 2",
    )
    finding = only(patient.found(), "side-table", "critical")
    assert (finding.values["missing"], finding.values["different"]) == (1, 1)
    patient.run(finding.remedy)
    with patient.engine.connect() as connection:
        written = "SELECT n_tup_ins, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'papers_embedding'"
        assert tuple(connection.execute(text(written)).one()) == (1, 1), "the others are left alone"
    assert patient.found() == {}
    patient.run("ALTER TABLE papers DISABLE TRIGGER USER")
    found = patient.found()
    assert [one.check for one in found["sync-trigger"]] == ["sync-trigger", "sync-trigger"]
    assert "side table public.papers_embedding" in found["sync-trigger"][0].message


def test_an_empty_side_table_is_sampled_by_its_owner(patient: Patient) -> None:
    """Its own size says nothing of how many rows there are to read."""
    patient.run("TRUNCATE papers_embedding", "ANALYZE papers_embedding")
    found = patient.found("papers.embedding", thresholds=Thresholds(1_000, exact_rows=500), only=["side-table"])
    finding = only(found, "side-table", "critical")
    assert 0 < finding.values["examined"] == finding.values["missing"] < 1_500


def test_a_side_table_without_a_key(patient: Patient) -> None:
    """Cannot be compared, and is no end of the doctor."""
    patient.run("ALTER TABLE papers_embedding DROP CONSTRAINT papers_embedding_pkey")
    report = patient.see("papers.embedding")
    (skipped,) = [one for one in report.not_checked if one.check == "side-table"]
    assert "has no primary key" in skipped.reason


# -- rotations -----------------------------------------------------------------------------------------------------


def restored(patient: Patient, finding: Finding) -> None:
    """What the remedy says: statements of the owner of pgmrl's schema, who is no superuser, then the file."""
    role = f"owner_of_{patient.engine.url.database}"
    patient.run(
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA pgmrl TO {role}",
        f"ALTER TABLE pgmrl.axes OWNER TO {role}",
        f"ALTER TABLE pgmrl.rotations OWNER TO {role}",
    )
    statements = finding.remedy.partition(": ")[2].partition(";  then")[0]
    assert statements.startswith("BEGIN; ")
    try:
        patient.run(f"SET ROLE {role}", *statements.split("; "))
        with patient.engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
            assert database.install_rotation(connection, patient.ward.rotation)
    finally:
        patient.engine.dispose()
        patient.run(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert patient.found() == {}
    with patient.engine.begin() as connection, pytest.raises(DBAPIError, match="cannot be changed"):
        connection.exec_driver_sql("UPDATE pgmrl.axes SET n = n + 1000")


def test_axes_that_are_gone(patient: Patient) -> None:
    """Deleted past the guard."""
    patient.run("SET session_replication_role = replica", "DELETE FROM pgmrl.axes")
    report = patient.see()
    finding = report.findings[0]
    assert (finding.check, finding.severity) == ("rotation-axes", "critical")
    assert "has no axes" in finding.message
    # what needs them could not be looked at, and says so
    assert {one.check for one in report.not_checked} >= {"rotation-stale"}
    restored(patient, finding)


def test_axes_that_were_changed(patient: Patient) -> None:
    """Their hash is another one."""
    patient.run(
        "SET session_replication_role = replica",
        "UPDATE pgmrl.axes SET axis = (SELECT o.axis FROM pgmrl.axes AS o WHERE o.n = 2) WHERE n = 1",
    )
    found = patient.see().findings
    finding = next(one for one in found if one.check == "rotation-axes")
    assert finding.values["computed"] != patient.ward.rotation.id
    assert "has other axes" in finding.message
    restored(patient, finding)


def test_a_rotation_that_no_longer_fits(patient: Patient) -> None:
    """The application moved to a model whose dimensions mean something else; here, their order is another."""
    order = np.random.default_rng(5).permutation(96)
    vectors = patient.ward.vectors[:, order]
    patient.run("CREATE TABLE moved (id integer PRIMARY KEY, embedding vector(96))")
    url = patient.engine.url.set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as connection, connection.cursor().copy("COPY moved FROM STDIN") as copy:
        for number, vector in enumerate(vectors.tolist()):
            copy.write_row((number, str(vector)))
    patient.run(
        "UPDATE notes SET embedding = m.embedding FROM moved AS m WHERE m.id = notes.id", "VACUUM FULL ANALYZE notes"
    )
    finding = only(patient.found(thresholds=Thresholds(1_000)), "rotation-stale", "warning")
    assert finding.values["kept_anew"] - finding.values["kept"] == pytest.approx(finding.values["gain"])
    assert finding.values["gain_low"] > 0.02


# -- searches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "severity", "said"),
    [
        ("hnsw.max_scan_tuples = 50", "warning", "before it has the 100 rows of a shortlist"),
        ("hnsw.max_scan_tuples = 5000", "info", "end before pgvector's default"),
        ("hnsw.ef_search = 40", "info", "at most 40 rows"),
        ("session_replication_role = replica", "critical", "triggers do not fire"),
        ("enable_seqscan = off", "info", "may use the index"),
    ],
)
def test_settings_of_the_database(patient: Patient, setting: str, severity: str, said: str) -> None:
    """Of the database and of a role in it; the remedy takes them back."""
    name = patient.engine.url.database
    role = f'"it\'s in database {name}"'
    patient.run(f"CREATE ROLE {role}")
    try:
        for place in (f"DATABASE {name}", f"ROLE postgres IN DATABASE {name}", f"ROLE {role} IN DATABASE {name}"):
            patient.run(f"SELECT '[1]'::vector; ALTER {place} SET {setting}")
            finding = only(patient.found(), "settings", severity)
            assert said in finding.message
            patient.run(finding.remedy)
        assert patient.found() == {}
    finally:
        patient.run(f"DROP ROLE {role}")


def test_settings_that_are_enough(patient: Patient) -> None:
    """An ef_search above the shortlists says nothing."""
    patient.run(f"SELECT '[1]'::vector; ALTER DATABASE {patient.engine.url.database} SET hnsw.ef_search = 200")
    assert patient.found() == {}


def test_a_plan_without_the_index(patient: Patient) -> None:
    """Because somebody has switched index scans off."""
    patient.run(f"ALTER DATABASE {patient.engine.url.database} SET enable_indexscan = off")
    found = patient.found()
    assert set(found) == {"plan", "settings"}
    assert "enable_indexscan is off" in found["plan"][0].message
    assert {one.subject for one in found["plan"]} == {
        "public.packages.embedding",
        "public.notes.embedding",
        "public.papers_embedding.embedding",
    }


def test_searches_that_are_compiled() -> None:
    """The embedded server comes without JIT, so that the rule alone is tested: above the cost, and never at -1."""
    assert compiles(True, 100_000, 100_001)
    assert not compiles(True, 100_000, 100_000)
    assert not compiles(True, -1, 1e12)
    assert not compiles(False, 10, 1e12)


def test_jit_that_is_not_available_is_no_finding(patient: Patient) -> None:
    """Switched on, and the server has none."""
    patient.run(f"ALTER DATABASE {patient.engine.url.database} SET jit = on")
    patient.run(f"ALTER DATABASE {patient.engine.url.database} SET jit_above_cost = 1")
    assert patient.found() == {}


def test_settings_that_tuning_stored(patient: Patient) -> None:
    """For a table that has grown, and past what HNSW keeps."""
    with patient.engine.begin() as connection:
        store_setting(connection, patient.ward.packages.c.embedding, Setting(10, 100, 100, row_count=ROWS // 3))
    assert only(patient.found(), "stored-setting", "warning").values["rows"] == ROWS
    with patient.engine.begin() as connection:
        store_setting(connection, patient.ward.packages.c.embedding, Setting(10, 1_500, 1_000, row_count=ROWS))
    found = patient.found(skip=["recall-unmeasured"])  # made with another shortlist
    assert only(found, "stored-setting", "info").values["shortlist"] == 1_500


# -- recall --------------------------------------------------------------------------------------------------------


def _measured(patient: Patient, *recalls: float, days: float) -> None:
    """One recall a day, from so many days ago."""
    with patient.engine.begin() as connection:
        for number, recall in enumerate(recalls):
            recorded(connection, patient.ward.packages, recall, days=days - number)


def test_recall_below_its_target(patient: Patient) -> None:
    """By more than its interval: .9 is the target, .893 might be .9."""
    _measured(patient, 0.893, days=9)
    assert "recall-target" not in patient.found()
    _measured(patient, 0.85, days=8)
    found = patient.found()
    assert set(found) == {"recall-target", "recall-drift"}
    assert found["recall-target"][0].severity == "critical"
    assert found["recall-target"][0].values["target"] == 0.9


def test_low_recall_without_a_target(patient: Patient) -> None:
    """A loss that nobody has chosen; with the cause of most of it."""
    patient.run("DELETE FROM pgmrl.settings")
    _measured(patient, 0.893, days=9)
    assert "recall-low" not in patient.found()
    _measured(patient, 0.79, days=8)
    finding = only(patient.found(skip=["recall-drift"]), "recall-low", "warning")
    assert finding.values["recall"] == 0.79
    assert "The largest loss is that of the HNSW scan: 0.190" in finding.message


def test_recall_measured_before_the_setting_changed(patient: Patient) -> None:
    """It is another search's: neither above nor below the target of this one."""
    _measured(patient, 0.94, 0.6, days=9)
    assert set(patient.found()) == {"recall-target", "recall-drift"}
    others = {"shortlist = 120": "shortlist 120", "ef_search = 90": "ef_search 90", "k = 5": "recall@5"}
    for number, said in others.items():
        patient.run("UPDATE pgmrl.settings SET k = 10, shortlist = 100, ef_search = 100")
        patient.run(f"UPDATE pgmrl.settings SET {number}")
        finding = only(patient.found(), "recall-unmeasured", "info")
        assert "recall has not been measured since the setting changed" in finding.message
        assert said in finding.message
    patient.run("UPDATE pgmrl.settings SET k = 10, shortlist = 120, ef_search = 100")
    patient.run("UPDATE pgmrl.recall_history SET shortlist = 120 WHERE recall = 0.6")
    assert set(patient.found()) == {"recall-target"}


def test_recall_that_drifts(patient: Patient) -> None:
    """Less than before by more than chance; noise is no drift."""
    _measured(patient, 0.951, 0.949, 0.948, 0.944, days=9)
    assert patient.found() == {}
    _measured(patient, 0.92, days=1)
    assert only(patient.found(), "recall-drift", "warning").values["measurements"] == 5


def test_recall_never_or_long_ago_recorded(patient: Patient) -> None:
    """Information, no more."""
    patient.run("UPDATE pgmrl.recall_history SET measured_at = now() - interval '31 days' WHERE short_column ~ '_r'")
    assert "31 days ago" in only(patient.found(), "recall-unmeasured", "info").message
    patient.run("UPDATE pgmrl.recall_history SET measured_at = now(), row_count = 10 WHERE short_column ~ '_r'")
    assert "with 10 rows" in only(patient.found(), "recall-unmeasured", "info").message
    patient.run("DELETE FROM pgmrl.recall_history WHERE short_column ~ '_r'")
    assert "recall has not been measured" in only(patient.found(), "recall-unmeasured", "info").message


# -- vacuum and statistics -----------------------------------------------------------------------------------------


def test_dead_rows_and_autovacuum_off(patient: Patient) -> None:
    """A third was deleted, and nobody vacuums."""
    patient.run(
        "ALTER TABLE packages SET (autovacuum_enabled = off)",
        "DELETE FROM packages WHERE id % 3 = 0",
        "ANALYZE packages",
    )
    found = patient.found()
    assert {check: found[check][0].severity for check in found} == {"dead-rows": "warning", "autovacuum": "warning"}
    assert found["dead-rows"][0].values["share"] == pytest.approx(1 / 3, abs=0.01)
    patient.run(found["autovacuum"][0].remedy, "VACUUM ANALYZE packages")
    assert patient.found() == {}


def test_statistics_that_are_not_collected(patient: Patient) -> None:
    """Autovacuum works from them."""
    patient.run(f"ALTER DATABASE {patient.engine.url.database} SET track_counts = off")
    assert only(patient.found(), "autovacuum", "warning").values["setting"] == "track_counts"


def test_a_transaction_that_holds_vacuum_back(patient: Patient) -> None:
    """With a snapshot of its own; young ones are left alone."""
    with patient.engine.connect().execution_options(isolation_level="REPEATABLE READ") as other:
        pid = other.execute(text("SELECT pg_backend_pid() FROM packages LIMIT 1")).scalar_one()
        with patient.engine.connect() as connection:
            young = _doctor(connection, Thresholds(1_000))
            old = _doctor(connection, Thresholds(1_000, held_seconds=0))
    assert young == []
    assert [(one.check, one.values["blocker"]) for one in old] == [("vacuum-blocked", f"process {pid}")]
    assert str(pid) in old[0].remedy


def _doctor(connection: Connection, thresholds: Thresholds) -> list[Finding]:
    from pgmrl.doctor import doctor  # noqa: PLC0415 - the name of a module, too

    return list(doctor(connection, thresholds=thresholds))


def test_stale_statistics(patient: Patient) -> None:
    """Half of the rows changed since the last ANALYZE."""
    patient.run(
        "ALTER TABLE packages SET (autovacuum_enabled = off)",
        "UPDATE packages SET section = 'x' WHERE id % 2 = 0",
        "VACUUM packages",
        "ALTER TABLE packages RESET (autovacuum_enabled)",
    )
    finding = only(patient.found(), "statistics", "warning")
    assert finding.values["modified"] == ROWS // 2
    patient.run(finding.remedy)
    assert patient.found() == {}


def test_a_table_that_was_never_analyzed(patient: Patient) -> None:
    """As after a restore."""
    patient.run(
        "CREATE TABLE fresh (id integer PRIMARY KEY, embedding halfvec(96), "
        "short halfvec(32) GENERATED ALWAYS AS (l2_normalize(subvector(embedding, 1, 32))::halfvec(32)) STORED) "
        "WITH (autovacuum_enabled = off)",
        "INSERT INTO fresh SELECT id, embedding FROM packages WHERE id < 500",
        "ALTER TABLE fresh RESET (autovacuum_enabled)",
    )
    found = patient.found("fresh.embedding")
    assert set(found) == {"statistics", "index-missing", "recall-unmeasured"}
    assert "never analyzed" in found["statistics"][0].message
    assert found["index-missing"][0].severity == "info", "500 rows need none"


# -- memory --------------------------------------------------------------------------------------------------------


def test_memory(patient: Patient) -> None:
    """What the server was told of its memory, against indexes and tables."""
    name = patient.engine.url.database
    patient.run(f"ALTER DATABASE {name} SET effective_cache_size = '1MB'")
    finding = only(patient.found(), "memory", "warning")
    assert finding.values["index_bytes"] > finding.values["cache_bytes"] == 1024 * 1024
    assert len(shown(patient, finding)) == 3
    patient.run(f"ALTER DATABASE {name} SET effective_cache_size = '10MB'")
    assert only(patient.found(), "memory", "info").values["table_bytes"] > 0


def test_build_memory(patient: Patient) -> None:
    """What a REINDEX would need; a server's default of 64 MB is enough for this one."""
    name = patient.engine.url.database
    patient.run(f"ALTER DATABASE {name} SET maintenance_work_mem = '2MB'")
    found = patient.found("packages.embedding")
    assert only(found, "build-memory", "info").values["needed_bytes"] > 2 * 1024**2
    patient.run(f"ALTER DATABASE {name} SET maintenance_work_mem = '64MB'")
    assert patient.found("packages.embedding") == {}


# -- leftovers -----------------------------------------------------------------------------------------------------


def test_a_backfill_that_stopped(patient: Patient) -> None:
    """Begun, and no worker went on with it; or one that failed."""
    definition = Definition.of(96, Short(8, by=Prefix()))
    target = Target("packages", "embedding", definition, "public")
    patient.run(f"ALTER TABLE packages ADD COLUMN {target.short} halfvec(8)")
    with patient.engine.begin() as connection:
        begin(connection, short_fill(connection, target))
    finding = only(patient.found(), "backfill", "info")
    assert "`pgmrl progress`" in finding.remedy
    finding = only(patient.found(thresholds=Thresholds(1_000, idle_seconds=0)), "backfill", "warning")
    assert finding.remedy.startswith("`pgmrl backfill public.packages.embedding`")
    patient.run("UPDATE pgmrl.backfills SET state = 'failed: out of disk'")
    assert "out of disk" in only(patient.found(), "backfill", "warning").message


def test_a_short_column_left_behind(patient: Patient) -> None:
    """With the comment that a reshape gives it."""
    patient.run(f"COMMENT ON COLUMN notes.{rotated(patient)} IS 'pgmrl: retired; drop it'")
    found = patient.found()
    assert only(found, "short-retired", "info").values["bytes"] > 0


def test_functions_of_another_table(patient: Patient) -> None:
    """The table was renamed; its short column replaced."""
    patient.run("ALTER TABLE packages RENAME TO wares")
    finding = only(patient.found(), "functions", "critical")
    assert "public.packages, which does not exist" in finding.message
    patient.run("ALTER TABLE wares RENAME TO packages")
    expression = "l2_normalize(subvector(embedding, 1, 16))::halfvec(16)"
    patient.run(
        f"ALTER TABLE packages DROP COLUMN embedding_short_{SHORT}",
        f"ALTER TABLE packages ADD COLUMN short halfvec(16) GENERATED ALWAYS AS ({expression}) STORED",
        "CREATE INDEX ON packages USING hnsw (short halfvec_cosine_ops)",
        "VACUUM ANALYZE packages",
    )
    found = patient.found(skip=["recall-unmeasured"])
    assert f"embedding_short_{SHORT}, which does not exist" in only(found, "functions", "critical").message


def test_functions_of_an_older_version(patient: Patient) -> None:
    """As an older library wrote them: they still work."""
    now, older = f'"version": {VERSION}', f'"version": {VERSION - 1}'
    patient.run(f"UPDATE pg_proc SET prosrc = replace(prosrc, '{now}', '{older}') WHERE proname ~ '^packages_'")
    finding = only(patient.found(), "functions", "info")
    assert f"are of version {VERSION - 1}, this library writes version {VERSION}" in finding.message
    with patient.engine.begin() as connection:
        install_functions(connection, patient.ward.packages.c.embedding)
    assert patient.found() == {}


# -- versions ------------------------------------------------------------------------------------------------------


def test_known_defects_of_pgvector() -> None:
    """By the changelog: each version that mended something."""
    assert [severity for severity, _ in defects("0.8.0")] == ["critical", "warning", "warning"]
    assert [severity for severity, _ in defects("0.8.2")] == ["critical", "warning"]
    assert len(defects("0.8.3")) == 1
    assert defects("0.8.4") == []
    assert defects("0.9.0") == []
    # the library that runs counts, not the version of the SQL objects
    assert library_version("0.8.1", "0.8.6", None) == "0.8.6"
    assert library_version("0.8.1", "0.8.6", "0.8.2") == "0.8.2"
    assert library_version("0.8.1", None, None) == "0.8.1"


def test_a_library_with_known_defects(patient: Patient) -> None:
    """The database calls a copy of pgvector's library that says of itself that it is 0.8.2."""
    with patient.engine.connect() as connection:
        place = connection.execute(text("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")).scalar_one()
    copied = Path(tempfile.mkdtemp(prefix="pgmrl-old-"))  # the server's own account reads it
    copied.chmod(0o755)
    try:
        library = (Path(place) / "vector.so").read_bytes()
        assert library.count(b"0.8.6\0") == 1
        (copied / "vector.so").write_bytes(library.replace(b"0.8.6\0", b"0.8.2\0"))
        (copied / "vector.so").chmod(0o755)
        patient.run(f"UPDATE pg_proc SET probin = '{copied}/vector' WHERE probin = '$libdir/vector'")
        finding = only(patient.found(), "pgvector-version", "critical")
    finally:
        shutil.rmtree(copied)
    assert finding.values["version"] == "0.8.2"
    assert "corrupt" in finding.message


def test_an_extension_that_was_not_updated(patient: Patient) -> None:
    """The server's package is newer than the database's objects: information, for its code is what runs."""
    patient.run("UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'")
    finding = only(patient.found(), "pgvector-outdated", "info")
    assert finding.values["installed"] == "0.8.1"
    assert [row.installed for row in shown(patient, finding)] == ["0.8.1"]


def test_pgmrls_schema_behind(patient: Patient) -> None:
    """What needs the newer one is said not to be checked."""
    patient.run("UPDATE pgmrl.alembic_version SET version_num = '0000'")
    report = patient.see()
    assert [(one.check, one.severity) for one in report] == [("schema", "warning")]
    assert {one.check for one in report.not_checked} == {
            "recall-target", "recall-drift", "recall-low", "recall-unmeasured",
        }  # fmt: skip
    assert all("pgmrl upgrade" in one.reason for one in report.not_checked)


def test_the_model_ahead_of_the_database(patient: Patient) -> None:
    """A column that the migrations have not made yet, and one of another rotation."""
    patient.run(f"ALTER TABLE packages DROP COLUMN embedding_short_{SHORT}")
    found = patient.found(patient.ward.packages.c.embedding, skip=["functions"])
    assert "has no column embedding_short_32" in only(found, "model", "critical").message
    patient.run("ALTER TABLE packages RENAME embedding TO vector")
    found = patient.found(patient.ward.packages.c.embedding, skip=["functions"])
    assert "has no column embedding" in only(found, "model", "critical").message


def test_a_rotation_not_learned_yet(patient: Patient) -> None:
    """The search is exact; the doctor says it, too."""
    patient.run("CREATE TABLE later (id integer PRIMARY KEY, embedding halfvec(96))")
    found = patient.found("later.embedding")
    assert "no short vectors" in only(found, "model", "warning").message


def test_what_belongs_to_a_stranger(patient: Patient) -> None:
    """A trigger's function, which he may change."""
    role = f"stranger_{patient.engine.url.database}"
    with patient.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        function = connection.exec_driver_sql(
            "SELECT p.oid::regprocedure::text FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid "
            "WHERE t.tgrelid = 'notes'::regclass AND NOT t.tgisinternal LIMIT 1"
        ).scalar_one()
    patient.run(f"ALTER FUNCTION {function} OWNER TO {role}")
    try:
        finding = only(patient.found("notes.embedding"), "ownership", "critical")
        assert finding.values["owner"] == role
        assert "OWNER TO postgres" in finding.remedy
    finally:
        patient.run(f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP ROLE {role}")


def test_what_is_not_understood(patient: Patient) -> None:
    """A trigger with a name of pgmrl's and arguments that pgmrl does not write."""
    patient.run(
        "CREATE FUNCTION zz_pgmrl_odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER zz_pgmrl_odd BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION zz_pgmrl_odd('a', 'b', 'c')",
    )
    finding = only(patient.found(), "not-understood", "warning")
    assert finding.values == {"trigger": "zz_pgmrl_odd", "table": "public.notes"}


def test_triggers_of_embeddings_and_chunks(patient: Patient) -> None:
    """They are understood, whatever is in their templates; and said where their table of chunks is gone."""
    patient.run(
        "CREATE TABLE texts (id integer PRIMARY KEY, body text, embedding halfvec(96))",
        "CREATE TABLE parts (id integer PRIMARY KEY, text_id integer NOT NULL REFERENCES texts ON DELETE CASCADE, "
        "ordinal integer, start integer, stop integer, text text)",
        "ALTER TABLE parts ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        r"SELECT pgmrl.keep_embedding_v1('texts', 'zx_pgmrl_e', 'embedding', '{body}', '\000 {body}', 'm', true)",
        r"SELECT pgmrl.keep_chunks_v1('parts', 'zw_pgmrl_parts', '{body}', '\000 {body}', 'm', 20, 0, true)",
        "CREATE FUNCTION zt_pgmrl_t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER zt_pgmrl_t BEFORE INSERT ON texts FOR EACH ROW EXECUTE FUNCTION zt_pgmrl_t('e', 'm', '{body}')",
    )
    assert not {"not-understood", "embeddings"} & set(patient.found())
    patient.run("DROP TABLE parts")
    finding = only(patient.found(), "embeddings", "warning")
    assert "not there any more" in finding.message
    assert finding.remedy.endswith("DROP FUNCTION public.zw_pgmrl_parts() CASCADE;")


def test_rows_that_nobody_embeds(patient: Patient) -> None:
    """Marked an hour ago; and one that is parked. A row that was marked just now is a hint."""
    patient.run(
        "CREATE TABLE texts (id integer PRIMARY KEY, body text, embedding halfvec(96))",
        "SELECT pgmrl.keep_embedding_v1('texts', 'zx_pgmrl_texts_e', 'embedding', '{body}', '{body}', 'm', true)",
        "INSERT INTO texts VALUES (1, 'a'), (2, 'b')",
    )
    finding = only(patient.found(), "embeddings", "info")
    assert finding.values["stale"] == 2
    patient.run("UPDATE pgmrl.embedding_queue SET queued_at = now() - interval '1 hour'")
    assert "`pgmrl embed public.texts.embedding --watch`" in only(patient.found(), "embeddings", "warning").remedy
    patient.run("DELETE FROM pgmrl.embedding_queue WHERE key = '{1}'", "UPDATE pgmrl.embedding_queue SET parked = true")
    assert "--retry" in only(patient.found(), "embeddings", "warning").remedy


def test_a_length_that_the_model_was_not_trained_for(patient: Patient) -> None:
    """Of a model that `models.toml` knows; a trained length is no finding, nor is a model that nobody knows."""
    patient.run("CREATE TABLE lengths (id integer PRIMARY KEY, body text, e halfvec(96), f halfvec(96))")
    for column, dims in (("e", 48), ("f", 64)):
        short = f"l2_normalize(subvector({column}, 1, {dims}))::halfvec({dims})"
        patient.run(
            f"ALTER TABLE lengths ADD COLUMN {column}_short halfvec({dims}) GENERATED ALWAYS AS ({short}) STORED",
            f"CREATE INDEX ON lengths USING hnsw ({column}_short halfvec_cosine_ops)",
            f"SELECT pgmrl.keep_embedding_v1('lengths', 'zx_pgmrl_{column}', '{column}', '{{body}}', '{{body}}', "
            "'sentence-transformers:nomic-ai/nomic-embed-text-v1.5', true)",
        )
    found = patient.found()
    del found["recall-unmeasured"]
    finding = only(found, "untrained-lengths", "info")
    assert (finding.subject, finding.values) == ("public.lengths.e", {"dims": 48})
    assert "not to 48: take one of those, or a rotation" in finding.remedy
