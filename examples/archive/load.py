"""Fill the archive with docstrings of the standard library and their vectors."""

import os

from models import Note
from sqlalchemy import create_engine, insert

from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import load_embedder

NOTES = 4_000

found = docstrings()[:: max(1, len(docstrings()) // NOTES)][:NOTES]
vectors = load_embedder("static").embed_documents([one.text for one in found])
notes = [{"title": one.name, "body": one.text, "embedding": vector} for one, vector in zip(found, vectors, strict=True)]
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(insert(Note), notes)
print(f"{len(notes):,} notes")
