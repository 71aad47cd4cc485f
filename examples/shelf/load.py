"""Fill the shelf with docstrings of the standard library, as it was before anybody thought of vectors."""

import os

from models import Base, Entry, Module
from sqlalchemy import create_engine, insert

from pgmrl.demo.corpus import docstrings

ENTRIES = 2_000

found = docstrings()[:: max(1, len(docstrings()) // ENTRIES)][:ENTRIES]
names = sorted({one.module for one in found})
modules = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
numbers = {module["name"]: module["id"] for module in modules}
entries = [{"module_id": numbers[one.module], "name": one.name, "text": one.text, "kind": one.kind} for one in found]
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(insert(Module), modules)
    connection.execute(insert(Entry), entries)
print(f"{len(entries):,} entries of {len(modules)} modules in {', '.join(Base.metadata.tables)}")
