"""FastAPI, asyncpg and Alembic's async template: 20,000 rows in a pgvector column are searched in two stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from sqlalchemy import inspect, select

from pgmrl import assert_index_used, search
from tests.databases import connected, vacuum
from tests.examples.conftest import application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pgmrl.local import LocalServer
    from tests.examples.conftest import Application

TENANT = "method"  # nine thousand rows
SMALL_TENANT = "property"  # three hundred
QUESTIONS = [
    "close the window when a key is pressed",
    "wait for all tasks to finish",
    "the encoding of a file's name",
    "remove everything from the queue",
    "an option on the command line is wrong",
    "the certificate has expired",
]


@pytest.fixture(scope="module")
def app(server: LocalServer) -> Iterator[Application]:
    """The application as it was, full of rows; then migrated."""
    with application(server, "fastapi_app") as app:
        app.environment["DATABASE_URL"] = app.owner_url.replace("+psycopg:", "+asyncpg:")
        app.run("alembic", "upgrade", "0002")
        assert app.run("load.py").startswith("20,000 passages")
        output = app.run("alembic", "upgrade", "head")
        assert "Traceback" not in output
        with connected(app.owner_url) as engine:
            vacuum(engine, "passages")
        yield app


@pytest.fixture(scope="module")
def module(app: Application) -> Iterator[Any]:
    """Its code."""
    with app.imported() as main:
        yield main


@pytest_asyncio.fixture
async def client(module: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A tenant's client of the running application."""
    transport = httpx.ASGITransport(module.app)
    headers = {"X-Tenant": TENANT}
    async with (
        module.lifespan(module.app),
        httpx.AsyncClient(transport=transport, base_url="http://app", headers=headers) as client,
    ):
        yield client


def test_the_migration_is_what_autogenerate_writes(app: Application) -> None:
    """Nothing is left to do, over asyncpg too."""
    assert "No new upgrade operations detected." in app.run("alembic", "check")


async def test_search(app: Application, module: Any, client: httpx.AsyncClient) -> None:
    """The tenant's rows alone, in the exact order, nearly all of the nearest."""
    rows = app.rows(f"SELECT id, embedding::real[] FROM passages WHERE tenant = '{TENANT}'")
    ids, vectors = [row.id for row in rows], np.array([row.embedding for row in rows], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(ids) > 5_000
    hits = 0
    for question in QUESTIONS:
        query = module.embed_query(module.embedder, question).astype(np.float64)
        distances = 1 - vectors @ query / np.linalg.norm(query)
        answer = (await client.get("/search", params={"q": question})).raise_for_status().json()["hits"]
        assert len(answer) == 10
        for hit in answer:
            assert hit["distance"] == pytest.approx(distances[ids.index(hit["passage"]["id"])], abs=1e-6)
        assert answer == sorted(answer, key=lambda hit: hit["distance"])
        hits += len({hit["passage"]["id"] for hit in answer} & {ids[n] for n in np.argsort(distances)[:10]})
    assert hits / (10 * len(QUESTIONS)) >= 0.9


async def test_pages(app: Application, client: httpx.AsyncClient) -> None:
    """All rows of a tenant, each once, nearest first, to the end."""
    ((count,),) = app.rows(f"SELECT count(*) FROM passages WHERE tenant = '{SMALL_TENANT}'")
    params: dict[str, Any] = {"q": "read a file", "k": 50}
    hits = []
    while True:
        response = await client.get("/search", params=params, headers={"X-Tenant": SMALL_TENANT})
        page = response.raise_for_status().json()
        hits += page["hits"]
        if page["after"] is None:
            break
        params["after"] = page["after"]
    assert len({hit["passage"]["id"] for hit in hits}) == len(hits) == count
    distances = [hit["distance"] for hit in hits]
    assert distances == sorted(distances)


async def test_vectors_are_loaded_where_they_are_asked_for(app: Application, client: httpx.AsyncClient) -> None:
    """As JSON's numbers; the same as stored, under a session that loads nothing later."""
    ((number, stored),) = app.rows(f"SELECT id, embedding::real[] FROM passages WHERE tenant = '{TENANT}' LIMIT 1")
    detail = (await client.get(f"/passages/{number}")).raise_for_status().json()
    assert detail["embedding"] == pytest.approx(stored)
    assert (await client.get(f"/passages/{number}", headers={"X-Tenant": "nobody"})).status_code == 404
    assert (await client.get(f"/passages/{number}/similar", headers={"X-Tenant": "nobody"})).status_code == 404
    similar = (await client.get(f"/passages/{number}/similar", params={"k": 5})).raise_for_status().json()
    assert len(similar) == 5
    assert number not in {hit["passage"]["id"] for hit in similar}


async def test_what_is_written_is_found(client: httpx.AsyncClient) -> None:
    """At once, by its own tenant only."""
    written = {"title": "Timetable", "body": "The night train to the harbour leaves at noon."}
    response = await client.post("/passages", json=written)
    assert response.status_code == 201
    question: dict[str, Any] = {"q": "when does the train leave for the harbour", "k": 1}
    (hit,) = (await client.get("/search", params=question)).json()["hits"]
    assert hit["passage"] == response.json()
    (other,) = (await client.get("/search", params=question, headers={"X-Tenant": SMALL_TENANT})).json()["hits"]
    assert other["passage"]["id"] != hit["passage"]["id"]


@pytest.mark.parametrize("params", [{"q": ""}, {"q": "fonts", "after": "far"}, {"q": "fonts", "k": 0}, {}])
async def test_bad_questions_are_the_clients_fault(client: httpx.AsyncClient, params: dict[str, Any]) -> None:
    """And not an error of the server."""
    assert (await client.get("/search", params=params)).status_code == 422


async def test_the_shortlist_comes_from_the_index(client: httpx.AsyncClient, module: Any) -> None:
    """For a tenant with many rows, through the application's own session."""
    assert client.headers["X-Tenant"] == TENANT
    mine = select(module.Passage).where(module.Passage.tenant == TENANT)
    statement = search(mine, module.Passage.embedding, module.embed_query(module.embedder, QUESTIONS[0]))
    async with module.engine.connect() as connection:
        await connection.run_sync(assert_index_used, statement)


def test_the_way_back(app: Application) -> None:
    """The column stays as it was; nothing else is left."""
    app.run("alembic", "downgrade", "0002")
    with connected(app.owner_url) as engine:
        columns = [column["name"] for column in inspect(engine).get_columns("passages")]
    assert columns == ["id", "tenant", "title", "body", "embedding"]
    assert app.rows("SELECT count(embedding) FROM passages")[0][0] >= 20_000
