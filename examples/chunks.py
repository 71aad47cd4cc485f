"""From documents to best passages: `python examples/chunks.py` runs docs/chunks.md on tables of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack

from sqlalchemy import ForeignKey, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from pgmrl import (
    Chunks,
    Embed,
    Short,
    VectorArray,
    add_chunks,
    database,
    local,
    matryoshka,
    query_vector,
    search_groups,
)
from pgmrl.embedders import load_embedder
from pgmrl.embedding_queue import chunk_table, embedded_column, run_chunk_worker, run_worker


class Base(DeclarativeBase):
    """The application's models."""


class Manual(Base):
    """A long text, which the application writes; it stays as it is."""

    __tablename__ = "chunked_manuals"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]


class Passage(Base):
    """Which part of a manual, and its vector; nobody but the workers writes here."""

    __tablename__ = "chunked_passages"

    id: Mapped[int] = mapped_column(primary_key=True)
    manual_id: Mapped[int] = mapped_column(ForeignKey(Manual.id, ondelete="CASCADE"), index=True)
    ordinal: Mapped[int]
    start: Mapped[int]
    stop: Mapped[int]
    text: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(256, Short(64), embed=Embed("text", by="static"))
    manual: Mapped[Manual] = relationship()


add_chunks(Passage, Chunks("{title}\n\n{body}", by="static", size=24, overlap=4))

STEAM = """Light the fire two hours before departure. Fill the boiler to the upper mark.

Oil every bearing by hand. A dry axle box glows before the first station.

Open the regulator slowly, and the wheels do not slip."""
BREAD = """Feed the starter the evening before. It doubles within eight hours.

Fold the dough four times. Bake it in a closed pot, and open the lid for the last ten minutes."""


def main() -> None:
    """From two manuals to the best passage of each."""
    with ExitStack() as stack:
        url = os.environ.get("DATABASE_URL") or stack.enter_context(local.server_url())
        engine = create_engine(database.sqlalchemy_url(url))
        with engine.begin() as connection:
            database.upgrade(connection)
            connection.execute(text("DROP TABLE IF EXISTS chunked_passages, chunked_manuals CASCADE"))
            Base.metadata.create_all(connection)

        with Session(engine) as session:
            session.add_all([Manual(title="Steam engines", body=STEAM), Manual(title="Sourdough", body=BREAD)])
            session.commit()  # both are marked, to be cut

        with engine.connect() as connection:
            passages = chunk_table(connection, "chunked_passages")
            column = embedded_column(connection, "chunked_passages.embedding")
        assert passages is not None  # noqa: S101 - for the type checker
        model = load_embedder("static")
        print("cut:", run_chunk_worker(engine, passages, model).written)  # what `pgmrl chunk` does
        print("embedded:", run_worker(engine, column, model).written)  # what `pgmrl embed` does

        vector = query_vector(Passage.embedding, "when do I take off the lid?")
        statement = search_groups(select(Passage), Passage.embedding, vector, by=Passage.manual_id, k=2)
        with Session(engine) as session:
            for passage, distance in session.execute(statement):
                print(f"{distance:.2f} {passage.manual.title} {passage.start}-{passage.stop}: {passage.text!r}")
        engine.dispose()


if __name__ == "__main__":
    main()
