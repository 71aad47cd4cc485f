"""Quick start: declare, create, load, search, look at the plan.

    python examples/quickstart.py

Runs against DATABASE_URL, or an embedded PostgreSQL where that is not set. It makes (and makes anew) one table,
`quickstart_docstrings`, with the docstrings of Python's standard library. Needs the extra `local` for its model.
"""

from __future__ import annotations

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Short, VectorArray, compile_sql, database, ingest, matryoshka, search
from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import embed_batches, embed_query, load_embedder
from pgmrl.local import server_url
from pgmrl.measure import recall_at_k


class Base(DeclarativeBase):
    """The application's models."""


class Docstring(Base):
    """One docstring of the standard library."""

    __tablename__ = "quickstart_docstrings"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    kind: Mapped[str]
    summary: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(256, Short(64), metric="cosine")


def main() -> None:
    """Everything, step by step."""
    model = load_embedder("static")  # 256 dimensions, Matryoshka-trained, in the wheel
    with server_url() as url:  # DATABASE_URL, or the embedded server
        engine = create_engine(database.sqlalchemy_url(url))
        with engine.begin() as connection:
            database.create_pgvector(connection)  # CREATE EXTENSION vector, unless it is there
            Base.metadata.drop_all(connection)  # only so that the example can run again
            Base.metadata.create_all(connection)

        texts = docstrings()
        vectors = (vector for _, batch in embed_batches(model, (d.text for d in texts)) for vector in batch)
        rows = (
            {"id": number, "name": d.name, "kind": d.kind, "summary": d.summary} for number, d in enumerate(texts, 1)
        )
        with engine.begin() as connection:
            report = ingest(connection, Docstring.embedding, rows, vectors=vectors)
        print(f"{report.rows:,} rows, {report.null_vectors} without a vector")

        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE) quickstart_docstrings"))

        query = embed_query(model, "wait for several threads to finish")
        statement = search(select(Docstring).where(Docstring.kind == "function"), Docstring.embedding, query, k=5)

        with Session(engine) as session:
            for docstring, distance in session.execute(statement):
                print(f"{distance:.3f}  {docstring.name}: {docstring.summary[:60]}")

            sent, parameters = compile_sql(search(select(Docstring.name), Docstring.embedding, query, k=5))
            for (line,) in session.connection().exec_driver_sql(f"EXPLAIN (COSTS OFF) {sent}", parameters):
                print(line[:110])

            truth = search(select(Docstring.name), Docstring.embedding, query, k=5, exact=True)
            found = search(select(Docstring.name), Docstring.embedding, query, k=5)
            recall = recall_at_k(
                [distance for _, distance in session.execute(found)],
                [distance for _, distance in session.execute(truth)],
            )
            print(f"recall@5 of this query: {recall:.2f}")
        engine.dispose()


if __name__ == "__main__":
    main()
