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
    kept = 0
    for question, vector in zip(questions, vectors, strict=True):
        found = session.execute(search(select(Note.title), Note.embedding, vector, k=10)).all()
        truth = session.execute(search(select(Note.title), Note.embedding, vector, k=10, exact=True)).all()
        kept += sum(row.distance <= truth[-1].distance + 1e-6 for row in found)
        print(f"{question}: {found[0].title}")
print(f"recall@10: {kept / (10 * len(questions)):.2f}")
