"""Search the shelf."""

import os
import sys

from models import Entry
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from pgmrl import check_schema, search
from pgmrl.embedders import embed_query, load_embedder

question = " ".join(sys.argv[1:]) or "remove a directory and everything in it"
query = embed_query(load_embedder("static"), question)
with Session(create_engine(os.environ["DATABASE_URL"])) as session:
    check_schema(session, Entry.embedding)  # the database is what the model says
    for entry, distance in session.execute(search(select(Entry), Entry.embedding, query, k=3)):
        print(f"{distance:.3f}  {entry.name}")
