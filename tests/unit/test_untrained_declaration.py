"""A declaration of a short vector that its model was not trained for warns, where it is written."""

from __future__ import annotations

from typing import Any

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Embed, Matryoshka, Rotation, Short, VectorArray, add_short, matryoshka
from pgmrl.errors import UntrainedTruncationWarning

NOMIC = "sentence-transformers:nomic-ai/nomic-embed-text-v1.5"


def only(caught: pytest.WarningsRecorder) -> str:
    """The one warning, of this file."""
    (warning,) = caught.list
    assert warning.filename == __file__
    return str(warning.message)


def test_a_class_a_mixin_and_a_copied_table() -> None:
    """Once for each table; a mixin's column is none, and a copy of the table says nothing more."""

    class Base(DeclarativeBase):
        pass

    class Texts:
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        embedding: Mapped[VectorArray] = matryoshka(768, Short(100), embed=Embed("body", f"{NOMIC}?batch_size=8"))

    with pytest.warns(UntrainedTruncationWarning) as caught:

        class Page(Texts, Base):
            __tablename__ = "pages"

    assert only(caught).startswith(f"pages.embedding: {NOMIC}?batch_size=8 was trained for truncation to 64, 128, 256")
    assert "a rotation" in only(caught)
    Page.metadata.tables["pages"].to_metadata(MetaData())


def test_add_short() -> None:
    """On a column that is there."""
    table = Table("pages", MetaData(), Column("id", Integer, primary_key=True), Column("e", VECTOR(768)))
    with pytest.warns(UntrainedTruncationWarning, match="pages.e: ") as caught:
        add_short(table.c.e, Short(96), stored=False, embed=Embed("body", NOMIC))
    only(caught)


@pytest.mark.parametrize(
    ("short", "by"),
    [
        (Short(128), NOMIC),
        (Short(768), NOMIC),
        (Short(100, by=Rotation()), NOMIC),
        (Short(100), "sentence-transformers:Qwen/Qwen3-Embedding-0.6B"),
        (Short(100), "a.module:model"),
    ],
)
def test_what_says_nothing(short: Short, by: str) -> None:
    """Trained lengths, a rotation, a model that was trained for every length, and one that nobody knows."""
    full: Any = Matryoshka(768, short, embed=Embed("body", by))
    Table("pages", MetaData(), Column("id", Integer, primary_key=True), Column("e", full))
