"""Give every entry without a vector one: once after the migration, and later whenever entries were added."""

import os

from models import Entry
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session

from pgmrl.embedders import load_embedder

model = load_embedder("static")
with Session(create_engine(os.environ["DATABASE_URL"])) as session:
    rows = session.execute(select(Entry.id, Entry.text).where(Entry.embedding.is_(None))).all()
    vectors = model.embed_documents([row.text for row in rows])
    session.execute(
        update(Entry), [{"id": row.id, "embedding": vector} for row, vector in zip(rows, vectors, strict=True)]
    )
    session.commit()
print(f"embedded {len(rows):,} entries")
