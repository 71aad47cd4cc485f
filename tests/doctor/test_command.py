"""`pgmrl doctor` as a monitor and a person run it; metrics, the view for dashboards, recall over time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from pgmrl.doctor import (
    CHECKS,
    Finding,
    NotChecked,
    Report,
    bounded_reads,
    doctor,
    health,
    measure_columns,
    prometheus_metrics,
)
from pgmrl.doctor.recall_series import recall_series
from pgmrl.errors import DefinitionError, Locked, MeasureError, NotMigrated
from tests.cli import run
from tests.doctor.conftest import ROWS, SHORT, SMALL, recorded

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from tests.doctor.conftest import Patient

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def place(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DATABASE_URL is the patient's, and the working directory an empty one."""
    monkeypatch.setenv("DATABASE_URL", patient.engine.url.render_as_string())
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def looked(*arguments: object) -> Result:
    """The command, to whatever exit code."""
    return run("doctor", *arguments)


def spoiled(patient: Patient) -> None:
    """One critical finding, one warning, one information."""
    patient.run(
        f"DROP INDEX packages_embedding_short_{SHORT}_hnsw",
        "SET session_replication_role = replica",
        "INSERT INTO notes (id, embedding) SELECT 20001, embedding FROM notes WHERE id = 1",
        "DELETE FROM pgmrl.recall_history WHERE short_column ~ '_r'",
    )


def forgotten(patient: Patient, role: str) -> None:
    """Drop a role; a connection that goes back to the pool may still be in it."""
    patient.engine.dispose()
    patient.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# -- for people ----------------------------------------------------------------------------------------------------


def test_a_healthy_database_prints_one_line() -> None:
    """And exits with 0."""
    result = looked()
    assert result.exit_code == 0
    assert result.stdout == f"healthy: 3 columns, {len(CHECKS)} checks\n"


def test_findings_the_worst_first(patient: Patient) -> None:
    """With remedy and SQL; 20 for critical, 10 for a warning."""
    spoiled(patient)
    result = looked()
    assert result.exit_code == 20
    places = [result.stdout.index(check) for check in ("short-missing", "index-missing", "recall-unmeasured")]
    assert places == sorted(places)
    assert result.stdout.count("remedy:") == 3
    assert "count(*) FILTER (WHERE embedding IS NULL)" in result.stdout
    assert "FILTER" not in looked("--no-sql").stdout
    assert looked("packages.embedding").exit_code == 10
    assert looked("notes.embedding", "--only", "recall-unmeasured").exit_code == 0


def test_information_is_no_fault(patient: Patient) -> None:
    """A last line says so, with words that are counted; no SQL unless it is asked for."""
    patient.run("DELETE FROM pgmrl.recall_history WHERE short_column ~ '_r'")
    result = looked()
    assert result.exit_code == 0
    assert "recall-unmeasured" in result.stdout
    assert "SELECT" not in result.stdout
    assert result.stdout.splitlines()[-1] == f"nothing wrong: 3 columns, {len(CHECKS)} checks, 1 hint"
    assert "FROM pgmrl.recall_history" in looked("--sql").stdout
    one = looked("packages.embedding", "--only", "recall-target").stdout
    assert one == "healthy: 1 column, 1 check\n"
    spoiled(patient)
    assert "nothing wrong" not in looked().stdout


def test_the_list_of_checks() -> None:
    """Each with its severity."""
    result = looked("--list")
    assert result.exit_code == 0
    assert all(check.name in result.stdout and check.description in result.stdout for check in CHECKS)
    assert "docs/doctor.md" in result.stdout
    listed = json.loads(looked("--list", "--json").stdout)
    assert [one["name"] for one in listed] == [check.name for check in CHECKS]


def test_a_wrong_check_is_an_error() -> None:
    """Before anything is looked at or measured."""
    with pytest.raises(DefinitionError, match="no check 'nothing'"):
        looked("--only", "nothing", "--measure")


# -- for machines --------------------------------------------------------------------------------------------------


def test_json(patient: Patient) -> None:
    """Everything of a finding, and the same exit code."""
    spoiled(patient)
    result = looked("--json")
    assert result.exit_code == 20
    said = json.loads(result.stdout)
    assert said["worst"] == "critical"
    assert [one["severity"] for one in said["findings"]] == ["critical", "warning", "info"]
    assert set(said["findings"][0]) == set(Finding.__dataclass_fields__)
    assert said["findings"][0]["values"]["rows"] == 1
    assert said["not_checked"] == []
    assert not said["standby"]


def test_as_a_monitoring_plugin(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """0, 1, 2 and 3, with one line that says the worst, and numbers behind a bar."""
    result = looked("--nagios")
    assert result.exit_code == 0
    assert result.stdout == "PGMRL OK - nothing found|critical=0 warning=0 info=0 not_checked=0\n"
    spoiled(patient)
    result = looked("--nagios")
    assert result.exit_code == 2
    first = result.stdout.splitlines()[0]
    assert first.startswith("PGMRL CRITICAL - short-missing: 1 of ")
    assert first.endswith("|critical=1 warning=1 info=1 not_checked=0")
    assert looked("packages.embedding", "--nagios").exit_code == 1
    result = looked("nothing.embedding", "--nagios")
    assert result.exit_code == 3
    assert result.stdout.startswith("PGMRL UNKNOWN - there is no table")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    result = looked("--nagios")
    assert result.exit_code == 3
    assert "cannot reach" in result.stdout


def test_exit_codes_of_the_program(patient: Patient) -> None:
    """As a shell sees them: those of findings are none of those of errors."""

    def code(*arguments: str) -> int:
        url = patient.engine.url.render_as_string()
        command = [sys.executable, "-m", "pgmrl.cli", "doctor", "--database-url", url, *arguments]
        return subprocess.run(command, check=False, capture_output=True, env=os.environ).returncode  # noqa: S603

    assert code() == 0
    spoiled(patient)
    assert code() == 20
    assert code("--skip", "short-missing") == 10
    assert code("nothing.embedding") == 1
    assert code("--wrong") == 2


def parsed(metrics: str) -> Samples:
    """Samples by name and labels, as Prometheus' own parser reads them."""
    families = list(text_string_to_metric_families(metrics))
    assert all(family.documentation for family in families)
    found = [sample for family in families for sample in family.samples]
    keys = [(one.name, tuple(sorted(one.labels.items()))) for one in found]
    assert len(set(keys)) == len(keys), "a series twice"
    return dict(zip(keys, [one.value for one in found], strict=True))


def test_prometheus(patient: Patient) -> None:
    """Findings and the columns' numbers."""
    spoiled(patient)
    result = looked("--prometheus")
    assert result.exit_code == 20
    found = parsed(result.stdout)
    counts = {key[1][0][1]: value for key, value in found.items() if key[0] == "pgmrl_doctor_findings"}
    assert counts == {"critical": 1, "warning": 1, "info": 1}
    labels = (("check", "index-missing"), ("severity", "warning"), ("subject", "public.packages.embedding"))
    assert found["pgmrl_doctor_finding", labels] == 1
    column = (
        ("column", "embedding"),
        ("schema", "public"),
        ("short_column", f"embedding_short_{SHORT}"),
        ("table", "packages"),
    )
    assert found["pgmrl_index_valid", column] == 0
    assert found["pgmrl_rows", column] == ROWS
    assert found["pgmrl_recall", column] == 0.95
    assert found["pgmrl_recall_target", column] == 0.9
    assert found["pgmrl_recall_below_target", column] == 0
    assert len([key for key in found if key[0] == "pgmrl_index_valid"]) == 3
    only = parsed(looked("notes.embedding", "--prometheus").stdout)
    assert {dict(key[1])["table"] for key in only if key[0] == "pgmrl_index_bytes"} == {"notes"}


def test_prometheus_with_hostile_names() -> None:
    """Quotes, backslashes and line ends come back from the parser as they were; findings alike are counted."""
    name = 'a"b\\c\nd'
    finding = Finding("plan", "warning", name, "m", "r")
    report = Report((finding, finding), (NotChecked("plan", name, "x"),), (), ("plan",))
    found = parsed(prometheus_metrics(report))
    assert found["pgmrl_doctor_finding", (("check", "plan"), ("severity", "warning"), ("subject", name))] == 2
    assert found["pgmrl_doctor_not_checked", (("check", "plan"), ("subject", name))] == 1


# -- the view ------------------------------------------------------------------------------------------------------


def test_the_view_for_dashboards(patient: Patient) -> None:
    """One row a short column, with what the doctor would say."""
    with patient.engine.connect() as connection:
        rows = {one.table_name: one for one in health(connection)}
    assert set(rows) == {"packages", "notes", "papers_embedding"}
    packages = rows["packages"]
    assert (packages.index_state, packages.estimated_rows, packages.recall_target) == ("valid", ROWS, 0.9)
    assert (packages.recall, packages.below_target, packages.recall_k) == (0.95, False, 10)
    assert rows["notes"].rotation == patient.ward.rotation.id
    assert rows["papers_embedding"].recall == 0.95, "under the table that holds the short vectors"
    assert rows["papers_embedding"].below_target is None
    patient.run(
        f"CREATE INDEX again ON packages USING hnsw (embedding_short_{SHORT} halfvec_cosine_ops)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'again'::regclass",
        "ALTER TABLE notes SET (autovacuum_enabled = off)",
        "DELETE FROM notes WHERE id % 2 = 0",
        "ANALYZE notes",
    )
    with patient.engine.begin() as connection:
        recorded(connection, patient.ward.packages, 0.8, days=1)
    with patient.engine.connect() as connection:
        rows = {one.table_name: one for one in health(connection)}
    assert rows["packages"].index_state == "valid", "of two indexes the one that serves"
    assert (rows["packages"].recall, rows["packages"].below_target) == (0.8, True)
    for number in ("shortlist = 120", "ef_search = 90", "k = 5"):
        patient.run("UPDATE pgmrl.settings SET k = 10, shortlist = 100, ef_search = 100")
        patient.run(f"UPDATE pgmrl.settings SET {number}")
        with patient.engine.connect() as connection:
            (other,) = (one for one in health(connection) if one.table_name == "packages")
        assert (other.recall, other.recall_target, other.below_target) == (0.8, 0.9, None)
        assert "pgmrl_recall_below_target{" not in looked("packages.embedding", "--prometheus").stdout
    assert rows["notes"].dead_share == pytest.approx(0.5, abs=0.01)
    assert rows["notes"].last_analyze is not None


def test_the_view_shows_recall_to_readers_of_the_table(patient: Patient) -> None:
    """It runs with the rights of who asks: row-level security of the history holds."""
    role = f"dashboard_{patient.engine.url.database}"
    patient.run(f"CREATE ROLE {role}", f"GRANT SELECT ON packages TO {role}")
    try:
        with patient.engine.connect() as connection:
            connection.execute(text(f"SET ROLE {role}"))
            rows = {one.table_name: one for one in health(connection)}
        assert rows["packages"].recall == 0.95
        assert rows["notes"].recall is None
        assert rows["notes"].index_state == "valid"
    finally:
        forgotten(patient, role)


# -- recall over time ----------------------------------------------------------------------------------------------


def test_measuring_adds_to_the_history(patient: Patient) -> None:
    """One row for each column that is searched; and the doctor looks at it."""
    result = looked("--measure", "--seconds", "120")
    assert result.exit_code in {0, 10, 20}
    assert result.stdout.count("recorded") == 3
    with patient.engine.connect() as connection:
        counted = connection.execute(text("SELECT count(*), max(queries) FROM pgmrl.recall_history")).one()
    assert tuple(counted) == (6, 200)


def test_measuring_without_the_right_to_record(patient: Patient) -> None:
    """What was measured is judged all the same, and that it is not kept is said."""
    patient.run("UPDATE pgmrl.settings SET target = 1, k = 10, shortlist = 12, ef_search = 12")
    role = f"reader_{patient.engine.url.database}"
    patient.run(f"CREATE ROLE {role}", f"GRANT SELECT ON packages TO {role}")
    try:
        with patient.engine.connect() as connection:
            connection.exec_driver_sql(f"SET ROLE {role}")
            connection.commit()
            (one,) = measure_columns(connection, "packages.embedding", sample=50)
            assert one.recall is not None
            assert not one.recorded
            assert "permission denied for table recall_history" in str(one.reason)
            asked: dict[str, Any] = {"thresholds": SMALL, "recalls": {one.name: one.recall}}
            report = doctor(connection, "packages.embedding", **asked)
        assert "recall-target" in {finding.check for finding in report}
    finally:
        forgotten(patient, role)


def test_the_history_in_a_terminal_and_as_a_picture(patient: Patient, tmp_path: Path) -> None:
    """A line of characters for each series that can be compared; a PNG."""
    with patient.engine.begin() as connection:
        for number, recall in enumerate((0.9, 0.92, 0.94, 0.8)):
            recorded(connection, patient.ward.packages, recall, days=9 - number)
    result = looked("packages.embedding", "--history", "--plot", tmp_path / "recall.png")
    assert result.exit_code == 0
    assert "█▆▇█▁" in result.stdout
    assert "target 0.9" in result.stdout
    assert (tmp_path / "recall.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (said,) = json.loads(looked("packages.embedding", "--history", "--json").stdout)
    assert [point["recall"] for point in said["measured"]] == [0.95, 0.9, 0.92, 0.94, 0.8]
    assert said["target"] == 0.9
    with pytest.raises(MeasureError, match="cannot be written"):
        looked("--plot", tmp_path / "nowhere" / "recall.png")
    assert looked("--plot", tmp_path / "recall.xyz").exit_code == 2


def test_what_cannot_be_compared_is_not_one_series(patient: Patient) -> None:
    """Other numbers and filters have no target; what another short column had is left out."""
    with patient.engine.begin() as connection:
        for days in (9, 8, 7):
            recorded(connection, patient.ward.packages, 0.5, days=days)
    age = "round(extract(epoch FROM now() - measured_at) / 86400)"
    change = f"UPDATE pgmrl.recall_history SET {{}} WHERE recall = 0.5 AND {age} = {{}}"
    patient.run(
        change.format("shortlist = 40", 9),
        change.format("filter = 'section = 1'", 8),
        change.format("short_column = 'before'", 7),
    )
    with patient.engine.connect() as connection:
        found = recall_series(connection, patient.ward.packages.c.embedding, "packages")
    said = {(one.numbers[1], one.filter): (one.target, [point.recall for point in one.measured]) for one in found}
    assert said == {
        (100, None): (0.9, [0.95]),
        (40, None): (None, [0.5]),
        (100, "section = 1"): (None, [0.5]),
    }


def test_the_history_says_what_holds_it_up(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the checks do: a table that somebody holds is no traceback."""
    monkeypatch.setattr(bounded_reads, "LOCK_SECONDS", 0.2)  # nobody lets go of it meanwhile
    with patient.engine.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE packages IN ACCESS EXCLUSIVE MODE")
        for option in ("--history", "--measure"):
            with pytest.raises(Locked, match="try again later"):
                looked(option)


def test_measuring_wants_a_connection_of_its_own(patient: Patient) -> None:
    """Each row of history is committed, and with it whatever the caller had begun; one that commits itself will do."""
    with patient.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(MeasureError, match="in a transaction"):
            measure_columns(connection, "papers.embedding", sample=5)
    with patient.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        told: list[str] = []
        (one,) = measure_columns(connection, "papers.embedding", sample=5, progress=lambda what, *_: told.append(what))
        assert one.recorded
    assert set(told) == {"recall of public.papers_embedding.embedding"}


def test_a_wrong_option_is_unknown_to_a_monitor() -> None:
    """Exit code 2 would be CRITICAL; wherever --nagios stands, in one line."""
    wrong = {
        "--nonsense": ["--nonsense"],
        "'--seconds'": ["--seconds", "a while"],
        "seconds=-1: expected at least 0": ["--seconds", "-1"],
        "no check 'nothing'": ["--only", "nothing"],
        "--nagios with --history": ["--history"],
        "--nagios with --history or --plot": ["--plot", "recall.png"],
        "not of the form": ["--database-url", "sqlite://"],
    }
    for message, options in wrong.items():
        for arguments in ([*options, "--nagios"], ["--nagios", *options]):
            result = looked(*arguments)
            assert result.exit_code == 3
            assert result.stdout.startswith("PGMRL UNKNOWN - ")
            assert result.stdout.count("\n") == 1
            assert message in result.stdout


@pytest.mark.parametrize("option", ["--prometheus", "--measure"])
@pytest.mark.parametrize("shown", [["--history"], ["--plot", "recall.png"]])
def test_the_history_is_no_check(option: str, shown: list[str]) -> None:
    """A monitor must not take it for one."""
    result = looked(*shown, option)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert option in result.stderr


def test_no_history_yet(patient: Patient, tmp_path: Path) -> None:
    """Says what makes one."""
    patient.run("DELETE FROM pgmrl.recall_history")
    assert "--record" in looked("--history").stdout
    with pytest.raises(MeasureError, match="no recall has been recorded"):
        looked("--plot", tmp_path / "recall.png")
    patient.run("UPDATE pgmrl.alembic_version SET version_num = '0000'")
    with pytest.raises(NotMigrated, match="pgmrl upgrade"):
        looked("--history")
