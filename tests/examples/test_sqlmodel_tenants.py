"""SQLModel with a schema for each tenant and row-level security for its teams, behind PgBouncer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from tests.clients.conftest import pgbouncer_as
from tests.databases import connected
from tests.examples.conftest import application

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgmrl.local import LocalServer
    from tests.corpus import Corpus
    from tests.examples.conftest import Application

ROWS = {("acme", "red"): 3_000, ("acme", "blue"): 40, ("Büro 9", "red"): 1_000}
LEAVING = "Büro 10"  # a tenant without notes, who goes back whichever test comes next
QUESTION = "remove a directory and everything in it"
ROLE = text("DO $$ BEGIN CREATE ROLE notes_app LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$")


@pytest.fixture(scope="module")
def app(server: LocalServer, socket_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The application, its tenants migrated past PgBouncer, itself behind it."""
    log = tmp_path_factory.mktemp("pgbouncer") / "log"
    with application(server, "sqlmodel_tenants") as app, pgbouncer_as("notes_app", socket_path, log) as port:
        with connected(app.owner_url) as engine, engine.begin() as connection:
            name = engine.url.database
            connection.execute(ROLE)
        app.environment["OWNER_DATABASE_URL"] = app.owner_url
        app.environment["DATABASE_URL"] = f"postgresql+psycopg://notes_app@127.0.0.1:{port}/{name}"
        for tenant in dict.fromkeys([*(tenant for tenant, _ in ROWS), LEAVING]):
            app.run("alembic", "-x", f"tenant={tenant}", "upgrade", "head")
        yield app


@pytest.fixture(scope="module")
def module(app: Application, corpus: Corpus) -> Iterator[Any]:
    """Its code; each team has written its notes."""
    bodies = iter([passage["text"] for passage in corpus.passages])
    with app.imported() as main:
        for (tenant, team), count in ROWS.items():
            main.write(tenant, team, [next(bodies) for _ in range(count)])
        yield main


@pytest.mark.parametrize("tenant", dict.fromkeys(tenant for tenant, _ in ROWS))
def test_the_migration_is_what_autogenerate_writes(app: Application, tenant: str) -> None:
    """In each tenant's schema."""
    assert "No new upgrade operations detected." in app.run("alembic", "-x", f"tenant={tenant}", "check")


def test_each_team_finds_its_own(app: Application, module: Any) -> None:
    """All it has where it has few; the nearest where it has many; exact distances, from clients at the same time."""
    query = module.embed_query(module.embedder, QUESTION).astype(np.float16).astype(np.float64)

    def nearest(tenant: str, team: str) -> tuple[list[int], list[float]]:
        rows = app.rows(f"SELECT id, embedding::vector::real[] FROM \"{tenant}\".note WHERE team = '{team}'")
        vectors = np.array([row.embedding for row in rows], np.float64)
        distances = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        order = np.argsort(distances, kind="stable")[:50]
        return [rows[n].id for n in order], list(distances[order])

    truth = {who: nearest(*who) for who in ROWS}
    with ThreadPoolExecutor(6) as pool:
        for who, found in pool.map(lambda who: (who, module.find(*who, QUESTION, k=50)), list(ROWS) * 8):
            ids, distances = truth[who]
            assert len(found) == len(ids) == min(50, ROWS[who])
            assert {note.team for note, _ in found} == {who[1]}
            assert len({note.id for note, _ in found} & set(ids)) >= 0.9 * len(ids)
            assert found[0][1] == pytest.approx(distances[0], abs=1e-6)


def test_a_team_without_rows_finds_nothing(module: Any) -> None:
    """Whatever the others have."""
    assert module.find("acme", "green", QUESTION) == []


def test_notes_are_json(module: Any) -> None:
    """A loaded vector is a list."""
    ((note, _),) = module.find("acme", "blue", QUESTION, k=1)
    assert isinstance(note.embedding, list)
    assert json.loads(note.model_dump_json())["embedding"] == note.embedding


def test_the_command(app: Application, module: Any) -> None:
    """As in a terminal."""
    lines = app.run("main.py", "acme", "blue", QUESTION).splitlines()
    expected = module.find("acme", "blue", QUESTION)
    assert [line.split()[0] for line in lines] == [f"{distance:.3f}" for _, distance in expected]


def test_a_tenant_goes_back(app: Application, module: Any) -> None:
    """The others stay as they are."""
    before = [note.id for note, _ in module.find("acme", "red", QUESTION)]
    app.run("alembic", "-x", f"tenant={LEAVING}", "downgrade", "0001")
    assert [note.id for note, _ in module.find("acme", "red", QUESTION)] == before
    columns = text(
        "SELECT array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns "
        f"WHERE table_schema = '{LEAVING}' AND table_name = 'note'"
    )
    assert app.rows(columns.text)[0][0] == ["id", "team", "body"]
