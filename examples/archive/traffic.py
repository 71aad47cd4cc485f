"""The application in use: it reads, writes and searches until its standard input ends, then says how it went.

It is started once and never restarted: whatever happens to the table, this code does not know of it.
"""

import os
import sys
import threading
import time

import numpy as np
from models import Note
from sqlalchemy import create_engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

stopped = threading.Event()


def wait_for_the_end() -> None:
    """Standard input ends when the application is to stop."""
    sys.stdin.read()
    stopped.set()


threading.Thread(target=wait_for_the_end, daemon=True).start()
engine = create_engine(os.environ["DATABASE_URL"])
random = np.random.default_rng(1)
done, longest = 0, 0.0
while not stopped.is_set():
    vector = random.normal(size=256).astype(np.float32)
    number = int(random.integers(1, 4_000))
    began = time.perf_counter()
    with Session(engine) as session:
        session.execute(select(Note.title).where(Note.id == number))
        session.execute(update(Note).where(Note.id == number).values(body=func.upper(Note.body)))
        inserted = session.execute(
            insert(Note).returning(Note.id), [{"title": "new", "body": "new", "embedding": vector}]
        )
        session.execute(update(Note).where(Note.id == inserted.scalar_one()).values(embedding=vector[::-1]))
        if done % 3 == 0:
            session.execute(delete(Note).where(Note.title == "new", Note.id % 3 == 0))
        session.commit()
    longest = max(longest, time.perf_counter() - began)
    done += 1
    time.sleep(0.02)
print(f"{done:,} transactions, none failed; the longest took {longest * 1000:,.0f} ms")
