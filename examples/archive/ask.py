"""Search the archive, and compare with the truth."""

import os

from models import Note
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from pgmrl import check_schema, search
from pgmrl.embedders import load_embedder

questions = ["remove a directory", "parse a date", "send an e-mail", "compress a file", "a lock between threads"]
vectors = load_embedder("static").embed_queries(questions)
with Session(create_engine(os.environ["DATABASE_URL"])) as session:
    check_schema(session, Note.embedding)
    recalled = 0
    for question, vector in zip(questions, vectors, strict=True):
        rows = session.execute(search(select(Note.title), Note.embedding, vector, k=10)).all()
        exact = session.execute(search(select(Note.title), Note.embedding, vector, k=10, exact=True)).all()
        recalled += sum(row.distance <= exact[-1].distance + 1e-6 for row in rows)
        print(f"{question}: {rows[0].title}")
print(f"recall@10: {recalled / (10 * len(questions)):.2f}")
