"""Fill the archive with docstrings of the standard library and their vectors."""

import os

from models import Note
from sqlalchemy import create_engine, insert

from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import load_embedder

NOTES = 4_000

documented = docstrings()
chosen = documented[:: max(1, len(documented) // NOTES)][:NOTES]
vectors = load_embedder("static").embed_documents([docstring.text for docstring in chosen])
notes = [
    {"title": docstring.name, "body": docstring.text, "embedding": vector}
    for docstring, vector in zip(chosen, vectors, strict=True)
]
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(insert(Note), notes)
print(f"{len(notes):,} notes")
