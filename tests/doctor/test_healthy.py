"""Nothing is found where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor import CHECKS, Thresholds

if TYPE_CHECKING:
    from tests.doctor.conftest import Patient


def test_a_healthy_database_gives_no_finding(patient: Patient) -> None:
    """Prefix, rotation and side table; all checks were made."""
    report = patient.see(thresholds=Thresholds())
    assert report.findings == ()
    assert report.not_checked == ()
    assert report.worst is None
    assert len(report.columns) == 3
    assert report.checks == tuple(check.name for check in CHECKS)
    assert not report.standby
    assert patient.found() == {}


def test_declared_columns_give_no_finding_either(patient: Patient) -> None:
    """And names are the same columns, however they are written."""
    ward = patient.ward
    assert patient.found(ward.packages.c.embedding, ward.notes.c.embedding, ward.papers.c.embedding) == {}
    report = patient.see("packages.embedding", "public.packages.embedding", "papers.embedding")
    assert report.findings == ()
    shorts = ("packages.embedding (embedding_short_32)", "papers_embedding.embedding (embedding_short_32)")
    assert report.columns == tuple(f"public.{short}" for short in shorts)
