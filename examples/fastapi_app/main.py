"""Search the passages of a tenant by meaning: `fastapi dev main.py`, with DATABASE_URL set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import numpy as np
from db import DatabaseSession, engine
from fastapi import FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from models import Passage
from pydantic import BaseModel, BeforeValidator, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import undefer

from pgmrl import check_schema, search
from pgmrl.embedders import embed_query, load_embedder
from pgmrl.errors import EmbedderError

embedder = load_embedder("static")  # 256 dimensions, in the wheel


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Refuse to start on a database that lacks a migration."""
    async with engine.connect() as connection:
        await connection.run_sync(check_schema, Passage.embedding)
    yield
    await engine.dispose()


app = FastAPI(title="Passages", lifespan=lifespan)
Tenant = Annotated[str, Header(alias="X-Tenant")]
Count = Annotated[int, Query(ge=1, le=100)]
LastHit = Annotated[str | None, Query(pattern=r"^\d(\.\d+)?(e-\d+)?,\d+$")]  # its distance and its key


Floats = Annotated[list[float], BeforeValidator(lambda vector: np.asarray(vector).tolist())]  # whatever was loaded


class NewPassage(BaseModel):
    """A passage to keep."""

    title: str
    body: str


class Summary(BaseModel):
    """A passage without its vector."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    body: str


class Detail(Summary):
    """A passage with its vector."""

    embedding: Floats


class Hit(BaseModel):
    """A passage that was found, and how far it is from the question."""

    passage: Summary
    distance: float


class Page(BaseModel):
    """Some hits, and what to ask for to get those behind them."""

    hits: list[Hit]
    after: str | None


@app.exception_handler(EmbedderError)
async def not_understood(_: Request, error: EmbedderError) -> JSONResponse:
    """A question without a word that the model knows."""
    return JSONResponse({"detail": str(error)}, 422)


@app.get("/search")
async def find(session: DatabaseSession, tenant: Tenant, q: str, k: Count = 10, after: LastHit = None) -> Page:
    """The passages nearest to a question; `after` of one page asks for the next."""
    last = None
    if after is not None:
        distance, _, key = after.partition(",")
        last = float(distance), int(key)
    mine = select(Passage).where(Passage.tenant == tenant)
    rows = (await session.execute(search(mine, Passage.embedding, embed_query(embedder, q), k=k, after=last))).all()
    hits = [Hit(passage=Summary.model_validate(passage), distance=distance) for passage, distance in rows]
    more = f"{hits[-1].distance!r},{hits[-1].passage.id}" if len(hits) == k else None
    return Page(hits=hits, after=more)


@app.get("/passages/{number}")
async def read(session: DatabaseSession, tenant: Tenant, number: int) -> Detail:
    """A passage with its vector, which has to be asked for: an AsyncSession loads nothing later."""
    mine = select(Passage).where(Passage.tenant == tenant, Passage.id == number)
    passage = await session.scalar(mine.options(undefer(Passage.embedding)))
    if passage is None:
        raise HTTPException(404)
    return Detail.model_validate(passage)


@app.get("/passages/{number}/similar")
async def similar(session: DatabaseSession, tenant: Tenant, number: int, k: Count = 10) -> list[Hit]:
    """The passages nearest to one of the tenant's own."""
    passage = await read(session, tenant, number)
    others = select(Passage).where(Passage.tenant == tenant, Passage.id != number)
    rows = await session.execute(search(others, Passage.embedding, passage.embedding, k=k))
    return [Hit(passage=Summary.model_validate(passage), distance=distance) for passage, distance in rows]


@app.post("/passages", status_code=201)
async def write(session: DatabaseSession, tenant: Tenant, new: NewPassage) -> Summary:
    """Keep a passage; it is found from then on."""
    (vector,) = embedder.embed_documents([new.body])
    passage = Passage(tenant=tenant, title=new.title, body=new.body, embedding=vector)
    session.add(passage)
    await session.commit()
    return Summary.model_validate(passage)
