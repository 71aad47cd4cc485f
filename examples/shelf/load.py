"""Fill the shelf with docstrings of the standard library, as it was before anybody thought of vectors."""

import os

from models import Base, Entry, Module
from sqlalchemy import create_engine, insert

from pgmrl.demo.corpus import docstrings

ENTRIES = 2_000

documented = docstrings()
chosen = documented[:: max(1, len(documented) // ENTRIES)][:ENTRIES]
names = sorted({docstring.module for docstring in chosen})
modules = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
numbers = {module["name"]: module["id"] for module in modules}
entries = [
    {"module_id": numbers[docstring.module], "name": docstring.name, "text": docstring.text, "kind": docstring.kind}
    for docstring in chosen
]
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(insert(Module), modules)
    connection.execute(insert(Entry), entries)
print(f"{len(entries):,} entries of {len(modules)} modules in {', '.join(Base.metadata.tables)}")
