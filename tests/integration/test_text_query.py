"""Search by text: the declaration knows the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Embed, Short, VectorArray, add_short, matryoshka, query_vector, search
from pgmrl.embedders import load_embedder
from pgmrl.embedding_queue import embedded_column, run_worker
from pgmrl.errors import DefinitionError, EmbedderError, SearchError
from pgmrl.model.types import NumpyVector
from pgmrl.searching import text_query

if TYPE_CHECKING:
    from collections.abc import Sequence


class Base(DeclarativeBase):
    """The models."""


class Package(Base):
    """Kept in step with its summary."""

    __tablename__ = "packages"
    id: Mapped[int] = mapped_column(primary_key=True)
    summary: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(256, Short(64), embed=Embed("{summary}", by="static"))
    other: Mapped[Any] = mapped_column(NumpyVector(256), nullable=True)
    narrow: Mapped[Any] = mapped_column(NumpyVector(8), nullable=True)


add_short(Package.other, Short(64))
add_short(Package.narrow, Short(4), embed=Embed("summary", by="static"))


def test_from_a_text_to_rows(engine: Engine) -> None:
    """Written as text, found by text; the same rows as by the vector of the model's own."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        texts = ["a game with trains", "a database server", "a web server", "numbers for children"]
        session.add_all([Package(summary=value) for value in texts])
        session.commit()
        run_worker(engine, embedded_column(session.connection(), "packages.embedding"), load_embedder("static"))
        rows = session.execute(search(select(Package), Package.embedding, text="railway game", k=2)).all()
        vector = load_embedder("static").embed_queries(["railway game"])[0]
        by_vector = session.execute(search(select(Package), Package.embedding, vector, k=2)).all()
    assert rows == by_vector
    assert rows[0][0].summary == "a game with trains"


def test_query_vectors_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is embedded once, and nobody can change what the next one gets."""
    model = load_embedder("static")
    embedded: list[str] = []

    def embed_queries(texts: Sequence[str]) -> Any:
        embedded.extend(texts)
        return type(model).embed_queries(model, texts)

    monkeypatch.setattr(model, "embed_queries", embed_queries)
    monkeypatch.setattr(text_query, "_model", lambda _by: model)
    text_query._vector.cache_clear()
    first = query_vector(Package.embedding, "one")
    assert query_vector(Package.embedding, "one") is first
    assert embedded == ["one"]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    text_query._vector.cache_clear()


def test_what_cannot_be_searched() -> None:
    """Both a vector and a text, a blank text, a column without a model, or with another one's dimensions."""
    statement = select(Package)
    with pytest.raises(SearchError, match="got both"):
        search(statement, Package.embedding, [1.0] * 256, text="a")
    for value in ("", " \n", "\ud800", 3):
        with pytest.raises(SearchError, match="expected a text to search for"):
            search(statement, Package.embedding, text=value)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="does not say which model"):
        search(statement, Package.other, text="a")
    with pytest.raises(EmbedderError, match="expected vectors of 8 dimensions"):
        search(statement, Package.narrow, text="a")
