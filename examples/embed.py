"""Keep vectors in step with texts: `python examples/embed.py` runs docs/embed.md on a table of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Embed, Short, VectorArray, database, local, matryoshka, search
from pgmrl.embedders import load_embedder
from pgmrl.embedding_queue import embedded_column, run_worker


class Base(DeclarativeBase):
    """The application's models."""


class Article(Base):
    """A text, and a vector that nobody has to bring."""

    __tablename__ = "embed_articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str | None]
    embedding: Mapped[VectorArray] = matryoshka(256, Short(64), embed=Embed("{title}\n{body}", by="static"))


def main() -> None:
    """From an empty table to a search by text."""
    with ExitStack() as stack:
        url = os.environ.get("DATABASE_URL") or stack.enter_context(local.server_url())
        engine = create_engine(database.sqlalchemy_url(url))
        with engine.begin() as connection:
            database.upgrade(connection)
            connection.execute(text("DROP TABLE IF EXISTS embed_articles"))
            Base.metadata.create_all(connection)

        with Session(engine) as session:
            session.add(Article(title="Steam", body="How a locomotive works"))
            session.add(Article(title="Sourdough", body="Flour, water and patience"))
            session.commit()  # both rows are marked

        with engine.connect() as connection:
            column = embedded_column(connection, "embed_articles.embedding")
        print(run_worker(engine, column, load_embedder("static")))  # what `pgmrl embed` does

        with Session(engine) as session:
            rows = session.execute(search(select(Article), Article.embedding, text="railway engine", k=1)).all()
            print("found:", *(article.title for article, _ in rows))
        engine.dispose()


if __name__ == "__main__":
    main()
