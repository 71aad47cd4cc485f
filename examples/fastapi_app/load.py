"""Fill the table: 20,000 passages of the standard library's docstrings, a tenant for each kind of object."""

import asyncio
import re

from db import engine
from models import Passage
from sqlalchemy import insert

from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import embed_batches, load_embedder

ROWS = 20_000
PARTS = re.compile(r"\n\s*\n|(?<=[.:])\s")  # paragraphs, sentences


def passages() -> list[dict[str, str]]:
    """Rows without their vectors; each text once."""
    texts = {" ".join(part.split()): docstring for docstring in docstrings() for part in PARTS.split(docstring.text)}
    rows = [
        {"tenant": docstring.kind, "title": docstring.name, "body": body}
        for body, docstring in texts.items()
        if len(body.split()) > 2
    ]
    return rows[:ROWS]


async def load() -> None:
    """Embed and insert, batch by batch."""
    rows = passages()
    remaining = iter(rows)
    async with engine.begin() as connection:
        for bodies, vectors in embed_batches(load_embedder("static"), (row["body"] for row in rows)):
            batch = [{**next(remaining), "embedding": vector} for _, vector in zip(bodies, vectors, strict=True)]
            await connection.execute(insert(Passage), batch)
    await engine.dispose()
    print(f"{len(rows):,} passages of {len({row['tenant'] for row in rows})} tenants")


if __name__ == "__main__":
    asyncio.run(load())
